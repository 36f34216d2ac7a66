"""Failing: whatever goes wrong in a fit ends it in a clear error, or does not keep it from ending.

On every Keras; see test_keras_contract.
"""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import gc
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from keras_models import (
    IS_TENSORFLOW,
    NAMES,
    ONE_THREAD,
    PROCESSES,
    THREADS,
    RowCounts,
    assert_each_row_once,
    counting_model,
    each_workers,
    keras,
)
from shard_sets import write_set

from numerai_sequence import (
    CorruptShardError,
    NumeraiSequence,
    WorkerError,
    open_shards,
)
from numerai_sequence.batching.epoch import Epoch

ROWS, BATCH, FEATURES, WIDE = 600, 30, 14, 4000
SECONDS = 10

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc")
each_pool = pytest.mark.parametrize("workers", [THREADS, PROCESSES], ids=NAMES[1:])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("failing"), rows=ROWS, features=FEATURES)


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A set of which a batch is larger than what a socket holds."""
    with open_shards(write_set(tmp_path_factory.mktemp("wide"), rows=300, features=WIDE)) as opened:
        yield opened


@pytest.fixture(scope="module")
def shards(folder):
    """The set, opened once: TensorFlow keeps each sequence that it was fed, and its files."""
    with open_shards(folder) as opened:
        yield opened


@pytest.fixture(scope="module", autouse=True)
def _all_is_made_that_is_made_once(shards):
    for workers in (THREADS, PROCESSES):
        make_model().fit(NumeraiSequence(shards, batch_size=BATCH), verbose=0, **workers)


def descriptors():
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture(autouse=True)
def _ends_in_time_and_leaves_nothing(nothing_left):
    faulthandler.dump_traceback_later(120, exit=True, file=sys.__stderr__)
    before = descriptors()
    yield
    faulthandler.cancel_dump_traceback_later()
    for _ in range(50):
        if descriptors() <= before:
            return
        time.sleep(0.1)
    assert descriptors() <= before


@contextlib.contextmanager
def in_time():
    start = time.monotonic()
    yield
    assert time.monotonic() - start < SECONDS


def make_model():
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


def used_model():
    """One for all failures, as making it takes a second; JAX leaves none that can be used again."""
    return _shared_model() if keras.backend.backend() == "tensorflow" else make_model()


_shared_model = functools.cache(make_model)


class Failing(NumeraiSequence):
    """Does something at one of its batches."""

    at = 9

    def __getitem__(self, index):
        batch = super().__getitem__(index)
        if index == self.at:
            self.trouble()
        return batch


def failing(shards, trouble):
    sequence = Failing(shards, batch_size=BATCH)
    sequence.trouble = trouble
    return sequence


class TwoArguments(Exception):
    def __init__(self, what, why):
        super().__init__(f"{what} broke since {why}")


def raise_ours():
    raise CorruptShardError("a.arrow: it broke", path="a.arrow", found=1, expected=2)


def raise_plain():
    raise KeyError("it broke")


def raise_two_arguments():
    raise TwoArguments("it", "it was old")


def raise_with_a_lock():
    error = RuntimeError("it broke")
    error.lock = threading.Lock()
    raise error


def leave():
    sys.exit(3)


def interrupt():
    raise KeyboardInterrupt


# What is raised, in a thread and in a process, and with which message.
TROUBLES = [
    (raise_ours, CorruptShardError, CorruptShardError, r"^a\.arrow: it broke"),
    (raise_plain, KeyError, KeyError, "^'it broke'"),
    (raise_two_arguments, TwoArguments, WorkerError, "it broke since it was old"),
    (raise_with_a_lock, RuntimeError, WorkerError, "it broke"),
    (leave, WorkerError, WorkerError, r"SystemExit\(3\) raised in a .* raise an E"),
    (interrupt, WorkerError, WorkerError, r"KeyboardInterrupt\(\) raised in"),
]
each_trouble = pytest.mark.parametrize(
    ("trouble", "in_thread", "in_process", "message"),
    TROUBLES,
    ids=[trouble[0].__name__ for trouble in TROUBLES],
)


@each_workers
@each_trouble
def test_what_a_batch_raises_is_what_fit_raises(
    shards, workers, trouble, in_thread, in_process, message
):
    expected = in_process if workers == PROCESSES else in_thread
    with in_time(), pytest.raises(BaseException, match=message) as caught:
        used_model().fit(failing(shards, trouble), epochs=2, verbose=0, **workers)
    assert type(caught.value) is expected
    if expected is CorruptShardError:
        assert (caught.value.path, caught.value.found, caught.value.expected) == ("a.arrow", 1, 2)


@pytest.mark.skipif(IS_TENSORFLOW, reason="takes batches in a thread of its own")
@pytest.mark.parametrize(
    ("trouble", "error"), [(leave, SystemExit), (interrupt, KeyboardInterrupt)]
)
def test_what_a_batch_made_in_the_main_thread_raises_stays_what_it_is(shards, trouble, error):
    with in_time(), pytest.raises(error):
        used_model().fit(failing(shards, trouble), verbose=0, workers=0)


@each_pool
@pytest.mark.parametrize("method", ["evaluate", "predict"])
def test_what_a_batch_raises_is_what_evaluate_and_predict_raise(shards, workers, method):
    with in_time(), pytest.raises(CorruptShardError, match="it broke"):
        getattr(used_model(), method)(failing(shards, raise_ours), verbose=0, **workers)


@each_pool
def test_what_a_batch_of_validation_raises_is_what_fit_raises(shards, workers):
    train = NumeraiSequence(shards, batch_size=BATCH)
    with in_time(), pytest.raises(CorruptShardError, match="it broke"):
        used_model().fit(train, validation_data=failing(shards, raise_ours), verbose=0, **workers)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="notes")
@pytest.mark.parametrize("trouble", [raise_plain, raise_with_a_lock])
def test_error_of_a_process_tells_where_it_was_raised(shards, trouble):
    with pytest.raises(Exception, match="it broke") as caught:
        used_model().fit(failing(shards, trouble), verbose=0, **PROCESSES)
    told = "\n".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
    assert f"in {trouble.__name__}" in told
    assert "worker process " in told


@each_workers
def test_error_of_a_callback_ends_the_passes(shards, workers):
    class Fails(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 5:
                raise ValueError("of the callback")

    sequence = NumeraiSequence(shards, batch_size=BATCH, max_queue_size=2)
    with in_time(), pytest.raises(ValueError, match=r"^of the callback$"):
        used_model().fit(sequence, verbose=0, callbacks=[Fails()], **workers)
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("workers", [ONE_THREAD, THREADS], ids=NAMES[:2])
def test_interrupt_that_someone_catches_ends_the_fit(shards, workers):
    """As Keras 3 does where it waits for the logs of a step."""

    class Catches(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            batches.append(batch)
            if len(batches) == 5:
                with contextlib.suppress(KeyboardInterrupt):
                    signal.raise_signal(signal.SIGINT)

    batches = []
    sequence = NumeraiSequence(shards, batch_size=BATCH)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with in_time(), pytest.raises(KeyboardInterrupt):
            used_model().fit(sequence, epochs=5, callbacks=[Catches()], verbose=0, **workers)
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(batches) < 2 * len(sequence)


def iterators():
    return {id(one) for one in gc.get_objects() if type(one).__name__ == "OwnedIterator"}


@each_pool
def test_no_iterator_of_tensorflow_stays_for_the_exit_to_wait_for(shards, workers):
    gc.collect()
    others = iterators()  # tf_keras keeps those of a model that other tests fail to trace
    gc.disable()
    try:
        with pytest.raises(KeyError):
            make_model().fit(failing(shards, raise_plain), verbose=0, **workers)
        assert iterators() <= others
    finally:
        gc.enable()


@each_pool
def test_fit_goes_on_after_a_failure(shards, workers):
    sequence = failing(shards, raise_plain)
    model, recorder = counting_model(RowCounts(ROWS), FEATURES)
    for _ in range(2):
        with in_time(), pytest.raises(KeyError):
            model.fit(sequence, verbose=0, **workers)
    sequence.trouble = lambda: None
    recorder.fit.clear()
    model.fit(sequence, epochs=2, callbacks=[recorder], verbose=0, **workers)
    for counts in recorder.fit:
        assert_each_row_once(counts)


def kill_this():
    os.kill(os.getpid(), signal.SIGKILL)


KILLED = r"^worker process \d+ was killed by SIGKILL, .* memory .* use fewer workers, or threads"


def assert_killed(error):
    assert type(error) is WorkerError
    assert (error.exitcode, f" {error.pid} " in str(error)) == (-signal.SIGKILL, True)


def test_killed_process_is_an_error(shards):
    with in_time(), pytest.raises(WorkerError, match=KILLED) as caught:
        used_model().fit(failing(shards, kill_this), epochs=3, verbose=0, **PROCESSES)
    assert_killed(caught.value)


def test_process_that_is_killed_while_it_has_nothing_to_do_is_an_error(shards):
    class Kills(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 3:
                time.sleep(0.2)  # the queue is full, of one batch
                os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)

    sequence = NumeraiSequence(shards, batch_size=BATCH, max_queue_size=1)
    with in_time(), pytest.raises(WorkerError, match=KILLED) as caught:
        used_model().fit(sequence, verbose=0, callbacks=[Kills()], **PROCESSES)
    assert_killed(caught.value)


def test_process_that_ends_says_how(shards):
    with in_time(), pytest.raises(WorkerError, match="ended with exit code 7 before") as caught:
        used_model().fit(failing(shards, lambda: os._exit(7)), verbose=0, **PROCESSES)
    assert caught.value.exitcode == 7


class HalfSent(Epoch):
    """Kills the process that is sending a batch, when its first bytes have come."""

    def empty(self, shape, dtype):
        [child] = multiprocessing.active_children()
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        return super().empty(shape, dtype)


class Wide(NumeraiSequence):
    def one_pass(self, **options):
        one_pass = super().one_pass(**options)
        one_pass.__class__ = HalfSent
        return one_pass


def test_process_that_is_killed_half_way_through_a_batch_is_an_error(wide):
    sequence = Wide(wide, batch_size=100)
    assert sequence[0][0].nbytes > 1 << 20
    with in_time(), pytest.raises(WorkerError, match=KILLED) as caught:
        make_model().fit(sequence, verbose=0, workers=1, use_multiprocessing=True)
    assert_killed(caught.value)


def remove(folder):
    shutil.rmtree(folder)


def replace_shards(folder):
    for shard in folder.glob("*.arrow"):
        (folder / "new").write_bytes(b"something else")
        os.replace(folder / "new", shard)


@each_workers
@pytest.mark.parametrize("change", [remove, replace_shards])
def test_files_that_are_mapped_stay_whatever_their_names_become(folder, tmp_path, workers, change):
    shutil.copytree(folder, tmp_path / "shards")

    class Changes(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 3 and changes:
                changes.pop()(tmp_path / "shards")

    changes = [change]
    model, recorder = counting_model(RowCounts(ROWS), FEATURES)
    copy = open_shards(tmp_path / "shards")
    sequence = NumeraiSequence(copy, batch_size=BATCH)
    with in_time():
        model.fit(sequence, epochs=3, callbacks=[recorder, Changes()], verbose=0, **workers)
    copy.close()
    assert (len(changes), len(recorder.fit)) == (0, 3)
    for counts in recorder.fit:
        assert_each_row_once(counts)


def is_gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.slow
def test_signals_end_a_fit_and_all_that_works_for_it(folder, tmp_path):
    """Ctrl-C, alone or for all processes of a terminal; a shard that is gone; the end by force."""
    shutil.copytree(folder, tmp_path / "copy")
    helpers = Path(__file__).parents[1] / "helpers"
    paths = f"{helpers.parents[1]}:{helpers}"
    kinds = [json.dumps(kind) for kind in (ONE_THREAD, THREADS, PROCESSES, PROCESSES)]
    child = subprocess.Popen(
        [sys.executable, helpers / "interrupted_fits.py", folder, tmp_path / "copy", *kinds],
        env={**os.environ, "PYTHONPATH": paths, "TF_CPP_MIN_LOG_LEVEL": "3"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )

    def hear():
        return json.loads(child.stdout.readline())

    try:
        for kind, kill in zip(kinds, [os.kill, os.kill, os.kill, os.killpg], strict=True):
            pids = hear()["pids"]
            assert len(pids) == (2 if "multi" in kind else 0)
            kill(child.pid, signal.SIGINT)
            with in_time():
                assert hear() == {"error": "KeyboardInterrupt", "message": ""}
            assert all(map(is_gone, pids))
            left = hear()
            assert left["after"] == left["before"]
        ended = hear()
        assert ended["error"] == "CorruptShardError"
        assert str(tmp_path / "copy") in ended["message"]
        left = hear()
        assert left["after"] == left["before"]
        pids = hear()["pids"]
        os.kill(child.pid, signal.SIGKILL)
        with in_time():
            while not all(map(is_gone, pids)):
                time.sleep(0.01)
        assert len(pids) == 2
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        _, errors = child.communicate()
    assert "Process ForkProcess-" not in errors  # as one begins that is interrupted
