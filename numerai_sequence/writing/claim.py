"""Claim: a folder is one process's at a time, and no longer than that process lives."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_TRIES = 100


@contextmanager
def claimed(folder: Path, *, make: bool = False) -> Iterator[bool]:
    """Keep other processes that claim a folder out of it, if it is there, and say if it is.

    Its owner may remove it.

    Parameters
    ----------
    folder : path
    make : bool
        Make it, and its parents, where it is not there.

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
    descriptor = _claim(folder, make)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            os.close(descriptor)  # and the claim goes


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
