"""Target horizon: find how many trading days a target looks ahead.

Numerai names most targets by their days: ``target_ender_60`` looks 60 trading days ahead. The name
``target`` is an alias, which Numerai has moved from 20-day targets to a 60-day target. Only the
targets with the same values show its horizon.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

#: The name of the alias. The names of all targets begin with it.
TARGET = "target"


class EqualTargets:
    """The targets that equal ``target`` in all rows that were compared.

    Parameters
    ----------
    names : iterable of str
        Columns to compare with ``target``. Columns that are not targets are left out.

    Attributes
    ----------
    names : tuple of str
        Columns that have not differed so far.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.names = tuple(n for n in names if n.startswith(TARGET) and n != TARGET)
        self._has_value = False

    def compare(self, columns: Mapping[str, npt.NDArray[np.float32]]) -> None:
        """Compare some rows, and leave out the names that differ. NaN equals NaN.

        Parameters
        ----------
        columns : dict of str to float32 array, shape (rows,)
            Columns ``target`` and others. A name without a column is not left out.
        """
        target = columns[TARGET]
        self._has_value = self._has_value or not np.isnan(target).all()
        for name in self.names:
            if name in columns and not np.array_equal(target, columns[name], equal_nan=True):
                self.leave_out(name)

    def leave_out(self, name: str) -> None:
        """Leave out a name from further comparisons."""
        self.names = tuple(other for other in self.names if other != name)

    @property
    def found(self) -> tuple[str, ...]:
        """The equal columns; none if no row has a value."""
        return self.names if self._has_value else ()


def days_ahead(name: str, *, alias: Sequence[str] = ()) -> int | None:
    """Return the trading days that a target looks ahead: 20, 60, or None if they are unknown.

    Parameters
    ----------
    name : str
        Name of the target.
    alias : sequence of str
        Targets that ``target`` equals.
    """
    names = alias if name == TARGET else (name,)
    days = {next((d for d in (20, 60) if one.endswith(f"_{d}")), None) for one in names}
    return days.pop() if len(days) == 1 else None


def describe_alias(alias: Sequence[str]) -> str:
    """Return a phrase that says which targets ``target`` equals."""
    return f"{TARGET} equals {' and '.join(alias) or 'no other target of the set'}"


def describe_horizon(targets: Sequence[str], *, alias: Sequence[str] = ()) -> str:
    """Return a phrase with the target whose horizon is unknown or else the longest.

    Parameters
    ----------
    targets : sequence of str
        At least one target.
    alias : sequence of str
        Targets that ``target`` equals.
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
