"""Fork safe locks: locks for the threads of one process, which are open in a forked process."""

from __future__ import annotations

import os
import threading
from types import TracebackType


class ForkSafeLock:
    """A lock for the threads of one process. A forked child gets a new, open lock."""

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


class ForkSafeTurns(ForkSafeLock):
    """A semaphore: at most `turns` threads hold it at a time, and the others wait.

    Parameters
    ----------
    turns : int
        Number of threads.
    """

    def __init__(self, turns: int) -> None:
        self._turns = turns
        super().__init__()

    def _make(self) -> threading.Semaphore:
        return threading.Semaphore(self._turns)
