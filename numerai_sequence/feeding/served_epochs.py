"""Served epochs: which epoch the batches of a sequence belong to, and who asks for them."""

from __future__ import annotations

import operator
import weakref
from typing import Any

import numpy as np
import pyarrow as pa

from ..batching.epoch import ASKED, Epoch, Position, shuffle_batches
from ..batching.prefetching import Prefetching
from .fit_call import is_fed
from .sequence_copies import SequenceCopies


class ServedEpochs(SequenceCopies):
    """Hands out the batches of the present epoch, and whole epochs for those who train."""

    _is_epoch_begun: bool

    def __len__(self) -> int:
        return self._plan.share.steps

    def _batch(self, index: int) -> Any:
        """Return a batch of the epoch that a pass asks for, or of the present epoch."""
        number, asked = self._number(index), ASKED.get()
        if asked is not None and asked.sequence is self:
            return asked.batch(number)
        self._is_epoch_begun = True
        present = self._present
        if present is None or present.number != self.epoch:
            present = self._present = self._begin_present()
        batch = present.batch(number)
        self.check(is_last=number == len(self) - 1)
        return batch

    def _begin_present(self) -> Epoch:
        batches = np.arange(len(self), dtype=np.int32)
        # Weakly: a sequence that is no longer used shall close its files at once.
        return Epoch(weakref.proxy(self), self.epoch, batches, self.prefetching, "first")

    def _number(self, index: int) -> int:
        """Return the number of a batch, which may be counted from the end."""
        # A subclass may have more batches, which it makes of these.
        number, count = operator.index(index), min(len(self), self._plan.share.steps)
        if not -count <= number < count:
            raise IndexError(f"batch {number}, but an epoch has {count}")
        return number % count

    def column(self, name: str, *, batch: int | None = None) -> pa.ChunkedArray:
        """Return ``id``, ``era``, ``data_type`` or a target of the rows that take part.

        Parameters
        ----------
        name : str
        batch : int, optional
            The rows of ``sequence[batch]`` alone, in the order of its x. Nothing else is read. It
            is a batch of the present epoch; in a ``__getitem__`` of a subclass, of the epoch that
            this is asked for.

        Returns
        -------
        pyarrow.ChunkedArray
            Without `batch` of all rows, on all ranks, in the order of the files. That is the order
            of the batches only with ``batch_by="rows", shuffle=False`` and one rank.

        Raises
        ------
        FeatureError
            There is no such column.
        IndexError
            There is no such batch.
        """
        if batch is None:
            return self._selection.column(name)
        number, asked = self._number(batch), ASKED.get()
        if asked is not None and asked.sequence is self:
            rows = asked.rows_of_batch(number)
        else:
            rows = self._plan.order(self.epoch).batch(number)
        return self._selection.column(name, rows)

    def on_epoch_end(self) -> None:
        """Move on to the next epoch's order.

        Keras calls this at every end of an epoch, and at other times too: only the first call after
        ``sequence[i]`` was asked for does something, and none in ``fit``, which has its own count.
        """
        if self._is_epoch_begun and not is_fed(self):
            self.begin_epoch(self.epoch + 1)

    def begin_epoch(self, epoch: int) -> None:
        """Let ``sequence[i]`` follow the order of an epoch; ``fit`` does this by itself."""
        self.epoch, self._is_epoch_begun = epoch, False

    def indivisible(self, parts: int, batch: int | None = None) -> int | None:
        """Return the rows of a batch that can't be cut into equal parts, as `ReadPlan` does.

        Of a class with a ``__getitem__`` of its own, which may add rows, none is known.
        """
        if self.made_by is not None:
            return None
        return self._plan.indivisible(parts, batch)

    def one_pass(
        self,
        *,
        place: Position | None = None,
        shuffle: bool = False,
        prefetching: Prefetching | None = None,
    ) -> Epoch:
        """Return the batches of an epoch, whatever is done to the sequence meanwhile.

        Parameters
        ----------
        place : Position, optional
            Which epoch, and its first batch; the present epoch, from its beginning, if not given.
        shuffle : bool
            Permute the batches, where the rows are not shuffled anyway. Those that are fetched
            together stay together.
        prefetching : Prefetching, optional
            Who asks for them; as the sequence says if not given.
        """
        epoch, first = place or Position(self.epoch)
        numbers = np.arange(len(self), dtype=np.int32)
        if shuffle and not self.shuffle:
            order = self._plan.order(epoch)
            rng = np.random.default_rng([self.seed, epoch, 0, 0])
            numbers = shuffle_batches(numbers, order.batches_per_group, rng, order.group_offset)
        return Epoch(self, epoch, numbers[first:], prefetching or self.prefetching)

    @property
    def prefetching(self) -> Prefetching:
        """What `fit` uses of `workers` and its like, unless it is given others."""
        return Prefetching(self.workers, self.use_multiprocessing, self.max_queue_size)

    def check(self, *, is_last: bool = False) -> None:
        """Check the shard files as far as that is due with a batch that was read.

        Parameters
        ----------
        is_last : bool
            Of a pass.
        """
        self.shards.watch.check(now=is_last)
        if self.verify:
            self.shards.checker.step(len(self))
