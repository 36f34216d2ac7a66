"""Model outputs: check the input of a Keras model, run it on a batch, and name its outputs.

A model returns one array, a list of arrays, or a dict: its outputs. An output has one value for
each row, or several. Each value becomes a column, for all outputs or for the chosen one.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..batching.inputs import Inputs
from ..errors import FeatureError, close_matches
from ..feeding.model_input import input_noted
from ..feeding.y_for_outputs import are_pseudo, fields_of
from ..format.encoding import LARGEST, SCALE
from ..format.layout import FEATURES

_PREDICTION = "prediction"
# Sizes of the trial batches. Predictions may differ by some units of float32's precision, by a
# share of the range of values, and by noise.
_TRIED = (1, 63, 192)
TRIED_ROWS = sum(_TRIED)
MAKER = "give the training sequence, whose class makes the model's input, as like="
_ROUNDING, _SHARE, _NOISE = 1e-6, 1e-4, 20

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Columns:
    """The values of a model's outputs that are kept.

    Attributes
    ----------
    names : tuple of str
        Names of the columns.
    parts : tuple of (key, slice)
        For each output, its key in the model's result, or None if the result is the output; and
        the values of a row to keep.
    """

    names: tuple[str, ...]
    parts: tuple[tuple[Any, slice], ...]

    def take(self, outputs: Any, rows: int) -> Floats:
        """Return the kept values of a batch, float32, shape (rows, columns)."""
        kept = []
        for key, places in self.parts:
            values = _rows_of(outputs if key is None else outputs[key], rows)
            kept.append(values[:, places].astype(np.float32))
        return np.concatenate(kept, axis=1)


def input_width(model: Any) -> int | None:
    """Return the number of features that a model takes, or None if unknown, as before building."""
    try:
        shape = model.input_shape
    except (AttributeError, ValueError, RuntimeError):
        return None
    if isinstance(shape, (list, dict)) and len(shape) == 1:
        [shape] = shape.values() if isinstance(shape, dict) else shape
    is_flat = isinstance(shape, tuple) and len(shape) == 2
    return shape[1] if is_flat and isinstance(shape[1], int) else None


def check_width(model: Any, features: int, where: str, remedy: str) -> None:
    """Raise a `FeatureError` if a model takes another number of features."""
    width = input_width(model)
    if width is not None and width != features:
        raise FeatureError(
            f"{where}: found {features:,} features, expected {width:,}, the number that the model "
            f"takes; {remedy}"
        )


def check_flat(model: Any, remedy: str = MAKER) -> None:
    """Raise a `FeatureError` if a model takes x of another form than (rows, features)."""
    try:
        shape = model.input_shape
    except (AttributeError, ValueError, RuntimeError):
        return
    if isinstance(shape, (list, dict)) and len(shape) > 1:
        raise FeatureError(f"model: found {len(shape)} inputs, expected one array; {remedy}")
    if isinstance(shape, tuple) and len(shape) != 2:
        raise FeatureError(
            f"model: found an input of shape {shape}, expected (rows, features); give the model an "
            f"input of two dimensions, and reshape it in the model; or {remedy}"
        )


def check_takes(
    model: Any,
    features: int,
    inputs: Inputs,
    where: str,
    *,
    remedy: str,
    flat_remedy: str = MAKER,
) -> None:
    """Raise a `FeatureError` if a model does not take these features and inputs.

    Parameters
    ----------
    features : int
        Number of features.
    inputs : mapping of str to tuple of str
        Columns of each input besides the features.
    where : str
        Name of the data with these features, for errors.
    remedy : str
        Remedy if the model takes another number of features.
    flat_remedy : str
        Remedy if there are no other inputs, but the model takes more than features.
    """
    if not inputs:
        check_width(model, features, where, remedy)
        check_flat(model, flat_remedy)
        return
    widths = {FEATURES: features, **{name: len(columns) for name, columns in inputs.items()}}
    taken = _widths_by_name(model)
    if taken is None:
        return
    if set(taken) != set(widths):
        raise FeatureError(
            f"{where}: found inputs {', '.join(map(repr, widths))}, expected "
            f"{', '.join(map(repr, taken))}, which the model takes; give its Inputs the names of "
            f"inputs=, and the features keras.Input(({features},), name={FEATURES!r})"
        )
    for name, width in widths.items():
        if taken[name] not in (None, width):
            raise FeatureError(
                f"{where}: found {width:,} columns in input {name!r}, expected {taken[name]:,}, "
                f"which the model takes; {remedy}"
            )


def _widths_by_name(model: Any) -> dict[str, int | None] | None:
    """Return the width of each input of a model by name, or None if unknown."""
    try:
        shapes, inputs = model.input_shape, model.inputs
    except (AttributeError, ValueError, RuntimeError):
        return None
    if isinstance(shapes, dict):
        return {str(name): shape[-1] for name, shape in shapes.items()}
    if isinstance(shapes, list) and len(shapes) == len(inputs):
        names = [
            one.name.partition(":")[0] for one in inputs
        ]  # older versions name it "features:0"
        return {name: shape[-1] for name, shape in zip(names, shapes, strict=True)}
    return {} if isinstance(shapes, tuple) else None


def check_made(model: Any, made_by: str, features: int, dtype: str, remedy: str) -> None:
    """Raise a `FeatureError` if a model fails on rows that were not made by the user's class."""
    try:
        run_batch(model, np.zeros((_batch_rows(model) or 2, features), dtype))
    except Exception as error:
        raise FeatureError(
            f"model: it fails on x of shape (rows, {features:,}); it was trained on batches of "
            f"{made_by}.__getitem__; {remedy}"
        ) from error


