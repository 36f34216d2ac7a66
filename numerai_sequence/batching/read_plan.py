"""Read plan: decide how batches are read, from the selected rows and the available memory."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..ordering.batch_units import Batching
from ..ordering.distributed_ranks import RankOrder, Share
from ..ordering.row_order import Order, order_bytes
from ..ordering.run_length import choose_run_rows
from ..reading.memory_budget import MAPPED_BYTES, Budget, decide, divide_budget, group_bytes
from ..reading.paging import Pager
from ..reading.selection import ERA, Selection
from ..system.buffers import Buffers
from ..system.fork_safe_locks import ForkSafeTurns
from .group_reader import KEPT, GroupReader, Values, batches_per_group
from .prefetching import Prefetching
from .row_number_reader import NumberReader

Numbers = npt.NDArray[np.int32]

# The row orders of this epoch and of the previous one.
_ORDERS_KEPT = 2
# Threads that read at a time. More threads would only wait for the interpreter and for memory.
_READING = 4


def _processors() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


#: Threads of this process that decode at a time: each keeps a processor, and its cache, busy.
DECODING = ForkSafeTurns(min(_READING, _processors()))


class ReadPlan:
    """The plan for reading the rows of a selection, which the epochs of a sequence share.

    Pickling keeps the decisions. Row orders, memory and the pager belong to one process: a copy in
    another process makes its own. Any number of threads may use a plan at once.

    Parameters
    ----------
    selection : Selection
    share : Share
        Share of this process in the batches.
    memory_budget : int or str
    paging : {"auto", "resident", "streaming"}
    batch_rows : int
        Rows in the largest batch.
    batch_bytes : int
        Bytes of the largest batch, decoded.
    batching : Batching
        Unit of the batches.
    seed : int or None
        Seed for shuffling. None for the order of the files, or of time.
    run_rows : int or None
        See `epoch_order`. None lets the plan choose.
    columns : sequence of str
        Columns to read besides the features. See `Selection.gather`.
    buffers : int
        Number of batches that a consumer holds at a time.
    reads_features : bool
        Whether to read features. If not, the rows are on the device, and a batch is row numbers.

    Attributes
    ----------
    share : Share
    paging : {"resident", "streaming"}
    reason : str
        Reason for the paging.
    run_rows : int
    buffers : Buffers
        Memory for decoded batches.
    pager : Pager
    turns : ForkSafeTurns
        Limit on the threads that read at a time.
    """

    def __init__(
        self,
        selection: Selection,
        share: Share,
        *,
        memory_budget: int | str,
        paging: str,
        batch_rows: int,
        batch_bytes: int,
        batching: Batching,
        seed: int | None,
        run_rows: int | None,
        columns: Sequence[str],
        buffers: int,
        reads_features: bool = True,
    ) -> None:
        self.share, self._selection, self._memory_budget = share, selection, memory_budget
        self._batch_rows, self._batching, self._seed = batch_rows, batching, seed
        self._has_groups = batching.has_equal_batches
        self._reads_features = reads_features
        decided = decide(selection.set_bytes, paging)
        self.paging, self.reason = decided.mode, decided.reason
        self.run_rows = self._best_run_rows() if run_rows is None else run_rows
        self._group_rows = self._rows_of_group(self.run_rows)
        self._budget = self._divide(batch_bytes, buffers)
        self._needed_bytes = selection.rows * (selection.row_bytes + 4 * len(columns))
        self._open()

    def _best_run_rows(self) -> int:
        """Return the best length of runs: 1 if the rows are so few that they stay mapped.

        It is the same on every machine, because it depends neither on `paging` nor on memory.
        """
        selection = self._selection
        is_small = not selection.rows or selection.set_bytes <= MAPPED_BYTES
        if self._seed is None or is_small or not self._has_groups:
            return 1
        return choose_run_rows(
            selection.windows,
            row_bytes=selection.row_bytes,
            batch_size=self._batch_rows,
            group_rows=self._rows_of_group(run_rows=2),
        )

    def _rows_of_group(self, run_rows: int) -> int:
        """Return the rows that are fetched together: some batches, or one."""
        if not self._has_groups:
            return self._batch_rows
        least_rows = 0
        if run_rows == 1 and self._seed is not None and self.paging == "resident":
            # A group of single rows maps most of the set again, so groups are as large as possible.
            least_rows = group_bytes(self._memory_budget) // self._selection.row_bytes
        return self._batch_rows * batches_per_group(self._batch_rows, least_rows)

    def _divide(self, batch_bytes: int, buffers: int) -> Budget:
        """Divide the memory budget, for a consumer that holds `buffers` batches at a time."""
        rows, width = self._selection.rows, self._selection.row_bytes
        is_kept = self._seed is not None and self._has_groups
        orders = _ORDERS_KEPT * order_bytes(rows, self.run_rows) if is_kept else 0
        return divide_budget(
            self._memory_budget,
            order_bytes=orders + self._selection.memory_bytes,
            group_bytes=KEPT * min(self._group_rows, rows) * width,
            batch_bytes=batch_bytes,
            buffers=buffers,
        )

    @property
    def _warms(self) -> bool:
        """Whether to read the whole set once, because single rows are slow to read from a disk."""
        selection = self._selection
        is_most = 2 * selection.rows >= selection.shards.rows * self.share.world_size
        return self.paging == "resident" and self.run_rows == 1 and is_most and self._has_groups

    def _open(self) -> None:
        """Make the parts that belong to this process."""
        # Batches of eras have many sizes.
        slack = 2 if self._has_groups else math.inf
        self.buffers = Buffers(self._budget.buffers, slack=slack)
        self._group_buffers = Buffers(KEPT)
        self._orders: dict[int, Order] = {}
        self._columns: tuple[tuple[str, ...], Values] | None = None
        self.turns = ForkSafeTurns(_READING)
        self.pager = self._make_pager(self._budget.mapped)

    def __getstate__(self) -> dict[str, Any]:
        made = "buffers", "_group_buffers", "_orders", "_columns", "turns", "pager"
        return {name: value for name, value in vars(self).items() if name not in made}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._open()

    def _make_pager(self, mapped_bytes: int) -> Pager:
        return Pager(
            self._selection.shards.files,
            mode=self.paging,
            budget_bytes=mapped_bytes,
            needed_bytes=self._needed_bytes,
            warms=self._warms,
        )

    def order(self, epoch: int) -> Order:
        """Return the order of an epoch; the newest orders are kept."""
        # Without a lock, which a forked worker could inherit locked. Two threads may compute it.
        order = self._orders.get(epoch)
        if order is None:
            order = self._make_order(epoch)
            # The epoch before may still have readers.
            kept = {number: old for number, old in self._orders.items() if number == epoch - 1}
            self._orders = {**kept, epoch: order}
        return order

    def _make_order(self, epoch: int) -> Order:
        whole = self._batching.order(
            self._selection,
            seed=self._seed,
            epoch=epoch,
            batch_size=self.share.batch_size,
            run_rows=self.run_rows,
            group_rows=self._group_rows,
        )
        return RankOrder(whole, self.share) if self.share.world_size > 1 else whole

    def indivisible(self, parts: int, batch: int | None = None) -> int | None:
        """Return the number of rows of a batch that has no `parts` equal parts, or None.

        It checks one batch of an epoch, or all.
        """
        sizes = self._batching.sizes(self._selection, self.share, batch)
        return next((size for size in sizes if size % parts), None)

    def reader(
        self,
        epoch: int,
        batches: Numbers,
        columns: Sequence[str],
        prefetching: Prefetching,
        fetch: str = "always",
    ) -> GroupReader | NumberReader:
        """Return the reader of some batches of an epoch.

        Parameters
        ----------
        epoch : int
        batches, columns, fetch
            See `GroupReader`.
        prefetching : Prefetching
            Options of the workers that read them.
        """
        if not self._reads_features:
            return NumberReader(self.order(epoch), self._in_memory(columns))
        pager, processes = self.pager, prefetching.processes
        if processes:  # each maps the files again
            pager = self._make_pager(pager.budget_bytes // processes)
        # Groups are useful if runs are shuffled in them, or if pages are released.
        is_worth = self.run_rows > 1 or not self.pager.fits
        is_fetched = self._budget.holds_groups and is_worth and not processes
        return GroupReader(
            self._selection,
            self.order(epoch),
            columns,
            pager=pager,
            buffers=self._group_buffers,
            batches=batches,
            fetch=fetch if is_fetched else "never",
            workers=prefetching.workers,
        )

    def _in_memory(self, columns: Sequence[str]) -> Values:
        """Return columns of all rows, float32 of shape (columns, rows); 4 bytes a value."""
        if self._columns is None or self._columns[0] != tuple(columns):
            selection = self._selection
            values = np.empty((len(columns), selection.rows), np.float32)
            for name, out in zip(columns, values, strict=True):
                is_era = name == ERA
                out[:] = selection.era_codes if is_era else selection.column(name).to_numpy()
            self._columns = tuple(columns), values
        return self._columns[1]
