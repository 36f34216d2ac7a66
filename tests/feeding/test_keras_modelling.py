"""Modelling with Keras: targets, weights, eras and number types as a model's loss sees them.

NumPy, or training on arrays in memory, says what is right. `keras_models` says how to run this on
another Keras.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from keras_models import (
    IS_KERAS_3,
    IS_TENSORFLOW,
    ONE_THREAD,
    PROCESSES,
    THREADS,
    Recorder,
    RowCounts,
    assert_each_row_once,
    each_threads,
    keras,
    keras_3_only,
    tf,
    to_numpy,
)
from networks import model_of, row_kernel
from numerai_tables import numerai_table, row_digits

from numerai_sequence import FeatureError, NumeraiSequence, write_shards

ROWS, FEATURES, ERAS, BATCH = 520, 12, 13, 40
TARGETS = ("target_number", "target", "target_late", "target_weight")
MISSING = np.arange(ROWS) % 7 == 3  # of `target`
FIRST_LATE = "0011"  # `target_late` is missing from this era on
FIRST_VALIDATION = "0009"


@pytest.fixture(scope="module")
def table():
    """`target_number` is the row's number, the other targets are values 0..1, some missing."""
    table = numerai_table(rows=ROWS, features=FEATURES, eras=ERAS, targets=TARGETS)
    eras = np.array(table["era"].to_pylist())
    values = np.random.default_rng(0).random((3, ROWS)).astype(np.float32)
    masks = MISSING, eras >= FIRST_LATE, np.zeros(ROWS, bool)
    for name, column, mask in zip(TARGETS[1:], values, masks, strict=True):
        place = table.column_names.index(name)
        table = table.set_column(place, name, pa.array(column, mask=mask))
    types = np.where(eras < FIRST_VALIDATION, "train", "validation")
    return table.set_column(table.column_names.index("data_type"), "data_type", pa.array(types))


@pytest.fixture(scope="module")
def sets(table, tmp_path_factory):
    """The shard sets of the table, by encoding."""
    folder = tmp_path_factory.mktemp("modelling")
    pq.write_table(table, folder / "train.parquet")
    return {
        encoding: write_shards(
            folder / "train.parquet",
            folder / encoding,
            num_shards=3,
            encoding=encoding,
            progress=False,
        )
        for encoding in ("packed", "int8")
    }


@pytest.fixture(scope="module")
def shards(sets):
    return sets["packed"]


@pytest.fixture(scope="module")
def eras(table):
    return np.array(table["era"].to_pylist())


@pytest.fixture(scope="module")
def known(table):
    """Each target by row number, NaN where it is missing."""
    return {name: table[name].to_numpy() for name in TARGETS}


def frozen(*kernels, loss="mse", names=None, as_dict=False, **options):
    """A model that fit does not change."""
    model = model_of(*kernels, names=names, as_dict=as_dict)
    model.compile(keras.optimizers.SGD(0.0), loss, **options)
    return model


def kernel(outputs, seed=1):
    return np.random.default_rng(seed).normal(size=(FEATURES, outputs)).astype(np.float32)


def outputs_of(weights):
    """What `frozen` predicts for each row of the table, in double precision."""
    return row_digits(np.arange(ROWS), FEATURES) / 4 @ weights.astype(float)


NAMED = {"main": "target", "late": ["target_late", "target_weight"]}
FORMS = pytest.mark.parametrize("as_dict", [True, False], ids=["dict", "list"])


def mean_of_output(losses, sequence):
    """What Keras calls an output's loss, of the loss of each row of the table.

    It is the mean over rows, but over batches in Keras 3 on TensorFlow. The total is over rows.
    """
    numbers = [int(i[1:], 16) for i in sequence.column("id").to_pylist()]
    if not (IS_KERAS_3 and IS_TENSORFLOW):
        return losses[numbers].mean()
    starts = range(0, len(numbers), BATCH)
    return np.mean([losses[numbers[start : start + BATCH]].mean() for start in starts])


