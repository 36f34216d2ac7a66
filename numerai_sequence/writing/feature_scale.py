"""Feature scale: whether the float features of a Parquet file are 0 to 4, or 0 to 1.

pandas turns a column of whole numbers with missing values into floats. So floats beside integers
are 0 to 4. Floats alone are 0 to 4 if any of them is 2, 3 or 4. The statistics in the file show
this. A file without statistics is read until such a value is found.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.types as pt

from ..errors import SourceError
from .parquet_reader import Parquet

_ABOVE_ONE = (2, 3, 4)
_COLUMNS = 64  # read at a time


@dataclass(frozen=True)
class Scale:
    """The scale of a file's features that are floats.

    Attributes
    ----------
    is_scaled : bool
        True: floats are 0, .25, .5, .75 or 1. False: they are 0, 1, 2, 3 or 4.
    column : str, optional
        A column that shows that floats are not scaled: it holds integers, or a float above 1.
    group : int, optional
        The row group with that float.
    """

    is_scaled: bool
    column: str | None = None
    group: int | None = None


def find_scale(file: Parquet, types: Mapping[str, pa.DataType]) -> Scale:
    """Find the scale of a file that has feature columns of these types.

    Raises
    ------
    SourceError
        The file cannot be read.
    """
    for name, kind in types.items():
        if pt.is_integer(kind):
            return Scale(False, name)
    floats = [name for name, kind in types.items() if pt.is_floating(kind)]
    unknown: list[tuple[int, list[str]]] = []
    for group, largest in _statistics(file, floats):
        for name, value in largest.items():
            if value in _ABOVE_ONE:
                return Scale(False, name, group)
        unknown.append((group, [name for name, value in largest.items() if value is None]))
    for group, names in unknown:
        for start in range(0, len(names), _COLUMNS):
            found = _search(file, group, names[start : start + _COLUMNS])
            if found is not None:
                return Scale(False, found, group)
    return Scale(True)


def above_one(values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Say for each float whether it shows that a file's floats are 0 to 4.

    Any other number above 1 is wrong on both scales, and shows nothing.
    """
    return np.isin(values, _ABOVE_ONE)


def _statistics(
    file: Parquet, names: Sequence[str]
) -> Iterator[tuple[int, dict[str, float | None]]]:
    """Yield each row group's largest value of each column; None if the statistics lack it."""
    if not names:
        return
    metadata, places = file.metadata, dict[str, list[int]]()
    for place in range(metadata.num_columns):
        places.setdefault(metadata.schema.column(place).path, []).append(place)
    for group, rows in enumerate(file.group_rows):
        if rows:
            described = metadata.row_group(group)
            yield group, {name: _largest(described, places.get(name, [])) for name in names}


def _largest(group: Any, places: Sequence[int]) -> float | None:
    if len(places) != 1:  # "a.b" is also the b of a struct a
        return None
    statistics = group.column(places[0]).statistics
    if statistics is None or not statistics.has_min_max:
        return None
    value = statistics.max
    is_known = isinstance(value, (float, np.floating)) and (value <= 1 or value in _ABOVE_ONE)
    return float(value) if is_known else None


def _search(file: Parquet, group: int, names: list[str]) -> str | None:
    """Return a column of a row group that holds a float above 1."""
    names = list(names)
    while names:
        try:
            for table in file.iterate([group], names):
                for name in names:
                    if above_one(table[name].to_numpy()).any():
                        return name
        except SourceError as error:
            # A damaged column may not be chosen. If it is chosen, reading it raises the error.
            if error.column not in names:
                raise
            names.remove(error.column)
        else:
            return None
    return None
