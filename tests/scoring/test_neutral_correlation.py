"""Neutralization: what is left equals that of numerai-tools, whatever the features are."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from networks import keras
from numerai_tools.scoring import feature_neutral_corr
from numerai_tools.scoring import neutralize as by_numerai

from numerai_sequence import (
    EraScores,
    FeatureError,
    NumeraiSequence,
    neutralize,
    predict,
    write_shards,
)
from numerai_sequence.predicting.residuals import neutralized
from numerai_sequence.scoring.era_scores import log_scores
from numerai_sequence.scoring.neutral_correlation import neutral_correlations
from numerai_sequence.synthetic import write_parquet

ROWS = 500


def draw(rows=ROWS, features=40):
    rng = np.random.default_rng(0)
    return rng.integers(0, 5, (rows, features)).astype(np.int8), rng.random((rows, 3))


def assert_numerais(values, digits, *, within=1e-9):
    features = pd.DataFrame(digits.astype(np.float64))
    for proportion in (0, 0.5, 1):
        expected = by_numerai(pd.DataFrame(values), features, proportion).to_numpy()
        found = neutralized(values, digits, proportion)
        assert found.dtype == np.float64
        np.testing.assert_allclose(found, expected, rtol=0, atol=within)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "float16", "float32", "float64"])
def test_features_of_full_rank(dtype):
    digits, values = draw()
    given = digits.astype(dtype) if "int" in dtype else (digits / 4).astype(dtype)
    assert_numerais(values, given)
    assert np.abs(neutralized(values, given, 1)).max() > 0.1


def with_same(digits):
    digits[:, 5], digits[:, 6] = 2, 0
    return digits


def with_repeats(digits):
    digits[:, 7], digits[:, 8] = digits[:, 3], 4 - digits[:, 3]
    return np.hstack([digits, digits[:, :20]])


def with_sums(digits):
    digits[:, 10] = np.clip(digits[:, 11], 0, 2)
    digits[:, 12] = digits[:, 11] - digits[:, 10]
    return digits


KINDS = {
    "columns all the same": with_same,
    "columns twice": with_repeats,
    "columns that are sums of others": with_sums,
    "all of it": lambda digits: with_sums(with_repeats(with_same(digits))),
    "no column that varies": lambda digits: np.full_like(digits, 2),
    "rows many times": lambda digits: digits[np.arange(len(digits)) % 20],
    "one column": lambda digits: digits[:, :1],
}


@pytest.mark.parametrize("kind", KINDS)
def test_features_that_depend_on_each_other(kind):
    digits, values = draw()
    assert_numerais(values, KINDS[kind](digits))


@pytest.mark.parametrize("rows", [2, 30, 40, 41, 42, 60])
def test_eras_of_few_rows(rows):
    digits, values = draw(rows)
    assert_numerais(values, digits)
    assert (neutralized(values, digits, 1) == 0).all() == (rows <= 41)


def test_more_features_and_rows_than_one_block():
    digits, values = draw(1500, 300)
    assert_numerais(values, digits)


def test_predictions_close_to_each_other_and_far_from_zero():
    digits, values = draw()
    near = neutralized(values * 1e-4 + 1000, digits, 1)
    np.testing.assert_allclose(near, 1e-4 * neutralized(values, digits, 1), rtol=0, atol=1e-10)


def test_float32_predictions_and_nothing_at_all():
    digits, values = draw()
    found = neutralized(values.astype(np.float32), digits, 1)
    np.testing.assert_allclose(found, neutralized(values, digits, 1), rtol=0, atol=1e-6)
    assert neutralized(values[:0], digits[:0], 1).shape == (0, 3)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    source = tmp_path_factory.mktemp("neutral") / "train.parquet"
    write_parquet(source, rows=1200, features=12, targets=3, min_eras=12)
    with write_shards(source, source.parent / "set", mix_eras=3, progress=False) as opened:
        yield opened


@pytest.fixture(scope="module")
def data(shards):
    return pd.read_parquet(shards.folder.parent / "train.parquet")


def fnc_of(data, predictions, target, features):
    """Numerai's, of the complete frame."""
    scores = {}
    for era, rows in data.dropna(subset=[target]).groupby("era"):
        ids = rows.index.sort_values()
        frame = predictions[ids].astype(float).to_frame("p")
        found = feature_neutral_corr(frame, rows.loc[ids, features].astype(float), rows[target])
        scores[era] = found["p"]
    return pd.Series(scores)


class Fixed(keras.layers.Layer):
    """Weighs features, differently for each, and bends the sum."""

    def call(self, x):
        weights = np.linspace(-1, 1, x.shape[-1]).astype("float32")
        return keras.ops.tanh(keras.ops.sum(x * weights * weights[::-1], -1, keepdims=True) * 3) + (
            x[:, :1] * x[:, 1:2]
        )


@pytest.mark.parametrize("batch_by", ["rows", "era"])
def test_era_scores_log_numerais_feature_neutral_correlation(shards, data, batch_by):
    model = keras.Sequential([keras.Input((12,)), Fixed()])
    target, few = shards.targets[0], list(shards.features[3:8])
    assert data[target].isna().any()
    validation = NumeraiSequence(
        shards, target=target, eras="0006-", missing_target="drop", batch_by=batch_by
    )
    predictions = predict(model, shards, like=validation, progress=False)["prediction"]
    for neutral, features in ((few, few), (True, list(shards.features))):
        table = EraScores(validation, neutral=neutral).score(model)
        expected = fnc_of(data, predictions, target, features).reindex(table.index)
        np.testing.assert_allclose(table["fnc"], expected, rtol=0, atol=1e-6)
        assert table["fnc"].abs().min() > 1e-3
        assert log_scores(table)["val_fnc_mean"] == pytest.approx(table["fnc"].mean())
    assert list(table.columns) == ["corr", "fnc"]


