"""Readers: the readers of a sequence's epochs, and what they share: row orders, memory, paging."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

import numpy as np

from ..ordering.ranks import Share
from ..reading.paging import Pager
from ..reading.selection import ERA
from ..system.buffers import Buffers
from ..system.locks import OwnTurns
from .group_reader import KEPT, GroupReader, Values
from .orders import Orders
from .passes import Numbers, Prefetching
from .reading import Reading
from .row_numbers import NumberReader

# Threads that read at a time. More wait for the interpreter by turns, and for the same memory.
_READING = 4


def _processors() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


#: Threads of this process that decode at a time: each keeps a processor, and its cache, busy.
DECODING = OwnTurns(min(_READING, _processors()))


class Readers:
    """Makes the reader of an epoch's batches. It belongs to one process, and does not pickle.

    Parameters
    ----------
    reading : Reading
    share : Share
        Which of the batches are this process's.
    columns : sequence of str
        As of `Selection.gather`: what is read of each row besides the features.
    seed : int or None
        None for the order of the files, or of time.
    run_rows : int
        As of `epoch_order`.
    buffers : int
        Batches that a consumer holds at a time.
    reads_features : bool
        False: the rows are on the device, and a batch is their numbers.

    Attributes
    ----------
    orders : Orders
    buffers : Buffers
        For decoded batches.
    pager : Pager
    """

    def __init__(
        self,
        reading: Reading,
        share: Share,
        columns: Sequence[str],
        *,
        seed: int | None,
        run_rows: int,
        buffers: int,
        reads_features: bool = True,
    ) -> None:
        self._reading, self._run_rows = reading, run_rows
        self._reads_features = reads_features
        self.orders = Orders(
            reading.selection,
            share,
            batching=reading.batching,
            seed=seed,
            run_rows=run_rows,
            group_rows=reading.group_rows(run_rows),
        )
        budget = reading.divide(run_rows, buffers)
        # Where batches are not of one size, as with eras, they have many.
        slack = 2 if reading.batching.has_equal_batches else math.inf
        self.buffers = Buffers(budget.buffers, slack=slack)
        self._group_buffers = Buffers(KEPT)
        self._columns: tuple[tuple[str, ...], Values] | None = None
        self.turns = OwnTurns(_READING)
        self.pager = self._make_pager(budget.mapped, columns)
        # Groups are worth it where runs are shuffled in them, or their pages let go.
        is_worth = run_rows > 1 or not self.pager.fits
        self._fetches_groups = budget.holds_groups and is_worth

    def _make_pager(self, mapped_bytes: int, columns: Sequence[str]) -> Pager:
        selection = self._reading.selection
        return Pager(
            selection.shards.files,
            mode=self._reading.paging,
            budget_bytes=mapped_bytes,
            needed_bytes=selection.rows * (selection.row_bytes + 4 * len(columns)),
            warms=self._reading.warms(self._run_rows),
        )

    def reader(
        self,
        epoch: int,
        batches: Numbers | range,
        columns: Sequence[str],
        prefetching: Prefetching,
        fetch: str = "always",
    ) -> GroupReader | NumberReader:
        """Return the reader of some batches of an epoch.

        Parameters
        ----------
        epoch : int
        batches, columns, fetch
            As of `GroupReader`.
        prefetching : Prefetching
            Who asks for them.
        """
        if not self._reads_features:
            return NumberReader(self.orders(epoch), self._in_memory(columns))
        pager, processes = self.pager, prefetching.processes
        if processes:  # each maps the files for itself
            pager = self._make_pager(pager.budget_bytes // processes, columns)
        return GroupReader(
            self._reading.selection,
            self.orders(epoch),
            columns,
            pager=pager,
            buffers=self._group_buffers,
            batches=batches,
            fetch=fetch if self._fetches_groups and not processes else "never",
            workers=prefetching.workers,
        )

    def _in_memory(self, columns: Sequence[str]) -> Values:
        """Return columns of all rows, float32 of shape (columns, rows); 4 bytes a value."""
        if self._columns is None or self._columns[0] != tuple(columns):
            selection = self._reading.selection
            values = np.empty((len(columns), selection.rows), np.float32)
            for name, out in zip(columns, values, strict=True):
                is_era = name == ERA
                out[:] = selection.era_codes if is_era else selection.column(name).to_numpy()
            self._columns = tuple(columns), values
        return self._columns[1]
