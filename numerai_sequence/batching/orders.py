"""Orders: the row orders of a sequence's epochs, of which the newest are kept."""

from __future__ import annotations

from ..ordering.batchings import Batching
from ..ordering.ranks import RankOrder, Share
from ..ordering.row_order import Order, WholeOrder
from ..reading.selection import Selection


class Orders:
    """Makes the order of an epoch where it is asked for; any number of threads may ask at once.

    Parameters
    ----------
    selection : Selection
        The rows.
    share : Share
        Which of the batches are this process's.
    batching : Batching
        What batches are made of.
    seed : int or None
        None for the order of the files, or of time.
    run_rows, group_rows : int
        As of `epoch_order`.

    Attributes
    ----------
    share : Share
    """

    def __init__(
        self,
        selection: Selection,
        share: Share,
        *,
        batching: Batching,
        seed: int | None,
        run_rows: int,
        group_rows: int,
    ) -> None:
        self.share, self._selection, self._batching = share, selection, batching
        self._seed, self._run_rows, self._group_rows = seed, run_rows, group_rows
        self._made: dict[int, Order] = {}

    def __call__(self, epoch: int) -> Order:
        """Return the order of an epoch."""
        # No lock, which a forked worker might inherit locked: two threads may compute the same.
        order = self._made.get(epoch)
        if order is None:
            whole = self._make(epoch)
            order = RankOrder(whole, self.share) if self.share.world_size > 1 else whole
            # The epoch before may still have readers.
            kept = {number: old for number, old in self._made.items() if number == epoch - 1}
            self._made = {**kept, epoch: order}
        return order

    def _make(self, epoch: int) -> WholeOrder:
        return self._batching.order(
            self._selection,
            seed=self._seed,
            epoch=epoch,
            batch_size=self.share.batch_size,
            run_rows=self._run_rows,
            group_rows=self._group_rows,
        )

    def indivisible(self, parts: int, batch: int | None = None) -> int | None:
        """Return the rows of a batch that can't be cut into so many equal parts, None if all can.

        It looks at one batch of an epoch, or at all.
        """
        sizes = self._batching.sizes(self._selection, self.share, batch)
        return next((size for size in sizes if size % parts), None)
