"""Eras: read the names of eras, put them in order of time, and select some of them.

An era is one week, and its number is the number of the week.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..errors import EraError, close_matches

Wanted = Callable[[str], bool | np.bool_] | Iterable[str | int] | slice | str | None

# Python reads no longer numbers than some thousand digits.
_DIGITS = "[0-9]{1,100}"
_NUMBERED = re.compile(rf"(?:era)?({_DIGITS})")
_RANGE = re.compile(rf"(?:(?:era)?({_DIGITS}))? *- *(?:(?:era)?({_DIGITS}))?")
_SLICE = re.compile(rf"(-?{_DIGITS})?:(-?{_DIGITS})?(?::(-?{_DIGITS})?)?")
_GRAMMAR = "'0001', '0001-0574', '0575-', '-0574', '::4' or '1::4', or several separated by commas"


def era_number(era: str) -> int | None:
    """Return the number of an era.

    Parameters
    ----------
    era : str
        As Numerai writes it: ``"0001"``, ``"era1"`` (legacy) or ``"X"`` (live).

    Returns
    -------
    int or None
        None if the era has no number, or one of more than 100 digits.
    """
    match = _NUMBERED.fullmatch(era)
    return int(match.group(1)) if match else None


def spell_era(number: int) -> str:
    """Return the name of an era from its number, as Numerai writes it: 1 is ``"0001"``."""
    return f"{number:04d}"


def sort_eras(eras: Iterable[str]) -> list[str]:
    """Return the eras in order of time; eras without a number are last."""

    def key(era: str) -> tuple[bool, int, str]:
        number = era_number(era)
        return number is None, number or 0, era

    return sorted(eras, key=key)


def era_codes(eras: Any) -> tuple[list[str], npt.NDArray[np.int32]]:
    """Return the distinct eras in order of time, and the place of each row's era among them.

    Parameters
    ----------
    eras : sequence of str, array of str, or pyarrow array, length rows

    Returns
    -------
    names : list of str
    codes : int32 array, shape (rows,)

    Raises
    ------
    EraError
        A row has no era.
    """
    array = eras if isinstance(eras, (pa.Array, pa.ChunkedArray)) else pa.array(eras)
    array = array.cast(pa.string())  # a dictionary may hold eras that no row has
    if array.null_count:
        raise EraError(f"eras: {array.null_count:,} of {len(array):,} rows have no era")
    found, codes = encode_eras(array)
    names = sort_eras(found)
    places = {era: place for place, era in enumerate(names)}
    lookup = np.array([places[era] for era in found], np.int32)
    return names, lookup[codes]


def encode_eras(eras: pa.Array | pa.ChunkedArray) -> tuple[list[str], npt.NDArray[np.int32]]:
    """Return the distinct eras in order of appearance, and the place of each row's era among them.

    Parameters
    ----------
    eras : pyarrow array of strings, without nulls
    """
    chunks = eras if isinstance(eras, pa.ChunkedArray) else pa.chunked_array([eras])
    # Not combined first: one array holds 2 GB of text at most.
    encoded = chunks.dictionary_encode().unify_dictionaries().chunks
    codes = [np.empty(0, np.int32), *(chunk.indices.to_numpy() for chunk in encoded)]
    return encoded[-1].dictionary.to_pylist() if encoded else [], np.concatenate(codes)


def shard_of_era(era: str, num_shards: int) -> int:
    """Return the shard of an era: its number mod `num_shards`, or 0 if it has no number."""
    return (era_number(era) or 0) % num_shards


def choose_eras(wanted: Wanted, known: Iterable[str]) -> list[str]:
    """Return the selected eras among the known ones.

    Parameters
    ----------
    wanted : str, iterable of str or int, slice, function or None
        - None: all.
        - A str: one era (``"0001"``, ``"X"``); a range of numbers with both ends (``"0001-0574"``,
          ``"0575-"``, ``"-0574"``); a slice (``"::4"``, ``"1::4"``); or several of these, separated
          by commas. A range has no eras without a number.
        - An iterable of names or numbers, such as a list, a column or a range.
        - A slice of the known eras in order of time, with eras without a number last:
          ``slice(1, None, 4)``.
        - A function that takes an era and returns a bool. It is called once for each known era.

        A name that is not among the known eras stands for its number: ``"era1"``, ``"1"`` and 1
        stand for ``"0001"``. If several known eras have the number, all are selected.
    known : iterable of str
        Known eras, in any order.

    Returns
    -------
    list of str
        Selected eras in order of time, spelled as in `known`.

    Raises
    ------
    EraError
        An era is unknown or named twice, a part of the str cannot be read, or `wanted` or a part of
        it selects no era.
    TypeError
        `wanted` or an entry of it has another type, or the function does not return a bool.
    """
    known = sort_eras(known)
    if wanted is None:
        return known
    chosen = _chosen(wanted, known)
    return [era for era in known if era in chosen]


def era_name(entry: Any) -> str | int:
    """Return an entry of a list or column of eras as a name or a number.

    Raises
    ------
    TypeError
        It is not a str or whole number of Python, NumPy or pyarrow.
    """
    entry = entry.as_py() if hasattr(entry, "as_py") else entry  # pyarrow's scalars
    if isinstance(entry, str):
        return str(entry)
    if isinstance(entry, bool) or not isinstance(entry, (int, np.integer)):
        raise TypeError(f"eras: found {entry!r}, expected names such as '0001' or whole numbers")
    return int(entry)


def spelled_eras(names: Sequence[Any], known: Iterable[str]) -> list[list[str]]:
    """Return the known eras of each name, number or range of eras.

    Parameters
    ----------
    names : sequence of str or int
        Choices of eras: ``"0001"``, ``"era1"``, 1, ``"0001-0574"``, or several separated by
        commas. See `choose_eras`.
    known : iterable of str

    Raises
    ------
    EraError
        Two names mean the same era.
    TypeError
        A name is not a str or whole number.
    """
    known = sort_eras(known)
    spellings = _spellings(known)
    means: dict[str, Any] = {}
    found = [_meant(era_name(name), known, spellings) for name in names]
    for name, eras in zip(names, found, strict=True):
        for era in eras:
            if era in means:
                raise EraError(
                    f"eras: {means[era]!r} and {name!r} both mean {era!r}; name each era once",
                    eras=[era],
                )
            means[era] = name
    return found


def era_span(eras: Sequence[str]) -> str:
    """Return the number of eras, the first and the last, for a message."""
    ends = f" ({eras[0]} to {eras[-1]})" if eras else ""
    return f"{len(eras):,} {'era' if len(eras) == 1 else 'eras'}{ends}"


def _chosen(wanted: Any, known: list[str]) -> set[str]:
    if isinstance(wanted, str):
        return _read(wanted, known)
    if isinstance(wanted, slice):
        return _some(known[wanted], f"{wanted!r} chooses", known)
    if callable(wanted):
        eras = [era for era in known if _says(wanted, era)]
        return _some(eras, "the function chooses", known)
    if isinstance(wanted, Iterable) and not isinstance(wanted, (bytes, bytearray)):
        names = [era_name(entry) for entry in wanted]
        return _some(_named(names, known), "an empty list chooses", known)
    raise TypeError(
        f"eras: found {wanted!r}, expected a str, a list of names or numbers, a slice, a function "
        "or None"
    )


def _read(text: str, known: list[str]) -> set[str]:
    names: list[str] = []
    chosen: set[str] = set()
    for part in (part.strip() for part in text.split(",")):
        if part in known or (part and not set(part) & set(":-")):
            names.append(part)
        else:
            chosen |= _some(_part(part, known), f"{part!r} chooses", known)
    return chosen | _named(names, known)


def _part(part: str, known: list[str]) -> list[str]:
    """Return the eras of a range or a slice."""
    if (match := _SLICE.fullmatch(part)) and int(match[3] or 1):
        return known[slice(*(int(place) if place else None for place in match.groups()))]
    if (match := _RANGE.fullmatch(part)) and (match[1] or match[2]):
        first = int(match[1] or 0)
        last = int(match[2]) if match[2] else float("inf")
        numbers = ((era, era_number(era)) for era in known)
        return [era for era, number in numbers if number is not None and first <= number <= last]
    raise EraError(f"eras: cannot read {part!r}; expected {_GRAMMAR}", eras=[part])


def _says(function: Callable[[str], Any], era: str) -> bool:
    answer = function(era)
    if not isinstance(answer, (bool, np.bool_)):
        raise TypeError(f"eras: the function returned {answer!r} for {era!r}, expected a bool")
    return bool(answer)


def _some(eras: Iterable[str], what: str, known: list[str]) -> set[str]:
    chosen = set(eras)
    if not chosen:
        raise EraError(f"eras: {what} none of {era_span(known)}; choose at least one", eras=[])
    return chosen


def _named(names: Sequence[str | int], known: list[str]) -> set[str]:
    spellings = _spellings(known)
    found = [spellings.get(name) or spellings.get(_number(name), []) for name in names]
    missing = [name for name, eras in zip(names, found, strict=True) if not eras]
    if missing:
        raise _unknown(missing, known)
    counts = Counter(era for eras in found for era in eras)
    twice = [era for era, count in counts.items() if count > 1]
    if twice:
        raise EraError(f"eras: {twice[0]!r} is named twice; name each era once", eras=twice)
    return set(counts)


def _spellings(known: Iterable[str]) -> dict[str | int, list[str]]:
    """Return the eras that a name or a number means."""
    spellings: dict[str | int, list[str]] = {}
    for era in known:
        spellings[era] = [era]
        if (number := era_number(era)) is not None:
            spellings.setdefault(number, []).append(era)
    return spellings


def _meant(name: str | int, known: list[str], spellings: dict[str | int, list[str]]) -> list[str]:
    eras = spellings.get(name) or spellings.get(_number(name), [])
    if eras or not isinstance(name, str):
        return eras
    if "," in name:
        return [era for part in name.split(",") for era in _meant(part.strip(), known, spellings)]
    return _part(name, known) if _RANGE.fullmatch(name) or _SLICE.fullmatch(name) else []


def _number(name: str | int) -> int:
    """Return the number of a name; -1, which no era has, if the name has none."""
    number = era_number(name) if isinstance(name, str) else name
    return -1 if number is None else number


def _unknown(missing: list[str | int], known: list[str]) -> EraError:
    more = f" and {len(missing) - 1:,} more" if missing[1:] else ""
    return EraError(
        f"eras: {missing[0]!r}{more} not found among {era_span(known)}"
        + _close_eras(missing[0], known),
        eras=missing,
    )


def _close_eras(name: str | int, known: list[str]) -> str:
    """Return the end of a message: which known eras are near in time or in spelling."""
    number = _number(name)
    numbered = [era for era in known if era_number(era) is not None]
    if number < 0 or not numbered:
        close = close_matches(str(name), known)
        return close or f"; expected one of them, or a str such as {_GRAMMAR}"
    nearest = sorted(numbered, key=lambda era: abs(_number(era) - number))[:2]
    return f"; near it {'are' if nearest[1:] else 'is'} {' and '.join(sort_eras(nearest))}"
