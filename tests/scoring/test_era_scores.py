"""EraScores: what fit logs after an epoch is what numerai-tools says of the same predictions."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from keras_models import IS_KERAS_3
from networks import keras
from numerai_tools import scoring

from numerai_sequence import (
    EraScores,
    FeatureError,
    NumeraiSequence,
    NumeraiSequenceError,
    write_shards,
)
from numerai_sequence.synthetic import write_parquet

FEATURES = 24
TRAIN, VALIDATION = "0001-0012", "0015-0020"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("scores") / "train.parquet"
    return write_parquet(path, rows=6000, features=FEATURES, targets=5, min_eras=20)


@pytest.fixture(scope="module")
def shards(source):
    with write_shards(source, source.parent / "set", mix_eras=3, progress=False) as opened:
        yield opened


@pytest.fixture(scope="module")
def frame(source):
    return pd.read_parquet(source)


def make_model(shards, seed=0, outputs=("target",), zeros=False):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((len(shards.features),))
    hidden = keras.layers.Dense(8, activation="relu")(inputs)
    kernel = "zeros" if zeros else "glorot_uniform"
    made = [keras.layers.Dense(1, kernel_initializer=kernel, name=n)(hidden) for n in outputs]
    model = keras.Model(inputs, dict(zip(outputs, made, strict=True)) if made[1:] else made[0])
    model.compile(keras.optimizers.Adam(0.01), "mse")
    return model


@pytest.fixture
def training(shards):
    return NumeraiSequence(shards, 500, eras=TRAIN)


@pytest.fixture
def validation(shards):
    return NumeraiSequence(shards, 500, eras=VALIDATION)


def predictions_of(model, frame, shards):
    chosen = frame[frame["era"].between(*VALIDATION.split("-"))]
    x = chosen[list(shards.features)].to_numpy(np.float32) / 4
    return chosen.assign(prediction=model.predict(x, verbose=0).reshape(-1).astype(float))


def scores_of(predicted, other=None, target="target"):
    """numerai-tools' own scores, on the frame."""
    scores = {}
    for era, rows in predicted.dropna(subset=[target]).sort_index().groupby("era"):
        columns = rows[["prediction"]], rows[target].astype(float)
        if other is None:
            scores[era] = scoring.numerai_corr(*columns).iloc[0]
        else:
            model = other.loc[rows.index].astype(float)
            score = scoring.correlation_contribution(columns[0], model, columns[1])
            scores[era] = score.iloc[0]
    return pd.Series(scores)


def test_logs_are_numerais_scores_of_the_validation_eras(shards, frame, training, validation):
    model, scores = make_model(shards), EraScores(validation)
    history = model.fit(training, epochs=2, callbacks=[scores], verbose=0).history
    expected = scores_of(predictions_of(model, frame, shards))
    assert list(scores.table.index) == [f"{era:04d}" for era in range(15, 21)]
    np.testing.assert_allclose(scores.table["corr"], expected, atol=1e-6)
    cumulative = expected.cumsum()
    for name, value in (
        ("mean", expected.mean()),
        ("std", expected.std(ddof=0)),
        ("sharpe", scoring.sharpe_ratio(expected.to_numpy())),
        ("max_drawdown", (cumulative.expanding().max() - cumulative).max()),
    ):
        logs = history[f"val_corr_{name}"]
        assert len(logs) == 2
        assert logs[1] == pytest.approx(value, abs=1e-5)


def test_other_callbacks_can_monitor_the_scores(shards, training, validation, tmp_path):
    model, scores = make_model(shards), EraScores(validation)
    # The worst is kept: that it gets better is sure, that it gets worse is not.
    monitor = {"monitor": "val_corr_mean", "mode": "min"}
    best = keras.callbacks.ModelCheckpoint(
        str(tmp_path / "best.keras"), save_best_only=True, **monitor
    )
    stop = keras.callbacks.EarlyStopping(patience=1, restore_best_weights=True, **monitor)
    callbacks = [scores, best, stop]
    history = model.fit(training, epochs=60, callbacks=callbacks, verbose=0).history
    means = history["val_corr_mean"]
    assert len(means) < 60
    assert min(means) == means[-2] < means[-1]
    saved = keras.models.load_model(str(tmp_path / "best.keras"))
    for found in (model, saved):
        assert scores.score(found)["corr"].mean() == pytest.approx(min(means), abs=1e-6)


def test_contributions_are_numerais(shards, frame, training, validation):
    rng = np.random.default_rng(0)
    meta = frame["target_agnes_20"].fillna(0.5) + rng.normal(0, 1, len(frame))
    benchmarks = pd.DataFrame({"one": rng.normal(size=len(frame))}, frame.index)
    benchmarks["two"] = benchmarks["one"] + meta
    model = make_model(shards)
    shuffled = meta.sample(frac=1, random_state=0)  # ids say which row, not places
    scores = EraScores(validation, meta_model=shuffled, benchmarks=benchmarks.iloc[::-1])
    logs = model.fit(training, callbacks=[scores], verbose=0).history
    predicted = predictions_of(model, frame, shards)
    assert list(scores.table.columns) == ["corr", "mmc", "bmc_one", "bmc_two"]
    for column, other in (("mmc", meta), *((f"bmc_{n}", benchmarks[n]) for n in benchmarks)):
        expected = scores_of(predicted, other.astype(np.float32))
        np.testing.assert_allclose(scores.table[column], expected, atol=1e-6)
        assert logs[f"val_{column}_mean"][0] == pytest.approx(expected.mean(), abs=1e-6)


