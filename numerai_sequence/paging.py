"""Paging: say whether a shard set fits into memory, and tell the kernel which pages come and go.

A set that fits is ``resident``: it is in the page cache once it was read. One that does not is
``streaming``: the kernel shall read what it is told of, and nothing around it. It is told all pages
that some batches need before the first is touched. Pages that are mapped count as the process's
memory, though the kernel takes them back when it needs them; past their share of the budget they
are let go, and stay in the page cache. Where the platform takes no advice, all works without.
"""

from __future__ import annotations

import mmap
import os
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .buffers import borrow

MODES = ("resident", "streaming")

# A set is resident when it takes no more than this of the memory available: what else the process
# will need is not known yet.
_RESIDENT_SHARE = 0.75
# Mapped pages at the same time, where nobody says how many.
_MAPPED_BYTES = 96 << 20
_LEAST_MAPPED_BYTES = 16 << 20
_LEAST_BUFFERS = 2
# Of the memory available, the most that is taken where nobody says how much.
_AUTO_SHARE = 0.5
# One fault maps a folio: 64 kB on older kernels, up to 2 MB on those with large ones.
_FOLIO_BYTES = 2 << 20
# Read at a time while a resident set is being brought into the page cache.
_WARMING_BYTES = 64 << 20
_READ_BYTES = 1 << 20

Ranges = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Paging:
    """How a set's pages are treated, and why.

    Attributes
    ----------
    mode : {"resident", "streaming"}
    reason : str
        What it was decided from.
    """

    mode: str
    reason: str


def decide(set_bytes: int, mode: str = "auto") -> Paging:
    """Decide whether a set of so many bytes is resident or streaming; a mode given is taken."""
    if mode in MODES:
        return Paging(mode, "as asked for")
    if mode != "auto":
        raise ValueError(f"paging: found {mode!r}, expected 'auto' or one of {MODES}")
    available = available_memory()
    if available is None:
        return Paging("resident", "how much memory is available is not known here")
    fits = set_bytes <= _RESIDENT_SHARE * available
    return Paging(
        "resident" if fits else "streaming",
        f"{_megabytes(set_bytes)} of files, {_megabytes(available)} of memory available",
    )


@dataclass(frozen=True)
class Budget:
    """How the memory that a sequence may keep is divided.

    Attributes
    ----------
    mapped : int
        Bytes of mapped pages.
    buffers : int
        Batches whose memory is kept for the next ones.
    holds_groups : bool
        Whether there is room for groups of batches that are fetched together.
    """

    mapped: int
    buffers: int
    holds_groups: bool


def divide_budget(
    budget: int | str, *, order_bytes: int, group_bytes: int, batch_bytes: int, buffers: int
) -> Budget:
    """Divide a memory budget.

    Parameters
    ----------
    budget : int or str
        Bytes, a size such as "512MB", or "auto": 96 MiB of mapped pages besides the rest, and less
        where memory is short.
    order_bytes : int
        Of the row orders that are kept, of two epochs.
    group_bytes : int
        Of the groups that are kept, encoded.
    batch_bytes : int
        Of one batch.
    buffers : int
        Batches that a consumer holds at a time.

    Raises
    ------
    ValueError
        The budget is no size, or too small.
    """
    least = _LEAST_BUFFERS * batch_bytes
    needed = order_bytes + _LEAST_MAPPED_BYTES + least
    if budget == "auto":
        ample = order_bytes + group_bytes + buffers * batch_bytes + _MAPPED_BYTES
        available = available_memory()
        if available is None or ample <= available * _AUTO_SHARE:
            return Budget(_MAPPED_BYTES, buffers, True)
        budget = max(needed, int(available * _AUTO_SHARE))
    left = parse_bytes(budget) - order_bytes - _LEAST_MAPPED_BYTES
    if left < least:
        raise ValueError(
            f"memory_budget: found {budget!r}, expected at least {_megabytes(needed)}: "
            f"{_megabytes(order_bytes)} for the row order, {_megabytes(least)} for two batches, "
            f"{_megabytes(_LEAST_MAPPED_BYTES)} of mapped pages; or make the batches smaller"
        )
    holds_groups = left - least >= group_bytes
    left -= group_bytes if holds_groups else 0
    # At most half of what is left goes to batches: those that are not kept are made anew.
    kept = min(buffers, max(_LEAST_BUFFERS, left // 2 // batch_bytes))
    return Budget(_LEAST_MAPPED_BYTES + left - kept * batch_bytes, kept, holds_groups)


def parse_bytes(size: int | str) -> int:
    """Read a number of bytes, or a size such as "512MB", "1.5 GiB" or "13G"."""
    if isinstance(size, (int, np.integer)) and not isinstance(size, bool):
        return int(size)
    match = isinstance(size, str) and re.fullmatch(
        r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?\s*", size, re.IGNORECASE
    )
    if not match:
        raise ValueError(
            f"memory_budget: found {size!r}, expected 'auto', bytes, or a size such as '512MB'"
        )
    number, prefix, binary = match.groups()
    return int(float(number) * (1024 if binary else 1000) ** " KMGT".index(prefix.upper() or " "))


def available_memory() -> int | None:
    """Return the bytes that this process can still use, page cache of others included.

    The least of what the machine and each control group around the process leaves (Linux's cgroups,
    versions 1 and 2); None where nobody says.
    """
    sizes = [*_machine_available(Path("/proc/meminfo")), *_groups_available(Path("/"))]
    return min(sizes, default=None)


def _machine_available(meminfo: Path) -> Iterator[int]:
    try:
        match = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo.read_text(), re.MULTILINE)
        if match:
            yield int(match[1]) << 10
            return
    except OSError:
        pass
    try:
        yield os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return


def _groups_available(root: Path) -> Iterator[int]:
    """Yield what is left in each control group that this process is in."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            top = root / "sys/fs/cgroup/memory"
            names = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"
        elif not controllers:
            top = root / "sys/fs/cgroup"
            names = "memory.max", "memory.current", ""
        else:
            continue
        group = top / path.lstrip("/")
        # Within a container the path may be the host's, and the group's own files at the top.
        for folder in [group, *group.parents] if group.is_dir() else [top]:
            if not folder.is_relative_to(top):
                break
            yield from _group_available(folder, *names)


def _group_available(folder: Path, limit: str, usage: str, prefix: str) -> Iterator[int]:
    try:
        allowed = int((folder / limit).read_text())  # "max" where there is none
        used = int((folder / usage).read_text())
        statistics = (folder / "memory.stat").read_text()
    except (OSError, ValueError):
        return
    # Files' pages count as used, but go when they have to.
    files = re.findall(rf"^{prefix}(?:in)?active_file (\d+)$", statistics, re.MULTILINE)
    yield max(0, allowed - used + sum(map(int, files)))


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


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"
