"""Uploaded: the function that Numerai calls, from a frame of live features to predictions.

Its text is pickled with those of `blends`, `residuals` and `rebuilt`, and with the function's data.
They run where this package is not installed: on Python 3.10 to 3.13, NumPy 1.26 to 2, pandas 2.2 to
3. So they import only the standard library, NumPy, pandas and the models' own Keras. There they
become one module, so no name may be defined in two of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

if __package__:  # when unpickled, the texts are one module
    from .blends import blend_in_eras, rank_in_eras
    from .rebuilt import as_input, rebuild, run_model, with_others
    from .residuals import neutralized, why_nothing_is_left

_CUT_BYTES = 64 << 20  # of float32

Predict = Callable[..., pd.DataFrame]
Places = npt.NDArray[np.int64]


def make_predict(known: dict[str, Any]) -> Predict:
    """Return the function, with all its data inside.

    Parameters
    ----------
    known : dict
        The attributes of an `Upload`.
    """
    models: list[Any] = []  # from the first call on

    def predict(
        live_features: pd.DataFrame, live_benchmark_models: pd.DataFrame | None = None
    ) -> pd.DataFrame:
        """Return the column ``prediction`` for each row of live_features, in the same order."""
        live = Live(live_features, known, live_benchmark_models)
        if not models:
            models.extend([rebuild(one) for one in known["models"]])
        values = live.as_one(live.columns(models))
        return pd.DataFrame({"prediction": values}, index=live_features.index)

    return predict


class Live:
    """Live features, and their predictions.

    Parameters
    ----------
    frame : pandas.DataFrame
    known : dict
        The attributes of an `Upload`.
    others : pandas.DataFrame, optional
        The columns of other inputs by id: predictions of benchmark models.
    """

    def __init__(
        self, frame: pd.DataFrame, known: dict[str, Any], others: pd.DataFrame | None = None
    ) -> None:
        trained = "the model was" if len(known["models"]) == 1 else "the models were"
        _check_features(frame, known["features"], f"{trained} trained on")
        _check_features(frame, known["neutral"], "predictions are neutralized to")
        self._frame, self._known = frame, known
        self._is_scaled = _is_scaled(frame, [*known["features"], *known["neutral"]])
        self._eras = _era_codes(frame)
        inputs = [columns for one in known["models"] for columns in one["inputs"].values()]
        names = dict.fromkeys(name for columns in inputs for name in columns)
        self._others = {name: _column_of(others, name, frame.index) for name in names}

    def columns(self, models: list[Any]) -> npt.NDArray[np.float32]:
        """Return the predictions of the models, float32, shape (rows, columns)."""
        packed, features = self._known["models"], self._known["features"]
        taken = [_places_of(one["features"], features) for one in packed]
        parts = [np.empty((len(self._eras), len(one["expected"][0])), np.float32) for one in packed]
        for places in self._batches():
            digits = self._digits(places, features)
            for model, one, takes, values in zip(models, packed, taken, parts, strict=True):
                others = {name: column[places] for name, column in self._others.items()}
                x = with_others(as_input(digits[:, takes], one["dtype"]), others, one["inputs"])
                values[places] = run_model(model, x, one)
        for one, values in zip(packed, parts, strict=True):
            wrong = np.count_nonzero(np.isnan(values).any(axis=1))
            if wrong:
                raise ValueError(
                    f"{one['called']}: predictions are NaN for {wrong} of {len(values)} rows, "
                    "expected numbers"
                )
        return np.concatenate(parts, axis=1)

    def as_one(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return one prediction a row: blended, neutralized and ranked as chosen."""
        known = self._known
        if known["weights"] is not None:
            blended = blend_in_eras(values, self._eras, known["weights"], known["ensemble"])
            values = blended[:, None]
        if known["neutral"]:
            values = self._neutralized(values)
        ranked: npt.NDArray[Any] = rank_in_eras(values, self._eras) if known["ranked"] else values
        return ranked[:, 0]

    def _neutralized(self, values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        found = np.empty(values.shape, np.float64)
        features, share = self._known["neutral"], self._known["proportion"]
        for places in self._by_era():
            given = values[places]
            left = neutralized(given, self._digits(places, features), share)
            if share == 1:
                self._check_left(left, given, places[0], len(features))
            found[places] = left
        return found

    def _check_left(
        self, left: npt.NDArray[Any], given: npt.NDArray[Any], place: int, features: int
    ) -> None:
        era = str(self._frame["era"].iloc[place]) if "era" in self._frame.columns else "X"
        wrong = why_nothing_is_left(left, given, ["prediction"], era, features)
        if wrong:
            raise ValueError(f"live_features: {wrong}")

    def _batches(self) -> list[Places]:
        """Return the places of the rows of each batch, the same as when `predict` reads a file.

        The rows are sorted by era, and batches may be whole eras.
        """
        if self._known["batch_by"] == "era":
            return self._by_era()
        order = np.argsort(self._eras, kind="stable")
        batches = -(-len(order) // self._known["batch_rows"])
        rows = -(-len(order) // max(1, batches))
        return [order[start : start + rows] for start in range(0, len(order), max(1, rows))]

    def _by_era(self) -> list[Places]:
        order = np.argsort(self._eras, kind="stable")
        starts = np.flatnonzero(np.diff(self._eras[order])) + 1
        return np.split(order, starts) if len(order) else []

    def _digits(self, places: Places, features: list[str]) -> npt.NDArray[np.int8]:
        """Return the features of some rows, 0..4; a missing value is the middle."""
        x = _as_floats(self._frame.iloc[places], features)
        digits = np.where(np.isnan(x), np.float32(2), x * 4 if self._is_scaled else x)
        _check_digits(digits, x, features)
        return np.ascontiguousarray(digits, np.int8)


def _check_features(frame: pd.DataFrame, features: list[str], what: str) -> None:
    there = set(frame.columns)
    missing = [name for name in features if name not in there]
    if missing:
        others = f" and {len(missing) - 1} more" if missing[1:] else ""
        raise ValueError(
            f"live_features: found no column {missing[0]!r}{others}; expected all {len(features)} "
            f"features that {what}"
        )
    twice = set(frame.columns[frame.columns.duplicated()])
    wrong = [name for name in features if name in twice]
    if wrong:
        raise ValueError(f"live_features: found column {wrong[0]!r} twice, expected it once")


def _column_of(frame: pd.DataFrame | None, name: str, ids: pd.Index) -> npt.NDArray[np.float32]:
    """Return a column of the benchmark models, float32, in the order of the ids."""
    if frame is None:
        raise ValueError(
            f"live_benchmark_models: found None, expected a frame with the column {name!r}, which "
            "a model takes as an input"
        )
    found = int(np.sum(frame.columns == name))
    if found != 1:
        raise ValueError(
            f"live_benchmark_models: found {found} columns {name!r}, expected one, because a model "
            "takes it as an input"
        )
    twice = frame.index[frame.index.duplicated()]
    if len(twice):
        raise ValueError(f"live_benchmark_models: found id {twice[0]!r} twice, expected it once")
    places = frame.index.get_indexer(ids)
    if (places < 0).any():
        raise ValueError(
            f"live_benchmark_models: found no row for {np.sum(places < 0):,} of {len(ids):,} ids "
            f"of live_features, such as {ids[places < 0][0]!r}; expected all ids in its index"
        )
    values = frame[name].to_numpy(dtype=np.float32, na_value=np.nan)[places]
    if not np.isfinite(values).all():
        raise ValueError(
            f"live_benchmark_models: column {name!r} is NaN or infinite for "
            f"{np.sum(~np.isfinite(values)):,} of {len(ids):,} rows, such as "
            f"{ids[~np.isfinite(values)][0]!r}; expected a number in each row"
        )
    return np.asarray(values, np.float32)


def _places_of(names: list[str], features: list[str]) -> slice | list[int]:
    """Return the places of these names among all features."""
    place_of = {name: place for place, name in enumerate(features)}
    places = [place_of[name] for name in names]
    first, last = places[0], places[0] + len(places)
    return slice(first, last) if places == list(range(first, last)) else places


def _era_codes(frame: pd.DataFrame) -> npt.NDArray[np.int64]:
    """Return the place of each row's era among the eras in the order of time.

    Eras without a number come after those with one, and a missing era is last. If there is no
    column of eras, all rows have the same era, as in live data.
    """
    if "era" not in frame.columns:
        return np.zeros(len(frame), np.int64)
    codes, names = pd.factorize(frame["era"])
    order = sorted(range(len(names)), key=lambda code: _in_time(str(names[code])))
    places = np.full(len(names) + 1, len(names), np.int64)  # code -1: missing
    places[order] = np.arange(len(names))
    found: npt.NDArray[np.int64] = places[codes]
    return found


def _in_time(era: str) -> tuple[bool, int, str]:
    match = re.fullmatch("(?:era)?([0-9]{1,100})", era)
    return match is None, int(match[1]) if match else 0, era


def _check_digits(
    digits: npt.NDArray[np.float32], x: npt.NDArray[np.float32], features: list[str]
) -> None:
    wrong = (digits < 0) | (digits > 4) | (digits != np.floor(digits))
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise ValueError(
            f"live_features: column {features[column]!r} holds {x[row, column]:g}, expected 0 to 4 "
            "(0, 1, 2, 3, 4), or 0 to 1 in all features (0, .25, .5, .75, 1), or a missing value"
        )


def _as_floats(frame: pd.DataFrame, features: list[str]) -> npt.NDArray[np.float32]:
    """Return features, float32, shape (rows, features); a missing value is NaN."""
    x: npt.NDArray[np.float32] = frame[features].to_numpy(dtype=np.float32, na_value=np.nan)
    return x


def _is_scaled(frame: pd.DataFrame, features: list[str]) -> bool:
    """Return whether the values are 0..1, as in older data, and not 0..4.

    pandas turns a column of whole numbers with missing values into floats. So floats are 0..4 if
    another feature column holds whole numbers, or if a float is more than 1. All features of the
    frame are checked.
    """
    numbers = frame.columns[[pd.api.types.is_numeric_dtype(kind) for kind in frame.dtypes]]
    others = [name for name in numbers if str(name).startswith("feature")]
    features = [*dict.fromkeys([*features, *others])]
    kinds = frame.dtypes[features]
    if any(pd.api.types.is_integer_dtype(kind) for kind in kinds):
        return False
    return not any((x > 1).any() for x in _cut(frame, features))


def _cut(frame: pd.DataFrame, features: list[str]) -> Iterator[npt.NDArray[np.float32]]:
    """Yield the features of some rows at a time."""
    rows = max(1, _CUT_BYTES // (4 * len(features)))
    for start in range(0, len(frame), rows):
        yield _as_floats(frame.iloc[start : start + rows], features)
