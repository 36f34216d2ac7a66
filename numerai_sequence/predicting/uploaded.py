"""Uploaded: the function that Numerai calls: a frame of live features becomes predictions.

Its text is pickled, with what it knows, and runs where this package is not installed: on Python
3.10 to 3.13, NumPy 1.26 to 2 and pandas 2.2 to 3. So nothing here uses another module of ours, or
more than the standard library, NumPy, pandas and the model's own Keras.
"""

from __future__ import annotations

import importlib
import json
import statistics
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

_BATCH_BYTES = 64 << 20  # of float32
_TRIED_ROWS = 64
# What a model that was built again may differ by: of its predictions' range, and of the largest
# one, by the precision in which it computes. Another machine rounds otherwise.
_RANGE, _LARGEST = 0.1, {"full": 1e-3, "half": 2e-2}

Predict = Callable[..., pd.DataFrame]


def make_predict(known: dict[str, Any]) -> Predict:
    """Return the function, with everything that it needs inside.

    Parameters
    ----------
    known : dict
        The attributes of an `Upload`.
    """
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
    twice = frame.columns[frame.columns.duplicated()]
    wrong = [name for name in features if name in set(twice)]
    if wrong:
        raise ValueError(f"live_features: column {wrong[0]!r} is there twice; expected it once")


def _load(known: dict[str, Any]) -> Any:
    keras = _import_keras(known)
    try:
        model = _build(keras, known)
        found = _run(model, trial_input(known), known)
    except Exception as error:
        raise RuntimeError(
            f"the model, exported with {known['package']} {known['version']}, cannot be built by "
            f"{keras.__name__} {keras.__version__}: {error}"
        ) from error
    _check_values(found, keras, known)
    return model


def _import_keras(known: dict[str, Any]) -> Any:
    """Import a Keras of the same generation: 3, or 2 (tf_keras, or that of TensorFlow 2.15)."""
    generation = known["version"].split(".")[0]
    found = []
    for name in ("keras",) if generation == "3" else ("tf_keras", "keras"):
        try:
            keras = importlib.import_module(name)
        except ImportError:
            continue
        if keras.__version__.split(".")[0] == generation:
            return keras
        found.append(f"{name} {keras.__version__}")
    needed = "Keras 3.10 or newer" if generation == "3" else "tf_keras, for Keras 2"
    raise RuntimeError(
        f"the model was exported with {known['package']} {known['version']} and needs {needed}; "
        f"found {', '.join(found) or 'none'}; choose another image"
    )


def _build(keras: Any, known: dict[str, Any]) -> Any:
    """Return the model, made of its config and its weights."""
    own, here = f'"module": "{known["package"]}', f'"module": "{keras.__name__}'
    config = json.loads(known["config"].replace(own, here))
    model = keras.saving.deserialize_keras_object(config)
    weights = [
        np.frombuffer(values, dtype).reshape(shape) for dtype, shape, values in known["weights"]
    ]
    if not model.built or len(model.weights) != len(weights):
        model(trial_input(known))
    model.set_weights(weights)
    for layer in _layers(model):
        if type(layer).__name__ == "Normalization":  # it computes with copies of its weights
            layer.finalize_state()
    return model


def _layers(model: Any) -> Iterator[Any]:
    """Yield the layers of a model, and of the models and wrappers in it."""
    for layer in [*getattr(model, "layers", ()), getattr(model, "layer", None)]:
        if layer is not None:
            yield layer
            yield from _layers(layer)


def trial_digits(features: int) -> npt.NDArray[np.int8]:
    """Return rows to try a model on, int8 0..4, shape (64, features); anywhere the same ones."""
    # What this old generator draws does not change from NumPy to NumPy.
    return np.random.RandomState(0).randint(0, 5, (_TRIED_ROWS, features)).astype(np.int8)


def trial_input(known: dict[str, Any]) -> npt.NDArray[Any]:
    """Return x for the rows to try a model on."""
    return _as_input(trial_digits(len(known["features"])), known["dtype"])


def _check_values(found: npt.NDArray[np.float32], keras: Any, known: dict[str, Any]) -> None:
    """Raise where the model does not predict what it did when it was exported."""
    expected = np.array(known["expected"])
    tolerance = _RANGE * np.ptp(expected)
    tolerance += _LARGEST[known["precision"]] * np.abs(expected).max()
    if not (np.abs(found - expected) <= tolerance).all():
        raise ValueError(
            f"the model predicts other values on {keras.__name__} {keras.__version__} than on "
            f"{known['package']} {known['version']}, where it was exported; choose another image"
        )


