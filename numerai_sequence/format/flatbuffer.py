"""Flatbuffer: read what a table of a flatbuffer holds, whatever its bytes are.

Only what Arrow's own tables have: numbers, texts, tables, and vectors of these or of plain structs
(https://flatbuffers.dev/internals/). Nothing is read outside of the bytes given, and nothing is
copied but what is asked for.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt


class Table:
    """A table of a flatbuffer.

    It begins with the distance back to its vtable, which says how far from the table's begin the
    value of each slot is. Vectors, texts and other tables are distances ahead.

    Parameters
    ----------
    data : bytes
        The flatbuffer, and nothing else.
    place : int
        Where in it the table begins.

    Raises
    ------
    ValueError, struct.error
        From here and all methods: something leads out of the flatbuffer.
    """

    def __init__(self, data: bytes, place: int) -> None:
        self._data, self._place = data, place
        self._vtable = place - read_number(data, "<i", place)
        self._slots = (read_number(data, "<H", self._vtable) - 4) // 2

    @classmethod
    def root(cls, data: bytes) -> Table:
        return cls(data, read_number(data, "<I", 0))

    def _find(self, slot: int) -> int | None:
        """Return where a slot's value is; None where it has none."""
        if slot >= self._slots:
            return None
        distance = read_number(self._data, "<H", self._vtable + 4 + 2 * slot)
        return self._place + distance if distance else None

    def _follow(self, place: int) -> int:
        return place + read_number(self._data, "<I", place)

    def has(self, slot: int) -> bool:
        return self._find(slot) is not None

    def number(self, slot: int, kind: str) -> int:
        place = self._find(slot)
        return 0 if place is None else read_number(self._data, kind, place)

    def table(self, slot: int) -> Table:
        place = self._find(slot)
        if place is None:
            raise ValueError("a part of it is not there")
        return Table(self._data, self._follow(place))

    def _vector(self, slot: int, width: int) -> tuple[int, int]:
        """Return where the first entry of a vector is, and how many there are."""
        place = self._find(slot)
        if place is None:
            return 0, 0
        start = self._follow(place)
        count = read_number(self._data, "<I", start)
        if start + 4 + count * width > len(self._data):
            raise ValueError("a list in it leads out of it")
        return start + 4, count

    def count(self, slot: int) -> int:
        return self._vector(slot, 0)[1]

    def tables(self, slot: int) -> Iterator[Table]:
        start, count = self._vector(slot, 4)
        return (Table(self._data, self._follow(start + 4 * number)) for number in range(count))

    def text(self, slot: int) -> bytes:
        start, count = self._vector(slot, 1)
        return self._data[start : start + count]

    def array(self, slot: int, kind: np.dtype[Any], width: int = 0) -> npt.NDArray[Any]:
        """Return a vector's entries of `width` bytes, or of one of the kind, as an array."""
        start, count = self._vector(slot, width or kind.itemsize)
        count = count * (width or kind.itemsize) // kind.itemsize
        return np.frombuffer(self._data, kind, count, start)


def read_number(data: bytes, kind: str, place: int) -> int:
    if place < 0:
        raise ValueError("something lies before its begin")
    value: int = struct.unpack_from(kind, data, place)[0]
    return value
