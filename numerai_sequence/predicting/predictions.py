"""Predictions: a frame with one number a row, indexed by id, from a model and its features."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from ..checks import is_of, names_in_order, whole_number
from ..errors import EraError, NumeraiSequenceError, check_known
from ..feeding.model_input import ModelInput
from ..feeding.sequence import NumeraiSequence
from ..reading.set_opener import open_shards
from ..reading.shard_set import PathLike, ShardSet
from ..scoring.forward_pass import most_rows, predict_several
from ..scoring.model_outputs import Floats
from ..system.optional_packages import load_extra
from ..writing.chosen_columns import choose_columns
from ..writing.source_columns import Source
from .batch_members import (
    Member,
    check_names,
    dtype_of,
    groups_of,
    inputs_of,
    make_members,
    union_of,
)
from .blends import rank_in_eras
from .data_argument import check_data, is_parquet, warn_missing, written_for_now
from .extra_inputs import Sources, given_inputs, with_inputs
from .named_models import name_models

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = load_extra("pandas", "pandas", "predictions")

_META_ROWS = 1 << 20
_MADE = "target of like=, whose class may look at y,"


def predict(
    model: Any,
    data: ShardSet | PathLike | Iterable[PathLike],
    *,
    like: Any = None,
    features: str | Sequence[str] | None = None,
    inputs: Mapping[str, Any] | None = None,
    eras: Any = None,
    data_type: str | Iterable[str] | None = None,
    output: str | None = None,
    dtype: str | None = None,
    ranked: bool = False,
    batch_size: int | None = None,
    batch_by: str | None = None,
    memory_budget: int | str = "auto",
    with_era: bool = False,
    progress: bool = True,
) -> pd.DataFrame:
    """Predict every row of a shard set or a Parquet file, in bounded memory.

    A missing feature value (null or NaN) counts as the middle, 2 of 0 to 4. A warning gives the
    number of missing values.

    The features of a Parquet file are first written as a temporary shard set, in the folder of
    Python's `tempfile` (see ``TMPDIR``). The set takes a third of a byte for each feature and row,
    and twice as much while it is written.

    A model that ``fit`` trained on a `NumeraiSequence` remembers its features, their order and
    scale, and whether its batches were whole eras. So does a file that ``model.save`` wrote. These
    are the defaults here. Other features, or another scale, raise an error.

    Parameters
    ----------
    model : Keras model, path, sequence, or mapping
        A model of any Keras. It takes x of shape (batch, features), or the batches of the class of
        `like`. Also the path of a run's folder or of a file that Keras saved. For several models,
        give a list of these, a mapping from names to these, or a folder of runs, such as a walk
        forward's. The data are then read once for all models; only sequences of your own class read
        them again. If one model needs whole eras, all are run on whole eras.
    data : ShardSet, path, or sequence of paths
        A shard set, in any form that `open_shards` takes, or one Parquet file such as
        ``live.parquet``. Targets are not needed.
    like : NumeraiSequence or Run, optional
        The training sequence, or the run that `read_run` returns, if the model does not remember
        its input. A sequence of your own class, with a ``__getitem__``, makes the batches, so the
        model may take several arrays. The data then need the targets of the sequence. For several
        models, give one for all, or a mapping from their names.
    features : str or sequence of str, optional
        Features that the model was trained on, in the same order, or the name of a feature set of
        the shard set. None for the features that the model remembers, or all features of the data.
        With several models, `features` and `dtype` are for the models that do not remember theirs.
    inputs : mapping, optional
        Sources of the model's other inputs for these rows, by name, such as
        ``{"benchmarks": "live_benchmark_models.parquet"}``. See `NumeraiSequence`. The model takes
        the columns that it was trained on. Several models share the sources.
    eras, data_type : optional
        Eras and data types of a shard set to predict. See `NumeraiSequence`. None for all.
    output : str, optional
        Name of the output to keep, if the model has several, or of one value of an output with
        several values, such as ``name_0``.
    dtype : {"float32", "float16", "int8"}, optional
        Type of the features that the model receives. See `NumeraiSequence`. None for the type that
        the model remembers, or "float32".
    ranked : bool
        Whether to replace predictions by their ranks within the era, (rank - 0.5) / rows, in (0,
        1). Equal predictions have equal ranks.
    batch_size : int, optional
        Rows of a batch; None for at most 32 MB of float32.
    batch_by : {"rows", "era"}, optional
        "era" runs the model on one whole era at a time, for models with attention over rows or
        ranking within the era. An era of 7,000 rows and 3,555 features takes 100 MB as float32.
        None means "era" if the model was trained on whole eras, or if a trial on random rows shows
        that its predictions depend on the other rows of a batch; otherwise "rows".
    memory_budget : int or str
        Memory for reading, in bytes, as a size such as "512MB", or "auto". See `NumeraiSequence`.
    with_era : bool
        Whether to add a first column, ``era``, for `ensemble`.
    progress : bool
        Whether to show progress bars on stderr.

    Returns
    -------
    pandas.DataFrame
        float32, with a row for each row of the data, in the order of the file or files. The index
        is ``id``, and the column is ``prediction``. A model with several values a row, and no
        chosen output, has one column for each value: ``name``, or ``name_0``, ``name_1``. With
        several models, the columns have the names in the mapping, of the folders or of the files,
        or ``model_0``, ``model_1``. Models with several values a row then have ``model_0/name``.
        ``frame.attrs["features"]`` is the list of the features of all models.

    Raises
    ------
    FeatureError
        The data lack a feature; the model was trained on other features, in another order or
        scale, or takes another number of features; or the model takes other inputs than `inputs`.
    EraError
        An era or data type is unknown, or is chosen for a Parquet file; or a row has no value in
        an input.
    ValueError
        The model's predictions depend on the other rows of a batch, and `batch_size` is given; or
        another argument is wrong.
    SourceError
        The Parquet file cannot be used, or an id appears twice.
    TypeError
        `data` has another type, such as a frame, or `model` is not a model.
    OutputError, OutOfMemoryError
        There is not enough space or memory for the temporary shard set.
    NumeraiSequenceError
        Predictions are NaN.
    """
    data = check_data(data)
    if features is not None and not isinstance(features, str):
        features = names_in_order("features", features)
    asked = ModelInput(dtype=dtype, batch_by=batch_by)
    run = _Run(
        make_members(name_models(model, like), features, output, asked),
        features,
        given_inputs(inputs),
        {"eras": eras, "data_type": data_type},
        ranked,
        with_era,
        batch_size,
        memory_budget,
        progress,
    )
    if is_parquet(data):
        if eras is not None or data_type is not None:
            raise EraError(
                "eras, data_type: found a choice of rows, expected None for a Parquet file; write "
                "the file as a shard set to choose rows",
                eras=eras,
            )
        return run.predict_parquet(Path(os.fspath(data)))  # type: ignore[arg-type]
    if is_of(data, ShardSet):
        return run.predict_shards(data)
    with open_shards(data) as shards:  # type: ignore[arg-type]
        return run.predict_shards(shards)


@dataclass(frozen=True)
class _Run:
    """The arguments of `predict`, without the data."""

    members: list[Member]
    features: str | Sequence[str] | None
    inputs: Sources
    chosen: dict[str, Any]
    ranked: bool
    with_era: bool
    batch_size: int | None
    memory_budget: int | str
    progress: bool

    def __post_init__(self) -> None:
        # The sequence would check this too, but only after a Parquet file has been written.
        if self.batch_size is not None:
            whole_number("batch_size", self.batch_size, least=1)

    def predict_shards(self, shards: ShardSet) -> pd.DataFrame:
        where = str(shards.folder)
        if not shards.rows:
            raise NumeraiSequenceError(f"{where}: found no rows, expected at least one")
        members = [member.over(shards.manifest, where) for member in self.members]
        members = with_inputs(members, self.inputs, shards)
        members = self._settle(members, where, shards)
        found, sequence = self._predict(members, shards, **self.chosen)
        eras = sequence.column("era") if self.ranked or self.with_era else None
        # A copy, so that the frame does not keep the files open.
        ids = sequence.column("id").take(pa.array(np.arange(len(found[0][1]), dtype=np.int64)))
        return self._make_frame(members, found, ids, eras)

    def predict_parquet(self, path: Path) -> pd.DataFrame:
        if isinstance(self.features, str):
            raise TypeError(
                f"features: found {self.features!r}, expected a list of features for a Parquet "
                "file, such as sequence.features"
            )
        with closing(Source(path)) as source:
            members = [member.over_file(source) for member in self.members]
            members = with_inputs(members, self.inputs, None)
            targets = _targets_of(members, source, path)
            members = self._settle(members, str(path))
            meta = read_meta(source)
            self._try_models(members, source.rows)
        features = union_of(members)
        with written_for_now(path, features, targets, progress=self.progress) as folder:
            members, found = self._predict_written(folder, path, members, meta["id"])
        return self._make_frame(members, found, meta["id"], meta["era"])

    def _predict_written(
        self,
        folder: Path,
        path: Path,
        members: list[Member],
        ids: pa.ChunkedArray,
    ) -> tuple[list[Member], list[tuple[tuple[str, ...], Floats]]]:
        """Predict the rows of a temporary set in the order of their ids, and close its files.

        Windows cannot delete a folder whose files are open.
        """
        with open_shards(folder) as shards:
            warn_missing(shards, path)
            members = self._settle(members, str(path), shards)
            found, _ = self._predict(members, shards, ids=ids)
            return members, found

    def _settle(
        self, members: list[Member], where: str, shards: ShardSet | None = None
    ) -> list[Member]:
        """Return the models with their complete inputs; with a maker, only once a set exists."""
        return [
            member
            if member.is_settled or (member.maker is not None and shards is None)
            else member.settled(
                where, self.batch_size, shards, inputs=self._inputs_of([member]), **self.chosen
            )
            for member in members
        ]

    def _try_models(self, members: list[Member], rows: int) -> None:
        """Run the models on zeros, to find before a long write that one of them cannot run."""
        width = len(union_of(members))
        for member in members:
            if member.is_settled:
                member.try_on(min(rows, self._batch_rows(rows, width)))

    def _predict(
        self, members: list[Member], shards: ShardSet, *, ids: Any = None, **chosen: Any
    ) -> tuple[list[tuple[tuple[str, ...], Floats]], NumeraiSequence]:
        """Return the names and values of each model, in order, and a sequence of the rows."""
        found: dict[int, tuple[tuple[str, ...], Floats]] = {}
        for group in groups_of(members):
            sequence = self._make_sequence([members[number] for number in group], shards, **chosen)
            if self.progress and sequence.batch_by == "era":
                tqdm.write(describe_eras(sequence), file=sys.stderr)
            places = None
            if ids is not None:
                places = pc.index_in(sequence.column("id"), value_set=ids).to_numpy()
            fed = [members[number].fed_from(sequence) for number in group]
            values = predict_several(fed, sequence, progress=self.progress, places=places)
            found.update(zip(group, values, strict=True))
        return [found[number] for number in range(len(members))], sequence

    def _make_sequence(
        self, members: list[Member], shards: ShardSet, **chosen: Any
    ) -> NumeraiSequence:
        features = union_of(members)
        rows = self._batch_rows(shards.rows, len(features))
        by_era = any(member.known.batch_by == "era" for member in members)
        inputs = self._inputs_of(members)
        maker = members[0].maker
        if maker is not None:
            return maker.over(
                shards,
                inputs=inputs,
                batch_by="era" if by_era else "rows",
                batch_size=1 if by_era else rows,
                memory_budget=self.memory_budget,
                **chosen,
            )
        return NumeraiSequence(
            shards,
            1 if by_era else rows,
            target=None,
            features=features,
            inputs=inputs,
            shuffle=False,
            dtype=dtype_of(members),
            batch_by="era" if by_era else "rows",
            memory_budget=self.memory_budget,
            max_queue_size=1,
            **chosen,
        )

    def _inputs_of(self, members: list[Member]) -> dict[str, Any]:
        return {name: (self.inputs[name][0], one) for name, one in inputs_of(members).items()}

    def _batch_rows(self, rows: int, features: int) -> int:
        if self.batch_size is not None:
            return self.batch_size
        batches = -(-rows // most_rows(features, self.memory_budget))
        return -(-rows // batches)

    def _make_frame(
        self,
        members: list[Member],
        found: list[tuple[tuple[str, ...], Floats]],
        ids: pa.ChunkedArray,
        eras: pa.ChunkedArray | None,
    ) -> pd.DataFrame:
        names = [
            name
            for member, (columns, _) in zip(members, found, strict=True)
            for name in member.name_columns(columns)
        ]
        check_names(names, with_era=self.with_era)
        values = found[0][1] if len(found) == 1 else np.concatenate([v for _, v in found], axis=1)
        _check_numbers(values, names, ids)
        if self.ranked:
            codes = pc.index_in(eras, value_set=pc.unique(eras)).to_numpy()
            values = rank_in_eras(values, codes)
        frame = pd.DataFrame(values, pd.Index(ids.to_pandas(), name="id"), names)
        if self.with_era and eras is not None:
            frame.insert(0, "era", eras.to_pandas().to_numpy())
        frame.attrs["features"] = list(union_of(members))
        return frame


def _targets_of(members: list[Member], source: Source, path: Path) -> tuple[str, ...]:
    """Return the targets of the file that sequences of the user's own classes may use."""
    makers = [member.maker for member in members if member.maker is not None]
    targets = tuple(dict.fromkeys(name for maker in makers for name in maker.target_columns))
    check_known(_MADE, targets, source.others, str(path))
    return choose_columns([source], union_of(members), targets)[1]


