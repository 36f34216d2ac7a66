"""Models: ask a Keras model how wide its rows are, run it on a batch, and name what it returns.

A model returns one array, a list of them, or a dict: its outputs. An output holds one value a row,
or several. What is kept of a batch are columns: one a value, of all outputs or of the chosen one.
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
# Rows that a model is tried on, by batch. Their values may differ by some units of float32's
# precision, by a share of what there is between the smallest and the largest, and by noise.
_TRIED = (1, 63, 192)
TRIED_ROWS = sum(_TRIED)
MAKER = "give the sequence that it was trained on, whose class makes what it takes, as like="
_ROUNDING, _SHARE, _NOISE = 1e-6, 1e-4, 20

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Columns:
    """Which values of a model's outputs are kept.

    Attributes
    ----------
    names : tuple of str
        One a column.
    parts : tuple of (key, slice)
        For each output: its key in what the model returns, or None where that is the output; and
        which values of a row are kept.
    """

    names: tuple[str, ...]
    parts: tuple[tuple[Any, slice], ...]

    def take(self, outputs: Any, rows: int) -> Floats:
        """Return the kept values of a batch of so many rows, float32, shape (rows, columns)."""
        kept = []
        for key, places in self.parts:
            values = _rows_of(outputs if key is None else outputs[key], rows)
            kept.append(values[:, places].astype(np.float32))
        return np.concatenate(kept, axis=1)


def input_width(model: Any) -> int | None:
    """Return how many features a model takes; None where it does not say, as before it is built."""
    try:
        shape = model.input_shape
    except (AttributeError, ValueError, RuntimeError):
        return None
    if isinstance(shape, (list, dict)) and len(shape) == 1:
        [shape] = shape.values() if isinstance(shape, dict) else shape
    is_flat = isinstance(shape, tuple) and len(shape) == 2
    return shape[1] if is_flat and isinstance(shape[1], int) else None


def check_width(model: Any, features: int, where: str, remedy: str) -> None:
    """Raise a `FeatureError` where a model takes another number of features."""
    width = input_width(model)
    if width is not None and width != features:
        raise FeatureError(
            f"{where}: found {features:,} features, expected {width:,}, which the model takes; "
            f"{remedy}"
        )


def check_flat(model: Any, remedy: str = MAKER) -> None:
    """Raise a `FeatureError` where a model takes x of another form than (rows, features)."""
    try:
        shape = model.input_shape
    except (AttributeError, ValueError, RuntimeError):
        return
    if isinstance(shape, (list, dict)) and len(shape) > 1:
        raise FeatureError(f"model: takes {len(shape)} inputs, expected one array; {remedy}")
    if isinstance(shape, tuple) and len(shape) != 2:
        raise FeatureError(
            f"model: takes x of shape {shape}, expected (rows, features); give the model an input "
            f"of two dimensions, and reshape it in the model; or {remedy}"
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
    """Raise a `FeatureError` where a model takes other features or inputs than it is to be fed.

    Parameters
    ----------
    features : int
        How many.
    inputs : mapping of str to tuple of str
        The columns of each input besides the features.
    where : str
        What has these features, for errors.
    remedy : str
        What to do where the model takes another number of features.
    flat_remedy : str
        What to do where it takes something else than features alone, and there are no inputs.
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
            f"{', '.join(map(repr, taken))}, which the model takes; name its Inputs, and those of "
            f"inputs=, alike: keras.Input(({features},), name={FEATURES!r})"
        )
    for name, width in widths.items():
        if taken[name] not in (None, width):
            raise FeatureError(
                f"{where}: found {width:,} columns in input {name!r}, expected {taken[name]:,}, "
                f"which the model takes; {remedy}"
            )


def _widths_by_name(model: Any) -> dict[str, int | None] | None:
    """Return how wide each input of a model is, by its name; None where it does not say."""
    try:
        shapes, inputs = model.input_shape, model.inputs
    except (AttributeError, ValueError, RuntimeError):
        return None
    if isinstance(shapes, dict):
        return {str(name): shape[-1] for name, shape in shapes.items()}
    if isinstance(shapes, list) and len(shapes) == len(inputs):
        names = [one.name.partition(":")[0] for one in inputs]  # as "features:0" once was
        return {name: shape[-1] for name, shape in zip(names, shapes, strict=True)}
    return {} if isinstance(shapes, tuple) else None


