"""Order: turn row spans and a seed into one epoch's row order.

An epoch's order is a pure function of the spans, the seed, the epoch number and `run_rows`, so a
batch is the same for any number of workers, in threads or processes, and in whatever order the
batches are asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class RowOrder:
    """The rows of one epoch as runs of neighbouring rows.

    Attributes
    ----------
    starts : integer array, shape (runs,)
        The first row of each run, in the order of the epoch.
    ends : int64 array, shape (runs,), or None
        Where in the epoch each run ends (exclusive); None where every run is one row.
    """

    starts: npt.NDArray[np.integer]
    ends: Rows | None

    def rows(self, start: int, stop: int) -> Rows:
        """Return the rows at the places `start` to `stop` of the epoch, ascending.

        Returns
        -------
        int64 array, shape (stop - start,)
        """
        if self.ends is None:
            return np.sort(self.starts[start:stop]).astype(np.int64)
        first = int(np.searchsorted(self.ends, start, side="right"))
        last = int(np.searchsorted(self.ends, stop, side="left")) + 1
        ends = self.ends[first:last]
        begins = np.concatenate([[self.ends[first - 1] if first else 0], ends[:-1]])
        # Row number minus place in the epoch is one constant within a run.
        shift = self.starts[first:last].astype(np.int64) - begins
        lengths = np.minimum(ends, stop) - np.maximum(begins, start)
        return np.sort(np.arange(start, stop) + np.repeat(shift, lengths))


def epoch_order(
    spans: Sequence[tuple[int, int]], *, seed: int | None, epoch: int = 0, run_rows: int = 1
) -> RowOrder:
    """Return the row order of one epoch.

    Parameters
    ----------
    spans : sequence of (start, stop)
        The rows taking part, as ranges of global row numbers that do not overlap. A run never
        crosses a span's end.
    seed : int or None
        None leaves the spans in the order given.
    epoch : int
        Each epoch has an order of its own.
    run_rows : int
        1 is an exact uniform shuffle. A larger number shuffles runs of that many neighbouring
        rows, so that a batch is read with fewer page faults.

    Returns
    -------
    RowOrder
        8 bytes a run at most, 4 for single rows below 2**32.
    """
    if seed is None:
        return _runs([(start, stop - start) for start, stop in spans if stop > start])
    rng = np.random.default_rng([seed, epoch])
    if run_rows == 1:
        rows = _single_rows(spans)
        rng.shuffle(rows)
        return RowOrder(rows, None)
    starts = np.concatenate([np.arange(a, b, run_rows) for a, b in spans] or [np.empty(0, int)])
    lengths = np.concatenate(
        [np.minimum(run_rows, b - np.arange(a, b, run_rows)) for a, b in spans]
        or [np.empty(0, int)]
    )
    permutation = rng.permutation(len(starts))
    return RowOrder(starts[permutation], np.cumsum(lengths[permutation]))


def _runs(runs: list[tuple[int, int]]) -> RowOrder:
    starts = np.array([start for start, _ in runs], np.int64)
    lengths = np.array([length for _, length in runs], np.int64)
    return RowOrder(starts, np.cumsum(lengths))


def _single_rows(spans: Sequence[tuple[int, int]]) -> npt.NDArray[np.integer]:
    largest = max((stop for _, stop in spans), default=0)
    dtype = np.dtype(np.uint32 if largest < 2**32 else np.int64)
    rows: npt.NDArray[np.integer] = np.empty(sum(stop - start for start, stop in spans), dtype)
    place = 0
    for start, stop in spans:
        rows[place : place + stop - start] = np.arange(start, stop, dtype=dtype)
        place += stop - start
    return rows


def batch_count(rows: int, batch_size: int, *, drop_remainder: bool = False) -> int:
    """Return the batches of an epoch of `rows` rows; the last one may be partial."""
    return rows // batch_size if drop_remainder else -(-rows // batch_size)
