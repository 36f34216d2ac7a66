"""Forward: run a model over a sequence's batches, and put what it returns into one array."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ..feeding.sequence import NumeraiSequence
from ..progress import progress_bar
from .models import Columns, Floats, name_columns, run_batch

# Of one batch of x as float32: less and more are slower (of 3,555 features, 1,000 and 4,700 rows).
_BATCH_BYTES = 32 << 20


def most_rows(features: int, *, within_bytes: float = math.inf) -> int:
    """Return how many rows of so many features to predict at a time: 32 MB of float32 at most."""
    return max(1, int(min(_BATCH_BYTES, within_bytes)) // (4 * features))


def predict_rows(
    model: Any,
    sequence: NumeraiSequence,
    *,
    output: str | None = None,
    progress: bool = False,
    places: npt.NDArray[np.int32] | None = None,
    watch: Callable[[int, npt.NDArray[Any], Floats], None] | None = None,
) -> tuple[tuple[str, ...], Floats]:
    """Predict the rows of a sequence, one batch after the other.

    Memory holds one batch of x, one batch of the model's outputs, and what is returned. A callback
    may do this while ``fit`` is at work, with its ``self.model``: asking for that puts JAX's newest
    weights into the model.

    Parameters
    ----------
    model : Keras model
    sequence : NumeraiSequence
        With ``shuffle=False``; targets are not looked at.
    output : str, optional
        The name of one output, or of one column of a wide one; None for all.
    progress : bool
        Show a progress bar on stderr.
    places : int32 array, shape (rows,), optional
        Where each row's predictions go; None for the order of the files.
    watch : function, optional
        Is called for each batch with the number of its first row, x, and the predictions.

    Returns
    -------
    names : tuple of str
        Of the columns.
    values : float32 array, shape (rows, columns)

    Raises
    ------
    ValueError
        The sequence shuffles or leaves out rows, or the model has no such output.
    """
    if sequence.shuffle or sequence.drop_remainder:
        raise ValueError("sequence: expected shuffle=False and drop_remainder=False")
    columns: Columns | None = None
    values: Floats = np.empty((0, 0), np.float32)
    start, rows = 0, sequence.rows
    with progress_bar(rows, "predicting", progress) as bar:
        for x in _batches(sequence):
            columns, part = _predict_batch(model, x, columns, output)
            if not start:
                values = np.empty((rows, len(columns.names)), np.float32)
            stop = start + len(part)
            values[slice(start, stop) if places is None else places[start:stop]] = part
            if watch is not None:
                watch(start, x, part)
            bar.update(len(part))
            start = stop
    return columns.names if columns else (), values


def _predict_batch(
    model: Any, x: npt.NDArray[Any], columns: Columns | None, output: str | None
) -> tuple[Columns, Floats]:
    # The outputs go when this returns: an autoencoder's are as large as x.
    outputs = run_batch(model, x)
    columns = columns or name_columns(model, outputs, output)
    return columns, columns.take(outputs, len(x))


def _batches(sequence: NumeraiSequence) -> Iterator[npt.NDArray[Any]]:
    one_pass = sequence.one_pass()
    for place in range(len(one_pass)):
        batch = one_pass[place]
        yield batch[0] if isinstance(batch, tuple) else batch
