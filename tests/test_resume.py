"""Resume: a training that is stopped anywhere goes on as if it had not been."""

from __future__ import annotations

import json

import numpy as np
import pytest
from faults import run_campaign
from keras_models import IS_KERAS_3, IS_TENSORFLOW, keras
from sets import write_set

from numerai_sequence import NumeraiSequence, Resume, ResumeError
from numerai_sequence.feeding.state import FILE, read_state

ROWS, FEATURES, BATCH, BATCHES, EVERY = 1037, 24, 40, 26, 7


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("resume"), rows=ROWS, features=FEATURES)


def make_model():
    layers = [
        keras.layers.Dense(8, activation="relu"),
        keras.layers.Dropout(0.3, seed=3),
        keras.layers.Dense(1),
    ]
    model = keras.Sequential([keras.Input((FEATURES,)), *layers])
    model.compile(keras.optimizers.Adam(0.01), "mse")
    return model


class Stop(keras.callbacks.Callback):
    """Stops after so many batches, by an error."""

    def __init__(self, stop):
        super().__init__()
        self.left = stop

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if self.left == 0:
            raise InterruptedError


class Noting(NumeraiSequence):
    """Notes the place of each pass."""

    places = ()

    def one_pass(self, **options):
        self.places = (*self.places, tuple(options["place"]))
        return super().one_pass(**options)


def make_sequence(folder, **options):
    return Noting(folder, **({"batch_size": BATCH, "seed": 4} | options))


def train(folder, state, *, epochs=3, stop=-1, sequence=None, every=EVERY, **options):
    keras.utils.set_random_seed(1)
    sequence = sequence or make_sequence(folder)
    model = make_model()
    callbacks = [Resume(state, every=every), Stop(stop)]
    try:
        history = model.fit(
            sequence, epochs=epochs, callbacks=callbacks, verbose=0, **options
        ).history
    except InterruptedError:
        history = None
    return model, sequence, history


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory):
    """The weights of a run that is not stopped."""
    return train(folder, tmp_path_factory.mktemp("whole"))[0].get_weights()


def assert_same(weights, expected):
    for found, right in zip(weights, expected, strict=True):
        if IS_KERAS_3:
            np.testing.assert_array_equal(found, right)
        else:  # Keras 2 keeps no seeds of its layers
            assert found.shape == right.shape


