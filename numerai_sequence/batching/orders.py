"""Orders: the row orders of a sequence's epochs, of which the newest are kept."""

from __future__ import annotations

from ..ordering.era_order import EraOrder
from ..ordering.ranks import RankOrder, Share
from ..ordering.row_order import Order, RowOrder, epoch_order
from ..reading.selection import Selection

#: What a batch is made of.
BATCH_BY = ("rows", "era")


class Orders:
    """Makes the order of an epoch where it is asked for; any number of threads may ask at once.

    Parameters
    ----------
    selection : Selection
        The rows.
    share : Share
        Which of the batches are this process's.
    by_era : bool
        Whether batches are whole eras.
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
        by_era: bool,
        seed: int | None,
        run_rows: int,
        group_rows: int,
    ) -> None:
        self.share, self._selection, self._by_era = share, selection, by_era
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

    def _make(self, epoch: int) -> RowOrder | EraOrder:
        seed, size = self._seed, self.share.batch_size
        if self._by_era:
            rows, sizes = self._selection.by_era
            return EraOrder(rows, sizes, seed=seed, epoch=epoch, batch_size=size)
        return epoch_order(
            self._selection.spans(),
            seed=seed,
            epoch=epoch,
            run_rows=self._run_rows,
            batch_size=size,
            group_rows=self._group_rows,
        )

    def indivisible(self, parts: int, batch: int | None = None) -> int | None:
        """Return the rows of a batch that can't be cut into so many equal parts, None if all can.

        It looks at one batch of an epoch, or at all. Eras come in any order, and each of them has
        to be divisible.
        """
        if self._by_era:
            sizes = self._selection.by_era[1].tolist()
        else:
            batches = range(self.share.steps)
            ends = [*batches[:1], *batches[-1:]] if batch is None else [batch]
            sizes = [self.share.size(batch) for batch in ends]
        return next((size for size in sizes if size % parts), None)
