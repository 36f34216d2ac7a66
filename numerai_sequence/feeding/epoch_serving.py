"""Epoch serving: the part of a sequence that returns batches of the present epoch, or of a pass."""

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
    """A sequence that returns batches of its present epoch, and whole epochs for training."""

    _is_epoch_begun: bool

    def __len__(self) -> int:
        return self._plan.share.steps

    def _batch(self, index: int) -> Any:
        """Return a batch of the epoch of the calling pass, or else of the present epoch."""
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
        # A weak reference, so that a sequence that is no longer used closes its files at once.
        return Epoch(weakref.proxy(self), self.epoch, batches, self.prefetching, "first")

    def _number(self, index: int) -> int:
        """Return the number of a batch from an index, which may be negative."""
        # A subclass may make more batches from these.
        number, count = operator.index(index), min(len(self), self._plan.share.steps)
        if not -count <= number < count:
            raise IndexError(
                f"found batch {number}, expected {-count} to {count - 1}: an epoch has {count} "
                "batches"
            )
        return number % count

    def column(self, name: str, *, batch: int | None = None) -> pa.ChunkedArray:
        """Return ``id``, ``era``, ``data_type`` or a target of the selected rows.

        Parameters
        ----------
        name : str
            Name of the column.
        batch : int, optional
            Number of a batch of the present epoch. The rows are then those of ``sequence[batch]``,
            in the order of its x, and nothing else is read. In the ``__getitem__`` of a subclass,
            it is a batch of the epoch that is being read.

        Returns
        -------
        pyarrow.ChunkedArray
            The column. Without `batch`, it has all rows, of all ranks, in the order of the files.
            Batches have that order only with ``batch_by="rows", shuffle=False`` and one rank.

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
        """Change to the order of the next epoch.

        Keras calls it at the end of every epoch, and at other times. Only the first call after
        ``sequence[i]`` has an effect. In ``fit``, which counts epochs itself, no call has one.
        """
        if self._is_epoch_begun and not is_fed(self):
            self.begin_epoch(self.epoch + 1)

    def begin_epoch(self, epoch: int) -> None:
        """Change ``sequence[i]`` to the order of an epoch. ``fit`` does this itself."""
        self.epoch, self._is_epoch_begun = epoch, False

    def indivisible(self, parts: int, batch: int | None = None) -> int | None:
        """Return the number of rows of a batch that has no equal parts, or None. See `ReadPlan`.

        It is None for a class with its own ``__getitem__``, which may add rows.
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
        """Return the batches of an epoch, which do not change with the sequence.

        Parameters
        ----------
        place : Position, optional
            Epoch and first batch. None for the present epoch from its first batch.
        shuffle : bool
            Whether to shuffle the batches, if the sequence does not shuffle rows. Batches that are
            read together stay together.
        prefetching : Prefetching, optional
            Options of the workers. None for those of the sequence.
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
        """Options of the workers, unless ``fit`` is given others."""
        return Prefetching(self.workers, self.use_multiprocessing, self.max_queue_size)

    def check(self, *, is_last: bool = False) -> None:
        """Check the part of the shard files that is due after a batch.

        Parameters
        ----------
        is_last : bool
            Whether it was the last batch of a pass.
        """
        self.shards.watch.check(now=is_last)
        if self.verify:
            self.shards.checker.step(len(self))
