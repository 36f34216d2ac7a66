"""Keras models: on whichever Keras is running, models and metrics that tell which rows they saw.

``KERAS_BACKEND`` (tensorflow, jax or torch) and ``TF_USE_LEGACY_KERAS=1`` choose the Keras.
"""

from __future__ import annotations

import os

import numpy as np
import pytest
from networks import row_kernel

if os.environ.get("KERAS_BACKEND", "tensorflow") == "tensorflow":
    import tensorflow as tf

    keras = tf.keras
else:
    tf = None
    import keras

IS_KERAS_3 = hasattr(keras, "ops")
IS_TENSORFLOW = tf is not None
PACKAGE = "keras" if IS_KERAS_3 else keras.Model.__module__.split(".")[0]

ONE_THREAD = {"workers": 1}
THREADS = {"workers": 4}
PROCESSES = {"workers": 2, "use_multiprocessing": True}
NAMES = ["1-thread", "4-threads", "2-processes"]
each_workers = pytest.mark.parametrize("workers", [ONE_THREAD, THREADS, PROCESSES], ids=NAMES)
each_threads = pytest.mark.parametrize("workers", [ONE_THREAD, THREADS], ids=NAMES[:2])
keras_3_only = pytest.mark.skipif(not IS_KERAS_3, reason="Keras 3's own ways")


def to_numpy(tensor):
    return keras.ops.convert_to_numpy(tensor) if IS_KERAS_3 else tensor.numpy()


class RowCounts(keras.metrics.Metric):
    """Counts how often the model saw each row, in the graph; the last place counts wrong targets.

    The model's output, and its target, are row numbers.
    """

    def __init__(self, rows, **options):
        super().__init__(name="rows", **options)
        self.rows = rows
        self.counts = self.add_weight(shape=(rows + 1,), initializer="zeros", name="counts")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.counts.assign(self.counts + self._count(y_true, y_pred))

    def _count(self, y_true, y_pred):
        ops, one_hot = (keras.ops, keras.ops.one_hot) if IS_KERAS_3 else (tf, tf.one_hot)
        seen = ops.reshape(y_pred, [-1])
        is_right = ops.abs(seen - ops.reshape(y_true, [-1])) < 0.5
        place = ops.where(is_right, ops.cast(seen + 0.5, "int32"), self.rows)
        total = ops.sum if IS_KERAS_3 else tf.reduce_sum
        return total(one_hot(place, self.rows + 1), axis=0)

    def reset_state(self):
        self.counts.assign(np.zeros(self.counts.shape, np.float32))

    def result(self):
        return (keras.ops.max if IS_KERAS_3 else tf.reduce_max)(self.counts)


class Recorder(keras.callbacks.Callback):
    """Keeps the counts of every epoch of fit, and of every evaluation."""

    def __init__(self, metric):
        super().__init__()
        self.metric, self.fit, self.tests, self._epoch_open = metric, [], [], False

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch_open = True

    def _end_epoch(self):
        if self._epoch_open:  # validation resets the metrics before on_epoch_end
            self.fit.append(to_numpy(self.metric.counts))
        self._epoch_open = False

    def on_test_begin(self, logs=None):
        self._end_epoch()

    def on_test_end(self, logs=None):
        self.tests.append(to_numpy(self.metric.counts))

    def on_epoch_end(self, epoch, logs=None):
        self._end_epoch()


def counting_model(metric, features, build=True):
    """A model whose output is the number of the row that it was given, and who keeps its counts."""
    layers = [keras.layers.Dense(1, use_bias=False, kernel_initializer=digits_to_number)]
    model = keras.Sequential(([keras.Input((features,))] if build else []) + layers)
    model.compile(keras.optimizers.SGD(0.0), "mse", metrics=[metric])
    return model, Recorder(metric)


def digits_to_number(shape, dtype=None):
    weights = row_kernel(shape[0])
    return keras.ops.convert_to_tensor(weights) if IS_KERAS_3 else tf.constant(weights)


def assert_each_row_once(counts):
    assert counts[-1] == 0, "a row came with another row's target"
    np.testing.assert_array_equal(counts[:-1], np.ones(len(counts) - 1))
