"""Epoch callback: a callback that tells a `FitCall` the present epoch of ``fit``."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, NamedTuple

from ..batching.epoch import Position
from .fit_call import FitCall
from .output_forms import Form


class Fit(NamedTuple):
    """A call of ``fit`` before it reaches Keras.

    Attributes
    ----------
    model
    sequence : NumeraiSequence
        Sequence for training.
    place : Position
        Epoch and batch with which ``fit`` begins.
    before : int
        Number of earlier epochs of the sequence.
    arguments : mapping
        Arguments of ``fit``, by name.
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
    """Return the `FitCall` of a call of ``fit``, and add its callback to the call's arguments.

    A callback with a method `resumed`, such as `Resume`, decides where training begins. The method
    takes a `Fit`, and returns a context manager around the call. The context manager yields three
    things: the `Position` at which training begins, in epochs of ``fit``; the number of earlier
    epochs of the sequence; and a callback that Keras calls after all others.

    Parameters
    ----------
    arguments : dict
        Arguments of ``fit``, by name.
    forms, options
        See `FitCall`.
    bases : tuple of type
        Base classes of the callback.
    stack : ExitStack
        Stack of the call's context managers.

    Raises
    ------
    ValueError
        Two callbacks have a method `resumed`.
    """
    trained: Any = arguments.get("x")
    if not any(trained is one for one in forms):  # only validated with
        return FitCall(forms, options, model=arguments.get("self"))
    place = Position(arguments.get("initial_epoch") or 0)
    # A sequence that was used continues with its next epoch, unless `initial_epoch` is given.
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
            f"callbacks: found {len(found)} that resume training, expected one; leave one Resume"
        )
    return found


def listed(callbacks: Any) -> list[Any]:
    """Return callbacks as a list, from a callback, lists of them, a CallbackList, or None."""
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
        """A callback that tells a `FitCall` each epoch of ``fit``."""

        def __init__(self, call: FitCall) -> None:
            super().__init__()
            self._call = call

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self._call.begin_epoch(epoch)

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self._call.begin_epoch(epoch + 1)

    return EpochCallback
