"""The Keras contract: what a model receives, on whichever Keras is running.

``KERAS_BACKEND=jax`` or ``torch`` and ``TF_USE_LEGACY_KERAS=1`` choose another Keras for all of it.
"""

from __future__ import annotations

import importlib
import threading
import time

import numpy as np
import pytest
from keras_models import (
    IS_KERAS_3,
    IS_TENSORFLOW,
    PACKAGE,
    RowCounts,
    assert_each_row_once,
    counting_model,
    each_workers,
    keras,
    keras_3_only,
    tf,
)
from numerai_tables import row_numbers
from shard_sets import write_set

from numerai_sequence import NumeraiSequence, NumeraiSequenceError, Unpack, open_shards
from numerai_sequence.batching.epoch import Epoch
from numerai_sequence.feeding.keras_private_names import version_of

ROWS, BATCH, BATCHES, FEATURES = 1037, 50, 21, 14


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("contract")
    return write_set(path, rows=ROWS, features=FEATURES, num_shards=5)


@pytest.fixture
def sequence(folder):
    return NumeraiSequence(folder, batch_size=BATCH)


@pytest.fixture
def in_order(folder):
    """A sequence in the order of the files, and the numbers of its rows."""
    with open_shards(folder) as shards:
        numbers = [int(i[1:], 16) for i in shards.column("id").to_pylist()]
    return NumeraiSequence(folder, batch_size=BATCH, shuffle=False), np.array(numbers)


def make_model(build=True):
    return counting_model(RowCounts(ROWS), FEATURES, build)


@each_workers
@pytest.mark.parametrize("build", [True, False], ids=["built", "fresh"])
def test_fit_sees_each_row_once_an_epoch(sequence, workers, build, nothing_left):
    model, recorder = make_model(build)
    model.fit(sequence, epochs=3, callbacks=[recorder], verbose=0, **workers)
    model.fit(sequence, epochs=2, callbacks=[recorder], verbose=0, **workers)
    assert len(recorder.fit) == 5
    for counts in recorder.fit:
        assert_each_row_once(counts)


class WithThreads(NumeraiSequence):
    """Notes which thread has made each batch."""

    def __getitem__(self, index):
        self.threads.append(threading.current_thread())
        return super().__getitem__(index)


@pytest.mark.parametrize(("workers", "is_main"), [(0, not IS_TENSORFLOW), (1, False), (4, False)])
def test_with_workers_batches_are_made_in_another_thread_than_trains(folder, workers, is_main):
    sequence = WithThreads(folder, batch_size=BATCH, shuffle=False)
    sequence.threads = []
    model, recorder = make_model()
    model.fit(sequence, callbacks=[recorder], verbose=0, workers=workers)
    assert_each_row_once(recorder.fit[0])
    last = sequence.threads[-BATCHES:]  # before them Keras may look at some
    assert {thread is threading.main_thread() for thread in last} == {is_main}


@each_workers
def test_evaluate_sees_each_row_once(sequence, workers):
    model, recorder = make_model()
    for _ in range(2):
        model.evaluate(sequence, callbacks=[recorder], verbose=0, **workers)
        assert_each_row_once(recorder.tests[-1])


@each_workers
def test_evaluate_stopped_early_does_not_poison_the_next(in_order, workers):
    sequence, numbers = in_order
    model, recorder = make_model()
    for steps in (3, None, 2, None):
        model.evaluate(sequence, steps=steps, callbacks=[recorder], verbose=0, **workers)
        seen = numbers[: (steps or BATCHES) * BATCH]
        expected = np.bincount(seen, minlength=ROWS + 1)
        np.testing.assert_array_equal(recorder.tests[-1], expected)


@each_workers
def test_predictions_come_in_the_order_of_the_files(in_order, workers):
    sequence, numbers = in_order
    model, _ = make_model()
    for steps in (None, 3, None):
        predictions = model.predict(sequence, steps=steps, verbose=0, **workers)
        expected = numbers[: (steps or BATCHES) * BATCH]
        np.testing.assert_array_equal(predictions.reshape(-1), expected)


def test_predict_needs_no_target(folder, in_order):
    model, _ = make_model()
    sequence = NumeraiSequence(folder, batch_size=BATCH, shuffle=False, target=None)
    predictions = model.predict(sequence, verbose=0, workers=4)
    np.testing.assert_array_equal(predictions.reshape(-1), in_order[1])


