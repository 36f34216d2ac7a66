"""Rebuilt: a model from its packed form, with a check that it predicts the same as before.

The text of this module is pickled, like that of `uploaded`.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

TRIED_ROWS = 64
# The allowed difference of a rebuilt model: a share of its predictions' range, and a share of the
# largest prediction, by the precision in which it computes. Other machines round differently.
_RANGE, _LARGEST = 0.1, {"full": 1e-3, "half": 2e-2}


def rebuild(known: dict[str, Any]) -> Any:
    """Return the model that has these attributes of a `Packed`."""
    keras = _import_keras(known)
    try:
        model = _build(keras, known)
        found = run_model(model, trial_input(known), known)
    except Exception as error:
        raise RuntimeError(
            f"{known['called']}, exported with {known['package']} {known['version']}, cannot be "
            f"built with {keras.__name__} {keras.__version__}: {error}"
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
        f"{known['called']} was exported with {known['package']} {known['version']} and needs "
        f"{needed}; found {', '.join(found) or 'none'}; choose another image"
    )


def _build(keras: Any, known: dict[str, Any]) -> Any:
    """Return the model with its config and its weights."""
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
    """Return rows to try a model on, int8 0..4, shape (64, features), the same on any machine."""
    # The numbers of this old generator do not change between versions of NumPy.
    return np.random.RandomState(0).randint(0, 5, (TRIED_ROWS, features)).astype(np.int8)


def trial_others(inputs: dict[str, list[str]]) -> dict[str, npt.NDArray[np.float32]]:
    """Return the columns of other inputs for the rows to try a model on: 0..1, shape (64,)."""
    names = dict.fromkeys(name for columns in inputs.values() for name in columns)
    drawn = np.random.RandomState(1).random_sample((len(names), TRIED_ROWS)).astype(np.float32)
    return dict(zip(names, drawn, strict=True))


def trial_input(known: dict[str, Any]) -> Any:
    """Return x for the rows to try a model on."""
    features = as_input(trial_digits(len(known["features"])), known["dtype"])
    return with_others(features, trial_others(known["inputs"]), known["inputs"])


def with_others(
    features: npt.NDArray[Any],
    columns: dict[str, npt.NDArray[np.float32]],
    inputs: dict[str, list[str]],
) -> Any:
    """Return x: the features alone, or a dict of them and of the columns of other inputs."""
    if not inputs:
        return features
    others = {name: np.stack([columns[one] for one in inputs[name]], axis=1) for name in inputs}
    return {"features": features, **others}


def as_input(digits: npt.NDArray[np.int8], dtype: str) -> npt.NDArray[Any]:
    """Return x from digits 0..4, as `NumeraiSequence` makes it."""
    scaled: npt.NDArray[Any] = digits
    if dtype != "int8":
        scaled = np.multiply(digits, np.float32(0.25), dtype=np.float32)
    return np.ascontiguousarray(scaled, dtype)


def run_model(model: Any, x: Any, known: dict[str, Any]) -> npt.NDArray[np.float32]:
    """Return the predictions of a model that are kept, shape (rows of x, columns)."""
    outputs = model.predict_on_batch(x)
    rows = len(x["features"] if isinstance(x, dict) else x)
    kept = []
    for key, start, stop in known["parts"]:
        # Older versions of Keras return one output without a list.
        is_one = key is None or not isinstance(outputs, (list, tuple, dict))
        output = np.asarray(outputs if is_one else outputs[key])
        kept.append(output.reshape(rows, -1)[:, start:stop].astype(np.float32))
    return np.concatenate(kept, axis=1)


def _check_values(found: npt.NDArray[np.float32], keras: Any, known: dict[str, Any]) -> None:
    """Raise an error if the model predicts other values than when it was exported."""
    expected = np.array(known["expected"])
    tolerance = _RANGE * np.ptp(expected, axis=0)
    tolerance += _LARGEST[known["precision"]] * np.abs(expected).max(axis=0)
    if not (np.abs(found - expected) <= tolerance).all():
        raise ValueError(
            f"{known['called']} predicts other values on {keras.__name__} {keras.__version__} than "
            f"on {known['package']} {known['version']}, where it was exported; choose another image"
        )