def _predict_rows(model: Any, frame: pd.DataFrame, known: dict[str, Any]) -> Any:
    values = np.empty(len(frame), np.float32)
    is_scaled = _is_scaled(frame, known["features"])
    for places in _batches(frame, known):
        [x] = _cut(frame.iloc[places], known["features"], len(frame))
        digits = np.where(np.isnan(x), np.float32(2), x * 4 if is_scaled else x)
        _check_digits(digits, x, known["features"])
        values[places] = _run(model, _as_input(digits, known["dtype"]), known)
    wrong = np.count_nonzero(np.isnan(values))
    if wrong:
        raise ValueError(f"the model's predictions are NaN for {wrong} of {len(frame)} rows")
    return values


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


def _as_input(digits: npt.NDArray[Any], dtype: str) -> npt.NDArray[Any]:
    scaled = digits if dtype == "int8" else digits * np.float32(0.25)
    return np.ascontiguousarray(scaled, dtype)


def _run(model: Any, x: npt.NDArray[Any], known: dict[str, Any]) -> npt.NDArray[np.float32]:
    """Return the model's value of each row of x."""
    outputs = model.predict_on_batch(x)
    # A list of one output is that output, in older Kerases.
    is_one = known["key"] is None or not isinstance(outputs, (list, tuple, dict))
    output = np.asarray(outputs if is_one else outputs[known["key"]])
    values: npt.NDArray[np.float32] = output.reshape(len(x), -1)[:, known["place"]]
    return values.astype(np.float32)


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


def blend_in_eras(
    values: npt.NDArray[Any], eras: Any, weights: list[float], by: str
) -> npt.NDArray[np.float32]:
    """Return the weighted sum of the columns' ranks within each era, ranked again.

    Parameters
    ----------
    values : float array, shape (rows, columns)
    eras : array, shape (rows,)
    weights : list of float
        One a column.
    by : {"rank", "gaussian"}
        What is summed: ranks, or the values of a normal distribution that have these ranks.

    Returns
    -------
    float32 array, shape (rows,)
    """
    total = np.zeros(len(values))
    for column, weight in enumerate(weights):
        ranks = _ranks(values[:, column], eras).to_numpy(np.float64)[:, 0]
        total += weight * (_as_normal(ranks) if by == "gaussian" else ranks)
    return rank_in_eras(total, eras)[:, 0]


