"""Whole eras: what looks at all rows of an era is scored, predicted and exported on them."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from networks import keras, row_kernel, row_model
from numerai_tables import numerai_table

from numerai_sequence import (
    EraScores,
    NumeraiSequence,
    export_predict,
    predict,
    write_shards,
)
from numerai_sequence.feeding.keras_compat import active_keras
from numerai_sequence.predicting.predictions import describe_eras
from numerai_sequence.scoring import forward_pass as forward_module
from numerai_sequence.scoring import scores
from numerai_sequence.scoring.model_outputs import depends_on_batch, random_rows

FEATURES, ROWS = 14, 1037
ops = active_keras().ops if hasattr(active_keras(), "ops") else None
if ops is None:
    pytest.skip("Keras 2 has no ops to write such models with", allow_module_level=True)


def centred(h):
    """Each row's value against its batch's mean and largest: other rows, other values."""
    return h - ops.mean(h, axis=0, keepdims=True) + ops.max(h, axis=0, keepdims=True)


def ranked(h):
    return ops.cast(ops.argsort(ops.argsort(h, axis=0), axis=0), "float32") / 1000


def attended(h):
    """Attention over the rows of a batch."""
    weights = ops.softmax(ops.transpose(h) * 0.01 + 0 * h, axis=-1)
    return h + 10 * ops.matmul(weights, h)


def era_model(mix=centred, **options):
    """A model whose values depend on the whole batch."""
    inputs = keras.Input((FEATURES,), **options)
    dense = keras.layers.Dense(1, use_bias=False)
    model = keras.Model(inputs, mix(dense(inputs)))
    dense.set_weights([row_kernel(FEATURES) / 1000])
    model.compile("sgd", "mse")
    return model


def by_hand(model, table):
    """The predictions of a model, an era at a time, indexed by id."""
    frame = table.to_pandas().set_index("id")
    names = [name for name in frame.columns if name.startswith("feature")]
    parts = []
    for _, era in frame.groupby("era"):
        x = era[names].to_numpy(np.float32) * np.float32(0.25)
        parts.append(pd.Series(np.asarray(model.predict_on_batch(x))[:, 0], era.index))
    return pd.concat(parts)


@pytest.fixture(scope="module")
def table():
    return numerai_table(ROWS, id_is="column", eras=1 + np.arange(ROWS) % 5, missing_target=True)


@pytest.fixture(scope="module")
def source(table, tmp_path_factory):
    path = tmp_path_factory.mktemp("eras") / "all.parquet"
    pq.write_table(table, path)
    return path


@pytest.fixture(scope="module", params=[None, 1], ids=["mixed", "kept together"])
def shards(source, request):
    folder = source.parent / f"set-{request.param}"
    with write_shards(source, folder, mix_eras=request.param, progress=False) as opened:
        yield opened


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    """Pieces of eras, where eras are not kept whole."""
    monkeypatch.setattr(forward_module, "_BATCH_BYTES", 4 * FEATURES * 50)


def flat(*outputs):
    """A model of these functions of a Dense layer's values."""
    inputs = keras.Input((FEATURES,))
    h = keras.layers.Dense(1)(inputs)
    made = [output(h) for output in outputs]
    return keras.Model(inputs, made if made[1:] else made[0])


def found(model, dtype="float32"):
    return depends_on_batch(model, random_rows(FEATURES, dtype))


def test_what_looks_beside_its_row_is_found():
    assert not found(row_model())
    for mix in (centred, ranked, attended):
        assert found(era_model(mix))
        assert found(era_model(mix), "int8")
    assert not found(flat(lambda h: h, lambda h: h * 1e6))
    # A small part of the values, beside a large constant, or a large output.
    assert found(flat(lambda h: centred(h) + 2e4))
    assert found(flat(centred, lambda h: h * 1e6))
    # What shows in batches of some sizes alone, or fails in small ones.
    for function in (lambda h: h * (len(h) > 70), lambda h: h - ops.max(h[100:101])):
        assert found(flat(keras.layers.Lambda(function, output_shape=(1,))))


def test_layers_that_look_beside_are_told_from_those_that_do_not():
    inputs = keras.Input((FEATURES,))
    normalized = keras.layers.BatchNormalization()
    in_training = keras.Model(inputs, normalized(inputs, training=True))
    before = [np.array(weight) for weight in in_training.get_weights()]
    assert found(in_training)
    for weight, kept in zip(in_training.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, kept)
    for layer in (normalized, keras.layers.LayerNormalization(), keras.layers.Dropout(0.5)):
        assert not found(keras.Model(inputs, layer(inputs)))
    # Random itself: what is far larger than the noise can be told.
    assert not found(flat(lambda h: keras.layers.GaussianNoise(1.0)(h, training=True)))
    assert found(flat(lambda h: keras.layers.GaussianNoise(1e-3)(centred(h), training=True)))


def test_a_predict_step_of_ones_own_is_looked_at():
    class Ranked(keras.Model):
        def predict_step(self, *data):
            outputs = super().predict_step(*data)
            if isinstance(outputs, tuple):  # on JAX
                return ops.cast(centred(outputs[0]), "float32"), *outputs[1:]
            return centred(outputs)

    inputs = keras.Input((FEATURES,))
    assert found(Ranked(inputs, keras.layers.Dense(1)(inputs)))


