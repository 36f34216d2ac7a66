"""Shuffle windows: groups of eras whose rows are mixed, and each row's place in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..format.encodings import ENCODINGS
from ..format.layout import WriteOptions
from ..ordering.eras import encode_eras, shard_of_era, sort_eras

_WINDOW_BYTES = 256 << 20


@dataclass(frozen=True)
class Window:
    """Eras of one shard whose rows are mixed. `number` counts the windows of the shard."""

    shard: int
    number: int
    eras: tuple[str, ...]
    rows: int


def plan_windows(
    era_rows: dict[str, int], features: int, options: WriteOptions
) -> Iterator[Window]:
    """Divide eras into shards, and each shard's eras into windows, both in the order of time."""
    bytes_of_row = ENCODINGS[options.encoding].row_bytes(features)
    by_shard: list[list[str]] = [[] for _ in range(options.num_shards)]
    for era in sort_eras(era_rows):
        by_shard[shard_of_era(era, options.num_shards)].append(era)
    for shard, eras in enumerate(by_shard):
        sizes = [era_rows[era] for era in eras]
        if options.mix_eras is None:
            cuts = _even_cuts(sizes, _WINDOW_BYTES // bytes_of_row)
        else:
            cuts = _cuts(len(eras), -(-len(eras) // options.mix_eras))
        for number, (start, stop) in enumerate(cuts):
            yield Window(shard, number, tuple(eras[start:stop]), sum(sizes[start:stop]))


def _even_cuts(sizes: Sequence[int], limit: int) -> list[tuple[int, int]]:
    """Cut into the fewest windows, alike in eras, of at most `limit` rows (or of one era)."""
    for count in range(max(1, -(-sum(sizes) // max(1, limit))), len(sizes) + 1):
        cuts = _cuts(len(sizes), count)
        if count == len(sizes) or all(sum(sizes[a:b]) <= limit for a, b in cuts):
            return cuts
    return _cuts(len(sizes), len(sizes))


def _cuts(eras: int, windows: int) -> list[tuple[int, int]]:
    bounds = [eras * window // windows for window in range(windows + 1)] if windows else []
    return list(pairwise(bounds))


@dataclass(frozen=True)
class Part:
    """Rows `start` to `stop` of a chunk go to a window, from its row `row` on."""

    window: int
    row: int
    start: int
    stop: int


class Placement:
    """The places in the windows for the rows of one chunk.

    `filled` counts each window's rows, and is updated. Rows of eras whose window is -1 are left
    out.
    """

    def __init__(
        self, eras: pa.ChunkedArray, window_of: dict[str, int], filled: npt.NDArray[np.int64]
    ) -> None:
        found, codes = encode_eras(eras)
        windows = np.array([window_of[era] for era in found], np.int64)[codes]
        self._order: npt.NDArray[np.int64] | None = None
        if windows.min(initial=0) < 0:
            self._order = np.flatnonzero(windows >= 0)
            windows = windows[self._order]
        if np.count_nonzero(np.diff(windows)) > len(windows) // 256:
            # Interleaved eras: without sorting, every few rows would be a write of their own.
            order = np.argsort(windows, kind="stable")
            windows = windows[order]
            self._order = order if self._order is None else self._order[order]
        starts = np.flatnonzero(np.diff(windows, prepend=-1))
        self.parts = []
        for start, stop in pairwise([*starts, len(windows)]):
            window = int(windows[start])
            self.parts.append(Part(window, int(filled[window]), int(start), int(stop)))
            filled[window] += stop - start

    def arrange(self, rows: Any) -> Any:
        """Put the rows of a table or an array into the order that `parts` refers to."""
        if self._order is None:
            return rows
        return rows.take(self._order) if isinstance(rows, pa.Table) else rows[self._order]
