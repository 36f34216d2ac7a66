"""Same bits: which rows a model receives, in which batch, is a function of the epoch alone.

Whatever asks for them, on whichever Keras is running.
"""

from __future__ import annotations

import numpy as np
import pytest
from keras_models import (
    IS_KERAS_3,
    ONE_THREAD,
    PROCESSES,
    THREADS,
    counting_model,
    keras,
    tf,
    to_numpy,
)
from numerai_tables import row_numbers
from shard_sets import write_set

from numerai_sequence import NumeraiSequence
from numerai_sequence.batching.epoch import Position

ROWS, BATCH, BATCHES, FEATURES = 1037, 50, 21, 14
WORKERS = [ONE_THREAD, THREADS, {"workers": 8}, PROCESSES]
each_way = pytest.mark.parametrize("workers", WORKERS, ids=["1", "4", "8", "processes"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("bits")
    return write_set(path, rows=ROWS, features=FEATURES, num_shards=5)


class BatchSums(keras.metrics.Metric):
    """Of each batch of an epoch two sums of its row numbers, in the graph."""

    def __init__(self, **options):
        super().__init__(name="sums", **options)
        self.sums = self.add_weight(shape=(2, BATCHES), initializer="zeros", name="sums")
        self.step = self.add_weight(shape=(), initializer="zeros", name="step")

    def update_state(self, y_true, y_pred, sample_weight=None):
        ops, one_hot = (keras.ops, keras.ops.one_hot) if IS_KERAS_3 else (tf, tf.one_hot)
        total = ops.sum if IS_KERAS_3 else tf.reduce_sum
        rows = ops.cast(ops.reshape(y_true, [-1]), "float32")
        mixed = rows * 91 % 1013
        place = one_hot(ops.cast(self.step, "int32"), BATCHES)
        self.sums.assign(self.sums + ops.stack([place * total(rows), place * total(mixed)]))
        self.step.assign(self.step + 1)

    def reset_state(self):
        self.sums.assign(np.zeros((2, BATCHES), np.float32))
        self.step.assign(0.0)

    def result(self):
        return (keras.ops.max if IS_KERAS_3 else tf.reduce_max)(self.sums)


class Note(keras.callbacks.Callback):
    def __init__(self, metric):
        super().__init__()
        self.metric, self.epochs = metric, {}

    def on_epoch_end(self, epoch, logs=None):
        _ = self.model  # which brings JAX's newest state into the metric
        self.epochs[epoch] = to_numpy(self.metric.sums)


def train(sequence, **options):
    metric = BatchSums()
    model, _ = counting_model(metric, FEATURES)
    note = Note(metric)
    model.fit(sequence, verbose=0, callbacks=[note], **options)
    return note.epochs


def expected(folder, epoch, **options):
    """Return the sums as they follow from the row order, which knows no Keras."""
    batches = NumeraiSequence(folder, BATCH, seed=3, **options).one_pass(place=Position(epoch))
    rows = [row_numbers(batches[number][0]).astype(np.float64) for number in range(BATCHES)]
    return np.array([[one.sum(), (one * 91 % 1013).sum()] for one in rows]).T


@each_way
@pytest.mark.parametrize(("paging", "run_rows"), [("resident", 1), ("streaming", 8)])
def test_the_batches_of_an_epoch_are_the_same_whoever_asks(folder, workers, paging, run_rows):
    sequence = NumeraiSequence(folder, BATCH, seed=3, paging=paging, run_rows=run_rows)
    epochs = train(sequence, epochs=2, shuffle=False, **workers)
    other = "streaming" if paging == "resident" else "resident"
    for epoch in range(2):
        np.testing.assert_array_equal(
            epochs[epoch], expected(folder, epoch, paging=other, run_rows=run_rows)
        )
    assert not np.array_equal(epochs[0], epochs[1])


def test_keras_shuffles_nothing_that_is_shuffled(folder):
    epochs = train(NumeraiSequence(folder, BATCH, seed=3), shuffle=True, workers=4)
    np.testing.assert_array_equal(epochs[0], expected(folder, 0))


def test_what_keras_shuffles_is_a_function_of_the_epoch(folder):
    orders = [
        train(NumeraiSequence(folder, BATCH, seed=3, shuffle=False), epochs=2, workers=workers)
        for workers in (1, 4)
    ]
    np.testing.assert_array_equal(orders[0][0], orders[1][0])
    np.testing.assert_array_equal(orders[0][1], orders[1][1])
    assert not np.array_equal(orders[0][0], orders[0][1])
    in_order = expected(folder, 0, shuffle=False)
    assert not np.array_equal(orders[0][0], in_order)
    np.testing.assert_array_equal(np.sort(orders[0][0]), np.sort(in_order))


def test_epochs_are_those_of_fit(folder):
    sequence = NumeraiSequence(folder, BATCH, seed=3)
    epochs = train(sequence, initial_epoch=3, epochs=5, workers=4)
    assert list(epochs) == [3, 4]
    for epoch in epochs:
        np.testing.assert_array_equal(epochs[epoch], expected(folder, epoch))
    assert sequence.epoch == 5
    again = train(sequence, initial_epoch=1, epochs=2)
    np.testing.assert_array_equal(again[1], expected(folder, 1))


def test_a_fit_that_says_nothing_counts_on(folder):
    sequence = NumeraiSequence(folder, BATCH, seed=3)
    for epoch in range(3):
        np.testing.assert_array_equal(train(sequence)[0], expected(folder, epoch))
    assert sequence.epoch == 3


def test_neither_validation_nor_evaluation_nor_hooks_move_the_epoch(folder):
    sequence = NumeraiSequence(folder, BATCH, seed=3)

    class Hooks(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            _ = sequence[0]
            sequence.on_epoch_end()

    metric = BatchSums()
    model, _ = counting_model(metric, FEATURES, build=False)
    note = Note(metric)
    options = {"validation_data": sequence, "validation_freq": 2, "verbose": 0}
    model.fit(sequence, epochs=1, callbacks=[note, Hooks()], **options)
    np.testing.assert_array_equal(note.epochs[0], expected(folder, 0))
    model.evaluate(sequence, verbose=0)
    model.predict(sequence, verbose=0)
    assert sequence.epoch == 1
    model.fit(sequence, callbacks=[[note], [Hooks()]], **options)
    np.testing.assert_array_equal(note.epochs[0], expected(folder, 1))


class Noting(NumeraiSequence):
    """Notes the epoch of each pass."""

    epochs = ()

    def one_pass(self, **options):
        self.epochs = (*self.epochs, options["place"].epoch)
        return super().one_pass(**options)


def test_each_validation_of_a_fit_has_the_order_of_epoch_0(folder):
    validation = Noting(folder, BATCH)
    train(NumeraiSequence(folder, BATCH), initial_epoch=2, epochs=4, validation_data=validation)
    assert validation.epochs == (0, 0)
    assert validation.epoch == 0


def test_a_list_of_callbacks_of_keras_is_taken_as_it_is(folder):
    metric = BatchSums()
    model, _ = counting_model(metric, FEATURES)
    note = Note(metric)
    made = keras.callbacks.CallbackList([note], add_history=True, model=model)
    sequence = NumeraiSequence(folder, BATCH, seed=3)
    for epoch in range(2):
        model.fit(sequence, callbacks=made, verbose=0)
        np.testing.assert_array_equal(note.epochs[0], expected(folder, epoch))
