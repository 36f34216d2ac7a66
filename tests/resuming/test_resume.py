"""Resume: a training that is stopped anywhere goes on as if it had not been."""

from __future__ import annotations

import re
from contextlib import suppress

import numpy as np
import pytest
from campaign_runs import run_campaign
from keras_models import IS_KERAS_3, IS_TENSORFLOW, keras
from shard_sets import write_set

from numerai_sequence import NumeraiSequence, Resume, ResumeError
from numerai_sequence.resuming.training_state import read_state

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
@pytest.mark.slow
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
    model, _, history = train(folder, tmp_path)
    assert_same(model.get_weights(), whole)
    assert len(history["loss"]) == 3  # or Keras 2 ends where its first epoch is short of batches


def test_an_epoch_is_not_over_before_it_has_been_validated(folder, tmp_path):
    train(folder, tmp_path, stop=BATCHES, every=BATCHES)
    assert read_state(tmp_path) is None


@pytest.mark.slow
def test_a_finished_training_goes_on_with_more_epochs_only(folder, tmp_path, whole):
    train(folder, tmp_path, epochs=2)
    history = train(folder, tmp_path, epochs=2)[2]
    assert not history.get("loss")
    assert_same(train(folder, tmp_path, epochs=3)[0].get_weights(), whole)


@pytest.mark.slow
def test_a_sequence_that_counts_on_is_resumed_where_it_was(folder, tmp_path):
    used = make_sequence(folder)
    used.begin_epoch(5)
    train(folder, tmp_path, sequence=used, stop=BATCHES + 15)
    assert used.places[-1] == (6, 0)
    _, fresh, _ = train(folder, tmp_path)
    assert fresh.places[-2:] == ((6, 14), (7, 0))
    assert fresh.epoch == 8


@pytest.mark.slow
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


def test_another_set_is_refused(folder, tmp_path):
    other = write_set(tmp_path, rows=ROWS, features=FEATURES, seed=1)
    train(folder, tmp_path / "state", stop=10)
    with pytest.raises(ResumeError, match="set: found"):
        train(other, tmp_path / "state")


def test_another_model_is_refused(folder, tmp_path):
    train(folder, tmp_path, stop=10)
    model = keras.Sequential([keras.Input((FEATURES,)), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    with pytest.raises(ResumeError, match=r"model\.layers\[0\]\.units: found 1, but it was 8"):
        model.fit(make_sequence(folder), callbacks=[Resume(tmp_path)], verbose=0)


def test_another_optimizer_is_refused(folder, tmp_path):
    train(folder, tmp_path, stop=10)
    model = make_model()
    model.compile("sgd", "mse")
    with pytest.raises(ResumeError, match="optimizer"):
        model.fit(make_sequence(folder), callbacks=[Resume(tmp_path)], verbose=0)


def test_steps_per_epoch_is_refused(folder, tmp_path):
    with pytest.raises(ValueError, match="steps_per_epoch: found 3, expected None"):
        train(folder, tmp_path, steps_per_epoch=3)


@pytest.mark.slow
@pytest.mark.skipif(not IS_TENSORFLOW or not IS_KERAS_3, reason="one Keras is enough for kills")
def test_killed_at_any_batch_the_weights_are_the_same_bit_for_bit(tmp_path):
    [result] = run_campaign("resuming", tmp_path, count=1)
    assert result["outcomes"] == {"same weights, bit for bit": 1}
    assert result["figures"]["kills"] >= 1


class Blended(Noting):
    """Adds to each batch a batch from the other end of the epoch, which may be over already."""

    def __getitem__(self, index):
        (x, y), (other, _) = super().__getitem__(index), super().__getitem__(len(self) - 1 - index)
        rows = min(len(x), len(other))
        return (x[:rows] + other[:rows]) / 2, y[:rows]


@pytest.mark.slow
def test_a_subclass_that_reads_batches_of_before_goes_on_as_if_not_stopped(
    folder, tmp_path, monkeypatch
):
    monkeypatch.setattr("numerai_sequence.batching.group_reader._GROUP_ROWS", 4 * BATCH)

    def make():
        options = {"seed": 4, "run_rows": 4, "paging": "streaming"}
        return Blended(folder, BATCH, **options)

    expected = train(folder, tmp_path / "whole", sequence=make(), epochs=1)[0].get_weights()
    train(folder, tmp_path / "state", sequence=make(), epochs=1, stop=19)
    assert read_state(tmp_path / "state").place == (0, 14)
    model, sequence, _ = train(folder, tmp_path / "state", sequence=make(), epochs=1)
    assert sequence.places[0] == (0, 14)
    assert_same(model.get_weights(), expected)


def compiled(layers=None, *, rate=0.01, loss="mse", optimizer=None):
    if layers is None:
        layers = [keras.layers.Dense(8, "relu"), keras.layers.Dense(1)]
    model = keras.Sequential([keras.Input((FEATURES,)), *layers])
    model.compile(optimizer or keras.optimizers.Adam(rate), loss)
    return model


def fit(model, folder, state, *others, stop=-1, every=5, epochs=2, sequence=None, **options):
    callbacks = [Resume(state, every=every), *others, Stop(stop)]
    sequence = sequence or NumeraiSequence(folder, BATCH)
    with suppress(InterruptedError):
        return model.fit(sequence, epochs=epochs, callbacks=callbacks, verbose=0, **options).history


def power(exponent):
    def loss(target, prediction):
        return (target - prediction) ** exponent

    return loss


def layers_of(*middle, activation="relu"):
    return [keras.layers.Dense(8, activation), *middle, keras.layers.Dense(1)]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda: compiled(rate=0.1), "optimizer.learning_rate: found 0.1, but it was 0.01"),
        (
            lambda: compiled(layers_of(activation="tanh")),
            "model.layers[0].activation: found 'tanh', but it was 'relu'",
        ),
        (
            lambda: compiled(layers_of(keras.layers.Dropout(0.1))),
            "model.layers[1].class: found 'Dropout', but it was 'Dense'",
        ),
        (lambda: compiled([*layers_of(), keras.layers.Dropout(0.1)]), "model.layers[2]: found {'c"),
        (lambda: compiled(loss="mae"), "loss: found 'mae'"),
        (lambda: compiled(loss=power(4)), "loss.encloses.exponent: found 4, but it was 2"),
        (
            lambda: compiled(optimizer=keras.optimizers.SGD(0.01)),
            "optimizer.class: found 'SGD', but it was 'Adam'",
        ),
    ],
)
@pytest.mark.slow
def test_what_makes_another_model_of_the_same_shapes_is_named(folder, tmp_path, other, message):
    loss = power(2) if "encloses" in message else "mse"
    fit(compiled(loss=loss), folder, tmp_path, stop=7)
    model = other()
    before = model.get_weights()
    with pytest.raises(ResumeError, match=re.escape(message)):
        fit(model, folder, tmp_path)
    for found, right in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(found, right)  # nothing is loaded
    fit(compiled(loss=loss), folder, tmp_path)
    assert read_state(tmp_path).place == (2, 0)


