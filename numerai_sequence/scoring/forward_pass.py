"""Forward pass: run models over the batches of a sequence, and collect their predictions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import naming
from ..feeding.sequence import NumeraiSequence
from ..format.layout import FEATURES
from ..reading.memory_budget import batch_share
from ..system.progress import progress_bar
from .model_outputs import (
    TRIED_ROWS,
    Columns,
    Floats,
    depends_on_batch,
    name_columns,
    random_rows,
    run_batch,
)

# Bytes of one batch of x as float32. For 3,555 features, 1,000 and 4,700 rows were slower.
_BATCH_BYTES = 32 << 20

# Called for each batch with the numbers of its rows in the order of the files, x, and the
# predictions.
Watch = Callable[[npt.NDArray[np.int64], npt.NDArray[Any], Floats], None]


def most_rows(features: int, memory_budget: int | str = "auto", kept_bytes: int = 0) -> int:
    """Return the number of rows to predict at a time: at most 32 MB of float32.

    The rows also fit into the memory budget, beside `kept_bytes` of other data.
    """
    return max(1, min(_BATCH_BYTES, batch_share(memory_budget, kept_bytes)) // (4 * features))


@dataclass(frozen=True)
class Fed:
    """A model that predicts the same batches as others.

    Attributes
    ----------
    model : Keras model
    output : str, optional
        Name of one output, or of one column of a wide output; None for all.
    takes : function, optional
        Function from x of a batch to the input of this model; None for x itself.
    name : str, optional
        Name of the model in errors.
    """

    model: Any
    output: str | None = None
    takes: Callable[[Any], Any] | None = None
    name: str | None = None


def predict_rows(
    model: Any,
    sequence: NumeraiSequence,
    *,
    output: str | None = None,
    progress: bool = False,
    places: npt.NDArray[np.int32] | None = None,
    watch: Watch | None = None,
) -> tuple[tuple[str, ...], Floats]:
    """Predict the rows of a sequence with one model. See `predict_several`."""
    [found] = predict_several(
        [Fed(model, output)], sequence, progress=progress, places=places, watch=watch
    )
    return found


def predict_several(
    models: Sequence[Fed],
    sequence: NumeraiSequence,
    *,
    progress: bool = False,
    places: npt.NDArray[np.int32] | None = None,
    watch: Watch | None = None,
) -> list[tuple[tuple[str, ...], Floats]]:
    """Predict the rows of a sequence with several models, batch by batch.

    Memory holds one batch of x, the input and outputs of one model, and the results. A callback may
    call this during ``fit``. It must use its ``self.model``: with JAX, that access copies the
    newest weights into the model.

    Parameters
    ----------
    models : sequence of Fed
    sequence : NumeraiSequence
        Sequence with ``shuffle=False``. Targets are ignored.
    progress : bool
        Whether to show a progress bar on stderr.
    places : int32 array, shape (rows,), optional
        Position of each row's predictions in the result, by the row's number in the order of the
        files. None keeps the order of the files, also if batches are whole eras.
    watch : function, optional
        Function to call with each batch and the predictions of the last model. See `Watch`.

    Returns
    -------
    list of (names, values), one for each model
        ``names`` is a tuple of the column names. ``values`` is a float32 array of shape (rows,
        columns).

    Raises
    ------
    ValueError
        The sequence shuffles or leaves out rows, or a model has no such output.
    """
    if sequence.shuffle or sequence.drop_remainder:
        raise ValueError("sequence: expected shuffle=False and drop_remainder=False")
    kept = [_Kept(fed, sequence.rows) for fed in models]
    one_pass = sequence.one_pass()
    with progress_bar(sequence.rows, "predicting", progress) as bar:
        for number in range(len(one_pass)):
            rows, x = one_pass.rows(number), x_of(one_pass[number])
            for one in kept:
                part = one.add(x, rows if places is None else places[rows])
            if watch is not None:
                watch(rows, x, part)
            bar.update(len(rows))
    return [(one.columns.names if one.columns else (), one.values) for one in kept]


class _Kept:
    """The predictions of one model so far."""

    def __init__(self, fed: Fed, rows: int) -> None:
        self._fed, self._rows = fed, rows
        self.columns: Columns | None = None
        self.values: Floats = np.empty((0, 0), np.float32)

    def add(self, x: Any, places: npt.NDArray[Any]) -> Floats:
        fed = self._fed
        with naming(fed.name):
            x = x if fed.takes is None else fed.takes(x)
            columns, part = _predict_batch(fed.model, x, len(places), self.columns, fed.output)
        if self.columns is None:
            self.columns = columns
            self.values = np.empty((self._rows, len(columns.names)), np.float32)
        self.values[places] = part
        return part


def _predict_batch(
    model: Any, x: Any, rows: int, columns: Columns | None, output: str | None
) -> tuple[Columns, Floats]:
    # Outputs are freed on return: those of an autoencoder are as large as x.
    outputs = run_batch(model, x)
    columns = columns or name_columns(model, outputs, output, rows=rows)
    return columns, columns.take(outputs, rows)


def x_of(batch: Any) -> Any:
    """Return x of a batch: its first entry if the batch is a list or tuple."""
    return batch[0] if isinstance(batch, (list, tuple)) else batch


def features_of(x: Any, sequence: NumeraiSequence) -> Any:
    """Return the features of a batch's x, without its other inputs."""
    return x[FEATURES] if isinstance(x, dict) and sequence.inputs else x


def mixes_rows(model: Any, sequence: NumeraiSequence) -> bool:
    """Return whether the predictions for a row depend on the other rows of its batch."""
    if sequence.made_by is None:
        x = random_rows(len(sequence.features), sequence.dtype, sequence.inputs)
        return depends_on_batch(model, x)
    # Only the user's class knows the input of the model.
    tried = sequence.in_order(TRIED_ROWS)
    return bool(len(tried)) and depends_on_batch(model, x_of(tried.one_pass()[0]))
