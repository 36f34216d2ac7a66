"""Uploaded: the function that Numerai calls: a frame of live features becomes predictions.

It is pickled by value and runs where this package is not installed. So nothing here uses another
module of ours, or more than the standard library, NumPy, pandas and the model's own Keras.
"""

from __future__ import annotations

import importlib
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

_BATCH_BYTES = 64 << 20  # of float32

Predict = Callable[..., pd.DataFrame]


@dataclass(frozen=True)
class Upload:
    """What the function knows; it travels as a dict, for a class would have to come along.

    Attributes
    ----------
    model : bytes
        A ``.keras`` file.
    package, version : str
        The Keras that wrote it.
    features : list of str
        The columns of x.
    dtype : str
        Of x: floats 0..1, or int8 0..4.
    key
        Of the output among those that the model returns; None where that is the output.
    place : slice
        The one value of a row of that output.
    ranked : bool
    batch_by : str
        "era" where the model is run on one whole era at a time.
    """

    model: bytes
    package: str
    version: str
    features: list[str]
    dtype: str
    key: Any
    place: slice
    ranked: bool
    batch_by: str


def make_predict(upload: Upload) -> Predict:
    """Return the function, with everything that it needs inside."""
    known = dict(vars(upload))
    loaded: list[Any] = []  # the model, from the first call on

    def predict(
        live_features: pd.DataFrame, live_benchmark_models: pd.DataFrame | None = None
    ) -> pd.DataFrame:
        """Return the column ``prediction`` for each row of live_features, in the same order."""
        _check_features(live_features, known["features"])
        if not loaded:
            loaded.append(_load(known))
        values = _predict_rows(loaded[0], live_features, known)
        if known["ranked"]:
            eras = live_features["era"] if "era" in live_features.columns else None
            values = rank_in_eras(values, np.zeros(len(values)) if eras is None else eras)[:, 0]
        return pd.DataFrame({"prediction": values}, index=live_features.index)

    return predict


def _check_features(frame: pd.DataFrame, features: list[str]) -> None:
    there = set(frame.columns)
    missing = [name for name in features if name not in there]
    if missing:
        others = f" and {len(missing) - 1} more" if missing[1:] else ""
        raise ValueError(
            f"live_features: no column {missing[0]!r}{others}; expected all {len(features)} "
            "features that the model was trained on"
        )


def _load(known: dict[str, Any]) -> Any:
    keras = importlib.import_module(known["package"])
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "model.keras")
            with open(path, "wb") as file:
                file.write(known["model"])
            return keras.models.load_model(path, compile=False)
    except Exception as error:
        raise RuntimeError(
            f"the model, saved by {known['package']} {known['version']}, cannot be loaded by "
            f"{keras.__version__}; train and export it with the versions that Numerai has"
        ) from error


def _predict_rows(model: Any, frame: pd.DataFrame, known: dict[str, Any]) -> Any:
    values = np.empty(len(frame), np.float32)
    is_scaled = _is_scaled(frame, known["features"])
    for places in _batches(frame, known):
        [x] = _cut(frame.iloc[places], known["features"], len(frame))
        digits = np.where(np.isnan(x), np.float32(2), x * 4 if is_scaled else x)
        batch = digits if known["dtype"] == "int8" else digits * np.float32(0.25)
        outputs = model.predict_on_batch(np.ascontiguousarray(batch, known["dtype"]))
        output = np.asarray(outputs if known["key"] is None else outputs[known["key"]])
        values[places] = output.reshape(len(x), -1)[:, known["place"]][:, 0]
    wrong = np.count_nonzero(np.isnan(values))
    if wrong:
        raise ValueError(f"the model's predictions are NaN for {wrong} of {len(frame)} rows")
    return values


def _batches(frame: pd.DataFrame, known: dict[str, Any]) -> list[npt.NDArray[np.intp]]:
    """Return the places of the rows of each batch: whole eras, or as many rows as are bounded."""
    places = np.arange(len(frame))
    if known["batch_by"] == "rows":
        rows = _most_rows(known["features"])
        return [places[start : start + rows] for start in range(0, len(frame), rows)]
    if "era" not in frame.columns:
        return [places] if len(frame) else []  # live data are one era
    grouped = frame["era"].groupby(frame["era"].to_numpy(), dropna=False)
    codes = grouped.ngroup().to_numpy()
    return [np.flatnonzero(codes == code) for code in np.unique(codes)]


def _most_rows(features: list[str]) -> int:
    return max(1, _BATCH_BYTES // (4 * len(features)))


def _cut(frame: pd.DataFrame, features: list[str], rows: int) -> Iterator[npt.NDArray[np.float32]]:
    """Yield the features of some rows at a time, what is missing as NaN."""
    for start in range(0, len(frame), rows):
        part = frame.iloc[start : start + rows][features]
        yield part.to_numpy(dtype=np.float32, na_value=np.nan)


def _is_scaled(frame: pd.DataFrame, features: list[str]) -> bool:
    """Say whether the values are 0..1, as of old, and not 0..4.

    pandas turns whole numbers of which some are missing into floats: among other columns of whole
    numbers, or where one is more than 1, floats are 0..4 too. All features of the frame tell.
    """
    numbers = frame.columns[[pd.api.types.is_numeric_dtype(kind) for kind in frame.dtypes]]
    others = [name for name in numbers if str(name).startswith("feature")]
    features = [*dict.fromkeys([*features, *others])]
    kinds = frame.dtypes[features]
    if any(pd.api.types.is_integer_dtype(kind) for kind in kinds):
        return False
    return not any((x > 1).any() for x in _cut(frame, features, _most_rows(features)))


def rank_in_eras(values: npt.NDArray[np.float32], eras: Any) -> npt.NDArray[np.float32]:
    """Return the rank of each value within its era and column, as (rank - 0.5) / rows.

    Parameters
    ----------
    values : float32 array, shape (rows,) or (rows, columns)
    eras : array, shape (rows,)

    Returns
    -------
    float32 array, shape (rows, columns)
    """
    groups = pd.DataFrame(values).groupby(np.asarray(eras), dropna=False)
    ranks = (groups.rank(method="average") - 0.5).div(groups.transform("size"), axis=0)
    found: npt.NDArray[np.float32] = ranks.to_numpy(np.float32)
    return found