@pytest.mark.parametrize(
    ("as_dict", "workers"),
    [(True, ONE_THREAD), (False, THREADS), (True, THREADS), (False, PROCESSES)],
)
def test_loss_of_each_output_is_what_numpy_computes(shards, known, workers, as_dict):
    """The targets are named in another order than the model has its outputs."""
    main, late = kernel(1), kernel(2)
    losses, shares = {"main": "mse", "late": "mae"}, {"main": 1.0, "late": 0.5}
    model = frozen(
        late, main, names=["late", "main"], as_dict=as_dict, loss=losses, loss_weights=shares
    )
    sequence = NumeraiSequence(shards, BATCH, target=NAMED, missing_target="drop", shuffle=False)
    assert sequence.rows % BATCH
    both = np.stack([known["target_late"], known["target_weight"]], axis=1)
    of_main = (outputs_of(main)[:, 0] - known["target"]) ** 2
    of_late = np.abs(outputs_of(late) - both).mean(axis=1)
    expected = {
        "main_loss": mean_of_output(of_main, sequence),
        "late_loss": mean_of_output(of_late, sequence),
        "loss": np.nanmean(of_main + 0.5 * of_late),
    }
    options = {"shuffle": False, "verbose": 0, **workers}
    history = model.fit(sequence, validation_data=sequence, **options).history
    found = model.evaluate(sequence, verbose=0, return_dict=True, **workers)
    for name, value in expected.items():
        assert history[name] == [pytest.approx(value, rel=1e-5)]
        assert history[f"val_{name}"] == [pytest.approx(value, rel=1e-5)]
        assert found[name] == pytest.approx(value, rel=1e-5)


@FORMS
def test_masked_rows_are_not_in_the_loss_of_their_output(shards, known, as_dict):
    """Keras divides the weighted losses by all rows; a weighted metric by the sum of weights."""
    main, late = kernel(1), kernel(2)
    metrics = {"main": ["mse"], "late": ["mse"]}
    model = frozen(main, late, names=["main", "late"], as_dict=as_dict, weighted_metrics=metrics)
    sequence = NumeraiSequence(shards, BATCH, target=NAMED, missing_target="mask")
    history = model.fit(sequence, workers=4, verbose=0).history
    both = np.stack([known["target_late"], known["target_weight"]], axis=1)
    losses = {
        "main": (outputs_of(main)[:, 0] - known["target"]) ** 2,
        "late": np.mean((outputs_of(late) - both) ** 2, axis=1),
    }
    for name, values in losses.items():
        assert 0 < np.isnan(values).sum() < ROWS / 3
        expected = np.nansum(values) / ROWS
        assert history[f"{name}_loss"] == [pytest.approx(expected, rel=1e-5)]
        assert history[f"{name}_mse"] == [pytest.approx(np.nanmean(values), rel=1e-5)]


def test_unweighted_metric_counts_masked_rows(shards, known):
    """What `weighted_metrics` is for: these compare the rest with 0.5."""
    main = kernel(1)
    model = frozen(main, metrics=["mse"])
    sequence = NumeraiSequence(shards, BATCH, missing_target="mask")
    found = model.evaluate(sequence, verbose=0, return_dict=True)
    filled = np.where(MISSING, 0.5, known["target"])
    assert found["mse"] == pytest.approx(np.mean((outputs_of(main)[:, 0] - filled) ** 2), rel=1e-5)


@keras_3_only
def test_mean_with_sample_weight_is_the_mean_of_the_rows_that_are_there(shards, known):
    main = kernel(1)
    loss = keras.losses.MeanSquaredError(reduction="mean_with_sample_weight")
    model = frozen(main, loss=loss)
    options = {"missing_target": "mask", "shuffle": False}
    found = model.evaluate(NumeraiSequence(shards, ROWS, **options), verbose=0)
    errors = outputs_of(main)[:, 0] - known["target"]
    assert found == pytest.approx(np.nanmean(errors**2), rel=1e-5)