def test_other_models_may_be_columns_of_the_set(shards, frame, validation):
    model = make_model(shards)
    name = "target_agnes_60"  # any column: missing at times, as the meta model is
    columns = EraScores(validation, meta_model=name, benchmarks=[name]).score(model)
    series = EraScores(validation, meta_model=frame[name], benchmarks=frame[[name]]).score(model)
    pd.testing.assert_frame_equal(columns, series)
    np.testing.assert_array_equal(columns["mmc"], columns[f"bmc_{name}"])
    assert columns["mmc"].notna().all()


def test_model_that_is_not_there_for_an_era_gives_no_score(shards, frame, validation):
    meta = frame.loc[frame["era"] > "0016", "target"]
    table = EraScores(validation, meta_model=meta).score(make_model(shards))
    assert table["mmc"].isna().tolist() == [True, True, False, False, False, False]
    assert table["corr"].notna().all()


def test_models_that_are_not_indexed_by_id_are_refused(frame, validation):
    meta = frame["target"].reset_index(drop=True)
    with pytest.raises(ValueError, match=r"'target': no values for the [\d,]+ rows"):
        EraScores(validation, meta_model=meta)
    with pytest.raises(ValueError, match="'target': no values for the"):
        EraScores(validation, benchmarks=frame[["target"]].reset_index(drop=True))


@pytest.mark.parametrize("batch_rows", [None, 130])
def test_exposure_is_numerais_largest_correlation_with_a_feature(
    shards, frame, validation, batch_rows, monkeypatch
):
    if batch_rows:
        most = 4 * FEATURES * batch_rows
        monkeypatch.setattr("numerai_sequence.scoring.forward_pass._BATCH_BYTES", most)
    model = make_model(shards)
    scores = EraScores(validation, exposure=True)
    table = scores.score(model)
    predicted = predictions_of(model, frame, shards).sort_index()
    for era, rows in predicted.groupby("era"):
        features = rows[list(shards.features)].astype(float)
        _, expected = scoring.max_feature_correlation(rows["prediction"], features)
        assert table.loc[era, "exposure"] == pytest.approx(expected, abs=1e-6)
    logs = {}
    scores.set_model(model)
    scores.on_epoch_end(0, logs)
    assert logs["val_exposure_mean"] == pytest.approx(table["exposure"].mean())
    assert logs["val_exposure_max"] == pytest.approx(table["exposure"].max())


def test_table_and_picture_are_of_the_newest_scores(shards, training, validation, tmp_path):
    paths = {"csv": tmp_path / "scores.csv", "png": tmp_path / "scores.png"}
    scores = EraScores(validation, **paths)
    make_model(shards).fit(training, epochs=2, callbacks=[scores], verbose=0)
    table = pd.read_csv(paths["csv"], index_col="era", dtype={"era": str})
    pd.testing.assert_frame_equal(table, scores.table)
    assert paths["png"].read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scores.csv", "scores.png"]


def test_one_of_several_outputs_and_targets_is_scored(shards, frame):
    names = ("target", "target_agnes_20")
    target = dict(zip(names, names, strict=True))
    training = NumeraiSequence(shards, 500, eras=TRAIN, target=target, missing_target="mask")
    validation = NumeraiSequence(shards, eras=VALIDATION, target=target, missing_target="mask")
    model = make_model(shards, outputs=names)
    with pytest.raises(ValueError, match="expected one column to score with"):
        EraScores(validation)
    with pytest.raises(ValueError, match=r"2 values for each row.*choose it with output="):
        EraScores(validation, target="target").score(model)
    scores = EraScores(validation, target="target_agnes_20", output="target_agnes_20")
    model.fit(training, callbacks=[scores], verbose=0)
    part = keras.Model(model.inputs, model.get_layer("target_agnes_20").output)
    predicted = predictions_of(part, frame, shards)
    expected = scores_of(predicted, target="target_agnes_20")
    np.testing.assert_allclose(scores.table["corr"], expected, atol=1e-6)


def test_constant_predictions_have_no_score_and_end_nothing(shards, training, validation):
    scores = EraScores(validation)
    model = make_model(shards, zeros=True)
    model.optimizer.learning_rate = 0.0
    history = model.fit(training, callbacks=[scores], verbose=0).history
    assert scores.table["corr"].isna().all()
    assert math.isnan(history["val_corr_sharpe"][0])


def test_nan_predictions_are_refused(shards, training, validation):
    model = make_model(shards)
    model.set_weights([np.full_like(weights, np.nan) for weights in model.get_weights()])
    with pytest.raises(NumeraiSequenceError, match="NaN"):
        model.fit(training, callbacks=[EraScores(validation)], verbose=0)


