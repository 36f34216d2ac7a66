"""Processes: workers that live, raise, die and end, each for real."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from worker_batches import Squares

from numerai_sequence import WorkerError
from numerai_sequence.feeding.worker_processes import Workers, catchable

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="signals and forks are of Unix")
METHODS = ["fork", "forkserver", "spawn"]


@pytest.fixture
def method(request):
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method(request.param, force=True)
    yield request.param
    multiprocessing.set_start_method(before, force=True)


@pytest.fixture
def workers():
    made = Workers(Squares(), 2)
    made.start()
    yield made
    made.end()


def descriptors():
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("method", METHODS, indirect=True)
def test_threads_get_the_batches_they_ask_for(method):
    workers = Workers(Squares(), 2)
    workers.start()
    try:
        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(workers.batch, range(40)))
    finally:
        workers.end()
    assert [int(batch[0, 0]) for batch, _ in found] == [place**2 for place in range(40)]
    pids = {pid for _, pid in found}
    assert len(pids) == 2
    assert os.getpid() not in pids


@pytest.mark.parametrize("method", METHODS, indirect=True)
@pytest.mark.parametrize(
    ("place", "kind", "message"),
    [
        (100, WorkerError, r"found SystemExit\(3\) raised in a batch"),
        (101, ZeroDivisionError, "division by zero"),
        (102, WorkerError, r"TwoArguments: a b; it cannot be pickled(.|\n)*in raise_two"),
        (103, WorkerError, "was killed by SIGKILL, most likely because memory ran out"),
        (104, WorkerError, "ended with exit code 7 before"),
    ],
    ids=["exit", "error", "unpicklable", "killed", "left"],
)
def test_trouble_is_raised_as_what_it_is(method, place, kind, message):
    workers = Workers(Squares(), 1)
    workers.start()
    try:
        with pytest.raises(kind, match=message) as info:
            workers.batch(place)
        if kind is WorkerError:
            assert isinstance(info.value.pid, int)
            assert info.value.pid != os.getpid()
        if place < 103:  # the process goes on
            assert workers.batch(3)[0][0, 0] == 9
    finally:
        workers.end()


def test_an_error_tells_where_in_the_worker_it_was_raised(workers):
    with pytest.raises(ZeroDivisionError) as info:
        workers.batch(101)
    told = "".join(getattr(info.value, "__notes__", [])) + str(info.value.__cause__)
    assert "In worker process" in told or "worker process" in told
    assert "__getitem__" in told


def test_how_a_killed_worker_ended_is_known(workers):
    with pytest.raises(WorkerError) as info:
        workers.batch(103)
    assert info.value.exitcode == -signal.SIGKILL


def test_who_waits_for_a_batch_wakes_when_the_workers_end(workers):
    raised = []

    def ask():
        try:
            workers.batch(105)
        except WorkerError as error:
            raised.append(str(error))

    waiting = threading.Thread(target=ask)
    waiting.start()
    time.sleep(0.3)
    started = time.monotonic()
    workers.end()
    waiting.join(10)
    assert len(raised) == 1
    assert time.monotonic() - started < 5


def test_nothing_is_left_and_the_end_may_come_twice():
    children, before = multiprocessing.active_children(), descriptors()
    workers = Workers(Squares(), 3)
    workers.start()
    assert len(multiprocessing.active_children()) == len(children) + 3
    workers.batch(1)
    workers.end()
    workers.end()
    assert multiprocessing.active_children() == children
    assert descriptors() == before
    with pytest.raises(WorkerError, match="its pass has ended"):
        workers.batch(1)


@pytest.mark.parametrize("method", METHODS[1:], indirect=True)
def test_a_pass_of_a_class_that_was_made_again_is_an_error_of_ours(method):
    older = type("Squares", (Squares,), {"__qualname__": "Squares", "__module__": __name__})
    made = Workers(older(), 2)
    with pytest.raises(WorkerError, match=r"not the same object.*, open the set and make the"):
        made.start()
    made.end()


def test_a_pass_that_does_not_unpickle_is_an_error_of_the_first_batch():
    class Local(Squares):
        def __reduce__(self):
            return divide, (1, 0)

    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method("spawn", force=True)
    workers = Workers(Local(), 1)
    try:
        workers.start()
        with pytest.raises(ZeroDivisionError):
            workers.batch(0)
    finally:
        workers.end()
        multiprocessing.set_start_method(before, force=True)


def divide(one, other):
    return one / other


def test_a_worker_ignores_ctrl_c_which_its_parent_handles(workers):
    _, pid = workers.batch(2)
    os.kill(pid, signal.SIGINT)
    time.sleep(0.1)
    assert {workers.batch(place)[1] for place in range(4)} >= {pid}


def test_what_fit_can_raise():
    error = ValueError("a")
    assert catchable(error) is error
    made = catchable(KeyboardInterrupt("b"), 5)
    assert isinstance(made, WorkerError)
    assert str(made).startswith("worker process 5: found KeyboardInterrupt('b') raised")
    assert made.pid == 5
    assert pickle.loads(pickle.dumps(made)).pid == 5
