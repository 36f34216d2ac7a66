"""Checking: from the files of a set that is in use to an error, once they are not as written.

A `ChangeDetector` compares the size and time of change of an open file with what they were. It does
not see bytes that were wrong before. A `Checker` does: it compares all bytes with the checksums of
the manifest, a share with each batch that is read.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections import deque
from collections.abc import Sequence

from ..format.layout import Patch, Shard
from ..system.buffers import scratch_array
from .open_file import REMEDY, OpenFile, corrupt

#: Read and hashed at a time.
PIECE_BYTES = 1 << 20
_WATCH_SECONDS = 1
_THROW_AWAY = "; the model has been trained on what the file holds: throw it away"


class ChangeDetector:
    """Sees that a file is changed while it is in use. Any number of threads may check at once.

    One that is deleted, or has another put in its place, does not change: what is open stays.

    Parameters
    ----------
    files : sequence of OpenFile
    """

    def __init__(self, files: Sequence[OpenFile]) -> None:
        self._files = files
        self._due = time.monotonic() + _WATCH_SECONDS

    def check(self, *, now: bool = False) -> None:
        """Look at all files, if a second has gone by since that was done, or `now`.

        Raises
        ------
        CorruptShardError
            Naming the first file that has changed since it was opened.
        """
        seconds = time.monotonic()
        if now or seconds >= self._due:
            for file in self._files:
                file.check_unchanged()
            self._due = seconds + _WATCH_SECONDS


class FileCheck:
    """Compares a file with its checksum, as many bytes at a time as it is told.

    Parameters
    ----------
    file : OpenFile
    described : Shard or Patch
    remedy : str
        What an error tells to do.
    """

    def __init__(self, file: OpenFile, described: Shard | Patch, *, remedy: str = REMEDY) -> None:
        self._file, self._described, self._remedy = file, described, remedy
        self._digest, self._done = hashlib.sha256(), 0

    def advance(self, most: int = PIECE_BYTES) -> int:
        """Hash the next bytes, at most so many; return how many, which is 0 after the last one.

        Raises
        ------
        CorruptShardError
            These were the last bytes, and the checksum is another; or they cannot be read. To call
            this again raises the error again.
        """
        count = min(most, PIECE_BYTES, self._described.bytes - self._done)
        piece = scratch_array("check", 1, PIECE_BYTES)[0, :count]
        self._file.read_into(self._done, piece)
        self._digest.update(piece.data)
        self._done += count
        if self._done == self._described.bytes:
            found, expected = self._digest.hexdigest(), self._described.checksum
            if found != expected:
                raise corrupt(self._file.path, "SHA-256", found, expected, self._remedy)
        return count


class Checker:
    """Compares the files of a set with their checksums while batches are read from them.

    Once as many batches as an epoch has have taken a step, all bytes have been compared, and the
    next steps cost nothing. Any number of threads may take them at once. A forked process begins
    anew, unless the comparison was complete.

    Parameters
    ----------
    files : sequence of OpenFile
    described : sequence of Shard or Patch
        What the manifest says of each of them.
    """

    def __init__(self, files: Sequence[OpenFile], described: Sequence[Shard | Patch]) -> None:
        self._files, self._described = files, described
        self._bytes = sum(one.bytes for one in described)
        # Of each process its own: a fork may copy locks that are held, and half a hash.
        self._progress: dict[int, HashProgress] = {}
        self._is_done = False

    def step(self, batches: int) -> None:
        """Hash the share of one of so many batches, or leave it to a thread that hashes already.

        Raises
        ------
        CorruptShardError
            Naming a file that is not as it was written. Each later step raises it again.
        """
        if self._is_done:
            return
        progress = self._progress.get(os.getpid())
        if progress is None:  # of threads that come at once, all get the same
            new = HashProgress(self._files, self._described, self._bytes)
            progress = self._progress.setdefault(os.getpid(), new)
        self._is_done = progress.advance(-(-self._bytes // batches))


class HashProgress:
    """How far one process has hashed the files, in their order."""

    def __init__(
        self, files: Sequence[OpenFile], described: Sequence[Shard | Patch], bytes_: int
    ) -> None:
        remedy = REMEDY + _THROW_AWAY
        self._left = deque(
            FileCheck(*of_file, remedy=remedy) for of_file in zip(files, described, strict=True)
        )
        self._bytes, self._owed, self._done = bytes_, 0, 0
        self._counting, self._hashing = threading.Lock(), threading.Lock()

    def advance(self, share: int) -> bool:
        """Hash so many bytes more; say whether all bytes of the files are hashed."""
        with self._counting:
            self._owed = owed = min(self._bytes, self._owed + share)
        # What is owed while another thread hashes is done by who comes later; nobody comes later
        # than who owes the last byte.
        if self._hashing.acquire(blocking=owed == self._bytes):
            try:
                self._hash_until(owed)
            finally:
                self._hashing.release()
        return self._done == self._bytes

    def _hash_until(self, place: int) -> None:
        while self._done < place:
            count = self._left[0].advance(place - self._done)
            if not count:
                self._left.popleft()
            self._done += count
