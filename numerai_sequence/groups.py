"""Groups: fetch the rows of neighbouring batches together, and hand them out batch by batch.

A group's rows are read in the order of the files: a page that several batches need is touched once,
and while one group is being read, the kernel is told of the next.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from .buffers import Buffers, borrow
from .encoding import Bytes, row_bytes
from .order import RowOrder
from .paging import Pager
from .shards import ShardSet

# Where the order shuffles the rows of a group, it must not depend on the machine.
_GROUP_ROWS = 1 << 14
# Single rows of a resident set: each group maps most of the set anew, so it is as large as pays.
_GROUP_BYTES = 32 << 20
_LEAST_BATCHES = 4

Rows = npt.NDArray[np.int64]
Values = npt.NDArray[np.float32]

#: Groups that are kept: the one that is being handed out, and the one after it.
KEPT = 2


def batches_per_group(batch_size: int, row_bytes: int, *, is_large: bool) -> int:
    """Return how many batches are fetched together; 1 where that would be only a few.

    Parameters
    ----------
    batch_size : int
        Rows.
    row_bytes : int
        Of an encoded row.
    is_large : bool
        Whether a group may be larger than about 16,000 rows.
    """
    rows = max(_GROUP_ROWS, _GROUP_BYTES // row_bytes) if is_large else _GROUP_ROWS
    batches = rows // batch_size
    return batches if batches >= _LEAST_BATCHES else 1


@dataclass(frozen=True)
class _Group:
    """The rows of a group, ascending, and for each place of the group which of them it is."""

    rows: Rows
    ranks: Rows


class GroupReader:
    """Reads the batches of one epoch, from any number of threads.

    Parameters
    ----------
    shards : ShardSet
    order : RowOrder
        Its groups are whole batches.
    targets : sequence of str
    batch_size : int
    pager : Pager
    buffers : Buffers
        For the encoded rows of groups.
    batches : sequence of int
        The batches in the order in which they will be asked for; those of a group together.
    fetch : {"always", "first", "never"}
        When a batch that is asked for has its group read whole: always; only if it is the group's
        first, so that batches in no order at all do not cost a group each; or never, and each
        batch reads its own rows.
    workers : int
        Threads that ask.
    """

    def __init__(
        self,
        shards: ShardSet,
        order: RowOrder,
        targets: Sequence[str],
        batch_size: int,
        *,
        pager: Pager,
        buffers: Buffers,
        batches: Sequence[int],
        fetch: str = "always",
        workers: int = 1,
    ) -> None:
        self._shards, self._order, self._targets = shards, order, targets
        self._batch_size, self._pager, self._buffers = batch_size, pager, buffers
        self._per_group = order.group_rows // batch_size
        self._width = row_bytes(shards.encoding, len(shards.features))
        groups = list(dict.fromkeys(number // self._per_group for number in batches))
        self._next = dict(pairwise(groups))
        self._fetch_when = fetch if self._per_group > 1 else "never"
        self._kept = KEPT + workers // self._per_group
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._fetched: OrderedDict[int, Future[Any]] = OrderedDict()
        self._announced: OrderedDict[int, _Group] = OrderedDict()

    def batch(self, number: int, rows: int, out: Bytes | None = None) -> tuple[Bytes, Values]:
        """Return the encoded rows and the targets of a batch of so many rows.

        Parameters
        ----------
        number, rows : int
        out : uint8 array, shape (rows, row bytes), optional
            None: the result is borrowed, and lasts until this thread asks again.
        """
        if out is None:
            out = borrow("encoded", rows, self._width)
        group, place = divmod(number, self._per_group)
        self._pager.warm()
        if not self._is_together(group, place):
            chosen = self._rows_of_batch(number, group, place * self._batch_size, rows)
            return self._shards.gather(chosen, self._targets, out=out, pager=self._pager)
        ranks, encoded, values = self._fetch(group)
        start = place * self._batch_size
        chosen = np.sort(ranks[start : start + rows])
        return encoded.take(chosen, axis=0, out=out, mode="clip"), values[chosen]

    def _is_together(self, group: int, place: int) -> bool:
        # A forked worker process fetches for itself alone, and leaves inherited locks alone.
        if self._fetch_when == "never" or os.getpid() != self._process:
            return False
        return self._fetch_when == "always" or place == 0 or group in self._fetched

    def _rows_of_batch(self, number: int, group: int, start: int, rows: int) -> Rows:
        if self._order.is_mixed or self._pager.reads_ahead:
            found = self._announce(group)
            return found.rows[np.sort(found.ranks[start : start + rows])]
        first = number * self._batch_size
        return self._order.rows(first, first + rows)

    def _fetch(self, group: int) -> tuple[Rows, Bytes, Values]:
        """Return a group that was read, or is now; other threads that need it wait."""
        with self._lock:
            future = self._fetched.get(group)
            is_mine = future is None
            if future is None:
                future = self._fetched[group] = Future()
                while len(self._fetched) > self._kept:
                    self._fetched.popitem(last=False)
        if is_mine:
            try:
                future.set_result(self._read_group(group))
            except BaseException as error:
                with self._lock:  # whoever asks later tries again
                    self._fetched.pop(group, None)
                future.set_exception(error)
        result: tuple[Rows, Bytes, Values] = future.result()
        return result

    def _read_group(self, group: int) -> tuple[Rows, Bytes, Values]:
        found = self._announce(group)
        shape = len(found.rows), self._width
        encoded, values = self._shards.gather(
            found.rows,
            self._targets,
            out=self._buffers.empty(shape, np.uint8),
            pager=self._pager,
        )
        return found.ranks, encoded, values

    def _announce(self, group: int) -> _Group:
        """Tell the kernel of a group and of the next one, unless it has been told."""
        found = self._place(group)
        if group in self._next:
            self._place(self._next[group])
        return found

    def _place(self, group: int) -> _Group:
        found = self._announced.get(group)
        if found is None:
            found = _place_rows(self._order.group(group))
            self._pager.read_ahead(self._shards.extents(found.rows, self._targets))
            self._announced[group] = found
            while len(self._announced) > self._kept + 1:
                self._announced.popitem(last=False)
        return found


def _place_rows(rows: Rows) -> _Group:
    order = np.argsort(rows, kind="stable")
    ranks = np.empty_like(order)
    ranks[order] = np.arange(len(order))
    return _Group(rows[order], ranks)
