"""Memory budget: decide whether a shard set fits into memory, and divide a memory budget."""

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

# A set is resident when its files take up to this share of the available memory. The process will
# need the rest, by an amount not known yet.
_RESIDENT_SHARE = 0.75
#: Bytes of pages that are mapped at the same time, by default.
MAPPED_BYTES = 96 << 20
_LEAST_MAPPED_BYTES = 16 << 20
_LEAST_BUFFERS = 2
_GROUP_BYTES = 32 << 20
_BATCH_SHARE = 8
# The largest share of the available memory that "auto" takes.
_AUTO_SHARE = 0.5


@dataclass(frozen=True)
class Paging:
    """The paging mode of a set, and the reason for it.

    Attributes
    ----------
    mode : {"resident", "streaming"}
    reason : str
        Reason for the decision, for the logs.
    """

    mode: str
    reason: str


def decide(set_bytes: int, mode: str = "auto") -> Paging:
    """Decide whether a set of this size is resident or streaming, unless `mode` says it."""
    if not isinstance(mode, str) or mode not in ("auto", *MODES):
        raise ValueError(f"paging: found {short(mode)}, expected 'auto' or one of {MODES}")
    if mode != "auto":
        return Paging(str(mode), "as asked for")
    available = available_memory()
    if available is None:
        return Paging("resident", "the available memory is unknown on this system")
    fits = set_bytes <= _RESIDENT_SHARE * available
    return Paging(
        "resident" if fits else "streaming",
        f"{_megabytes(set_bytes)} of files, {_megabytes(available)} of memory available",
    )


@dataclass(frozen=True)
class Budget:
    """The shares of a sequence's memory budget.

    Attributes
    ----------
    mapped : int
        Bytes for mapped pages.
    buffers : int
        Number of batches whose memory is reused for later batches.
    holds_groups : bool
        Whether groups of batches that are fetched together fit.
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
        Number of bytes, a size such as "512MB", or "auto". "auto" adds 96 MiB of mapped pages to
        the other shares, or less if memory is short.
    order_bytes : int
        Bytes of the row orders of two epochs.
    group_bytes : int
        Bytes of the encoded groups of batches.
    batch_bytes : int
        Bytes of one batch.
    buffers : int
        Number of batches that the consumer holds at a time.

    Raises
    ------
    ValueError
        The budget is not a size, or too small.
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
    # Batches get at most half of the remainder. Memory that is not kept is allocated again.
    kept = min(buffers, max(_LEAST_BUFFERS, left // 2 // batch_bytes))
    return Budget(_LEAST_MAPPED_BYTES + left - kept * batch_bytes, kept, holds_groups)


def batch_share(budget: int | str, kept_bytes: int = 0) -> int:
    """Return the largest size of a batch, in bytes, of which two fit into a budget.

    `kept_bytes` is the size of other data in memory, such as the numbers of the rows.
    """
    if budget == "auto":
        return sys.maxsize
    size = parse_bytes(budget)
    room = (size - _LEAST_MAPPED_BYTES - kept_bytes) // _LEAST_BUFFERS
    return max(0, min(size // _BATCH_SHARE, room))


def group_bytes(budget: int | str) -> int:
    """Return the size of a group of batches in bytes. Several groups are in memory at a time."""
    return _GROUP_BYTES if budget == "auto" else min(2 * _GROUP_BYTES, parse_bytes(budget) // 8)


def check_budget(budget: int | str) -> int | str:
    """Return a valid memory budget: "auto", a number of bytes, or a size for `parse_bytes`.

    Raises
    ------
    ValueError
        The budget is something else.
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
            f"memory_budget: found {short(size)}, expected 'auto', bytes or a size such as '512MB'"
        )
    number, prefix, binary = match.groups()
    unit = (1024 if binary else 1000) ** " KMGT".index(prefix.upper() or " ")
    return int(Fraction(number) * unit)


def available_memory() -> int | None:
    """Return the bytes of memory that this process can still use, or None if unknown.

    Page cache counts as available. On Linux, limits of control groups (cgroups, versions 1 and 2)
    count too, and the smallest value holds. On macOS it is the installed memory.
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
    """Yield the bytes left in each control group of this process."""
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
        # Not `Path.is_dir`: it raises an error for folders without permission.
        for folder in [group, *group.parents] if os.path.isdir(group) else [top]:
            if not folder.is_relative_to(top):
                break
            yield from _group_available(folder, *names)


def _group_available(folder: Path, limit: str, usage: str, prefix: str) -> Iterator[int]:
    try:
        allowed = int((folder / limit).read_text("ascii"))  # "max" if there is no limit
        used = int((folder / usage).read_text("ascii"))
        statistics = (folder / "memory.stat").read_text("ascii")
    except (OSError, ValueError):
        return
    # Pages of files count as used, but the kernel frees them when it needs memory.
    files = re.findall(rf"^{prefix}(?:in)?active_file (\d+)$", statistics, re.MULTILINE)
    yield max(0, allowed - used + sum(map(int, files)))


def _least_megabytes(size: int) -> str:
    """Return a size as text, rounded up so that it is enough."""
    return f"{-(-size // 1_000_000):,} MB"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"
