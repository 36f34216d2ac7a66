"""Submission: write a frame of predictions as a file that Numerai takes."""

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
from ..system.extras import load_extra
from ..system.files import explained, replaced

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = load_extra("pandas", "pandas", "predictions")

_EXPECTED = "expected a frame or Series of predictions with ids as its index or in a column 'id'"


def write_predictions(frame: pd.DataFrame, path: PathLike) -> Path:
    """Write predictions as CSV or Parquet, whole or not at all.

    They are checked by Numerai's rules first: each id is there once and is text, and each has a
    number from 0 to 1. Where all numbers are the same, a warning says so.

    Parameters
    ----------
    frame : pandas.DataFrame, pandas.Series, polars.DataFrame or pyarrow.Table
        One column of predictions, of any name, by ``id``: the index, or a column. Such as what
        `predict` returned with ``ranked=True``.
    path : path
        ``.csv``, as ``numerapi``'s ``upload_predictions`` takes it: columns ``id`` and
        ``prediction``. Or ``.parquet``, indexed by ``id``. What is there is replaced. The list
        ``frame.attrs["features"]``, which `predict` adds, goes to a second file,
        ``.features.json`` in the place of ``.csv``; or to the metadata of the Parquet, of which
        ``pandas.read_parquet`` makes ``attrs["features"]``. Without it, a second file is removed.

    Returns
    -------
    path
        `path`.

    Raises
    ------
    TypeError
        `frame` is no frame, or `path` no path.
    ValueError
        The suffix is another one; or `frame` is what Numerai would refuse.
    OutputError
        The system does not let it be written.
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
        with explained(described):  # of other predictions
            described.unlink(missing_ok=True)
        return path
    # Both are whole before one is moved.
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
            f"frame: found {len(names)} columns, {', '.join(names[:5])}; expected one: choose it, "
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
        raise PredictionError(f"frame: {ids.null_count:,} of {len(ids):,} rows have no id")
    counts = pc.value_counts(ids)
    twice = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(twice):
        first = twice[0].as_py()
        raise PredictionError(
            f"frame: id {first['values']!r} is there {first['counts']} times ({len(twice):,} such "
            "ids); expected each id once"
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
            f"{values[wrong][0]:g}; rank them: predict(..., ranked=True), or --rank of the command"
        )
    # As numerai-tools sees it. They are numbers all the same, of an untrained model for example.
    if len(values) > 1 and np.isclose(values.astype(np.float64).std(ddof=1), 0):
        text = f"frame: all {len(values):,} predictions are {values[0]:g}; Numerai refuses that"
        warnings.warn(text, stacklevel=4)
