"""Filler: read sources once, a block of columns at a time, and put their rows into scratch.

Each block is packed and turned into rows in the background, while the next one is being decoded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .encoding import encode_block
from .plan import Plan
from .progress import row_bar
from .scratch import Scratch
from .source import Chunk, Source
from .steps import Steps
from .windows import Placement


def fill_scratch(
    sources: Sequence[Source], plan: Plan, scratch: Scratch, steps: Steps, progress: bool
) -> None:
    """Put the rows of sources into scratch, but for what is there already."""
    filler = _Filler(plan, scratch, steps)
    first = 0
    with _one_behind() as encode_behind:
        for source in sources:
            chunks = list(enumerate(source.chunks(rows=plan.rows_per_chunk), first))
            first += len(chunks)
            done = sum(filler.rows_done(number, chunk) for number, chunk in chunks)
            with row_bar(source.rows, f"reading {source.path.name}", progress, done) as bar:
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
            placement = self._place(source, rows["era"], np.zeros_like(self._filled))
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
        placement = self._place(source, source.read_eras(chunk), self._filled)
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

    def _place(
        self, source: Source, eras: pa.ChunkedArray, filled: npt.NDArray[np.int64]
    ) -> Placement:
        try:
            return Placement(eras, self._window_of, filled)
        except KeyError as error:
            raise source.error(
                f"found {error}, which was not among the eras when they were counted",
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