class Own(keras.Model):
    def __init__(self, rate, function):
        super().__init__()
        self.rate, self.function = rate, function
        self.hidden, self.last = keras.layers.Dense(4), keras.layers.Dense(1)

    def call(self, x):
        return self.last(self.function(self.hidden(x))) * self.rate


def own(rate, function):
    model = Own(rate, function)
    model.compile(keras.optimizers.Adam(0.01), "mse")
    return model


@pytest.mark.slow
def test_attributes_of_a_model_of_ones_own_class_make_another_model(folder, tmp_path):
    relu, tanh = keras.activations.relu, keras.activations.tanh
    fit(own(1.0, relu), folder, tmp_path, stop=7)
    with pytest.raises(ResumeError, match=r"model\.rate: found 5\.0, but it was 1\.0"):
        fit(own(5.0, relu), folder, tmp_path)
    with pytest.raises(ResumeError, match=r"model\.function: found .*tanh"):
        fit(own(1.0, tanh), folder, tmp_path)
    assert len(fit(own(1.0, relu), folder, tmp_path)["loss"]) == 2


@pytest.mark.parametrize("stop", [7, 12])
@pytest.mark.slow
def test_a_rate_that_is_changed_each_epoch_is_changed_once(folder, tmp_path, stop):
    def run(state, stop=-1):
        keras.utils.set_random_seed(1)
        scheduler = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.5)
        model = compiled()
        fit(model, folder, state, scheduler, stop=stop, epochs=3)
        return model

    expected = run(tmp_path / "whole").get_weights()
    run(tmp_path / "state", stop=stop)
    assert_same(run(tmp_path / "state").get_weights(), expected)


def test_a_callback_that_swaps_weights_is_refused(folder, tmp_path):
    if not hasattr(keras.callbacks, "SwapEMAWeights"):
        pytest.skip("Keras 2 has none")
    swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    with pytest.raises(ValueError, match=r"found SwapEMAWeights\(swap_on_epoch=True\)"):
        fit(compiled(), folder, tmp_path, swap)


@pytest.mark.slow
def test_names_that_keras_makes_up_and_metrics_do_not_make_another_model(folder, tmp_path):
    fit(compiled(), folder, tmp_path, stop=7)
    model = compiled()
    model.compile(keras.optimizers.Adam(0.01), "mse", metrics=["mae"])
    assert model.layers[0].name != "dense"
    assert len(fit(model, folder, tmp_path)["loss"]) == 2


@pytest.mark.slow
def test_each_fit_that_has_nothing_to_train_says_so(folder, tmp_path):
    fit(compiled(), folder, tmp_path, epochs=1)
    for _ in range(2):
        with pytest.warns(UserWarning, match="training is already finished: 1 epochs are trained"):
            assert not fit(compiled(), folder, tmp_path, epochs=1).get("loss")


