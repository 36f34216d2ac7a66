"""Sequence: turn a batch number into the arrays that Keras trains on."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from . import keras_compat
from .encoding import DTYPES, Decoder
from .errors import FeatureError, check_known
from .order import RowOrder, batch_count, epoch_order
from .shards import PathLike, ShardSet, open_shards

# What Keras accepts as a Sequence depends on which Keras is installed; see keras_compat.
_BASES: Any = keras_compat.sequence_bases()


class NumeraiSequence(*_BASES):  # type: ignore[misc]
    """Batches of a shard set, for ``fit``, ``evaluate`` and ``predict`` of any Keras.

    ``sequence[i]`` is batch i of the present epoch; ``len(sequence)`` the batches of an epoch. Each
    row comes once an epoch. Batches may be asked for in any order, from any thread.

    Parameters
    ----------
    shards : ShardSet, path, or sequence of paths
        What `write_shards` returned, a folder, a glob, or a list of shard files.
    batch_size : int
        Rows a batch. The last batch of an epoch holds what is left.
    target : str, sequence of str, or None
        One name: y has shape (batch,). A list: (batch, targets). None: there is no y.
    features : sequence of str, optional
        The features of x, in this order; None for all, in the set's order.
    shuffle : bool
        A new row order every epoch; False reads the rows in the order of the files. It is another
        thing than ``fit(shuffle=...)``, which permutes the batches of an epoch.
    seed : int
        Of the row order, together with the number of the epoch.
    run_rows : int, optional
        Shuffle runs of this many neighbouring rows; None is 1, an exact uniform shuffle.
    dtype : {"float32", "float16", "int8"}
        Of x: floats 0..1 in steps of .25, or the raw int8 0..4 for a model that scales them itself.
    drop_remainder : bool
        Leave out the last batch of an epoch where it is smaller.
    workers, use_multiprocessing, max_queue_size
        How Keras prefetches; the same options of ``fit`` win. Threads share the memory maps.
        Processes map the files anew, and each batch is copied through a pipe.

    Attributes
    ----------
    features : tuple of str
        The columns of x.
    epoch : int
        Which epoch's order ``sequence[i]`` follows. `on_epoch_end` moves it on.
    """

    def __init__(
        self,
        shards: ShardSet | PathLike | Iterable[PathLike],
        batch_size: int = 1000,
        *,
        target: str | Sequence[str] | None = "target",
        features: Sequence[str] | None = None,
        shuffle: bool = True,
        seed: int = 0,
        run_rows: int | None = None,
        dtype: str = "float32",
        drop_remainder: bool = False,
        workers: int = 1,
        use_multiprocessing: bool = False,
        max_queue_size: int = 10,
    ) -> None:
        keras_compat.install(NumeraiSequence)
        # Keras 3's constructor only sets these three, and Keras 2's takes nothing.
        self.workers = _whole_number("workers", workers, least=0)
        self.use_multiprocessing = use_multiprocessing
        self.max_queue_size = _whole_number("max_queue_size", max_queue_size)
        self.shards = shards if isinstance(shards, ShardSet) else open_shards(shards)
        self.batch_size = _whole_number("batch_size", batch_size)
        self.target = target if target is None or isinstance(target, str) else tuple(target)
        self.features = self.shards.features if features is None else tuple(features)
        self.shuffle = shuffle
        self.seed = _whole_number("seed", seed, least=0)
        self.run_rows = _whole_number("run_rows", 1 if run_rows is None else run_rows)
        self.dtype = dtype
        self.drop_remainder = drop_remainder
        self.epoch = 0
        self._is_epoch_begun = False
        self._orders: dict[int, RowOrder] = {}
        self._targets = _target_names(self.target)
        self._decode = self._make_decoder(features)

    def _make_decoder(self, features: Sequence[str] | None) -> Decoder:
        where = str(self.shards.folder)
        known = self.shards.features
        if isinstance(features, str):
            raise TypeError(f"features: found {features!r}, expected a list of feature names")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype: found {self.dtype!r}, expected one of {DTYPES}")
        if not self.features:
            raise FeatureError(f"{where}: no features asked for", names=())
        check_known("feature", self.features, known, where)
        check_known("target", self._targets, self.shards.targets, where)
        columns = None
        if self.features != known:
            number_of = {name: number for number, name in enumerate(known)}
            columns = np.array([number_of[name] for name in self.features], np.int64)
        return Decoder(self.shards.encoding, len(known), columns=columns, dtype=self.dtype)

    def __len__(self) -> int:
        return batch_count(self.shards.rows, self.batch_size, drop_remainder=self.drop_remainder)

    def __getitem__(self, index: int) -> Any:
        """Return batch `index` of the present epoch.

        Returns
        -------
        x : array of the `dtype` asked for, shape (batch, features)
        y : float32 array, shape (batch,) or (batch, targets)
            NaN where the source has none. Not there at all where `target` is None.

        Raises
        ------
        IndexError
            There is no such batch.
        """
        self._is_epoch_begun = True
        return self._batch(index, self.epoch)

    def on_epoch_end(self) -> None:
        """Move on to the next epoch's order.

        Keras calls this at every end of an epoch, and at other times too: only the first call after
        a batch of the present epoch was asked for does something.
        """
        if self._is_epoch_begun:
            self._is_epoch_begun = False
            self.epoch += 1

    def one_pass(self) -> _OnePass:
        """Return the present epoch's batches; later calls of `on_epoch_end` do not touch them."""
        self._is_epoch_begun = True
        self._order(self.epoch)  # before worker processes are forked, each of which would need it
        return _OnePass(self, self.epoch)

    def _batch(self, index: int, epoch: int) -> Any:
        number = operator.index(index)
        count = len(self)
        if not -count <= number < count:
            raise IndexError(f"batch {number}, but an epoch has {count}")
        start = number % count * self.batch_size
        stop = min(start + self.batch_size, self.shards.rows)
        rows = self._order(epoch).rows(start, stop)
        borrowed = not self._decode.keeps_rows
        encoded, y = self.shards.gather(rows, self._targets, borrowed=borrowed)
        x = self._decode(encoded)
        if self.target is None:
            return x
        return x, y[:, 0] if isinstance(self.target, str) else np.ascontiguousarray(y)

    def _order(self, epoch: int) -> RowOrder:
        # No lock, which a forked worker might inherit locked: two threads may compute the same.
        order = self._orders.get(epoch)
        if order is None:
            order = epoch_order(
                self.shards.spans(),
                seed=self.seed if self.shuffle else None,
                epoch=epoch,
                run_rows=self.run_rows,
            )
            # The epoch before may still have readers.
            kept = {number: old for number, old in self._orders.items() if number == epoch - 1}
            self._orders = {**kept, epoch: order}
        return order

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_orders": {}}

    def __repr__(self) -> str:
        return (
            f"<NumeraiSequence of {self.shards!r}: {len(self):,} batches of {self.batch_size:,}, "
            f"{len(self.features):,} features as {self.dtype}, target {self.target!r}>"
        )


class _OnePass:
    """The batches of one epoch of a sequence."""

    def __init__(self, sequence: NumeraiSequence, epoch: int) -> None:
        self._sequence = sequence
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._sequence)

    def __getitem__(self, index: int) -> Any:
        return self._sequence._batch(index, self._epoch)


def _target_names(target: str | tuple[str, ...] | None) -> tuple[str, ...]:
    if target is None:
        return ()
    if not target:
        raise ValueError("target: found none, expected a name, a list of names, or None")
    return (target,) if isinstance(target, str) else target


def _whole_number(name: str, value: Any, *, least: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name}: found {value!r}, expected a whole number")
    if value < least:
        raise ValueError(f"{name}: found {value}, expected at least {least}")
    return int(value)
