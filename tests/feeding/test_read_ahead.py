"""Ahead: batches in order, by one thread where nobody waits, and by more where somebody does."""

from __future__ import annotations

import threading
import time

import pytest

from numerai_sequence.feeding.read_ahead import Ahead

TIMEOUT_SECONDS = 30


class Making:
    """Makes batches that are their places, and notes who is at it."""

    def __init__(self, meet=0):
        # So many have to be at work at the same time for the first batches to be made.
        self.meet, self.met = meet, threading.Barrier(max(1, meet), timeout=TIMEOUT_SECONDS)
        self.lock = threading.Lock()
        self.inside = self.most = 0
        self.threads = []

    def __call__(self, place):
        with self.lock:
            self.threads.append(threading.get_ident())
            self.inside += 1
            self.most = max(self.most, self.inside)
        if place < self.meet:
            self.met.wait()
        with self.lock:
            self.inside -= 1
        return place


def take_late(ahead, count):
    """Take batches, each only when it is there; return the most that were begun and not taken."""
    most = 0
    for place in range(ahead._taken, ahead._taken + count):
        for _ in range(TIMEOUT_SECONDS * 1000):
            if place in ahead._made and not ahead._busy:
                break
            time.sleep(0.001)
        most = max(most, ahead._begun - ahead._taken)
        assert ahead.take() == place
    return most


@pytest.mark.parametrize("size", [1, 2, 3, 10])
@pytest.mark.parametrize("workers", [1, 2, 4, 16])
@pytest.mark.parametrize("count", [0, 1, 2, 50])
def test_each_batch_comes_once_in_order(count, workers, size):
    making = Making()
    ahead = Ahead(making, count, workers, size)
    assert [ahead.take() for _ in range(count)] == list(range(count))
    assert len(making.threads) == count
    assert making.most <= min(workers, size)


def test_one_thread_makes_the_batches_of_a_slow_network_and_few_ahead():
    making = Making()
    ahead = Ahead(making, 60, workers=4, size=10)
    assert take_late(ahead, 60) == 2
    assert len(set(making.threads)) == 1


@pytest.mark.parametrize("workers", [2, 4])
def test_all_threads_make_batches_where_somebody_waits(workers):
    making = Making(meet=workers)  # with fewer no batch would come
    ahead = Ahead(making, 60, workers, size=10)
    assert [ahead.take() for _ in range(60)] == list(range(60))
    assert making.most == workers


def test_no_more_batches_are_begun_than_the_queue_holds():
    making = Making(meet=3)
    ahead = Ahead(making, 60, workers=16, size=3)
    assert [ahead.take() for _ in range(60)] == list(range(60))
    assert making.most == 3


def test_threads_leave_again_when_nobody_waits():
    making = Making(meet=3)
    ahead = Ahead(making, 500, workers=3, size=10)
    assert [ahead.take() for _ in range(3)] == [0, 1, 2]
    assert take_late(ahead, 20) > 2
    take_late(ahead, 200)
    assert take_late(ahead, 20) == 2
    ahead.end()


def test_what_a_batch_raises_is_raised_where_it_is_taken():
    def get(place):
        if place == 3:
            raise ValueError("the fourth")
        return place

    ahead = Ahead(get, 6, workers=2, size=4)
    assert [ahead.take() for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="the fourth"):
        ahead.take()
    assert [ahead.take() for _ in range(2)] == [4, 5]


def test_whoever_waits_when_the_pass_ends_gets_none():
    begun, may_go_on = threading.Event(), threading.Event()

    def get(place):
        begun.set()
        may_go_on.wait(TIMEOUT_SECONDS)

    ahead, found = Ahead(get, 6, workers=2, size=4), []
    waiting = threading.Thread(target=lambda: found.append(ahead.take()))
    waiting.start()
    assert begun.wait(TIMEOUT_SECONDS)
    ahead.end()
    waiting.join(TIMEOUT_SECONDS)
    may_go_on.set()
    assert found == [None]
