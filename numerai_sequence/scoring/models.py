"""Models: ask a Keras model how wide its rows are, run it on a batch, and name what it returns.

A model returns one array, a list of them, or a dict: its outputs. An output holds one value a row,
or several. What is kept of a batch are columns: one a value, of all outputs or of the chosen one.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import FeatureError, close_matches
from ..format.encoding import LARGEST, SCALE

_PREDICTION = "prediction"
_TRIED_ROWS = 64

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


def check_flat(model: Any) -> None:
    """Raise a `FeatureError` where a model takes x of another form than (rows, features)."""
    try:
        shape = model.input_shape
    except (AttributeError, ValueError, RuntimeError):
        return
    if isinstance(shape, tuple) and len(shape) != 2:
        raise FeatureError(
            f"model: takes x of shape {shape}, expected (rows, features); give the model an input "
            "of two dimensions, and reshape it in the model"
        )


def depends_on_batch(model: Any, features: int, dtype: str) -> bool:
    """Say whether a model's values of a row depend on which other rows are in its batch.

    It is tried on random rows: as a whole and in two halves. Of a model that is random itself
    nothing can be told, and the answer is False.
    """
    if not callable(model) or _batch_rows(model) is not None:
        return False
    digits = np.random.default_rng(0).integers(0, LARGEST + 1, (_TRIED_ROWS, features), np.int8)
    x = digits if dtype == "int8" else (digits * SCALE).astype(dtype)
    whole, again = _values(model, x), _values(model, x)
    half = len(x) // 2
    halves = np.concatenate([_values(model, x[:half]), _values(model, x[half:])])
    tolerance = _tolerance(model) * float(np.nanmax(np.abs(whole), initial=0))
    if not np.allclose(whole, again, rtol=0, atol=tolerance, equal_nan=True):
        return False
    return not np.allclose(whole, halves, rtol=0, atol=tolerance, equal_nan=True)


def _values(model: Any, x: npt.NDArray[Any]) -> Floats:
    """Call a model by itself: a batch of another size would be compiled anew."""
    outputs = _as_arrays(model(x))
    return name_columns(model, outputs, None, rows=len(x)).take(outputs, len(x))


def _as_arrays(outputs: Any) -> Any:
    if isinstance(outputs, dict):
        return {name: _as_arrays(output) for name, output in outputs.items()}
    if isinstance(outputs, (list, tuple)):
        return [_as_arrays(output) for output in outputs]
    return outputs.detach().cpu().numpy() if hasattr(outputs, "detach") else np.asarray(outputs)


def _batch_rows(model: Any) -> int | None:
    """Return how many rows each batch of a model has to have; None where that is free."""
    try:
        shape = model.input_shape
    except (AttributeError, ValueError, RuntimeError):
        return None
    return shape[0] if isinstance(shape, tuple) and shape else None


def _tolerance(model: Any) -> float:
    """Return by what share of the largest value two runs of a model may differ."""
    return 2e-2 if "16" in str(getattr(model, "compute_dtype", "")) else 1e-4


def run_batch(model: Any, x: npt.NDArray[Any]) -> Any:
    """Return a model's outputs for x, shape (rows, features), as NumPy arrays."""
    # Keras 2, where it was compiled to run several batches at a time, does not run a single one.
    steps: Any = getattr(model, "_steps_per_execution", None)
    if hasattr(steps, "numpy") and steps.numpy() > 1:
        return model.predict(x, batch_size=len(x), verbose=0)
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
    if len(names) != len(arrays) or len(set(names)) != len(names):
        names = ["output"] if is_one else [f"output_{place}" for place in range(len(arrays))]
    keys = [None] if is_one else range(len(arrays))
    return dict(zip(names, zip(keys, arrays, strict=True), strict=True))


def _column_names(name: str, width: int) -> list[str]:
    return [name] if width == 1 else [f"{name}_{place}" for place in range(width)]


def _find_column(wanted: str, columns: dict[str, list[str]]) -> tuple[str, int]:
    for name, found in columns.items():
        if wanted in found:
            return name, found.index(wanted)
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
