"""OpenFile: one shard file that is open for plain reads, and the errors of a damaged file."""

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
# Errors of the system that do not mean a damaged file.
_MAY_NOT_READ = "expected a file that this user may read"
_TOO_MANY_FILES = "close sets that are no longer used, or raise the limit (ulimit -n)"
_REMEDIES = {
    errno.EACCES: _MAY_NOT_READ,
    errno.EPERM: _MAY_NOT_READ,
    errno.EMFILE: _TOO_MANY_FILES,
    errno.ENFILE: _TOO_MANY_FILES,
    errno.ENOMEM: "there is too little memory, or address space",
}
# Bytes to read at a time: macOS refuses 2 GiB.
_MOST_BYTES = 1 << 30
_IN_USE = "open the set again; write sets with write_shards, which never changes a file in place"


class OpenFile:
    """A file of a set, open for plain reads. It closes when the last reference to it is gone.

    Parameters
    ----------
    path : path
    described : Shard or Patch
        Description of the file in the manifest.

    Attributes
    ----------
    descriptor : int

    Raises
    ------
    CorruptShardError
        The file is missing, or its size differs from the manifest.
    NumeraiSequenceError
        The system refuses to open it.
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
        """Return the size and the modification time, in nanoseconds, of the open file."""
        status = os.fstat(self.descriptor)
        return status.st_size, status.st_mtime_ns

    def check_unchanged(self) -> None:
        """Compare the size and modification time of the file with those at opening.

        Raises
        ------
        CorruptShardError
            The file has changed, or its size and time cannot be read any more.
        """
        try:
            found = self._read_status()
        except OSError as error:
            raise corrupt(self.path, "file", error.strerror, "an open one", _IN_USE) from error
        if found != self._status:
            was, is_now = _describe(*self._status), _describe(*found)
            raise corrupt(self.path, "changed while in use", is_now, was, _IN_USE)

    def read_into(self, start: int, out: Bytes) -> None:
        """Fill `out` with bytes of the file from position `start`.

        Raises
        ------
        CorruptShardError
            The file is too short, or cannot be read.
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
        # Windows, where an open file cannot be replaced.
        with open(self.path, "rb", buffering=0) as file:
            file.seek(start)
            return file.readinto(out) or 0


def _refused(path: Path, error: OSError, expected_bytes: int) -> NumeraiSequenceError:
    """Return the error for a file that cannot be opened: damaged, or refused by the system."""
    remedy = _REMEDIES.get(error.errno or 0)
    if remedy is None:
        return corrupt(path, "file", error.strerror, f"{expected_bytes} bytes")
    return NumeraiSequenceError(f"{path}: cannot be opened ({error.strerror}); {remedy}")


def not_mapped(path: Path, error: Exception) -> NumeraiSequenceError:
    """Return the error for a file that cannot be mapped into memory."""
    code, reason = getattr(error, "errno", None), getattr(error, "strerror", None) or error
    # FUSE and some network file systems return ENODEV, others return other codes.
    remedy = _REMEDIES.get(
        code or 0, "some file systems cannot map files; copy the set to a local disk"
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
