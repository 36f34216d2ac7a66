"""Model input: what a model was trained on travels with it, and nothing feeds it otherwise."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from networks import keras
from numerai_tables import numerai_table, row_digits

from numerai_sequence import (
    EraScores,
    FeatureError,
    ManifestError,
    NumeraiSequence,
    NumeraiSequenceError,
    export_predict,
    predict,
    read_run,
)
from numerai_sequence.feeding.model_input import ModelInput, input_noted
from numerai_sequence.training.run_folder import Run, write_run
from numerai_sequence.training.run_predictions import export_run, predict_file

FEATURES = 14
IS_3 = hasattr(keras, "ops")


def make_model(**options):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((FEATURES,), **options)
    x = keras.layers.Rescaling(0.25)(inputs) if options else inputs
    model = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.Dense(3, "tanh")(x)))
    model.compile("sgd", "mse")
    return model


def fitted(shards, model=None, **options):
    """A model after one step of `fit`, and the sequence that it was trained on."""
    model = model or make_model()
    sequence = NumeraiSequence(shards, 1037, **{"dtype": "int8", **options})
    model.fit(sequence, verbose=0)
    return model, sequence


def scored(model, validation):
    with np.errstate(all="ignore"):
        return EraScores(validation).score(model)


@pytest.fixture
def backwards(shards):
    return list(shards.features[::-1])


def expected_of(model, frame, backwards):
    """The predictions of a model of raw features in the other order, by hand."""
    numbers = np.array([int(name[1:], 16) for name in frame.index])
    x = row_digits(numbers, FEATURES)[:, ::-1]
    assert backwards[0].endswith("013")
    return np.asarray(model.predict(np.ascontiguousarray(x, np.float32), verbose=0))[:, 0]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["in memory", "saved", "copied", "like", "like a run"])
def test_predictions_are_fed_as_the_training_was(shards, source, backwards, tmp_path, how):
    model, sequence = fitted(shards, features=backwards)
    options = {}
    if how == "saved":
        model.save(tmp_path / "model.keras")
        model = keras.models.load_model(tmp_path / "model.keras")
    elif how == "copied":
        model = pickle.loads(pickle.dumps(model)) if IS_3 else model
    elif how.startswith("like"):
        bare = make_model()
        bare.set_weights(model.get_weights())
        model, options = bare, {"like": sequence}
    if how == "like a run":
        run = Run({"options": {}}, tuple(backwards), "int8", None, (), (), {}, {}, {})
        write_run(run, tmp_path)
        options = {"like": read_run(tmp_path)}
        assert options["like"] == run
    for data in (shards, source):
        frame = predict(model, data, progress=False, **options)
        assert frame.attrs["features"] == backwards
        expected = expected_of(model, frame, backwards)
        assert np.allclose(frame["prediction"], expected, atol=1e-5)
    export_predict(model, tmp_path / "p.pkl", ranked=False, **options)
    function = pickle.loads((tmp_path / "p.pkl").read_bytes())
    live = numerai_table(id_is="column").to_pandas().set_index("id")
    expected = expected_of(model, live, backwards)
    assert np.allclose(function(live)["prediction"], expected, atol=1e-5)


def test_what_contradicts_the_training_is_refused(shards, source, backwards, tmp_path):
    model, sequence = fitted(shards)
    in_order, fewer = shards.features, shards.features[:3]
    calls = [
        lambda **wrong: predict(model, shards, progress=False, **wrong),
        lambda **wrong: predict(model, source, progress=False, **wrong),
        lambda **wrong: export_predict(model, tmp_path / "p.pkl", **wrong),
    ]
    for call in calls:
        with pytest.raises(FeatureError, match=r"14 features in another order: 'feature_013' at"):
            call(features=backwards)
        with pytest.raises(FeatureError, match=r"found 3 features, expected the 14.*is missing"):
            call(features=fewer)
        for dtype in ("float32", "float16"):
            with pytest.raises(FeatureError, match=f"found dtype='{dtype}'.*trained on 'int8'"):
                call(dtype=dtype)
        with pytest.raises(FeatureError, match=r"like: .*in another order"):
            call(like=NumeraiSequence(shards, features=backwards, dtype="int8"))
        with pytest.raises(TypeError, match="like: found ShardSet, expected the NumeraiSequence"):
            call(like=shards)
    assert not (tmp_path / "p.pkl").exists()
    for options in ({"features": backwards, "dtype": "int8"}, {"dtype": "float32"}):
        wrong = NumeraiSequence(shards, shuffle=False, **options)
        for method in (model.evaluate, model.predict):
            with pytest.raises(FeatureError, match=f"{method.__name__}: found"):
                method(wrong, verbose=0)
        with pytest.raises(FeatureError, match="fit: found"):
            model.fit(sequence, validation_data=wrong, verbose=0)
        with pytest.raises(FeatureError, match="validation: found"):
            scored(model, wrong)
        with pytest.raises(FeatureError, match="validation: found"):
            EraScores(wrong, like=sequence)
    # The same in so many words is right, and so is a feature set of these.
    assert len(predict(model, shards, features=in_order, dtype="int8", progress=False)) == 1037


def test_floats_of_either_width_are_one_scale(shards):
    model, _ = fitted(shards, dtype="float16")
    frame = predict(model, shards, dtype="float32", progress=False)
    assert np.allclose(frame, predict(model, shards, progress=False), atol=1e-3)


def test_another_training_is_said_and_remembered(shards, backwards):
    model, _ = fitted(shards)
    with pytest.warns(UserWarning, match="fit: found the model's 14 features in another order"):
        fitted(shards, model, features=backwards)
    assert input_noted(model) == ModelInput(tuple(backwards), "int8", "rows")


def test_an_input_of_integers_takes_raw_features_only(shards, source):
    model = make_model(dtype="int8")
    with pytest.raises(FeatureError, match=r"fit: found dtype='float32'.*Input is of type int8"):
        model.fit(NumeraiSequence(shards), verbose=0)
    with pytest.raises(FeatureError, match="Input is of type int8"):
        predict(model, shards, dtype="float32", progress=False)
    frame = predict(model, source, progress=False)
    expected = predict(model, source, dtype="int8", progress=False)
    assert frame["prediction"].tolist() == expected["prediction"].tolist()
    assert frame["prediction"].nunique() > 100


def test_a_model_that_was_not_fed_by_us_remembers_nothing(shards, tmp_path):
    model = make_model()
    model.fit(np.zeros((4, FEATURES), np.float32), np.zeros(4), verbose=0)
    model.save(tmp_path / "model.keras")
    model = keras.models.load_model(tmp_path / "model.keras")
    assert input_noted(model) == ModelInput()
    with pytest.raises(ValueError, match="does not remember"):
        export_predict(model, tmp_path / "p.pkl")
    assert len(predict(model, shards, progress=False)) == 1037
    assert input_noted(copy.copy(model)) == ModelInput()


def test_what_nobody_has_said_is_warned_of_at_the_line_of_the_caller(shards, source, tmp_path):
    model, features = make_model(), shards.features
    calls = (
        lambda: predict(model, shards, progress=False),
        lambda: predict(model, source, progress=False),
        lambda: export_predict(model, tmp_path / "p.pkl", features=features),
    )
    for call in calls:
        with pytest.warns(UserWarning, match="does not remember") as caught:
            call()
        found = [w for w in caught if "does not remember" in str(w.message)]
        assert [(w.filename, w.lineno) for w in found] == [(__file__, call.__code__.co_firstlineno)]


def test_a_checkpoint_of_the_first_epoch_remembers(shards, tmp_path):
    model, path = make_model(), tmp_path / "best.keras"
    checkpoint = keras.callbacks.ModelCheckpoint(str(path))
    model.fit(NumeraiSequence(shards, dtype="int8"), callbacks=[checkpoint], verbose=0)
    assert input_noted(keras.models.load_model(path)).dtype == "int8"


LOADED_FIRST = """
import sys, {keras} as keras
import numerai_sequence
model = keras.models.load_model({path!r})
print(numerai_sequence.predict(model, {source!r}, progress=False).attrs["features"][0])
"""


@pytest.mark.slow
def test_a_model_that_is_loaded_first_remembers(shards, source, backwards, tmp_path):
    model, _ = fitted(shards, features=backwards)
    path = str(tmp_path / "model.keras")
    model.save(path)
    code = LOADED_FIRST.format(keras=keras.__name__, path=path, source=str(source))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == backwards[0]


def test_batches_of_rows_are_said_where_training_was_by_eras(shards):
    model, by_era = make_model(), NumeraiSequence(shards, batch_by="era")
    with pytest.warns(UserWarning, match="found a sequence with batch_by='rows'") as said:
        model.fit(by_era, validation_data=NumeraiSequence(shards), epochs=3, verbose=0)
    assert [str(one.message).split(":")[0] for one in said] == ["fit"]  # not of each validation
    with pytest.warns(UserWarning, match="evaluate: found a sequence with batch_by='rows'"):
        model.evaluate(NumeraiSequence(shards), verbose=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model.fit(by_era, validation_data=by_era, verbose=0)
        model.evaluate(by_era, verbose=0)


def test_a_callback_that_feeds_another_model_is_checked(shards, backwards):
    """Though the fit around it is fed the same sequence."""
    other, _ = fitted(shards, features=backwards)
    model, sequence = make_model(), NumeraiSequence(shards, 1037, dtype="int8")

    def evaluate(epoch, logs):
        other.evaluate(sequence, verbose=0)

    callback = keras.callbacks.LambdaCallback(on_epoch_end=evaluate)
    with pytest.raises(FeatureError, match="evaluate: found the model's 14 features in another"):
        model.fit(sequence, callbacks=[callback], verbose=0)


def test_the_commands_take_a_saved_model_alone(shards, source, backwards, tmp_path):
    model, _ = fitted(shards, features=backwards)
    path = tmp_path / "model.keras"
    model.save(path)
    said = export_run(path, tmp_path / "p.pkl", batch_by=None)
    assert said == f"{tmp_path / 'p.pkl'}: 14 features as int8"
    said = export_run(path, tmp_path / "p.pkl", batch_by="era")
    assert said.endswith("14 features as int8, whole eras: 7,000 rows take 0 MB")
    out = tmp_path / "p.parquet"
    options = {"features": None, "eras": None, "batch_by": None, "ranked": True}
    assert predict_file(path, str(source), out, progress=False, **options) == 1037
    frame = pd.read_parquet(out)
    expected = pd.Series(expected_of(model, frame, backwards), frame.index)
    table = pq.read_table(source, columns=["id", "era"])
    eras = pd.Series(table["era"].to_pylist(), table["id"].to_pylist())
    by_era = expected.groupby(eras.reindex(frame.index).to_numpy())
    ranks = (by_era.rank() - 0.5) / by_era.transform("size")
    assert np.allclose(frame["prediction"], ranks, atol=0.02)
    bare = make_model()
    bare.save(path)
    with pytest.raises(NumeraiSequenceError, match="its features are not known"):
        export_run(path, tmp_path / "p.pkl", batch_by=None)


class Centred(NumeraiSequence):
    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return (x - 0.5) * 4, y


def test_batches_of_a_class_of_ones_own_are_said(shards, source, tmp_path):
    model = make_model()
    model.fit(Centred(shards), verbose=0)
    model.save(tmp_path / "model.keras")
    for one in (model, keras.models.load_model(tmp_path / "model.keras")):
        for call in (
            lambda one=one: predict(one, source, progress=False),
            lambda one=one: export_predict(one, tmp_path / "p.pkl"),
        ):
            with pytest.warns(UserWarning, match=r"trained on batches of Centred\.__getitem__"):
                call()
    centred = NumeraiSequence(shards, 1037, shuffle=False, target=None)[0]
    for data in shards, source:
        frame = predict(model, data, like=Centred(shards), progress=False)
        assert np.allclose(
            np.sort(frame["prediction"]),
            np.sort(np.ravel(model.predict_on_batch((centred - 0.5) * 4))),
            atol=1e-5,
        )


def test_scores_are_of_the_right_scale_and_width(shards):
    with pytest.raises(
        FeatureError, match=r"validation: found dtype='float32'.*Input is of type int8"
    ):
        scored(make_model(dtype="int8"), NumeraiSequence(shards))
    with pytest.raises(FeatureError, match="validation: found 3 features, expected 14, the"):
        scored(make_model(), NumeraiSequence(shards, features=shards.features[:3]))


def test_what_nobody_has_said_is_said_to_be_guessed(shards, source, tmp_path):
    path = tmp_path / "p.pkl"
    for data in (shards, source):
        with pytest.warns(UserWarning, match="gets all 14 features of the data, as float32 of 0"):
            predict(make_model(), data, progress=False)
        with pytest.warns(UserWarning, match="input, so it gets float32 of 0 to 1; give the"):
            predict(make_model(), data, features=shards.features, progress=False)
    with pytest.warns(UserWarning, match="gets float32 of 0 to 1"):
        export_predict(make_model(), path, features=shards.features)
    told = {"features": shards.features, "dtype": "float32"}
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        predict(make_model(), shards, progress=False, **told)
        export_predict(make_model(), path, **told)
        predict(fitted(shards)[0], source, progress=False)
        predict(make_model(), source, like=NumeraiSequence(shards), progress=False)
        predict(make_model(dtype="int8"), shards, features=shards.features, progress=False)


def test_a_walk_forward_is_told_to_name_one(tmp_path):
    for fold in ("fold-00", "fold-01"):
        (tmp_path / fold).mkdir()
        write_run(Run({}, ("a",), "int8", None, (), (), {}, {}, {}), tmp_path / fold)
    with pytest.raises(ManifestError, match=r"found 2 runs in it: name one, such as .*fold-00$"):
        read_run(tmp_path)


def test_a_set_of_features_has_no_order_and_is_refused(shards, source, tmp_path):
    names = {"features": set(shards.features), "dtype": "float32"}
    for call in (
        lambda: predict(make_model(), shards, progress=False, **names),
        lambda: predict(make_model(), source, progress=False, **names),
        lambda: export_predict(make_model(), tmp_path / "p.pkl", **names),
    ):
        with pytest.raises(TypeError, match="features: found a set, whose order differs"):
            call()
