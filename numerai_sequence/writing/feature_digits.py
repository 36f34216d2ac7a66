"""Feature digits: a feature column as digits 0 to 4, or an error that names its wrong value."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import SourceError
from ..format.encoding import SCALE, Bytes, to_digits
from .feature_scale import Scale, above_one
from .parquet_reader import Parquet

_DIGITS = "one of 0, 1, 2, 3, 4"
FEATURE_VALUES = f"{_DIGITS} (integers) or 0, .25, .5, .75, 1 (floats)"
_REMEDY = "fix the file, or leave this feature out with features="
_MIDDLE = (
    "fix the file, leave this feature out with features=, or write missing values as the middle"
)


def read_digits(
    file: Parquet, scale: Scale, column: pa.ChunkedArray, name: str, first_row: int
) -> Bytes:
    """Return a column's values as digits, a uint8 array of shape (rows,).

    Parameters
    ----------
    file : Parquet
        File of the column.
    scale : Scale
    column : pyarrow.ChunkedArray
        Numbers.
    name : str
    first_row : int
        Row of the file that the column starts with.

    Raises
    ------
    SourceError
        A value is not a digit. The message names the file, the column and the row.
    """
    if column.null_count:
        row = pc.index(column.is_null(), True).as_py()
        raise _missing(file, "null", name, first_row + row)
    values = column.to_numpy()
    digits, invalid = to_digits(values, is_scaled=scale.is_scaled)
    if invalid is not None:
        raise _wrong(file, scale, values[invalid], name, first_row + invalid)
    return digits


def _wrong(file: Parquet, scale: Scale, found: Any, name: str, row: int) -> SourceError:
    if np.isnan(found):
        return _missing(file, str(found), name, row)
    expected = FEATURE_VALUES
    if not scale.is_scaled and found in (SCALE, 2 * SCALE, 3 * SCALE):
        if scale.group is not None:
            return _two_scales(file, scale, scale.group, f"{found} in column {name!r}, row {row}")
        expected = f"{_DIGITS}, because column {scale.column!r} of this file holds integers"
    return file.error(f"found {found}, expected {expected}; {_REMEDY}", column=name, row=row)


def _missing(file: Parquet, found: str, name: str, row: int) -> SourceError:
    what = f"found {found}, expected {FEATURE_VALUES}; {_MIDDLE} with missing_feature='middle'"
    return file.error(what, column=name, row=row)


def _two_scales(file: Parquet, scale: Scale, group: int, other: str) -> SourceError:
    """Return the error of a file with floats of both scales, at the first float above 1."""
    name = str(scale.column)
    with closing(Parquet(file.path)) as own:  # another thread may be reading the file
        values = own.read([group], [name])[name].to_numpy()
    place = int(np.argmax(above_one(values)))
    row = place + sum(file.group_rows[:group])
    what = f"found {values[place]}, and {other}, expected {FEATURE_VALUES} in the whole file"
    return file.error(f"{what}; {_REMEDY}", column=name, row=row)
