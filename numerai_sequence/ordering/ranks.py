"""Ranks: turn an epoch's order, a rank and a world size into that rank's own batches.

Each of `world_size` processes that train one model together reads a share of the epoch's units,
which are rows or eras. All ranks have as many batches, none of which is empty, and each unit is
once in one of them. A rank's share is a block of the whole epoch's batches, one after the other, so
that it reads their groups whole but for those at the block's two ends; and its part of what is left
over when all have as many.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .row_order import Rows, WholeOrder, placed


def check_rank(rank: Any, world_size: Any) -> tuple[int, int]:
    """Return the number of a process, from 0, and how many there are.

    Raises
    ------
    ValueError
        They are no whole numbers, or there is no such rank.
    """
    found = rank, world_size
    is_whole = all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) for n in found)
    if not (is_whole and 0 <= rank < world_size):
        raise ValueError(
            f"rank, world_size: found {rank!r} and {world_size!r}, expected whole numbers and "
            "0 <= rank < world_size: ranks are numbered from 0"
        )
    return int(rank), int(world_size)


class Share:
    """Which places of an epoch are a rank's.

    Parameters
    ----------
    units : int
        Of the epoch: rows, or eras.
    batch_size : int
        Units of a batch.
    rank, world_size : int
        As `check_rank` returns them.
    drop_remainder : bool
        Leave out what is left over.
    unit : str
        What a unit is called, for errors.

    Attributes
    ----------
    batch_size, world_size : int
    steps : int
        The rank's batches; as many for every rank.
    first, whole : int
        The whole epoch's batch that is the rank's batch 0, and how many from there on are its.
    rest : tuple of int
        Start and stop of the places that are the rank's besides, in its last batch: by themselves
        if every rank has some; otherwise it is one unit at most, which goes with a whole batch.

    Raises
    ------
    ValueError
        There are several ranks, and not a batch for each of them.
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
        """Return how many units one of the rank's batches has."""
        start, stop = self.rest
        rest = stop - start if batch == self.steps - 1 else 0
        return rest + (self.batch_size if batch < self.whole else 0)


class RankOrder:
    """One epoch's batches of a rank, numbered from 0; an `Order`.

    Parameters
    ----------
    order : WholeOrder
        Of the whole epoch.
    share : Share
        Of its rows, or of its eras.
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
        """Return the rank's rows of a group, ascending, and which of them is where.

        A group of the whole epoch that is cut by the end of the rank's block has the rank's own
        rows alone. What is left over joins the last one, or is one.
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
        """Return which places of its group are the batch's."""
        if self.batches_per_group == 1:  # as with eras, of which no two are of a size
            return slice(None)
        before = (batch + self.group_offset) % self.batches_per_group
        start = min(batch, before) * self._share.batch_size
        stop = None if self._is_last(batch) else start + self._share.batch_size
        return slice(start, stop)

    def _is_whole(self, batch: int) -> bool:
        return batch < self._share.whole

    def _is_last(self, batch: int) -> bool:
        return batch == self._share.steps - 1
