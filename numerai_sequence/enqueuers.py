"""Enqueuers: run an enqueuer of Keras's for one pass over a sequence, and end it with the pass."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any, Protocol
from weakref import WeakKeyDictionary

# Those at work for each sequence.
_ENQUEUERS: WeakKeyDictionary[Any, set[Any]] = WeakKeyDictionary()


class Pass(Protocol):
    """One epoch's batches as they come, whatever happens to the sequence meanwhile."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Any: ...


class _Enqueued:
    """A pass as an enqueuer wants it: with the names of both generations, and deaf to hooks."""

    def __init__(self, one_pass: Pass) -> None:
        self._pass = one_pass
        self.num_batches = len(one_pass)

    def __len__(self) -> int:
        return self.num_batches

    def __getitem__(self, index: int) -> Any:
        return self._pass[index]

    def on_epoch_end(self) -> None:
        """Do nothing: Keras 2's enqueuer calls this from a thread of its own."""


def _start_enqueuer(enqueued: _Enqueued, sequence: Any, kind: Callable[..., Any]) -> Any:
    options = {"workers": sequence.workers, "max_queue_size": sequence.max_queue_size}
    # Where the two belong has changed within Keras 3.
    at_start = "workers" not in inspect.signature(kind).parameters
    enqueuer = kind(
        enqueued,
        use_multiprocessing=sequence.use_multiprocessing,
        shuffle=False,
        **({} if at_start else options),
    )
    enqueuer.start(**(options if at_start else {}))
    return enqueuer


def run_pass(sequence: Any, shuffle: bool, enqueuer_kind: Callable[..., Any]) -> Iterator[Any]:
    """Yield each batch of one pass once; what works for it ends with it, finished or not."""
    # Who shuffles knows which batch comes next.
    one_pass = sequence.one_pass(shuffle=shuffle)
    count = len(one_pass)
    if sequence.workers <= 1 and not sequence.use_multiprocessing:
        for place in range(count):
            yield _checked(one_pass[place], sequence, is_last=place == count - 1)
        return
    enqueuer = _start_enqueuer(_Enqueued(one_pass), sequence, enqueuer_kind)
    _ENQUEUERS.setdefault(sequence, set()).add(enqueuer)
    try:
        with closing(enqueuer.get()) as batches:
            for number, batch in enumerate(batches, 1):
                if number == count:
                    enqueuer.stop()  # before the last batch is used, so that none is begun after it
                yield _checked(batch, sequence, is_last=number == count)
                if number == count:
                    return
    finally:
        _ENQUEUERS[sequence].discard(enqueuer)
        if enqueuer.is_running():
            enqueuer.stop()


def _checked(batch: Any, sequence: Any, *, is_last: bool) -> Any:
    """Return a batch; check what those who read it have left to this process, or to the end."""
    if is_last or sequence.use_multiprocessing:
        sequence.check(is_last=is_last)
    return batch


@contextmanager
def ending_passes(sequence: Any) -> Iterator[None]:
    """End the passes that are begun meanwhile, if Keras drops them half-way.

    They would end by themselves, but only when the garbage collector finds their generators.
    """
    before = set(_ENQUEUERS.get(sequence, ()))
    try:
        yield
    finally:
        for enqueuer in set(_ENQUEUERS.get(sequence, ())) - before:
            with suppress(Exception):  # of a batch that nobody waits for
                enqueuer.stop()
