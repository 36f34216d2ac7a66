"""Losses: correlations as SciPy's, gradients as differences say, and training that works.

``KERAS_BACKEND=jax`` and ``KERAS_BACKEND=torch`` choose another backend for the whole module.
"""

from __future__ import annotations

import functools

import keras
import numpy as np
import pytest
from scipy import stats
from scipy.special import expit

from numerai_sequence import NumeraiSequenceError, PearsonLoss, RankCorrelationLoss

pytestmark = pytest.mark.skipif(not hasattr(keras, "ops"), reason="losses of Keras 3")

BACKEND = keras.config.backend() if hasattr(keras, "config") else None
LOSSES = [PearsonLoss, RankCorrelationLoss]
BINS = np.array([0, 0.25, 0.5, 0.75, 1], np.float32)

each_loss = pytest.mark.parametrize("kind", LOSSES)


def era(rows, seed=0, correlation=0.3):
    """Targets in five bins, and predictions that know something of them."""
    rng = np.random.default_rng(seed)
    signal, noise = rng.normal(size=(2, rows))
    target = BINS[np.digitize(signal, [-1.6, -0.7, 0.7, 1.6])]
    prediction = correlation * signal + np.sqrt(1 - correlation**2) * noise
    return target, prediction.astype(np.float32)


def value(loss, *batch):
    return float(keras.ops.convert_to_numpy(loss(*batch)))


def value_and_gradient(loss, y_true, y_pred, *weights, **options):
    """The loss, and its gradient by y_pred; compiled, with unknown rows where there is a choice."""
    batch = [np.asarray(array) for array in (np.float32(y_pred), y_true, *weights)]
    if BACKEND == "torch":
        return torch_gradient(loss, *batch)
    config = tuple(loss.get_config().items())
    if BACKEND == "jax":
        result, gradient = jax_gradient(type(loss), config)(*batch)
    else:
        specs = [((None, *array.shape[1:]), array.dtype.name) for array in batch]
        function = tensorflow_gradient(type(loss), config, tuple(specs), **options)
        result, gradient = function(*batch)
    return float(result), np.asarray(gradient)


def torch_gradient(loss, y_pred, y_true, *weights):
    import torch

    leaf = torch.tensor(y_pred, requires_grad=True)
    result = loss(y_true, leaf, *weights)
    result.backward()
    return float(result.detach()), leaf.grad.numpy()


@functools.cache
def jax_gradient(kind, config):
    import jax

    loss = kind(**dict(config))
    return jax.jit(jax.value_and_grad(lambda p, t, *w: loss(t, p, *w)))


@functools.cache
def tensorflow_gradient(kind, config, specs, **options):
    import tensorflow as tf

    loss = kind(**dict(config))

    @tf.function(input_signature=[tf.TensorSpec(*spec) for spec in specs], **options)
    def gradient(y_pred, y_true, *weights):
        with tf.GradientTape() as tape:
            tape.watch(y_pred)
            result = loss(y_true, y_pred, *weights)
        return result, tape.gradient(result, y_pred)

    return gradient


@pytest.mark.parametrize("rows", [2, 3, 50, 3000])
def test_pearson_is_scipys(rows):
    for seed in range(4):
        target, prediction = era(rows, seed)
        target[0] += 1  # never all the same
        expected = 1 - stats.pearsonr(target, 5 + prediction)[0]
        assert value(PearsonLoss(), target, 5 + prediction) == pytest.approx(expected, abs=1e-5)


def test_weighted_pearson_is_numpys():
    target, prediction = era(400)
    weights = np.random.default_rng(1).exponential(size=400).astype(np.float32)
    (a, b), (_, c) = np.cov(target, prediction, aweights=weights)
    expected = pytest.approx(1 - b / np.sqrt(a * c), abs=1e-5)
    assert value(PearsonLoss(), target, prediction, weights) == expected
    assert value(PearsonLoss(), target, prediction, 1e4 * weights[:, None]) == expected


@pytest.mark.parametrize(("rows", "tolerance"), [(2, 1e-6), (100, 2e-3), (256, 2e-3), (5000, 2e-4)])
def test_low_temperature_is_scipys_spearman(rows, tolerance):
    loss = RankCorrelationLoss(temperature=1e-4)
    for seed in range(4):
        target, prediction = era(rows, seed)
        target[0] += 1
        expected = 1 - stats.spearmanr(target, prediction)[0]
        assert value(loss, target, prediction) == pytest.approx(expected, abs=tolerance)


