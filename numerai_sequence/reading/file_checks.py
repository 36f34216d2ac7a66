"""File checks: raise an error when the files of an open set change or are damaged.

A `ChangeDetector` compares the size and modification time of an open file with those at opening.
It does not see earlier damage. A `Checker` does: it compares all bytes with the checksums in the
manifest, a share with each batch.
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

#: Bytes that are read and hashed at a time.
PIECE_BYTES = 1 << 20
_WATCH_SECONDS = 1
_THROW_AWAY = "; the model was trained on damaged data: discard it"


class ChangeDetector:
    """A detector of files that change while a set is open. Several threads may use it at once.

    A deleted or replaced file does not count as changed: the open file keeps its content.

    Parameters
    ----------
    files : sequence of OpenFile
    """

    def __init__(self, files: Sequence[OpenFile]) -> None:
        self._files = files
        self._due = time.monotonic() + _WATCH_SECONDS

    def check(self, *, now: bool = False) -> None:
        """Check all files, at most once a second.

        Parameters
        ----------
        now : bool
            Whether to check even if the last check was less than a second ago.

        Raises
        ------
        CorruptShardError
            A file has changed since it was opened. The error names the first such file.
        """
        seconds = time.monotonic()
        if now or seconds >= self._due:
            for file in self._files:
                file.check_unchanged()
            self._due = seconds + _WATCH_SECONDS


class FileCheck:
    """The comparison of one file with its checksum, done in steps.

    Parameters
    ----------
    file : OpenFile
    described : Shard or Patch
        Description of the file in the manifest.
    remedy : str
        Advice at the end of the error message.
    """

    def __init__(self, file: OpenFile, described: Shard | Patch, *, remedy: str = REMEDY) -> None:
        self._file, self._described, self._remedy = file, described, remedy
        self._digest, self._done = hashlib.sha256(), 0

    def advance(self, most: int = PIECE_BYTES) -> int:
        """Hash up to `most` further bytes. Return their number, which is 0 at the end of the file.

        Raises
        ------
        CorruptShardError
            The checksum of the whole file differs, or the bytes cannot be read. Each further call
            raises the error again.
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
    """The comparison of a set's files with their checksums, done while batches are read.

    Each batch of the first epoch takes one step. After that epoch all bytes have been compared, and
    further steps cost nothing. Several threads may take steps at once. A forked process starts
    again from the beginning, unless the comparison was complete.

    Parameters
    ----------
    files : sequence of OpenFile
    described : sequence of Shard or Patch
        Description of each file in the manifest.
    """

    def __init__(self, files: Sequence[OpenFile], described: Sequence[Shard | Patch]) -> None:
        self._files, self._described = files, described
        self._bytes = sum(one.bytes for one in described)
        # One per process: a fork may copy locks that are held and an unfinished hash.
        self._progress: dict[int, HashProgress] = {}
        self._is_done = False

    def step(self, batches: int) -> None:
        """Hash the share of one batch, or leave it to a thread that is already hashing.

        Parameters
        ----------
        batches : int
            Number of batches in an epoch.

        Raises
        ------
        CorruptShardError
            A file differs from its checksum. Each later step raises the error again.
        """
        if self._is_done:
            return
        progress = self._progress.get(os.getpid())
        if progress is None:  # threads that arrive at once all get the same
            new = HashProgress(self._files, self._described, self._bytes)
            progress = self._progress.setdefault(os.getpid(), new)
        self._is_done = progress.advance(-(-self._bytes // batches))


class HashProgress:
    """The progress of one process in hashing the files, in their order."""

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
        """Hash `share` more bytes. Return whether all bytes of the files are hashed."""
        with self._counting:
            self._owed = owed = min(self._bytes, self._owed + share)
        # While another thread hashes, leave this share to a later call. The call that completes
        # the files has no later call, so it waits for its turn.
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