@pytest.mark.parametrize("stop", [3, BATCHES, BATCHES + 1, 2 * BATCHES + 25])
def test_a_stopped_fit_ends_as_if_it_had_not_been(folder, tmp_path, whole, stop):
    train(folder, tmp_path, stop=stop, workers=4)
    saved = max(stop // BATCHES * BATCHES, stop - stop % BATCHES % EVERY)
    if stop % BATCHES == 0:
        saved = stop - 5  # an epoch is saved when it has ended: not by its last batch
    state = read_state(tmp_path)
    if state is None:
        assert saved < EVERY
    model, sequence, history = train(folder, tmp_path, workers=1)
    assert_same(model.get_weights(), whole)
    first = (0, 0) if state is None else tuple(state.place)
    assert first == divmod(saved, BATCHES) or state is None
    assert sequence.places[-(3 - first[0])] == first
    assert len(history["loss"]) == 3 - first[0]
    assert read_state(tmp_path).place == (3, 0)


def test_a_fit_that_is_stopped_again_in_the_same_epoch(folder, tmp_path, whole):
    train(folder, tmp_path, stop=10)
    train(folder, tmp_path, stop=8)
    assert read_state(tmp_path).place == (0, 14)
    assert_same(train(folder, tmp_path)[0].get_weights(), whole)


def test_an_epoch_is_not_over_before_it_has_been_validated(folder, tmp_path):
    train(folder, tmp_path, stop=BATCHES, every=BATCHES)
    assert read_state(tmp_path) is None


def test_a_finished_training_goes_on_with_more_epochs_only(folder, tmp_path, whole):
    train(folder, tmp_path, epochs=2)
    history = train(folder, tmp_path, epochs=2)[2]
    assert not history.get("loss")
    assert_same(train(folder, tmp_path, epochs=3)[0].get_weights(), whole)


def test_a_sequence_that_counts_on_is_resumed_where_it_was(folder, tmp_path):
    used = make_sequence(folder)
    used.begin_epoch(5)
    train(folder, tmp_path, sequence=used, stop=BATCHES + 15)
    assert used.places[-1] == (6, 0)
    _, fresh, _ = train(folder, tmp_path)
    assert fresh.places[-2:] == ((6, 14), (7, 0))
    assert fresh.epoch == 8


def test_of_several_ranks_the_first_saves_and_all_go_on(folder, tmp_path):
    def rank(number, **options):
        return train(
            folder, tmp_path, sequence=make_sequence(folder, rank=number, world_size=2), **options
        )

    rank(1, stop=10)
    assert not list(tmp_path.iterdir())
    rank(0, stop=10)
    assert read_state(tmp_path).place == (0, 7)
    assert rank(1, epochs=1)[1].places[-1] == (0, 7)
    assert read_state(tmp_path).place == (0, 7)
    assert rank(0, epochs=1)[1].places[-1] == (0, 7)
    assert read_state(tmp_path).place == (1, 0)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"batch_size": 41}, "batch_size"),
        ({"seed": 5}, "seed"),
        ({"shuffle": False, "run_rows": 1}, "shuffle"),
        ({"run_rows": 2}, "run_rows"),
        ({"eras": "0002-"}, "rows"),
        ({"features": [f"feature_{number}" for number in range(FEATURES)][::-1]}, "features"),
        ({"dtype": "float16"}, "dtype"),
    ],
)
def test_another_choice_is_refused(folder, tmp_path, change, name):
    train(folder, tmp_path, stop=10)
    if name == "features":
        change = {"features": make_sequence(folder).features[::-1]}
    with pytest.raises(ResumeError, match=f"{name}: found .*, but it was"):
        train(folder, tmp_path, sequence=make_sequence(folder, **change))


def test_a_state_from_before_an_argument_has_its_default(folder, tmp_path, whole):
    train(folder, tmp_path, stop=10)
    document = json.loads((tmp_path / FILE).read_text())
    del document["identity"]["drop_remainder"]
    (tmp_path / FILE).write_text(json.dumps(document))
    with pytest.raises(ResumeError, match="drop_remainder: found True, but it was False"):
        train(folder, tmp_path, sequence=make_sequence(folder, drop_remainder=True))
    assert_same(train(folder, tmp_path)[0].get_weights(), whole)


def test_another_set_is_refused(folder, tmp_path):
    other = write_set(tmp_path, rows=ROWS, features=FEATURES, seed=1)
    train(folder, tmp_path / "state", stop=10)
    with pytest.raises(ResumeError, match="set: found"):
        train(other, tmp_path / "state")


def test_another_model_is_refused(folder, tmp_path):
    train(folder, tmp_path, stop=10)
    model = keras.Sequential([keras.Input((FEATURES,)), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    with pytest.raises(ResumeError, match="cannot be loaded into this model"):
        model.fit(make_sequence(folder), callbacks=[Resume(tmp_path)], verbose=0)


@pytest.mark.skipif(not IS_KERAS_3, reason="tf_keras tells nobody")
def test_another_optimizer_is_refused(folder, tmp_path):
    train(folder, tmp_path, stop=10)
    model = make_model()
    model.compile("sgd", "mse")
    with pytest.raises(ResumeError, match="optimizer"):
        model.fit(make_sequence(folder), callbacks=[Resume(tmp_path)], verbose=0)


def test_steps_per_epoch_is_refused(folder, tmp_path):
    with pytest.raises(ValueError, match="steps_per_epoch: found 3, expected None"):
        train(folder, tmp_path, steps_per_epoch=3)


@pytest.mark.skipif(not IS_TENSORFLOW or not IS_KERAS_3, reason="one Keras is enough for kills")
def test_killed_at_any_batch_the_weights_are_the_same_bit_for_bit(tmp_path):
    [result] = run_campaign("resuming", tmp_path, count=1)
    assert result["outcomes"] == {"same weights, bit for bit": 1}
    assert result["figures"]["kills"] >= 1
