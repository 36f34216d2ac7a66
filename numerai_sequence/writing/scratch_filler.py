"""Scratch filler: reads a source once, a block of columns at a time, and fills its scratch.

A block is packed and turned into rows in the background, while the next one is decoded.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..format.encodings import COMPACT
from ..format.layout import SourceFile
from ..system.progress import progress_bar
from .folder_claim import claimed
from .journal import Journal
from .missing_features import fill_missing
from .scratch import Scratch
from .shuffle_windows import Placement
from .source_columns import Chunk, Source
from .write_plan import Plan


def fill_scratch(
    source: Source,
    scratch: Scratch,
    plan: Plan,
    run: str,
    progress: bool,
    *,
    wait_seconds: float = 0,
) -> SourceFile:
    """Put the rows of a source into its scratch, except those that are already there.

    Parameters
    ----------
    source : Source
    scratch : Scratch
    plan : Plan
    run : str
        Name of the run, as in `Journal`.
    progress : bool
        Show a progress bar on stderr.
    wait_seconds : float
        How long to wait for another process that fills the same scratch.

    Returns
    -------
    SourceFile
        With the checksum of the file, and the number of missing feature values filled in.

    Raises
    ------
    SourceError
        A value cannot be stored, or the file has changed meanwhile.
    BlockingIOError
        Another process fills the same scratch.
    """
    with ExitStack() as stack:
        stack.enter_context(claimed(scratch.folder, make=True, wait_seconds=wait_seconds))
        journal = stack.enter_context(Journal(scratch.folder, run))
        # In the background, and first: it also brings the file into the page cache.
        background = stack.enter_context(ThreadPoolExecutor(1))
        stop = threading.Event()
        stack.callback(stop.set)  # an error does not wait for it
        checksum = background.submit(source.file.checksum, stop)
        scratch.cut_meta(journal.done.meta_bytes)
        filled = _Filler(source, scratch, plan, journal).fill(progress)
        return replace(source.describe(checksum.result()), filled=filled)


class _Filler:
    """A writer of chunks' rows into scratch, except those that are already there."""

    def __init__(self, source: Source, scratch: Scratch, plan: Plan, journal: Journal) -> None:
        self._source = source
        self._scratch = scratch
        self._plan = plan
        self._journal = journal
        self._window_of = dict.fromkeys(plan.skipped, -1)
        for number, window in enumerate(plan.windows):
            self._window_of |= dict.fromkeys(window.eras, number)
        # The rows whose features each window has so far.
        self._filled = np.zeros(len(plan.windows), np.int64)
        self._missing = journal.done.filled

    def fill(self, progress: bool) -> int:
        """Return how many missing feature values were filled in."""
        source = self._source
        source.scale  # noqa: B018 - found before another thread asks: only one may read the file
        chunks = list(enumerate(source.chunks(rows=self._plan.rows_per_chunk)))
        done = sum(self._rows_done(number, chunk) for number, chunk in chunks)
        with (
            _one_behind() as encode_behind,
            progress_bar(source.rows, f"reading {source.path.name}", progress, done) as bar,
        ):
            for number, chunk in chunks:
                self._add_meta(number, chunk)
                for rows in self._add_features(number, chunk, encode_behind):
                    bar.update(chunk.first_row + rows - bar.n)
        return self._missing

    def _rows_done(self, number: int, chunk: Chunk) -> int:
        """Return the share of a chunk that is done, in rows."""
        blocks = range(len(self._plan.blocks))
        done = sum((number, block) in self._journal.done.blocks for block in blocks)
        return chunk.rows * done // len(blocks)

    def _add_meta(self, number: int, chunk: Chunk) -> None:
        if number in self._journal.done.meta:
            return
        sizes = {}
        for rows in self._source.iter_meta(chunk, self._plan.targets):
            # These are appended, so their place in the window does not matter.
            placement = self._place(rows["era"], np.zeros_like(self._filled))
            rows = placement.arrange(rows)
            for part in placement.parts:
                sizes[part.window] = self._scratch.add_meta(
                    part.window, rows[part.start : part.stop]
                )
        self._journal.add_meta(number, sizes)

    def _add_features(
        self, number: int, chunk: Chunk, encode_behind: Callable[..., None]
    ) -> Iterator[int]:
        """Read one block after the other; yield the share of the chunk that is done, in rows."""
        placement = self._place(self._source.read_eras(chunk), self._filled)
        if not placement.parts:
            yield chunk.rows
            return
        for place, block in enumerate(self._plan.blocks):
            if (number, place) in self._journal.done.blocks:
                continue
            names = [self._plan.features[feature] for feature in block.features]
            table = self._source.read_features(chunk, names)
            encode_behind(self._encode, number, chunk, place, table, placement)
            yield chunk.rows * (place + 1) // len(self._plan.blocks)

    def _encode(
        self, number: int, chunk: Chunk, place: int, table: pa.Table, placement: Placement
    ) -> None:
        block = self._plan.blocks[place]
        filled = 0
        if self._plan.fills_missing:
            table, is_missing = fill_missing(table, self._source.scale)
            rows_of = map(placement.arrange, is_missing.values())
            filled = sum(int(np.count_nonzero(rows)) for rows in rows_of)
            self._missing += filled
        elif self._plan.skipped:
            # The set has these rows already, and their features are not written.
            is_skipped = np.ones(chunk.rows, bool)
            is_skipped[placement.arrange(np.arange(chunk.rows))] = False
            table, _ = fill_missing(table, self._source.scale, is_skipped)
        columns = [self._source.digits(table, name, chunk) for name in table.column_names]
        rows = placement.arrange(COMPACT.encode_block(columns, block))
        for part in placement.parts:
            self._scratch.add_features(part.window, part.row, block, rows[part.start : part.stop])
        self._journal.add_block(number, place, filled)

    def _place(self, eras: pa.ChunkedArray, filled: npt.NDArray[np.int64]) -> Placement:
        try:
            return Placement(eras, self._window_of, filled)
        except KeyError as error:
            raise self._source.error(
                f"found {error}, which was not among the eras when they were counted; wait until "
                "the file is complete, and run again",
                column="era",
            ) from error


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
