"""Ensembles: one prediction a row, era by era, from the predictions of several models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..checks import file_path, in_order, is_of, kind_of, one_of, short
from ..errors import EraError, PredictionError
from ..reading.set_opener import open_shards
from ..reading.shard_set import PathLike, ShardSet
from ..system.optional_packages import load_extra
from ..writing.source_columns import Source
from .blends import blend_in_eras
from .data_argument import is_parquet
from .predictions import read_meta

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = load_extra("pandas", "pandas", "ensembles")

BY = ("rank", "gaussian")
_ERAS = (
    "give eras=: a Series by id, a shard set or its path, or a Parquet file; or call predict with "
    "with_era=True"
)
_WEIGHTS = "a list with a number for each column, or a mapping from columns to numbers"


def ensemble(
    frame: pd.DataFrame,
    weights: Sequence[float] | Mapping[str, float] | None = None,
    *,
    by: str = "rank",
    eras: pd.Series | ShardSet | PathLike | None = None,
) -> pd.DataFrame:
    """Combine the predictions of several models into one prediction a row.

    Predictions are ranked within each era. The mean of the models' ranks is ranked again.

    Parameters
    ----------
    frame : pandas.DataFrame
        Predictions by ``id``, with one column for each model, on any scale, such as `predict`
        returns. It may have a column ``era``.
    weights : sequence or mapping of float, optional
        One weight for each column, in order or by name; None for equal weights. The sum may be
        any number.
    by : {"rank", "gaussian"}
        "rank" takes the mean of the ranks, (rank - 0.5) / rows. Equal predictions have equal ranks.
        "gaussian" first turns ranks into values of a normal distribution. So the highest and lowest
        predictions of a model count for more.
    eras : pandas.Series, ShardSet, or path, optional
        Eras of the rows by id, or the shard set or Parquet file of these rows. None for the column
        ``era``.

    Returns
    -------
    pandas.DataFrame
        The column ``prediction``, float32 in (0, 1), in the order of `frame` and with its
        ``attrs``.

    Raises
    ------
    EraError
        The eras are not known, or a row has no era.
    PredictionError
        A prediction is NaN or not a number, or there are no predictions.
    TypeError, ValueError
        Another argument is wrong.
    """
    if not isinstance(frame, pd.DataFrame):
        raise TypeError(f"frame: found {kind_of(frame)}, expected a pandas.DataFrame")
    one_of("by", by, BY)
    codes = pd.factorize(eras_of(frame, eras))[0]
    columns = frame.drop(columns="era", errors="ignore")
    chosen = read_weights(weights, list(columns.columns))
    blended = blend_in_eras(_numbers(columns), codes, chosen, by)
    made = pd.DataFrame({"prediction": blended}, frame.index)
    made.attrs = dict(frame.attrs)
    return made


def read_weights(weights: Any, columns: list[Any]) -> list[float]:
    """Return a weight for each column. For `weights` see `ensemble`."""
    if weights is None:
        return [1.0] * len(columns)
    if isinstance(weights, Mapping):
        other = [name for name in columns if name not in weights]
        other += [name for name in weights if name not in columns]
        if other:
            found = f"found {len(weights)} weights, with {short(other[0])} missing or unknown"
            raise ValueError(f"weights: {found}, expected one for each column: {columns[:5]}")
        weights = [weights[name] for name in columns]
    if isinstance(weights, (str, bytes)) or not isinstance(weights, Iterable):
        raise TypeError(f"weights: found {short(weights)}, expected {_WEIGHTS}")
    values = in_order("weights", weights, _WEIGHTS)
    if len(values) != len(columns):
        raise ValueError(
            f"weights: found {len(values)}, expected {len(columns)}, one for each column"
        )
    return _check_weights(values)


def _check_weights(weights: list[Any]) -> list[float]:
    for weight in weights:
        is_number = isinstance(weight, (int, float, np.integer, np.floating))
        if not is_number or isinstance(weight, bool):
            raise TypeError(f"weights: found {short(weight)}, expected numbers")
    found = [float(weight) for weight in weights]
    if not np.isfinite(found).all() or not any(found):
        raise ValueError(f"weights: found {short(found)}, expected finite numbers, not all 0")
    return found


def _numbers(frame: pd.DataFrame) -> npt.NDArray[np.floating[Any]]:
    """Return the predictions, which are numbers."""
    if not len(frame.columns) or not len(frame):
        raise PredictionError(
            f"frame: found {len(frame):,} rows and {len(frame.columns)} columns of predictions, "
            "expected at least one of each"
        )
    for name, kind in frame.dtypes.items():
        if not pd.api.types.is_numeric_dtype(kind) or pd.api.types.is_bool_dtype(kind):
            raise PredictionError(f"frame: column {name!r} is {kind}, expected numbers")
    values: npt.NDArray[np.floating[Any]] = frame.to_numpy(
        np.result_type(np.float32, *map(_float_of, frame.dtypes)), na_value=np.nan
    )
    missing = np.isnan(values)
    if missing.any():
        row, column = np.argwhere(missing)[0]
        raise PredictionError(
            f"frame: column {frame.columns[column]!r} is NaN for {missing[:, column].sum():,} of "
            f"{len(frame):,} rows, first {frame.index[row]!r}; expected numbers"
        )
    return values


def _float_of(kind: Any) -> type[np.floating[Any]]:
    return np.float32 if getattr(kind, "itemsize", 8) <= 4 and kind.kind == "f" else np.float64


def eras_of(frame: pd.DataFrame, eras: Any) -> npt.NDArray[Any]:
    """Return the era of each row of a frame of predictions by id.

    Parameters
    ----------
    frame : pandas.DataFrame
    eras : optional
        See `ensemble`.

    Raises
    ------
    EraError
        The eras are not known.
    """
    if eras is None:
        if "era" not in frame.columns:
            raise EraError(f"frame: found no column 'era', and eras= is not given; {_ERAS}")
        return _check_eras(frame["era"].to_numpy(), frame.index)
    by_id = eras if isinstance(eras, pd.Series) else _read_eras(eras)
    if not by_id.index.is_unique:
        twice = by_id.index[by_id.index.duplicated()][0]
        raise EraError(f"eras: found id {twice!r} twice, expected it once")
    places = by_id.index.get_indexer(frame.index)
    missing = np.flatnonzero(places < 0)
    if len(missing):
        raise EraError(
            f"eras: found none for {len(missing):,} of {len(frame):,} rows of the frame, first "
            f"{frame.index[missing[0]]!r}; expected an era for each id"
        )
    return _check_eras(by_id.to_numpy()[places], frame.index)


def _check_eras(eras: npt.NDArray[Any], ids: pd.Index) -> npt.NDArray[Any]:
    missing = np.flatnonzero(pd.isna(eras))
    if len(missing):
        rows = f"{len(missing):,} row{'' if len(missing) == 1 else 's'}"
        first = f"first {ids[missing[0]]!r}"
        raise EraError(f"eras: missing for {rows}, {first}; expected an era for each id")
    return eras


def _read_eras(data: Any) -> pd.Series:
    """Return the eras of a shard set or a Parquet file by id."""
    if is_of(data, ShardSet):
        return _by_id(data)
    path = file_path("eras", data, "a Series by id, a shard set or its path, or a Parquet file")
    if is_parquet(path):
        with closing(Source(Path(path))) as source:
            return _by_id(read_meta(source))
    with open_shards(path) as shards:
        return _by_id(shards)


def _by_id(data: Any) -> pd.Series:
    ids = data.column("id").to_pandas().to_numpy()
    return pd.Series(data.column("era").to_pandas().to_numpy(), ids)
