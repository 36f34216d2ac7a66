"""Several inputs: what a class of the user's own makes of x is trained on, scored and predicted."""

from __future__ import annotations

import numpy as np
import pytest
from networks import keras, row_kernel
from numerai_tables import write_source

from numerai_sequence import EraScores, FeatureError, NumeraiSequence, export_predict, predict

FEATURES = 14
FORMS = {
    "dict": lambda x: {"a": x[:, :2], "b": x[:, 2:]},
    "list": lambda x: [x[:, :2], x[:, 2:]],
    "cube": lambda x: x[:, :, np.newaxis],
}


class Parts(NumeraiSequence):
    form = "dict"

    def __getitem__(self, index):
        x, *rest = super().__getitem__(index)
        return FORMS[self.form](x), *rest


class Lists(Parts):
    form = "list"


class Cubes(Parts):
    form = "cube"


def make_model(form):
    """A model that predicts each row's number."""
    if form == "cube":
        inputs = keras.Input((FEATURES, 1))
        x = keras.layers.Flatten()(inputs)
    else:
        a, b = keras.Input((2,), name="a"), keras.Input((FEATURES - 2,), name="b")
        inputs = {"a": a, "b": b} if form == "dict" else [a, b]
        x = keras.layers.Concatenate()([a, b])
    dense = keras.layers.Dense(1, use_bias=False)
    model = keras.Model(inputs, dense(x))
    dense.set_weights([row_kernel(FEATURES)])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    return model


@pytest.mark.parametrize("kind", [Parts, Lists, Cubes], ids=list(FORMS))
def test_what_a_class_makes_of_x_is_scored_and_predicted(shards, tmp_path, kind):
    model, sequence = make_model(kind.form), kind(shards, 300)
    history = model.fit(sequence, verbose=0, callbacks=[EraScores(kind(shards))]).history
    assert history["loss"] == [pytest.approx(0, abs=1e-3)]
    assert EraScores(sequence).score(model)["corr"].mean() == pytest.approx(
        history["val_corr_mean"][0]
    )
    assert history["val_corr_mean"][0] > 0.9
    source = write_source(tmp_path / "live.parquet", rows=90, eras=2)
    numbers = predict(model, source, like=sequence, progress=False)["prediction"]
    assert np.allclose(numbers, np.arange(90), atol=1e-2)
    frame = predict(model, shards, like=sequence, eras=shards.eras[:2], progress=False)
    assert np.allclose(frame["prediction"], [int(name[1:], 16) for name in frame.index], atol=1e-2)


def test_what_takes_one_array_says_so(shards, tmp_path):
    model = make_model("dict")
    with pytest.raises(ValueError, match="exposure: found x of a dict, expected one array of"):
        model.fit(Parts(shards), verbose=0, callbacks=[EraScores(Parts(shards), exposure=True)])
    with pytest.raises(
        FeatureError, match="found 2 inputs, expected one array; give the training sequence"
    ):
        predict(model, shards, progress=False)
    with pytest.raises(FeatureError, match="2 inputs, expected one array; the exported function"):
        export_predict(model, tmp_path / "p.pkl", like=Parts(shards))
    source = write_source(tmp_path / "live.parquet", rows=90, eras=2, targets=())
    with pytest.raises(FeatureError, match="unknown target of like=, whose class may look at y"):
        predict(model, source, like=Parts(shards), progress=False)


class Mixing(keras.Model):
    """Its values depend on the first row of a batch."""

    def call(self, x):
        return x["a"][:, :1] - x["a"][:1, :1]


def test_a_model_of_several_inputs_is_tried_on_what_its_class_makes(shards):
    for model, batch_by in ((make_model("dict"), "rows"), (Mixing(), "era")):
        scores = EraScores(Parts(shards))
        with np.errstate(all="ignore"):
            scores.score(model)
        assert scores._batch_by == batch_by
