"""Sequence: turn a batch number into the arrays that Keras trains on."""

from __future__ import annotations

import copy
import operator
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..batching.chosen_rows import choose_rows
from ..batching.group_reader import GroupReader
from ..batching.inputs import check_inputs_complete, keys_of
from ..batching.passes import (
    READING,
    Numbers,
    OnePass,
    Place,
    Prefetching,
    shuffle_batches,
)
from ..batching.readers import DECODING, Readers
from ..batching.reading import Reading
from ..batching.row_numbers import NumberReader
from ..batching.targets import (
    POLICIES,
    SampleWeight,
    Target,
    Targets,
    given_target,
    read_target,
    read_weights,
    read_weights_by_era,
    stored_names,
    target_names,
)
from ..checks import is_of, one_of, true_or_false, whole_number
from ..errors import NumeraiSequenceError, check_known
from ..format.encoding import DTYPES, PACKED, Decoder
from ..format.encodings import ENCODINGS
from ..format.feature_sets import resolve_features
from ..format.layout import FEATURES
from ..ordering.batchings import BATCH_BY
from ..ordering.ranks import Share, check_rank
from ..reading.memory_budget import check_budget
from ..reading.selection import Selection
from ..reading.shard_set import PathLike, ShardSet, open_shards
from . import keras_compat
from .fit_call import is_fed
from .sequence_arguments import Arguments
from .unpack import carry_unpack

# What Keras accepts as a Sequence depends on which Keras is installed; see keras_compat.
_BASES: Any = keras_compat.sequence_bases()
keras_compat.carry_inputs()
carry_unpack()

# Batches held besides those in Keras's queue: by workers, prefetched by TensorFlow, in use.
_BUFFERS_BESIDES = 16


