"""OpenFile: one shard file open for plain reads, and the errors of one that is not as it should."""

from __future__ import annotations

import errno
import os
import weakref
from datetime import datetime
from pathlib import Path

from ..errors import CorruptShardError, NumeraiSequenceError
from ..format.encoding import Bytes
from ..format.layout import Patch, Shard, open_regular

REMEDY = "write the set again with overwrite=True, or copy the file again"
# What the system refuses though the file may be as good as ever.
_MAY_NOT_READ = "expected a file that this user may read"
_TOO_MANY_FILES = "close sets that are no longer used, or raise the limit (ulimit -n)"
_REMEDIES = {
    errno.EACCES: _MAY_NOT_READ,
    errno.EPERM: _MAY_NOT_READ,
    errno.EMFILE: _TOO_MANY_FILES,
    errno.ENFILE: _TOO_MANY_FILES,
    errno.ENOMEM: "there is too little memory, or address space",
}
# Read at a time: macOS refuses 2 GiB.
_MOST_BYTES = 1 << 30
_IN_USE = "open the set again, and write sets with write_shards, which changes no file in place"


class OpenFile:
    """A file of a set that is open for plain reads. It is closed with the last reference to this.

    Parameters
    ----------
    path : path
    described : Shard or Patch
        What the manifest says of the file.

    Attributes
    ----------
    descriptor : int

    Raises
    ------
    CorruptShardError
        The file is missing, or its size is not what the manifest says.
    NumeraiSequenceError
        The system does not let it be opened.
    """

    def __init__(self, path: Path, described: Shard | Patch) -> None:
        self.path = path
        try:
            self.descriptor = open_regular(path)
            weakref.finalize(self, os.close, self.descriptor).atexit = False
            self._status = self._read_status()
        except OSError as error:
            raise _refused(path, error, described.bytes) from error
        found = self._status[0]
        if found != described.bytes or not found:
            raise corrupt(path, "bytes", found, described.bytes)

    def _read_status(self) -> tuple[int, int]:
        """Return the size and the time of change, in nanoseconds, of the file that is open."""
        status = os.fstat(self.descriptor)
        return status.st_size, status.st_mtime_ns

    def check_unchanged(self) -> None:
        """Compare the file with what it was when it was opened, by its size and time of change.

        Raises
        ------
        CorruptShardError
            It has been changed since, or cannot be looked at any more.
        """
        try:
            found = self._read_status()
        except OSError as error:
            raise corrupt(self.path, "file", error.strerror, "an open one", _IN_USE) from error
        if found != self._status:
            was, is_now = _describe(*self._status), _describe(*found)
            raise corrupt(self.path, "changed while in use", is_now, was, _IN_USE)

    def read_into(self, start: int, out: Bytes) -> None:
        """Read bytes of the file, from `start` on, as many as `out` has room for.

        Raises
        ------
        CorruptShardError
            The file ends too early, or cannot be read.
        """
        left = out.reshape(-1).data
        while left:
            try:
                count = self._read(start, left)
            except OSError as error:
                raise corrupt(self.path, "file", error.strerror, "readable bytes") from error
            if not count:
                raise corrupt(self.path, "bytes", start, f"at least {start + len(left)}")
            left, start = left[count:], start + count

    def _read(self, start: int, out: memoryview) -> int:
        out = out[:_MOST_BYTES]
        if hasattr(os, "preadv"):
            return os.preadv(self.descriptor, [out], start)
        if hasattr(os, "pread"):  # macOS before 11
            read = os.pread(self.descriptor, len(out), start)
            out[: len(read)] = read
            return len(read)
        # Windows, where nobody can put another file in the place of one that is open.
        with open(self.path, "rb", buffering=0) as file:
            file.seek(start)
            return file.readinto(out) or 0


def _refused(path: Path, error: OSError, expected_bytes: int) -> NumeraiSequenceError:
    """Return the error of a file that cannot be opened: of itself, or of the system."""
    remedy = _REMEDIES.get(error.errno or 0)
    if remedy is None:
        return corrupt(path, "file", error.strerror, f"{expected_bytes} bytes")
    return NumeraiSequenceError(f"{path}: cannot be opened ({error.strerror}); {remedy}")


def not_mapped(path: Path, error: Exception) -> NumeraiSequenceError:
    """Return the error of a file that cannot be mapped into memory."""
    code, reason = getattr(error, "errno", None), getattr(error, "strerror", None) or error
    # FUSE and some network file systems say ENODEV, others whatever they like.
    remedy = _REMEDIES.get(
        code or 0, "not every file system does that; copy the set to a local disk"
    )
    return NumeraiSequenceError(f"{path}: cannot be mapped into memory ({reason}); {remedy}")


def corrupt(
    path: Path, what: str, found: object, expected: object, remedy: str = REMEDY
) -> CorruptShardError:
    return CorruptShardError(
        f"{path}: {what}: found {found!s:.200}, expected {expected!s:.200}; {remedy}",
        path=path,
        found=found,
        expected=expected,
    )


def _describe(bytes_: int, mtime_ns: int) -> str:
    changed = datetime.fromtimestamp(mtime_ns / 1e9).isoformat(" ", "milliseconds")
    return f"{bytes_} bytes last changed at {changed}"
