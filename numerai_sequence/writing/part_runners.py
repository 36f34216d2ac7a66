"""Part runners: do the independent parts of writing a set: each source, and then each shard file.

Each source has its own scratch. A shard file is made from the scratch that all sources have for its
windows. So the parts can be done one after the other in this process, or many at a time in
other processes that see the same files.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..errors import WorkerError
from ..format.layout import Shard, SourceFile, WriteOptions
from ..system.executor_tasks import RayTasks, run_all
from ..system.files import replaced
from ..system.progress import progress_bar
from .journal import Journal
from .record_batches import Mixer, seal
from .scratch import Scratch
from .scratch_filler import fill_scratch
from .source_columns import Source
from .write_plan import Plan

# A file server takes a lock from a machine that is lost after 90 seconds (NFS).
_CLAIM_SECONDS = 120


@dataclass(frozen=True)
class Work:
    """All that a process needs to know to do any part of a run.

    Attributes
    ----------
    folder : path
        Folder to write into.
    run : str
        Name of the run, as in `Journal`.
    names : tuple of str
        Names of the shard files.
    sources : tuple of path
    plan : Plan
    options : WriteOptions
    mixes : bool
        Permute the rows of each window; otherwise they keep the order of the sources.
    """

    folder: Path
    run: str
    names: tuple[str, ...]
    sources: tuple[Path, ...]
    plan: Plan
    options: WriteOptions
    mixes: bool = True

    def scratch(self, source: int) -> Scratch:
        """Return the scratch of the source with this number, in a folder of its own."""
        folder = self.folder / f"source-{source:05d}"
        return Scratch(folder, self.plan.source_rows[source], self.plan.blocks)

    def scratches(self) -> list[Scratch]:
        return [self.scratch(source) for source in range(len(self.plan.source_rows))]

    def mixer(self, shards: Collection[int]) -> Mixer:
        seed = self.options.seed if self.mixes else None
        return Mixer(self.scratches(), self.sources, self.plan, self.options, shards, seed)

    def drop(self, shard: int) -> None:
        """Delete the scratch of a shard file."""
        windows = self.plan.windows_of(shard)
        for scratch in self.scratches():
            scratch.drop(windows)

    def rows(self, shards: Sequence[int]) -> int:
        return sum(window.rows for window in self.plan.windows if window.shard in shards)


class Runner(Protocol):
    """A way to do the parts of writing a set."""

    def fill(self, sources: Mapping[int, Source], note: Callable[[int, SourceFile], None]) -> None:
        """Put sources into scratch, and call `note` with the number of each finished source."""

    def seal(self, shards: Sequence[int], note: Callable[[int, Shard], None]) -> None:
        """Make shard files from scratch, and call `note` with each one that is on the disk."""


class SerialRunner:
    """Does the parts in this process, one after the other.

    Parameters
    ----------
    work : Work
    progress : bool
        Show progress bars on stderr.
    """

    def __init__(self, work: Work, *, progress: bool) -> None:
        self._work = work
        self._progress = progress

    def fill(self, sources: Mapping[int, Source], note: Callable[[int, SourceFile], None]) -> None:
        work = self._work
        for number, source in sources.items():
            scratch = work.scratch(number)
            note(number, fill_scratch(source, scratch, work.plan, work.run, self._progress))

    def seal(self, shards: Sequence[int], note: Callable[[int, Shard], None]) -> None:
        work = self._work
        mixer = work.mixer(shards)
        before: Future[None] | None = None
        with ThreadPoolExecutor(1) as sealer, _shard_bar(work, shards, self._progress) as bar:
            for number in shards:
                path = work.folder / work.names[number]
                batches = mixer.write(path, number, bar.update)
                sealing = sealer.submit(
                    lambda n, *file: note(n, seal(*file)), number, path, batches
                )
                if before:  # or scratch would wait to be dropped, and fill the disk
                    before.result()
                before = sealing
            if before:
                before.result()


class ParallelRunner:
    """Gives the parts to an executor: each task is a source or a shard file.

    Parameters
    ----------
    work : Work
        The executor's processes must see its folder and its sources at the same paths.
    executor : Executor
    progress : bool
        Show progress bars on stderr.
    """

    def __init__(self, work: Work, executor: Executor, *, progress: bool) -> None:
        self._work = work
        self._executor = executor
        self._progress = progress

    def fill(self, sources: Mapping[int, Source], note: Callable[[int, SourceFile], None]) -> None:
        numbers, rows = list(sources), sum(source.rows for source in sources.values())
        with progress_bar(rows, f"reading {len(sources)} files", self._progress) as bar:

            def note_and_show(place: int, file: SourceFile) -> None:
                sources[numbers[place]].file.check_unchanged()  # or it is not what was counted
                note(numbers[place], file)
                bar.update(file.rows)

            # Ray repeats a task whose machine does not answer, but may still work on it.
            wait_seconds = _CLAIM_SECONDS if isinstance(self._executor, RayTasks) else 0
            tasks = [
                (self._work, number, source.path, wait_seconds)
                for number, source in sources.items()
            ]
            run_all(self._executor, _fill, tasks, note_and_show)

    def seal(self, shards: Sequence[int], note: Callable[[int, Shard], None]) -> None:
        with _shard_bar(self._work, shards, self._progress) as bar:

            def note_and_show(place: int, shard: Shard) -> None:
                note(shards[place], shard)
                bar.update(shard.rows)

            run_all(self._executor, _seal, [(self._work, n) for n in shards], note_and_show)


def _shard_bar(work: Work, shards: Sequence[int], progress: bool) -> Any:
    rows, left = work.rows(range(len(work.names))), work.rows(shards)
    return progress_bar(rows, "writing shards", progress, rows - left)


def _fill(work: Work, number: int, path: Path, wait_seconds: float) -> SourceFile:
    _check_shared(work.folder)
    with closing(Source(path)) as source:
        scratch = work.scratch(number)
        return fill_scratch(source, scratch, work.plan, work.run, False, wait_seconds=wait_seconds)


def _seal(work: Work, number: int) -> Shard:
    _check_shared(work.folder)
    path = work.folder / work.names[number]
    mixer = work.mixer([number])
    with replaced(path) as beside:  # a task of a killed run may still write the same file
        batches = mixer.write(beside, number, lambda rows: None)
    return seal(path, batches)


def _check_shared(folder: Path) -> None:
    """Raise an error if this machine does not see the folder to write into."""
    if not folder.is_dir():
        raise WorkerError(
            f"{folder}: not found on the machine {socket.gethostname()}, which has to write to it; "
            "choose a folder that all machines share at the same path"
        )


def fill_all(runner: Runner, sources: Sequence[Source], journal: Journal) -> tuple[SourceFile, ...]:
    """Put all sources into scratch, except those that are noted as done."""
    filled = dict(journal.done.sources)

    def note(number: int, file: SourceFile) -> None:
        filled[number] = file
        journal.add_source(number, file)

    runner.fill({n: source for n, source in enumerate(sources) if n not in filled}, note)
    return tuple(filled[number] for number in range(len(sources)))


def seal_all(runner: Runner, work: Work, journal: Journal) -> tuple[Shard, ...]:
    """Make all shard files, except those that are noted as done."""
    sealed = dict(journal.done.shards)
    for number in sealed:
        work.drop(number)  # the kill may have come before this

    def note(number: int, shard: Shard) -> None:
        sealed[number] = shard
        journal.add_shard(number, shard)
        work.drop(number)  # no sooner: a shard that is not noted is written again

    numbers = range(len(work.names))
    runner.seal([number for number in numbers if number not in sealed], note)
    return tuple(sealed[number] for number in numbers)
