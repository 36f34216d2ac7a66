"""Predictions: turn a model and rows of features into one number a row, indexed by id."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from ..checks import file_paths, is_of, names_in_order, whole_number
from ..errors import EraError, NumeraiSequenceError, OutOfMemoryError, OutputError, check_known
from ..extras import load_extra
from ..feeding.model_input import ModelInput
from ..feeding.sequence import NumeraiSequence
from ..files import explained
from ..format.feature_sets import resolve_features
from ..format.layout import WriteOptions
from ..reading.shards import PathLike, ShardSet, open_shards
from ..scoring.forward import most_rows, predict_rows
from ..scoring.models import Floats, name_columns, run_batch
from ..writing.columns import choose_columns
from ..writing.missing import find_missing
from ..writing.source import Source
from ..writing.writer import write
from .fed import known_input, settle_input
from .uploaded import rank_in_eras

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = load_extra("pandas", "pandas", "predictions")

_META_ROWS = 1 << 20
_MAGIC = b"PAR1"
_DATA = (
    "a shard set or the path of a Parquet file; save a table as Parquet first, and give its path"
)
_MADE = "target of like=, whose class may look at y,"
_REMEDY = "name those that it was trained on: features=sequence.features"


def predict(
    model: Any,
    data: ShardSet | PathLike | Iterable[PathLike],
    *,
    like: Any = None,
    features: str | Sequence[str] | None = None,
    eras: Any = None,
    data_type: str | Iterable[str] | None = None,
    output: str | None = None,
    dtype: str | None = None,
    ranked: bool = False,
    batch_size: int | None = None,
    batch_by: str | None = None,
    memory_budget: int | str = "auto",
    progress: bool = True,
) -> pd.DataFrame:
    """Predict every row of a shard set or a Parquet file, in bounded memory.

    A feature value that is null or NaN counts as the middle, as in the function that
    `export_predict` writes; a warning says how many there are.

    A Parquet file's features are written as a temporary shard set first, where Python's `tempfile`
    puts it (see ``TMPDIR``): a third of a byte a feature and row, and as much again meanwhile.

    A model that ``fit`` trained on a `NumeraiSequence` remembers its features, their order and
    scale, and whether its batches were whole eras; so does a file that ``model.save`` wrote. These
    are the defaults here. Other features or another scale are refused.

    Parameters
    ----------
    model : Keras model
        Of any Keras; it takes x of shape (batch, features), or what the class of `like` makes.
    data : ShardSet, path, or sequence of paths
        A shard set, as `open_shards` takes it, or one Parquet file, such as ``live.parquet``:
        targets are not needed.
    like : NumeraiSequence or Run, optional
        What the model was trained on, where the model does not remember it: the sequence, or what
        `read_run` returns. A sequence of a class of your own, with a ``__getitem__``, makes the
        batches: the model may take several arrays. The data need the targets of its y then.
    features : str or sequence of str, optional
        Those that the model was trained on, in the same order; None for those that it remembers,
        or for all that the data have; of a shard set also the name of a feature set.
    eras, data_type : optional
        Which rows of a shard set, as of `NumeraiSequence`; None for all.
    output : str, optional
        Which output of a model of several: the name of the output, or of one column of a wide one.
        Nothing of the others is kept.
    dtype : {"float32", "float16", "int8"}, optional
        Of x, as of `NumeraiSequence`. None for what the model remembers, or "float32".
    ranked : bool
        Replace predictions by their ranks within the era, as (rank - 0.5) / rows: in (0, 1), the
        same for equal ones.
    batch_size : int, optional
        Rows a batch; None for at most 32 MB of float32.
    batch_by : {"rows", "era"}, optional
        "era" runs the model on one whole era at a time, as attention over rows or ranking within
        the era needs it. An era of 7,000 rows and 3,555 features takes 100 MB as float32. None for
        what the model remembers; otherwise the model is tried on random rows: "era" where its
        predictions depend on the other rows of a batch.
    memory_budget : int or str
        As of `NumeraiSequence`.
    progress : bool
        Show progress bars on stderr.

    Returns
    -------
    pandas.DataFrame
        float32, one row a row of the data, in the order of the file or files; the index is ``id``.
        The column is ``prediction``. Where a model has several outputs, or one of several values a
        row, and none is chosen, there is a column a value: ``name``, or ``name_0``, ``name_1``.
        ``frame.attrs["features"]`` is the list of features that were used.

    Raises
    ------
    FeatureError
        The data lack a feature; or the model was trained on other features, on another order or
        scale of them, or takes another number of them.
    EraError
        An era or data type is unknown; or some are chosen of a Parquet file.
    ValueError
        The model's predictions depend on which rows are in a batch of `batch_size`; or another
        argument is wrong.
    SourceError
        The Parquet file cannot be used, or an id is there twice.
    TypeError
        `data` is something else, such as a frame.
    OutputError, OutOfMemoryError
        There is no room for the temporary shard set.
    NumeraiSequenceError
        Predictions are NaN.
    """
    data = check_data(data)
    if features is not None and not isinstance(features, str):
        features = names_in_order("features", features)
    chosen = {"eras": eras, "data_type": data_type}
    known = known_input(model, like)
    asked = ModelInput(dtype=dtype, batch_by=batch_by)
    output = output if output is not None else getattr(like, "output", None)
    maker = like if is_of(like, NumeraiSequence) and like.made_by is not None else None
    run = _Run(
        model,
        known,
        features,
        chosen,
        output,
        asked,
        ranked,
        batch_size,
        memory_budget,
        progress,
        maker,
    )
    if is_parquet(data):
        if eras is not None or data_type is not None:
            raise EraError(
                "eras, data_type: found some, expected None for a Parquet file; write it as a "
                "shard set to choose among its rows",
                eras=eras,
            )
        return run.predict_parquet(Path(os.fspath(data)))  # type: ignore[arg-type]
    if is_of(data, ShardSet):
        return run.predict_shards(data)
    with open_shards(data) as shards:  # type: ignore[arg-type]
        return run.predict_shards(shards)


def check_data(data: Any) -> Any:
    """Return a shard set, a path, or several."""
    if is_of(data, NumeraiSequence):
        raise TypeError(
            "data: found a NumeraiSequence, expected a shard set or the path of a Parquet file; "
            "call predict(model, sequence.shards, like=sequence, eras=sequence.eras)"
        )
    if is_of(data, ShardSet):
        return data
    paths = file_paths("data", data, _DATA, NumeraiSequenceError)
    return paths[0] if isinstance(data, (str, os.PathLike)) else paths


def warn_missing(shards: ShardSet, path: Path, features: Sequence[str]) -> None:
    """Say of a Parquet file that has become a shard set how many values were filled in."""
    if sum(source.filled for source in shards.manifest.sources):
        with closing(Source(path)) as source:
            missing = find_missing(source, features)
        warnings.warn(f"{path}: {missing}, taken as the middle", stacklevel=4)


@dataclass(frozen=True)
class _Run:
    """What `predict` was asked for, but for the data.

    `known` is what the model was trained on, and `asked` what it is to be fed. `maker` is a
    sequence of a class of the user's own, which makes the batches.
    """

    model: Any
    known: ModelInput
    features: str | Sequence[str] | None
    chosen: dict[str, Any]
    output: str | None
    asked: ModelInput
    ranked: bool
    batch_size: int | None
    memory_budget: int | str
    progress: bool
    maker: NumeraiSequence | None = None

    def __post_init__(self) -> None:
        # The sequence would find this, but only when a Parquet file has been written.
        if self.batch_size is not None:
            whole_number("batch_size", self.batch_size, least=1)

    def predict_shards(self, shards: ShardSet) -> pd.DataFrame:
        where = str(shards.folder)
        if not shards.rows:
            raise NumeraiSequenceError(f"{where}: no rows; expected at least one")
        wanted = self.known.features if self.features is None else self.features
        features = resolve_features(wanted, shards.manifest, where)
        fed = self._settle(features, where, shards)
        sequence = self._make_sequence(shards, fed, **self.chosen)
        names, values = self._predict(sequence)
        eras = sequence.column("era") if self.ranked else None
        # A copy, or the frame would hold the files as long as it lives.
        ids = sequence.column("id").take(pa.array(np.arange(len(values), dtype=np.int64)))
        return self._make_frame(features, names, values, ids, eras)

    def predict_parquet(self, path: Path) -> pd.DataFrame:
        if isinstance(self.features, str):
            raise TypeError(
                f"features: found {self.features!r}, expected a list of features for a Parquet "
                "file, such as sequence.features"
            )
        with closing(Source(path)) as source:
            wanted = self.known.features if self.features is None else self.features
            features, _ = choose_columns([source], wanted, ())
            targets = self.maker.target_columns if self.maker else ()
            check_known(_MADE, targets, source.others, str(path))
            _, targets = choose_columns([source], features, targets)
            fed = self._settle(features, str(path)) if self.maker is None else None
            meta = _read_meta(source)
            if fed is not None:
                self._try_model(source.rows, fed)
        # One era a window: the least memory, and the order does not matter.
        options = WriteOptions(
            num_shards=1, mix_eras=1, features=features, targets=targets, missing_feature="middle"
        )
        with temporary_folder(path) as folder:
            written = write(
                path,
                Path(folder, "shards"),
                options,
                overwrite=False,
                progress=self.progress,
                says_filled=False,  # as it is said of the file, and once
                feature_set=None,
                features_json=None,
            )
            names, values = self._predict_written(written, path, features, fed, meta["id"])
        return self._make_frame(features, names, values, meta["id"], meta["era"])

    def _predict_written(
        self,
        folder: Path,
        path: Path,
        features: Sequence[str],
        fed: ModelInput | None,
        ids: pa.ChunkedArray,
    ) -> tuple[tuple[str, ...], Floats]:
        """Predict the rows of a temporary set in the order of their ids, and let go of its files.

        Windows deletes no folder whose files are open.
        """
        with open_shards(folder) as shards:
            warn_missing(shards, path, features)
            fed = fed or self._settle(features, str(path), shards)
            sequence = self._make_sequence(shards, fed)
            places = pc.index_in(sequence.column("id"), value_set=ids).to_numpy()
            return self._predict(sequence, places)

    def _settle(
        self, features: Sequence[str], where: str, shards: ShardSet | None = None
    ) -> ModelInput:
        maker = None
        if self.maker is not None and shards is not None:
            maker = self.maker.over(shards, batch_by="rows", batch_size=1, **self.chosen)
        asked = replace(self.asked, features=tuple(features))
        return settle_input(
            self.model,
            self.known,
            asked,
            where,
            remedy=_REMEDY,
            batch_size=self.batch_size,
            is_told=self.features is not None or self.known.features is not None,
            maker=maker,
        )

    def _try_model(self, rows: int, fed: ModelInput) -> None:
        """Run the model on nothing, rather than find after a long write that it cannot be run."""
        features = len(fed.features or ())
        x = np.zeros((min(rows, self._batch_rows(rows, features)), features), fed.dtype)
        name_columns(self.model, run_batch(self.model, x), self.output, rows=len(x))

    def _predict(
        self, sequence: NumeraiSequence, places: Any = None
    ) -> tuple[tuple[str, ...], Floats]:
        if self.progress and sequence.batch_by == "era":
            tqdm.write(describe_eras(sequence), file=sys.stderr)
        return predict_rows(
            self.model, sequence, output=self.output, progress=self.progress, places=places
        )

    def _make_sequence(self, shards: ShardSet, fed: ModelInput, **chosen: Any) -> NumeraiSequence:
        rows = self._batch_rows(shards.rows, len(fed.features or ()))
        if self.maker is not None:
            return self.maker.over(
                shards,
                batch_by=str(fed.batch_by),
                batch_size=1 if fed.batch_by == "era" else rows,
                memory_budget=self.memory_budget,
                **chosen,
            )
        return NumeraiSequence(
            shards,
            1 if fed.batch_by == "era" else rows,
            target=None,
            features=fed.features,
            shuffle=False,
            dtype=str(fed.dtype),
            batch_by=str(fed.batch_by),
            memory_budget=self.memory_budget,
            max_queue_size=1,
            **chosen,
        )

    def _batch_rows(self, rows: int, features: int) -> int:
        if self.batch_size is not None:
            return self.batch_size
        batches = -(-rows // most_rows(features, self.memory_budget))
        return -(-rows // batches)

    def _make_frame(
        self,
        features: Sequence[str],
        names: Sequence[str],
        values: Floats,
        ids: pa.ChunkedArray,
        eras: pa.ChunkedArray | None,
    ) -> pd.DataFrame:
        is_nan = np.isnan(values).any(axis=1)
        if is_nan.any():
            first = ids[int(np.argmax(is_nan))].as_py()
            raise NumeraiSequenceError(
                f"predictions: {np.count_nonzero(is_nan):,} of {len(values):,} rows are NaN, "
                f"the first is {first!r}; expected numbers: look at the model's weights"
            )
        if self.ranked:
            codes = pc.index_in(eras, value_set=pc.unique(eras)).to_numpy()
            values = rank_in_eras(values, codes)
        frame = pd.DataFrame(values, pd.Index(ids.to_pandas(), name="id"), list(names))
        frame.attrs["features"] = list(features)
        return frame


def describe_eras(sequence: NumeraiSequence) -> str:
    """Return how many rows the largest batch of a sequence by eras has, and what they take."""
    most = max(len(rows) for rows in map(sequence.one_pass().rows, range(len(sequence))))
    size = most * len(sequence.features) * np.dtype(sequence.dtype).itemsize
    return (
        f"predicting whole eras: the largest has {most:,} rows, which take {size / 1e6:,.0f} MB as "
        f"{sequence.dtype}"
    )


def is_parquet(data: Any) -> bool:
    """Say whether data are a Parquet file."""
    if is_of(data, ShardSet) or not isinstance(data, (str, os.PathLike)):
        return False
    path = Path(data)
    if path.is_dir():
        return False
    if path.suffix.lower() == ".parquet":
        return True
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


@contextmanager
def temporary_folder(path: Path) -> Iterator[str]:
    """Make a folder for the shard set of a Parquet file; an error says what it was for."""
    with ExitStack() as stack:
        try:
            with explained(gettempdir()):
                # After an error its files may be open, and Windows would refuse.
                made = TemporaryDirectory(prefix="numerai-sequence-", ignore_cleanup_errors=True)
                folder = stack.enter_context(made)
            yield folder
        except (OutputError, OutOfMemoryError) as error:
            raise type(error)(
                f"{path}: its temporary shard set cannot be written to {gettempdir()} "
                f"({error.__cause__}); make room, or set TMPDIR to a folder on another disk",
                **{name: getattr(error, name) for name in error.fields},
            ) from error


def _read_meta(source: Source) -> pa.Table:
    """Read a file's ids and eras, in its order, and see that no id is there twice."""
    tables = [
        rows.select(["id", "era"])
        for chunk in source.chunks(rows=_META_ROWS)
        for rows in source.iter_meta(chunk, ())
    ]
    if not tables:
        raise source.error("no rows; expected at least one")
    meta = pa.concat_tables(tables)
    first_rows = pc.index_in(meta["id"], value_set=meta["id"]).to_numpy()
    again = np.flatnonzero(first_rows != np.arange(len(first_rows)))
    if len(again):
        row = int(again[0])
        found = f"found {meta['id'][row].as_py()!r} again, which is in row {first_rows[row]}"
        raise source.error(f"{found}; expected an id once", column="id", row=row)
    return meta
