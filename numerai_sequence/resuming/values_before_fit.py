"""Values before fit: the values that a user gave, whatever callbacks of a training set since.

An interrupted training may be resumed in the same process. Then the model has the learning rate
that a callback set last.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

# For each object, by the name of a value: the given value, and the value after a training.
_KNOWN: WeakKeyDictionary[Any, dict[str, tuple[Any, Any]]] = WeakKeyDictionary()


def as_given(holder: Any, name: str, value: Any) -> Any:
    """Return the value that the user gave; it is `value` if it has changed since a training."""
    given, left = _KNOWN.get(holder, {}).get(name, (value, value))
    return given if value == left else value


def note_left(holder: Any, name: str, given: Any, left: Any) -> None:
    """Note the value after a training, and the one before it."""
    _KNOWN.setdefault(holder, {})[name] = given, left
