"""Reading: from the rows that take part and the memory there is, decide how they are read."""

from __future__ import annotations

from ..ordering.batchings import Batching
from ..ordering.row_order import order_bytes
from ..ordering.run_length import choose_run_rows
from ..reading.memory_budget import MAPPED_BYTES, Budget, decide, divide_budget, group_bytes
from ..reading.selection import Selection
from .group_reader import KEPT, batches_per_group

# The row order of this epoch, and of the one before.
_ORDERS_KEPT = 2


class Reading:
    """How the rows of a selection are read.

    Parameters
    ----------
    selection : Selection
    memory_budget : int or str
    paging : {"auto", "resident", "streaming"}
    batch_rows : int
        Rows of the largest batch.
    batch_bytes : int
        Of the largest batch, decoded.
    batching : Batching
        What batches are made of.
    shuffles : bool
        Whether the rows are in another order than that of the files.
    world_size : int
        Processes among which the rows of an epoch are divided.

    Attributes
    ----------
    selection : Selection
    batching : Batching
    paging : {"resident", "streaming"}
    reason : str
        Why it is that.
    """

    def __init__(
        self,
        selection: Selection,
        *,
        memory_budget: int | str,
        paging: str,
        batch_rows: int,
        batch_bytes: int,
        batching: Batching,
        shuffles: bool,
        world_size: int = 1,
    ) -> None:
        self.selection, self._memory_budget = selection, memory_budget
        self._batch_rows, self._batch_bytes = batch_rows, batch_bytes
        self.batching, self._shuffles, self._world_size = batching, shuffles, world_size
        self._has_groups = batching.has_equal_batches
        decided = decide(selection.set_bytes, paging)
        self.paging, self.reason = decided.mode, decided.reason

    def best_run_rows(self) -> int:
        """Return 1 if the set is so small that it stays mapped; otherwise how long runs should be.

        It is the same on every machine: neither `paging` nor memory has a say.
        """
        selection = self.selection
        is_small = selection.set_bytes <= MAPPED_BYTES
        if not selection.rows or is_small or not self._has_groups:
            return 1
        return choose_run_rows(
            selection.windows,
            row_bytes=selection.row_bytes,
            batch_size=self._batch_rows,
            group_rows=self.group_rows(run_rows=2),
        )

    def group_rows(self, run_rows: int) -> int:
        """Return the rows that are fetched together: some batches, or one."""
        if not self._has_groups:
            return self._batch_rows
        least_rows = 0
        if run_rows == 1 and self._shuffles and self.paging == "resident":
            # Each group of single rows maps most of the set anew: it is as large as there is room.
            least_rows = group_bytes(self._memory_budget) // self.selection.row_bytes
        return self._batch_rows * batches_per_group(self._batch_rows, least_rows)

    def divide(self, run_rows: int, buffers: int) -> Budget:
        """Divide the memory budget, where a consumer holds so many batches at a time."""
        rows, width = self.selection.rows, self.selection.row_bytes
        is_kept = self._shuffles and self._has_groups
        orders = _ORDERS_KEPT * order_bytes(rows, run_rows) if is_kept else 0
        return divide_budget(
            self._memory_budget,
            order_bytes=orders + self.selection.memory_bytes,
            group_bytes=KEPT * min(self.group_rows(run_rows), rows) * width,
            batch_bytes=self._batch_bytes,
            buffers=buffers,
        )

    def warms(self, run_rows: int) -> bool:
        """Say whether to read the whole set once: single rows of a cold disk are slow."""
        is_most = 2 * self.selection.rows >= self.selection.shards.rows * self._world_size
        return self.paging == "resident" and run_rows == 1 and is_most and self._has_groups
