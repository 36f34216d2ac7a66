"""Files: one file appears at its path whole, or what was there stays, and an error says why."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from ..errors import NumeraiSequenceError, OutputError

_REMEDIES = {
    errno.ENOENT: "expected a name in a folder that exists",
    errno.ENOTDIR: "expected a name in a folder that exists",
    errno.EACCES: "expected a folder that you may write to",
    errno.EPERM: "expected a folder that you may write to",
    errno.EROFS: "expected a folder that you may write to",
    errno.EFBIG: "let files be larger (ulimit -f), or choose another folder",
}
_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
# What Windows says of a file that is open, locked or mapped: access denied, a sharing or a lock
# violation, a mapped section.
_IN_USE = (5, 32, 33, 1224)
_WAIT_SECONDS = (0.01, 0.04, 0.15, 0.3, 0.5)

_Result = TypeVar("_Result")


@contextmanager
def replaced(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a path beside to write the file to, and move it into place at the end.

    Raises
    ------
    OutputError
        The operating system does not let it be written: no such folder, a full disk.
    """
    path = Path(path)
    # With the same suffixes: some writers, such as Keras, know by them what to write.
    stem, dot, suffixes = path.name.partition(".")
    # Of two machines that share the folder, both may have a process of that number.
    name = f"{stem}.{os.getpid()}-{secrets.token_hex(4)}.tmp{dot}{suffixes}"
    temporary = path.with_name(name)
    with explained(path):
        try:
            yield temporary
            with open(temporary, "rb+") as file:  # Windows syncs no file that is open for reading
                os.fsync(file.fileno())
            patiently(os.replace, temporary, path)
        finally:
            delete(temporary)


@contextmanager
def explained(path: str | os.PathLike[str], left: str = "") -> Iterator[None]:
    """Turn what the operating system says against writing to a path into an `OutputError`.

    Parameters
    ----------
    path : path
    left : str
        What is there then; see `unwritten`.
    """
    try:
        yield
    except NumeraiSequenceError:  # some are an OSError too
        raise
    except OSError as error:
        raise unwritten(path, error, left=left) from error


def unwritten(
    path: str | os.PathLike[str], error: OSError, *, left: str = "", needed_bytes: int = 0
) -> OutputError:
    """Return an `OutputError`, which says what is left of before and what to do.

    Parameters
    ----------
    path : path
    error : OSError
    left : str
        What is there now.
    needed_bytes : int
        On the disk, in all; 0 where that is not known.
    """
    left = left or "nothing is left of it, and what was there is as it was"
    return OutputError(
        f"{path}: cannot be written ({error.strerror or error}); {left}; "
        f"{_remedy(Path(path), error, needed_bytes)}",
        path=Path(path),
        errno=error.errno,
    )


def _remedy(path: Path, error: OSError, needed_bytes: int) -> str:
    if is_in_use(error):
        return "close what has it open, such as another program; or choose another folder"
    if error.errno not in _FULL:
        return _REMEDIES.get(error.errno or 0, "choose another folder, or look after this disk")
    needed = f"about {needed_bytes / 1e6:,.1f} MB are needed, " if needed_bytes else ""
    free = free_bytes(path)
    found = "" if free is None else f"{free / 1e6:,.1f} MB are free now: "
    return f"{needed}{found}make room, or choose another disk"


def free_bytes(path: Path) -> int | None:
    """Return the bytes that are free where a path is, or would be; None where nobody knows."""
    for folder in (path, *path.absolute().parents):
        try:
            return shutil.disk_usage(folder).free
        except OSError:
            continue
    return None


def is_in_use(error: BaseException | None) -> bool:
    """Say whether Windows refused to touch a file because it is open or mapped somewhere."""
    return getattr(error, "winerror", None) in _IN_USE


def patiently(do: Callable[..., _Result], *args: Any) -> _Result:
    """Call a function, and call it again for a second while Windows says that a file is in use.

    Virus scanners and search indexes open a new file for a moment, and so does a reader.
    """
    for seconds in _WAIT_SECONDS:
        try:
            return do(*args)
        except OSError as error:
            if not is_in_use(error):
                raise
        time.sleep(seconds)
    return do(*args)


def delete(path: Path) -> bool:
    """Delete a file, if it is there; return False where Windows keeps it because it is in use."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        if not is_in_use(error):
            raise
        return False
    return True


def sync_folder(folder: Path) -> None:
    """See onto the disk which files are in a folder, where the platform knows how."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno in (errno.EIO, *_FULL):
            raise
    finally:
        os.close(descriptor)


def write_all(file: Any, data: memoryview) -> None:
    """Write bytes to an unbuffered file, which may take some of them at a time."""
    while data:
        data = data[file.write(data) :]


def read_all(file: Any, data: memoryview) -> None:
    """Fill bytes from an unbuffered file, which may give some of them at a time.

    Raises
    ------
    OSError
        The file ends too early.
    """
    while data:
        count = file.readinto(data)
        if not count:
            raise OSError(errno.EIO, "ends too early", file.name)
        data = data[count:]