def two_headed(as_dict):
    keras.utils.set_random_seed(5)
    x = keras.Input((FEATURES,))
    hidden = keras.layers.Dense(8, activation="relu")(x)
    heads = [keras.layers.Dense(n, name=name)(hidden) for name, n in (("main", 1), ("late", 2))]
    model = keras.Model(x, dict(zip(NAMED, heads, strict=True)) if as_dict else heads)
    model.compile("adam", "mse")
    return model


def in_memory(sequence):
    """All of an epoch's batches in one: (x, y, weights)."""
    batches = [sequence[number] for number in range(len(sequence))]
    parts = zip(*batches, strict=True)
    return tuple(
        {name: np.concatenate([part[name] for part in some]) for name in some[0]}
        if isinstance(some[0], dict)
        else np.concatenate(some)
        for some in parts
    )


@pytest.mark.slow
@FORMS
def test_masked_rows_do_not_move_the_weights(shards, as_dict):
    """The same training on arrays whose masked targets are wild has the same result."""
    sequence = NumeraiSequence(shards, BATCH, target=NAMED, missing_target="mask", shuffle=False)
    x, y, weights = in_memory(sequence)
    for name in y:
        y[name][weights[name] == 0] = 1e6
    model, other = two_headed(as_dict), two_headed(as_dict)
    before = model.get_weights()
    model.fit(sequence, epochs=2, shuffle=False, verbose=0)
    if not as_dict:
        y, weights = list(y.values()), list(weights.values())
    options = {"batch_size": BATCH, "epochs": 2, "shuffle": False, "verbose": 0}
    other.fit(x, y, sample_weight=weights, **options)
    assert_same_weights(model, other)
    assert not np.array_equal(model.get_weights()[0], before[0])


def assert_same_weights(model, other):
    for found, expected in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)


def with_one_output(form):
    if form == "functional":
        return frozen(kernel(1), names=["main"])
    layers = [keras.Input((FEATURES,))] if form == "sequential" else []
    model = keras.Sequential([*layers, keras.layers.Dense(1, use_bias=False)])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    return model


@pytest.mark.parametrize("missing", ["drop", "mask"])
@pytest.mark.parametrize("form", ["functional", "sequential", "fresh"])
def test_target_may_name_the_only_output(shards, known, form, missing):
    model = with_one_output(form)
    sequence = NumeraiSequence(shards, BATCH, target={"main": "target"}, missing_target=missing)
    model.fit(sequence, verbose=0)
    model.set_weights([kernel(1)])
    errors = (outputs_of(kernel(1))[:, 0] - known["target"]) ** 2
    expected = np.nansum(errors) / (ROWS if missing == "mask" else sequence.rows)
    assert model.evaluate(sequence, verbose=0) == pytest.approx(expected, rel=1e-5)