def test_tied_predictions_have_average_ranks():
    target, prediction = era(250)
    prediction = np.round(prediction)
    loss = RankCorrelationLoss(temperature=1e-3)
    expected = 1 - stats.spearmanr(target, prediction)[0]
    assert value(loss, target, prediction) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("shape", [np.tanh, np.copy, lambda x: x + 4 * (x > 0.3), np.exp])
def test_default_temperature_agrees_with_spearman_on_an_era(shape):
    for rows, correlation in (2300, 0.0), (5000, 0.05), (7200, 0.5):
        target, prediction = era(rows, 3, correlation)
        expected = 1 - stats.spearmanr(target, prediction)[0]
        found = value(RankCorrelationLoss(), target, shape(prediction))
        assert found == pytest.approx(expected, abs=1.5e-3)


def test_softer_ranks_are_further_from_spearman():
    target, prediction = era(3000, correlation=0.9)
    prediction = np.exp(prediction)
    exact = 1 - stats.spearmanr(target, prediction)[0]
    distances = [
        abs(value(RankCorrelationLoss(temperature=temperature), target, prediction) - exact)
        for temperature in (0.01, 0.1, 1.0)
    ]
    assert distances == sorted(distances)
    assert distances[2] > 0.02


@pytest.mark.parametrize("rows", [100, 256])
def test_few_rows_are_ranked_among_all_others(rows):
    target, prediction = era(rows)
    scaled = prediction / prediction.std() / 0.003
    soft_ranks = expit(np.subtract.outer(scaled, scaled)).mean(axis=1)
    expected = 1 - stats.pearsonr(stats.rankdata(target), soft_ranks)[0]
    found = value(RankCorrelationLoss(temperature=0.003), target, prediction)
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("rows", [60, 900])
def test_weighted_ranks_count_a_row_as_many(rows):
    target, prediction = era(rows)
    times = np.random.default_rng(2).integers(1, 4, rows)
    expected = value(RankCorrelationLoss(), target.repeat(times), prediction.repeat(times))
    found = value(RankCorrelationLoss(), target, prediction, times / 7)
    assert found == pytest.approx(expected, abs=2e-4)


@each_loss
@pytest.mark.parametrize("rows", [40, 1000])
def test_rows_of_weight_zero_take_no_part(kind, rows):
    target, prediction = era(rows)
    weights = np.random.default_rng(3).integers(0, 3, rows).astype(np.float32)
    kept = weights > 0
    expected, gradient = value_and_gradient(kind(), target[kept], prediction[kept], weights[kept])
    target[~kept], prediction[~kept] = np.nan, -np.inf
    found, found_gradient = value_and_gradient(kind(), target, prediction, weights)
    assert found == pytest.approx(expected, abs=1e-6)
    np.testing.assert_allclose(found_gradient[kept], gradient, atol=1e-5 * abs(gradient).max())
    assert not found_gradient[~kept].any()


@pytest.mark.parametrize("rows", [384 * 3, 384 * 7])
def test_rows_of_weight_zero_move_no_row_to_another_anchor(rows):
    target, prediction = era(2 * rows)
    weights = np.zeros(2 * rows, np.float32)
    weights[np.random.default_rng(7).permutation(2 * rows)[:rows]] = 1
    kept = weights > 0  # of which many lie just between two anchors
    _, expected = value_and_gradient(RankCorrelationLoss(), target[kept], prediction[kept])
    _, found = value_and_gradient(RankCorrelationLoss(), target, prediction, weights)
    np.testing.assert_allclose(found[kept], expected, atol=1e-5 * abs(expected).max())


@each_loss
def test_order_of_rows_does_not_matter(kind):
    target, prediction = era(800)
    weights = np.random.default_rng(4).exponential(size=800).astype(np.float32)
    expected, gradient = value_and_gradient(kind(), target, prediction, weights)
    mixed = np.random.default_rng(5).permutation(800)
    found, found_gradient = value_and_gradient(
        kind(), target[mixed], prediction[mixed], weights[mixed]
    )
    assert found == pytest.approx(expected, abs=1e-6)
    np.testing.assert_allclose(found_gradient, gradient[mixed], atol=1e-4 * abs(gradient).max())


