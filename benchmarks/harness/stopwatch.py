"""Pace: count the rows of batches from the end of a warm-up until time is up."""

import time
from collections.abc import Callable, Iterable
from typing import Any

Notify = Callable[..., None]


class TimeIsUp(Exception):
    """Ends a fit from within: Keras's own stop waits for batches that nobody needs any more."""


class Stopwatch:
    """Rows a second of whatever calls `tick` after each batch.

    The first batch is never counted: it carries opening, tracing and compiling. The warm-up starts
    at its end.

    Parameters
    ----------
    notify : callable
        Called as ``notify("first batch")``, ``notify("start")`` and ``notify("end", rows=...)``.
    warmup_seconds, seconds : float
        Of the warm-up, and of the counting.
    max_rows : int, optional
        Count no more rows than these.
    """

    def __init__(
        self, notify: Notify, *, warmup_seconds: float, seconds: float, max_rows: int | None = None
    ) -> None:
        self.notify = notify
        self.warmup_seconds = warmup_seconds
        self.seconds = seconds
        self.max_rows = max_rows or float("inf")
        self.rows = 0
        self.first: float | None = None
        self.start: float | None = None

    def tick(self, rows: int) -> bool:
        """Count one batch, and say whether it was the last that is wanted."""
        now = time.monotonic()
        if self.first is None:
            self.first = now
            self.notify("first batch")
        if self.start is None:
            if now - self.first >= self.warmup_seconds:
                self.start = now
                self.notify("start")
            return False
        self.rows += rows
        if now - self.start < self.seconds and self.rows < self.max_rows:
            return False
        self.notify("end", rows=self.rows)
        return True


def drain(batches: Iterable[tuple[Any, Any]], stopwatch: Stopwatch) -> None:
    """Take batches until the stopwatch has enough of them."""
    for _, y in batches:
        if stopwatch.tick(len(y)):
            return


def ticking(keras: Any, stopwatch: Stopwatch) -> Any:
    """Return a callback of that Keras, which ticks with the rows that the model was trained on."""

    class Ticking(keras.callbacks.Callback):
        """Reads the metric ``rows`` of `models`, which counts from zero in each epoch."""

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.seen = 0

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            rows = int(logs["rows"])
            if stopwatch.tick(rows - self.seen):
                raise TimeIsUp
            self.seen = rows

    return Ticking()
