"""Sequence: turn a batch number into the arrays that Keras trains on."""

from __future__ import annotations

import operator
import random
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from . import keras_compat
from .buffers import Buffers
from .encoding import DTYPES, Decoder, row_bytes
from .errors import FeatureError, check_known
from .groups import KEPT, GroupReader, batches_per_group
from .memory import Budget, decide, divide_budget, group_bytes
from .mixing import choose_run_rows
from .order import RowOrder, batch_count, epoch_order, order_bytes
from .paging import Pager
from .shards import PathLike, ShardSet, open_shards

# What Keras accepts as a Sequence depends on which Keras is installed; see keras_compat.
_BASES: Any = keras_compat.sequence_bases()

_Numbers = npt.NDArray[np.int32]

# Batches held besides those in Keras's queue: by workers, prefetched by TensorFlow, in use.
_BUFFERS_BESIDES = 16
# The row order of this epoch, and of the one before.
_ORDERS_KEPT = 2


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
        1 is an exact uniform shuffle. More: shuffle runs of this many neighbouring rows, which are
        cheaper to read, and then the rows of each group of batches. None: 1 if the set is resident
        and all of it may be mapped within the budget; otherwise as many as read well, and mix the
        eras in a batch nearly as an exact shuffle.
    dtype : {"float32", "float16", "int8"}
        Of x: floats 0..1 in steps of .25, or the raw int8 0..4 for a model that scales them itself.
    drop_remainder : bool
        Leave out the last batch of an epoch where it is smaller.
    memory_budget : int or str
        What the sequence may keep in memory: mapped pages, row orders, rows of the next batches,
        and batches' memory to be used again. Bytes, or a size such as "512MB"; "auto" is 96 MiB of
        mapped pages besides what the others need.
    paging : {"auto", "resident", "streaming"}
        Whether the set is read into the page cache once, or batch by batch. "auto" decides from the
        size of the set and the memory that the machine and its control groups have left.
    workers, use_multiprocessing, max_queue_size
        How Keras prefetches; the same options of ``fit`` win. Threads share the memory maps.
        Processes map the files anew, and each batch is copied through a pipe.

    Attributes
    ----------
    features : tuple of str
        The columns of x.
    run_rows : int
        That were asked for, or chosen.
    paging : str
        "resident" or "streaming".
    paging_reason : str
        Why.
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
        memory_budget: int | str = "auto",
        paging: str = "auto",
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
        self.dtype = dtype
        self.drop_remainder = drop_remainder
        self.epoch = 0
        self._is_epoch_begun = False
        self._targets = _target_names(self.target)
        self._decode = self._make_decoder(features)
        self.memory_budget = memory_budget
        self._set_bytes = sum(shard.bytes for shard in self.shards.manifest.shards)
        self._row_bytes = row_bytes(self.shards.encoding, len(self.shards.features))
        decided = decide(self._set_bytes, paging)
        self.paging, self.paging_reason = decided.mode, decided.reason
        chosen = self._best_run_rows() if run_rows is None else run_rows
        self.run_rows = _whole_number("run_rows", chosen)
        self._prepare()

    def _best_run_rows(self) -> int:
        if not self.shuffle or not self.shards.rows:
            return 1
        if self.paging == "resident" and self._set_bytes <= self._divide_budget(1).mapped:
            return 1
        return choose_run_rows(
            [batch.eras for shard in self.shards.manifest.shards for batch in shard.batches],
            row_bytes=self._row_bytes,
            batch_size=self.batch_size,
            group_rows=self._group_rows(run_rows=2),
        )

    def _group_rows(self, run_rows: int) -> int:
        least_rows = 0
        if run_rows == 1 and self.paging == "resident":
            # Each group of single rows maps most of the set anew: it is as large as there is room.
            least_rows = group_bytes(self.memory_budget) // self._row_bytes
        return self.batch_size * batches_per_group(self.batch_size, least_rows)

    def _divide_budget(self, run_rows: int) -> Budget:
        batch_rows = min(self.batch_size, max(1, self.shards.rows))
        return divide_budget(
            self.memory_budget,
            order_bytes=_ORDERS_KEPT * order_bytes(self.shards.rows, run_rows),
            group_bytes=KEPT * min(self._group_rows(run_rows), self.shards.rows) * self._row_bytes,
            batch_bytes=batch_rows * len(self.features) * np.dtype(self.dtype).itemsize,
            buffers=self.max_queue_size + _BUFFERS_BESIDES,
        )

    def _prepare(self) -> None:
        """Make what belongs to this process: row orders, buffers, and who tells the kernel."""
        self._orders: dict[int, RowOrder] = {}
        budget = self._divide_budget(self.run_rows)
        self._buffers = Buffers(budget.buffers)
        self._group_buffers = Buffers(KEPT)
        self._pager = self._make_pager(budget.mapped)
        # Groups are worth it where runs are shuffled in them, or their pages let go.
        is_worth = self.run_rows > 1 or not self._pager.fits
        self._fetches_groups = budget.holds_groups and is_worth
        self._reader: tuple[int, GroupReader] | None = None

    def _make_pager(self, mapped_bytes: int) -> Pager:
        # Single rows of a cold disk are slow, however early it is told of them.
        warms = self.paging == "resident" and self.run_rows == 1
        return Pager(
            self.shards.files,
            mode=self.paging,
            budget_bytes=mapped_bytes,
            needed_bytes=self.shards.rows * (self._row_bytes + 4 * len(self._targets)),
            warms=warms,
        )

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
        number, count = operator.index(index), len(self)
        if not -count <= number < count:
            raise IndexError(f"batch {number}, but an epoch has {count}")
        epoch, made = self.epoch, self._reader
        if made is None or made[0] != epoch:
            made = self._reader = epoch, self._make_reader(epoch, range(count), fetch="first")
        return self._batch(number % count, made[1])

    def on_epoch_end(self) -> None:
        """Move on to the next epoch's order.

        Keras calls this at every end of an epoch, and at other times too: only the first call after
        a batch of the present epoch was asked for does something.
        """
        if self._is_epoch_begun:
            self._is_epoch_begun = False
            self.epoch += 1

    def one_pass(self, *, shuffle: bool = False) -> _OnePass:
        """Return the present epoch's batches; later calls of `on_epoch_end` do not touch them.

        Parameters
        ----------
        shuffle : bool
            Permute them, with Python's global generator as Keras does; but those that are fetched
            together stay together.
        """
        self._is_epoch_begun = True
        numbers = np.arange(len(self), dtype=np.int32)
        if shuffle:
            numbers = _shuffle(numbers, self._order(self.epoch).group_rows // self.batch_size)
        processes = max(1, self.workers) if self.use_multiprocessing else 0
        return _OnePass(self, self.epoch, numbers, processes)

    def _make_reader(
        self, epoch: int, numbers: _Numbers | range, processes: int = 0, fetch: str = "always"
    ) -> GroupReader:
        pager = self._pager
        if processes:  # each maps the files for itself
            pager = self._make_pager(pager.budget_bytes // processes)
        return GroupReader(
            self.shards,
            self._order(epoch),
            self._targets,
            self.batch_size,
            pager=pager,
            buffers=self._group_buffers,
            batches=numbers,
            fetch=fetch if self._fetches_groups and not processes else "never",
            workers=self.workers,
        )

    def _batch(self, number: int, reader: GroupReader) -> Any:
        rows = min(self.batch_size, self.shards.rows - number * self.batch_size)
        x = self._buffers.empty((rows, len(self.features)), self.dtype)
        out = x.view(np.uint8) if self._decode.keeps_rows else None
        encoded, chosen, y = reader.batch(number, rows, out)
        if encoded is not out:
            self._decode(encoded, x, chosen)
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
                group_rows=self._group_rows(self.run_rows),
            )
            # The epoch before may still have readers.
            kept = {number: old for number, old in self._orders.items() if number == epoch - 1}
            self._orders = {**kept, epoch: order}
        return order

    def __getstate__(self) -> dict[str, Any]:
        made = "_orders", "_buffers", "_group_buffers", "_pager", "_reader"
        return {name: value for name, value in self.__dict__.items() if name not in made}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._prepare()

    def __repr__(self) -> str:
        return (
            f"<NumeraiSequence of {self.shards!r}: {len(self):,} batches of {self.batch_size:,}, "
            f"{len(self.features):,} features as {self.dtype}, target {self.target!r}, "
            f"{self.paging} ({self.paging_reason}), run_rows={self.run_rows}>"
        )


class _OnePass:
    """The batches of one epoch of a sequence, in the order in which they are asked for.

    `processes` is how many processes ask, or 0 for threads of this one.
    """

    def __init__(
        self, sequence: NumeraiSequence, epoch: int, numbers: _Numbers, processes: int
    ) -> None:
        self._sequence, self._epoch, self._numbers = sequence, epoch, numbers
        self._processes = processes
        self._reader = sequence._make_reader(epoch, numbers, processes)

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, place: int) -> Any:
        return self._sequence._batch(int(self._numbers[place]), self._reader)

    def __reduce__(self) -> Any:
        return _OnePass, (self._sequence, self._epoch, self._numbers, self._processes)


def _shuffle(numbers: _Numbers, per_group: int) -> _Numbers:
    groups = list(range(-(-len(numbers) // per_group)))
    random.shuffle(groups)
    shuffled = np.empty_like(numbers)
    start = 0
    for group in groups:
        batches = numbers[group * per_group : (group + 1) * per_group].tolist()
        random.shuffle(batches)
        shuffled[start : start + len(batches)] = batches
        start += len(batches)
    return shuffled


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