def _check_numbers(values: Floats, names: Sequence[str], ids: pa.ChunkedArray) -> None:
    is_nan = np.isnan(values)
    if is_nan.any():
        rows = is_nan.any(axis=1)
        first = ids[int(np.argmax(rows))].as_py()
        of = "" if len(names) == 1 else f" of {names[int(np.argmax(is_nan.any(axis=0)))]!r}"
        raise NumeraiSequenceError(
            f"predictions{of}: {np.count_nonzero(rows):,} of {len(values):,} rows are NaN, "
            f"the first is {first!r}; expected numbers; check the model's weights"
        )


def describe_eras(sequence: NumeraiSequence) -> str:
    """Return a line with the rows and the memory of the largest batch of a sequence by eras."""
    most = max(len(rows) for rows in map(sequence.one_pass().rows, range(len(sequence))))
    size = most * len(sequence.features) * np.dtype(sequence.dtype).itemsize
    return (
        f"predicting whole eras: the largest has {most:,} rows and takes {size / 1e6:,.0f} MB as "
        f"{sequence.dtype}"
    )


def read_meta(source: Source) -> pa.Table:
    """Read a file's ids and eras, in its order, and check that no id appears twice."""
    tables = [
        rows.select(["id", "era"])
        for chunk in source.chunks(rows=_META_ROWS)
        for rows in source.iter_meta(chunk, ())
    ]
    if not tables:
        raise source.error("found no rows, expected at least one")
    meta = pa.concat_tables(tables)
    first_rows = pc.index_in(meta["id"], value_set=meta["id"]).to_numpy()
    again = np.flatnonzero(first_rows != np.arange(len(first_rows)))
    if len(again):
        row = int(again[0])
        found = f"found {meta['id'][row].as_py()!r} again, which is in row {first_rows[row]}"
        raise source.error(f"{found}; expected each id once", column="id", row=row)
    return meta