@pytest.mark.parametrize("mix", [centred, ranked, attended])
def test_predictions_are_of_whole_eras(shards, source, table, tmp_path, mix):
    model = era_model(mix)
    expected = by_hand(model, table)
    for data in (shards, source):
        values = predict(model, data, progress=False)["prediction"]
        assert np.allclose(values, expected[values.index], rtol=1e-5)
    pieces = predict(model, shards, batch_by="rows", progress=False)["prediction"]
    assert not np.allclose(pieces, expected[pieces.index], rtol=1e-3)
    export_predict(model, tmp_path / "p.pkl", features=shards.features, ranked=False)
    function = pickle.loads((tmp_path / "p.pkl").read_bytes())
    live = table.to_pandas().set_index("id")
    assert np.allclose(function(live)["prediction"], expected[live.index], rtol=1e-5)
    one = live[live["era"] == "0003"]
    without = function(one.drop(columns="era"))["prediction"]
    assert np.allclose(without, expected[one.index], rtol=1e-5)
    assert function(one[:0]).empty


def test_rows_that_are_asked_for_are_whole_eras_too(shards, table):
    model = era_model()
    expected = by_hand(model, table)
    found = predict(model, shards, eras="0002,0005", progress=False)["prediction"]
    assert len(found) == 415
    assert np.allclose(found, expected[found.index], rtol=1e-5)


def test_scores_are_of_whole_eras(shards, table):
    frame = table.to_pandas().set_index("id")
    for mix, options in ((centred, {}), (attended, {"batch_by": "era"}), (ranked, {})):
        model = era_model(mix)
        validation = NumeraiSequence(shards, target="target_b", missing_target="drop", **options)
        found = EraScores(validation, exposure=True).score(model)
        ours = by_hand(model, table)[frame.index]
        expected = scores.score_eras(frame["era"], ours, frame["target_b"].to_numpy(np.float32))
        assert np.allclose(found["corr"], expected["corr"], atol=1e-6)
        assert found["exposure"].between(0, 1).all()


def test_training_by_eras_is_remembered(shards, source, monkeypatch):
    inputs = keras.Input((FEATURES,))
    model = keras.Model(inputs, keras.layers.Dense(1)(inputs))
    model.compile("sgd", "mse")
    sequence = NumeraiSequence(shards, batch_by="era", target=None)
    model.fit(NumeraiSequence(shards, batch_by="era", missing_target="mask"), verbose=0)
    sizes = []
    run = model.predict_on_batch
    monkeypatch.setattr(model, "predict_on_batch", lambda x: sizes.append(len(x)) or run(x))
    eras = sorted(len(rows) for rows in map(sequence.one_pass().rows, range(5)))
    for data in (shards, source):
        predict(model, data, progress=False)
        assert sorted(size for size in sizes if size >= 200) == eras
        sizes.clear()
    with np.errstate(all="ignore"):
        EraScores(NumeraiSequence(shards, missing_target="drop")).score(model)
    assert sorted(sizes) == eras
    sizes.clear()
    predict(model, shards, batch_size=100, progress=False)  # it does not need them
    assert max(sizes) == 100


def test_a_batch_size_is_refused_where_it_would_change_predictions(shards, source):
    for data in (shards, source):
        with pytest.raises(ValueError, match="batch_size: found 100, but the model's predictions"):
            predict(era_model(), data, batch_size=100, progress=False)
        with pytest.raises(ValueError, match="batch_size: found 100 with batch_by='era'"):
            predict(row_model(), data, batch_size=100, batch_by="era", progress=False)
        with pytest.raises(ValueError, match="batch_by: found 'eras'"):
            predict(row_model(), data, batch_by="eras", progress=False)


def test_it_is_said_how_much_an_era_takes(source, capsys):
    predict(era_model(), source)
    said = capsys.readouterr().err
    assert "predicting whole eras: the largest has 208 rows and takes 0 MB as float32" in said
    predict(row_model(), source)
    assert "whole eras" not in capsys.readouterr().err


def test_the_largest_era_counts(shards):
    sequence = NumeraiSequence(shards, batch_by="era", target=None, shuffle=False, dtype="int8")
    assert describe_eras(sequence).endswith("208 rows and takes 0 MB as int8")


class Cubes(NumeraiSequence):
    """An era as a batch of one set: x of shape (1, rows, features)."""

    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return x[np.newaxis], y[np.newaxis]


def test_an_era_as_a_batch_of_one_is_scored(shards, table):
    inputs = keras.Input((None, FEATURES))
    dense = keras.layers.Dense(1, use_bias=False)
    h = dense(inputs)
    model = keras.Model(
        inputs, h - ops.mean(h, axis=1, keepdims=True) + ops.max(h, axis=1, keepdims=True)
    )
    dense.set_weights([row_kernel(FEATURES) / 1000])
    frame = table.to_pandas().set_index("id")
    expected = by_hand(era_model(), table)[frame.index]
    validation = Cubes(shards, target="target_b", missing_target="drop", batch_by="era")
    found = EraScores(validation, exposure=True).score(model)
    target = frame["target_b"].to_numpy(np.float32)
    assert np.allclose(found["corr"], scores.score_eras(frame["era"], expected, target)["corr"])
    flat = keras.Model(inputs, keras.layers.GlobalAveragePooling1D()(h))
    with pytest.raises(ValueError, match="for 208 rows of x, expected"):
        EraScores(validation).score(flat)


def test_a_model_of_cubes_is_refused_by_name(shards, source, tmp_path):
    inputs = keras.Input((None, FEATURES))
    model = keras.Model(inputs, keras.layers.Dense(1)(inputs))
    for data in (shards, source):
        with pytest.raises(ValueError, match=r"model: found an input of shape \(None, None, 14\)"):
            predict(model, data, progress=False)
    with pytest.raises(ValueError, match="expected \\(rows, features\\)"):
        export_predict(model, tmp_path / "p.pkl", features=shards.features)
