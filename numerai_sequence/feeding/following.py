"""Following: a feeding learns which epoch ``fit`` has come to, and where it begins."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from ..batching.passes import Place
from .feeding import Feeding
from .forms import Form


def follow(
    arguments: dict[str, Any],
    forms: Mapping[Any, Form],
    options: Mapping[str, Any],
    bases: tuple[type, ...],
) -> Feeding:
    """Return the feeding of a call of ``fit``, and change the call's arguments to that end.

    A callback that has a method `first_place`, as `Resume`, decides where training begins. It is
    given the sequence, the place that ``fit`` was asked to begin at, how many epochs the sequence
    has been through before, and ``steps_per_epoch``; it returns such a place and number.

    Parameters
    ----------
    arguments : dict
        Of ``fit``, by name.
    forms, options
        As of `Feeding`.
    bases : tuple of type
        What a callback has to inherit from.
    """
    trained: Any = arguments.get("x")
    if not any(trained is one for one in forms):  # only validated with
        return Feeding(forms, options)
    place = Place(arguments.get("initial_epoch") or 0)
    # What has been through epochs is not begun anew, unless `fit` is told where it begins.
    before = 0 if place.epoch else trained.epoch
    given: Any = arguments.get("callbacks")
    for callback in _listed(given):
        if hasattr(callback, "first_place"):
            steps = arguments.get("steps_per_epoch")
            place, before = callback.first_place(trained, place, before, steps)
    arguments["initial_epoch"] = place.epoch
    feeding = Feeding(forms, options, trained=trained, first=place, before=before)
    follower = _follower(bases)(feeding)
    if hasattr(given, "callbacks"):
        given.callbacks.append(follower)  # an old one does nothing more
    else:
        arguments["callbacks"] = [*_listed(given), follower]
    return feeding


def _listed(callbacks: Any) -> list[Any]:
    """Return what Keras takes as callbacks as a list: one, lists of them, a CallbackList, None."""
    if callbacks is None:
        return []
    if isinstance(callbacks, (list, tuple)):
        return [one for part in callbacks for one in _listed(part)]
    if hasattr(callbacks, "callbacks"):
        return list(callbacks.callbacks)
    return [callbacks]


@functools.cache
def _follower(bases: tuple[Any, ...]) -> type:
    class Follower(*bases):  # type: ignore[misc]
        """Tells a feeding of each epoch that ``fit`` comes to."""

        def __init__(self, feeding: Feeding) -> None:
            super().__init__()
            self._feeding = feeding

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self._feeding.begin_epoch(epoch)

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self._feeding.begin_epoch(epoch + 1)

    return Follower
