"""Row order: turn row spans and a seed into the row order of one epoch.

An epoch's order is a pure function of the spans, the seed, the epoch number, `run_rows`,
`batch_size` and `group_rows`. So a batch is the same for any number of workers, in threads or
processes, and for any order in which batches are read.

With `run_rows` above 1, the runs of neighbouring rows are shuffled and cut into groups, and the
rows of each group are shuffled again. So files are read in long runs, but a batch has few rows of
each. A reader fetches the rows of a group together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]
_Unsigned = npt.NDArray[np.uint64]

# Longest permutation that is kept as an array, of 32 MB. Longer ones are computed.
_ARRAY_LENGTH = 1 << 23
_ROUNDS = 6


class Order(Protocol):
    """An epoch's order as a reader needs it: its batches, and their groups."""

    @property
    def batches_per_group(self) -> int: ...

    @property
    def group_offset(self) -> int:
        """Number of batches of other ranks in its first group, before its own batches."""
        ...

    @property
    def shuffles_groups(self) -> bool:
        """Whether the rows of a batch depend on the shuffled rows of its group."""
        ...

    def size(self, batch: int) -> int:
        """Return how many rows a batch has."""
        ...

    def batch(self, number: int) -> Rows:
        """Return the rows of a batch, ascending."""
        ...

    def group_with_positions(self, number: int) -> tuple[Rows, Rows]:
        """Return the rows of a group, ascending, and for each place of the group its row's number.

        See `RowOrder.group_with_positions`.
        """
        ...

    def places(self, batch: int) -> slice:
        """Return the places of a batch in its group."""
        ...


class WholeOrder(Order, Protocol):
    """The order of an epoch, of all ranks. `RankOrder` is a rank's share of it."""

    def rows(self, start: int, stop: int) -> Rows:
        """Return the rows of the units at the places `start` to `stop` of the epoch, ascending."""
        ...


