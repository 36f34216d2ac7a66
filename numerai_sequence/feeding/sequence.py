"""Sequence: the Keras sequence that turns a batch number into the arrays of a batch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..batching.targets import POLICIES, SampleWeight, Target, read_target
from ..checks import is_of, one_of, true_or_false, whole_number
from ..format.encoding import DTYPES, PACKED
from ..format.feature_sets import resolve_features
from ..ordering.batch_units import BATCH_BY
from ..ordering.distributed_ranks import check_rank
from ..reading.memory_budget import check_budget
from ..reading.set_opener import open_shards
from ..reading.shard_set import PathLike, ShardSet
from . import keras_compat
from .epoch_serving import ServedEpochs
from .planned_sequence import check_packed
from .unpack import carry_unpack

# What Keras accepts as a Sequence depends on which Keras is installed; see keras_compat.
_BASES: Any = keras_compat.sequence_bases()
keras_compat.carry_inputs()
carry_unpack()


class NumeraiSequence(ServedEpochs, *_BASES):  # type: ignore[misc]
    """A Keras sequence of batches from a shard set, for ``fit``, ``evaluate`` and ``predict``.

    ``sequence[i]`` is batch i of the present epoch, and ``len(sequence)`` is the number of batches
    in an epoch. Each selected row is used once per epoch. Batches may be read in any order, from
    any thread. If several processes train one model, each process reads different batches. See
    `rank`.

    The arguments are also attributes. Only `sample_weight`, `epoch`, `workers`,
    `use_multiprocessing` and `max_queue_size` can be set. To change another argument, make a new
    sequence. The page on performance explains `run_rows`, `dtype`, `memory_budget`, `paging` and
    `workers`. The page on distributed training explains `rank` and `world_size`.

    Parameters
    ----------
    shards : ShardSet, path, or sequence of paths
        An open shard set, its folder, a glob, or a list of shard files.
    batch_size : int, optional
        Number of rows in a batch, or with ``batch_by="era"``, number of eras. None means 1000 rows
        or 1 era. The last batch of an epoch may be smaller.
    target : str, Residual, sequence of these, mapping, or None
        Target columns of y. With one name, y has shape (batch,). With a list, array or Index, y has
        shape (batch, targets). With a mapping from names of the model's outputs, y is a dict of
        such arrays. For an autoencoder, use ``"features"``: y then equals the features of x. A
        mapping may have ``"features"`` for one output and targets for other outputs. A `Residual`
        may replace any target. None means batches without y.
    features : str or sequence of str, optional
        Features of x: the name of a feature set, such as ``"medium"``, or a list, in this order.
        None means all features, in the order of the set.
    inputs : mapping, optional
        Sources of the model's other inputs, by input name, such as
        ``{"benchmarks": "validation_benchmark_models.parquet"}``. A source is the path of a Parquet
        or CSV file, a DataFrame or Series with ids, or names of columns of the set. A list combines
        sources that have different rows. ``(source, ["v53_lgbm_ender60"])`` selects columns of a
        source. x is then a dict with ``"features"`` and these inputs, which are float32. Each
        selected row needs a value in every column. An input needs 4 bytes of memory for each column
        and row of the set.
    eras : str, list, slice or function, optional
        Eras to select. None means all. A str is an era, a range such as ``"0001-0574"`` or
        ``"0575-"``, a slice such as ``"::4"``, or several of these separated by commas. A list
        holds names or numbers of eras. A slice selects from the eras in order of time. A function
        has an era as argument and returns whether to select this era.
    data_type : str or list of str, optional
        Data types to select, such as ``"train"``. None means all.
    missing_target : {"error", "drop", "mask"}
        Treatment of selected rows without a target. "error" raises an `EraError`. "drop" leaves the
        row out. "mask" sets y to 0.5 and the sample weight to 0, only for outputs whose target is
        missing. A row without a benchmark value has no `Residual`. It is treated in the same way,
        and "drop" and "mask" then warn.
    sample_weight : str, mapping, pandas.Series, function, or None
        Weights of rows. A str is the name of a target column. A mapping or Series has a weight for
        each era or range of eras, such as ``{"0001-0500": 0.5, "0501-": 1}``. A function has two
        arguments, the array of the rows' eras and y, both read-only. It returns an array of shape
        (batch,). You may set `sample_weight` after any epoch; the next epoch uses the new value.
    batch_by : {"rows", "era"}
        Unit of `batch_size`: rows, or whole eras.
    shuffle : bool
        Whether to shuffle the rows, or the eras, in every epoch. With False, rows are in the order
        of the files, and whole eras are in the order of time. Then also call
        ``fit(shuffle=False)``, because ``fit`` shuffles the batches by default.
    seed : int
        Seed for shuffling. Each epoch has its own order.
    run_rows : int, optional
        Number of neighbouring rows that are shuffled as one run. 1 is an exact shuffle. Longer runs
        are faster to read. None chooses the number from the selected rows and the batch size.
    dtype : {"float32", "float16", "int8", "packed"}
        Type of x. "float32" and "float16" are 0 to 1 in steps of 0.25. "int8" is 0 to 4, for a
        model that scales the features. "packed" is the encoded rows of the files, as uint8, for a
        model whose first layer is `Unpack`.
    resident : bool
        Whether to keep the packed rows in the memory of the accelerator. x then holds row numbers,
        int32 (batch,), for the model's `Unpack` layer. It needs ``dtype="packed"``.
    drop_remainder : bool
        Whether to leave out the rows or eras that do not fill a whole batch on every rank. At least
        one whole batch must be left.
    rank, world_size : int
        Number of this process, from 0, and number of processes that train one model. The batches of
        an epoch are divided among the ranks, and all ranks have the same number of batches. The
        remaining rows or eras make one smaller batch for each rank. If fewer rows (or eras) than
        ranks remain, the last batches of some ranks have one more instead. All ranks need the same
        `seed`, `run_rows`, `batch_size` and selected rows.
    memory_budget : int or str
        Memory that the sequence may keep, in bytes, or as a size such as "512MB". "auto" means
        96 MiB of mapped pages, and as much as the row order and the next batches need.
    paging : {"auto", "resident", "streaming"}
        How the set is read: into the page cache once ("resident"), or batch by batch ("streaming").
        "auto" chooses from the size of the set and the available memory.
    verify : bool
        Whether to compare the shard files with their checksums. Each batch compares a part, and one
        epoch compares all bytes. Sequences that share a `ShardSet` share the check. Each rank
        compares all bytes. A damaged file raises an error when its last byte is compared.
    workers : int
        Largest number of workers that prepare batches. ``fit`` also accepts `workers`,
        `use_multiprocessing` and `max_queue_size`. If ``fit`` has them, its values are used.
    use_multiprocessing : bool
        Whether workers are processes. Each process maps the files again, and each batch is copied
        through a socket.
    max_queue_size : int
        Largest number of prepared batches that wait for training.

    Attributes
    ----------
    features : tuple of str
        Columns of x.
    inputs : dict of str to tuple of str
        Columns of the model's other inputs, by input name.
    eras : tuple of str
        Selected eras, in order of time.
    rows : int
        Number of selected rows, of all ranks together.
    run_rows : int
        Given or chosen length of runs.
    paging : str
        "resident" or "streaming".
    paging_reason : str
        Why this paging was chosen.
    epoch : int
        Number of the epoch of ``sequence[i]``, from 0. ``fit`` adds 1 after each epoch. A second
        ``fit`` continues this count, unless its `initial_epoch` is above 0. Every validation uses
        the order of epoch 0.

    Raises
    ------
    FeatureError
        A feature, a feature set or a target is unknown.
    EraError
        An era or data type is unknown. No row is selected. A target, a weight or a value of an
        input is missing.
    CorruptShardError
        A shard file is damaged, or changes while a batch is read.
    ValueError
        An argument has a wrong value. `rank` is not below `world_size`. There are fewer batches
        than ranks.
    TypeError
        An argument has a wrong type. Features and targets must be in a list, because a Python set
        has no order.
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
        x : array of type `dtype`, shape (batch, features)
            Features. Packed rows are uint8, shape (batch, row bytes). With ``resident=True``, row
            numbers, int32, shape (batch,).
            With `inputs`, a dict: this array as ``"features"``, and float32 arrays of shape
            (batch, columns).
        y : float32 array, shape (batch,) or (batch, targets), or a dict of them
            Targets. Left out if `target` is None.
        sample_weight : float32 array, shape (batch,), or a dict of them
            Weights. Left out without `sample_weight` and ``missing_target="mask"``.

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
