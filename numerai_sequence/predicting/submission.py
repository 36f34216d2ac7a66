"""Submission: a file of predictions for Numerai, from a frame."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from ..checks import file_path
from ..errors import OutputError, PredictionError
from ..reading.shard_set import PathLike
from ..reading.tables import Frame, is_number, is_table, read_frame
from ..system.files import explained, replaced
from ..system.optional_packages import load_extra

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = load_extra("pandas", "pandas", "predictions")

_EXPECTED = "expected a frame or Series of predictions with ids as its index or in a column 'id'"


def write_predictions(frame: pd.DataFrame, path: PathLike) -> Path:
    """Write predictions as a CSV or Parquet file for Numerai.

    The predictions are first checked by Numerai's rules: each id is text and appears once, and
    each row has a number from 0 to 1. If all numbers are the same, a warning says so. An existing
    file is replaced only when the new one is complete.

    Parameters
    ----------
    frame : pandas.DataFrame, pandas.Series, polars.DataFrame or pyarrow.Table
        One column of predictions, with any name, by ``id``, which is the index or a column. For
        example the result of `predict` with ``ranked=True``.
    path : path
        File to write. ``.csv`` has the columns ``id`` and ``prediction``, as ``numerapi``'s
        ``upload_predictions`` takes it. ``.parquet`` is indexed by ``id``. The list
        ``frame.attrs["features"]``, which `predict` adds, is written too: for CSV to a second file
        with the suffix ``.features.json``, for Parquet to the metadata, so that
        ``pandas.read_parquet`` restores it. Without the list, an existing second file is deleted.

    Returns
    -------
    path
        `path`.

    Raises
    ------
    TypeError
        `frame` is not a frame, or `path` is not a path.
    ValueError
        The suffix is wrong, or Numerai would refuse the predictions.
    OutputError
        The system refuses to write the file.
    """
    path = file_path("path", path, "the path of a .csv or .parquet file", OutputError)
    if path.suffix not in (".csv", ".parquet"):
        raise ValueError(f"{path}: found suffix {path.suffix!r}, expected '.csv' or '.parquet'")
    bare = _as_submission(frame)
    features = getattr(frame, "attrs", {}).get("features")
    if path.suffix == ".parquet":
        bare.attrs = {} if features is None else {"features": list(features)}
        with replaced(path) as temporary:
            bare.to_parquet(temporary)
        return path
    described = path.with_suffix(".features.json")
    if features is None:
        with replaced(path) as temporary:
            _write_csv(bare, temporary)
        with explained(described):  # an existing one describes other predictions
            described.unlink(missing_ok=True)
        return path
    # Both files are complete before one is moved.
    with replaced(described) as beside, replaced(path) as temporary:
        text = json.dumps(list(features), indent=1) + "\n"
        beside.write_text(text, encoding="utf-8", newline="\n")
        _write_csv(bare, temporary)
    return path


def _write_csv(frame: pd.DataFrame, path: Path) -> None:
    with open(path, "w", encoding="utf-8", newline="\n") as file:  # the same bytes everywhere
        frame.to_csv(file, lineterminator="\n")


def _as_submission(given: Any) -> pd.DataFrame:
    """Return a frame with the index ``id`` and the column ``prediction``, by Numerai's rules."""
    if not is_table(given):
        raise TypeError(f"frame: found {type(given).__name__}, {_EXPECTED}")
    frame = read_frame("frame", given, _EXPECTED, unnamed="prediction")
    name = _only_column(frame)
    _check_ids(frame)
    values = frame.numbers(name)
    _check_values(values)
    index = pd.Index(frame.ids.to_pandas(), name="id")
    return pd.DataFrame({"prediction": values}, index)


def _only_column(frame: Frame) -> str:
    names = list(frame.types)
    if len(names) != 1:
        raise PredictionError(
            f"frame: found {len(names)} columns, {', '.join(names[:5])}; expected one; choose it, "
            f"such as frame[[{names[0] if names else 'prediction'!r}]], or with output= of predict"
        )
    if not is_number(frame.types[names[0]]):
        kind = frame.types[names[0]]
        raise PredictionError(f"frame: column {names[0]!r} is {kind}, expected numbers from 0 to 1")
    return names[0]


def _check_ids(frame: Frame) -> None:
    if frame.id_name != "id":
        raise PredictionError(
            f"frame: found index {frame.id_name!r}, expected 'id', or a column of that name"
        )
    ids = frame.ids
    if not len(ids):
        raise PredictionError("frame: found no rows, expected a prediction for each id")
    if not frame.has_ids:
        raise PredictionError(
            f"frame: ids are {ids.type}, expected text such as 'n0007b5abb0c3a25'"
        )
    if ids.null_count:
        raise PredictionError(
            f"frame: {ids.null_count:,} of {len(ids):,} rows have no id, expected one in each row"
        )
    counts = pc.value_counts(ids)
    twice = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(twice):
        first = twice[0].as_py()
        raise PredictionError(
            f"frame: found id {first['values']!r} {first['counts']} times ({len(twice):,} such "
            "ids in all), expected each id once"
        )


def _check_values(values: npt.NDArray[np.floating[Any]]) -> None:
    missing = np.isnan(values)
    if missing.any():
        raise PredictionError(
            f"frame: {missing.sum():,} of {len(values):,} predictions are NaN, expected a number "
            "from 0 to 1 in each row"
        )
    wrong = (values < 0) | (values > 1)
    if wrong.any():
        raise PredictionError(
            f"frame: {wrong.sum():,} of {len(values):,} predictions are outside 0 to 1, such as "
            f"{values[wrong][0]:g}; rank them with predict(..., ranked=True) or --rank"
        )
    # The test of numerai-tools. It is only a warning: an untrained model predicts like this.
    if len(values) > 1 and np.isclose(values.astype(np.float64).std(ddof=1), 0):
        text = f"frame: all {len(values):,} predictions are {values[0]:g}; Numerai refuses that"
        warnings.warn(text, stacklevel=4)
