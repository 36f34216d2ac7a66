"""Epoch workers: run one pass over a sequence with its own workers, which end with the pass.

Workers are threads. With processes, each of these threads waits for one process.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Generator, Iterator
from contextlib import closing
from typing import Any, Protocol

import numpy.typing as npt

from ..batching.prefetching import Prefetching
from .fit_call import FitCall
from .interrupts import check, interrupts_deferred, is_main_thread
from .read_ahead import Ahead
from .worker_processes import Workers, catchable

Batches = Generator[Any, None, None]


class Pass(Protocol):
    """The batches of one pass. `Epoch` is one."""

    @property
    def weights(self) -> Any: ...
    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Any: ...
    def empty(self, shape: tuple[int, ...], dtype: Any) -> npt.NDArray[Any]: ...


def run_pass(
    sequence: Any,
    shuffle: bool,
    call: FitCall,
    adapter: Any = None,
    *,
    overlaps: bool = True,
) -> Iterator[Any]:
    """Yield each batch of one pass once. Its workers end with it, also if it is interrupted.

    Passes for training may begin in the middle of an epoch. With `overlaps`, batches are read in a
    thread that does nothing else, so a single worker is this thread. Otherwise, it is another
    thread.

    `NumeraiSequence.check` is called here for each batch, and not in the workers.
    """
    run = _Run()
    call.add(run)
    prefetching = call.prefetching(sequence)
    try:
        with interrupts_deferred():
            # The pass shuffles, so that it knows the next batch.
            one_pass = sequence.one_pass(
                place=call.place(adapter, sequence), shuffle=shuffle, prefetching=prefetching
            )
            if call.trains(adapter):
                call.weights = one_pass.weights
            count = len(one_pass)
            made = run.batches(one_pass, prefetching, overlaps=overlaps)
        with closing(made) as batches:
            for number, batch in enumerate(batches, 1):
                check()
                sequence.check(is_last=number == count)
                yield batch
    except Exception as error:
        if run.has_ended:  # and nobody needs the error
            return
        run.failure = error
        raise
    finally:
        run.end()


class _Run:
    """A running pass: its workers, and its error if it has failed."""

    def __init__(self) -> None:
        self.failure: Exception | None = None
        self.has_ended = False
        self._process = os.getpid()
        self._workers: Workers | None = None
        self._ahead: Ahead | None = None
        # Reentrant: the garbage collector may end its generator in the thread that ends it.
        self._ending = threading.RLock()

    def batches(self, one_pass: Pass, prefetching: Prefetching, *, overlaps: bool) -> Batches:
        if prefetching.workers <= int(overlaps) and not prefetching.processes:
            return self._made_here(one_pass)
        get = one_pass.__getitem__
        if prefetching.processes:
            self._workers = Workers(one_pass, prefetching.processes)
            self._workers.start()
            get = self._workers.batch
        count, (workers, _, size) = len(one_pass), prefetching
        self._ahead = Ahead(get, count, workers, size)
        return self._made_ahead(self._ahead, count)

    def _made_here(self, one_pass: Pass) -> Batches:
        for place in range(len(one_pass)):
            if self.has_ended:
                return
            yield _make_here(one_pass, place)

    def _made_ahead(self, ahead: Ahead, count: int) -> Batches:
        for number in range(1, count + 1):
            batch = ahead.take()
            if self.has_ended:
                return
            if number == count:
                self._stop()  # before the last batch is used, which may begin another pass
            yield batch

    def end(self) -> None:
        """End the workers of the pass. After an interruption, call it again to end the rest."""
        if os.getpid() != self._process:  # a forked process must not end its parent's workers
            return
        self.has_ended = True
        self._stop()

    def _stop(self) -> None:
        with self._ending, interrupts_deferred():
            if self._workers is not None:
                self._workers.end()
            if self._ahead is not None:
                self._ahead.end()
            self._workers = self._ahead = None


def _make_here(one_pass: Pass, place: int) -> Any:
    try:
        return one_pass[place]
    except Exception:
        raise
    except BaseException as error:
        if is_main_thread():
            raise
        # In a thread of TensorFlow it would be lost.
        raise catchable(error) from None
