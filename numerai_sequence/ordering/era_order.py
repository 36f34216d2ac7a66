"""Era order: turn the rows of each era and a seed into one epoch's batches of whole eras."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .row_order import Rows, ranges


class EraOrder:
    """The order of an epoch whose batches are whole eras. Every epoch has another order.

    Parameters
    ----------
    rows : integer array, shape (rows,)
        Rows in order of their eras' time, ascending within an era.
    sizes : int array, shape (eras,)
        Number of rows in each era.
    seed : int or None
        Seed for shuffling the eras. None for the given order.
    epoch : int
    batch_size : int
        Number of eras in a batch. The last batch may have fewer.
    """

    batches_per_group = 1
    group_offset = 0
    shuffles_groups = False

    def __init__(
        self,
        rows: npt.NDArray[Any],
        sizes: npt.NDArray[np.int64],
        *,
        seed: int | None,
        epoch: int,
        batch_size: int,
    ) -> None:
        self._rows, self._sizes = rows, sizes
        self._starts = np.cumsum(sizes, dtype=np.int64) - sizes
        self._batch_size = batch_size
        self._eras = np.arange(len(sizes), dtype=np.int64)
        if seed is not None:
            np.random.default_rng([seed, epoch]).shuffle(self._eras)

    def size(self, batch: int) -> int:
        """Return how many rows a batch has."""
        start = batch * self._batch_size
        return int(self._sizes[self._eras[start : start + self._batch_size]].sum())

    def batch(self, number: int) -> Rows:
        """Return the rows of a batch, ascending."""
        return self.rows(number * self._batch_size, (number + 1) * self._batch_size)

    def rows(self, start: int, stop: int) -> Rows:
        """Return the rows of the eras at the places `start` to `stop` of the epoch, ascending."""
        eras = self._eras[start:stop]
        starts = self._starts[eras]
        rows: Rows = self._rows[ranges(starts, starts + self._sizes[eras])].astype(np.int64)
        rows.sort()
        return rows

    def group_with_positions(self, number: int) -> tuple[Rows, Rows]:
        """Return the rows of a batch, which is its own group, and their places."""
        rows = self.batch(number)
        return rows, np.arange(len(rows), dtype=np.int64)

    def places(self, batch: int) -> slice:
        """Return the places of a batch in its group: all."""
        return slice(None)
