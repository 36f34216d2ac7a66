"""Export: what Numerai will get back is what the model predicts, without this package."""

from __future__ import annotations

import inspect
import os
import pickle

import numpy as np
import pandas as pd
import pytest
from networks import keras, model_of, row_kernel, row_model
from numerai_tables import numerai_table

from numerai_sequence import FeatureError, NumeraiSequenceError
from numerai_sequence.predicting.export import export_predict

FEATURES = [f"feature_{number:03d}" for number in range(14)]

# What Numerai does: https://github.com/numerai/numerai-predict
CONTAINER = """
import inspect, sys
sys.modules["numerai_sequence"] = None
import pandas as pd
predict = pd.read_pickle("model.pkl")
assert len(inspect.signature(predict).parameters) == 2
live = pd.read_parquet("live.parquet")
predictions = predict(live, live[["era"]])
assert type(predictions) is pd.DataFrame
assert predictions.iloc[:, 0].between(0, 1).all()
assert not [name for name in sys.modules if name.startswith("numerai_sequence.")]
predictions.to_parquet("predictions.parquet")
"""


def live_frame(values="int8", rows=1037):
    """Numerai's live data as pandas reads them; predictions are the numbers of the rows."""
    frame = numerai_table(rows, id_is="column", eras=np.zeros(rows), era_names="X", values=values)
    frame = frame.drop_columns(["data_type", "target"]).to_pandas().set_index("id")
    return frame.astype(dict.fromkeys(FEATURES, "Int8")) if values == "Int8" else frame


def export(path, model=None, *, features=FEATURES, **options):
    """Export a model, and load the function."""
    path = path / "model.pkl" if path.is_dir() else path
    assert export_predict(model or row_model(), path, features=features, **options) == path
    return pickle.loads(path.read_bytes())


def ranks(rows):
    return ((np.arange(rows) + 0.5) / rows).astype(np.float32)


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """The function of a model that predicts the row's number, without ranks."""
    return export(tmp_path_factory.mktemp("raw"), ranked=False)


@pytest.mark.slow
def test_numerai_runs_it_without_this_package(tmp_path, forked):
    rng = np.random.default_rng(0)
    inputs = keras.layers.Input((14,))
    hidden = keras.layers.Dense(8, activation="relu")(keras.layers.BatchNormalization()(inputs))
    model = keras.Model(inputs, keras.layers.Dense(1)(hidden))
    model.compile("adam", "mse")
    model.fit(rng.random((64, 14), np.float32), rng.random(64, np.float32), verbose=0)
    export(tmp_path, model)
    live = live_frame()
    live.to_parquet(tmp_path / "live.parquet")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = forked(CONTAINER, cwd=tmp_path, env=environment)
    assert result.returncode == 0, result.stderr
    found = pd.read_parquet(tmp_path / "predictions.parquet")
    x = live[FEATURES].to_numpy(np.float32) * np.float32(0.25)
    expected = pd.Series(model.predict(x, batch_size=len(x), verbose=0)[:, 0]).rank()
    assert list(found.index) == list(live.index)
    assert list(found.columns) == ["prediction"]
    assert np.allclose(found["prediction"], (expected - 0.5) / len(x), atol=2e-3)


def test_small_whole_numbers_are_not_taken_for_scaled_ones(raw):
    for values in ("int8", "Int8"):
        assert raw(live_frame(values).iloc[:2])["prediction"].tolist() == [0, 1]


def test_the_function_has_numerais_signature(raw):
    assert raw.__name__ == "predict"
    assert list(inspect.signature(raw).parameters) == ["live_features", "live_benchmark_models"]


@pytest.mark.parametrize("values", ["int8", "Int8", "float32", "float64"])
def test_features_come_as_numerai_has_written_them(raw, values):
    frame = live_frame(values)
    found = raw(frame)
    assert found["prediction"].tolist() == list(range(1037))
    assert found["prediction"].dtype == np.float32
    assert list(found.columns) == ["prediction"]
    pd.testing.assert_index_equal(found.index, frame.index)


def test_columns_come_in_any_order_and_with_others(raw):
    frame = live_frame().assign(target=np.nan, feature_999=4)
    shuffled = frame[np.random.default_rng(0).permutation(frame.columns)]
    assert raw(shuffled)["prediction"].tolist() == list(range(1037))
    shuffled = shuffled.iloc[::-1]
    assert raw(shuffled)["prediction"].tolist() == list(range(1037))[::-1]