class NumeraiSequence(Arguments, *_BASES):  # type: ignore[misc]
    """Batches of a shard set, for ``fit``, ``evaluate`` and ``predict`` of any Keras.

    ``sequence[i]`` is batch i of the present epoch; ``len(sequence)`` the batches of an epoch. Each
    row that takes part comes once an epoch. Batches may be asked for in any order, from any thread.
    Of several processes that train one model, each has batches of its own, told by its `rank`.

    Parameters
    ----------
    shards : ShardSet, path, or sequence of paths
        What `write_shards` returned, a folder, a glob, or a list of shard files.
    batch_size : int, optional
        Rows a batch, 1000 if not given; with ``batch_by="era"`` eras a batch, 1 if not given. The
        last batch of an epoch holds what is left.
    target : str, Residual, sequence of these, mapping, or None
        One name: y has shape (batch,). A list, array or Index: (batch, targets). A mapping from the
        names of a model's outputs to these: a dict of such arrays. ``"features"``, alone or in a
        mapping, is x itself, for an autoencoder. A `Residual` may stand for a name: a target
        without what a benchmark model explains. None: there is no y.
    features : str or sequence of str, optional
        The features of x: the name of a feature set, such as ``"medium"``, or a list, in this
        order; None for all, in the set's order.
    inputs : mapping, optional
        Other inputs of the model, by name: numbers that are not among the features, such as
        ``{"benchmarks": "validation_benchmark_models.parquet"}``. A source is the path of a
        Parquet or CSV file, a frame or Series with ids, names of columns of the set, or a list of
        these for other rows; ``(source, ["v53_lgbm_ender60"])`` takes some columns of it. x is
        then a dict of ``"features"`` and, as float32, of these. Each row needs a value in each.
        They take 4 bytes of memory a column and row of the set.
    eras : optional
        The eras that take part; None for all. A list; ``"0001-0574"``, ``"0575-"``, ``"::4"``, or
        several of these with commas between; a slice of the eras in the order of time; or a
        function of an era that says whether. See `eras.choose_eras`.
    data_type : str or list of str, optional
        Such as ``"train"``: the data types that take part; None for all.
    missing_target : {"error", "drop", "mask"}
        Where a target is missing in a row that takes part: refuse to begin; leave out the row; or
        give it a sample weight of 0, in the outputs whose target it is (its y is 0.5 there). The
        `Residual` of a row whose benchmark has no value is missing, too; a warning says so.
    sample_weight : str, mapping, pandas.Series, function, or None
        The name of a target column; a weight for each era, a range of eras too, in the spellings of
        `eras`: ``{"0001-0500": 0.5, "0501-": 1}``; or a function of an array of eras, one a
        row, and y, both read-only, that returns an array of shape (batch,). May be set anew between
        two epochs: it holds from the next pass over the sequence.
    batch_by : {"rows", "era"}
        Batches of so many rows, or of whole eras, each in one batch.
    shuffle : bool
        A new order of rows, or of eras, every epoch; False reads in the order of the files, or of
        time, of which ``fit(shuffle=True)``, Keras's default, permutes the batches.
    seed : int
        Of the order, together with the number of the epoch.
    run_rows : int, optional
        1 is an exact uniform shuffle. More: shuffle runs of this many neighbouring rows, which are
        cheaper to read, and then the rows of each group of batches. None: 1 where they take no more
        than 96 MiB; otherwise as many as read well, and mix the eras in a batch nearly as an exact
        shuffle.
    dtype : {"float32", "float16", "int8", "packed"}
        Of x: floats 0..1 in steps of .25; or the raw int8 0..4 for a model that scales them itself;
        or the rows as they are in the files, uint8, for a model that begins with an `Unpack` layer.
    resident : bool
        Keep the packed rows in the memory of the device: x are numbers of rows, int32 (batch,),
        which the model's `Unpack` layer looks up there. With ``dtype="packed"``.
    drop_remainder : bool
        Leave out the last batch of an epoch where it is smaller; with several ranks, what is left
        over when all have as many batches. A batch has to be left.
    rank, world_size : int
        Which of how many processes that train one model this is, from 0: the epoch is divided among
        them. Each has as many batches, of `batch_size`; what is left over is one smaller batch for
        each, or, if that is fewer rows (or eras) than ranks, one row more in some ranks' last
        batches. `seed`, `run_rows`, and what chooses rows and batches, must be the same on all.
    memory_budget : int or str
        What the sequence may keep in memory: mapped pages, row orders, rows of the next batches,
        and batches' memory to be used again. Bytes, or a size such as "512MB"; "auto" is 96 MiB of
        mapped pages besides what the others need.
    paging : {"auto", "resident", "streaming"}
        Whether the set is read into the page cache once, or batch by batch. "auto" decides from the
        size of the set and the memory that the machine and its control groups have left.
    verify : bool
        Compare every byte of the shard files with its checksum, a share with each batch, until as
        many batches as an epoch has were read; once, however many sequences share a `ShardSet`, and
        on each rank, which may read copies of its own. A file that is not as it was written is an
        error as soon as its last byte was compared.
    workers, use_multiprocessing, max_queue_size
        How batches are made ahead; the same options of ``fit`` win. The most threads: more than one
        are at work only where training waits for batches. 0 makes them where Keras asks for them.
        Threads share the memory maps. Processes map the files anew, and each batch is copied
        through a pipe.

    Attributes
    ----------
    The arguments, too. Only `sample_weight`, `epoch`, `workers`, `use_multiprocessing` and
    `max_queue_size` can be set; for other values of the rest, make a new sequence.

    features : tuple of str
        The columns of x.
    inputs : dict of str to tuple of str
        The columns of the model's other inputs, by the input's name.
    eras : tuple of str
        The eras that take part, in the order of time.
    rows : int
        The rows that take part, on all ranks together.
    run_rows : int
        That were asked for, or chosen.
    paging : str
        "resident" or "streaming".
    paging_reason : str
        Why.
    epoch : int
        Which epoch's order ``sequence[i]`` follows, from 0. In ``fit`` it is the number of the
        epoch there, counted on where the sequence has been through some and `initial_epoch` is 0;
        each validation follows that of epoch 0.

    Raises
    ------
    FeatureError
        A feature, a feature set or a target is unknown.
    EraError
        An era or data type is unknown, no row takes part, a target is missing, or a weight is, or
        a value of an input.
    CorruptShardError
        A shard file is not as it was written; or, from a batch, it is changed while it is read.
    ValueError
        There is no such rank, or no batch for each of them; or any other argument is wrong.
    TypeError
        An argument is of a wrong type. A set of features or targets has no order.
    """

    workers: int
    use_multiprocessing: bool
    max_queue_size: int
    epoch: int

    # The rows on the device that its batches number, once an `Unpack` layer has put them there.
    _device_rows: Any = None
    _first_device_row: int | None = None

    def __init__(
        self,
        shards: ShardSet | PathLike | Iterable[PathLike],
        batch_size: int | None = None,
        *,
        target: Target = "target",
        features: str | Sequence[str] | None = None,
        inputs: Mapping[str, Any] | None = None,
        eras: Any = None,
        data_type: str | Iterable[str] | None = None,
        missing_target: str = "error",
        sample_weight: SampleWeight = None,
        batch_by: str = "rows",
        shuffle: bool = True,
        seed: int = 0,
        run_rows: int | None = None,
        dtype: str = "float32",
        resident: bool = False,
        drop_remainder: bool = False,
        rank: int = 0,
        world_size: int = 1,
        memory_budget: int | str = "auto",
        paging: str = "auto",
        verify: bool = False,
        workers: int = 1,
        use_multiprocessing: bool = False,
        max_queue_size: int = 10,
    ) -> None:
        keras_compat.install(NumeraiSequence)
        # Keras 3's constructor only sets these three, and Keras 2's takes nothing.
        self.workers, self.use_multiprocessing = workers, use_multiprocessing
        self.max_queue_size = max_queue_size
        self.epoch = 0
        self._is_epoch_begun = False
        self._keep(batch_by=one_of("batch_by", batch_by, tuple(BATCH_BY)))
        size = BATCH_BY[self.batch_by].default_size if batch_size is None else batch_size
        rank, world_size = check_rank(rank, world_size)
        self._keep(
            batch_size=whole_number("batch_size", size, least=1),
            missing_target=one_of("missing_target", missing_target, POLICIES),
            shuffle=true_or_false("shuffle", shuffle),
            seed=whole_number("seed", seed, least=0),
            dtype=one_of("dtype", dtype, (*DTYPES, PACKED)),
            resident=true_or_false("resident", resident),
            drop_remainder=true_or_false("drop_remainder", drop_remainder),
            rank=rank,
            world_size=world_size,
            memory_budget=check_budget(memory_budget),
            verify=true_or_false("verify", verify),
            shards=_open(shards),
        )
        where = str(self.shards.folder)
        self._keep(features=resolve_features(features, self.shards.manifest, where))
        self._outputs, self._residuals = read_target(target, self.shards)
        _check_packed(self.dtype, self.resident, self._outputs)
        self._decode = self._make_decoder()
        self._select(self.shards, eras, data_type, inputs)
        self.sample_weight = sample_weight
        self._reading = self._plan(paging)
        self._keep(paging=self._reading.paging, paging_reason=self._reading.reason)
        if run_rows is None:
            run_rows = self._reading.best_run_rows() if self.shuffle else 1
        self._keep(run_rows=whole_number("run_rows", run_rows, least=1))
        self._prepare()

    @property
    def feature_numbers(self) -> npt.NDArray[np.int64] | None:
        """The numbers of the features among those of the set; None for all, in the set's order."""
        known = self.shards.features
        if self.features == known:
            return None
        number_of = {name: number for number, name in enumerate(known)}
        return np.array([number_of[name] for name in self.features], np.int64)

    def _make_decoder(self) -> Decoder:
        features = len(self.shards.features)
        encoding = ENCODINGS[self.shards.encoding]
        return encoding.decoder(features, columns=self.feature_numbers, dtype=self.dtype)

    def _select(
        self, shards: ShardSet, eras: Any, data_type: Any, inputs: Any, missing: str | None = None
    ) -> None:
        self._selection, self._inputs = choose_rows(
            shards,
            eras,
            data_type,
            targets=target_names(self._outputs),
            residuals=self._residuals,
            missing=missing or self.missing_target,
            inputs=inputs,
        )

    def _plan(self, paging: str) -> Reading:
        batching = BATCH_BY[self.batch_by]
        rows = batching.most_rows(self._selection, self.batch_size)
        most_rows = min(rows, max(1, self.rows))
        return Reading(
            self._selection,
            memory_budget=self.memory_budget,
            paging=paging,
            batch_rows=rows,
            batch_bytes=most_rows * self._row_bytes,
            batching=batching,
            shuffles=self.shuffle,
            world_size=self.world_size,
        )

    @property
    def _row_bytes(self) -> int:
        """The bytes of x of one row."""
        row: npt.NDArray[Any] = self.zeros(1, with_inputs=False)
        return row.nbytes

    def zeros(self, rows: int, *, with_inputs: bool = True) -> Any:
        """Return x of so many rows of nothing, in the form in which `fit` is fed it."""
        decode = self._decode
        x = (
            np.zeros(rows, np.int32)
            if self.resident
            else np.zeros((rows, decode.width), decode.array_dtype)
        )
        if not (self._inputs and with_inputs):
            return x
        others = {n: np.zeros((rows, len(one)), np.float32) for n, one in self._inputs.items()}
        return {FEATURES: x, **others}

    @property
    def eras(self) -> tuple[str, ...]:
        return self._selection.eras

    @property
    def rows(self) -> int:
        return self._selection.rows

    @property
    def sample_weight(self) -> SampleWeight:
        weight = self._sample_weight
        # What is put into it would hold for copies of the sequence, and not for itself.
        return MappingProxyType(weight) if isinstance(weight, dict) else weight

    @sample_weight.setter
    def sample_weight(self, sample_weight: SampleWeight) -> None:
        weights = read_weights(sample_weight, self._selection)
        if weights and not self._outputs:
            raise ValueError("sample_weight: found one without a target, expected None")
        had_weights = getattr(self, "_sample_weight", sample_weight) is not None
        if had_weights is (weights is None) and self.missing_target != "mask" and is_fed(self):
            raise ValueError(
                "sample_weight: found a change from or to None during fit, expected weights from "
                "the beginning on: Keras has asked what a batch is; begin with a weight of 1"
            )
        by_era = read_weights_by_era(sample_weight)
        self._sample_weight = sample_weight if by_era is None else by_era
        self._targets = Targets(
            self._outputs,
            weights,
            masks=self.missing_target == "mask",
            added=self._selection.added,
            inputs=keys_of(self._inputs),
        )
        self._reader: tuple[int, GroupReader | NumberReader, Targets] | None = None

    @property
    def target(self) -> Target:
        target: Target = given_target(self._outputs, self._residuals)
        return target

    @property
    def inputs(self) -> dict[str, tuple[str, ...]]:
        return dict(self._inputs)

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
        number, reading = self._number(batch), READING.get()
        if reading is not None and reading[0] is self:
            rows = reading[1].rows(number)
        else:
            rows = self._readers.orders(self.epoch).batch(number)
        return self._selection.column(name, rows)

    @property
    def made_by(self) -> str | None:
        """The name of a class that has a ``__getitem__`` of its own; None for this one."""
        owner = next(kind for kind in type(self).__mro__ if "__getitem__" in vars(kind))
        is_ours = (owner.__module__, owner.__qualname__) == (__name__, "NumeraiSequence")
        return None if is_ours else type(self).__name__

    @property
    def all_eras(self) -> tuple[str, ...]:
        """The eras of the set, in the order of time, whether they take part or not."""
        return self._selection.all_eras

    @property
    def era_codes(self) -> npt.NDArray[np.integer[Any]]:
        """The place of each row's era in `all_eras`, in the order of `column`."""
        return self._selection.era_codes

    def in_order(self, batch_size: int) -> NumeraiSequence:
        """Return a sequence of the same rows in the order of the files, of x alone; of all ranks.

        Of a class that has a ``__getitem__`` of its own it keeps y, which that may expect.
        """
        return self._unshuffled("rows", whole_number("batch_size", batch_size, least=1))

    def in_whole_eras(self) -> NumeraiSequence:
        """Return a sequence of the same eras in the order of time, as `in_order`, one a batch.

        Of an era it has all rows of the data types asked for, also those without a target.
        """
        selection = self._selection.whole_eras()
        check_inputs_complete(selection, self._inputs)
        return self._unshuffled("era", 1, selection)

    def over(
        self,
        shards: ShardSet,
        *,
        batch_by: str,
        batch_size: int,
        eras: Any = None,
        data_type: str | Iterable[str] | None = None,
        inputs: Mapping[str, Any] | None = None,
        memory_budget: int | str = "auto",
    ) -> NumeraiSequence:
        """Return a sequence of another set's rows, of the same class and features, as `in_order`.

        It keeps rows without a target, and has weights of 1 where this one has weights. The other
        inputs of the model are those of `inputs`, whose columns are those of this sequence's.

        Raises
        ------
        FeatureError
            The set lacks a feature, or a target of y, which the class may expect.
        """
        other: NumeraiSequence = copy.copy(self)
        where = str(shards.folder)
        resolve_features(self.features, shards.manifest, where)
        check_known(
            f"target of {self.made_by}, which may look at y,",
            self.target_columns,
            shards.targets,
            where,
        )
        other._keep(shards=shards, memory_budget=check_budget(memory_budget), paging="auto")
        other._feed_floats()
        other._decode = other._make_decoder()
        other._select(shards, eras, data_type, inputs, "keep")
        if self._sample_weight is not None:
            other._sample_weight = None
            other.sample_weight = _equal_weights
        return other._unshuffled(batch_by, batch_size, other._selection)

    @property
    def target_columns(self) -> tuple[str, ...]:
        """The target columns of the set that y is made of."""
        return stored_names(self._outputs, self._residuals, self.shards)

    def in_floats(self) -> NumeraiSequence:
        """Return a sequence of the same batches, of floats where this one's x is packed."""
        if self.dtype != PACKED:
            return self
        other: NumeraiSequence = copy.copy(self)
        other._feed_floats()
        other._reading = other._plan(self.paging)
        other._prepare()
        return other

    def _feed_floats(self) -> None:
        if self.dtype == PACKED:
            self._keep(dtype="float32", resident=False)
            self._decode = self._make_decoder()

    def _hold(self, rows: Any, first: int) -> None:
        """Take note of the rows on the device, and of which number the first one has there."""
        self._device_rows, self._first_device_row = rows, first

    def _unshuffled(
        self, batch_by: str, batch_size: int, selection: Selection | None = None
    ) -> NumeraiSequence:
        other: NumeraiSequence = copy.copy(self)
        if selection is not None and self.resident:  # of other rows than are on the device
            other._feed_floats()
        other._selection = selection or self._selection
        if self.made_by is None:
            other._outputs, other.sample_weight = {}, None
        other._keep(batch_by=batch_by, batch_size=batch_size, shuffle=False, run_rows=1)
        other._keep(drop_remainder=False, rank=0, world_size=1)
        other._reading = other._plan(self.paging)
        other._prepare()
        return other

    def _prepare(self) -> None:
        """Make what belongs to this process."""
        batching = BATCH_BY[self.batch_by]
        share = Share(
            batching.units(self._selection),
            self.batch_size,
            rank=self.rank,
            world_size=self.world_size,
            drop_remainder=self.drop_remainder,
            unit=batching.unit,
        )
        if self.rows and not share.steps:
            raise ValueError(self._no_batch())
        self._readers = Readers(
            self._reading,
            share,
            self._targets.columns,
            seed=self.seed if self.shuffle else None,
            run_rows=self.run_rows,
            buffers=self.max_queue_size + _BUFFERS_BESIDES,
            reads_features=not self.resident,
        )
        self._reader = None

    def _no_batch(self) -> str:
        batching = BATCH_BY[self.batch_by]
        found, unit = batching.units(self._selection), batching.unit
        return (
            f"drop_remainder: found {found:,} {unit}, fewer than batch_size={self.batch_size:,}, "
            "so that no batch is left; make batch_size smaller, or leave drop_remainder out"
        )

    def __len__(self) -> int:
        return self._readers.orders.share.steps

    def __getitem__(self, index: int) -> Any:
        """Return batch `index` of the present epoch.

        Returns
        -------
        x : array of the `dtype` asked for, shape (batch, features)
            Of packed rows uint8, shape (batch, row bytes); of resident ones their numbers on the
            device, int32, shape (batch,).
            With `inputs` a dict of it, as ``"features"``, and float32 arrays of (batch, columns).
        y : float32 array, shape (batch,) or (batch, targets), or a dict of them
            Not there at all where `target` is None.
        sample_weight : float32 array, shape (batch,), or a dict of them
            Only with `sample_weight`, or ``missing_target="mask"``.

        Raises
        ------
        IndexError
            There is no such batch.
        """
        number, reading = self._number(index), READING.get()
        if reading is not None and reading[0] is self:
            return self._batch(number, *reading[1:])
        self._is_epoch_begun = True
        epoch, made = self.epoch, self._reader
        if made is None or made[0] != epoch:
            made = epoch, *self._make_reader(epoch, range(len(self)), self.prefetching, "first")
            self._reader = made
        batch = self._batch(number, *made[1:])
        self.check(is_last=number == len(self) - 1)
        return batch

    def _number(self, index: int) -> int:
        """Return the number of a batch, which may be counted from the end."""
        # A subclass may have more batches, which it makes of these.
        number, count = operator.index(index), min(len(self), self._readers.orders.share.steps)
        if not -count <= number < count:
            raise IndexError(f"batch {number}, but an epoch has {count}")
        return number % count

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
        """Return the rows of a batch that can't be cut into equal parts, as `Orders` does.

        Of a class with a ``__getitem__`` of its own, which may add rows, none is known.
        """
        if self.made_by is not None:
            return None
        return self._readers.orders.indivisible(parts, batch)

    def one_pass(
        self,
        *,
        place: Place | None = None,
        shuffle: bool = False,
        prefetching: Prefetching | None = None,
    ) -> OnePass:
        """Return the batches of an epoch, whatever is done to the sequence meanwhile.

        Parameters
        ----------
        place : Place, optional
            Which epoch, and its first batch; the present epoch, from its beginning, if not given.
        shuffle : bool
            Permute the batches, where the rows are not shuffled anyway. Those that are fetched
            together stay together.
        prefetching : Prefetching, optional
            Who asks for them; as the sequence says if not given.
        """
        epoch, first = place or Place(self.epoch)
        numbers = np.arange(len(self), dtype=np.int32)
        if shuffle and not self.shuffle:
            order = self._readers.orders(epoch)
            rng = np.random.default_rng([self.seed, epoch, 0, 0])
            numbers = shuffle_batches(numbers, order.batches_per_group, rng, order.group_offset)
        return OnePass(self, epoch, numbers[first:], prefetching or self.prefetching)

    @property
    def prefetching(self) -> Prefetching:
        """What `fit` uses of `workers` and its like, unless it is given others."""
        return Prefetching(self.workers, self.use_multiprocessing, self.max_queue_size)

    def _make_reader(
        self,
        epoch: int,
        numbers: Numbers | range,
        prefetching: Prefetching,
        fetch: str = "always",
    ) -> tuple[GroupReader | NumberReader, Targets]:
        targets = self._targets
        reader = self._readers.reader(epoch, numbers, targets.columns, prefetching, fetch)
        return reader, targets

    def _batch(self, number: int, reader: GroupReader | NumberReader, targets: Targets) -> Any:
        if isinstance(reader, NumberReader):
            if self._first_device_row is None:
                raise NumeraiSequenceError(
                    f"{self.shards.folder}: resident: the rows are not on the device yet; begin "
                    "the model with Unpack.of(sequence), which puts them there"
                )
            numbers, _, values = reader.batch(number)
            return targets(values, (numbers + self._first_device_row).astype(np.int32))
        shape = reader.size(number), self._decode.width
        with self._readers.turns:
            x = self._readers.buffers.empty(shape, self._decode.array_dtype)
            out = x.view(np.uint8) if self._decode.keeps_rows else None
            encoded, chosen, values = reader.batch(number, out)
            if encoded is not out:
                with DECODING:
                    self._decode(encoded, x, chosen)
        return targets(values, x)

    def check(self, *, is_last: bool = False) -> None:
        """Check the shard files as far as that is due with a batch that was read.

        Parameters
        ----------
        is_last : bool
            Of a pass.
        """
        self.shards.watch.look(now=is_last)
        if self.verify:
            self.shards.checker.step(len(self))

    def __getstate__(self) -> dict[str, Any]:
        made = "_readers", "_reader", "_targets", "_device_rows"
        return {name: value for name, value in self.__dict__.items() if name not in made}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.sample_weight = self._sample_weight
        self._prepare()

    @property
    def _fed_as(self) -> str:
        return f"numbers of {self.dtype} rows" if self.resident else self.dtype

    def __repr__(self) -> str:
        unit = BATCH_BY[self.batch_by].unit
        a_batch = f"{self.batch_size:,}" + ("" if unit == "rows" else f" {unit}")
        if self.world_size > 1:
            a_batch += f" for rank {self.rank} of {self.world_size}"
        return (
            f"<NumeraiSequence of {self.shards!r}: {self.rows:,} rows of {len(self.eras):,} eras, "
            f"{len(self):,} batches of {a_batch}, "
            f"{len(self.features):,} features as {self._fed_as}, target {self.target!r}, "
            f"{self.paging} ({self.paging_reason}), run_rows={self.run_rows}>"
        )


def _check_packed(dtype: str, resident: bool, outputs: Mapping[Any, Any]) -> None:
    if resident and dtype != PACKED:
        raise ValueError(
            f"resident: found dtype={dtype!r}, expected dtype='packed': the device holds packed "
            "rows, which an Unpack layer turns into floats"
        )
    if dtype == PACKED and FEATURES in outputs.values():
        raise ValueError(
            "dtype: found 'packed' with target='features', expected 'float32': y would be packed "
            "bytes"
        )


def _equal_weights(eras: npt.NDArray[Any], y: Any) -> npt.NDArray[np.float32]:
    return np.ones(len(eras), np.float32)


def _open(shards: Any) -> ShardSet:
    if is_of(shards, NumeraiSequence):
        raise TypeError("shards: found a NumeraiSequence, expected a set; use sequence.shards")
    is_open = is_of(shards, ShardSet)
    return shards if is_open else open_shards(shards)