@each_workers
@pytest.mark.parametrize("build", [True, False], ids=["built", "fresh"])
def test_short_validation_steps_see_the_same_rows_every_epoch(
    sequence, in_order, workers, build, nothing_left
):
    validation, numbers = in_order
    model, recorder = make_model(build)
    model.fit(
        sequence,
        validation_data=validation,
        validation_steps=3,
        epochs=3,
        callbacks=[recorder],
        verbose=0,
        **workers,
    )
    expected = np.bincount(numbers[: 3 * BATCH], minlength=ROWS + 1)
    assert len(recorder.fit) == len(recorder.tests) == 3
    for counts in recorder.fit:
        assert_each_row_once(counts)
    for counts in recorder.tests:
        np.testing.assert_array_equal(counts, expected)


@each_workers
@pytest.mark.parametrize("validates_itself", [True, False], ids=["one", "two"])
def test_short_validation_of_a_shuffled_sequence_sees_the_same_rows_every_epoch(
    folder, sequence, workers, validates_itself
):
    other = NumeraiSequence(folder, batch_size=BATCH, seed=5)
    validation = sequence if validates_itself else other
    model, recorder = make_model()
    how = {"validation_data": validation, "validation_steps": 3, "callbacks": [recorder]}
    for _ in range(2):  # and in the next fit
        model.fit(sequence, epochs=2, verbose=0, **how, **workers)
    for counts in recorder.fit:
        assert_each_row_once(counts)
    assert len(recorder.tests) == 4
    for counts in recorder.tests:
        assert (counts.sum(), counts.max()) == (3 * BATCH, 1)
        np.testing.assert_array_equal(counts, recorder.tests[0])


@each_workers
def test_whole_validation_sees_each_row_once(sequence, in_order, workers):
    model, recorder = make_model()
    model.fit(
        sequence,
        validation_data=in_order[0],
        epochs=2,
        callbacks=[recorder],
        verbose=0,
        **workers,
    )
    for counts in [*recorder.fit, *recorder.tests]:
        assert_each_row_once(counts)


@each_workers
def test_steps_per_epoch_never_repeats_a_row_of_a_pass(sequence, workers, nothing_left):
    model, recorder = make_model()
    model.fit(sequence, steps_per_epoch=7, epochs=3, callbacks=[recorder], verbose=0, **workers)
    for counts in recorder.fit:
        assert counts[ROWS] == 0
        assert counts.max() == 1
    if IS_KERAS_3:  # the epochs go on in one pass, and 3 x 7 batches are the whole of it
        assert_each_row_once(sum(recorder.fit))
    else:  # every epoch begins a pass of its own
        assert all(counts.sum() >= 7 * BATCH - BATCH + ROWS % BATCH for counts in recorder.fit)
    recorder.fit.clear()
    model.fit(sequence, epochs=1, callbacks=[recorder], verbose=0, **workers)
    assert_each_row_once(recorder.fit[0])


@pytest.mark.skipif(not IS_TENSORFLOW, reason="tf.distribute")
@each_workers
def test_mirrored_strategy_sees_each_row_once(sequence, workers):
    with tf.distribute.MirroredStrategy(["/cpu:0"]).scope():
        model, recorder = make_model()
    model.fit(sequence, epochs=2, callbacks=[recorder], verbose=0, **workers)
    for counts in recorder.fit:
        assert_each_row_once(counts)


class Addresses(NumeraiSequence):
    """Notes where the features of each batch are in memory."""

    seen: list

    def __getitem__(self, index):
        batch = super().__getitem__(index)
        self.seen.append(batch[0].ctypes.data)
        return batch


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("paging", ["resident", "streaming"])
def test_model_sees_each_row_once_though_memory_is_used_again(folder, workers, paging):
    """A batch that is written over while the model still reads it would be seen twice."""
    sequence = Addresses(folder, batch_size=4, paging=paging, run_rows=3)
    sequence.seen = []
    model, recorder = make_model()
    model.fit(sequence, epochs=3, callbacks=[recorder], workers=workers, verbose=0)
    for counts in recorder.fit:
        assert_each_row_once(counts)
    assert len(sequence.seen) >= 3 * len(sequence)
    # Without it, every one of the buffers would be as fresh as those of a list of batches.
    assert len(set(sequence.seen)) < len(sequence.seen) / 2