def check_made(model: Any, made_by: str, features: int, dtype: str, remedy: str) -> None:
    """Raise a `FeatureError` where a model fails on rows that no class of the user's own made."""
    try:
        run_batch(model, np.zeros((_batch_rows(model) or 2, features), dtype))
    except Exception as error:
        raise FeatureError(
            f"model: found that it fails on x of shape (rows, {features:,}), expected it to run; "
            f"it was trained on batches that {made_by}.__getitem__ made: {remedy}"
        ) from error


def depends_on_batch(model: Any, x: Any) -> bool:
    """Say whether a model's values of a row depend on which other rows are in its batch.

    It is tried on rows in one batch, and in three of other sizes. A model that fails on one of
    these does depend. Of values that are random themselves, only what is far larger than their own
    noise can be told.

    Parameters
    ----------
    model : Keras model
    x : array, or a list or dict of them
        From `random_rows`, or of a batch. Where an array has not as many rows as the others,
        nothing can be told.
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
        except Exception:  # such as one that takes the largest 100 of a batch
            return True
    whole, again, apart = (values[: len(apart)] for values in (whole, again, apart))
    return bool((np.abs(apart - whole) > _tolerance(whole, again)).any())


def random_rows(features: int, dtype: str, inputs: Inputs | None = None) -> Any:
    """Return x to try a model on: an array of shape (256, features), with inputs a dict."""
    rng = np.random.default_rng(0)
    digits = rng.integers(0, LARGEST + 1, (TRIED_ROWS, features), np.int8)
    x = digits if dtype == "int8" else (digits * SCALE).astype(dtype)
    if not inputs:
        return x
    others = {n: rng.random((TRIED_ROWS, len(one)), np.float32) for n, one in inputs.items()}
    return {FEATURES: x, **others}


def rows_in(x: Any) -> int | None:
    """Return how many rows each array of x has; None where they differ, or there is none."""
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
    """Return by how much the values of each column may differ: by rounding, and by noise."""
    whole = whole.astype(np.float64)
    rounding = _ROUNDING * np.abs(whole).max(axis=0)
    noise = np.abs(again - whole).max(axis=0)
    tolerance: Floats = rounding + _SHARE * np.ptp(whole, axis=0) + _NOISE * noise
    return tolerance


@contextmanager
def _unchanged(model: Any) -> Iterator[None]:
    """Give a model's seeds and statistics their values again, which a call may change."""
    variables = list(getattr(model, "non_trainable_variables", []))
    before = [_as_array(variable) for variable in variables]
    try:
        yield
    finally:
        for variable, value in zip(variables, before, strict=True):
            if not np.array_equal(_as_array(variable), value, equal_nan=value.dtype.kind == "f"):
                variable.assign(value)


def _batch_rows(model: Any) -> int | None:
    """Return how many rows each batch of a model has to have; None where that is free."""
    try:
        shape = model.input_shape
    except (AttributeError, ValueError, RuntimeError):
        return None
    return shape[0] if isinstance(shape, tuple) and shape else None


def _values(model: Any, x: Any, rows: int) -> Floats:
    """Call a model by itself: a batch of another size would be compiled anew."""
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
    # Keras 2, where it was compiled to run several batches at a time, does not run a single one.
    steps: Any = getattr(model, "steps_per_execution", None)
    if hasattr(steps, "numpy") and steps.numpy() > 1:
        return model.predict(x, batch_size=rows_in(x), verbose=0)
    return model.predict_on_batch(x)


def name_columns(
    model: Any, outputs: Any, output: str | None, *, rows: int | None = None
) -> Columns:
    """Decide from a batch's outputs which columns are kept.

    Parameters
    ----------
    outputs
        What `run_batch` returned.
    output : str or None
        The name of one output, or of one column of an output of several values; None for all.
    rows : int, optional
        Of the batch; None for as many as an output has.

    Raises
    ------
    ValueError
        There is no such output, two columns have the same name, or an output has not a value for
        each row.
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
        raise ValueError(f"model: two columns of output would be {twice[0]!r}; name the outputs")
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
            f"output: found {wanted!r}, expected the name of one, as text: {', '.join(columns)}"
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
        raise TypeError("model: found an output of several arrays, expected one array an output")
    array = np.asarray(values)
    if not array.ndim:
        raise ValueError("model: found a single number, expected one a row")
    if rows is None or array.shape[:1] == (rows,):
        return array.reshape(len(array), -1)
    if array.shape[:2] == (1, rows):
        return array.reshape(rows, -1)
    raise ValueError(
        f"model: found {len(array)} rows of output for {rows} rows of x; expected an output of "
        f"shape ({rows}, values) or (1, {rows}, values), found {array.shape}"
    )