def depends_on_batch(model: Any, x: Any) -> bool:
    """Return whether a model's predictions for a row depend on the other rows of its batch.

    The model predicts the same rows in one batch, and in three batches of other sizes. If it fails
    on one of these, the result is True. If its predictions are random, only differences far above
    their noise count.

    Parameters
    ----------
    model : Keras model
    x : array, or a list or dict of arrays
        Rows from `random_rows` or from a batch. If the arrays have different numbers of rows, the
        result is False.
    """
    rows = rows_in(x)
    if not callable(model) or _batch_rows(model) is not None or rows is None or rows < 2:
        return False
    cuts = np.unique(np.clip(np.cumsum([0, *_TRIED]), 0, rows))
    with _unchanged(model):
        try:
            whole, again = _values(model, x, rows), _values(model, x, rows)
            parts = [
                _values(model, _part(x, slice(first, last)), last - first)
                for first, last in itertools.pairwise(cuts.tolist())
            ]
            apart = np.concatenate(parts)
        except Exception:  # for example a model that takes the largest 100 of a batch
            return True
    whole, again, apart = (values[: len(apart)] for values in (whole, again, apart))
    return bool((np.abs(apart - whole) > _tolerance(whole, again)).any())


def random_rows(features: int, dtype: str, inputs: Inputs | None = None) -> Any:
    """Return random x of shape (256, features), or a dict of such arrays if there are inputs."""
    rng = np.random.default_rng(0)
    digits = rng.integers(0, LARGEST + 1, (TRIED_ROWS, features), np.int8)
    x = digits if dtype == "int8" else (digits * SCALE).astype(dtype)
    if not inputs:
        return x
    others = {n: rng.random((TRIED_ROWS, len(one)), np.float32) for n, one in inputs.items()}
    return {FEATURES: x, **others}


def rows_in(x: Any) -> int | None:
    """Return the number of rows of each array of x, or None if it differs or there is no array."""
    found = {len(array) if np.ndim(array) else 0 for array in _arrays_of(x)}
    return next(iter(found)) if len(found) == 1 and found != {0} else None


def _arrays_of(x: Any) -> Iterator[Any]:
    if isinstance(x, (dict, list, tuple)):
        for part in x.values() if isinstance(x, dict) else x:
            yield from _arrays_of(part)
    else:
        yield x


def _part(x: Any, rows: slice) -> Any:
    if isinstance(x, dict):
        return {name: _part(part, rows) for name, part in x.items()}
    if isinstance(x, (list, tuple)):
        parts = [_part(part, rows) for part in x]
        return tuple(parts) if isinstance(x, tuple) else parts
    return x[rows]


def _tolerance(whole: Floats, again: Floats) -> Floats:
    """Return the allowed difference of the values of each column: rounding and noise."""
    whole = whole.astype(np.float64)
    rounding = _ROUNDING * np.abs(whole).max(axis=0)
    noise = np.abs(again - whole).max(axis=0)
    tolerance: Floats = rounding + _SHARE * np.ptp(whole, axis=0) + _NOISE * noise
    return tolerance


@contextmanager
def _unchanged(model: Any) -> Iterator[None]:
    """Restore a model's seeds and statistics afterwards: a call may change them."""
    variables = list(getattr(model, "non_trainable_variables", []))
    before = [_as_array(variable) for variable in variables]
    try:
        yield
    finally:
        for variable, value in zip(variables, before, strict=True):
            if not np.array_equal(_as_array(variable), value, equal_nan=value.dtype.kind == "f"):
                variable.assign(value)


def _batch_rows(model: Any) -> int | None:
    """Return the fixed number of rows in a batch of a model, or None if it is free."""
    try:
        shape = model.input_shape
    except (AttributeError, ValueError, RuntimeError):
        return None
    return shape[0] if isinstance(shape, tuple) and shape else None


def _values(model: Any, x: Any, rows: int) -> Floats:
    """Call a model directly: `predict` would compile again for each batch size."""
    steps_alone = any("predict_step" in vars(kind) for kind in _own_classes(model))
    outputs = run_batch(model, x) if steps_alone else _as_arrays(model(x))
    arrays = [_rows_of(array, rows) for array in _flat(outputs)]
    return np.concatenate(arrays, axis=1, dtype=np.float32)


