"""Read ahead: threads that prepare the batches of one pass, in order, before they are needed.

One thread works while training never waits for a batch. At each wait, another thread joins, and
more batches are prepared. After many batches without a wait, a thread leaves. So a slow network
keeps the processors and caches that more threads would take.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from .worker_processes import catchable

# Prepared batches at first. Waits for these are normal, as TensorFlow prefetches one batch.
_FIRST = 2
# After a wait of this length another thread joins, also for one of the first batches.
_WAIT_SECONDS = 0.05
# Batches in a row without a wait, after which a thread leaves.
_READY_BATCHES = 32


class Ahead:
    """The batches of one pass, prepared by threads, and taken one after the other.

    `take` raises the error of a batch. Threads that work when the pass ends finish their batch, but
    nothing waits for it.

    Parameters
    ----------
    get : callable
        Function of a place in the pass that makes its batch. Several threads call it at once.
    count : int
        Number of batches in the pass.
    workers : int
        Largest number of threads.
    size : int
        Largest number of batches that are begun but not yet taken.
    """

    def __init__(self, get: Callable[[int], Any], count: int, workers: int, size: int) -> None:
        self._get, self._count, self._size = get, count, size
        self._most_workers = min(workers, size, count)
        self._begun = self._taken = 0
        self._made: dict[int, Any] = {}
        self._has_ended = False
        # Numbers of threads that may work, that work, and of all; batches in a row without a wait.
        self._level = self._busy = self._threads = self._ready = 0
        # Held only briefly. Reentrant, because the garbage collector may end a pass while this
        # thread holds the lock.
        lock = threading.RLock()
        self._has_made, self._has_room = threading.Condition(lock), threading.Condition(lock)
        if count:
            with lock:
                self._hurry()

    def take(self) -> Any:
        """Wait for the next batch and return it. Return None if the pass has ended."""
        with self._has_made:
            place = self._taken
            self._adapt(place)
            while not self._has_made.wait_for(lambda: self._may_take(place), _WAIT_SECONDS):
                self._hurry()
            if self._has_ended:
                return None
            self._taken += 1
            self._has_room.notify()
            batch = self._made.pop(place)
        if isinstance(batch, _Failed):
            batch.throw()
        return batch

    def end(self) -> None:
        """Begin no more batches, and drop prepared ones. Calling it again changes nothing."""
        with self._has_made:
            self._has_ended = True
            self._made.clear()
            self._has_made.notify_all()
            self._has_room.notify_all()

    def _may_take(self, place: int) -> bool:
        return self._has_ended or place in self._made

    def _adapt(self, place: int) -> None:
        """Adapt the number of working threads, so that batches are prepared in time."""
        if not self._may_take(place):
            self._ready = 0
            if place >= _FIRST:
                self._hurry()
            return
        self._ready += 1
        if self._ready >= _READY_BATCHES and self._level > 1:
            self._ready, self._level = 0, self._level - 1

    def _hurry(self) -> None:
        """Let one more thread work, and prepare more batches. Start the thread if needed."""
        if self._level >= self._most_workers and self._room >= self._size:
            return
        self._level += 1
        self._has_room.notify_all()
        if self._threads < min(self._level, self._most_workers):
            thread = threading.Thread(target=self._work, name="numerai_sequence", daemon=True)
            # No thread can be started while the interpreter exits. The others continue without it.
            with suppress(*([RuntimeError] if self._threads else [])):
                thread.start()
                self._threads += 1

    @property
    def _room(self) -> int:
        """Number of batches that may be begun but not taken."""
        return min(self._size, _FIRST << (self._level - 1))

    def _work(self) -> None:
        while (place := self._begin()) is not None:
            try:
                batch = self._get(place)
            except BaseException as error:
                batch = _Failed(catchable(error))
            self._finish(place, batch)
            del batch  # or it would be kept until this thread makes another

    def _begin(self) -> int | None:
        with self._has_room:
            self._has_room.wait_for(self._may_begin)
            if self._is_over():
                self._has_room.notify_all()  # each of the others ends, too
                return None
            self._begun, self._busy = self._begun + 1, self._busy + 1
            return self._begun - 1

    def _is_over(self) -> bool:
        return self._has_ended or self._begun == self._count

    def _may_begin(self) -> bool:
        has_room = self._begun < self._taken + self._room
        return self._is_over() or (has_room and self._busy < self._level)

    def _finish(self, place: int, batch: Any) -> None:
        with self._has_made:
            self._busy -= 1
            if not self._has_ended:
                self._made[place] = batch
                self._has_made.notify()


class _Failed:
    """A placeholder for a batch that failed, with its error."""

    def __init__(self, error: Exception) -> None:
        self._error: Exception | None = error

    def throw(self) -> None:
        error, self._error = self._error, None
        try:
            assert error is not None
            raise error
        finally:
            del error  # or the error would hold itself
