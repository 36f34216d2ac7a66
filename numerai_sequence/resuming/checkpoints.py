"""Checkpoints: saved states of a training, which restore its model and its sequence."""

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
from ..feeding.models_behind_unpack import are_rows
from .model_architecture import (
    describe_compiled,
    describe_model,
    describe_variables,
    live_learning_rate,
    set_learning_rate,
)
from .run_identity import describe_weights, order_digest, run_identity, with_defaults
from .training_state import WEIGHTS, State, check_same, read_state, write_state
from .values_before_fit import as_given, note_left


class Checkpoints:
    """The checkpoints of one call of ``fit``.

    Parameters
    ----------
    folder : path
        Folder of the state. It may be empty.
    fit : Fit

    Attributes
    ----------
    is_resumed : bool
        Whether the folder has a state.
    first : Position
        The epoch and batch where the call starts, with the call's count of epochs.
    before : int
        Epochs that the sequence had finished before the call's first one.

    Raises
    ------
    ResumeError
        The state belongs to another training.
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
        # The values that callbacks change, as they were saved last.
        self._in_force: Any = None
        # Sample weights of the resumed epoch and of the next one.
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
        """Check what is known so far. The layers of a model are known only when it is built."""
        order = state.order if self._sequence.rank else self._order(state.place)
        unknown = {name: state.identity.get(name) for name in ("model", "variables")}
        known = replace(state, identity=with_defaults(state.identity))
        check_same(self._folder, known, {**unknown, **self._identity}, order)

    def _describe_layers(self) -> None:
        if "model" not in self._identity:
            self._identity["model"] = describe_model(self._model)
            self._identity["variables"] = describe_variables(self._model)

    def _holders(self) -> list[tuple[str, Any]]:
        """Return the names of the values that callbacks change, and the objects that hold them."""
        model = self._model
        return [
            ("optimizer", model.optimizer),
            ("sample_weight", self._sequence),
            ("model", model),
        ]

    def _order(self, place: Position) -> str:
        """Return the SHA-256 of the rows of the batch at a place, in ``fit``'s count of epochs."""
        place = Position(self.before + place.epoch, place.batch)
        return order_digest(self._sequence, place)

    def load(self) -> None:
        """Load the state into the model, if there is one.

        Raises
        ------
        ResumeError
            The state has other layers, or cannot be loaded.
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
        """Set the learning rate to the saved one, if it is a number."""
        if self._state is not None and self._state.learning_rate is not None:
            set_learning_rate(self._model, self._state.learning_rate)

    def save(self, place: Position) -> None:
        """Save the state at a place.

        Raises
        ------
        ResumeError
            The sample weights now come from another function, which cannot be saved.
        OutputError
            The system refuses to write the state.
        """
        model = self._model
        self._describe_layers()
        self._in_force = self._changing(place)
        if self._sequence.rank:
            # Only one of several processes with the same weights keeps them. But all of them must
            # save, because JAX gathers the weights and would wait for the others forever.
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
            f"{weights.given()!r}, which Resume cannot save; let it set a weight for each era, or "
            "the name of a column",
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
                f"{self._folder}: sample_weight: found other weights, expected the function that "
                "was set when training stopped; set it again before fit",
                path=self._folder,
                found=found,
                expected=wanted,
            )
        self._sequence.sample_weight = wanted["eras"] if isinstance(wanted, dict) else wanted

    def end(self) -> None:
        """Note the values at the end of the call, so that a later call knows the original ones."""
        with suppress(Exception):  # JAX deletes a model's variables when a step fails
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
    if not getattr(model.optimizer, "built", False):  # in Keras 2, `build` checks this itself
        model.optimizer.build(model.trainable_variables)


def _load(model: Any, path: Path, state: State) -> None:
    with warnings.catch_warnings():  # Keras only warns when it skips an optimizer's variables
        warnings.filterwarnings("error", message="Skipping variable loading")
        model.load_weights(str(path))
    for variable, seed in zip(_seeds(model), state.seeds, strict=True):
        variable.assign(seed)
    if state.learning_rate is not None:  # Keras 2 does not save it
        set_learning_rate(model, state.learning_rate)


def _unloadable(path: Path, error: Exception) -> ResumeError:
    return ResumeError(
        f"{path}: cannot be loaded into this model: {error}; build the model as before, or "
        "remove the folder to start again",
        path=path,
    )


def _seeds(model: Any) -> list[Any]:
    """Return the variables of a model that are not weights: in Keras 3, its layers' seeds."""
    weights = {id(variable) for variable in model.weights}
    return [
        variable
        for variable in model.variables
        if id(variable) not in weights and not are_rows(variable)
    ]