def test_a_missing_column_is_named(raw):
    frame = live_frame()
    with pytest.raises(ValueError, match=r"no column 'feature_003'; expected all 14 features"):
        raw(frame.drop(columns="feature_003"))
    with pytest.raises(ValueError, match="no column 'feature_003' and 1 more"):
        raw(frame.drop(columns=["feature_003", "feature_009"]))


@pytest.mark.parametrize("values", ["int8", "Int8", "float32"])
@pytest.mark.parametrize("missing", ["a value", "a column", "a column of None"])
def test_what_is_missing_is_the_middle(raw, values, missing):
    frame = live_frame(values)
    digits = live_frame()["feature_000"].to_numpy()
    if missing == "a value":
        frame["feature_000"] = frame["feature_000"].where(np.arange(1037) != 700)
        rows = [700]  # int8 with a missing value is float64 0..4
    else:
        frame["feature_000"] = np.nan if missing == "a column" else None
        rows = range(1037)
    expected = np.arange(1037)
    expected[rows] += 2 - digits[rows]
    assert raw(frame)["prediction"].tolist() == expected.tolist()


@pytest.mark.parametrize("value", [7, -1, np.inf, 2.5])
def test_values_that_are_no_features_are_an_error(raw, value):
    frame = live_frame()
    frame[FEATURES] = frame[FEATURES].astype("float32")
    frame.loc[frame.index[700], "feature_003"] = value
    with pytest.raises(ValueError, match=f"column 'feature_003' holds {value}, expected 0 to 4"):
        raw(frame)


def test_a_column_that_is_there_twice_is_an_error(raw):
    frame = pd.concat([live_frame(), live_frame()[["feature_003"]]], axis=1)
    with pytest.raises(ValueError, match="live_features: found column 'feature_003' twice"):
        raw(frame)


def test_digits_that_are_all_floats_are_digits(raw):
    frame = live_frame()
    frame[FEATURES] = frame[FEATURES].astype("float64")
    assert raw(frame)["prediction"].tolist() == list(range(1037))


@pytest.mark.parametrize("dtype", ["int8", "float16"])
@pytest.mark.parametrize("values", ["int8", "float32"])
def test_the_model_gets_its_own_dtype(tmp_path, dtype, values):
    model = row_model(scale=1 if dtype == "int8" else 4)
    function = export(tmp_path, model, dtype=dtype, ranked=False)
    assert function(live_frame(values))["prediction"].tolist() == list(range(1037))


def test_predictions_are_ranked_within_the_era(tmp_path):
    function = export(tmp_path)
    frame = live_frame()
    assert np.array_equal(function(frame)["prediction"], ranks(1037))
    assert np.array_equal(function(frame.drop(columns="era"))["prediction"], ranks(1037))
    frame["era"] = np.where(np.arange(1037) % 2, "0001", "0002")
    found = function(frame)["prediction"]
    assert np.array_equal(found[::2], ranks(519))
    assert np.array_equal(found[1::2], ranks(518))
    frame["era"] = None
    assert np.array_equal(function(frame)["prediction"], ranks(1037))


def test_equal_predictions_have_the_same_rank(tmp_path):
    function = export(tmp_path, model_of(np.zeros((14, 1), np.float32)))
    assert set(function(live_frame())["prediction"]) == {0.5}


def test_rows_go_through_the_model_in_batches(tmp_path, monkeypatch):
    function = export(tmp_path, ranked=False)
    function.__globals__["known"]["batch_rows"] = 100
    sizes, built = [], []
    build = function.__globals__["_build"]

    def count(*arguments):
        model = build(*arguments)
        predict_on_batch = model.predict_on_batch
        model.predict_on_batch = lambda x: sizes.append(len(x)) or predict_on_batch(x)
        built.append(model)
        return model

    function.__globals__["_build"] = count
    for _ in range(2):  # the model is loaded once, and tried on 64 rows
        assert function(live_frame())["prediction"].tolist() == list(range(1037))
    assert len(built) == 1
    assert sizes == [64, *[95] * 10, 87, *[95] * 10, 87]
    assert function(live_frame("float32"))["prediction"].tolist() == list(range(1037))


def test_some_features_in_an_order_of_their_own(tmp_path):
    kernel = np.append([[0]], row_kernel(9)[::-1], axis=0).astype(np.float32)
    features = ["feature_012", *FEATURES[:9][::-1]]
    function = export(tmp_path, model_of(kernel), features=tuple(features), ranked=False)
    assert function(live_frame())["prediction"].tolist() == list(range(1037))