@pytest.mark.slow
def test_a_folder_is_of_one_training_at_a_time(folder, tmp_path):
    tried = []

    class Second(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            with pytest.raises(ResumeError, match="another training uses this folder"):
                fit(compiled(), folder, tmp_path)
            tried.append(epoch)

    fit(compiled(), folder, tmp_path, Second(), epochs=1)
    assert tried == [0]
    fit(compiled(), folder, tmp_path, epochs=2)


def test_two_resumes_in_one_fit_are_refused(folder, tmp_path):
    with pytest.raises(ValueError, match="callbacks: found 2 that resume"):
        fit(compiled(), folder, tmp_path / "a", Resume(tmp_path / "b"))


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.slow
def test_a_resumed_epoch_is_validated_with_all_batches_of_the_same_sequence(
    folder, tmp_path, workers
):
    def run(state, stop=-1):
        keras.utils.set_random_seed(1)
        sequence = NumeraiSequence(folder, BATCH)
        history = fit(
            compiled(),
            folder,
            state,
            stop=stop,
            sequence=sequence,
            validation_data=sequence,
            workers=workers,
        )
        return history and history["val_loss"]

    whole = run(tmp_path / "whole")
    assert run(tmp_path / "state", stop=12) is None
    assert run(tmp_path / "state") == whole


class Weigh(keras.callbacks.Callback):
    """Sets weights after some batches, or after the first epoch."""

    def __init__(self, sequence, batches):
        super().__init__()
        self.sequence, self.left = sequence, batches

    def set(self):
        self.sequence.sample_weight = {
            era: np.float32(1.1) + 3 * number for number, era in enumerate(self.sequence.eras)
        }

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if self.left == 0:
            self.set()

    def on_epoch_end(self, epoch, logs=None):
        if epoch == 0 and self.left < 0:
            self.set()


@pytest.mark.parametrize(("after", "stop"), [(0, BATCHES + 1), (0, BATCHES + 12), (2, 12)])
@pytest.mark.slow
def test_sample_weights_in_force_are_saved(folder, tmp_path, after, stop):
    def run(state, stop=-1):
        keras.utils.set_random_seed(1)
        sequence = NumeraiSequence(folder, BATCH)
        sequence.sample_weight = dict.fromkeys(sequence.eras, np.float64(1))
        model = compiled()
        # In a process of its own the callback would count anew.
        callback = Weigh(sequence, after if state.name != "again" else -1)
        if state.name == "again":
            state, callback.set = state.parent / "state", lambda: None
        fit(model, folder, state, callback, stop=stop, sequence=sequence)
        return model.get_weights()

    whole = run(tmp_path / "whole")
    run(tmp_path / "state", stop)
    for found, right in zip(run(tmp_path / "again"), whole, strict=True):
        np.testing.assert_array_equal(found, right)


def test_sample_weights_that_a_callback_makes_a_function_are_refused(folder, tmp_path):
    sequence = NumeraiSequence(folder, BATCH, sample_weight=lambda eras, y: np.ones(len(y)))
    callback = Weigh(sequence, 2)
    callback.set = lambda: setattr(sequence, "sample_weight", lambda eras, y: 2 * np.ones(len(y)))
    with pytest.raises(ResumeError, match="sample_weight: a callback has set the function"):
        fit(compiled(), folder, tmp_path, callback, sequence=sequence)
    assert read_state(tmp_path) is None


@pytest.mark.slow
def test_a_learning_rate_that_callbacks_change_is_saved_and_does_not_make_another(folder, tmp_path):
    def halve():
        return keras.callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=0, min_delta=1e9)

    model = compiled()
    sequence = NumeraiSequence(folder, BATCH)
    fit(model, folder, tmp_path, halve(), stop=2 * BATCHES + 7, epochs=3, sequence=sequence)
    assert read_state(tmp_path).learning_rate == pytest.approx(0.005)
    seen = []
    watch = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda *_: seen.append(float(model.optimizer.learning_rate))
    )
    fit(model, folder, tmp_path, watch, epochs=3, sequence=sequence)  # the same objects
    model = compiled()
    fit(model, folder, tmp_path, watch, epochs=4)
    assert seen == [pytest.approx(0.005)] * 2


@pytest.mark.slow
def test_numpy_values_among_the_options_are_saved(folder, tmp_path):
    def sequence():
        options = {"seed": np.int64(3), "run_rows": np.int32(1), "target": np.str_("target")}
        return NumeraiSequence(
            folder, np.int64(BATCH), drop_remainder=np.False_, shuffle=np.True_, **options
        )

    fit(compiled(), folder, tmp_path, stop=7, sequence=sequence())
    assert len(fit(compiled(), folder, tmp_path, sequence=sequence())["loss"]) == 2
