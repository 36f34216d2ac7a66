"""Sequence: turn a batch number into the arrays that Keras trains on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..batching.targets import POLICIES, SampleWeight, Target, read_target
from ..checks import is_of, one_of, true_or_false, whole_number
from ..format.encoding import DTYPES, PACKED
from ..format.feature_sets import resolve_features
from ..ordering.batchings import BATCH_BY
from ..ordering.ranks import check_rank
from ..reading.memory_budget import check_budget
from ..reading.set_opener import open_shards
from ..reading.shard_set import PathLike, ShardSet
from . import keras_compat
from .planned_sequence import check_packed
from .served_epochs import ServedEpochs
from .unpack import carry_unpack

# What Keras accepts as a Sequence depends on which Keras is installed; see keras_compat.
_BASES: Any = keras_compat.sequence_bases()
keras_compat.carry_inputs()
carry_unpack()


class NumeraiSequence(ServedEpochs, *_BASES):  # type: ignore[misc]
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
        check_packed(self.dtype, self.resident, self._outputs)
        self._decode = self._make_decoder()
        self._select(self.shards, eras, data_type, inputs)
        self.sample_weight = sample_weight
        if run_rows is not None:
            run_rows = whole_number("run_rows", run_rows, least=1)
        self._prepare(paging, run_rows)

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
        return self._batch(index)

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


def _open(shards: Any) -> ShardSet:
    if is_of(shards, NumeraiSequence):
        raise TypeError("shards: found a NumeraiSequence, expected a set; use sequence.shards")
    is_open = is_of(shards, ShardSet)
    return shards if is_open else open_shards(shards)
