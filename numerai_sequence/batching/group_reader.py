"""Group reader: read the rows of neighbouring batches together, and return them batch by batch.

A group's rows are read in the order of the files, in long runs, and in a few parts. Each call for a
batch also reads a part of the next group, and announces a part of the group after that to the
kernel. So the work is spread over batches and threads, and the disk has the time of a whole group.
"""

from __future__ import annotations

import os
from collections import OrderedDict, deque
from collections.abc import Sequence
from concurrent.futures import Future
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from ..format.encoding import Bytes
from ..ordering.row_order import Order
from ..reading.paging import Pager
from ..reading.selection import Selection
from ..system.buffers import Buffers, scratch_array
from ..system.fork_safe_locks import ForkSafeLock

# The same on all machines, because the order may shuffle the rows of a group.
_GROUP_ROWS = 1 << 14
_LEAST_BATCHES = 4
# Parts of a group. More parts spread the work better, but need more calls for each record batch.
_PARTS = 4

Rows = npt.NDArray[np.int64]
Values = npt.NDArray[np.float32]

#: Groups in memory: the previous one, whose last batches are in use, the present and the next one.
KEPT = 3


def batches_per_group(batch_size: int, least_rows: int = 0) -> int:
    """Return the number of batches that are read together; 1 instead of only a few.

    Parameters
    ----------
    batch_size : int
        Rows in a batch.
    least_rows : int
        Smallest number of rows in a group, if it is more than about 16,000.
    """
    batches = max(_GROUP_ROWS, least_rows) // batch_size
    return batches if batches >= _LEAST_BATCHES else 1