@each_loss
@pytest.mark.parametrize(("scale", "offset"), [(1e-3, 0), (1e3, 7e3), (1e-25, 0), (1e25, 0)])
def test_scale_and_offset_do_not_matter(kind, scale, offset):
    target, prediction = era(500)
    expected, gradient = value_and_gradient(kind(), target, prediction)
    changed = (scale * prediction + offset).astype(np.float32)
    found, found_gradient = value_and_gradient(kind(), 3 - 2 * target, changed)
    assert found == pytest.approx(2 - expected, abs=1e-4)
    largest = abs(gradient).max()
    np.testing.assert_allclose(-scale * found_gradient, gradient, atol=0.02 * largest)


@each_loss
def test_gradient_is_that_of_differences(kind):
    loss = kind(temperature=0.3) if kind is RankCorrelationLoss else kind()
    target, prediction = era(12, seed=1)
    weights = np.linspace(0.5, 2, 12, dtype=np.float32)
    _, gradient = value_and_gradient(loss, target, prediction, weights)
    steps = 5e-3 * np.eye(12, dtype=np.float32)
    differences = [
        value(loss, target, prediction + step, weights)
        - value(loss, target, prediction - step, weights)
        for step in steps
    ]
    np.testing.assert_allclose(gradient, np.array(differences) / 1e-2, atol=5e-4)
    assert abs(gradient).max() > 0.05


@each_loss
def test_gradient_of_a_whole_era_is_that_of_differences(kind):
    target, prediction = era(2500)
    _, gradient = value_and_gradient(kind(), target, prediction)
    step = 0.02 * gradient / abs(gradient).max()
    rise = value(kind(), target, prediction + step) - value(kind(), target, prediction - step)
    assert rise == pytest.approx(2 * step @ gradient, rel=0.02)


@each_loss
@pytest.mark.parametrize(("rows", "constant"), [(30, 0), (7200, 0.1), (7001, 3e7)])
def test_equal_predictions_have_no_correlation_but_a_way_to_it(kind, rows, constant):
    target, _ = era(rows)
    prediction = np.full(rows, constant, np.float32)
    found, gradient = value_and_gradient(kind(), target, prediction)
    assert found == pytest.approx(1, abs=1e-5)
    assert np.isfinite(gradient).all()
    assert np.corrcoef(-gradient, target)[0, 1] > 0.9
    assert 0.5 < rows * gradient.std() < 20


@each_loss
def test_predictions_that_are_nearly_zero_count_as_equal(kind):
    target, prediction = era(100)
    found, gradient = value_and_gradient(kind(), target, 1e-33 * prediction)
    assert found == pytest.approx(1, abs=1e-6)
    assert 0.5 < 100 * gradient.std() < 20


@each_loss
def test_equal_targets_have_no_correlation_and_no_gradient(kind):
    _, prediction = era(3000)
    found, gradient = value_and_gradient(kind(), np.full(3000, 0.3, np.float32), prediction)
    assert found == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(gradient, 0, atol=1e-9)


@each_loss
@pytest.mark.parametrize("weights", [[0, 0, 0], [0, 2, 0]])
def test_fewer_than_two_rows_have_no_correlation_and_no_gradient(kind, weights):
    weights = np.array(weights, np.float32)
    target, prediction = np.array([[1, 0, 1], [0.1, 0.2, -0.5]], np.float32)
    for batch in (target, prediction, weights), (target[1:2], prediction[1:2]):
        found, gradient = value_and_gradient(kind(), *batch)
        assert found == 1
        assert not gradient.any()


@each_loss
@pytest.mark.parametrize("place", [0, 1])
def test_a_missing_value_that_has_weight_is_not_hidden(kind, place):
    batch = era(50)
    batch[place][7] = np.nan
    assert np.isnan(value(kind(), *batch))


@each_loss
def test_loss_is_the_mean_over_outputs(kind):
    (a, p), (b, q) = era(300, 0), era(300, 1, correlation=0.8)
    weights = (np.arange(600).reshape(300, 2) % 3).astype(np.float32)
    single = [value(kind(), a, p, weights[:, 0]), value(kind(), b, q, weights[:, 1])]
    both = np.stack([a, b], 1), np.stack([p, q], 1)
    found, gradient = value_and_gradient(kind(), *both, weights)
    assert found == pytest.approx(np.mean(single), abs=1e-6)
    _, expected = value_and_gradient(kind(), b, q, weights[:, 1])
    np.testing.assert_allclose(2 * gradient[:, 1], expected, atol=1e-6)
    shared = np.mean([value(kind(), a, p, weights[:, 0]), value(kind(), b, q, weights[:, 0])])
    assert value(kind(), *both, weights[:, 0]) == pytest.approx(shared, abs=1e-6)


