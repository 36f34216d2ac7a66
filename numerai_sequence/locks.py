"""Locks: one that a forked process finds open, whoever held it in the parent."""

from __future__ import annotations

import os
import threading
from types import TracebackType


class OwnLock:
    """A lock among the threads of one process. A fork in the middle gives the child its own."""

    def __init__(self) -> None:
        self._lock, self._process = threading.Lock(), os.getpid()

    def __enter__(self) -> None:
        if os.getpid() != self._process:
            self._lock, self._process = threading.Lock(), os.getpid()
        self._lock.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.release()
