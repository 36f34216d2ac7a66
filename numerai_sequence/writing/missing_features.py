"""Missing features: feature values that are null or NaN, which become the middle of 0 to 4."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from ..format.encoding import MIDDLE, SCALE
from .feature_scale import Scale
from .source_columns import Source

_Bools = npt.NDArray[np.bool_]
_COLUMNS = 64  # read at a time
_ROWS_PER_CHUNK = 1 << 16


@dataclass(frozen=True)
class Missing:
    """The missing feature values of a file. Its text says how many there are, and where."""

    values: int
    rows: int
    rows_of_file: int
    features: tuple[str, ...]

    def __str__(self) -> str:
        more = f" and {len(self.features) - 1:,} more" if self.features[1:] else ""
        noun = "value" if self.values == 1 else "values"
        of = "feature" if len(self.features) == 1 else "features"
        return (
            f"{self.values:,} missing feature {noun} in {self.rows:,} of {self.rows_of_file:,} "
            f"rows, of {len(self.features):,} {of} ({self.features[0]}{more})"
        )


def find_missing(source: Source, features: Sequence[str]) -> Missing | None:
    """Find the missing values of some features of a file; None if there are none.

    Memory holds a bit more than one byte for each row.
    """
    rows, counts = np.zeros(source.rows, bool), dict.fromkeys(features, 0)
    for chunk in source.chunks(rows=_ROWS_PER_CHUNK):
        for start in range(0, len(features), _COLUMNS):
            first, names = chunk.first_row, features[start : start + _COLUMNS]
            for table in source.file.iterate(chunk.groups, names):
                for name in names:
                    is_missing = _is_missing(table[name])
                    if is_missing is not None:
                        counts[name] += int(is_missing.sum())
                        rows[first : first + len(is_missing)] |= is_missing
                first += table.num_rows
    found = tuple(name for name, count in counts.items() if count)
    if not found:
        return None
    return Missing(sum(counts.values()), int(rows.sum()), source.rows, found)


def fill_missing(
    table: pa.Table, scale: Scale, among: _Bools | None = None
) -> tuple[pa.Table, dict[str, _Bools]]:
    """Replace missing values with the middle, in all rows or only in those of `among`.

    Returns
    -------
    table : pyarrow.Table
    found : dict of str to bool array, shape (rows,)
        For each column with missing values, the rows that lacked one.
    """
    found = {}
    for place, name in enumerate(table.column_names):
        column = table[name]
        is_missing = _is_missing(column)
        if is_missing is not None and among is not None:
            is_missing = is_missing & among
        if is_missing is not None and is_missing.any():
            found[name] = is_missing
            table = table.set_column(place, name, _filled(column, is_missing, scale))
    return table, found


def _is_missing(column: pa.ChunkedArray) -> _Bools | None:
    """Say which rows of a column are null or NaN; None if no row is."""
    is_float = pt.is_floating(column.type)
    if not column.null_count and not is_float:
        return None
    # In an array of floats, a null is NaN.
    is_missing = np.isnan(column.to_numpy()) if is_float else column.is_null().to_numpy()
    return is_missing if is_missing.any() else None


def _filled(column: pa.ChunkedArray, is_missing: _Bools, scale: Scale) -> pa.Array:
    if pt.is_null(column.type):
        return pa.array(np.full(len(column), MIDDLE, np.int8), mask=~is_missing)
    if pt.is_floating(column.type):
        middle = MIDDLE * SCALE if scale.is_scaled else MIDDLE
        values = column.to_numpy()
        return pa.array(np.where(is_missing, values.dtype.type(middle), values))
    return pc.if_else(pa.array(is_missing), pa.scalar(MIDDLE, column.type), column)