@each_loss
def test_a_column_is_as_good_as_a_vector(kind):
    target, prediction = era(100)
    expected = value(kind(), target, prediction)
    assert value(kind(), target, prediction[:, None]) == expected
    assert value(kind(), target[:, None], prediction[:, None]) == expected
    assert value(kind(), (4 * target).astype(np.int8), prediction) == pytest.approx(expected)


@each_loss
def test_outputs_without_targets_are_refused(kind):
    target, prediction = np.zeros((2, 10, 3), np.float32)
    with pytest.raises(ValueError, match="y_true: found 1 columns, expected 3"):
        kind()(target[:, :1], prediction)
    with pytest.raises(ValueError, match="sample_weight: found 2 columns, expected 3"):
        kind()(target, prediction, target[:, :2])
    with pytest.raises(ValueError, match=r"y_true: found shape \(10, 3, 1\)"):
        kind()(target[..., None], prediction)


@pytest.mark.parametrize("temperature", [0, -1, float("nan")])
def test_a_temperature_has_to_be_positive(temperature):
    with pytest.raises(ValueError, match="expected more than 0"):
        RankCorrelationLoss(temperature=temperature)


@each_loss
@pytest.mark.parametrize("floatx", ["float16", "float32"])
def test_float16_is_computed_in_float32(kind, floatx):
    target, prediction = era(7000)
    half = (300 + prediction).astype(np.float16)
    expected = value(kind(), target, half.astype(np.float32))
    keras.config.set_floatx(floatx)
    try:
        loss = kind()
        assert value(loss, target, keras.ops.convert_to_tensor(half)) == expected
        assert keras.backend.standardize_dtype(loss(target, half).dtype) == "float32"
    finally:
        keras.config.set_floatx("float32")


@pytest.mark.skipif(BACKEND != "tensorflow", reason="Keras rounds the mean over outputs elsewhere")
def test_float64_is_computed_in_float64():
    target, prediction = era(300)
    prediction = prediction + 1e-9 * np.arange(300)  # which float32 cannot tell
    keras.config.set_floatx("float64")
    try:
        found = value(PearsonLoss(), target, prediction)
    finally:
        keras.config.set_floatx("float32")
    assert found == pytest.approx(1 - stats.pearsonr(target, prediction)[0], abs=1e-12)


@pytest.mark.slow
@pytest.mark.skipif(BACKEND != "tensorflow", reason="how TensorFlow compiles")
@each_loss
def test_xla_gives_what_the_graph_gives(kind):
    (a, p), (b, q) = era(700, 0), era(700, 1)
    batch = np.stack([a, b], 1), np.stack([p, q], 1), (np.arange(700) % 4).astype(np.float32)
    expected = value_and_gradient(kind(), *batch)
    found = value_and_gradient(kind(), *batch, jit_compile=True)
    np.testing.assert_allclose(found[0], expected[0], atol=1e-6)
    np.testing.assert_allclose(found[1], expected[1], atol=1e-6)


class Eras(keras.utils.Sequence):
    """One era a batch, of different sizes; a fifth of the targets is missing and has no weight."""

    def __init__(self, eras=12, features=8):
        super().__init__()
        rng = np.random.default_rng(6)
        self.batches = []
        for rows in 200 + 50 * rng.integers(0, 2, eras):
            x = rng.choice(BINS, (rows, features))
            signal = (x - 0.5) @ np.linspace(-1, 1, features) + rng.normal(size=rows)
            target = BINS[np.digitize(signal, [-1.6, -0.7, 0.7, 1.6])]
            weights = (rng.random(rows) > 0.2).astype(np.float32)
            self.batches.append((x, np.where(weights, target, np.nan), weights))

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        return self.batches[index]

    def score(self, model):
        """The mean of the eras' Spearman correlations."""
        scores = []
        for x, target, weights in self.batches:
            prediction = keras.ops.convert_to_numpy(model(x))[:, 0]
            kept = (weights > 0) & np.isfinite(prediction)
            scores.append(stats.spearmanr(target[kept], prediction[kept])[0])
        return np.mean(scores)


def make_model(loss, outputs=1, features=8, last="glorot_uniform", dtype=None, **options):
    keras.utils.set_random_seed(0)
    layers = [
        keras.layers.Dense(8, "relu", dtype=dtype),
        keras.layers.Dense(outputs, kernel_initializer=last, dtype=dtype),
    ]
    model = keras.Sequential([keras.Input((features,)), *layers])
    model.compile(keras.optimizers.Adam(0.01), loss, **options)
    return model


