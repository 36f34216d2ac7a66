"""Worker processes: processes that make the batches of one pass, each with its own socket.

A process receives a place in the pass, and sends the batch, or its error. If a process dies, its
socket closes, so the thread that waits for a batch notices at once. With a shared queue, the thread
would wait forever for the rest of a message.
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
from ..system.fork_safe_locks import ForkSafeLock
from .socket_messages import pack, read, unpack, write

_ENDING_SECONDS = 5.0
_LOOK_SECONDS = 1.0
_THREADS = "threads, which share their memory: workers=4 without use_multiprocessing"

# This process's ends. A forked process closes them, or nobody would notice this one's death.
_OURS: WeakSet[socket.socket] = WeakSet()
# Held while a process starts: one forked by another thread would keep the other ends open.
_STARTING = ForkSafeLock()


class Workers:
    """The worker processes of one pass. As many threads may request batches at once.

    Parameters
    ----------
    one_pass : Pass
        The pass, which also has memory for the largest array of a batch.
    count : int
        Number of processes, and of threads.
    """

    def __init__(self, one_pass: Any, count: int) -> None:
        self._all = [_Worker(one_pass) for _ in range(count)]
        self._free: SimpleQueue[_Worker] = SimpleQueue()

    def start(self) -> None:
        """Start the processes, with Python's present start method.

        Raises
        ------
        WorkerError
            The system cannot start another process, or the sequence cannot be pickled.
        """
        for worker in self._all:
            worker.start()
            self._free.put(worker)

    def batch(self, place: int) -> Any:
        """Return the batch at a place in the pass, or raise its error.

        Raises
        ------
        WorkerError
            The process has died, or its error cannot be pickled.
        """
        worker = self._free.get()
        try:
            return worker.batch(place)
        finally:
            self._free.put(worker)

    def end(self) -> None:
        """Kill the processes. Calling it again changes nothing."""
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
                    raise WorkerError(
                        f"cannot start a worker process: {error}; use {_THREADS}"
                    ) from error
                except pickle.PicklingError as error:
                    raise WorkerError(
                        f"cannot start a worker process: {error}; after the package is imported "
                        "again, or a class defined again, open the set and make the sequence "
                        f"again; or use {_THREADS}"
                    ) from error
                self._process = process

    def batch(self, place: int) -> Any:
        with self._using:
            process, end = self._process, self._socket
            if process is None or end is None:
                raise WorkerError("worker process: found none, because its pass has ended")
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
            with suppress(OSError):  # the other end is closed
                self._socket.shutdown(socket.SHUT_RDWR)  # wakes a thread that waits for a batch
        if self._process is not None:
            self._process.kill()

    def close(self, wait_seconds: float) -> None:
        if self._process is not None:
            self._process.join(wait_seconds)
        if self._using.acquire(timeout=wait_seconds):
            if self._socket is not None:
                self._socket.close()
            # Its descriptors close with the last reference to it.
            self._process = self._socket = None
            self._using.release()


def _connected() -> tuple[socket.socket, socket.socket]:
    """Return two connected sockets, which send each part of a message without delay."""
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
            why += ", most likely because memory ran out"
        remedy = f"use fewer workers, or {_THREADS}"
    else:
        why = f"ended with exit code {code} before its pass had ended"
        remedy = (
            "see its messages on stderr; with spawned processes, a script must train under "
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
    """A pass that a spawned process unpickles with the first batch.

    So an error in unpickling is sent like any other error.
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
    """Make batches until the parent closes the socket or ends."""
    gc.freeze()  # the parent's objects must not be collected and ended here
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
            del parts  # so that their memory is used again


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Block SIGINT, so that processes that are started in the block inherit this."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    from multiprocessing import forkserver, resource_tracker  # of Unix

    # Python's helper processes serve all of the user's processes, and must not inherit it.
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
    """Return an error that ``fit`` can raise: a `WorkerError` for SystemExit and the like."""
    if isinstance(error, Exception):
        return error
    where = "a worker" if pid is None else f"worker process {pid}"
    return WorkerError(
        f"{where}: found {error!r} raised in a batch, expected an Exception, because a worker "
        "cannot end the program; raise an Exception",
        pid=pid,
    )


def _describe(error: BaseException) -> tuple[bytes | None, str, str]:
    """Return an error as a pickle (None if it cannot be pickled), as a line, and its traceback."""
    what = "".join(traceback.format_exception_only(type(error), error)).strip()
    trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    try:
        pickled = pickle.dumps(catchable(error, os.getpid()))
    except Exception:
        pickled = None
    return pickled, what, trace


def _restore(pid: int | None, pickled: bytes | None, what: str, trace: str) -> Exception:
    """Return the error of a worker process, or a `WorkerError` with its traceback."""
    try:
        error = pickle.loads(pickled or b"")
    except Exception:
        error = None
    if not isinstance(error, Exception):
        message = f"worker process {pid}: {what}; it cannot be pickled, so this is its traceback"
        return WorkerError(f"{message}:\n{trace}", pid=pid)
    if hasattr(error, "add_note"):
        error.add_note(f"In worker process {pid}:\n{trace}")
    else:  # Python 3.10
        error.__cause__ = WorkerError(f"worker process {pid}:\n{trace}", pid=pid)
    return error