def _as_normal(ranks: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    # The ranks of an era come again in each column and in eras of the same size.
    found, places = np.unique(ranks, return_inverse=True)
    inverse = statistics.NormalDist().inv_cdf
    normal: npt.NDArray[np.float64] = np.array([inverse(rank) for rank in found.tolist()])
    return normal[places.reshape(-1)]


def _ranks(values: npt.NDArray[Any], eras: Any) -> pd.DataFrame:
    groups = pd.DataFrame(values).groupby(np.asarray(eras), dropna=False)
    return (groups.rank(method="average") - 0.5).div(groups.transform("size"), axis=0)


def rank_in_eras(values: npt.NDArray[Any], eras: Any) -> npt.NDArray[np.float32]:
    """Return the rank of each value within its era and column, as (rank - 0.5) / rows.

    Parameters
    ----------
    values : float array, shape (rows,) or (rows, columns)
    eras : array, shape (rows,)

    Returns
    -------
    float32 array, shape (rows, columns)
    """
    found: npt.NDArray[np.float32] = _ranks(values, eras).to_numpy(np.float32)
    return found


# What a column's variance keeps beside the columns before it, as a share, below which a fit to all
# of them is left to the singular values, as numerai-tools does everywhere.
_INDEPENDENT = 1e-6
_BLOCK_ROWS, _BLOCK_COLUMNS = 1024, 256


def neutralized(
    values: npt.NDArray[np.floating[Any]], digits: npt.NDArray[Any], proportion: float
) -> npt.NDArray[np.float64]:
    """Take out of each column of one era what a least-squares fit to the features explains.

    The fit has an intercept, as that of numerai-tools' ``neutralize`` has.

    Parameters
    ----------
    values : float array, shape (rows, columns)
    digits : array, shape (rows, features)
        Whole numbers 0..4, or floats 0..1 in steps of .25: of these, sums of products are exact.
    proportion : float
        The share of the fit that is taken out.

    Returns
    -------
    float64 array, shape (rows, columns)
    """
    given = np.asarray(values, np.float64)
    if not len(given) or not proportion:
        return given.copy()
    residual = _residual(given - given.mean(axis=0), digits)
    return np.asarray(residual + (1 - proportion) * (given - residual), np.float64)


def _residual(
    centred: npt.NDArray[np.float64], digits: npt.NDArray[Any]
) -> npt.NDArray[np.float64]:
    """Return what features do not explain of columns whose mean is 0."""
    kept, correlations, sums, scales = _different(digits)
    if not len(kept):
        return centred
    lower = _factor(correlations) if len(kept) < len(digits) - 1 else None
    del correlations
    x = _Centred(digits, kept, sums / len(digits), scales / np.sqrt(len(digits)))
    if lower is None:
        return _by_singular_values(centred, np.concatenate(list(x.blocks())))
    residual = centred
    for _ in range(2):  # the second takes out what rounding has left
        residual = x.without(residual, _solved(lower, x.products(residual)))
    return residual


def _different(digits: npt.NDArray[Any]) -> tuple[Any, Any, Any, Any]:
    """Return the places of features that vary and repeat none before, and their correlations.

    And the sums of all features, and the sizes of those.
    """
    gram, sums = _products(digits)
    gram *= len(digits)
    gram -= np.outer(sums, sums)  # exact, so that 0 is 0: the feature is the same in all rows
    kept = np.flatnonzero(gram.diagonal() > 0)
    gram = gram if len(kept) == len(sums) else gram[np.ix_(kept, kept)]
    scales = np.sqrt(gram.diagonal())
    gram /= scales
    gram /= scales[:, None]
    different = ~_repeats(gram)
    if not different.all():
        gram = gram[np.ix_(different, different)]
    return kept[different], gram, sums, scales[different]


def _by_singular_values(
    centred: npt.NDArray[np.float64], x: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    if len(x) <= x.shape[1] + 1:
        rows = x @ x.T + 1 / len(x)
        sizes = np.sqrt(rows.diagonal())
        if _factor(rows / sizes / sizes[:, None]) is not None:
            return np.zeros_like(centred)  # the features tell all rows apart, and explain all
    return np.asarray(centred - x @ np.linalg.lstsq(x, centred, rcond=1e-6)[0], np.float64)


def _products(digits: npt.NDArray[Any]) -> tuple[npt.NDArray[np.float64], Any]:
    """Return the features' products with each other, and their sums, both exact."""
    features = digits.shape[1]
    gram, sums = np.zeros((features, features)), np.zeros(features)
    for start in range(0, len(digits), _BLOCK_ROWS):
        block = digits[start : start + _BLOCK_ROWS].astype(np.float32)
        gram += block.T @ block
        sums += block.sum(axis=0, dtype=np.float64)
    return gram, sums


def _repeats(correlations: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Say of each feature whether one before it is the same, or its opposite."""
    repeats = np.zeros(len(correlations), bool)
    for place, row in enumerate(correlations):
        if not repeats[place]:
            repeats[place + 1 :] |= np.abs(row[place + 1 :]) > 1 - 1e-12
    return repeats


def _factor(gram: npt.NDArray[np.float64]) -> npt.NDArray[np.float64] | None:
    """Return the lower factor of a matrix of correlations; None where columns are dependent."""
    try:
        lower: npt.NDArray[np.float64] = np.asarray(np.linalg.cholesky(gram), np.float64)
    except np.linalg.LinAlgError:
        return None
    return lower if lower.diagonal().min() ** 2 > _INDEPENDENT else None


def _solved(
    lower: npt.NDArray[np.float64], right: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Solve for what the matrix of a lower factor has made into the right side."""
    found = right.copy()
    starts = range(0, len(lower), _BLOCK_COLUMNS)
    for start in starts:
        part, rest = slice(start, start + _BLOCK_COLUMNS), slice(start + _BLOCK_COLUMNS, None)
        found[part] = np.linalg.solve(lower[part, part], found[part])
        found[rest] -= lower[rest, part] @ found[part]
    for start in reversed(starts):
        part = slice(start, start + _BLOCK_COLUMNS)
        found[part] = np.linalg.solve(lower[part, part].T, found[part])
        found[:start] -= lower[part, :start].T @ found[part]
    return found


class _Centred:
    """Features with a mean of 0 and one size, made of digits, some rows at a time."""

    def __init__(self, digits: Any, kept: Any, means: Any, scales: Any) -> None:
        self._digits, self._kept = digits, kept if len(kept) < digits.shape[1] else slice(None)
        self._means, self._scales = means[kept], scales

    def blocks(self) -> Iterator[npt.NDArray[np.float64]]:
        for start in range(0, len(self._digits), _BLOCK_ROWS):
            block = self._digits[start : start + _BLOCK_ROWS][:, self._kept].astype(np.float64)
            block -= self._means
            block /= self._scales
            yield block

    def products(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the product of each feature with each column of the values."""
        found: Any = 0.0
        for place, block in enumerate(self.blocks()):
            rows = slice(place * _BLOCK_ROWS, (place + 1) * _BLOCK_ROWS)
            found = found + block.T @ values[rows]
        return np.asarray(found, np.float64)

    def without(self, values: Any, weights: Any) -> npt.NDArray[np.float64]:
        """Return values less the weighted sum of the features."""
        parts = [block @ weights for block in self.blocks()]
        return np.asarray(values - np.concatenate(parts), np.float64)
