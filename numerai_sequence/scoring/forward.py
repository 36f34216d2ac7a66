"""Forward: run a model over a sequence's batches, and put what it returns into one array."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ..feeding.sequence import NumeraiSequence
from ..progress import progress_bar
from ..reading.memory import batch_share
from .models import (
    TRIED_ROWS,
    Columns,
    Floats,
    depends_on_batch,
    name_columns,
    random_rows,
    run_batch,
)

# Of one batch of x as float32: less and more are slower (of 3,555 features, 1,000 and 4,700 rows).
_BATCH_BYTES = 32 << 20

# Is called for each batch with the numbers of its rows in the order of the files, x, and the
# predictions.
Watch = Callable[[npt.NDArray[np.int64], npt.NDArray[Any], Floats], None]


def most_rows(features: int, memory_budget: int | str = "auto", kept_bytes: int = 0) -> int:
    """Return how many rows of so many features to predict at a time: 32 MB of float32 at most.

    And no more than a memory budget has room for, besides what is kept.
    """
    return max(1, min(_BATCH_BYTES, batch_share(memory_budget, kept_bytes)) // (4 * features))


def predict_rows(
    model: Any,
    sequence: NumeraiSequence,
    *,
    output: str | None = None,
    progress: bool = False,
    places: npt.NDArray[np.int32] | None = None,
    watch: Watch | None = None,
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
        Where the predictions of each row go, by its number in the order of the files; None for
        that order, also where batches are whole eras.
    watch : function, optional
        Is called with each batch; see `Watch`.

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
    one_pass = sequence.one_pass()
    with progress_bar(sequence.rows, "predicting", progress) as bar:
        for number in range(len(one_pass)):
            rows, x = one_pass.rows(number), x_of(one_pass[number])
            columns, part = _predict_batch(model, x, len(rows), columns, output)
            if not number:
                values = np.empty((sequence.rows, len(columns.names)), np.float32)
            values[rows if places is None else places[rows]] = part
            if watch is not None:
                watch(rows, x, part)
            bar.update(len(part))
    return columns.names if columns else (), values


def _predict_batch(
    model: Any, x: Any, rows: int, columns: Columns | None, output: str | None
) -> tuple[Columns, Floats]:
    # The outputs go when this returns: an autoencoder's are as large as x.
    outputs = run_batch(model, x)
    columns = columns or name_columns(model, outputs, output, rows=rows)
    return columns, columns.take(outputs, rows)


def x_of(batch: Any) -> Any:
    """Return x of a batch: what Keras takes a list or tuple to begin with."""
    return batch[0] if isinstance(batch, (list, tuple)) else batch


def mixes_rows(model: Any, sequence: NumeraiSequence) -> bool:
    """Say whether a model's values of a row depend on the rest of its batch; see `models`."""
    if sequence.made_by is None:
        return depends_on_batch(model, random_rows(len(sequence.features), sequence.dtype))
    # Only its class knows what the model takes.
    tried = sequence.in_order(TRIED_ROWS)
    return bool(len(tried)) and depends_on_batch(model, x_of(tried.one_pass()[0]))