class _Group:
    """The rows of a group, and the parts that are still to be announced and read.

    Parameters
    ----------
    number : int
    rows, ranks : int64 arrays
        From `Order.group_with_positions`.
    batches : int
        Number of its batches that will be read.
    """

    def __init__(self, number: int, rows: Rows, ranks: Rows, batches: int) -> None:
        self.number, self.rows, self.ranks, self.batches = number, rows, ranks, batches
        bounds = [len(rows) * part // _PARTS for part in range(_PARTS + 1)]
        self.unannounced = deque(slice(*part) for part in pairwise(bounds))
        self.unread = self.unannounced.copy()
        self.reads: list[Future[bool]] = []  # the result of each says whether it succeeded
        self.is_whole = False
        # Made when the first part is read.
        self.encoded: Bytes = np.empty((0, 0), np.uint8)
        self.values: Values = np.empty((0, 0), np.float32)


class GroupReader:
    """A reader of the batches of one epoch, for any number of threads.

    Parameters
    ----------
    selection : Selection
        Rows of the order.
    order : Order
    columns : sequence of str
        See `Selection.gather`.
    pager : Pager
    buffers : Buffers
        Memory for the encoded rows of groups.
    batches : sequence or array of int
        Batches in the order of reading, with the batches of a group together.
    fetch : {"always", "first", "never"}
        When a batch reads its whole group: always; only if it is the first batch of the group, so
        that batches in random order do not read a group each; or never: each batch reads its own
        rows.
    workers : int
        Number of threads that read batches.
    """

    def __init__(
        self,
        selection: Selection,
        order: Order,
        columns: Sequence[str],
        *,
        pager: Pager,
        buffers: Buffers,
        batches: Sequence[int] | npt.NDArray[np.int32],
        fetch: str = "always",
        workers: int = 1,
    ) -> None:
        self._selection, self._order, self._columns = selection, order, columns
        self._pager, self._buffers = pager, buffers
        self._per_group, self._offset = order.batches_per_group, order.group_offset
        self._width = selection.row_bytes
        groups = self._group_of(np.asarray(batches, np.int32))
        self._batches_of = np.bincount(groups)
        # The groups in the order of reading, and the place of each among them.
        self._coming = groups[np.flatnonzero(np.diff(groups, prepend=-1))]
        self._place_of = np.full_like(self._batches_of, -1)
        self._place_of[self._coming] = np.arange(len(self._coming))
        self._fetch_when = fetch if self._per_group > 1 else "never"
        self._process = os.getpid()
        self._lock = ForkSafeLock()
        # And the group that is announced to the kernel.
        self._most_groups = KEPT + 1 + workers // self._per_group
        self._groups: OrderedDict[int, _Group] = OrderedDict()
        self._fetched: set[int] = set()
        # Numbers of groups whose batches were all returned.
        self._finished: set[int] = set()

    def size(self, number: int) -> int:
        """Return how many rows a batch has."""
        return self._order.size(number)

    def rows(self, number: int) -> Rows:
        """Return the rows of a batch, ascending."""
        return self._order.batch(number)

    def batch(self, number: int, out: Bytes | None = None) -> tuple[Bytes, Rows | None, Values]:
        """Return the encoded rows and the columns of a batch.

        Parameters
        ----------
        number : int
        out : uint8 array, shape (rows, row bytes), optional
            Memory for the encoded rows, used if the batch reads its own rows.

        Returns
        -------
        encoded : uint8 array, shape (n, row bytes)
        chosen : int64 array, shape (rows,), or None
            Numbers of the batch's rows in `encoded`. None for all.
        values : float32 array, shape (rows, columns)
        """
        self._pager.warm()
        if self._is_together(number):
            return self._batch_of_group(number)
        wanted = self._rows_of_batch(number)
        if out is None:
            out = scratch_array("encoded", len(wanted), self._width)
        encoded, values = self._selection.gather(
            wanted, self._columns, encoded=out, pager=self._pager
        )
        return encoded, None, values

    def _is_together(self, number: int) -> bool:
        # In a forked worker process, no other thread would read the parts that this one waits for.
        if self._fetch_when == "never" or os.getpid() != self._process:
            return False
        group = self._group_of(number)
        if not self._comes(group):  # a subclass may ask for any batch, and so for a group twice
            return False
        if self._fetch_when == "always" or group in self._fetched:
            return True
        return (number + self._offset) % self._per_group == 0

    def _group_of(self, number: Any) -> Any:
        return (number + self._offset) // self._per_group

    def _comes(self, group: int) -> bool:
        """Return whether any batch of a group will be read."""
        return group < len(self._place_of) and bool(self._place_of[group] >= 0)

    def _rows_of_batch(self, number: int) -> Rows:
        if not (self._order.shuffles_groups or self._pager.reads_ahead):
            return self._order.batch(number)
        place, in_order = self._group_of(number), self._fetch_when != "first"
        if not self._comes(place):
            return self._read_ahead(self._order.batch(number))
        group, *following = self._groups_from(place, 2 if in_order else 1)
        wanted = group.rows[self._chosen(group, number)]
        if not in_order:
            return self._read_ahead(wanted)
        self._announce(group, *following)
        return wanted

    def _read_ahead(self, rows: Rows) -> Rows:
        self._pager.read_ahead(self._selection.extents(rows, self._columns))
        return rows

    def _chosen(self, group: _Group, number: int) -> Rows:
        return np.sort(group.ranks[self._order.places(number)])

    def _batch_of_group(self, number: int) -> tuple[Bytes, Rows, Values]:
        """Read the missing parts of a group, and a part of the next one."""
        group, *following = self._groups_from(self._group_of(number), 3)
        self._fetched.add(group.number)
        self._announce(group, *following[:1])
        if not group.is_whole:
            while self._read_part(group):
                pass
            if not all(read.result() for read in group.reads):
                return self._batch_of_group(number)  # with a new group: this one was dropped
            group.is_whole = True
        for coming in following[:1]:
            self._read_part(coming)
        for coming in following[1:]:
            self._announce(coming, parts=1)
        with self._lock:
            group.batches -= 1
            if not group.batches:
                self._finished.add(group.number)
                self._drop(group)
        chosen = self._chosen(group, number)
        return group.encoded, chosen, group.values[:, chosen].T

    def _groups_from(self, number: int, most: int) -> list[_Group]:
        """Return a group and the groups that will be read after it."""
        place = self._place_of[number]
        with self._lock:
            if number in self._finished:  # the epoch is read again
                self._finished.clear()
            # A slow thread may reach a group after other threads have finished the next one.
            wanted = self._coming[place : place + most].tolist()
            return [self._group(coming) for coming in wanted if coming not in self._finished]

    def _group(self, number: int) -> _Group:
        group = self._groups.get(number)
        if group is None:
            rows, ranks = self._order.group_with_positions(number)
            group = _Group(number, rows, ranks, int(self._batches_of[number]))
            self._groups[number] = group
            if len(self._groups) > self._most_groups:
                self._drop(next(iter(self._groups.values())))
        return group

    def _drop(self, group: _Group) -> None:
        if self._groups.get(group.number) is group:  # and not a newer one
            del self._groups[group.number]
            self._fetched.discard(group.number)

    def _announce(self, *groups: _Group, parts: int | None = None) -> None:
        """Announce groups, or some of their parts, to the kernel, unless they are announced."""
        for group in groups:
            for _ in range(len(group.unannounced) if parts is None else parts):
                try:
                    part = group.unannounced.popleft()
                except IndexError:  # other threads were faster
                    break
                self._pager.read_ahead(self._selection.extents(group.rows[part], self._columns))

    def _read_part(self, group: _Group) -> bool:
        """Read a part of a group that no thread reads yet; return whether there was one."""
        with self._lock:
            if not group.unread:
                return False
            part, done = group.unread.popleft(), Future[bool]()
            if not group.reads:
                group.encoded = self._buffers.empty((len(group.rows), self._width), np.uint8)
                group.values = np.empty((len(self._columns), len(group.rows)), np.float32)
            group.reads.append(done)
        try:
            self._selection.gather(
                group.rows[part],
                self._columns,
                encoded=group.encoded[part],
                values=group.values[:, part],
                pager=self._pager,
            )
            done.set_result(True)
        except BaseException:
            with self._lock:  # a later call tries again
                self._drop(group)
            # Not the error, which refers to this frame, and so would keep the group in memory.
            done.set_result(False)
            raise
        return True
