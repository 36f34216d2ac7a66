"""Paging: tell the kernel which pages of a shard set are needed, and let them go in time.

A set that fits is ``resident``: it is in the page cache once it was read. One that does not is
``streaming``: the kernel shall read what it is told of, and nothing around it. It is told all pages
that some batches need before the first is touched. Pages that are mapped count as the process's
memory, though the kernel takes them back when it needs them; past their share of the budget they
are let go, and stay in the page cache. Where the platform takes no advice, all works without.
"""

from __future__ import annotations

import math
import mmap
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ..system.buffers import scratch_array
from ..system.locks import OwnLock

# One fault maps a folio: 64 kB on older kernels, up to 2 MB on those with large ones.
_FOLIO_BYTES = 2 << 20
# Read at a time while a resident set is being brought into the page cache.
_WARMING_BYTES = 64 << 20
_READ_BYTES = 1 << 20

Ranges = npt.NDArray[np.int64]


class File(Protocol):
    """A file that is open, and mapped."""

    @property
    def path(self) -> Path: ...
    @property
    def map(self) -> mmap.mmap: ...
    @property
    def descriptor(self) -> int: ...


class Pager:
    """Advises the kernel on the files of a set. Any number of threads may use it at once.

    Parameters
    ----------
    files : sequence of File
    mode : {"resident", "streaming"}
    budget_bytes : int
        Of mapped pages.
    needed_bytes : int
        Of the files, for one epoch.
    warms : bool
        Read all of the set once, one piece after the other, instead of what is needed each time.
    """

    def __init__(
        self,
        files: Sequence[File],
        *,
        mode: str,
        budget_bytes: int,
        needed_bytes: float = math.inf,
        warms: bool = False,
    ) -> None:
        self.budget_bytes = budget_bytes
        #: Room is made for pieces of at most about this size: each thread has one at a time.
        self.piece_bytes = max(1, budget_bytes // 8)
        self._files = files
        self._warms = warms
        set_bytes = sum(len(file.map) for file in files)
        #: Whether all of the set may be mapped at once.
        self.fits = set_bytes <= budget_bytes
        self._left_to_warm = deque(_pieces(files) if warms else ())
        # What is needed of a resident set is in the page cache once as much was asked for.
        self._left_to_read = needed_bytes if mode == "resident" else math.inf
        # What may have been mapped since the pages were last let go; never less than really was.
        self._mapped = 0
        # Of it, what threads are at work on.
        self._in_use = 0
        self._others = _shared_bytes() or 0
        self._lock = OwnLock()
        advice = "RANDOM" if mode == "streaming" else "NORMAL"
        for file in files:
            advise(file.map, f"MADV_{advice}")
            _advise_reads(file, advice, [(0, 0)])

    def warm(self) -> None:
        """Read the next piece of the set into the page cache, until all of it was."""
        if self._left_to_warm:
            with suppress(IndexError, OSError):  # another thread was faster; or the map will tell
                _read(*self._left_to_warm.popleft())

    @property
    def reads_ahead(self) -> bool:
        """Whether what will be needed may not be in the page cache."""
        return bool(self._left_to_warm) if self._warms else self._left_to_read > 0

    def read_ahead(self, ranges: Iterable[tuple[int, Ranges]]) -> None:
        """Have the kernel read ranges of bytes, all at once, while this thread goes on.

        Parameters
        ----------
        ranges : iterable of (number of the file, int64 array of shape (ranges, 2))
            Where each range starts and stops, ascending.
        """
        if not self.reads_ahead:
            return
        for number, bounds in ranges:
            lengths = bounds[:, 1] - bounds[:, 0]
            self._left_to_read -= int(lengths.sum())
            extents = zip(bounds[:, 0].tolist(), lengths.tolist(), strict=True)
            _advise_reads(self._files[number], "WILLNEED", extents)

    @contextmanager
    def room(self, bytes_: int) -> Iterator[None]:
        """Let mapped pages go where so many bytes more, mapped meanwhile, might pass the budget."""
        with self._lock:
            self._make_room(bytes_)
            self._in_use += bytes_
        try:
            yield
        finally:
            with self._lock:
                self._in_use -= bytes_

    def _make_room(self, bytes_: int) -> None:
        if self._mapped + bytes_ > self.budget_bytes:
            shared = _shared_bytes()
            if shared is not None:  # what was asked for is more than what faults have mapped
                self._mapped = max(0, shared - self._others) + self._in_use
            if shared is None or self._mapped + bytes_ > self.budget_bytes:
                self.let_go()
        self._mapped += bytes_

    def let_go(self) -> None:
        """Let all mapped pages go from the process; they stay in the page cache."""
        for file in self._files:
            advise(file.map, "MADV_DONTNEED")
        self._mapped = self._in_use
        self._others = _shared_bytes() or 0


def most_mapped(extent_bytes: int, rows: int, columns: int) -> int:
    """Return the most that so many rows can have mapped, of columns that are files' extents."""
    return min(extent_bytes, 2 * rows * columns * _FOLIO_BYTES) + 2 * columns * _FOLIO_BYTES


def _pieces(files: Sequence[File]) -> Iterator[tuple[Path, int, int]]:
    for file in files:
        for start in range(0, len(file.map), _WARMING_BYTES):
            yield file.path, start, min(start + _WARMING_BYTES, len(file.map))


def _read(path: Path, start: int, stop: int) -> None:
    """Read a part of a file for the page cache's sake.

    A plain read, and no MADV_WILLNEED: it makes the kernel cache large folios where it can, and a
    fault then maps up to 2 MB at once.
    """
    buffer = scratch_array("read", 1, _READ_BYTES)
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
        with suppress(OSError):  # Linux can be built without this call and the next one
            map_.madvise(option, *extent)


def _advise_reads(file: File, advice: str, extents: Iterable[tuple[int, int]]) -> None:
    """Give the kernel a piece of advice on reading some extents of a file.

    Each has a start and a length, which is 0 for all from the start on. Of the calls that do this,
    posix_fadvise lets other threads run meanwhile.
    """
    option = getattr(os, f"POSIX_FADV_{advice}", None)
    for start, length in extents:
        if option is not None:
            with suppress(OSError):
                os.posix_fadvise(file.descriptor, start, length, option)
        elif length:
            page = start // mmap.PAGESIZE * mmap.PAGESIZE
            advise(file.map, f"MADV_{advice}", page, start + length - page)


def _shared_bytes() -> int | None:
    """Return the bytes of mapped files in this process's memory; None where nobody says."""
    with suppress(OSError, ValueError, IndexError):
        descriptor = os.open("/proc/self/statm", os.O_RDONLY)
        try:
            return int(os.read(descriptor, 128).split()[2]) * mmap.PAGESIZE
        finally:
            os.close(descriptor)
    return None
