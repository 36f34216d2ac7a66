"""Path partitions: the era and data type in a path such as ``era=0001/part-0.parquet``."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from urllib.parse import unquote

from ..format.layout import META_COLUMNS
from ..ordering.eras import spell_era

_NULL = "__HIVE_DEFAULT_PARTITION__"


def partition_values(path: Path, columns: Collection[str]) -> dict[str, str | None]:
    """Return the era and the data type that the names of a file's folders give.

    A value is left out if the file has a column for it. An era that is a whole number is written as
    Numerai writes it.
    """
    found: dict[str, str | None] = {}
    for part in path.parts[:-1]:
        name, is_one, text = part.partition("=")
        if is_one and name in META_COLUMNS[1:] and name not in columns:
            found[name] = _value(name, unquote(text))
    return found


def _value(name: str, text: str) -> str | None:
    if text == _NULL:
        return None
    if name == "era" and (number := re.fullmatch(r"(\d{1,100})(?:\.0)?", text, re.ASCII)):
        return spell_era(int(number[1]))
    return text
