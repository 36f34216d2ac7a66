"""Beginnings: know a value as the user gave it, though callbacks of a training changed it since.

A model whose training was interrupted may be trained on in the same process: its learning rate is
then the one that a callback has left.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

# Of each object, by the name of a value: as it was given, and as a training left it.
_KNOWN: WeakKeyDictionary[Any, dict[str, tuple[Any, Any]]] = WeakKeyDictionary()


def as_given(holder: Any, name: str, value: Any) -> Any:
    """Return the value as it was given, or this one if somebody has set it since a training."""
    given, left = _KNOWN.get(holder, {}).get(name, (value, value))
    return given if value == left else value


def note_left(holder: Any, name: str, given: Any, left: Any) -> None:
    """Take note of the value that a training leaves, and of the one that it began with."""
    _KNOWN.setdefault(holder, {})[name] = given, left
