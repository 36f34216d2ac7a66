"""Interrupts: a Ctrl-C ends what it was meant for, whoever catches it on the way."""

# ruff: noqa: PT012  (that what comes after an interrupt is reached is what is tested)

from __future__ import annotations

import signal
import threading
from contextlib import suppress

import pytest

from numerai_sequence import WorkerError
from numerai_sequence.feeding.interrupts import check, interrupts_deferred, raise_pending_interrupt


@pytest.fixture(autouse=True)
def default_handler():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def press():
    signal.raise_signal(signal.SIGINT)


def test_an_interrupt_that_someone_catches_is_raised_in_the_end():
    done = []
    with pytest.raises(KeyboardInterrupt), raise_pending_interrupt():
        with suppress(KeyboardInterrupt):
            press()
        done.append(1)
    assert done == [1]


def test_an_interrupt_that_nobody_catches_is_raised_at_once():
    with pytest.raises(KeyboardInterrupt), raise_pending_interrupt():
        press()
        pytest.fail("went on")


def test_an_error_after_an_interrupt_came_of_it():
    with pytest.raises(KeyboardInterrupt), raise_pending_interrupt():
        with suppress(KeyboardInterrupt):
            press()
        raise ValueError("cancelled")


def test_without_an_interrupt_errors_and_results_stay_as_they_are():
    with pytest.raises(ValueError, match="plain"), raise_pending_interrupt():
        raise ValueError("plain")
    with raise_pending_interrupt():
        check()


def test_check_raises_what_was_caught():
    with pytest.raises(KeyboardInterrupt), raise_pending_interrupt():
        with suppress(KeyboardInterrupt):
            press()
        check()
        pytest.fail("went on")
    check()  # and no longer


def test_another_thread_that_checks_gets_an_error_that_ends_its_pass():
    raised = []

    def ask():
        try:
            check()
        except Exception as error:
            raised.append(error)

    with suppress(KeyboardInterrupt), raise_pending_interrupt():
        with suppress(KeyboardInterrupt):
            press()
        other = threading.Thread(target=ask)
        other.start()
        other.join()
    assert [type(error) for error in raised] == [WorkerError]


def test_held_back_until_the_work_is_done():
    done = []
    with pytest.raises(KeyboardInterrupt), raise_pending_interrupt():
        with interrupts_deferred():
            press()
            with interrupts_deferred():
                done.append(1)
            done.append(2)
        done.append(3)
    assert done == [1, 2, 3]


def test_a_handler_of_the_user_stays_and_is_called():
    pressed = []
    before = signal.signal(signal.SIGINT, lambda number, frame: pressed.append(number))
    try:
        handler = signal.getsignal(signal.SIGINT)
        with raise_pending_interrupt():
            assert signal.getsignal(signal.SIGINT) is handler
            press()
        assert pressed == [signal.SIGINT]
    finally:
        signal.signal(signal.SIGINT, before)


def test_one_within_another_leaves_it_to_the_outer_one():
    with pytest.raises(KeyboardInterrupt), raise_pending_interrupt():
        with raise_pending_interrupt(), suppress(KeyboardInterrupt):
            press()
        with suppress(ValueError):
            raise ValueError


def test_a_handler_that_was_put_in_meanwhile_stays():
    with raise_pending_interrupt():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_other_threads_are_left_alone():
    handlers = []

    def work():
        with raise_pending_interrupt(), interrupts_deferred():
            handlers.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert handlers == [signal.default_int_handler]