@pytest.mark.slow
@each_loss
@pytest.mark.parametrize(
    ("dtype", "last"), [("float32", "zeros"), ("mixed_float16", "glorot_uniform")]
)
@pytest.mark.filterwarnings("error:Converting sparse")
def test_a_model_learns(kind, dtype, last):
    eras = Eras()
    options = {"jit_compile": False} if BACKEND == "tensorflow" else {}
    model = make_model(kind(), last=last, dtype=dtype, **options)
    if dtype == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.01))
        model.compile(optimizer, kind(), **options)
    before = eras.score(model) if last != "zeros" else 0.0
    history = model.fit(eras, epochs=4, verbose=0).history["loss"]
    assert eras.score(model) > max(before, 0) + 0.3
    assert history[-1] < history[0]
    assert all(np.isfinite(w).all() for w in model.get_weights())


@each_loss
def test_a_saved_model_has_its_loss_again(kind, tmp_path):
    loss = kind(name="mine", **({"temperature": 0.2} if kind is RankCorrelationLoss else {}))
    model, (target, prediction) = make_model(loss, features=1), era(200)
    model.train_on_batch(prediction[:, None], target)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded.loss) is kind
    assert loaded.loss.get_config() == loss.get_config()
    expected = model.evaluate(prediction[:, None], target, batch_size=200, verbose=0)
    found = loaded.evaluate(prediction[:, None], target, batch_size=200, verbose=0)
    assert found == expected
    assert found == pytest.approx(
        value(loss, target, model.predict(prediction[:, None], verbose=0))
    )


@each_loss
def test_rows_that_keras_masks_take_no_part(kind):
    target, prediction = era(90)
    x = prediction[:, None]
    x[::3] = -9
    layers = [keras.Input((1,)), keras.layers.Masking(-9.0), keras.layers.Dense(1)]
    model = keras.Sequential(layers)
    model.compile(loss=kind())
    kept = x[:, 0] != -9
    expected = value(kind(), target[kept], model.predict(x[kept], verbose=0))
    assert model.test_on_batch(x, target) == pytest.approx(expected, abs=1e-6)
    weights = 1 + np.arange(90) % 2
    expected = value(kind(), target[kept], model.predict(x[kept], verbose=0), weights[kept])
    assert model.test_on_batch(x, target, weights) == pytest.approx(expected, abs=1e-6)


@each_loss
def test_several_heads_have_a_loss_each(kind):
    x = keras.Input((2,))
    model = keras.Model(x, {"a": x[:, :1], "b": x[:, 1:]})
    model.compile(loss={"a": kind(), "b": "mse"}, loss_weights={"a": 3.0, "b": 1.0})
    target, prediction = era(80)
    batch = np.stack([prediction, target + 2], 1)
    found = model.test_on_batch(batch, {"a": target, "b": target})
    found = found[0] if isinstance(found, list) else found
    assert found == pytest.approx(3 * value(kind(), target, prediction) + 4, abs=1e-5)


REPLICAS = """
import numpy as np, tensorflow as tf, keras
from numerai_sequence import PearsonLoss
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
rng = np.random.default_rng(0)
x, y = rng.normal(size=(2, 60, 1)).astype("float32")
with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, kernel_initializer="ones")])
    model.compile(keras.optimizers.SGD(1.0), PearsonLoss())
found = model.evaluate(x, y, batch_size=60, verbose=0)
halves = [float(PearsonLoss()(y[i : i + 30], x[i : i + 30])) for i in (0, 30)]
print(found, np.mean(halves))
"""


@pytest.mark.slow
@pytest.mark.skipif(BACKEND != "tensorflow", reason="replicas of TensorFlow")
def test_replicas_are_averaged(forked):
    result = forked(REPLICAS)
    assert result.returncode == 0, result.stderr
    found, expected = map(float, result.stdout.split()[-2:])
    assert found == pytest.approx(expected, abs=1e-5)


@each_loss
def test_keras_2_is_refused(kind, monkeypatch):
    pytest.importorskip("tf_keras")
    monkeypatch.setenv("TF_USE_LEGACY_KERAS", "1")
    with pytest.raises(NumeraiSequenceError, match=r"Keras 2.*unset TF_USE_LEGACY_KERAS"):
        kind()