class OwnLoss(keras.Model):
    """Compares by itself what it has returned with y, as it is given."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, **options):
        outputs = y_pred if isinstance(y_pred, (list, tuple)) else [y_pred]
        wanted = y if isinstance(y, (list, tuple)) else [y]
        mean = keras.ops.mean if IS_KERAS_3 else tf.reduce_mean
        return sum(mean((a - b) ** 2) for a, b in zip(outputs, wanted, strict=True))


@pytest.mark.parametrize("names", [["main"], ["late", "main"]], ids=["single", "list"])
def test_a_loss_of_a_models_own_gets_y_in_the_form_of_its_outputs(shards, names):
    x = keras.Input((FEATURES,))
    heads = [keras.layers.Dense(1, name=name, kernel_initializer="zeros")(x) for name in names]
    model = OwnLoss(x, heads if names[1:] else heads[0])
    model.compile(keras.optimizers.SGD(0.0))
    target = {"main": "target_number", "late": "target_weight"}
    target = {name: target[name] for name in reversed(names)}
    sequence = NumeraiSequence(shards, ROWS, target=target)
    history = model.fit(sequence, verbose=0).history  # a dict for y would end it
    y = sequence[0][1]
    expected = sum(np.mean(np.square(y[name], dtype=np.float64)) for name in names)
    if IS_KERAS_3:  # Keras 2 logs no loss that was not compiled
        assert history["loss"] == [pytest.approx(expected, rel=1e-5)]


@pytest.mark.parametrize("as_dict", [True, False, None], ids=["dict", "list", "single"])
def test_unknown_output_is_refused_with_those_that_there_are(shards, as_dict):
    names = ["main"] if as_dict is None else ["main", "late"]
    model = frozen(*[kernel(1) for _ in names], names=names, as_dict=bool(as_dict))
    target = {"mian": "target_number"}
    for call in model.fit, model.evaluate:
        with pytest.raises(FeatureError, match=r"'mian', expected .* 'main'.*; did you mean main"):
            call(NumeraiSequence(shards, target=target), verbose=0)
    assert len(model.predict(NumeraiSequence(shards, target=target), verbose=0))
    x, y = np.zeros((60, FEATURES), np.float32), np.zeros((60, 1), np.float32)
    y = {None: y, True: dict.fromkeys(names, y), False: [y, y]}[as_dict]
    with pytest.raises(FeatureError, match="'mian'"):
        model.fit(x, y, validation_data=NumeraiSequence(shards, target=target), verbose=0)


def test_validation_finds_outputs_by_name_beside_arrays(shards, known):
    main, late = kernel(1), kernel(2)
    model = frozen(late, main, names=["late", "main"])
    sequence = NumeraiSequence(shards, BATCH, target=NAMED, missing_target="mask")
    x, y, _ = in_memory(sequence)
    y = [y["late"], y["main"]]
    history = model.fit(x, y, validation_data=sequence, batch_size=BATCH, verbose=0).history
    expected = np.nansum((outputs_of(main)[:, 0] - known["target"]) ** 2) / ROWS
    assert history["val_main_loss"] == [pytest.approx(expected, rel=1e-5)]


class DecodedRows(RowCounts):
    """Counts rows by their features, where these are target and output."""

    def __init__(self, rows, scale):
        super().__init__(rows)
        self.kernel = row_kernel(FEATURES, scale)

    def _count(self, y_true, y_pred):
        ops = keras.ops if IS_KERAS_3 else tf
        numbers = [ops.matmul(ops.cast(y, "float32"), self.kernel) for y in (y_true, y_pred)]
        return super()._count(*numbers)


def autoencoder(dtype):
    """A model that returns its input, of int8 what it was before it was scaled; and recorders."""
    x = keras.Input((FEATURES,), dtype=dtype)
    scaled = x if dtype == "float32" else keras.layers.Rescaling(0.25)(x)
    decoded = keras.layers.Dense(FEATURES, use_bias=False, name="decoded")
    number = keras.layers.Dense(1, use_bias=False, name="number")
    model = keras.Model(x, {"decoded": decoded(scaled), "number": number(scaled)})
    decoded.set_weights([np.eye(FEATURES, dtype=np.float32) * (4 if dtype == "int8" else 1)])
    number.set_weights([row_kernel(FEATURES)])
    metrics = {
        "decoded": DecodedRows(ROWS, 1 if dtype == "int8" else 4),
        "number": RowCounts(ROWS),
    }
    model.compile(keras.optimizers.SGD(0.0), "mse", metrics={k: [m] for k, m in metrics.items()})
    return model, [Recorder(metric) for metric in metrics.values()]


@each_threads
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_autoencoder_is_compared_with_its_input_though_memory_is_used_again(shards, workers, dtype):
    """One array is both x and y, and TensorFlow copies neither."""
    target = {"number": "target_number", "decoded": "features"}
    options = {"paging": "streaming", "run_rows": 3, "dtype": dtype}
    sequence = NumeraiSequence(shards, 8, target=target, **options)
    model, recorders = autoencoder(dtype)
    history = model.fit(sequence, epochs=2, callbacks=recorders, verbose=0, **workers).history
    assert history["loss"] == history["decoded_loss"] == history["number_loss"] == [0, 0]
    for recorder in recorders:
        assert len(recorder.fit) == 2
        for counts in recorder.fit:
            assert_each_row_once(counts)


def test_features_alone_are_a_target(shards):
    sequence = NumeraiSequence(shards, BATCH, target="features", shuffle=False)
    model, other = (small_autoencoder() for _ in range(2))
    model.fit(sequence, epochs=2, shuffle=False, workers=4, verbose=0)
    x = np.concatenate([sequence[number][0] for number in range(len(sequence))])
    other.fit(x, x, epochs=2, batch_size=BATCH, shuffle=False, verbose=0)
    assert_same_weights(model, other)


def small_autoencoder():
    keras.utils.set_random_seed(2)
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((FEATURES,)), layers.Dense(3, activation="relu"), layers.Dense(FEATURES)]
    )
    model.compile("adam", "mse")
    return model


def era_weights(eras):
    return {era: 1 + int(era) % 3 for era in sorted(set(eras))}


@pytest.mark.parametrize(
    ("given", "workers"), [("era", ONE_THREAD), ("column", THREADS), ("function", PROCESSES)]
)
def test_weighted_loss_is_what_numpy_computes(shards, known, eras, workers, given):
    weigh = era_weights(eras)
    by_era = np.array([weigh[era] for era in eras])
    sample_weight, expected = {
        "era": (weigh, by_era),
        "column": ("target_weight", known["target_weight"]),
        "function": (late_and_high, (eras > "0005") * (1 + known["target"])),
    }[given]
    main = kernel(1)
    model = frozen(main, weighted_metrics=["mse"])
    options = {"missing_target": "mask", "sample_weight": sample_weight}
    sequence = NumeraiSequence(shards, BATCH, **options)
    history = model.fit(sequence, verbose=0, **workers).history
    expected = np.where(MISSING, 0, expected)
    losses = (outputs_of(main)[:, 0] - np.nan_to_num(known["target"])) ** 2 * expected
    assert history["loss"] == [pytest.approx(losses.sum() / ROWS, rel=1e-5)]
    assert history["mse"] == [pytest.approx(losses.sum() / expected.sum(), rel=1e-5)]


def late_and_high(eras, y):  # processes import it
    return (eras > "0005") * (1 + y)


def one(y_true, y_pred):
    """A loss of 1 for every row, so that the mean loss is the mean weight."""
    return 1 + 0 * y_pred[:, 0]


def boosted_weights(eras, epoch):
    return {era: 1.0 if int(era) % 3 == epoch % 3 else 4.0 for era in sorted(set(eras))}


@pytest.mark.parametrize(
    ("steps", "workers"),
    [(None, ONE_THREAD), (None, THREADS), (None, PROCESSES), (ROWS // BATCH, THREADS)],
)
def test_weights_that_a_callback_sets_hold_for_the_whole_next_epoch(shards, eras, workers, steps):
    sequence = NumeraiSequence(
        shards, BATCH, target="target_number", sample_weight=boosted_weights(eras, 0)
    )

    class Boost(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 5:  # no pass begins with these
                sequence.sample_weight = dict.fromkeys(sequence.eras, 99.0)

        def on_epoch_end(self, epoch, logs=None):
            sequence.sample_weight = boosted_weights(eras, epoch + 1)

    model = frozen(kernel(1), loss=one)
    options = {"epochs": 3, "steps_per_epoch": steps, "callbacks": [Boost()], "verbose": 0}
    history = model.fit(sequence, **options, **workers).history
    weights = [boosted_weights(eras, epoch) for epoch in range(3)]
    expected = [np.mean([of_epoch[era] for era in eras]) for of_epoch in weights]
    assert min(np.diff(sorted(expected))) > 0.01
    assert history["loss"] == pytest.approx(expected, rel=1e-5)


def test_weights_cannot_come_or_go_while_a_model_is_fitted(shards):
    class Set(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            sequence.sample_weight = weights

    given = dict.fromkeys(shards.eras, 1.0)
    for before, weights in ((None, given), (given, None)):
        options = {"target": "target_number", "sample_weight": before}
        sequence = NumeraiSequence(shards, BATCH, **options)
        with pytest.raises(ValueError, match="a change from or to None during fit"):
            frozen(kernel(1)).fit(sequence, epochs=2, callbacks=[Set()], verbose=0)
        sequence.sample_weight = weights  # afterwards it can
        frozen(kernel(1)).fit(sequence, verbose=0)


class Steps(keras.metrics.Metric):
    """Notes which rows came in which step; the model's output is the row's number."""

    def __init__(self, steps):
        super().__init__(name="steps")
        self.step = self.add_weight(shape=(), initializer="zeros", name="step")
        self.rows = self.add_weight(shape=(steps, ROWS), initializer="zeros", name="rows")

    def update_state(self, y_true, y_pred, sample_weight=None):
        ops, one_hot = (keras.ops, keras.ops.one_hot) if IS_KERAS_3 else (tf, tf.one_hot)
        total = ops.sum if IS_KERAS_3 else tf.reduce_sum
        numbers = ops.cast(ops.reshape(y_pred, [-1]) + 0.5, "int32")
        seen = total(one_hot(numbers, ROWS), axis=0)
        step = one_hot(ops.cast(self.step, "int32"), self.rows.shape[0])
        self.rows.assign(self.rows + ops.expand_dims(step, 1) * seen)
        self.step.assign(self.step + 1)

    def reset_state(self):
        self.step.assign(0)
        self.rows.assign(np.zeros(self.rows.shape, np.float32))

    def result(self):
        return self.step + 0


@each_threads
@pytest.mark.parametrize("per_batch", [1, 4])
def test_each_step_is_whole_eras_and_each_era_is_in_one(shards, eras, workers, per_batch):
    traces = []

    def traced(y_true, y_pred):
        traces.append(y_pred.shape)
        return one(y_true, y_pred)

    sequence = NumeraiSequence(shards, per_batch, target="target_number", batch_by="era")
    metric = Steps(len(sequence))
    model = frozen(row_kernel(FEATURES), loss=traced, metrics=[metric])
    orders = []
    for _ in range(2):
        model.fit(sequence, verbose=0, **workers)
        steps = to_numpy(metric.rows)
        assert to_numpy(metric.step) == len(sequence) == -(-ERAS // per_batch)
        np.testing.assert_array_equal(steps.sum(axis=0), np.ones(ROWS))
        seen = [sorted(set(eras[step > 0])) for step in steps]
        for step, those in zip(steps, seen, strict=True):
            np.testing.assert_array_equal(step > 0, np.isin(eras, those))
        assert sorted(map(len, seen), reverse=True)[0] == per_batch
        orders.append(seen)
    assert orders[0] != orders[1]
    if IS_TENSORFLOW:  # whatever the sizes; Keras 2 traces twice, to make an optimizer's variables
        assert len(traces) <= 2


def test_training_and_validation_are_chosen_from_one_set(shards, eras):
    def rows_of(chosen):
        return np.append(chosen, False).astype(float)

    options = {"target": "target_number", "eras": "0003-"}
    training = NumeraiSequence(shards, BATCH, data_type="train", **options)
    validation = NumeraiSequence(shards, BATCH, data_type="validation", **options)
    by_eras = NumeraiSequence(shards, 2, target="target_number", eras="::4", batch_by="era")
    metric = RowCounts(ROWS)
    model = frozen(row_kernel(FEATURES), metrics=[metric])
    recorder = Recorder(metric)
    fitted = {"epochs": 2, "callbacks": [recorder], "workers": 4, "verbose": 0}
    model.fit(training, validation_data=validation, **fitted)
    model.fit(by_eras, validation_data=validation, **fitted)
    fourth = np.isin(eras, sorted(set(eras))[::4])
    train = (eras >= "0003") & (eras < FIRST_VALIDATION)
    for counts, chosen in zip(recorder.fit, [train, train, fourth, fourth], strict=True):
        np.testing.assert_array_equal(counts, rows_of(chosen))
    assert len(recorder.tests) == 4
    for counts in recorder.tests:
        np.testing.assert_array_equal(counts, rows_of(eras >= FIRST_VALIDATION))


@pytest.fixture
def policy(request):
    keras.mixed_precision.set_global_policy(request.param)
    yield request.param
    keras.mixed_precision.set_global_policy("float32")


def network(dtype):
    """A small network with dropout, always the same; it scales int8 itself."""
    keras.utils.set_random_seed(3)
    layers = keras.layers
    x = keras.Input((FEATURES,), dtype=dtype)
    hidden = layers.Rescaling(0.25)(x) if dtype == "int8" else x
    hidden = layers.Dropout(0.25)(layers.Dense(16, activation="relu")(hidden))
    model = keras.Model(x, layers.Dense(1, dtype="float32")(hidden))
    model.compile("adam", "mse")
    return model


def trained(sequence, *data, epochs=3, **options):
    dtype = sequence.dtype
    model = network(dtype if dtype == "int8" else "float32")
    losses = model.fit(
        *(data or [sequence]), epochs=epochs, shuffle=False, verbose=0, **options
    ).history["loss"]
    assert losses[-1] < losses[0]
    return model


POLICIES = ["float32", "mixed_float16", "mixed_bfloat16"]


@pytest.mark.parametrize("policy", POLICIES, indirect=True)
@pytest.mark.slow
def test_training_is_the_same_to_the_bit_from_any_encoding_and_number_type(sets, policy):
    """0, .25, .5, .75 and 1 are exact in every floating point type."""

    def sequence(encoding="packed", dtype="float32"):
        return NumeraiSequence(sets[encoding], BATCH, target="target_weight", dtype=dtype)

    expected = trained(sequence())
    others = [("packed", "int8"), ("int8", "int8"), ("packed", "float16"), ("int8", "float32")]
    for encoding, dtype in others if policy == "float32" else others[:1]:
        assert_same_weights(trained(sequence(encoding, dtype)), expected)


def test_training_is_the_same_to_the_bit_as_from_arrays_in_memory(shards):
    sequence = NumeraiSequence(shards, BATCH, target="target_weight", shuffle=False)
    arrays = in_memory(sequence)
    expected = trained(sequence, *arrays, batch_size=BATCH)
    for workers in 1, 4:
        assert_same_weights(trained(sequence, workers=workers), expected)


class Seen(keras.losses.Loss):
    """Keeps what it is called with; of models that run eagerly."""

    def __init__(self):
        super().__init__(name="seen")
        self.seen = []

    def __call__(self, y_true, y_pred, sample_weight=None):
        parts = [y_true, *([] if sample_weight is None else [sample_weight])]
        if "Tracer" not in type(y_true).__name__:  # JAX looks at shapes first
            self.seen += [to_numpy(part) for part in parts]
        return super().__call__(y_true, y_pred, sample_weight)

    def call(self, y_true, y_pred):
        return one(y_true, y_pred)


TARGET_FORMS = ["target", ["target", "target_late"], NAMED, {"main": "features", "late": "target"}]


@pytest.mark.parametrize("missing", ["error", "drop", "mask"])
@pytest.mark.parametrize("target", TARGET_FORMS, ids=str)
def test_no_missing_value_reaches_the_loss(shards, eras, target, missing):
    names = list(target) if isinstance(target, dict) else ["main"]
    model = model_of(*[kernel(2) for _ in names], names=names, as_dict=len(names) > 1)
    seen = Seen()
    loss = dict.fromkeys(names, seen) if len(names) > 1 else seen
    model.compile(keras.optimizers.SGD(0.0), loss, run_eagerly=True)
    if missing == "error":
        with pytest.raises(ValueError, match="is missing in"):
            NumeraiSequence(shards, target=target)
        target = dict.fromkeys(names, "target_weight") if len(names) > 1 else "target_weight"
    by_rows = {"batch_size": 104}, {"batch_size": 104, "sample_weight": "target_weight"}
    by_era = {"batch_by": "era", "batch_size": 4, "sample_weight": era_weights(eras)}
    batches = 0
    for options in *by_rows, by_era:
        sequence = NumeraiSequence(shards, target=target, missing_target=missing, **options)
        assert np.isfinite(model.fit(sequence, verbose=0).history["loss"]).all()
        batches += len(sequence)
    assert len(seen.seen) > batches * len(names)
    assert all(np.isfinite(part).all() for part in seen.seen)
