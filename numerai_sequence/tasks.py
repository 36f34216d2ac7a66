"""Tasks: calls that do not need each other are given to an executor, such as Ray's machines."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Executor, Future, as_completed, wait
from contextlib import contextmanager
from typing import Any, TypeVar

from .errors import NumeraiSequenceError, WorkerError
from .extras import load_extra

T = TypeVar("T")

_TIMEOUT_SECONDS = 10


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
    killed, or whose machine is lost, is run again. Functions, arguments and results are pickled;
    this package has to be installed on all machines, and paths have to mean the same on all.

    Ray is not started or shut down here: that is `ray.init`.

    Parameters
    ----------
    num_cpus : float
        That a task takes: Ray runs as many tasks at a time as it has processors for.
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

    def submit(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Return the future of a call.

        Its `cancel` stops a task that runs, too, and returns False then: wait for its end.

        Raises
        ------
        WorkerError
            From the future: the task's worker was killed more often than it is run again.
        """
        name = getattr(function, "__name__", "call")
        call = self._ray.remote(_call).options(name=name, **self._options)
        task = call.remote(function, args, kwargs)
        return _RayFuture(self._ray, task)


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

    def _settle(self, done: Future[Any]) -> None:
        error = done.exception()
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
        return cause


def _call(function: Callable[..., T], args: Any, kwargs: Any) -> T:
    return function(*args, **kwargs)