def test_all_rows_are_scored_however_the_validation_is_cut_into_batches(shards, validation):
    model, expected = make_model(shards), None
    for options in ({}, {"drop_remainder": True}, {"batch_by": "era"}, {"seed": 3, "run_rows": 8}):
        sequence = NumeraiSequence(shards, eras=VALIDATION, **options)
        table = EraScores(sequence).score(model)
        if expected is None:
            expected = table
        pd.testing.assert_frame_equal(table, expected)


def test_scoring_leaves_the_training_and_the_validation_as_they_were(shards, validation):
    """The same weights as without it, and each row of the validation still comes in its batches."""
    weights = []
    for callbacks in ([], [EraScores(validation)]):
        model = make_model(shards)
        training = NumeraiSequence(shards, 500, eras=TRAIN)
        model.fit(training, epochs=2, shuffle=False, callbacks=callbacks, verbose=0)
        weights.append(model.get_weights())
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)
    assert validation.epoch == 0
    assert len(validation[0]) == 2
    assert len(validation[0][0]) == 500


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"target": "nope"}, FeatureError, "target column 'nope'"),
        ({"target": "era"}, FeatureError, "target column 'era'"),
        ({"target": "id"}, FeatureError, "target column 'id'"),
        ({"meta_model": "targt"}, FeatureError, "meta_model column 'targt'; did you mean target"),
        ({"benchmarks": "nope"}, FeatureError, "benchmarks column 'nope'"),
        ({"benchmarks": ["target", "nope"]}, FeatureError, "benchmarks column 'nope'"),
        ({"benchmarks": 3}, TypeError, "benchmarks: found 3, expected a column"),
        ({"like": 3}, TypeError, "like: found int, expected the NumeraiSequence"),
    ],
    ids=str,
)
def test_what_is_not_there_is_an_error_of_ours(validation, options, error, message):
    with pytest.raises(error, match=message):
        EraScores(validation, **options)


def test_only_sequences_with_a_target_are_scored(shards):
    for other in (shards, "set", None):
        with pytest.raises(TypeError, match=r"validation: found \w+, expected a NumeraiSequence"):
            EraScores(other)
    for target in ("features", None, ["target"], {"main": "target"}):
        with pytest.raises(ValueError, match=r"^EraScores: found target=.*, such as EraScores"):
            EraScores(NumeraiSequence(shards, target=target))


def test_a_budget_that_the_sequence_was_accepted_with_is_kept(shards, frame):
    model = make_model(shards)
    expected = EraScores(NumeraiSequence(shards, 100)).score(model)
    for budget in (17_300_000, "18MB", "30MB"):
        validation = NumeraiSequence(shards, 100, memory_budget=budget)
        found = EraScores(validation)
        assert np.allclose(found.score(model), expected, atol=1e-6)
        assert found._rows.sequence.memory_budget == budget
    with pytest.raises(ValueError, match="memory_budget: found '17MB', expected at least 18 MB"):
        NumeraiSequence(shards, 2000, memory_budget="17MB")


def test_tensorboard_shows_the_scores_of_each_epoch(training, validation, shards, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    scores = EraScores(validation, prefix="recent")
    board = keras.callbacks.TensorBoard(tmp_path, write_graph=False)
    history = make_model(shards).fit(training, epochs=2, verbose=0, callbacks=[scores, board])
    events = accumulator.EventAccumulator(str(tmp_path / "validation"))
    events.Reload()
    for name in ("corr_mean", "corr_sharpe", "corr_max_drawdown"):
        tensors = events.Tensors(f"epoch_recent_{name}")
        shown = [tensor_of(event.tensor_proto) for event in tensors]
        np.testing.assert_allclose(shown, history.history[f"val_recent_{name}"], rtol=1e-6)
        assert [event.step for event in tensors] == [0, 1]


def tensor_of(proto):
    from tensorboard.util import tensor_util

    return float(tensor_util.make_ndarray(proto))


@pytest.mark.slow
@pytest.mark.skipif(not IS_KERAS_3, reason="KerasTuner takes the Keras that is installed")
def test_a_tuner_keeps_the_model_that_scores_best(training, validation, shards, tmp_path):
    keras_tuner = pytest.importorskip("keras_tuner")

    def build(chosen):
        model = make_model(shards)
        model.optimizer.learning_rate = chosen.Choice("rate", [0.0, 1e-3, 3e-2])
        return model

    tuner = keras_tuner.GridSearch(
        build,
        objective=keras_tuner.Objective("val_corr_mean", "max"),
        directory=tmp_path,
        project_name="rates",
    )
    tuner.search(training, epochs=2, workers=4, callbacks=[EraScores(validation)], verbose=0)
    trials = {t.hyperparameters.get("rate"): t.score for t in tuner.oracle.trials.values()}
    assert set(trials) == {0.0, 1e-3, 3e-2}
    assert len(set(trials.values())) == 3
    best = tuner.get_best_hyperparameters()[0].get("rate")
    assert trials[best] == max(trials.values())
    table = EraScores(validation).score(tuner.get_best_models()[0])
    assert table["corr"].mean() == pytest.approx(trials[best], abs=1e-6)
