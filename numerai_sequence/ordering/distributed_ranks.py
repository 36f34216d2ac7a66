"""Distributed ranks: divide the batches of an epoch among the processes that train one model.

The units of an epoch are rows or eras. All ranks have the same number of batches, none is empty,
and each unit is in exactly one batch. A rank's share is a block of consecutive batches of the whole
epoch, so it reads whole groups, except at the two ends of the block. The remainder is divided, too.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .row_order import Rows, WholeOrder, placed


def check_rank(rank: Any, world_size: Any) -> tuple[int, int]:
    """Return the number of a process, from 0, and the number of processes.

    Raises
    ------
    ValueError
        They are not whole numbers, or there is no such rank.
    """
    found = rank, world_size
    is_whole = all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) for n in found)
    if not (is_whole and 0 <= rank < world_size):
        raise ValueError(
            f"rank, world_size: found {rank!r} and {world_size!r}, expected whole numbers with "
            "0 <= rank < world_size; ranks are numbered from 0"
        )
    return int(rank), int(world_size)


class Share:
    """The share of a rank in the places of an epoch.

    Parameters
    ----------
    units : int
        Number of rows or eras in the epoch.
    batch_size : int
        Units in a batch.
    rank, world_size : int
        From `check_rank`.
    drop_remainder : bool
        Whether to leave out the remainder.
    unit : str
        Name of the units, for errors.

    Attributes
    ----------
    batch_size, world_size : int
    steps : int
        Number of batches of every rank.
    first, whole : int
        Number of the rank's first full batch in the whole epoch, and number of its full batches.
    rest : tuple of int
        Start and stop of the rank's places in the remainder. They are a batch if every rank has
        some. Otherwise it is at most one unit, in the rank's last full batch.

    Raises
    ------
    ValueError
        There are fewer batches than ranks.
    """

    def __init__(
        self,
        units: int,
        batch_size: int,
        *,
        rank: int = 0,
        world_size: int = 1,
        drop_remainder: bool = False,
        unit: str = "rows",
    ) -> None:
        self.batch_size, self.world_size = batch_size, world_size
        self.whole = units // batch_size // world_size
        self.first = rank * self.whole
        start = self.whole * world_size * batch_size
        left = 0 if drop_remainder else units - start
        has_part = left >= world_size
        self.steps = self.whole + has_part
        if world_size > 1 and not self.steps:
            least, remedy = "one", "use fewer ranks"
            if drop_remainder:
                least, remedy = f"a batch of {batch_size:,}", f"{remedy}, or smaller batches"
            raise ValueError(
                f"world_size: found {world_size} ranks for {units:,} {unit}, expected at least "
                f"{least} for each; {remedy}"
            )
        cuts = [left * r // world_size if has_part else min(r, left) for r in (rank, rank + 1)]
        self.rest = start + cuts[0], start + cuts[1]

    def size(self, batch: int) -> int:
        """Return the number of units in a batch of the rank."""
        start, stop = self.rest
        rest = stop - start if batch == self.steps - 1 else 0
        return rest + (self.batch_size if batch < self.whole else 0)


class RankOrder:
    """One epoch's batches of a rank, numbered from 0; an `Order`.

    Parameters
    ----------
    order : WholeOrder
        Order of the whole epoch.
    share : Share
        Share of the rank.
    """

    def __init__(self, order: WholeOrder, share: Share) -> None:
        self._order, self._share = order, share
        self.batches_per_group, self.shuffles_groups = (
            order.batches_per_group,
            order.shuffles_groups,
        )
        self._first_group, self.group_offset = divmod(share.first, order.batches_per_group)
        start, stop = share.rest
        self._rest = order.rows(start, stop) if start < stop else np.empty(0, np.int64)

    def size(self, batch: int) -> int:
        """Return how many rows a batch has."""
        rows = len(self._rest) if self._is_last(batch) else 0
        return rows + (self._order.size(self._share.first + batch) if self._is_whole(batch) else 0)

    def batch(self, number: int) -> Rows:
        """Return the rows of a batch, ascending."""
        parts = [self._order.batch(self._share.first + number)] if self._is_whole(number) else []
        if not self._is_last(number):
            return parts[0]
        return np.sort(np.concatenate([*parts, self._rest]))

    def group_with_positions(self, number: int) -> tuple[Rows, Rows]:
        """Return the rank's rows of a group, ascending, and the place of each.

        A group at an end of the rank's block has only the rank's own rows. The remainder joins the
        last group, or is a group.
        """
        start = max(0, number * self.batches_per_group - self.group_offset)
        stop = min((number + 1) * self.batches_per_group - self.group_offset, self._share.steps)
        blocks = min(stop, self._share.whole) - start
        adds_rest = self._is_last(stop - 1) and len(self._rest) > 0
        if blocks == self.batches_per_group and not adds_rest:
            return self._order.group_with_positions(self._first_group + number)
        parts = [self._rest] if adds_rest else []
        if blocks > 0:
            first = self._share.first + start
            rows, ranks = self._order.group_with_positions(self._first_group + number)
            own = slice(
                self._order.places(first).start, self._order.places(first + blocks - 1).stop
            )
            parts.insert(0, rows[ranks[own]])
        return placed(np.concatenate(parts))

    def places(self, batch: int) -> slice:
        """Return the places of a batch in its group."""
        if self.batches_per_group == 1:  # such as for eras, whose sizes differ
            return slice(None)
        before = (batch + self.group_offset) % self.batches_per_group
        start = min(batch, before) * self._share.batch_size
        stop = None if self._is_last(batch) else start + self._share.batch_size
        return slice(start, stop)

    def _is_whole(self, batch: int) -> bool:
        return batch < self._share.whole

    def _is_last(self, batch: int) -> bool:
        return batch == self._share.steps - 1
