"""Checks: functions that return a valid argument or JSON value, and refuse any other.

They raise a `TypeError` or a `ValueError`. The reader of a JSON document adds the document's path.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Reversible, Set
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

import numpy as np

from .errors import NumeraiSequenceError

# The largest count: an int64, so that no sum of rows and no offset in a file overflows unnoticed.
_LARGEST = 2**63 - 1
# Such as "s3://bucket/file", of which a Path keeps one slash; one letter is a drive of Windows.
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+(.*)", re.DOTALL)
_DRIVE = re.compile(r"[A-Za-z]:/")

_Kind = TypeVar("_Kind")


def is_of(value: Any, kind: type[_Kind]) -> TypeGuard[_Kind]:
    """Say whether a value is an instance of a class, of this or another import of the package.

    A notebook may import the package again while it still holds older objects.
    """
    return isinstance(value, kind) or any(
        one.__qualname__ == kind.__qualname__ and one.__module__ == kind.__module__
        for one in type(value).__mro__
    )


def as_text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"found {short(value)}, expected a string")
    if not value.isascii():
        value.encode()  # half of a letter, which JSON can spell, is a UnicodeError
    return value


def as_count(value: Any) -> int:
    count = as_whole(value)
    if not 0 <= count <= _LARGEST:
        raise TypeError(f"found {short(value)}, expected a whole number from 0 to {_LARGEST}")
    return count


def as_whole(value: Any, name: str = "number") -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}: found {short(value)}, expected a whole number")
    return value


def as_list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"found {short(value)}, expected a list")
    return value


def as_dict(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"found {short(value)}, expected an object with names and values")
    return value


def as_counts(value: Any) -> dict[str, int]:
    counts = as_dict(value)
    for name, count in counts.items():
        as_text(name)
        if not as_count(count):
            raise ValueError(f"{short(name)}: found 0, expected at least 1")
    return counts  # and no copy: a terabyte's set has some 100,000 of these numbers


def as_names(value: Any) -> tuple[str, ...]:
    names = tuple(as_text(name) for name in as_list(value))
    if len(set(names)) != len(names):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise ValueError(f"name {short(twice)} comes twice")
    return names


def share(name: str, value: Any) -> float:
    """Return a number from 0 to 1, of Python, NumPy or pyarrow."""
    number = value.as_py() if hasattr(value, "as_py") else value
    is_number = isinstance(number, (int, float, np.integer, np.floating))
    if not is_number or isinstance(number, bool):
        raise TypeError(f"{name}: found {short(value)}, expected a number from 0 to 1")
    if not 0 <= number <= 1:
        raise ValueError(f"{name}: found {number}, expected a number from 0 to 1")
    return float(number)


def whole_number(name: str, value: Any, *, least: int) -> int:
    """Return an argument that is a whole number, of Python or NumPy, and at least `least`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name}: found {short(value)}, expected a whole number")
    if value < least:
        raise ValueError(f"{name}: found {short(int(value))}, expected at least {least}")
    return int(value)


def file_path(
    name: str,
    value: Any,
    expected: str,
    error: type[NumeraiSequenceError] = NumeraiSequenceError,
) -> Path:
    """Return an argument that is a path; ``~`` becomes the user's folder.

    Raises
    ------
    TypeError
        The argument is not a path.
    error
        The path is empty, or an address such as ``s3://bucket/file``.
    """
    if not isinstance(value, (str, os.PathLike)):
        raise TypeError(f"{name}: found {kind_of(value)}, expected {expected}")
    text = os.fspath(value)
    if not isinstance(text, str):
        raise TypeError(f"{name}: found a path in bytes, expected {expected}")

    def refused(found: str, remedy: str = "") -> NumeraiSequenceError:
        data = {"path": text} if "path" in error.fields else {}
        wanted = expected.split(";")[0]
        return error(f"{name}: found {found}, expected {wanted}{remedy}", **data)

    address = _ADDRESS.fullmatch(text)
    if address and not os.path.lexists(text):
        is_here = address[1].lower() == "file"
        root = "" if _DRIVE.match(address[2]) else "/"
        remedy = f"; give its path, '{root}{address[2]}'"
        if not is_here:
            remedy = "; addresses are not supported: download the file, and give its local path"
        raise refused(f"the address {short(text)}", remedy)
    if not text:
        raise refused("an empty string")
    return Path(os.path.expanduser(text))


