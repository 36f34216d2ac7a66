"""Executor tasks: independent calls that an executor runs in parallel, such as Ray's machines."""

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
from .optional_packages import load_extra

T = TypeVar("T")

_TIMEOUT_SECONDS = 10
_LOOK_SECONDS = 2


def run_all(
    executor: Executor,
    function: Callable[..., T],
    arguments: Sequence[tuple[Any, ...]],
    note: Callable[[int, T], object],
) -> None:
    """Call a function with each of several tuples of arguments, many calls at a time.

    Parameters
    ----------
    executor : Executor
    function : function
    arguments : sequence of tuple
        Arguments of each call.
    note : function
        Function of the number of a call and its result. This thread calls it as soon as the
        result is known.

    Raises
    ------
    Exception
        The error of the first call that failed. No other call is left running.
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
    """An executor that runs calls as Ray tasks, on all machines of a cluster.

    ``write_shards(..., executor=RayTasks())`` writes one set with several machines.
    ``RayTasks().map(fit_fold, splits)`` trains the folds of a walk forward. Install this package
    on all machines. Use paths that name the same files on all machines. Functions, arguments and
    results are pickled.

    Ray repeats a task if its worker is killed or its machine is lost. If the head of the cluster
    is lost, every unfinished call raises an error.

    `RayTasks` does not start Ray or shut it down: call `ray.init` and `ray.shutdown`.

    Parameters
    ----------
    num_cpus : float
        Processors for each task. The processors of the cluster limit the number of tasks that run
        at the same time. If no machine has enough processors for a task, a warning says so, and the
        task waits until a larger machine joins.
    num_gpus : float
        GPUs for each task.
    max_retries : int
        Largest number of times that Ray repeats a lost task.

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
        """Start a call as a Ray task, and return its future.

        Parameters
        ----------
        function : function
            Function to call. It is pickled, as are its arguments.
        *args, **kwargs
            Arguments of the call.

        Returns
        -------
        concurrent.futures.Future
            The future of the call. `cancel` also stops a running task. It always returns False, so
            wait until the task has ended.

        Raises
        ------
        WorkerError
            The future raises it. The task was lost more often than `max_retries`. The head of the
            cluster is lost. A machine lacks a package that the call needs.
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
    """Join a Ray cluster for a while, and yield its `RayTasks`; ``"local"`` starts one here.

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
            f"{address}: found no Ray cluster ({error}); start one with 'ray start', or use 'local'"
        ) from error
    try:
        yield RayTasks()
    finally:
        ray.shutdown()


def _check_address(address: str) -> None:
    """Raise an OSError if nothing answers at the address: Ray itself would try for minutes."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if colon:
        socket.create_connection((host, int(port)), timeout=_TIMEOUT_SECONDS).close()


def _load_ray() -> Any:
    return load_extra("ray", "ray", "tasks on other machines", extra="ray")


class _RayFuture(Future[T]):
    """The future of a Ray task."""

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
        """Return the error that the function raised, or one that says why its task was lost."""
        exceptions = self._ray.exceptions
        lost = exceptions.WorkerCrashedError, exceptions.NodeDiedError, exceptions.OutOfMemoryError
        if isinstance(error, lost):
            return WorkerError(
                f"a Ray task was lost too often: {error}; free memory on its machine, or raise "
                "num_cpus of RayTasks, so that fewer tasks run at a time",
            )
        if isinstance(error, exceptions.TaskCancelledError):
            return CancelledError(str(error))
        cause: BaseException = getattr(error, "cause", error)
        lines = str(cause).splitlines()
        missing = [line for line in lines if "No module named" in line]
        is_unread = "failed to import on the worker" in lines[0] if lines else False
        if missing and (is_unread or isinstance(cause, exceptions.RaySystemError)):
            return WorkerError(
                f"a Ray machine cannot load a task: {missing[-1]}; install the same packages on "
                "all machines, such as 'numerai_sequence[ray,train]'"
            )
        return cause


class _Watch:
    """A thread that ends the tasks of a cluster whose head is lost.

    Ray itself would end this process without an error.

    Parameters
    ----------
    head : (host, port), optional
        Address of the head. None if it cannot be known: then nothing is watched.
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
                    f"{self._head[0]}:{self._head[1]}: the head of the Ray cluster has not "
                    f"answered for {seconds:.0f} seconds, so its tasks are lost; call "
                    "ray.shutdown() before "
                    "Ray ends this process, start the cluster again, call ray.init, and repeat the "
                    "call"
                )
            )


def _patience_seconds() -> float:
    """Return how long a head may be silent; Ray itself ends the process after 1.5 times that."""
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
    """Warn if no machine is large enough for a task, which then waits, perhaps forever."""
    sizes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    for option, name in (("num_cpus", "CPU"), ("num_gpus", "GPU")):
        asked, most = options[option], max((size.get(name, 0) for size in sizes), default=0)
        if asked > most:
            warnings.warn(
                f"RayTasks: found {option}={asked:g}, but the largest machine of the cluster has "
                f"{most:g}; lower {option}, or the tasks wait until a larger machine joins",
                stacklevel=3,
            )


def _call(function: Callable[..., T], args: Any, kwargs: Any) -> T:
    return function(*args, **kwargs)
