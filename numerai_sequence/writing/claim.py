"""Claim: a folder is one process's at a time, and no longer than that process lives."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_TRIES = 100
_POLL_SECONDS = 0.2


@contextmanager
def claimed(folder: Path, *, make: bool = False, wait_seconds: float = 0) -> Iterator[bool]:
    """Keep other processes that claim a folder out of it, if it is there, and say if it is.

    Its owner may remove it.

    Parameters
    ----------
    folder : path
    make : bool
        Make it, and its parents, where it is not there.
    wait_seconds : float
        How long to wait for the end of another process's claim.

    Raises
    ------
    BlockingIOError
        Another process has claimed it.
    """
    if fcntl is None:
        if make:
            folder.mkdir(parents=True, exist_ok=True)
        yield folder.exists()
        return
    descriptor = _claim_in_time(folder, make, time.monotonic() + wait_seconds)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            os.close(descriptor)  # and the claim goes


def _claim_in_time(folder: Path, make: bool, deadline: float) -> int | None:
    while True:
        try:
            return _claim(folder, make)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(_POLL_SECONDS)


def _claim(folder: Path, make: bool) -> int | None:
    for left in reversed(range(_TRIES)):
        try:
            if make:
                folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:  # perhaps its owner has just removed it
            if not make:
                return None
            if not left:
                raise
            continue
        if _lock(descriptor, folder):
            return descriptor
    raise BlockingIOError(f"{folder} comes and goes")


def _lock(descriptor: int, folder: Path) -> bool:
    """Lock a folder; close it and return False if it has been removed before it was locked."""
    is_there = False
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:
            is_there = True  # not every file system has locks
        else:
            is_there = _is_at(descriptor, folder)
    finally:
        if not is_there:
            os.close(descriptor)
    return is_there


def _is_at(descriptor: int, folder: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(folder))
    except FileNotFoundError:
        return False
