"""Locks: so many threads at a time, and none that a forked process would wait for for ever."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from numerai_sequence.system.fork_safe_locks import ForkSafeLock, ForkSafeTurns


@pytest.mark.parametrize(
    ("lock", "turns"), [(ForkSafeLock(), 1), (ForkSafeTurns(1), 1), (ForkSafeTurns(3), 3)]
)
def test_as_many_threads_are_in_at_a_time_as_there_are_turns(lock, turns):
    counting, inside, most = threading.Lock(), [], []
    meet = threading.Barrier(turns, timeout=30)

    def work():
        for _ in range(20):
            with lock:
                with counting:
                    inside.append(1)
                    most.append(len(inside))
                meet.wait()  # all turns are given
                with counting:
                    inside.pop()

    threads = [threading.Thread(target=work) for _ in range(3 * turns)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 60 * turns
    assert max(most) == turns


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.filterwarnings("ignore:.*fork")
@pytest.mark.parametrize("make", [ForkSafeLock, lambda: ForkSafeTurns(1)], ids=["lock", "turns"])
def test_a_forked_process_has_turns_of_its_own(make):
    lock = make()
    with lock:
        child = os.fork()
        if not child:
            signal.alarm(10)
            with lock:
                os._exit(3)
        status = os.waitpid(child, 0)[1]
    assert os.waitstatus_to_exitcode(status) == 3
    with lock:
        pass
