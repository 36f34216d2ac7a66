"""Processes: worker processes that make the batches of one pass, each at its own end of a socket.

A place in the pass goes in; its batch comes out, or the error that was raised there. Whatever a
process is at when it dies, its socket closes, and who waits for a batch learns of it at once. A
queue that processes share does not tell: a reader waits for ever for the rest of a message.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import signal
import socket
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.reduction import ForkingPickler
from queue import SimpleQueue
from typing import Any
from weakref import WeakSet

from ..errors import WorkerError
from ..system.locks import ForkSafeLock
from .socket_messages import pack, read, unpack, write

_ENDING_SECONDS = 5.0
_LOOK_SECONDS = 1.0
_THREADS = "threads, which share their memory: workers=4 without use_multiprocessing"

# This process's ends. One that is forked closes them, or the others would never see it die.
_OURS: WeakSet[socket.socket] = WeakSet()
# A process that is forked meanwhile by another thread would keep the other ends.
_STARTING = ForkSafeLock()


class Workers:
    """Worker processes of one pass, of which as many threads may ask for batches at once.

    Parameters
    ----------
    one_pass : Pass
        It gives the memory for the largest array of a batch.
    count : int
        Processes, and threads.
    """

    def __init__(self, one_pass: Any, count: int) -> None:
        self._all = [_Worker(one_pass) for _ in range(count)]
        self._free: SimpleQueue[_Worker] = SimpleQueue()

    def start(self) -> None:
        """Start the processes, by the start method that holds for all of Python.

        Raises
        ------
        WorkerError
            The system has no room for one more; or the sequence cannot be pickled for it.
        """
        for worker in self._all:
            worker.start()
            self._free.put(worker)

    def batch(self, place: int) -> Any:
        """Return the batch at a place in the pass, or raise what was raised there.

        Raises
        ------
        WorkerError
            The process has died, or what it raised cannot reach this one.
        """
        worker = self._free.get()
        try:
            return worker.batch(place)
        finally:
            self._free.put(worker)

    def end(self) -> None:
        """Kill the processes, whatever they are at. Doing so again changes nothing."""
        for worker in self._all:
            worker.kill()
        deadline = time.monotonic() + _ENDING_SECONDS
        for worker in self._all:
            worker.close(max(0.1, deadline - time.monotonic()))


class _Worker:
    def __init__(self, one_pass: Any) -> None:
        self._pass = one_pass
        self._using = threading.Lock()
        self._process: multiprocessing.Process | None = None
        self._socket: socket.socket | None = None
        self._has_answered = False

    def start(self) -> None:
        with _STARTING, _interrupts_blocked():
            self._socket, theirs = _connected()
            _OURS.add(self._socket)
            with theirs:
                args = theirs, UnpickledOnDemand(self._pass)
                process = multiprocessing.Process(target=_work, args=args, daemon=True)
                try:
                    process.start()
                except OSError as error:
                    raise WorkerError(f"no worker process: {error}; use {_THREADS}") from error
                except pickle.PicklingError as error:
                    raise WorkerError(
                        f"no worker process: {error}; if the package was imported again since, or "
                        "a class defined again, open the set and make the sequence anew; or use "
                        f"{_THREADS}"
                    ) from error
                self._process = process

    def batch(self, place: int) -> Any:
        with self._using:
            process, end = self._process, self._socket
            if process is None or end is None:
                raise WorkerError("worker process: found none, since its pass has ended")
            try:
                write(end, pack(place))
                if not self._has_answered:
                    _await_answer(process, end)
                    self._has_answered = True
                parts = read(end, self._pass.empty)
            except (OSError, EOFError):
                raise _death(process) from None
        is_batch, value = unpack(parts)
        if is_batch:
            return value
        raise _restore(process.pid, *value)

    def kill(self) -> None:
        if self._socket is not None:
            with suppress(OSError):  # nobody is at its other end
                self._socket.shutdown(socket.SHUT_RDWR)  # wakes who waits for a batch
        if self._process is not None:
            self._process.kill()

    def close(self, wait_seconds: float) -> None:
        if self._process is not None:
            self._process.join(wait_seconds)
        if self._using.acquire(timeout=wait_seconds):
            if self._socket is not None:
                self._socket.close()
            # Its descriptors are closed with the last who refers to it.
            self._process = self._socket = None
            self._using.release()


def _connected() -> tuple[socket.socket, socket.socket]:
    """Return two sockets that are connected, and send each part of a message at once."""
    ends = socket.socketpair()
    for end in ends:
        if end.family != getattr(socket, "AF_UNIX", None):  # Windows connects them by TCP
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return ends


def _await_answer(process: multiprocessing.Process, end: socket.socket) -> None:
    """Wait until a process begins its first answer.

    On Windows a spawned process fetches its end from this one. Until then this process holds both,
    and no end closes when the other process dies.

    Raises
    ------
    EOFError, OSError
        The process has died.
    """
    end.settimeout(_LOOK_SECONDS)
    try:
        while True:
            with suppress(TimeoutError):
                end.recv(1, socket.MSG_PEEK)
                return
            if not process.is_alive():
                raise EOFError
    finally:
        end.settimeout(None)


def _death(process: multiprocessing.Process) -> WorkerError:
    process.join(_ENDING_SECONDS)
    code = process.exitcode
    if code is not None and code < 0:
        why = f"was killed by {_signal_name(-code)}"
        if code == -getattr(signal, "SIGKILL", 0):
            why += ", most likely because memory had run out"
        remedy = f"use fewer workers, or {_THREADS}"
    else:
        why = f"ended with exit code {code} before its pass had ended"
        remedy = (
            "see what it wrote to stderr; where processes are spawned, a script has to train under "
            f"if __name__ == '__main__'; or use {_THREADS}"
        )
    return WorkerError(
        f"worker process {process.pid} {why}; {remedy}", pid=process.pid, exitcode=code
    )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # one of those that have no name
        return f"signal {number}"


class UnpickledOnDemand:
    """A pass that a process which is not forked unpickles when it is asked for, and no sooner.

    What goes wrong then is told like any other error.
    """

    def __init__(self, one_pass: Any, pickled: bytes = b"") -> None:
        self._pass, self._pickled = one_pass, pickled

    def __reduce__(self) -> Any:
        return UnpickledOnDemand, (None, bytes(ForkingPickler.dumps(self._pass)))

    def get(self) -> Any:
        if self._pass is None:
            self._pass = pickle.loads(self._pickled)
        return self._pass


def _work(parent: socket.socket, late: UnpickledOnDemand) -> None:
    """Make batches until the parent wants no more, or is gone."""
    gc.freeze()  # what is the parent's to end is not collected here
    # Ctrl-C reaches every process of a terminal: it is the parent that ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    for end in list(_OURS):
        end.close()
    parent.settimeout(None)
    with suppress(OSError, EOFError):
        while True:
            place = unpack(read(parent))
            try:
                parts = pack((True, late.get()[place]))
            except BaseException as error:
                parts = pack((False, _describe(error)))
            write(parent, parts)
            del parts  # whose memory is used again


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Let the processes that are started meanwhile inherit that SIGINT waits."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    from multiprocessing import forkserver, resource_tracker  # of Unix

    # Python's own processes are for all that the user starts, and shall not inherit it.
    method = multiprocessing.get_start_method()
    if method == "forkserver":
        forkserver.ensure_running()
    if method != "fork":
        resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def catchable(error: BaseException, pid: int | None = None) -> Exception:
    """Return an error that ``fit`` can raise: a `WorkerError` for what ends threads or programs."""
    if isinstance(error, Exception):
        return error
    where = "a worker" if pid is None else f"worker process {pid}"
    return WorkerError(
        f"{where}: {error!r} was raised while a batch was made, expected an Exception: no worker "
        "can end a program; raise one",
        pid=pid,
    )


def _describe(error: BaseException) -> tuple[bytes | None, str, str]:
    """Return an error as a pickle, if it can be one, in a line, and with its traceback."""
    what = "".join(traceback.format_exception_only(type(error), error)).strip()
    trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    try:
        pickled = pickle.dumps(catchable(error, os.getpid()))
    except Exception:
        pickled = None
    return pickled, what, trace


def _restore(pid: int | None, pickled: bytes | None, what: str, trace: str) -> Exception:
    """Return the error of a worker process, or one that says all of it."""
    try:
        error = pickle.loads(pickled or b"")
    except Exception:
        error = None
    if not isinstance(error, Exception):
        message = f"worker process {pid}: {what}; which cannot be pickled, so here is where"
        return WorkerError(f"{message}:\n{trace}", pid=pid)
    if hasattr(error, "add_note"):
        error.add_note(f"In worker process {pid}:\n{trace}")
    else:  # Python 3.10
        error.__cause__ = WorkerError(f"worker process {pid}:\n{trace}", pid=pid)
    return error
