"""Eras: which era comes where."""

from __future__ import annotations

import re
from collections.abc import Iterable

_NUMBERED = re.compile(r"(?:era)?([0-9]+)")


def era_number(era: str) -> int | None:
    """Return the number of an era.

    Parameters
    ----------
    era : str
        As Numerai writes it: ``"0001"``, ``"era1"`` (legacy) or ``"X"`` (live).

    Returns
    -------
    int or None
        None where the era is no number.
    """
    match = _NUMBERED.fullmatch(era)
    return int(match.group(1)) if match else None


def sort_eras(eras: Iterable[str]) -> list[str]:
    """Return the eras in the order of time; those that are no number come last."""

    def key(era: str) -> tuple[bool, int, str]:
        number = era_number(era)
        return number is None, number or 0, era

    return sorted(eras, key=key)


def shard_of_era(era: str, num_shards: int) -> int:
    """Return the shard that holds an era: its number mod `num_shards`, 0 where it is no number."""
    return (era_number(era) or 0) % num_shards
