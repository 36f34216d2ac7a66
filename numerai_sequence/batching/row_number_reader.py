"""Row number reader: a reader of batches whose rows are already on the device."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..ordering.row_order import Order
from .group_reader import Rows, Values

# Groups of shuffled rows that are kept.
_KEPT_GROUPS = 4


class NumberReader:
    """A reader that returns the row numbers of batches, and their columns from memory.

    It is used like `GroupReader`, but reads no files. Any number of threads may use it at once.

    Parameters
    ----------
    order : Order
    columns : float32 array, shape (columns, rows)
        Columns of all rows.
    """

    def __init__(self, order: Order, columns: Values) -> None:
        self._order, self._columns = order, columns
        self._groups: dict[int, tuple[Rows, Rows]] = {}

    def size(self, number: int) -> int:
        """Return how many rows a batch has."""
        return self._order.size(number)

    def rows(self, number: int) -> Rows:
        """Return the rows of a batch, ascending."""
        order = self._order
        if not order.shuffles_groups:
            return order.batch(number)
        rows, ranks = self._group((number + order.group_offset) // order.batches_per_group)
        chosen: Rows = rows[np.sort(ranks[order.places(number)])]
        return chosen

    def batch(self, number: int, out: Any = None) -> tuple[Rows, None, Values]:
        """Return the row numbers of a batch, and its columns, float32 of shape (rows, columns)."""
        rows = self.rows(number)
        values: npt.NDArray[np.float32] = self._columns[:, rows]
        return rows, None, values.T

    def _group(self, number: int) -> tuple[Rows, Rows]:
        group = self._groups.get(number)
        if group is None:  # two threads may compute the same
            group = self._order.group_with_positions(number)
            kept = list(self._groups.items())[1 - _KEPT_GROUPS :]
            self._groups = {**dict(kept), number: group}
        return group