class RowOrder:
    """The row order of one epoch. See `epoch_order`.

    Attributes
    ----------
    count : int
        Number of rows in the epoch.
    group_rows : int
        Number of rows in a group, in whole batches. The last group may be smaller.
    """

    group_offset = 0

    def __init__(
        self,
        spans: Sequence[tuple[int, int]],
        seed: int | None,
        epoch: int,
        run_rows: int,
        batch_size: int,
        group_rows: int,
    ) -> None:
        self.group_rows, self._batch_size = group_rows, batch_size
        self._seed, self._epoch = seed, epoch
        bounds = np.array(_joined(spans) if run_rows == 1 else spans, np.int64).reshape(-1, 2)
        lengths = bounds[:, 1] - bounds[:, 0]
        # No run is longer than a span, and no memory is needed for one.
        self._run_rows = run_rows = min(run_rows, 1 + int(lengths.max(initial=1)))
        runs = lengths // run_rows
        self.count = int(lengths.sum())
        self._first_rows = bounds[:, 0]
        self._first_runs = np.cumsum(runs) - runs
        self._permutation = _permutation(int(runs.sum()), seed, epoch)
        # Rows at the end of a span may be too few for a run. Each group gets a share of them.
        self._left_over = ranges(bounds[:, 0] + runs * run_rows, bounds[:, 1])
        if seed is not None and len(self._left_over):
            np.random.default_rng([seed, epoch, 0]).shuffle(self._left_over)

    @property
    def shuffles_groups(self) -> bool:
        """Whether the rows of a group are shuffled once more."""
        return self._run_rows > 1

    @property
    def groups(self) -> int:
        return -(-self.count // self.group_rows)

    @property
    def batches_per_group(self) -> int:
        return self.group_rows // self._batch_size

    def size(self, batch: int) -> int:
        """Return the number of rows in a batch."""
        return min(self._batch_size, self.count - batch * self._batch_size)

    def batch(self, number: int) -> Rows:
        """Return the rows of a batch, ascending."""
        start = number * self._batch_size
        return self.rows(start, start + self.size(number))

    def places(self, batch: int) -> slice:
        """Return the places of a batch in its group."""
        start = batch % self.batches_per_group * self._batch_size
        return slice(start, start + self.size(batch))

    def group(self, number: int) -> Rows:
        """Return the rows of a group, in the order of the epoch.

        Returns
        -------
        int64 array, shape (group_rows,)
        """
        rows, ranks = self.group_with_positions(number)
        return rows[ranks]

    def group_with_positions(self, number: int) -> tuple[Rows, Rows]:
        """Return the rows of a group in the order of reading, and the order of the epoch.

        Returns
        -------
        rows : int64 array, shape (group_rows,)
            Rows, ascending.
        ranks : int64 array, shape (group_rows,)
            For each place of the group, in the order of the epoch, the number of its row in `rows`.
        """
        start = number * self.group_rows
        stop = min(start + self.group_rows, self.count)
        if self._run_rows == 1:
            return placed(self._single_rows(start, stop))
        first, last = (len(self._left_over) * place // self.count for place in (start, stop))
        whole = self._rows_in_runs(start - first, stop - last)
        rows = np.concatenate([whole, np.sort(self._left_over[first:last])])
        rows.sort(kind="stable")  # of few ascending pieces, which are merged
        rng = np.random.default_rng([self._seed or 0, self._epoch, 1 + number])
        return rows, rng.permutation(np.arange(len(rows), dtype=np.int64))

    def rows(self, start: int, stop: int) -> Rows:
        """Return the rows at the places `start` to `stop` of the epoch, ascending.

        Returns
        -------
        int64 array, shape (stop - start,)
        """
        if self._run_rows == 1:
            rows = self._single_rows(start, stop)
        else:
            numbers = range(start // self.group_rows, -(-stop // self.group_rows))
            groups = [self.group(number) for number in numbers] or [np.empty(0, np.int64)]
            skipped = start - numbers.start * self.group_rows
            rows = np.concatenate(groups)[skipped : skipped + stop - start]
        rows.sort()
        return rows

    def _single_rows(self, start: int, stop: int) -> Rows:
        return self._rows_of_runs(self._permutation(start, stop))

    def _rows_in_runs(self, start: int, stop: int) -> Rows:
        """Return the rows at places `start` to `stop` of the full runs, in few ascending pieces."""
        first, last = start // self._run_rows, -(-stop // self._run_rows)
        starts = self._rows_of_runs(self._permutation(first, last))
        starts[1:-1].sort()  # not the first and the last: they may be cut
        rows: Rows = (starts[:, np.newaxis] + np.arange(self._run_rows, dtype=np.int64)).reshape(-1)
        skipped = start - first * self._run_rows
        return rows[skipped : skipped + stop - start]

    def _rows_of_runs(self, runs: Rows) -> Rows:
        span: Any = 0  # of the only span, which then needs no search
        if len(self._first_rows) != 1:
            span = np.searchsorted(self._first_runs, runs, side="right") - 1
        rows: Rows = self._first_rows[span] + (runs - self._first_runs[span]) * self._run_rows
        return rows


def epoch_order(
    spans: Sequence[tuple[int, int]],
    *,
    seed: int | None,
    epoch: int = 0,
    run_rows: int = 1,
    batch_size: int = 1,
    group_rows: int = 1,
) -> RowOrder:
    """Return the row order of one epoch.

    Parameters
    ----------
    spans : sequence of (start, stop)
        Selected rows, as ranges of global row numbers that do not overlap. A run never crosses the
        end of a span.
    seed : int or None
        Seed for shuffling. None for the given order of the spans.
    epoch : int
        Number of the epoch. Each has its own order.
    run_rows : int
        Number of neighbouring rows that are shuffled as one run. 1 is an exact uniform shuffle.
        With longer runs, the rows of each group are shuffled again.
    batch_size : int
        Rows in a batch. The last batch may be smaller.
    group_rows : int
        Rows that are fetched together: those of one or more batches.

    Returns
    -------
    RowOrder
        It takes 4 bytes a run up to 8 million runs, and almost no memory for more.
    """
    if seed is None:
        run_rows = 1
    spans = [(start, stop) for start, stop in spans if stop > start]
    return RowOrder(spans, seed, epoch, run_rows, batch_size, group_rows)


def order_bytes(rows: int, run_rows: int) -> int:
    """Return about how many bytes the order of an epoch takes."""
    runs = rows // run_rows
    return 4 * runs if runs <= _ARRAY_LENGTH else 0


def placed(rows: Rows) -> tuple[Rows, Rows]:
    """Return rows in ascending order, and the number of each given row among them."""
    order = np.argsort(rows)
    ranks = np.empty_like(order)
    ranks[order] = np.arange(len(order), dtype=np.int64)
    return rows[order], ranks


def _joined(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Join spans that follow one another."""
    joined: list[tuple[int, int]] = []
    for start, stop in spans:
        if joined and joined[-1][1] == start:
            joined[-1] = (joined[-1][0], stop)
        else:
            joined.append((start, stop))
    return joined


def ranges(starts: Rows, stops: Rows) -> Rows:
    """Return the numbers of several ranges, one after the other."""
    lengths = stops - starts
    before = np.cumsum(lengths) - lengths
    numbers: Rows = np.arange(int(lengths.sum()), dtype=np.int64) + np.repeat(
        starts - before, lengths
    )
    return numbers


def _permutation(length: int, seed: int | None, epoch: int) -> _Natural | _Array | _Feistel:
    if seed is None:
        return _Natural()
    kind = _Array if length <= _ARRAY_LENGTH else _Feistel
    return kind(length, np.random.default_rng([seed, epoch]))


class _Natural:
    """0, 1, 2 and so on."""

    def __call__(self, start: int, stop: int) -> Rows:
        return np.arange(start, stop, dtype=np.int64)


class _Array:
    """A permutation of 0 to `length` that is kept."""

    def __init__(self, length: int, rng: np.random.Generator) -> None:
        self._numbers = np.arange(length, dtype=np.uint32)
        rng.shuffle(self._numbers)

    def __call__(self, start: int, stop: int) -> Rows:
        return self._numbers[start:stop].astype(np.int64)


class _Feistel:
    """A permutation of 0 to `length` that is computed when it is needed.

    A Feistel network (Luby and Rackoff 1988) permutes all numbers of that many bits. Numbers that
    leave the range pass through it again (cycle walking; Black and Rogaway 2002).
    """

    def __init__(self, length: int, rng: np.random.Generator) -> None:
        self._length = np.uint64(length)
        bits = max(2, (length - 1).bit_length())
        self._low, self._high = bits // 2, bits - bits // 2
        self._keys = rng.integers(0, 2**64, _ROUNDS, np.uint64)

    def __call__(self, start: int, stop: int) -> Rows:
        numbers = self._network(np.arange(start, stop, dtype=np.uint64))
        outside = np.flatnonzero(numbers >= self._length)
        while len(outside):
            numbers[outside] = self._network(numbers[outside])
            outside = outside[numbers[outside] >= self._length]
        return numbers.astype(np.int64)

    def _network(self, numbers: _Unsigned) -> _Unsigned:
        low, high = self._low, self._high
        left, right = numbers >> np.uint64(low), numbers & np.uint64((1 << low) - 1)
        for key in self._keys:
            # `left` has `high` bits and `right` has `low`; they change places.
            mask = np.uint64((1 << high) - 1)
            left, right = right, left ^ (_scatter(right + key) & mask)
            low, high = high, low
        mixed: _Unsigned = left << np.uint64(low) | right
        return mixed


def _scatter(values: _Unsigned) -> _Unsigned:
    """Hash 64 bits to 64 bits: the finalizer of SplitMix64 (Steele, Lea and Flood 2014)."""
    values = (values ^ values >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ values >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    mixed: _Unsigned = values ^ values >> np.uint64(31)
    return mixed
