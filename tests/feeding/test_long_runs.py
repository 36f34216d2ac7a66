"""Long runs: nothing is held longer than it is used, or until the garbage collector comes."""

from __future__ import annotations

import gc
import os
import pickle
import shutil
import sys
import threading
import time
import weakref
from contextlib import suppress

import numpy as np
import pytest
from campaign_runs import run_campaign
from keras_models import keras
from shard_sets import write_set

from numerai_sequence import CorruptShardError, NumeraiSequence, open_shards, write_shards

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc"),
    pytest.mark.slow,
]

TIMES = 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("long")
    write_set(path, rows=3000, features=600, eras=20, encoding="int8")
    return path


def held():
    """Descriptors, threads, and maps of shard files, of this process."""
    with open("/proc/self/maps") as maps:
        mapped = sum(".arrow" in line for line in maps)
    # "Dummy" is a thread of TensorFlow's that has called Python once.
    threads = [thread for thread in threading.enumerate() if not thread.name.startswith("Dummy")]
    return len(os.listdir("/proc/self/fd")), len(threads), mapped


def more_than(before):
    """By how many of each there are more; what earlier tests did may end only now."""
    return [max(0, now - then) for now, then in zip(held(), before, strict=True)]


@pytest.fixture
def collector():
    """The garbage collector has run, and does not run by itself; gives the tracked objects."""

    def tracked():
        gc.collect()
        return len(gc.get_objects())

    gc.collect()
    gc.disable()
    yield tracked
    gc.enable()


def assert_flat(collector, do, times=TIMES):
    """Do something many times; nothing more is held at the end than after the first."""
    do(0)
    tracked, before = collector(), held()
    for number in range(1, times):
        do(number)
    assert more_than(before) == [0, 0, 0]
    assert collector() - tracked < 20


def test_sequences_let_all_go_without_the_collector(folder, collector):
    def use(number):
        sequence = NumeraiSequence(folder / "set", 100, seed=number, run_rows=1 + number % 20)
        sequence[0], sequence[len(sequence) - 1]
        pickle.loads(pickle.dumps(sequence))[1]
        sequence.in_order(50)[2]

    assert_flat(collector, use)


def test_sets_and_slices_let_all_go_without_the_collector(folder, collector):
    def use(number):
        with open_shards(folder / "set") as shards:
            part, one = shards[number % 2 :], shards[number % 3]
        assert len(part.column("id")) == part.rows
        assert one.row_reader.gather(np.arange(9), one.targets)[0].shape == (9, 600)

    assert_flat(collector, use)


def test_passes_that_are_dropped_let_all_go_without_the_collector(folder, collector):
    def use(number):
        sequence = NumeraiSequence(folder / "set", 100, run_rows=8, paging="streaming")
        next(iter(sequence))
        one_pass = sequence.one_pass(shuffle=True)
        one_pass[0], one_pass[number % len(one_pass)]

    assert_flat(collector, use)


def test_fits_that_are_stopped_half_way_leave_nothing(folder, collector, nothing_left):
    sequence = NumeraiSequence(folder / "set", 100)
    model = keras.Sequential([keras.layers.Input((600,)), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    stop = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: 1 / (3 - batch))

    def fit():
        with pytest.raises(ZeroDivisionError):
            model.fit(sequence, workers=3, verbose=0, callbacks=[stop])

    fit()
    collector()
    before = held()
    for _ in range(8):
        fit()
    collector()  # Keras's own
    for _ in range(50):  # its threads end in the background
        if any(more_than(before)):
            time.sleep(0.1)
    assert more_than(before) == [0, 0, 0]


@pytest.mark.parametrize("workers", [1, 2])
def test_sequences_that_were_trained_on_let_all_go_without_the_collector(
    folder, collector, workers
):
    """Though TensorFlow keeps every generator, and with it Keras's adapter."""
    model = keras.Sequential([keras.layers.Input((600,)), keras.layers.Dense(1)])
    model.compile("adam", "mse")

    def use(number):
        sequence = NumeraiSequence(folder / "set", 1000, seed=number)
        validation = NumeraiSequence(folder / "set", 1000, shuffle=False)
        model.fit(sequence, validation_data=validation, workers=workers, verbose=0)
        model.evaluate(validation, workers=workers, verbose=0)
        model.predict(validation.in_order(1000), workers=workers, verbose=0)
        return weakref.ref(sequence), weakref.ref(validation)

    use(0)
    collector()
    before = held()[2]
    references = [reference for number in range(3) for reference in use(number)]
    assert [reference() for reference in references] == [None] * 6
    assert held()[2] == before


def test_fit_after_one_that_was_interrupted_validates_on_its_own_data(folder):
    model = keras.Sequential([keras.layers.Input((600,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    first, second = (NumeraiSequence(folder / "set", 500, eras=[era]) for era in ("0003", "0019"))

    def interrupt(epoch, logs):
        raise KeyboardInterrupt

    stop = keras.callbacks.LambdaCallback(on_epoch_end=interrupt)
    with pytest.raises(KeyboardInterrupt):
        model.fit(first, validation_data=first, verbose=0, callbacks=[stop])
    history = model.fit(first, validation_data=second, verbose=0).history
    assert history["val_loss"][0] == pytest.approx(model.evaluate(second, verbose=0), rel=1e-5)
    assert history["val_loss"][0] != pytest.approx(model.evaluate(first, verbose=0), rel=1e-2)


def test_sets_that_cannot_be_opened_or_read_let_all_go_without_the_collector(
    folder, tmp_path, collector
):
    whole, cut = folder / "set", tmp_path / "cut"

    def use(number):
        shutil.copytree(whole, cut, dirs_exist_ok=True)
        name = f"shard-{number % 3:02d}.arrow"
        sequence = NumeraiSequence(cut, 100, run_rows=32, paging="streaming")
        os.truncate(cut / name, 8192)
        one_pass = sequence.one_pass()
        for read in (sequence.__getitem__, one_pass.__getitem__):
            with pytest.raises(CorruptShardError, match=f"{name}: bytes: found"):
                read(0)
        with pytest.raises(CorruptShardError, match=name):
            open_shards(cut)

    assert_flat(collector, use, times=20)


def test_sets_that_are_written_anew_let_all_go_without_the_collector(folder, tmp_path, collector):
    def use(number):
        options = {"num_shards": 2, "overwrite": True, "progress": False}
        with write_shards(
            folder / "train.parquet", tmp_path / "set", seed=number, **options
        ) as new:
            assert NumeraiSequence(new, 100)[0][0].shape == (100, 600)
        with suppress(ValueError):  # of an option
            write_shards(folder / "train.parquet", tmp_path / "set", num_shards=0)

    assert_flat(collector, use, times=12)


@pytest.mark.slow
def test_short_campaign_of_long_runs(tmp_path):
    results = run_campaign("long_runs", tmp_path, count=4)
    lives = {result["what"] for result in results}
    assert {"4 epochs, 4 threads", "80 sequences opened and dropped"} <= lives
    assert all(result["outcomes"] for result in results)
