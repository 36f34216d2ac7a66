"""Row reader: copy rows from the files by global row number, and find their place in the files.

Global row numbers count the rows of all files, record batch by record batch. Runs of neighbouring
rows are read from the file. Single rows are copied from the map, with one page fault each.
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
from .mapped_file import MappedFile
from .paging import Pager, most_mapped

Numbers = npt.NDArray[np.int64]
Values = npt.NDArray[np.float32]

# A read call pays off for runs of this many bytes; shorter runs are copied from the map.
_READ_BYTES = 8 << 10
_CAN_READ = hasattr(os, "preadv") or hasattr(os, "pread")


class RowReader:
    """A reader that copies rows from shard files. Several threads may use it at once.

    Parameters
    ----------
    files : sequence of MappedFile
        Shard files, followed by the patches.
    sizes : sequence of sequence of int
        Number of rows of each record batch, by shard file.
    width : int
        Bytes of an encoded row.
    patched : sequence of (str, int, int, int)
        Targets in patches: name, number of the record batch, number of the patch in `files`, and
        number of the record batch in the patch.

    Attributes
    ----------
    starts : int64 array, shape (record batches + 1,)
        First row of each record batch, followed by the number of rows.
    """

    def __init__(
        self,
        files: Sequence[MappedFile],
        sizes: Sequence[Sequence[int]],
        width: int,
        patched: Sequence[tuple[str, int, int, int]],
    ) -> None:
        self._files = files
        self._width = width
        self.starts = np.cumsum([0, *(rows for size in sizes for rows in size)], dtype=np.int64)
        # For each column and record batch: the number of its file, and the start of its values.
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

    def gather(
        self,
        rows: Numbers,
        targets: Sequence[str],
        *,
        encoded: Bytes | None = None,
        values: Values | None = None,
        pager: Pager | None = None,
    ) -> tuple[Bytes, Values]:
        """Copy rows from the files.

        Parameters
        ----------
        rows : int64 array, shape (n,)
            Global row numbers, ascending.
        targets : sequence of str
        encoded : uint8 array, shape (n, row bytes), optional
            Array to fill with the encoded rows.
        values : float32 array, shape (len(targets), n), optional
            Array to fill with the targets.
        pager : Pager, optional
            Pager that makes room for the mapped pages.

        Returns
        -------
        encoded : uint8 array, shape (n, row bytes)
        values : float32 array, shape (n, len(targets))

        Raises
        ------
        IndexError
            A row number is out of range.
        CorruptShardError
            A file was cut off after it was opened, or its disk fails.
        """
        if encoded is None:
            encoded = np.empty((len(rows), self._width), np.uint8)
        if values is None:
            values = np.empty((len(targets), len(rows)), np.float32)
        breaks = self._breaks(rows)
        names, touched = (FEATURES, *targets), set()
        for batch, start, stop in self.by_batch(rows):
            first, end = self.starts[batch : batch + 2].tolist()
            chosen = rows[start:stop] - first
            (file, place), *places = self._locate(batch, names)
            touched.add(file)
            columns = []
            if breaks is None:
                view = file.view(place, (end - first, self._width), np.uint8)
                columns.append((view, encoded[start:stop]))
            else:
                inner = breaks[slice(*np.searchsorted(breaks, (start + 1, stop)))] - start
                self._read(file, place, chosen, encoded[start:stop], inner)
            for (file, place), out in zip(places, values, strict=True):
                touched.add(file)
                columns.append((file.view(place, (end - first,), np.float32), out[start:stop]))
            _take(columns, chosen, pager)
        for file in touched:
            file.check_whole()
        return encoded, values.T

    def _locate(self, batch: int, names: Sequence[str]) -> list[tuple[MappedFile, int]]:
        """Return the file of each column of a record batch, and the start of its values in it."""
        found = []
        for name in names:
            file = self._files[self._file_of[name][batch]]
            found.append((file, int(self._starts_of[name][batch])))
        return found

    def _breaks(self, rows: Numbers) -> Numbers | None:
        """Return the starts of runs of neighbouring rows, except the first run.

        Return None if copying single rows from the map is faster than reading runs.
        """
        if not _CAN_READ:
            return None
        breaks = np.flatnonzero(np.diff(rows) != 1) + 1
        is_worth = len(rows) * self._width >= (len(breaks) + 1) * _READ_BYTES
        return breaks if is_worth else None

    def _read(
        self, file: MappedFile, place: int, rows: Numbers, out: Bytes, breaks: Numbers
    ) -> None:
        firsts = [0, *breaks.tolist()]
        starts = (place + rows[firsts] * self._width).tolist()
        for start, (first, last) in zip(starts, pairwise([*firsts, len(rows)]), strict=True):
            file.read_into(start, out[first:last])

    def extents(self, rows: Numbers, targets: Sequence[str]) -> Iterator[tuple[int, Numbers]]:
        """Yield the places of rows in the files.

        Parameters
        ----------
        rows, targets
            See `gather`.

        Yields
        ------
        number : int
            Number of the file in `ShardSet.files`.
        ranges : int64 array, shape (ranges, 2)
            Start and stop of each range of bytes. Ranges less than a page apart are joined.
        """
        for batch, start, stop in self.by_batch(rows):
            chosen = rows[start:stop] - self.starts[batch]
            for name, width in ((FEATURES, self._width), *((name, 4) for name in targets)):
                start_of = int(self._starts_of[name][batch])
                yield int(self._file_of[name][batch]), _ranges(chosen, start_of, width)

    def by_batch(self, rows: Numbers) -> list[tuple[int, int, int]]:
        """Return the record batches that hold some rows, and the rows in each.

        Returns
        -------
        list of (number of the record batch, start, stop)
            The record batch holds ``rows[start:stop]``.
        """
        if not len(rows):
            return []
        count = int(self.starts[-1])
        if rows[0] < 0 or rows[-1] >= count:
            raise IndexError(f"rows: found {rows[0]} to {rows[-1]}, expected 0 to {count - 1}")
        first, last = (np.searchsorted(self.starts, rows[[0, -1]], side="right") - 1).tolist()
        cuts = np.searchsorted(rows, self.starts[first : last + 2])
        held, bounds = np.flatnonzero(np.diff(cuts)), cuts.tolist()
        return [(first + batch, bounds[batch], bounds[batch + 1]) for batch in held.tolist()]


def _ranges(rows: Numbers, start: int, width: int) -> Numbers:
    """Return ranges of bytes as (start, stop); ranges less than a page apart are joined."""
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
    """Copy rows of a record batch from its mapped columns, each into an array."""
    if pager is None or pager.fits:
        for values, out in columns:
            # Without mode="clip" NumPy copies into a buffer of its own first.
            values.take(rows, axis=0, out=out, mode="clip")
        return
    width = sum([values.strides[0] for values, _ in columns])
    for first, last in _pieces(rows, width, len(columns), pager):
        for values, out in columns:
            values.take(rows[first:last], axis=0, out=out[first:last], mode="clip")


def _pieces(rows: Numbers, width: int, columns: int, pager: Pager) -> Iterator[tuple[int, int]]:
    """Cut rows of a record batch into pieces, and make room for each before it is touched."""
    if not columns:
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
