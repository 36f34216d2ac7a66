"""Horizon: turn names of targets, and the targets that ``target`` equals, into days ahead.

Numerai names most targets by their days: ``target_ender_60`` looks 60 trading days ahead. The name
``target`` is an alias, and Numerai has moved it from 20-day targets to a 60-day one. Only the
targets that it equals, value for value, tell how far it looks ahead.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

#: The alias. The names of all targets begin with it.
TARGET = "target"


class EqualTargets:
    """The targets that equal ``target`` in all rows that were compared.

    Parameters
    ----------
    names : iterable of str
        Columns to compare ``target`` with. Columns that are no targets are left out.

    Attributes
    ----------
    names : tuple of str
        Those that have not differed so far.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.names = tuple(n for n in names if n.startswith(TARGET) and n != TARGET)
        self._has_value = False

    def compare(self, columns: Mapping[str, npt.NDArray[np.float32]]) -> None:
        """Compare some rows, and leave out the names that differ. NaN equals NaN.

        Parameters
        ----------
        columns : dict of str to float32 array, shape (rows,)
            ``target`` and others. A name that has no column stays.
        """
        target = columns[TARGET]
        self._has_value = self._has_value or not np.isnan(target).all()
        for name in self.names:
            if name in columns and not np.array_equal(target, columns[name], equal_nan=True):
                self.leave_out(name)

    def leave_out(self, name: str) -> None:
        """Compare with a name no more."""
        self.names = tuple(other for other in self.names if other != name)

    @property
    def found(self) -> tuple[str, ...]:
        """The names that are equal; none where no row has a value, which shows nothing."""
        return self.names if self._has_value else ()


def days_ahead(name: str, *, alias: Sequence[str] = ()) -> int | None:
    """Return how many trading days a target looks ahead: 20, 60, or None where nothing tells.

    Parameters
    ----------
    name : str
    alias : sequence of str
        The targets that ``target`` equals.
    """
    names = alias if name == TARGET else (name,)
    days = {next((d for d in (20, 60) if one.endswith(f"_{d}")), None) for one in names}
    return days.pop() if len(days) == 1 else None


def describe_alias(alias: Sequence[str]) -> str:
    """Say which targets ``target`` equals."""
    return f"{TARGET} equals {' and '.join(alias) or 'no other target of the set'}"


def describe_horizon(targets: Sequence[str], *, alias: Sequence[str] = ()) -> str:
    """Say how far targets look ahead: the one that looks farthest, as far as their names tell.

    Parameters
    ----------
    targets : sequence of str
        At least one.
    alias : sequence of str
        The targets that ``target`` equals.
    """

    def rank(name: str) -> tuple[Any, ...]:
        days = days_ahead(name, alias=alias)
        return days == 20, days == 60, name != TARGET

    name = min(targets, key=rank)
    days, rest = days_ahead(name, alias=alias), ", as are the others" if targets[1:] else ""
    rest = rest if days == 20 else ""
    if name == TARGET:
        kind = f", a {days}-day target" if days else ", so its horizon is unknown"
        return describe_alias(alias) + kind + rest
    return f"{name} is a {days}-day target{rest}" if days else f"the horizon of {name} is unknown"