@each_workers
@pytest.mark.parametrize("shuffle", [True, False])
def test_streaming_sees_each_row_once(folder, workers, shuffle):
    streaming = {"paging": "streaming", "memory_budget": "20MB", "run_rows": 8}
    sequence = NumeraiSequence(folder, batch_size=BATCH, **streaming)
    model, recorder = make_model()
    options = {"epochs": 2, "callbacks": [recorder], "shuffle": shuffle, "verbose": 0}
    model.fit(sequence, **options, **workers)
    for counts in recorder.fit:
        assert_each_row_once(counts)


@each_workers
def test_streaming_predictions_come_in_the_order_of_the_files(folder, in_order, workers):
    sequence = NumeraiSequence(folder, batch_size=BATCH, shuffle=False, paging="streaming")
    model, _ = make_model()
    predictions = model.predict(sequence, verbose=0, **workers)
    np.testing.assert_array_equal(predictions.reshape(-1), in_order[1])


def test_options_given_to_the_sequence_work_too(folder):
    made = NumeraiSequence(folder, batch_size=BATCH, workers=4, max_queue_size=3)
    model, recorder = make_model()
    model.fit(made, epochs=2, callbacks=[recorder], verbose=0)
    for counts in recorder.fit:
        assert_each_row_once(counts)
    assert (made.workers, made.use_multiprocessing, made.max_queue_size) == (4, False, 3)


class Asked(NumeraiSequence):
    """Notes each batch that it is asked for."""

    def __getitem__(self, index):
        self.asked.append(index)
        return super().__getitem__(index)


def test_no_batch_is_made_for_nobody(folder):
    """Keras starts workers of its own for those that a sequence was given, unless it is told."""
    made = Asked(folder, batch_size=BATCH, shuffle=False, workers=4)
    made.asked = []
    model, _ = make_model()
    model.fit(made, epochs=3, verbose=0)
    # From which TensorFlow's data set, or the model, learns the shapes; the queue is filled for it.
    looked_at = 2 if IS_TENSORFLOW else made.prefetching.max_queue_size + 4
    assert looked_at < BATCHES
    assert 3 * BATCHES <= len(made.asked) <= 3 * BATCHES + looked_at


class Spy(NumeraiSequence):
    """Notes how many workers each pass was begun with."""

    begun: list

    def one_pass(self, **options):
        self.begun.append(tuple(options["prefetching"]))
        return super().one_pass(**options)


def test_options_of_fit_hold_for_that_call_and_its_validation(folder):
    train, validation = Spy(folder, workers=3), Spy(folder)
    train.begun, validation.begun = [], []
    model, _ = make_model()
    model.fit(train, validation_data=validation, workers=2, max_queue_size=5, verbose=0)
    assert set(train.begun) == set(validation.begun) == {(2, False, 5)}
    model.fit(train, verbose=0)
    assert train.begun[-1] == (3, False, 10)
    model.evaluate(x=validation, workers=4, verbose=0)
    model.predict(validation, workers=5, verbose=0)
    assert validation.begun[-2:] == [(4, False, 10), (5, False, 10)]


