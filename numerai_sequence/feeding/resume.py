"""Resume: training that was stopped goes on at the batch that it had come to."""

from __future__ import annotations

import os
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..batching.passes import Place
from ..checks import whole_number
from ..errors import ResumeError
from . import keras_compat
from .identity import identity, order_digest, with_defaults
from .sequence import NumeraiSequence
from .state import WEIGHTS, State, check_same, read_state, write_state

_BASES: Any = keras_compat.callback_bases()


class Resume(*_BASES):  # type: ignore[misc]
    """Saves how far ``fit`` has come, and lets the same call in a new process go on from there.

    ``model.fit(sequence, epochs=10, callbacks=[Resume("state/")])``, run again after it was killed,
    trains the batches that were not trained, in the order in which they would have come. With
    deterministic operations the weights are then those of a run that was never stopped, bit for
    bit. A run that has finished trains nothing more, unless `epochs` is larger.

    The weights are saved with those of the optimizer and the seeds of the layers. Metrics of the
    epoch that was stopped are of its last batches only. What other callbacks have in mind, such as
    the patience of `EarlyStopping`, begins anew.

    Parameters
    ----------
    folder : path
        Is made. It holds ``state.json`` and a file of weights.
    every : int
        After so many batches the state is saved, and at each end of an epoch.

    Raises
    ------
    ResumeError
        From ``fit``: the folder is of another set, choice of rows, seed or batch size; it is
        damaged; or the weights do not fit the model.
    """

    def __init__(self, folder: str | os.PathLike[str], *, every: int = 1000) -> None:
        super().__init__()
        self._folder = Path(folder)
        self._every = whole_number("every", every, least=1)
        self._state: State | None = None
        # What is set when `fit` begins.
        self._sequence: Any = None
        self._identity: dict[str, Any] = {}
        self._first, self._before = Place(0), 0
        # Of the present epoch: which it is, its first batch, and how many were saved as trained.
        self._epoch = self._left_out = self._saved = 0

    def first_place(
        self, sequence: NumeraiSequence, place: Place, before: int, steps_per_epoch: int | None
    ) -> tuple[Place, int]:
        """Return where training begins: where it has stopped, or where it was asked to.

        ``fit`` calls this, before Keras knows of the callback; see `following.follow`.
        """
        if steps_per_epoch is not None:
            raise ValueError(
                f"steps_per_epoch: found {steps_per_epoch}, expected None: Resume counts the "
                "batches of whole epochs"
            )
        self._sequence, self._identity = sequence, identity(sequence)
        self._state = state = read_state(self._folder)
        self._first, self._before = place, before
        if state is not None:
            self._first, self._before = state.place, state.before
            order = self._order(state.place) if not sequence.rank else state.order
            known = replace(state, identity=with_defaults(state.identity))
            check_same(self._folder, known, self._identity, order)
        return self._first, self._before

    def _order(self, place: Place) -> str:
        """Return the SHA-256 of the rows of the batch at a place, as ``fit`` counts epochs."""
        place = Place(self._before + place.epoch, place.batch)
        return order_digest(self._sequence, place)

    def on_train_begin(self, logs: Any = None) -> None:
        if self._state is None:
            return
        path, model = self._folder / self._state.weights, self.model
        try:
            if not model.built:
                model.build((None, len(self._sequence.features)))
            if not getattr(model.optimizer, "built", False):  # Keras 2 sees to it in there
                model.optimizer.build(model.trainable_variables)
            with warnings.catch_warnings():  # with which Keras leaves out an optimizer's variables
                warnings.filterwarnings("error", message="Skipping variable loading")
                model.load_weights(str(path))
            for variable, seed in zip(_seeds(model), self._state.seeds, strict=True):
                variable.assign(seed)
        except Exception as error:
            raise ResumeError(
                f"{path}: cannot be loaded into this model: {error}; make the model as it was, or "
                "remove the folder to begin anew",
                path=path,
            ) from error

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch
        self._left_out = self._first.batch if epoch == self._first.epoch else 0
        self._saved = self._left_out

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        trained = self._left_out + batch + 1
        # After the last one it is saved at the end of the epoch, when it has been validated.
        if trained - self._saved >= self._every and trained < len(self._sequence):
            self._save(Place(self._epoch, trained))
            self._saved = trained

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._save(Place(epoch + 1))

    def _save(self, place: Place) -> None:
        model = self.model
        if self._sequence.rank:
            # One of several processes with the same weights keeps them. But to bring them together
            # takes all: JAX would wait for the others for ever.
            with tempfile.TemporaryDirectory() as folder:
                model.save_weights(str(Path(folder) / f"unused{WEIGHTS}"))
            return
        seeds = [variable.numpy().tolist() for variable in _seeds(model)]
        state = State(self._identity, self._order(place), place, self._before, seeds)
        write_state(self._folder, state, model.save_weights)


def _seeds(model: Any) -> list[Any]:
    """Return the variables of a model that are no weights: the seeds of its layers, in Keras 3."""
    weights = {id(variable) for variable in model.weights}
    return [variable for variable in model.variables if id(variable) not in weights]
