"""Rows: copy rows out of the files by their global numbers, and say where in the files they are.

Global row numbers count through the files in their order, and through each file's record batches.
Runs of neighbouring rows are read; single ones are taken out of the maps, at a page fault each.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from ..format.encoding import Bytes
from ..format.layout import FEATURES
from .mapped_file import Mapped
from .paging import Pager, most_mapped

Numbers = npt.NDArray[np.int64]
Values = npt.NDArray[np.float32]

# What a call of the system costs is made up for by runs of this size; shorter ones are taken.
_READ_BYTES = 8 << 10
_CAN_READ = hasattr(os, "preadv") or hasattr(os, "pread")


class Rows:
    """The rows of some shard files. Any number of threads may use it at once.

    Parameters
    ----------
    files : sequence of Mapped
        The shard files, and after them patches.
    sizes : sequence of sequence of int
        The rows of each record batch, shard file by shard file.
    width : int
        Bytes of an encoded row.
    patched : sequence of (str, int, int, int)
        The targets that are in patches: the name, the number of the record batch, and of the patch
        that in `files` and that of the record batch there.

    Attributes
    ----------
    starts : int64 array, shape (record batches + 1,)
        The first row of each record batch, and the number of rows.
    """

    def __init__(
        self,
        files: Sequence[Mapped],
        sizes: Sequence[Sequence[int]],
        width: int,
        patched: Sequence[tuple[str, int, int, int]],
    ) -> None:
        self._files = files
        self._width = width
        self.starts = np.cumsum([0, *(rows for size in sizes for rows in size)], dtype=np.int64)
        # Of each column and record batch: the number of its file, and where its values start in it.
        file_of = np.repeat(np.arange(len(sizes)), [len(size) for size in sizes])
        shards = files[: len(sizes)]
        self._starts_of = {
            name: np.concatenate([file.starts[name] for file in shards])
            for name in (shards[0].starts if shards else ())
        }
        self._file_of = dict.fromkeys(self._starts_of, file_of)  # all of them in the shard files
        for name, batch, file, number in patched:
            if self._file_of[name] is file_of:
                self._file_of[name] = file_of.copy()
            self._file_of[name][batch] = file
            self._starts_of[name][batch] = files[file].starts[name][number]

    @property
    def count(self) -> int:
        return int(self.starts[-1])

    def gather(
        self,
        rows: Numbers,
        targets: Sequence[str],
        *,
        encoded: Bytes | None = None,
        values: Values | None = None,
        pager: Pager | None = None,
    ) -> tuple[Bytes, Values]:
        """Copy rows out of the files; see `ShardSet.gather`."""
        if encoded is None:
            encoded = np.empty((len(rows), self._width), np.uint8)
        if values is None:
            values = np.empty((len(targets), len(rows)), np.float32)
        breaks = self._breaks(rows)
        for batch, start, stop in self.by_batch(rows):
            chosen = rows[start:stop] - self.starts[batch]
            columns: list[tuple[Any, Any]] = [
                (self._target(name, batch), out[start:stop])
                for name, out in zip(targets, values, strict=True)
            ]
            if breaks is None:
                columns.append((self._features(batch), encoded[start:stop]))
            else:
                inner = slice(*np.searchsorted(breaks, (start + 1, stop)))
                self._read(batch, chosen, encoded[start:stop], breaks[inner] - start)
            _take(columns, chosen, pager)
            for number in {self._file(name, batch) for name in (FEATURES, *targets)}:
                self._files[number].check_whole()
        return encoded, values.T

    def _breaks(self, rows: Numbers) -> Numbers | None:
        """Return where runs of neighbouring rows begin, the first one's apart.

        None where they are not worth reading.
        """
        if not _CAN_READ:
            return None
        breaks = np.flatnonzero(np.diff(rows) != 1) + 1
        is_worth = len(rows) * self._width >= (len(breaks) + 1) * _READ_BYTES
        return breaks if is_worth else None

    def _read(self, batch: int, rows: Numbers, out: Bytes, breaks: Numbers) -> None:
        file = self._files[self._file(FEATURES, batch)]
        firsts = [0, *breaks.tolist()]
        starts = (self._start(FEATURES, batch) + rows[firsts] * self._width).tolist()
        for start, (first, last) in zip(starts, pairwise([*firsts, len(rows)]), strict=True):
            file.read_into(start, out[first:last])

    def extents(self, rows: Numbers, targets: Sequence[str]) -> Iterator[tuple[int, Numbers]]:
        """Yield where rows are in the files; see `ShardSet.extents`."""
        for batch, start, stop in self.by_batch(rows):
            chosen = rows[start:stop] - self.starts[batch]
            for name, width in ((FEATURES, self._width), *((name, 4) for name in targets)):
                yield self._file(name, batch), _ranges(chosen, self._start(name, batch), width)

    def by_batch(self, rows: Numbers) -> Iterator[tuple[int, int, int]]:
        """Yield each record batch that holds some of the rows, and which of them."""
        if not len(rows):
            return
        if rows[0] < 0 or rows[-1] >= self.count:
            raise IndexError(f"rows {rows[0]} to {rows[-1]}, but there are {self.count:,}")
        first, last = (np.searchsorted(self.starts, rows[[0, -1]], side="right") - 1).tolist()
        cuts = np.searchsorted(rows, self.starts[first : last + 2])
        for batch in np.flatnonzero(np.diff(cuts)).tolist():
            yield first + batch, int(cuts[batch]), int(cuts[batch + 1])

    def _features(self, batch: int) -> Bytes:
        view: Bytes = self._view(FEATURES, batch, (self._width,), np.uint8)
        return view

    def _target(self, name: str, batch: int) -> Values:
        view: Values = self._view(name, batch, (), np.float32)
        return view

    def _view(self, name: str, batch: int, row_shape: tuple[int, ...], dtype: Any) -> Any:
        rows = int(self.starts[batch + 1] - self.starts[batch])
        file = self._files[self._file(name, batch)]
        return file.view(self._start(name, batch), (rows, *row_shape), dtype)

    def _file(self, name: str, batch: int) -> int:
        return int(self._file_of[name][batch])

    def _start(self, name: str, batch: int) -> int:
        return int(self._starts_of[name][batch])


def _ranges(rows: Numbers, start: int, width: int) -> Numbers:
    """Return bytes of the file as (start, stop); those less than a page apart are joined."""
    starts = start + rows * width
    stops = starts + width
    gaps = np.flatnonzero(starts[1:] - stops[:-1] >= mmap.PAGESIZE)
    ranges = np.empty((len(gaps) + 1, 2), np.int64)
    ranges[:, 0] = starts[np.concatenate([[0], gaps + 1])]
    ranges[:, 1] = stops[np.concatenate([gaps, [-1]])]
    return ranges


def _take(
    columns: Sequence[tuple[npt.NDArray[Any], npt.NDArray[Any]]], rows: Numbers, pager: Pager | None
) -> None:
    """Take rows of a record batch out of its mapped columns, each into an array."""
    width = sum(values.strides[0] for values, _ in columns)
    for first, last in _pieces(rows, width, len(columns), pager):
        for values, out in columns:
            # Without mode="clip" NumPy takes into a buffer of its own first.
            values.take(rows[first:last], axis=0, out=out[first:last], mode="clip")


def _pieces(
    rows: Numbers, width: int, columns: int, pager: Pager | None
) -> Iterator[tuple[int, int]]:
    """Cut rows of a record batch into pieces, and make room for each before it is touched."""
    if pager is None or pager.fits or not columns:
        yield 0, len(rows)
        return
    extent = int(rows[-1] - rows[0] + 1) * width
    apart = max(1, pager.piece_bytes // width)
    cuts = [0, len(rows)]
    if extent > pager.piece_bytes:
        inner = np.searchsorted(
            rows, np.arange(rows[0] + apart, rows[-1] + 1, apart, dtype=np.int64)
        )
        cuts = [0, *np.unique(inner).tolist(), len(rows)]
    for first, last in pairwise(cuts):
        extent = int(rows[last - 1] - rows[first] + 1) * width
        with pager.room(most_mapped(extent, last - first, columns)):
            yield first, last
