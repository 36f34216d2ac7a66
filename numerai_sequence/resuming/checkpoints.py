"""Checkpoints: bring a model and a sequence to a saved state, and save what they have come to."""

from __future__ import annotations

import tempfile
import warnings
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..batching.epoch import Position
from ..errors import ResumeError
from ..feeding.epoch_callback import Fit
from ..feeding.fit_call import FitCall
from ..feeding.unpacked_models import are_rows
from .model_architecture import (
    describe_compiled,
    describe_model,
    describe_variables,
    live_learning_rate,
    set_learning_rate,
)
from .original_values import as_given, note_left
from .run_identity import describe_weights, order_digest, run_identity, with_defaults
from .training_state import WEIGHTS, State, check_same, read_state, write_state


class Checkpoints:
    """Those of one call of ``fit``.

    Parameters
    ----------
    folder : path
        Of the state. It may hold one, or none.
    fit : Fit

    Attributes
    ----------
    is_resumed : bool
        There is a state.
    first : Position
        Where the call begins, as it counts epochs.
    before : int
        Epochs that the sequence has been through before the first of them.

    Raises
    ------
    ResumeError
        The state is of another training.
    """

    def __init__(self, folder: Path, fit: Fit) -> None:
        self._folder, self._given, self._sequence = folder, fit.model, fit.sequence
        self.first, self.before = fit.place, fit.before
        self._identity = run_identity(fit.sequence, fit.model, fit.arguments)
        if fit.model.built:
            self._describe_layers()
        for name, holder in self._holders():
            if name in self._identity:
                self._identity[name] = as_given(holder, name, self._identity[name])
        self._state = read_state(folder)
        # What was saved last of what callbacks change.
        self._in_force: Any = None
        # Sample weights of the epoch after the one that is resumed, and of that one.
        self._later: Any = None
        if self._state is not None:
            self._begin(self._state)

    @property
    def is_resumed(self) -> bool:
        return self._state is not None

    @property
    def _model(self) -> Any:
        """The model with its variables: while JAX trains, Keras 3 keeps them elsewhere."""
        if hasattr(self._given, "jax_state_sync"):
            self._given.jax_state_sync()
        return self._given

    def _begin(self, state: State) -> None:
        self.first, self.before = state.place, state.before
        self._check(state)
        self._set_weights(state.sample_weight[0])
        self._later = state.sample_weight

    def _check(self, state: State) -> None:
        """Check what is known: the layers of a model that is not yet built are not."""
        order = state.order if self._sequence.rank else self._order(state.place)
        unknown = {name: state.identity.get(name) for name in ("model", "variables")}
        known = replace(state, identity=with_defaults(state.identity))
        check_same(self._folder, known, {**unknown, **self._identity}, order)

    def _describe_layers(self) -> None:
        if "model" not in self._identity:
            self._identity["model"] = describe_model(self._model)
            self._identity["variables"] = describe_variables(self._model)

    def _holders(self) -> list[tuple[str, Any]]:
        """Return what callbacks change, and of which object it is."""
        model = self._model
        return [
            ("optimizer", model.optimizer),
            ("sample_weight", self._sequence),
            ("model", model),
        ]

    def _order(self, place: Position) -> str:
        """Return the SHA-256 of the rows of the batch at a place, as ``fit`` counts epochs."""
        place = Position(self.before + place.epoch, place.batch)
        return order_digest(self._sequence, place)

    def load(self) -> None:
        """Bring the model to the state, if there is one.

        Raises
        ------
        ResumeError
            The state is of other layers, or cannot be loaded.
        """
        if self._state is None:
            return
        path = self._folder / self._state.weights
        try:
            _build(self._model, self._sequence)
        except Exception as error:
            raise _unloadable(path, error) from error
        self._describe_layers()
        self._check(self._state)
        try:
            _load(self._model, path, self._state)
        except Exception as error:
            raise _unloadable(path, error) from error

    def restore_learning_rate(self) -> None:
        """Set the learning rate to the one that was saved, if it is a number."""
        if self._state is not None and self._state.learning_rate is not None:
            set_learning_rate(self._model, self._state.learning_rate)

    def save(self, place: Position) -> None:
        """Save the state, which has come to a place.

        Raises
        ------
        ResumeError
            The sample weights are now made by another function, which cannot be saved.
        OutputError
            The system does not let it be written.
        """
        model = self._model
        self._describe_layers()
        self._in_force = self._changing(place)
        if self._sequence.rank:
            # One of several processes with the same weights keeps them. But to bring them together
            # takes all: JAX would wait for the others for ever.
            with tempfile.TemporaryDirectory() as folder:
                model.save_weights(str(Path(folder) / f"unused{WEIGHTS}"))
            return
        seeds = [variable.numpy().tolist() for variable in _seeds(model)]
        order = self._order(place)
        state = State(self._identity, order, place, self.before, seeds, *self._in_force)
        write_state(self._folder, state, model.save_weights)

    def has_changed(self, place: Position) -> bool:
        """Say whether a callback has changed something since the state of a place was saved."""
        return bool(self._changing(place) != self._in_force)

    def _changing(self, place: Position) -> tuple[float | None, tuple[Any, Any]]:
        """Return the learning rate, and the sample weights of the epoch and of the next one."""
        later = self._savable(self._sequence._targets.weights)
        call = FitCall.present()
        now = self._savable(call.weights) if place.batch and call else later
        return live_learning_rate(self._model), (now, later)

    def _savable(self, weights: Any) -> Any:
        found, given = describe_weights(weights), self._identity["sample_weight"]
        if found == given or found is None or isinstance(found, str) or "eras" in found:
            return found
        raise ResumeError(
            f"{self._folder}: sample_weight: a callback has set the function "
            f"{weights.given()!r}, which Resume cannot save; set a weight for each era, or the "
            "name of a column",
            path=self._folder,
            found=found,
            expected=given,
        )

    def begin_epoch_after(self) -> None:
        """Set the sample weights of the next epoch, now that the resumed one has begun."""
        if self._later is None:
            return
        (now, later), self._later = self._later, None
        if describe_weights(self._sequence._targets.weights) == now:  # and no callback's
            self._set_weights(later)

    def _set_weights(self, wanted: Any) -> None:
        found = describe_weights(self._sequence._targets.weights)
        if found == wanted:
            return
        if isinstance(wanted, dict) and "eras" not in wanted:
            raise ResumeError(
                f"{self._folder}: sample_weight: found other weights than those of a function, "
                "which was set when training stopped; set it again before fit",
                path=self._folder,
                found=found,
                expected=wanted,
            )
        self._sequence.sample_weight = wanted["eras"] if isinstance(wanted, dict) else wanted

    def end(self) -> None:
        """Take note of what the call leaves, so that a later one knows what it began with."""
        with suppress(Exception):  # JAX takes a model's variables with it when a step fails
            left = {
                **describe_compiled(self._model),
                "model": describe_model(self._model),
                "sample_weight": describe_weights(self._sequence._targets.weights),
            }
            for name, holder in self._holders():
                if name in self._identity:
                    note_left(holder, name, self._identity[name], left[name])


def _build(model: Any, sequence: Any) -> None:
    if not model.built:
        model(sequence.zeros(1))
    if not getattr(model.optimizer, "built", False):  # Keras 2 sees to it in there
        model.optimizer.build(model.trainable_variables)


def _load(model: Any, path: Path, state: State) -> None:
    with warnings.catch_warnings():  # with which Keras leaves out an optimizer's variables
        warnings.filterwarnings("error", message="Skipping variable loading")
        model.load_weights(str(path))
    for variable, seed in zip(_seeds(model), state.seeds, strict=True):
        variable.assign(seed)
    if state.learning_rate is not None:  # Keras 2 does not save it
        set_learning_rate(model, state.learning_rate)


def _unloadable(path: Path, error: Exception) -> ResumeError:
    return ResumeError(
        f"{path}: cannot be loaded into this model: {error}; make the model as it was, or "
        "remove the folder to begin anew",
        path=path,
    )


def _seeds(model: Any) -> list[Any]:
    """Return the variables of a model that are no weights: the seeds of its layers, in Keras 3."""
    weights = {id(variable) for variable in model.weights}
    return [
        variable
        for variable in model.variables
        if id(variable) not in weights and not are_rows(variable)
    ]
