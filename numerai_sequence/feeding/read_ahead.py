"""Ahead: threads that make the batches of one pass before they are asked for, in order.

One thread does, as long as nobody has to wait for a batch. At each wait another thread joins, and
more batches are kept ready; after many batches without a wait one leaves again. Threads that a slow
network does not need take no processor and no cache from it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from .worker_processes import catchable

# Kept ready at first; and as many are waited for at the beginning, as TensorFlow prefetches one.
_FIRST = 2
# After a wait so long another thread joins, also where it is for one of the first batches.
_WAIT_SECONDS = 0.05
# Batches that were there when they were asked for; then a thread leaves.
_READY_BATCHES = 32


class Ahead:
    """The batches of one pass, made by threads; whoever uses them takes one after the other.

    Whatever a batch raises is raised where it is taken. Threads that are at work when the pass ends
    finish their batch, which nobody waits for.

    Parameters
    ----------
    get : callable
        Makes the batch at a place in the pass; called by several threads at once.
    count : int
        Batches of the pass.
    workers : int
        The most threads.
    size : int
        The most batches that are begun, and not yet taken, at any time.
    """

    def __init__(self, get: Callable[[int], Any], count: int, workers: int, size: int) -> None:
        self._get, self._count, self._size = get, count, size
        self._most_workers = min(workers, size, count)
        self._begun = self._taken = 0
        self._made: dict[int, Any] = {}
        self._has_ended = False
        # The threads that may be at work, those that are, and all; batches in a row without a wait.
        self._level = self._busy = self._threads = self._ready = 0
        # Held for a moment only. One that a thread may take twice: the garbage collector may come
        # upon a pass, and end it, while this thread holds it.
        lock = threading.RLock()
        self._has_made, self._has_room = threading.Condition(lock), threading.Condition(lock)
        if count:
            with lock:
                self._hurry()

    def take(self) -> Any:
        """Return the next batch, as soon as it is made; None where the pass has ended."""
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
        """Begin no more batches, and let go of those that are made. Once more changes nothing."""
        with self._has_made:
            self._has_ended = True
            self._made.clear()
            self._has_made.notify_all()
            self._has_room.notify_all()

    def _may_take(self, place: int) -> bool:
        return self._has_ended or place in self._made

    def _adapt(self, place: int) -> None:
        """Have no more threads at work than it takes for a batch to be there when asked for."""
        if not self._may_take(place):
            self._ready = 0
            if place >= _FIRST:
                self._hurry()
            return
        self._ready += 1
        if self._ready >= _READY_BATCHES and self._level > 1:
            self._ready, self._level = 0, self._level - 1

    def _hurry(self) -> None:
        """Let one thread more be at work, and further ahead; start it, if there is none."""
        if self._level >= self._most_workers and self._room >= self._size:
            return
        self._level += 1
        self._has_room.notify_all()
        if self._threads < min(self._level, self._most_workers):
            thread = threading.Thread(target=self._work, name="numerai_sequence", daemon=True)
            # Where the interpreter exits, none can be started; those that there are do without.
            with suppress(*([RuntimeError] if self._threads else [])):
                thread.start()
                self._threads += 1

    @property
    def _room(self) -> int:
        """How many batches may be begun and not taken."""
        return min(self._size, _FIRST << (self._level - 1))

    def _work(self) -> None:
        while (place := self._begin()) is not None:
            try:
                batch = self._get(place)
            except BaseException as error:
                batch = _Failed(catchable(error))
            self._finish(place, batch)
            del batch  # or it would be kept until this thread has made another

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
    """Stands for a batch that could not be made."""

    def __init__(self, error: Exception) -> None:
        self._error: Exception | None = error

    def throw(self) -> None:
        error, self._error = self._error, None
        try:
            assert error is not None
            raise error
        finally:
            del error  # or the error would hold itself
