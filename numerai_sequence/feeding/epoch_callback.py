"""Epoch callback: tells a `FitCall` which epoch ``fit`` has come to, and where it begins."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, NamedTuple

from ..batching.epoch import Position
from .fit_call import FitCall
from .output_forms import Form


class Fit(NamedTuple):
    """A call of ``fit``, before Keras knows of it.

    Attributes
    ----------
    model
    sequence : NumeraiSequence
        What the model is trained on.
    place : Position
        Where ``fit`` was asked to begin.
    before : int
        Epochs that the sequence has been through before.
    arguments : mapping
        Of ``fit``, by name.
    """

    model: Any
    sequence: Any
    place: Position
    before: int
    arguments: Mapping[str, Any]


def follow(
    arguments: dict[str, Any],
    forms: Mapping[Any, Form],
    options: Mapping[str, Any],
    bases: tuple[type, ...],
    stack: ExitStack,
) -> FitCall:
    """Return the `FitCall` of a call of ``fit``, and change the call's arguments to that end.

    A callback that has a method `resumed`, as `Resume`, decides where training begins. The method
    is given a `Fit`, and returns a context manager around the call. That yields the place where
    training begins, as ``fit`` counts epochs; the epochs that the sequence has been through before;
    and a callback that Keras calls after all others.

    Parameters
    ----------
    arguments : dict
        Of ``fit``, by name.
    forms, options
        As of `FitCall`.
    bases : tuple of type
        What a callback has to inherit from.
    stack : ExitStack
        Of the call.

    Raises
    ------
    ValueError
        Two callbacks would decide where training begins.
    """
    trained: Any = arguments.get("x")
    if not any(trained is one for one in forms):  # only validated with
        return FitCall(forms, options, model=arguments.get("self"))
    place = Position(arguments.get("initial_epoch") or 0)
    # What has been through epochs is not begun anew, unless `fit` is told where it begins.
    before = 0 if place.epoch else trained.epoch
    given: Any = arguments.get("callbacks")
    last = []
    for callback in _resuming(given):
        fit = Fit(arguments.get("self"), trained, place, before, arguments)
        place, before, settling = stack.enter_context(callback.resumed(fit))
        last.append(settling)
    arguments["initial_epoch"] = place.epoch
    call = FitCall(
        forms,
        options,
        model=arguments.get("self"),
        trained=trained,
        first=place,
        before=before,
    )
    last.append(_epoch_callback(bases)(call))
    if hasattr(given, "callbacks"):
        given.callbacks.extend(last)  # old ones do nothing more
    else:
        arguments["callbacks"] = [*listed(given), *last]
    return call


def _resuming(callbacks: Any) -> list[Any]:
    """Return the callback that decides where training begins, if there is one."""
    found = [callback for callback in listed(callbacks) if hasattr(callback, "resumed")]
    if found[1:]:
        raise ValueError(
            f"callbacks: found {len(found)} that decide where training begins, expected one Resume"
        )
    return found


def listed(callbacks: Any) -> list[Any]:
    """Return what Keras takes as callbacks as a list: one, lists of them, a CallbackList, None."""
    if callbacks is None:
        return []
    if isinstance(callbacks, (list, tuple)):
        return [one for part in callbacks for one in listed(part)]
    if hasattr(callbacks, "callbacks"):
        return list(callbacks.callbacks)
    return [callbacks]


@functools.cache
def _epoch_callback(bases: tuple[Any, ...]) -> type:
    class EpochCallback(*bases):  # type: ignore[misc]
        """Tells a `FitCall` of each epoch that ``fit`` comes to."""

        def __init__(self, call: FitCall) -> None:
            super().__init__()
            self._call = call

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self._call.begin_epoch(epoch)

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self._call.begin_epoch(epoch + 1)

    return EpochCallback