def file_paths(
    name: str,
    value: Any,
    expected: str,
    error: type[NumeraiSequenceError] = NumeraiSequenceError,
) -> list[Path]:
    """Return the paths of an argument: one, or several in order. Raises as `file_path` does."""
    if isinstance(value, (str, os.PathLike)):
        return [file_path(name, value, expected, error)]
    # Iterating over a frame gives the names of its columns, and over an open file its lines.
    is_other = any(hasattr(type(value), attribute) for attribute in ("columns", "read"))
    if is_other or isinstance(value, (bytes, Mapping)):
        raise TypeError(f"{name}: found {kind_of(value)}, expected {expected}")
    entries = in_order(name, value, expected)
    for entry in entries:
        if not isinstance(entry, (str, os.PathLike)):
            raise TypeError(f"{name}: found {kind_of(entry)} in a list, expected {expected}")
    return [file_path(name, entry, expected, error) for entry in entries]


def in_order(name: str, value: Any, expected: str) -> list[Any]:
    """Return the entries of an argument that is a collection with an order."""
    if not isinstance(value, Iterable) or getattr(value, "ndim", 1) == 0:
        raise TypeError(f"{name}: found {kind_of(value)}, expected {expected}")
    if isinstance(value, Set) and not isinstance(value, Reversible):  # as a dict's keys are
        raise TypeError(
            f"{name}: found {kind_of(value)}, whose order differs from process to process, "
            f"expected {expected}; pass a list, such as sorted(...)"
        )
    return list(value)


def kind_of(value: object) -> str:
    """Return the type of a value, with its article."""
    kind = type(value).__name__
    return f"an {kind}" if kind[0] in "aeiouAEIOU" else f"a {kind}"


def true_or_false(name: str, value: Any) -> bool:
    """Return an argument that is True or False, of Python or NumPy."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}: found {short(value)}, expected True or False")
    return bool(value)


def one_of(name: str, value: Any, known: tuple[str, ...]) -> str:
    """Return an argument that is one of some words."""
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{name}: found {short(value)}, expected one of {known}")
    return str(value)


def names_in_order(name: str, value: Any) -> tuple[str, ...]:
    """Return an argument that lists names: a list, an array, an Index, a Series, any iterable.

    Raises
    ------
    TypeError
        The argument is not a list of strings, or has no order, such as a set.
    """
    is_single = isinstance(value, (str, bytes, bytearray, Mapping))
    if is_single or getattr(value, "ndim", 1) != 1:
        raise TypeError(f"{name}: found {short(value)}, expected a list of column names")
    names = in_order(name, value, "a list of column names")
    names = [one.as_py() if hasattr(one, "as_py") else one for one in names]  # pyarrow's
    for one in names:
        if not isinstance(one, str):
            raise TypeError(f"{name}: found {short(one)} in the list, expected names of columns")
    return tuple(map(str, names))


def digest(value: Any) -> str:
    """Return the SHA-256 of a JSON value; the order of its mappings counts."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def reason(error: Exception) -> str:
    """Return the problem of a JSON document, from the error that reading it raised."""
    if isinstance(error, KeyError):
        return f"{error} is missing"
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)


def short(value: object) -> str:
    """Return a value as an error shows it: on one line of at most 60 characters."""
    text = " ".join(repr(value).splitlines())
    return text if len(text) <= 60 else f"{text[:57]}..."
