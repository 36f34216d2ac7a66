"""Tasks: calls that do not need each other are given to an executor, such as Ray's machines."""

from __future__ import annotations

import os
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import (
    CancelledError,
    Executor,
    Future,
    InvalidStateError,
    as_completed,
    wait,
)
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from ..errors import NumeraiSequenceError, WorkerError
from .extras import load_extra

T = TypeVar("T")

_TIMEOUT_SECONDS = 10
_LOOK_SECONDS = 2


def run_all(
    executor: Executor,
    function: Callable[..., T],
    arguments: Sequence[tuple[Any, ...]],
    note: Callable[[int, T], object],
) -> None:
    """Call a function with each of several arguments, many at a time.

    Parameters
    ----------
    executor : Executor
    function : function
    arguments : sequence of tuple
    note : function
        Is called in this thread with the place of the arguments, and with what came of them, as
        soon as it has come.

    Raises
    ------
    Exception
        What the first call raised that did. No other one is left running.
    """
    futures: dict[Future[T], int] = {}
    try:
        for place, each in enumerate(arguments):
            futures[executor.submit(function, *each)] = place
        for future in as_completed(futures):
            note(futures[future], future.result())
    finally:
        for future in futures:
            future.cancel()
        wait(futures)


class RayTasks(Executor):
    """Runs calls as tasks of Ray, on as many machines as it has.

    ``write_shards(..., executor=RayTasks())`` writes one set from many files at a time, and
    ``RayTasks().map(fit_fold, splits)`` trains the folds of a walk forward. A task whose worker is
    killed, or whose machine is lost, is run again. Without the head of the cluster nothing can be:
    each call that is not done raises an error. Functions, arguments and results are pickled; this
    package has to be installed on all machines, and paths have to mean the same on all.

    Ray is not started or shut down here: that is `ray.init`.

    Parameters
    ----------
    num_cpus : float
        That a task takes: Ray runs as many tasks at a time as it has processors for. A task that
        no machine is large enough for waits for one that joins, with a warning.
    num_gpus : float
    max_retries : int
        How often a task that is lost is run again.

    Raises
    ------
    NumeraiSequenceError
        Ray is not installed.
    """

    def __init__(self, *, num_cpus: float = 1, num_gpus: float = 0, max_retries: int = 3) -> None:
        self._ray = _load_ray()
        self._options = {"num_cpus": num_cpus, "num_gpus": num_gpus, "max_retries": max_retries}
        self._watch: _Watch | None = None

    def submit(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Return the future of a call.

        Its `cancel` stops a task that runs, too, and returns False then: wait for its end.

        Raises
        ------
        WorkerError
            From the future: the task's worker was killed more often than it is run again; the head
            of the cluster is lost; or a machine lacks what the call needs to be read.
        """
        name = getattr(function, "__name__", "call")
        call = self._ray.remote(_call).options(name=name, **self._options)
        task = call.remote(function, args, kwargs)
        if self._watch is None:
            _warn_of_size(self._ray, self._options)
            self._watch = _Watch(_head_of(self._ray))
        future: _RayFuture[T] = _RayFuture(self._ray, task)
        self._watch.add(future)
        return future


@contextmanager
def ray_at(address: str) -> Iterator[RayTasks]:
    """Join a cluster of Ray's for a while, to give it tasks; ``"local"`` starts one here.

    Raises
    ------
    NumeraiSequenceError
        Ray is not installed, or there is no cluster at the address.
    """
    ray = _load_ray()
    try:
        _check_address(address)
        ray.init(address, include_dashboard=False if address == "local" else None)
    except (OSError, ValueError) as error:
        raise NumeraiSequenceError(
            f"{address}: no cluster of Ray's ({error}); start one with 'ray start', or use 'local'"
        ) from error
    try:
        yield RayTasks()
    finally:
        ray.shutdown()


def _check_address(address: str) -> None:
    """Raise an OSError where nobody is: Ray itself would try for minutes."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if colon:
        socket.create_connection((host, int(port)), timeout=_TIMEOUT_SECONDS).close()


def _load_ray() -> Any:
    return load_extra("ray", "ray", "tasks on other machines", extra="ray")


class _RayFuture(Future[T]):
    """The future of a task of Ray's."""

    def __init__(self, ray: Any, task: Any) -> None:
        super().__init__()
        self._ray, self._task = ray, task
        self.set_running_or_notify_cancel()  # else `cancel` would end it, and not the task
        task.future().add_done_callback(self._settle)

    def cancel(self) -> bool:
        if not self.done():
            self._ray.cancel(self._task)
        return False

    def lose(self, error: WorkerError) -> None:
        """End with an error, if it has not ended."""
        with suppress(InvalidStateError):
            self.set_exception(error)

    def _settle(self, done: Future[Any]) -> None:
        error = done.exception()
        with suppress(InvalidStateError):  # it was given up
            if error is None:
                self.set_result(done.result())
            else:
                self.set_exception(self._explain(error))

    def _explain(self, error: BaseException) -> BaseException:
        """Return what the function raised, or what became of its worker."""
        exceptions = self._ray.exceptions
        lost = exceptions.WorkerCrashedError, exceptions.NodeDiedError, exceptions.OutOfMemoryError
        if isinstance(error, lost):
            return WorkerError(
                f"a task of Ray's was lost, and too often to run it again: {error}; see to its "
                "machine's memory, or give each task more processors, so that fewer run at a time",
            )
        if isinstance(error, exceptions.TaskCancelledError):
            return CancelledError(str(error))
        cause: BaseException = getattr(error, "cause", error)
        lines = str(cause).splitlines()
        missing = [line for line in lines if "No module named" in line]
        is_unread = "failed to import on the worker" in lines[0] if lines else False
        if missing and (is_unread or isinstance(cause, exceptions.RaySystemError)):
            return WorkerError(
                f"a machine of Ray's cannot read a task: {missing[-1]}; install the same packages "
                "on all machines, such as 'numerai_sequence[ray,train]'"
            )
        return cause


class _Watch:
    """Gives up the tasks of a cluster whose head is lost: Ray would end this process, untold.

    Parameters
    ----------
    head : (host, port), optional
        Where the head listens; None where that cannot be known, and nothing is given up.
    """

    def __init__(self, head: tuple[str, int] | None) -> None:
        self._head = head
        self._lock = threading.Lock()
        self._tasks: set[_RayFuture[Any]] = set()
        self._is_at_work = False

    def add(self, task: _RayFuture[Any]) -> None:
        with self._lock:
            self._tasks.add(task)
            begins = self._head is not None and not self._is_at_work
            self._is_at_work = self._is_at_work or begins
        task.add_done_callback(self._forget)
        if begins:
            threading.Thread(target=self._look, name="head of Ray's", daemon=True).start()

    def _forget(self, task: Any) -> None:
        with self._lock:
            self._tasks.discard(task)

    def _look(self) -> None:
        assert self._head is not None
        answered, patience_seconds = time.monotonic(), _patience_seconds()
        while self._goes_on():
            time.sleep(_LOOK_SECONDS)
            if _answers(self._head):
                answered = time.monotonic()
            elif time.monotonic() - answered > patience_seconds:
                self._give_up(patience_seconds)

    def _goes_on(self) -> bool:
        with self._lock:
            self._is_at_work = bool(self._tasks)
            return self._is_at_work

    def _give_up(self, seconds: float) -> None:
        assert self._head is not None
        with self._lock:
            tasks = list(self._tasks)
        for task in tasks:
            task.lose(
                WorkerError(
                    f"{self._head[0]}:{self._head[1]}: the head of Ray's cluster has not answered "
                    f"for {seconds:.0f} seconds, and its tasks are lost; start the cluster again, "
                    "leave this one (ray.shutdown()) before Ray ends this process, and join it "
                    "(ray.init) for the same call again"
                )
            )


def _patience_seconds() -> float:
    """Return how long a head may be silent; Ray ends the process after half as much again."""
    name = "RAY_gcs_rpc_server_reconnect_timeout_s"
    return float(os.environ.get(name, 60)) * 2 / 3


def _head_of(ray: Any) -> tuple[str, int] | None:
    if ray.util.client.ray.is_connected():  # a proxy, which has its own view of the cluster
        return None
    host, colon, port = ray.get_runtime_context().gcs_address.rpartition(":")
    return (host.strip("[]"), int(port)) if colon else None


def _answers(head: tuple[str, int]) -> bool:
    try:
        socket.create_connection(head, timeout=_LOOK_SECONDS).close()
    except OSError:
        return False
    return True


def _warn_of_size(ray: Any, options: dict[str, float]) -> None:
    """Warn where no machine is large enough for a task: it waits, perhaps for ever."""
    sizes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    for option, name in (("num_cpus", "CPU"), ("num_gpus", "GPU")):
        asked, most = options[option], max((size.get(name, 0) for size in sizes), default=0)
        if asked > most:
            warnings.warn(
                f"RayTasks: found {option}={asked:g}, and no machine of the cluster has more than "
                f"{most:g}; the tasks wait until a larger one joins",
                stacklevel=3,
            )


def _call(function: Callable[..., T], args: Any, kwargs: Any) -> T:
    return function(*args, **kwargs)