def test_what_features_explain_has_no_neutral_score(shards):
    model = keras.Sequential([keras.Input((12,)), Fixed()])
    tiny = NumeraiSequence(shards, eras="0001", missing_target="drop")
    rows = np.arange(12 + 1)
    left = tiny.in_order(5)
    predictions = np.random.default_rng(0).random((left.rows, 2))
    predictions[:, 1] = 0.5
    target = left.column("target").to_numpy().copy()
    target[len(rows) :] = np.nan
    with pytest.warns(UserWarning, match=r"12 features explain all .* 0001\b"):
        table = neutral_correlations(left, predictions, target, features=None)
    assert table.isna().all(axis=None)
    with pytest.raises(TypeError, match="neutral: found 3, expected the name of a feature set"):
        EraScores(tiny, neutral=3)
    with pytest.raises(FeatureError, match="mediun"):
        EraScores(tiny, neutral="mediun")
    assert "fnc" not in EraScores(tiny, neutral=False).score(model)


@pytest.fixture(scope="module")
def frame(data):
    rng = np.random.default_rng(0)
    values = rng.random((len(data), 2)) + data[["target"]].to_numpy()
    return pd.DataFrame(values, data.index, ["a", "b"]).sample(frac=1, random_state=0)


def neutral_by_numerai(data, frame, features, proportion):
    parts = []
    for _, rows in data.loc[frame.index].groupby("era"):
        parts.append(
            by_numerai(frame.loc[rows.index], rows[list(features)].astype(float), proportion)
        )
    return pd.concat(parts).loc[frame.index]


@pytest.mark.parametrize("kind", ["set", "path", "parquet"])
@pytest.mark.parametrize("proportion", [0, 0.5, 1])
def test_neutralize_leaves_what_numerais_does(shards, data, frame, kind, proportion):
    train = shards.folder.parent / "train.parquet"
    given = {"set": shards, "path": str(shards.folder), "parquet": train}[kind]
    for features in (None, list(shards.features[3:8])):
        found = neutralize(frame, given, features=features, proportion=proportion, progress=False)
        wanted = neutral_by_numerai(data, frame, features or shards.features, proportion)
        pd.testing.assert_frame_equal(found, wanted, rtol=0, atol=1e-9, check_index_type=False)


def test_a_set_and_a_parquet_file_give_the_same_bits(shards, frame):
    train = shards.folder.parent / "train.parquet"
    found = [neutralize(frame, given, progress=False) for given in (shards, train)]
    pd.testing.assert_frame_equal(*found, check_exact=True)


def test_frames_of_any_form_are_neutralized(shards, data, frame, tmp_path):
    wanted = neutralize(frame, shards, progress=False)
    frame.to_parquet(tmp_path / "a.parquet")
    with_era = frame.assign(era=data["era"])[["era", "a", "b"]]
    for given in (tmp_path / "a.parquet", frame.reset_index(), pa.table(frame.reset_index())):
        pd.testing.assert_frame_equal(neutralize(given, shards, progress=False), wanted)
    found = neutralize(with_era, shards, progress=False)
    assert list(found.columns) == ["era", "a", "b"]
    assert (found["era"] == with_era["era"]).all()
    pd.testing.assert_frame_equal(found[["a", "b"]], wanted)
    single = neutralize(frame["a"], shards, progress=False)
    pd.testing.assert_frame_equal(single, wanted[["a"]])
    frame.attrs["features"] = ["x"]
    assert neutralize(frame, shards, progress=False).attrs == {"features": ["x"]}
    del frame.attrs["features"]


def test_some_rows_of_some_eras_are_neutralized_by_themselves(shards, data, frame):
    some = frame[(data["era"][frame.index] > "0006").to_numpy()][::2]
    found = neutralize(some, shards, features=list(shards.features[:4]), progress=False)
    wanted = neutral_by_numerai(data, some, shards.features[:4], 1)
    pd.testing.assert_frame_equal(found, wanted, rtol=0, atol=1e-9, check_index_type=False)


def test_what_cannot_be_neutralized_is_refused(shards, data, frame):
    first = frame.index[0]
    few = frame[(data["era"][frame.index] == "0003").to_numpy()][:13]
    broken = {
        r"for id 'n.*' in column 'a'; expected a number": frame.assign(
            a=frame["a"].where(frame.index != first)
        ),
        r"found id '.*' 2 times": pd.concat([frame, frame[:1]]),
        r"id 'xn.*' is not in the data": pd.concat([frame, frame[:1].rename("x{}".format)]),
        r"'a': 12 features explain all of its 13 predictions of era 0003": few,
        r"'b': all \d+ predictions of era 0001 are the same": frame.assign(b=0.5),
        r"no ids": frame.reset_index(drop=True),
    }
    for message, given in broken.items():
        with pytest.raises(ValueError, match=message):
            neutralize(given, shards, progress=False)
    half = neutralize(few, shards, proportion=0.5, progress=False)
    np.testing.assert_allclose(half, few * 0.5, rtol=0, atol=1e-12)
    for proportion, error in ((1.5, ValueError), (float("nan"), ValueError), ("1", TypeError)):
        with pytest.raises(error, match=r"proportion: found .*, expected a number from 0 to 1"):
            neutralize(frame, shards, proportion=proportion, progress=False)
    with pytest.raises(FeatureError, match="feature_x"):
        neutralize(frame, shards, features=["feature_x"], progress=False)
