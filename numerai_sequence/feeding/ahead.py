"""Ahead: threads that make the batches of one pass before they are asked for, in order."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from .processes import catchable


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
        Threads.
    size : int
        Batches that are begun, and not yet taken, at any time.
    """

    def __init__(self, get: Callable[[int], Any], count: int, workers: int, size: int) -> None:
        self._get, self._count, self._size = get, count, size
        self._begun = self._taken = 0
        self._made: dict[int, Any] = {}
        self._has_ended = False
        # Held for a moment only. One that a thread may take twice: the garbage collector may come
        # upon a pass, and end it, while this thread holds it.
        lock = threading.RLock()
        self._has_made, self._has_room = threading.Condition(lock), threading.Condition(lock)
        for _ in range(min(workers, size, count)):
            threading.Thread(target=self._work, name="numerai_sequence", daemon=True).start()

    def take(self) -> Any:
        """Return the next batch, as soon as it is made; None where the pass has ended."""
        with self._has_made:
            place = self._taken
            self._has_made.wait_for(lambda: self._has_ended or place in self._made)
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
            if self._has_ended or self._begun == self._count:
                self._has_room.notify_all()  # each of the others ends, too
                return None
            self._begun += 1
            return self._begun - 1

    def _may_begin(self) -> bool:
        is_over = self._has_ended or self._begun == self._count
        return is_over or self._begun < self._taken + self._size

    def _finish(self, place: int, batch: Any) -> None:
        with self._has_made:
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
