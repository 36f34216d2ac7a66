"""Forward: a model's outputs row by row, while it is trained, too."""

from __future__ import annotations

import numpy as np
import pytest
from networks import keras, model_of, row_kernel, row_model

from numerai_sequence import NumeraiSequence
from numerai_sequence.scoring.forward_pass import predict_rows


@pytest.fixture
def in_order(shards):
    return NumeraiSequence(shards, batch_size=100, shuffle=False)


@pytest.fixture
def numbers(shards):
    return np.array([int(name[1:], 16) for name in shards.column("id").to_pylist()])


def test_rows_are_in_the_order_of_the_files(in_order, numbers):
    names, values = predict_rows(row_model(), in_order)
    assert names == ("prediction",)
    assert values.dtype == np.float32
    assert np.array_equal(values[:, 0], numbers)


def test_rows_go_to_their_places(in_order, numbers):
    _, values = predict_rows(row_model(), in_order, places=numbers.astype(np.int32))
    assert np.array_equal(values[:, 0], np.arange(1037))


def test_another_pass_is_the_same(in_order):
    model = row_model()
    first = predict_rows(model, in_order)[1]
    in_order.on_epoch_end()
    assert np.array_equal(predict_rows(model, in_order)[1], first)


def test_rows_without_an_order_are_an_error(shards):
    for options in ({"shuffle": True}, {"shuffle": False, "drop_remainder": True}):
        with pytest.raises(ValueError, match="expected shuffle=False"):
            predict_rows(row_model(), NumeraiSequence(shards, **options))


def test_an_output_is_chosen(in_order, numbers):
    rows = row_kernel(14)
    model = model_of(rows, np.concatenate([rows, -rows], axis=1), names=["one", "two"])
    names, values = predict_rows(model, in_order)
    assert names == ("one", "two_0", "two_1")
    assert np.array_equal(values, np.stack([numbers, numbers, -numbers], axis=1))
    names, values = predict_rows(model, in_order, output="two_1")
    assert names == ("prediction",)
    assert np.array_equal(values[:, 0], -numbers)


class Validation(keras.callbacks.Callback):
    """Predicts in the middle of an epoch and at its end."""

    def __init__(self, sequence):
        super().__init__()
        self.sequence, self.values = sequence, []

    def on_train_batch_end(self, batch, logs=None):
        if batch == 2:
            self.values.append(predict_rows(self.model, self.sequence)[1])

    def on_epoch_end(self, epoch, logs=None):
        self.values.append(predict_rows(self.model, self.sequence)[1])


def test_a_callback_predicts_with_the_weights_of_the_moment(shards, in_order):
    def fit(steps, *callbacks):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.layers.Input((14,)), keras.layers.Dense(1)])
        model.compile(keras.optimizers.Adam(0.1), "mse")
        training = NumeraiSequence(shards, batch_size=200)
        options = {"shuffle": False, "verbose": 0, "callbacks": callbacks}
        if steps <= 6:
            model.fit(training, steps_per_epoch=steps, **options)
        else:
            model.fit(training, epochs=steps // 6, **options)
        return predict_rows(model, in_order)[1]

    validation = Validation(in_order)
    last = fit(12, validation)
    assert len(validation.values) == 4
    # And the training goes on as without it.
    for found, steps in zip(validation.values, (3, 6, 9, 12), strict=True):
        if steps != 9:  # the middle of an epoch that is not the first cannot be stopped at
            assert np.allclose(found, fit(steps), rtol=1e-4)
    assert np.array_equal(validation.values[-1], last)


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="Keras on torch has no such thing")
def test_a_model_that_runs_several_batches_at_a_time_is_run_on_one(in_order, numbers):
    model = row_model()
    model.compile("sgd", "mse", steps_per_execution=4)
    assert np.array_equal(predict_rows(model, in_order)[1][:, 0], numbers)
