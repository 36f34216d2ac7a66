"""Files: writes that are complete or have no effect, and errors that explain a refused write."""

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
    errno.ENOENT: "create the folder first, or choose an existing one",
    errno.ENOTDIR: "a part of the path is a file; choose another folder",
    errno.EACCES: "choose a folder that you may write to",
    errno.EPERM: "choose a folder that you may write to",
    errno.EROFS: "choose a folder that you may write to",
    errno.EFBIG: "allow larger files (ulimit -f), or choose another folder",
}
_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
# The errors of Windows for a file that is open, locked or mapped: access denied, a sharing or a
# lock violation, a mapped section.
_IN_USE = (5, 32, 33, 1224)
_WAIT_SECONDS = (0.01, 0.04, 0.15, 0.3, 0.5)

_Result = TypeVar("_Result")


@contextmanager
def replaced(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`, and move the file written there into place at the end.

    Raises
    ------
    OutputError
        The operating system refuses to write the file: the folder does not exist, or the disk is
        full.
    """
    path = Path(path)
    # With the same suffixes: some writers, such as Keras, choose the format by them.
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
    """Turn the operating system's error of writing to a path into an `OutputError`.

    Parameters
    ----------
    path : path
    left : str
        State of the output after the error; see `unwritten`.
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
    """Return an `OutputError` that describes the state of the output, and says what to do.

    Parameters
    ----------
    path : path
    error : OSError
    left : str
        State of the output after the error, as a part of a sentence.
    needed_bytes : int
        Bytes that the output needs on the disk in all; 0 if they are not known.
    """
    left = left or "no partial file is left, and existing files are unchanged"
    return OutputError(
        f"{path}: cannot be written ({error.strerror or error}); {left}; "
        f"{_remedy(Path(path), error, needed_bytes)}",
        path=Path(path),
        errno=error.errno,
    )


def _remedy(path: Path, error: OSError, needed_bytes: int) -> str:
    if is_in_use(error):
        return "close the program that has it open, or choose another folder"
    if error.errno not in _FULL:
        return _REMEDIES.get(error.errno or 0, "choose another folder, or check this disk")
    needed = f"about {needed_bytes / 1e6:,.1f} MB are needed, " if needed_bytes else ""
    free = free_bytes(path)
    found = "" if free is None else f"{free / 1e6:,.1f} MB are free: "
    return f"{needed}{found}free some space, or choose another disk"


def free_bytes(path: Path) -> int | None:
    """Return the free bytes on the disk of a path, which need not exist; None if not known."""
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
    """Call a function, and repeat the call for a second while Windows says that a file is in use.

    Virus scanners, search indexes and readers open a new file for a moment.
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
    """Delete a file, if it exists; return False if Windows keeps it because it is in use."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        if not is_in_use(error):
            raise
        return False
    return True


def sync_folder(folder: Path) -> None:
    """Flush a folder's list of files to the disk, on platforms that support it."""
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
    """Write bytes to an unbuffered file, which may accept only a part of them at a time."""
    while data:
        data = data[file.write(data) :]


def read_all(file: Any, data: memoryview) -> None:
    """Fill `data` from an unbuffered file, which may return only a part at a time.

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
