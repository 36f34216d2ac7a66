"""Forward: run a model over a sequence's batches, and put what it returns into one array."""

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


@dataclass(frozen=True)
class Fed:
    """One of the models that predict the same batches.

    Attributes
    ----------
    model : Keras model
    output : str, optional
        The name of one output, or of one column of a wide one; None for all.
    takes : function, optional
        From x of a batch to what this model takes; None for x itself.
    name : str, optional
        What an error calls the model.
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
    """Predict the rows of a sequence with one model; as of `predict_several`."""
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
    """Predict the rows of a sequence with each of several models, one batch after the other.

    Memory holds one batch of x, what one model takes of it, its outputs, and what is returned. A
    callback may do this while ``fit`` is at work, with its ``self.model``: asking for that puts
    JAX's newest weights into the model.

    Parameters
    ----------
    models : sequence of Fed
    sequence : NumeraiSequence
        With ``shuffle=False``; targets are not looked at.
    progress : bool
        Show a progress bar on stderr.
    places : int32 array, shape (rows,), optional
        Where the predictions of each row go, by its number in the order of the files; None for
        that order, also where batches are whole eras.
    watch : function, optional
        Is called with each batch, and what the last model predicts; see `Watch`.

    Returns
    -------
    list of (names, values), one a model
        ``names`` are those of the columns, a tuple of str; ``values`` a float32 array of shape
        (rows, columns).

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
    """What one model has predicted so far."""

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
    # The outputs go when this returns: an autoencoder's are as large as x.
    outputs = run_batch(model, x)
    columns = columns or name_columns(model, outputs, output, rows=rows)
    return columns, columns.take(outputs, rows)


def x_of(batch: Any) -> Any:
    """Return x of a batch: what Keras takes a list or tuple to begin with."""
    return batch[0] if isinstance(batch, (list, tuple)) else batch


def features_of(x: Any, sequence: NumeraiSequence) -> Any:
    """Return the features of x of a batch, where x has other inputs, too."""
    return x[FEATURES] if isinstance(x, dict) and sequence.inputs else x


def mixes_rows(model: Any, sequence: NumeraiSequence) -> bool:
    """Say whether a model's values of a row depend on the rest of its batch; see `models`."""
    if sequence.made_by is None:
        x = random_rows(len(sequence.features), sequence.dtype, sequence.inputs)
        return depends_on_batch(model, x)
    # Only its class knows what the model takes.
    tried = sequence.in_order(TRIED_ROWS)
    return bool(len(tried)) and depends_on_batch(model, x_of(tried.one_pass()[0]))
