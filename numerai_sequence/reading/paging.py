"""Paging: tell the kernel which pages of a shard set are needed, and unmap them in time.

A set that fits into memory is ``resident``: after the first read it stays in the page cache. A
larger set is ``streaming``: the kernel is asked for exactly the pages that the next batches need,
before the first is touched, and reads nothing around them. Mapped pages count as memory of the
process, although the kernel can reclaim them. Above their share of the budget they are unmapped;
they stay in the page cache. Everything works without such advice on platforms that have none.
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
from ..system.fork_safe_locks import ForkSafeLock

# One fault maps a folio: 64 kB on older kernels, up to 2 MB on those with large ones.
_FOLIO_BYTES = 2 << 20
# Bytes to read at a time while a resident set is read into the page cache.
_WARMING_BYTES = 64 << 20
_READ_BYTES = 1 << 20

Ranges = npt.NDArray[np.int64]


class File(Protocol):
    """An open and mapped file."""

    @property
    def path(self) -> Path: ...
    @property
    def map(self) -> mmap.mmap: ...
    @property
    def descriptor(self) -> int: ...


class Pager:
    """A pager that advises the kernel on the files of a set. Several threads may use it at once.

    Parameters
    ----------
    files : sequence of File
    mode : {"resident", "streaming"}
    budget_bytes : int
        Largest size of the mapped pages.
    needed_bytes : int
        Bytes of the files that one epoch reads.
    warms : bool
        Whether to read the whole set once, piece by piece, instead of the pages of each batch.
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
        #: Approximate size of the pieces that threads ask room for, each thread one at a time.
        self.piece_bytes = max(1, budget_bytes // 8)
        self._files = files
        self._warms = warms
        set_bytes = sum(len(file.map) for file in files)
        #: Whether the whole set may be mapped at once.
        self.fits = set_bytes <= budget_bytes
        self._left_to_warm = deque(_pieces(files) if warms else ())
        # A resident set is in the page cache once this many bytes have been asked for.
        self._left_to_read = needed_bytes if mode == "resident" else math.inf
        # Upper bound of the bytes that were mapped since the pages were last unmapped.
        self._mapped = 0
        # Bytes of them that threads are reading now.
        self._in_use = 0
        self._others = _shared_bytes() or 0
        self._lock = ForkSafeLock()
        advice = "RANDOM" if mode == "streaming" else "NORMAL"
        for file in files:
            advise(file.map, f"MADV_{advice}")
            _advise_reads(file, advice, [(0, 0)])

    def warm(self) -> None:
        """Read the next piece of the set into the page cache, if any is left."""
        if self._left_to_warm:
            with suppress(
                IndexError, OSError
            ):  # another thread was faster; a read error shows in the map
                _read(*self._left_to_warm.popleft())

    @property
    def reads_ahead(self) -> bool:
        """Whether the next pages may be missing from the page cache."""
        return bool(self._left_to_warm) if self._warms else self._left_to_read > 0

    def read_ahead(self, ranges: Iterable[tuple[int, Ranges]]) -> None:
        """Ask the kernel to read ranges of bytes in the background, all at once.

        Parameters
        ----------
        ranges : iterable of (number of the file, int64 array of shape (ranges, 2))
            Start and stop of each range, ascending.
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
        """Unmap pages first if `bytes_` more, to be mapped inside, could exceed the budget."""
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
            if shared is not None:  # faults map less than was asked for
                self._mapped = max(0, shared - self._others) + self._in_use
            if shared is None or self._mapped + bytes_ > self.budget_bytes:
                self.let_go()
        self._mapped += bytes_

    def let_go(self) -> None:
        """Unmap all pages from the process. They stay in the page cache."""
        for file in self._files:
            advise(file.map, "MADV_DONTNEED")
        self._mapped = self._in_use
        self._others = _shared_bytes() or 0


def most_mapped(extent_bytes: int, rows: int, columns: int) -> int:
    """Return the most bytes that reading these rows can map, in columns of a record batch."""
    return min(extent_bytes, 2 * rows * columns * _FOLIO_BYTES) + 2 * columns * _FOLIO_BYTES


def _pieces(files: Sequence[File]) -> Iterator[tuple[Path, int, int]]:
    for file in files:
        for start in range(0, len(file.map), _WARMING_BYTES):
            yield file.path, start, min(start + _WARMING_BYTES, len(file.map))


def _read(path: Path, start: int, stop: int) -> None:
    """Read a part of a file to bring it into the page cache.

    A plain read lets the kernel cache large folios, of which one fault maps up to 2 MB.
    MADV_WILLNEED does not.
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
    """Give the kernel advice on a map or a part of it, on systems that support it."""
    option = getattr(mmap, advice, None)
    if option is not None and hasattr(map_, "madvise"):
        with suppress(OSError):  # Linux can be built without this call and the next one
            map_.madvise(option, *extent)


def _advise_reads(file: File, advice: str, extents: Iterable[tuple[int, int]]) -> None:
    """Give the kernel advice on reading parts of a file.

    Each part has a start and a length; length 0 means up to the end of the file. posix_fadvise is
    preferred because other threads run during the call.
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
    """Return the bytes of mapped files in the memory of this process, or None if unknown."""
    with suppress(OSError, ValueError, IndexError):
        descriptor = os.open("/proc/self/statm", os.O_RDONLY)
        try:
            return int(os.read(descriptor, 128).split()[2]) * mmap.PAGESIZE
        finally:
            os.close(descriptor)
    return None