def test_two_fits_at_once_have_options_of_their_own(folder):
    sequence = Spy(folder)
    sequence.begun = []
    inside = threading.Barrier(2, timeout=60)

    class Meet(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            inside.wait()  # both calls have been made, and none has ended

    models = [make_model()[0] for _ in range(2)]
    fits = [
        threading.Thread(
            target=model.fit,
            args=(sequence,),
            kwargs={"workers": workers, "epochs": 2, "verbose": 0, "callbacks": [Meet()]},
        )
        for model, workers in zip(models, (2, 3), strict=True)
    ]
    for one in fits:
        one.start()
    for one in fits:
        one.join()
    assert {begun[0] for begun in sequence.begun} == {2, 3}
    assert [begun[0] for begun in sequence.begun].count(2) >= 2
    assert sequence.workers == 1


@pytest.mark.parametrize(
    ("options", "message"), [({"workers": -1}, "workers"), ({"max_queue_size": 0}, "max_queue")]
)
def test_options_that_cannot_be_are_refused(folder, options, message):
    with pytest.raises(ValueError, match=message):
        make_model()[0].fit(NumeraiSequence(folder), verbose=0, **options)


def test_other_input_reaches_keras_untouched(sequence):
    model, _ = make_model()
    x, y = np.zeros((60, FEATURES), np.float32), np.zeros(60, np.float32)
    assert len(model.fit(x, y, batch_size=20, verbose=0).epoch) == 1
    assert model.predict(x, 20, 0).shape == (60, 1)
    if IS_KERAS_3:
        with pytest.raises(TypeError, match="workers"):
            model.fit(x, y, workers=4)
        with pytest.raises(ValueError, match="not recognized"):
            model.evaluate(x, y, workers=4)
        with pytest.raises(TypeError, match="workers"):
            model.fit(x, y, validation_data=sequence, workers=4)
    with pytest.raises(TypeError, match="wrokers"):
        model.fit(sequence, wrokers=4)


def test_installing_again_changes_nothing(folder):
    def functions():
        methods = keras.Model.fit, keras.Model.evaluate, keras.Model.predict
        return [(method, [cell.cell_contents for cell in method.__closure__]) for method in methods]

    NumeraiSequence(folder)
    before = functions()
    NumeraiSequence(folder)
    assert functions() == before


@pytest.mark.slow
def test_nothing_is_installed_before_the_first_sequence(folder, forked):
    done = forked(f"""
import {PACKAGE} as keras

def functions():
    return [cell.cell_contents for cell in keras.Model.fit.__closure__]

before = functions()
from numerai_sequence import NumeraiSequence
assert functions() == before, "something was, on import"
NumeraiSequence({str(folder)!r})
assert functions() != before, "nothing was at all"
""")
    assert done.returncode == 0, done.stderr


def test_the_line_of_the_readme_works_with_the_first_sequence_of_a_process(folder, forked):
    """Python looks model.fit up before it makes the sequence."""
    done = forked(f"""
import {PACKAGE} as keras
from numerai_sequence import NumeraiSequence

class Spy(NumeraiSequence):
    def one_pass(self, **options):
        begun.append(options["prefetching"].workers)
        return super().one_pass(**options)

begun = []
model = keras.Sequential([keras.layers.Dense(1)])
model.compile("sgd", "mse")
model.fit(Spy({str(folder)!r}, batch_size=1000), workers=4)
assert set(begun) == {{4}}, begun
""")
    assert done.returncode == 0, done.stderr


def test_every_epoch_has_an_order_of_its_own(sequence):
    model, _ = make_model()
    orders = []

    class Note(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            orders.append((sequence.epoch, tuple(row_numbers(sequence[0][0]))))

    model.fit(sequence, epochs=3, workers=4, verbose=0, callbacks=[Note()])
    assert len({epoch for epoch, _ in orders}) == len({rows for _, rows in orders}) == 3


def test_epochs_do_not_stall(sequence):
    model, _ = make_model()
    model.fit(sequence, workers=4, verbose=0)
    start = time.monotonic()
    model.fit(sequence, epochs=3, workers=4, verbose=0)
    assert time.monotonic() - start < 5  # Keras 2 alone waits 5 s an epoch


@keras_3_only
def test_keras_3_still_needs_the_cure(sequence, in_order):
    """When this fails, Keras hands out right batches by itself: delete the cure."""

    class Plain(keras.utils.Sequence):
        def __init__(self, wrapped):
            super().__init__(workers=4)
            self.wrapped = wrapped

        def __len__(self):
            return len(self.wrapped)

        def __getitem__(self, index):
            return self.wrapped[index]

    model, recorder = make_model()
    options = {"callbacks": [recorder], "verbose": 0, "epochs": 3}
    model.fit(Plain(sequence), validation_data=Plain(in_order[0]), validation_steps=3, **options)
    expected = np.bincount(in_order[1][: 3 * BATCH], minlength=ROWS + 1)
    assert not all(np.array_equal(seen, expected) for seen in recorder.tests)


@pytest.mark.skipif(not IS_TENSORFLOW, reason="tf_keras has one backend")
def test_one_sequence_serves_models_of_both_generations(folder):
    tf_keras = pytest.importorskip("tf_keras")
    sequence = NumeraiSequence(folder, batch_size=BATCH, shuffle=False)
    for package in (importlib.import_module("keras"), tf_keras):
        model = package.Sequential([package.layers.Dense(1)])
        model.compile("sgd", "mse")
        assert len(model.fit(sequence, workers=4, verbose=0).epoch) == 1
        assert model.predict(sequence, workers=4, verbose=0).shape == (ROWS, 1)


@pytest.mark.skipif(IS_KERAS_3, reason="Keras 2's own way")
@pytest.mark.parametrize("floatx", ["float32", "float16"])
def test_keras_2_takes_floats_of_its_own_type_without_a_copy(folder, floatx):
    before = keras.backend.floatx()
    keras.backend.set_floatx(floatx)
    try:
        inner = keras.Model.__module__.rsplit(".", 1)[0]
        handlers = importlib.import_module(f"{inner}.data_adapter")
        for dtype in ("float32", "float16"):
            sequence = NumeraiSequence(folder, batch_size=BATCH, dtype=dtype, target=None)
            adapter = handlers.KerasSequenceAdapter(sequence)
            x = sequence[0]
            found = adapter._standardize_batch(x)
            assert found.dtype == floatx
            assert (found is x) == (dtype == floatx)
    finally:
        keras.backend.set_floatx(before)


@pytest.mark.skipif(not (IS_KERAS_3 and IS_TENSORFLOW), reason="Keras 3's way on TensorFlow")
@pytest.mark.parametrize("workers", [1, 4])
def test_tensorflow_takes_no_more_batches_than_are_asked_for(monkeypatch, sequence, workers):
    """Keras's queue, a batch a worker, one that is prefetched, and those on their way."""
    model, _ = make_model()
    begun, trained, ahead = [], [], []
    batch = Epoch.batch

    def counting(self, number):
        begun.append(number)
        return batch(self, number)

    class Slow(keras.callbacks.Callback):
        def on_train_batch_end(self, number, logs=None):
            time.sleep(0.05)
            trained.append(number)
            ahead.append(len(begun) - len(trained))

    model.fit(sequence, verbose=0, workers=workers)  # builds, and looks at two batches
    begun.clear()
    monkeypatch.setattr(Epoch, "batch", counting)
    queue = {"max_queue_size": 2} if workers > 1 else {}
    model.fit(sequence, verbose=0, workers=workers, callbacks=[Slow()], **queue)
    assert len(trained) == BATCHES
    by_keras = (3, 0) <= version_of(importlib.import_module(PACKAGE)) < (3, 6)  # one more
    # Two that TensorFlow has looked at, and the next one, which is made while a step runs.
    assert max(ahead) >= 2 + 1 - by_keras
    assert max(ahead) <= (2 + 2 if workers == 1 else 2 + 2 + workers + 2) + by_keras


@pytest.mark.skipif(not IS_TENSORFLOW, reason="TensorFlow's data sets")
def test_tensorflow_waits_for_batches_in_a_thread_of_its_own(sequence):
    if IS_KERAS_3:
        handlers = importlib.import_module("keras.src.trainers.data_adapters.py_dataset_adapter")
    else:
        inner = keras.Model.__module__.rsplit(".", 1)[0]
        handlers = importlib.import_module(f"{inner}.data_adapter")

    def options(x):
        if IS_KERAS_3:
            return handlers.PyDatasetAdapter(x).get_tf_dataset().options()
        return handlers.KerasSequenceAdapter(x).get_dataset().options()

    class Other(keras.utils.Sequence):
        def __len__(self):
            return 1

        def __getitem__(self, number):
            return np.zeros((2, 2), np.float32), np.zeros(2, np.float32)

    ours, theirs = options(sequence), options(Other())
    assert (ours.threading.private_threadpool_size, ours.autotune.enabled) == (1, False)
    assert (theirs.threading.private_threadpool_size, theirs.autotune.enabled) == (None, None)


@pytest.mark.parametrize("resident", [False, True], ids=["packed", "resident"])
def test_packed_rows_are_unpacked_in_the_model(folder, resident, tmp_path):
    def trained(**fed):
        sequence = NumeraiSequence(folder, batch_size=BATCH, **fed)
        keras.utils.set_random_seed(1)
        core = keras.Sequential(
            [keras.Input((FEATURES,)), keras.layers.Dense(4), keras.layers.Dense(1)]
        )
        model = keras.Sequential([Unpack.of(sequence), core]) if fed else core
        model.compile("adam", "mse")
        model.fit(sequence, epochs=2, verbose=0, workers=4)
        if fed:
            model.save(str(tmp_path / "model.keras"))
            keras.models.load_model(str(tmp_path / "model.keras"))
        return core.get_weights()

    fed = {"dtype": "packed", "resident": resident}
    if not IS_KERAS_3:
        with pytest.raises(NumeraiSequenceError, match="expected Keras 3; use dtype='float32'"):
            trained(**fed)
        return
    for found, expected in zip(trained(**fed), trained(), strict=True):
        np.testing.assert_array_equal(found, expected)