@pytest.mark.parametrize("as_dict", [False, True])
def test_an_output_is_chosen(tmp_path, as_dict):
    rows = row_kernel(14)
    kernels = rows, np.concatenate([rows, -rows], axis=1)
    model = model_of(*kernels, names=["one", "two"], as_dict=as_dict)
    with pytest.raises(
        ValueError, match="found 3 values for each row, one, two_0, two_1, expected one"
    ):
        export(tmp_path, model)
    for output, factor in {"one": 1, "two_1": -1}.items():
        function = export(tmp_path, model, output=output, ranked=False)
        assert np.array_equal(function(live_frame())["prediction"], factor * np.arange(1037))


def test_losses_do_not_matter(tmp_path):
    def own_loss(y, p):
        return (y - p) ** 2

    model = row_model()
    model.compile("adam", own_loss)
    function = export(tmp_path, model, ranked=False)
    assert function(live_frame())["prediction"].tolist() == list(range(1037))


# What is not accepted


@pytest.fixture
def old(tmp_path):
    """A file that is there already."""
    path = tmp_path / "model.pkl"
    path.write_bytes(b"old")
    yield path
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["model.pkl"]


@pytest.mark.parametrize("is_registered", [True, False])
def test_layers_that_numerai_does_not_have_are_an_error(old, is_registered):
    class Doubled(keras.layers.Layer):
        def call(self, x):
            return x * 2

    def double(x):
        return x * 2

    is_keras_2 = keras.__version__.startswith("2.")
    expected = "cannot be loaded from" if is_keras_2 else "'double' is not in keras.activations"
    if is_registered:  # it can be loaded here, but not there
        double.__name__ = "twice"
        register = keras.saving.register_keras_serializable("ours")
        expected = f"'ours>{register(double).__name__}' is not Keras's own"
        register(Doubled)
    inputs = keras.layers.Input((14,))
    outputs = keras.layers.Dense(1)(inputs)
    with pytest.raises(NumeraiSequenceError, match="Doubled' is not Keras's own"):
        export(old, keras.Model(inputs, Doubled()(outputs)))
    with pytest.raises(NumeraiSequenceError, match=expected):
        export(old, keras.Model(inputs, keras.layers.Activation(double)(outputs)))


def test_a_model_that_its_own_file_does_not_hold_is_an_error(old):
    for ranked in (True, False):
        model = row_model()
        run = model.predict_on_batch
        model.predict_on_batch = lambda x, run=run: -run(x)
        with pytest.raises(NumeraiSequenceError, match="predicts other values than the model"):
            export(old, model, ranked=ranked)


def test_a_model_of_broken_weights_is_an_error(old):
    model = row_model()
    model.set_weights([np.full((14, 1), np.nan, np.float32)])
    with pytest.raises(NumeraiSequenceError, match="predictions are NaN"):
        export(old, model)


def test_nan_is_never_returned(tmp_path):
    inputs = keras.layers.Input((14,))
    is_row_0 = keras.layers.Dense(1, activation="relu", name="is_row_0")(inputs)
    large = keras.layers.Dense(1, activation="relu", name="large")(is_row_0)
    infinite = keras.layers.Dense(1, activation="relu", name="infinite")(large)
    model = keras.Model(inputs, keras.layers.Subtract()([infinite, infinite]))
    model.get_layer("is_row_0").set_weights([-row_kernel(14), np.ones(1)])
    for name in ("large", "infinite"):
        model.get_layer(name).set_weights([np.full((1, 1), 1e38), np.zeros(1)])
    function = export(tmp_path, model)
    assert set(function(live_frame().iloc[1:])["prediction"]) == {0.5}
    with pytest.raises(ValueError, match="NaN for 1 of 1037 rows"):
        function(live_frame())


def test_bad_options_are_errors(old):
    with pytest.raises(
        FeatureError, match="found 3 features, expected 14, the number that the model takes"
    ):
        export(old, features=FEATURES[:3])
    with pytest.raises(FeatureError, match="'feature_001' is named twice"):
        export(old, features=["feature_001", *FEATURES[1:]])
    with pytest.raises(TypeError, match="features: found 'small'"):
        export(old, features="small")
    with pytest.raises(ValueError, match="dtype: found 'float64'"):
        export(old, dtype="float64")
    with pytest.raises(ValueError, match=r"found suffix '\.txt', expected '\.pkl'"):
        export(old.with_suffix(".txt"))
    with pytest.raises(TypeError, match="expected a Keras model"):
        export_predict(_NoModel(), old, features=FEATURES)


class _NoModel:
    def predict_on_batch(self, x):
        return x[:, :1]
