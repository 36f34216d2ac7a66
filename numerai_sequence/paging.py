"""Paging: tell the kernel which pages of a shard set are needed, and let them go in time.

A set that fits is ``resident``: it is in the page cache once it was read. One that does not is
``streaming``: the kernel shall read what it is told of, and nothing around it. It is told all pages
that some batches need before the first is touched. Pages that are mapped count as the process's
memory, though the kernel takes them back when it needs them; past their share of the budget they
are let go, and stay in the page cache. Where the platform takes no advice, all works without.
"""

from __future__ import annotations

import mmap
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .buffers import borrow

# One fault maps a folio: 64 kB on older kernels, up to 2 MB on those with large ones.
_FOLIO_BYTES = 2 << 20
# Read at a time while a resident set is being brought into the page cache.
_WARMING_BYTES = 64 << 20
_READ_BYTES = 1 << 20

Ranges = npt.NDArray[np.int64]


class Pager:
    """Advises the kernel on the maps of a set. Any number of threads may use it at once.

    Parameters
    ----------
    files : sequence of (path, mmap)
    mode : {"resident", "streaming"}
    budget_bytes : int
        Of mapped pages.
    warms : bool
        Read all of the set once, one piece after the other, instead of what is needed each time.
    """

    def __init__(
        self,
        files: Sequence[tuple[Path, mmap.mmap]],
        *,
        mode: str,
        budget_bytes: int,
        warms: bool = False,
    ) -> None:
        self.budget_bytes = budget_bytes
        #: Room is made for pieces of at most about this size.
        self.piece_bytes = max(1, budget_bytes // 4)
        self._maps = [map_ for _, map_ in files]
        self._warms = warms
        #: Whether all of the set may be mapped at once.
        self.fits = sum(map(len, self._maps)) <= budget_bytes
        self._left_to_warm = deque(_pieces(files) if warms else ())
        # What may have been mapped since the pages were last let go; never less than really was.
        self._mapped = 0
        self._others = _shared_bytes() or 0
        for map_ in self._maps:
            advise(map_, "MADV_RANDOM" if mode == "streaming" else "MADV_NORMAL")

    def warm(self) -> None:
        """Read the next piece of the set into the page cache, until all of it was."""
        if self._left_to_warm:
            with suppress(IndexError, OSError):  # another thread was faster; or the map will tell
                _read(*self._left_to_warm.popleft())

    @property
    def reads_ahead(self) -> bool:
        """Whether what will be needed may not be in the page cache."""
        return not self._warms or bool(self._left_to_warm)

    def read_ahead(self, ranges: Iterable[tuple[int, Ranges]]) -> None:
        """Have the kernel read ranges of bytes, all at once, while this thread goes on.

        Parameters
        ----------
        ranges : iterable of (number of the map, int64 array of shape (ranges, 2))
            Where each range starts and stops, ascending.
        """
        if not self.reads_ahead:
            return
        for number, bounds in ranges:
            map_, page = self._maps[number], mmap.PAGESIZE
            starts = bounds[:, 0] // page * page
            for start, stop in zip(starts.tolist(), bounds[:, 1].tolist(), strict=True):
                advise(map_, "MADV_WILLNEED", start, stop - start)

    def make_room(self, bytes_: int) -> None:
        """Let mapped pages go where so many bytes more might pass the budget."""
        if self.fits:
            return
        if self._mapped + bytes_ > self.budget_bytes:
            shared = _shared_bytes()
            if shared is not None:  # what was asked for is more than what faults have mapped
                self._mapped = max(0, shared - self._others)
            if shared is None or self._mapped + bytes_ > self.budget_bytes:
                self.let_go()
        self._mapped += bytes_

    def let_go(self) -> None:
        """Let all mapped pages go from the process; they stay in the page cache."""
        for map_ in self._maps:
            advise(map_, "MADV_DONTNEED")
        self._mapped = 0
        self._others = _shared_bytes() or 0


def most_mapped(extent_bytes: int, rows: int) -> int:
    """Return the most that so many rows, spread over an extent of a file, can have mapped."""
    return min(extent_bytes, 2 * rows * _FOLIO_BYTES) + 2 * _FOLIO_BYTES


def _pieces(files: Sequence[tuple[Path, mmap.mmap]]) -> Iterator[tuple[Path, int, int]]:
    for path, map_ in files:
        for start in range(0, len(map_), _WARMING_BYTES):
            yield path, start, min(start + _WARMING_BYTES, len(map_))


def _read(path: Path, start: int, stop: int) -> None:
    """Read a part of a file for the page cache's sake.

    A plain read, and no MADV_WILLNEED: it makes the kernel cache large folios where it can, and a
    fault then maps up to 2 MB at once.
    """
    buffer = borrow("read", 1, _READ_BYTES)
    with open(path, "rb", buffering=0) as file:
        file.seek(start)
        while start < stop:
            count = file.readinto(memoryview(buffer[0])[: stop - start])
            if not count:
                return
            start += count


def advise(map_: mmap.mmap, advice: str, *extent: int) -> None:
    """Give the kernel a piece of advice on a map, or on an extent of it, if it takes any."""
    option = getattr(mmap, advice, None)
    if option is not None and hasattr(map_, "madvise"):
        map_.madvise(option, *extent)


def _shared_bytes() -> int | None:
    """Return the bytes of mapped files in this process's memory; None where nobody says."""
    try:
        descriptor = os.open("/proc/self/statm", os.O_RDONLY)
    except OSError:
        return None
    try:
        return int(os.read(descriptor, 128).split()[2]) * mmap.PAGESIZE
    finally:
        os.close(descriptor)
