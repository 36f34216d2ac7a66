"""Folder claim: a lock that gives a folder to one process, at most until that process ends.

The folder itself is locked. Windows can lock only files. There, a file beside the folder is locked,
and is deleted when the claim ends.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]
msvcrt: Any
try:
    import msvcrt
except ImportError:
    msvcrt = None

#: Suffix of the file beside a folder that is locked on Windows.
LOCK = ".lock"
_TRIES = 100
_POLL_SECONDS = 0.2


@contextmanager
def claimed(folder: Path, *, make: bool = False, wait_seconds: float = 0) -> Iterator[bool]:
    """Claim a folder, if it exists, and yield whether it exists.

    No other process can claim it meanwhile. The owner of the claim may remove the folder.

    Parameters
    ----------
    folder : path
    make : bool
        Create the folder, and its parents, if it does not exist.
    wait_seconds : float
        How long to wait for the end of another process's claim.

    Raises
    ------
    BlockingIOError
        Another process has claimed the folder.
    """
    if fcntl is None:
        with _claimed_beside(folder) if make or folder.exists() else nullcontext():
            if make:
                folder.mkdir(parents=True, exist_ok=True)
            yield folder.exists()
        return
    descriptor = _claim_in_time(folder, make, time.monotonic() + wait_seconds)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            os.close(descriptor)  # which ends the claim


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
    raise BlockingIOError(f"{folder} is removed and made again all the time")


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


@contextmanager
def _claimed_beside(folder: Path) -> Iterator[None]:
    """Lock a file beside a folder, and delete the file at the end."""
    path = Path(f"{os.path.abspath(folder)}{LOCK}")
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        _lock_file(descriptor, folder)
    except BlockingIOError:
        os.close(descriptor)
        raise
    try:
        yield
    finally:
        os.close(descriptor)  # which ends the claim
        with suppress(OSError):  # Windows keeps a file that another process has opened to lock it
            path.unlink()


def _lock_file(descriptor: int, folder: Path) -> None:
    try:
        if msvcrt is not None:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    except PermissionError as error:
        raise BlockingIOError(f"{folder} is claimed") from error
    except OSError:  # not every file system has locks
        return
