"""Locks: those that a forked process finds open, whoever held them in the parent."""

from __future__ import annotations

import os
import threading
from types import TracebackType


class OwnLock:
    """A lock among the threads of one process. A fork in the middle gives the child its own."""

    def __init__(self) -> None:
        self._open()

    def _open(self) -> None:
        self._lock: threading.Lock | threading.Semaphore = self._make()
        self._process = os.getpid()

    def _make(self) -> threading.Lock | threading.Semaphore:
        return threading.Lock()

    def __enter__(self) -> None:
        if os.getpid() != self._process:
            self._open()
        self._lock.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.release()


class OwnTurns(OwnLock):
    """As many threads at a time as there are turns; the others wait for one of them to leave.

    Parameters
    ----------
    turns : int
    """

    def __init__(self, turns: int) -> None:
        self._turns = turns
        super().__init__()

    def _make(self) -> threading.Semaphore:
        return threading.Semaphore(self._turns)
