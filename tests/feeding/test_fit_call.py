"""Fit call: what belongs to a call ends with it, and two calls at once do not meet."""

from __future__ import annotations

import threading
from contextlib import suppress

from numerai_sequence.batching.prefetching import Prefetching
from numerai_sequence.feeding.fit_call import FitCall, forget, is_fed


class Adapter:
    def __init__(self, sequence):
        self.py_dataset = sequence


class Run:
    def __init__(self, failure=None, has_ended=False):
        self.failure, self.has_ended, self.ends = failure, has_ended, 0

    def end(self):
        self.has_ended, self.ends = True, self.ends + 1


class Sequence:
    prefetching = Prefetching(1, False, 10)


def tensorflow_error(text):
    kind = type("InvalidArgumentError", (Exception,), {"__module__": "tensorflow.errors"})
    return kind(text)


def test_adapters_belong_to_the_call_they_are_made_in_and_forget_with_it():
    adapter, before = Adapter("data"), Adapter("data")
    assert FitCall.of(before) is not FitCall.of(before)  # each its own
    with FitCall() as call:
        assert FitCall.of(adapter) is call
        with FitCall() as inner:
            assert FitCall.of(Adapter("other")) is inner
        assert FitCall.of(Adapter("third")) is call
        assert adapter.py_dataset == "data"
    assert adapter.py_dataset is None
    assert before.py_dataset == "data"


def test_runs_end_with_the_call_and_keep_no_error():
    failed, running = Run(ValueError("a")), Run()
    with suppress(KeyError), FitCall() as call:
        call.add(failed)
        call.add(running)
        raise KeyError
    assert (failed.ends, running.ends) == (1, 1)
    assert failed.failure is None


def test_runs_that_are_over_are_not_kept():
    with FitCall() as call:
        over, failed = Run(has_ended=True), Run(ValueError("a"), has_ended=True)
        for run in (over, failed, Run(has_ended=True), Run()):
            call.add(run)
    assert (over.ends, failed.ends) == (0, 1)


def test_an_error_of_tensorflow_is_traced_to_its_cause():
    with FitCall() as call:
        cause = KeyError("k")
        call.add(Run(cause))
        call.add(Run())
        assert call.cause(tensorflow_error("... KeyError: 'k' ...")) is cause
        assert call.cause(tensorflow_error("shapes differ")) is None
        assert call.cause(ValueError("KeyError")) is None


def test_forms_and_fed_sequences():
    one, other = Sequence(), Sequence()
    with FitCall({one: ("a", "b"), other: None}) as call:
        assert call.form(one) == ("a", "b")
        assert call.form(other) is call.form(Sequence()) is None
        assert is_fed(one)
        assert is_fed(other)
        assert not is_fed(Sequence())
    assert not is_fed(one)
    assert call.form(one) is None


def test_options_of_the_call_win_over_those_of_the_sequence():
    assert FitCall().prefetching(Sequence()) == (1, False, 10)
    call = FitCall(options={"workers": 4, "use_multiprocessing": True})
    assert call.prefetching(Sequence()) == (4, True, 10)
    assert call.prefetching(Sequence()).processes == 4
    assert Sequence.prefetching == (1, False, 10)


def test_two_threads_are_in_calls_of_their_own():
    meet = threading.Barrier(2, timeout=30)
    found = []

    def work():
        with FitCall() as call:
            meet.wait()
            found.append(FitCall.of(Adapter("data")) is call)
            meet.wait()

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True, True]


def test_forget_makes_no_attributes():
    holder = Adapter("data")
    forget(holder, "py_dataset", "unknown")
    assert vars(holder) == {"py_dataset": None}