def _flat(outputs: Any) -> list[Any]:
    if isinstance(outputs, dict):
        return [outputs[name] for name in sorted(outputs)]
    return list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]


def _own_classes(model: Any) -> list[type]:
    """Return the classes of a model that are not Keras's own."""
    classes = type(model).__mro__
    return [kind for kind in classes if kind.__module__.split(".")[0] not in ("keras", "tf_keras")]


def _as_arrays(outputs: Any) -> Any:
    if isinstance(outputs, dict):
        return {name: _as_arrays(output) for name, output in outputs.items()}
    if isinstance(outputs, (list, tuple)):
        return [_as_arrays(output) for output in outputs]
    return _as_array(outputs)


def _as_array(tensor: Any) -> npt.NDArray[Any]:
    value = getattr(tensor, "value", tensor)  # of a variable of Keras 3
    value = value() if callable(value) else value
    # A copy: torch changes its tensors in place.
    return np.array(value.detach().cpu() if hasattr(value, "detach") else value)


def run_batch(model: Any, x: Any) -> Any:
    """Return a model's outputs for x, an array or what the model takes, as NumPy arrays."""
    # Keras 2 cannot run a single batch with a model compiled to run several at a time.
    steps: Any = getattr(model, "steps_per_execution", None)
    if hasattr(steps, "numpy") and steps.numpy() > 1:
        return model.predict(x, batch_size=rows_in(x), verbose=0)
    return model.predict_on_batch(x)


def name_columns(
    model: Any, outputs: Any, output: str | None, *, rows: int | None = None
) -> Columns:
    """Return the columns to keep of a model's outputs, from those of one batch.

    Parameters
    ----------
    outputs
        Result of `run_batch`.
    output : str or None
        Name of one output, or of one column of an output with several values; None for all.
    rows : int, optional
        Rows of the batch; None for the rows of the output.

    Raises
    ------
    ValueError
        There is no such output, two columns have the same name, or an output lacks values for some
        rows.
    """
    named = _name_outputs(model, outputs)
    widths = {name: _rows_of(values, rows).shape[1] for name, (_, values) in named.items()}
    columns = {name: _column_names(name, width) for name, width in widths.items()}
    if output is None or output in named:
        kept = [output] if output is not None else list(named)
        names = [column for name in kept for column in columns[name]]
        parts = [(named[name][0], slice(None)) for name in kept]
    else:
        name, place = _find_column(output, columns)
        names, parts = [output], [(named[name][0], slice(place, place + 1))]
    if len(names) == 1:
        names = [_PREDICTION]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(
            f"model: found two output columns named {twice[0]!r}; give the outputs different names"
        )
    return Columns(tuple(names), tuple(parts))


def _name_outputs(model: Any, outputs: Any) -> dict[str, tuple[Any, Any]]:
    """Return each output by its name, with its key."""
    if isinstance(outputs, dict):
        # JAX sorts them, TensorFlow does not.
        return {str(key): (key, outputs[key]) for key in sorted(outputs)}
    is_one = not isinstance(outputs, (list, tuple))
    arrays = [outputs] if is_one else outputs
    names = getattr(model, "output_names", None) or []
    if len(names) != len(arrays) or len(set(names)) != len(names) or are_pseudo(names):
        names = fields_of(outputs) or input_noted(model).outputs or ()
    if len(names) != len(arrays):
        names = ["output"] if is_one else [f"output_{place}" for place in range(len(arrays))]
    keys = [None] if is_one else range(len(arrays))
    return dict(zip(names, zip(keys, arrays, strict=True), strict=True))


def _column_names(name: str, width: int) -> list[str]:
    return [name] if width == 1 else [f"{name}_{place}" for place in range(width)]


def _find_column(wanted: str, columns: dict[str, list[str]]) -> tuple[str, int]:
    for name, found in columns.items():
        if wanted in found:
            return name, found.index(wanted)
    if not isinstance(wanted, str):
        raise TypeError(
            f"output: found {wanted!r}, expected the name of one output: {', '.join(columns)}"
        )
    known = [*columns, *(column for found in columns.values() for column in found)]
    shown = ", ".join(columns)
    raise ValueError(
        f"output: found {wanted!r}, expected one of {shown}{close_matches(wanted, known)}"
    )


def _rows_of(values: Any, rows: int | None = None) -> npt.NDArray[Any]:
    """Return an output as an array of shape (rows, values).

    A model of whole eras may return them as a batch of one: (1, rows, values).
    """
    if isinstance(values, (list, tuple, dict)):
        raise TypeError(
            "model: found several arrays in one output, expected one array for each output"
        )
    array = np.asarray(values)
    if not array.ndim:
        raise ValueError("model: found a single number, expected one for each row")
    if rows is None or array.shape[:1] == (rows,):
        return array.reshape(len(array), -1)
    if array.shape[:2] == (1, rows):
        return array.reshape(rows, -1)
    raise ValueError(
        f"model: found an output of shape {array.shape} for {rows} rows of x, expected "
        f"({rows}, values) or (1, {rows}, values)"
    )
