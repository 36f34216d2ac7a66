"""Flatbuffer: read the tables of a flatbuffer safely, even if its bytes are damaged.

It reads only the types in Arrow's own tables: numbers, texts, tables, and vectors of these or of
plain structs (https://flatbuffers.dev/internals/). It never reads outside of the given bytes, and
copies only the requested values.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt


class Table:
    """A table of a flatbuffer.

    It begins with the distance back to its vtable. The vtable has the offset of each slot's value
    from the beginning of the table. Vectors, texts and other tables are stored as distances ahead.

    Parameters
    ----------
    data : bytes
        The flatbuffer, without other bytes.
    place : int
        Position of the table in it.

    Raises
    ------
    ValueError, struct.error
        An offset points outside of the flatbuffer. All methods may raise these errors.
    """

    def __init__(self, data: bytes, place: int) -> None:
        self._data, self._place = data, place
        self._vtable = place - read_number(data, "<i", place)
        self._slots = (read_number(data, "<H", self._vtable) - 4) // 2

    @classmethod
    def root(cls, data: bytes) -> Table:
        return cls(data, read_number(data, "<I", 0))

    def _find(self, slot: int) -> int | None:
        """Return the position of a slot's value, or None if it has none."""
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
            raise ValueError("a table without one of its parts")
        return Table(self._data, self._follow(place))

    def _vector(self, slot: int, width: int) -> tuple[int, int]:
        """Return the position of a vector's first entry, and the number of entries."""
        place = self._find(slot)
        if place is None:
            return 0, 0
        start = self._follow(place)
        count = read_number(self._data, "<I", start)
        if start + 4 + count * width > len(self._data):
            raise ValueError("a list that ends outside of it")
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
        """Return the entries of a vector, each of `width` bytes or one value, as an array."""
        start, count = self._vector(slot, width or kind.itemsize)
        count = count * (width or kind.itemsize) // kind.itemsize
        return np.frombuffer(self._data, kind, count, start)


def read_number(data: bytes, kind: str, place: int) -> int:
    if place < 0:
        raise ValueError("an offset that points before its beginning")
    value: int = struct.unpack_from(kind, data, place)[0]
    return value
