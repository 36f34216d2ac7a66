"""JSON differences: the first value in which two JSON documents differ, on one line."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

from ..checks import short

# The most characters of a value in a message, and those of a longer text before its difference.
_SHOWN = 120
_BEFORE = 30


class Difference(NamedTuple):
    """A value that differs.

    Attributes
    ----------
    name : str
        Name of the value, such as ``layers[0].activation``.
    found, expected
        The two values; None if a document lacks the value.
    """

    name: str
    found: Any
    expected: Any

    def __str__(self) -> str:
        found, expected = _shown(self.found, self.expected)
        return f"{self.name}: found {found}, but it was {expected}"


def first_difference(found: Any, expected: Any, name: str = "") -> Difference | None:
    """Return the first difference of two JSON values; None if there is none.

    A name that only one of two mappings has counts only if its value is not null.
    """
    if isinstance(found, dict) and isinstance(expected, dict):
        keys = dict.fromkeys([*found, *expected])
        pairs = [(_joined(name, key), found.get(key), expected.get(key)) for key in keys]
        return _first(pairs)
    if _holds_more(found) and _holds_more(expected):
        both = enumerate(itertools.zip_longest(found, expected))
        return _first([(f"{name}[{place}]", *pair) for place, pair in both])
    return None if found == expected else Difference(name, found, expected)


def _first(pairs: list[tuple[str, Any, Any]]) -> Difference | None:
    found = (first_difference(now, then, name) for name, now, then in pairs)
    return next((one for one in found if one is not None), None)


def _joined(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key


def _holds_more(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(one, (dict, list)) for one in value)


def _shown(found: Any, expected: Any) -> tuple[str, str]:
    whole = repr(found), repr(expected)
    if max(map(len, whole)) <= _SHOWN:
        return whole
    if isinstance(found, list) and isinstance(expected, list):
        place = _first_place(found, expected)
        return _item(found, place), _item(expected, place)
    if isinstance(found, str) and isinstance(expected, str):
        start = max(0, _first_place(found, expected) - _BEFORE)
        return _part(found, start), _part(expected, start)
    return short(found), short(expected)


def _first_place(found: Any, expected: Any) -> int:
    pairs = enumerate(zip(found, expected, strict=False))
    ends = min(len(found), len(expected))
    return next((place for place, (one, other) in pairs if one != other), ends)


def _item(values: list[Any], place: int) -> str:
    item = repr(values[place]) if place < len(values) else "missing"
    return f"{len(values):,} values, with {item} at index {place}"


def _part(text: str, start: int) -> str:
    return ("..." if start else "") + repr(text[start : start + _SHOWN])
