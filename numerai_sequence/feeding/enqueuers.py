"""Enqueuers: run an enqueuer of Keras's for one pass over a sequence, and end it with the pass.

Its workers are threads. Where processes are asked for, each of these threads waits for one of them.
An error passes through Keras's enqueuers as if it were a batch: what they do about one differs, and
some wait for ever.
"""

from __future__ import annotations

import inspect
import os
import queue
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, suppress
from typing import Any, Protocol

import numpy.typing as npt

from ..batching.passes import Prefetching
from .feeding import Feeding
from .interrupts import check, held, is_main_thread
from .processes import Workers, catchable

_TICK_SECONDS = 0.02

Batches = Generator[Any, None, None]


class Pass(Protocol):
    """One epoch's batches as they come, whatever happens to the sequence meanwhile."""

    @property
    def weights(self) -> Any: ...
    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Any: ...
    def empty(self, shape: tuple[int, ...], dtype: Any) -> npt.NDArray[Any]: ...


def run_pass(
    sequence: Any,
    shuffle: bool,
    enqueuer_kind: Callable[..., Any],
    feeding: Feeding,
    adapter: Any = None,
) -> Iterator[Any]:
    """Yield each batch of one pass once; what works for it ends with it, finished or not.

    Of all passes of a call, those of the adapter that trains may begin in the middle of an epoch.

    Each is checked as `NumeraiSequence.check` does: workers leave that to who hands batches on.
    """
    run = _Run()
    feeding.add(run)
    prefetching = feeding.prefetching(sequence)
    try:
        with held():
            # Who shuffles knows which batch comes next.
            one_pass = sequence.one_pass(
                place=feeding.place(adapter, sequence), shuffle=shuffle, prefetching=prefetching
            )
            if feeding.trains(adapter):
                feeding.weights = one_pass.weights
            count = len(one_pass)
            made = run.batches(one_pass, prefetching, enqueuer_kind)
        with closing(made) as batches:
            for number, batch in enumerate(batches, 1):
                check()
                sequence.check(is_last=number == count)
                yield batch
    except Exception as error:
        if run.has_ended:  # and whoever has ended it wants nothing more of it
            return
        run.failure = error
        raise
    finally:
        run.end()


class _Run:
    """A pass at work: what makes its batches, and how it has failed, if it has."""

    def __init__(self) -> None:
        self.failure: Exception | None = None
        self.has_ended = False
        self._process = os.getpid()
        self._workers: Workers | None = None
        self._enqueuer: Any = None
        # The garbage collector may come upon its generator in the thread that ends it.
        self._ending = threading.RLock()

    def batches(
        self, one_pass: Pass, prefetching: Prefetching, kind: Callable[..., Any]
    ) -> Batches:
        if prefetching.workers <= 1 and not prefetching.processes:
            return self._made_here(one_pass)
        get = one_pass.__getitem__
        if prefetching.processes:
            self._workers = Workers(one_pass, prefetching.processes)
            self._workers.start()
            get = self._workers.batch
        self._start_enqueuer(_Enqueued(len(one_pass), get), prefetching, kind)
        return self._enqueued(len(one_pass))

    def _made_here(self, one_pass: Pass) -> Batches:
        for place in range(len(one_pass)):
            if self.has_ended:
                return
            yield _make_here(one_pass, place)

    def _start_enqueuer(
        self, enqueued: _Enqueued, prefetching: Prefetching, kind: Callable[..., Any]
    ) -> None:
        workers, _, size = prefetching
        options = {"workers": workers, "max_queue_size": size}
        # Where the two belong has changed within Keras 3.
        at_start = "workers" not in inspect.signature(kind).parameters
        self._enqueuer = kind(
            enqueued, use_multiprocessing=False, shuffle=False, **({} if at_start else options)
        )
        self._enqueuer.start(**(options if at_start else {}))

    def _enqueued(self, count: int) -> Batches:
        with closing(self._enqueuer.get()) as batches:
            for number, batch in enumerate(batches, 1):
                if isinstance(batch, _Failed):
                    batch.throw()
                if number == count:
                    self._stop()  # before the last batch is used, so that none is begun after it
                yield batch
                if number == count:
                    return

    def end(self) -> None:
        """End all that works for the pass. Once more does what an interruption has left."""
        if os.getpid() != self._process:  # a process that was forked ends nothing of its parent's
            return
        self.has_ended = True
        self._stop()

    def _stop(self) -> None:
        with self._ending, held():
            if self._workers is not None:
                self._workers.end()
            if self._enqueuer is not None:
                _end_enqueuer(self._enqueuer)
            self._workers = self._enqueuer = None


def _make_here(one_pass: Pass, place: int) -> Any:
    try:
        return one_pass[place]
    except Exception:
        raise
    except BaseException as error:
        if is_main_thread():
            raise
        # In a thread of TensorFlow's it would be lost.
        raise catchable(error) from None


def _end_enqueuer(enqueuer: Any) -> None:
    """End an enqueuer's thread, without waiting for the batches that are being made."""
    thread = enqueuer.run_thread
    if thread is None:  # it has not been started
        return
    waits = "drain_queue_and_join" in inspect.signature(enqueuer.stop).parameters
    enqueuer.stop(**({"drain_queue_and_join": False} if waits else {"timeout": 0}))
    made = enqueuer.future_queue if hasattr(enqueuer, "future_queue") else enqueuer.queue
    while thread.is_alive():  # it may wait for room in the queue
        with suppress(queue.Empty):
            made.get(timeout=_TICK_SECONDS)
    with suppress(queue.Full):  # then nobody waits
        made.put_nowait(_Nothing())


class _Enqueued:
    """A pass as an enqueuer wants it: with the names of both generations, and deaf to hooks."""

    def __init__(self, count: int, get: Callable[[int], Any]) -> None:
        self.num_batches, self._get = count, get

    def __len__(self) -> int:
        return self.num_batches

    def __getitem__(self, index: int) -> Any:
        try:
            return self._get(index)
        except BaseException as error:
            return _Failed(catchable(error))

    def on_epoch_end(self) -> None:
        """Do nothing: Keras 2's enqueuer calls this from a thread of its own."""


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


class _Nothing:
    """Wakes who waits for a batch of a pass that has ended, and is none."""

    def get(self) -> None: ...
