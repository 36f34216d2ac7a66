"""Column types: the Arrow types that ids, eras, features and targets may have."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.types as pt

# pandas writes a column of objects that are all None as the type null.
_STRINGS = [pa.string(), pa.large_string(), pa.null()]
if hasattr(pa, "string_view"):
    _STRINGS.append(pa.string_view())  # since pyarrow 16; as polars writes them


def is_string(found: pa.DataType) -> bool:
    if pt.is_dictionary(found):
        return is_string(found.value_type)
    return found in _STRINGS


def is_number(found: pa.DataType) -> bool:
    return bool(pt.is_integer(found) or pt.is_floating(found))


def is_number_or_null(found: pa.DataType) -> bool:
    return is_number(found) or bool(pt.is_null(found))


def is_era(found: pa.DataType) -> bool:
    if pt.is_dictionary(found):
        return is_era(found.value_type)
    return is_string(found) or is_number(found)


def value_bytes(found: pa.DataType) -> int:
    return 1 if pt.is_null(found) else max(1, int(found.bit_width) // 8)
