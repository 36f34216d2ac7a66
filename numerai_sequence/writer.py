"""Writer: turn Parquet files into a folder of shard files, in bounded memory.

The eras are counted first, so that each row's shard and window are known before it is read. Then
the sources are read once, a block of columns at a time: each block is packed, turned into rows and
put into scratch files, while the next one is being decoded. At the end each window is read back,
permuted and written as one record batch. Memory holds two blocks of columns, or one window; never
a whole row group. What is done is noted, and a run goes on from where one like it was killed.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from tqdm import tqdm

from .batches import Mixer, count_values, seal
from .encoding import encode_block
from .feature_sets import FeatureSets, choose_set, find_feature_sets, with_feature_sets
from .layout import Batch, Manifest, Shard, SourceFile, WriteOptions, file_checksum, shard_schema
from .output import Output
from .plan import Plan, make_plan, name_run
from .scratch import Scratch
from .source import Chunk, Source, choose_columns, open_sources
from .steps import Steps
from .windows import Placement

_BLOCK_BYTES = 96 << 20  # of decoded values


def write(
    sources: Any,
    out: Path,
    options: WriteOptions,
    *,
    feature_set: str | None,
    features_json: Path | None,
    overwrite: bool,
    progress: bool,
) -> Path:
    """Write a shard set, or find that it is already there.

    A run that was killed or interrupted is gone on with, where it had the same sources and options.
    Of a set that is there, the feature sets are brought up to date.

    Parameters
    ----------
    sources : path or sequence of paths
    out : path
        The folder; made if it is not there.
    options : WriteOptions
    feature_set : str, optional
        Its features, and no others, are written, whatever `options` say.
    features_json : path, optional
        Where the feature sets are; or features.json beside the first source.
    overwrite : bool
        Replace what is in the folder. The old set stays whole until the new one is.
    progress : bool
        Show a progress bar on stderr.

    Returns
    -------
    path
        `out`.

    Raises
    ------
    SourceError, FeatureError, OutputExistsError
    """
    opened = open_sources(sources)
    # A source that is changed from now on shall not pass for the one that was read.
    statuses = [os.stat(source.path) for source in opened]
    with ExitStack() as stack:
        for source in opened:
            stack.callback(source.close)
        first = opened[0]
        sets = find_feature_sets(features_json, first.path)
        if feature_set is not None:
            features = choose_set(feature_set, sets, first.features, str(first.path))
            options = replace(options, features=features)
        output = Output(out)
        if output.holds_set_of([source.path for source in opened], options, overwrite=overwrite):
            output.update(sets)
        else:
            _write_set(opened, statuses, output, options, sets, progress)
    return out


def _write_set(
    sources: Sequence[Source],
    statuses: Sequence[os.stat_result],
    output: Output,
    options: WriteOptions,
    feature_sets: FeatureSets | None,
    progress: bool,
) -> None:
    features, targets = choose_columns(sources, options.features, options.targets)
    counts = _count_eras(sources, progress)
    plan = make_plan(sources, counts, features, targets, options, block_bytes=_BLOCK_BYTES)
    with ExitStack() as stack:
        folder = stack.enter_context(output.writing())
        names = output.new_names(options.num_shards)
        run = name_run(sources, statuses, options, plan, names)
        steps = stack.enter_context(Steps(folder, run, len(names)))
        if progress and steps.done.meta:
            again = "going on with a run that was interrupted"
            tqdm.write(f"{output.folder}: {again}", file=sys.stderr)
        # In the background, and first: it also brings the files into the page cache.
        background = stack.enter_context(ThreadPoolExecutor(1))
        checksums = [background.submit(file_checksum, source.path) for source in sources]
        scratch = Scratch(folder, [window.rows for window in plan.windows], plan.blocks)
        scratch.cut_meta(steps.done.meta_bytes)
        _fill_scratch(sources, plan, scratch, steps, progress)
        shards = _write_shards(folder, names, plan, scratch, options, steps, progress)
        files = tuple(
            _source_file(source, status, checksum.result())
            for source, status, checksum in zip(sources, statuses, checksums, strict=True)
        )
        manifest = Manifest(options.encoding, features, targets, options, files, shards)
        output.commit(with_feature_sets(manifest, feature_sets))


def _source_file(source: Source, status: os.stat_result, checksum: str) -> SourceFile:
    return SourceFile(str(source.path), status.st_size, status.st_mtime_ns, source.rows, checksum)


def _count_eras(sources: Sequence[Source], progress: bool) -> Counter[str]:
    counts: Counter[str] = Counter()
    for source in sources:
        with _bar(source.rows, f"eras of {source.path.name}", progress) as bar:
            for chunk in source.chunks(rows=1 << 20):
                counts.update(count_values(source.read_eras(chunk)))
                bar.update(chunk.rows)
    return counts


def _fill_scratch(
    sources: Sequence[Source], plan: Plan, scratch: Scratch, steps: Steps, progress: bool
) -> None:
    filler = _Filler(plan, scratch, steps)
    first = 0
    with _one_behind() as encode_behind:
        for source in sources:
            chunks = list(enumerate(source.chunks(rows=plan.rows_per_chunk), first))
            first += len(chunks)
            done = sum(filler.rows_done(number, chunk) for number, chunk in chunks)
            with _bar(source.rows, f"reading {source.path.name}", progress, done) as bar:
                for number, chunk in chunks:
                    filler.add_meta(source, number, chunk)
                    for rows in filler.add_features(source, number, chunk, encode_behind):
                        bar.update(chunk.first_row + rows - bar.n)


class _Filler:
    """Puts the rows of chunks into scratch, but for what is there already."""

    def __init__(self, plan: Plan, scratch: Scratch, steps: Steps) -> None:
        self._plan = plan
        self._scratch = scratch
        self._steps = steps
        self._window_of = {era: i for i, window in enumerate(plan.windows) for era in window.eras}
        # The rows whose features each window has so far.
        self._filled = np.zeros(len(plan.windows), np.int64)

    def rows_done(self, number: int, chunk: Chunk) -> int:
        """Return how many rows the blocks of a chunk that are done amount to."""
        blocks = range(len(self._plan.blocks))
        done = sum((number, block) in self._steps.done.blocks for block in blocks)
        return chunk.rows * done // len(blocks)

    def add_meta(self, source: Source, number: int, chunk: Chunk) -> None:
        if number in self._steps.done.meta:
            return
        sizes = {}
        for rows in source.iter_meta(chunk, self._plan.targets):
            # These are appended: where in the window they go is of no matter.
            placement = self._place(rows["era"], np.zeros_like(self._filled))
            rows = placement.arrange(rows)
            for part in placement.parts:
                sizes[part.window] = self._scratch.add_meta(
                    part.window, rows[part.start : part.stop]
                )
        self._steps.add_meta(number, sizes)

    def add_features(
        self, source: Source, number: int, chunk: Chunk, encode_behind: Callable[..., None]
    ) -> Iterator[int]:
        """Read one block after the other; yield how many rows they amount to."""
        placement = self._place(source.read_eras(chunk), self._filled)
        for place, block in enumerate(self._plan.blocks):
            if (number, place) in self._steps.done.blocks:
                continue
            names = [self._plan.features[feature] for feature in block.features]
            table = source.read_features(chunk, names)
            encode_behind(self._encode, source, number, chunk, place, table, placement)
            yield chunk.rows * (place + 1) // len(self._plan.blocks)

    def _encode(
        self,
        source: Source,
        number: int,
        chunk: Chunk,
        place: int,
        table: pa.Table,
        placement: Placement,
    ) -> None:
        block = self._plan.blocks[place]
        columns = [source.digits(table, name, chunk) for name in table.column_names]
        rows = placement.arrange(encode_block(columns, block))
        for part in placement.parts:
            self._scratch.add_features(part.window, part.row, block, rows[part.start : part.stop])
        self._steps.add_block(number, place)

    def _place(self, eras: pa.ChunkedArray, filled: npt.NDArray[np.int64]) -> Placement:
        return Placement(eras, self._window_of, filled)


@contextmanager
def _one_behind() -> Iterator[Callable[..., None]]:
    """Yield a function that runs a call in a thread, while its caller prepares the next one.

    The error of a call is raised by the next call, or at the end.
    """
    calls: list[Future[None]] = []
    with ThreadPoolExecutor(1) as thread:

        def run(function: Callable[..., None], *arguments: Any) -> None:
            if calls:
                calls.pop().result()
            calls.append(thread.submit(function, *arguments))

        yield run
        if calls:
            calls.pop().result()


def _write_shards(
    folder: Path,
    names: Sequence[str],
    plan: Plan,
    scratch: Scratch,
    options: WriteOptions,
    steps: Steps,
    progress: bool,
) -> tuple[Shard, ...]:
    schema = shard_schema(options.encoding, plan.features, plan.targets)
    rows = sum(window.rows for window in plan.windows)
    sealed = dict(steps.done.shards)
    done = sum(shard.rows for shard in sealed.values())
    sealing = {}
    mixer = Mixer(scratch, plan.windows, schema, len(plan.features), options)
    with ThreadPoolExecutor(1) as sealer, _bar(rows, "writing shards", progress, done) as bar:
        for number, name in enumerate(names):
            windows = [i for i, window in enumerate(plan.windows) if window.shard == number]
            if number in sealed:
                scratch.drop(windows)  # the kill may have come before this
                continue
            path = folder / name
            batches = mixer.write(path, windows, bar.update)
            sealing[number] = sealer.submit(_seal, number, path, batches, windows, scratch, steps)
    sealed |= {number: shard.result() for number, shard in sealing.items()}
    return tuple(sealed[number] for number in range(len(names)))


def _seal(
    number: int,
    path: Path,
    batches: tuple[Batch, ...],
    windows: Sequence[int],
    scratch: Scratch,
    steps: Steps,
) -> Shard:
    shard = seal(path, batches)
    steps.add_shard(number, shard)
    scratch.drop(windows)  # no sooner: a shard that is not noted is written again
    return shard


def _bar(rows: int, description: str, progress: bool, done: int = 0) -> Any:
    return tqdm(
        total=rows,
        initial=done,
        desc=description,
        unit="row",
        unit_scale=True,
        disable=not progress,
        leave=True,
    )
