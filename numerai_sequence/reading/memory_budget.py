"""Memory: say whether a shard set fits into what is available, and divide a budget of it."""

from __future__ import annotations

import ctypes
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ..checks import short

MODES = ("resident", "streaming")

# A set is resident when it takes no more than this of the memory available: what else the process
# will need is not known yet.
_RESIDENT_SHARE = 0.75
#: Mapped pages at the same time, where nobody says how many.
MAPPED_BYTES = 96 << 20
_LEAST_MAPPED_BYTES = 16 << 20
_LEAST_BUFFERS = 2
_GROUP_BYTES = 32 << 20
_BATCH_SHARE = 8
# Of the memory available, the most that is taken where nobody says how much.
_AUTO_SHARE = 0.5


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
    if not isinstance(mode, str) or mode not in ("auto", *MODES):
        raise ValueError(f"paging: found {short(mode)}, expected 'auto' or one of {MODES}")
    if mode != "auto":
        return Paging(str(mode), "as asked for")
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
        ample = order_bytes + group_bytes + buffers * batch_bytes + MAPPED_BYTES
        available = available_memory()
        if available is None or ample <= available * _AUTO_SHARE:
            return Budget(MAPPED_BYTES, buffers, True)
        budget = max(needed, int(available * _AUTO_SHARE))
    left = parse_bytes(budget) - order_bytes - _LEAST_MAPPED_BYTES
    if left < least:
        raise ValueError(
            f"memory_budget: found {budget!r}, expected at least {_least_megabytes(needed)}: "
            f"{_megabytes(order_bytes)} for the row order, {_megabytes(least)} for two batches, "
            f"{_megabytes(_LEAST_MAPPED_BYTES)} of mapped pages"
            + ("; or make the batches smaller" if left > 0 else "")
        )
    holds_groups = left - least >= group_bytes
    left -= group_bytes if holds_groups else 0
    # At most half of what is left goes to batches: those that are not kept are made anew.
    kept = min(buffers, max(_LEAST_BUFFERS, left // 2 // batch_bytes))
    return Budget(_LEAST_MAPPED_BYTES + left - kept * batch_bytes, kept, holds_groups)


def batch_share(budget: int | str, kept_bytes: int = 0) -> int:
    """Return the bytes of a batch whose size is free, so that a budget has room for two of them.

    `kept_bytes` is what is kept besides, such as the numbers of the rows.
    """
    if budget == "auto":
        return sys.maxsize
    size = parse_bytes(budget)
    room = (size - _LEAST_MAPPED_BYTES - kept_bytes) // _LEAST_BUFFERS
    return max(0, min(size // _BATCH_SHARE, room))


def group_bytes(budget: int | str) -> int:
    """Return how large a group may be whose size is free: some of them are kept."""
    return _GROUP_BYTES if budget == "auto" else min(2 * _GROUP_BYTES, parse_bytes(budget) // 8)


def check_budget(budget: int | str) -> int | str:
    """Return a memory budget: "auto", bytes, or a size that `parse_bytes` reads.

    Raises
    ------
    ValueError
        It is none of these.
    """
    if isinstance(budget, str):
        if budget != "auto":
            parse_bytes(budget)
        return str(budget)
    return parse_bytes(budget)


def parse_bytes(size: int | str) -> int:
    """Read a number of bytes, or a size such as "512MB", "1.5 GiB" or "13G"."""
    if isinstance(size, (int, np.integer)) and not isinstance(size, bool):
        return int(size)
    match = isinstance(size, str) and re.fullmatch(
        r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?\s*", size, re.IGNORECASE
    )
    if not match:
        raise ValueError(
            f"memory_budget: found {short(size)}, expected 'auto', bytes, or a size such as '512MB'"
        )
    number, prefix, binary = match.groups()
    unit = (1024 if binary else 1000) ** " KMGT".index(prefix.upper() or " ")
    return int(Fraction(number) * unit)


def available_memory() -> int | None:
    """Return the bytes that this process can still use, page cache of others included.

    The least of what the machine and each control group around the process leaves (Linux's cgroups,
    versions 1 and 2). macOS says only how much memory there is. None where nobody says.
    """
    if hasattr(ctypes, "windll"):
        return _windows_available(ctypes.windll.kernel32)
    sizes = [*_machine_available(Path("/proc/meminfo")), *_groups_available(Path("/"))]
    return min(sizes, default=None)


class _MemoryStatus(ctypes.Structure):
    """What Windows calls ``MEMORYSTATUSEX``; memory of the page cache counts as available."""

    _fields_ = [
        ("length", ctypes.c_uint32),
        ("load", ctypes.c_uint32),
        ("physical", ctypes.c_uint64),
        ("available", ctypes.c_uint64),
        ("others", ctypes.c_uint64 * 5),
    ]


def _windows_available(kernel: Any) -> int | None:
    status = _MemoryStatus(length=ctypes.sizeof(_MemoryStatus))
    if not kernel.GlobalMemoryStatusEx(ctypes.byref(status)):
        return None
    return int(status.available)


def _machine_available(meminfo: Path) -> Iterator[int]:
    try:
        match = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo.read_text("ascii"), re.MULTILINE)
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
        lines = (root / "proc/self/cgroup").read_text("utf-8").splitlines()
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
        # Not `Path.is_dir`, which raises where it may not look.
        for folder in [group, *group.parents] if os.path.isdir(group) else [top]:
            if not folder.is_relative_to(top):
                break
            yield from _group_available(folder, *names)


def _group_available(folder: Path, limit: str, usage: str, prefix: str) -> Iterator[int]:
    try:
        allowed = int((folder / limit).read_text("ascii"))  # "max" where there is none
        used = int((folder / usage).read_text("ascii"))
        statistics = (folder / "memory.stat").read_text("ascii")
    except (OSError, ValueError):
        return
    # Files' pages count as used, but go when they have to.
    files = re.findall(rf"^{prefix}(?:in)?active_file (\d+)$", statistics, re.MULTILINE)
    yield max(0, allowed - used + sum(map(int, files)))


def _least_megabytes(size: int) -> str:
    """Return a size that is enough: rounded up."""
    return f"{-(-size // 1_000_000):,} MB"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"
