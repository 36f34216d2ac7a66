"""Exposure: the same as from all rows at once, however they come in."""

from __future__ import annotations

import math
import tracemalloc
import warnings

import numpy as np
import pandas as pd
import pytest
from numerai_tools.scoring import max_feature_correlation

from numerai_sequence import NumeraiSequenceError
from numerai_sequence.scoring.feature_exposure import Exposure

ERAS, FEATURES, ROWS = ["0001", "0002", "X"], 40, 3000


@pytest.fixture
def rows():
    """Codes of mixed eras, raw features, and predictions that follow one feature in each era."""
    rng = np.random.default_rng(0)
    codes = rng.choice(3, ROWS, p=[0.2, 0.5, 0.3])
    x = rng.integers(0, 5, (ROWS, FEATURES)).astype(np.int8)
    weights = np.array([0.3, -0.2, 0.1])
    followed = x[np.arange(ROWS), np.array([3, 7, 39])[codes]]
    return codes, x, weights[codes] * followed + rng.normal(size=ROWS)


def exposure_of(codes, x, predictions, *, batch=ROWS, eras=ERAS):
    exposure = Exposure(x.shape[1], eras)
    for first in range(0, len(codes), batch):
        part = slice(first, first + batch)
        exposure.add(codes[part], x[part], predictions[part])
    return exposure.max()


def by_numerai(codes, x, predictions, era):
    mask = codes == era
    features = pd.DataFrame(x[mask].astype(np.float64)).loc[:, lambda f: f.nunique() > 1]
    predictions = pd.Series(predictions[mask].astype(np.float64))
    return max_feature_correlation(predictions, features)


@pytest.mark.parametrize("dtype", ["int8", "float32", "float16"])
@pytest.mark.parametrize("batch", [1, 64, 1000, ROWS])
def test_exposure_is_numerais_of_all_rows(rows, dtype, batch):
    codes, x, predictions = rows
    given = x if dtype == "int8" else (x / 4).astype(dtype)
    found = exposure_of(codes, given, predictions, batch=batch)
    assert list(found) == ERAS
    for code, (followed, era) in enumerate(zip(["3", "7", "39"], ERAS, strict=True)):
        feature, expected = by_numerai(codes, x, predictions, code)
        assert feature == followed
        assert found[era] == pytest.approx(expected, abs=1e-12)


def test_raw_and_scaled_batches_are_the_same(rows):
    codes, x, predictions = rows
    exposure = Exposure(FEATURES, ERAS)
    exposure.add(codes[:500], x[:500], predictions[:500])
    exposure.add(codes[500:], x[500:] / np.float32(4), predictions[500:])
    assert exposure.max() == pytest.approx(exposure_of(*rows), abs=1e-12)


@pytest.mark.parametrize(("least", "span"), [(0, 1), (0.9, 0.01), (0.5, 1e-6)])
def test_features_of_any_values_are_numerais(rows, least, span):
    codes, x, predictions = rows
    x = np.random.default_rng(1).random(x.shape, np.float32) * np.float32(span) + np.float32(least)
    found = exposure_of(codes, x, predictions, batch=100)
    for code, era in enumerate(ERAS):
        assert found[era] == pytest.approx(by_numerai(codes, x, predictions, code)[1], abs=1e-9)


def test_predictions_close_to_each_other_and_far_from_zero_lose_nothing(rows):
    codes, x, predictions = rows
    found = exposure_of(codes, x, predictions * 1e-6 + 1000, batch=100)
    assert found == pytest.approx(exposure_of(codes, x, predictions), abs=1e-6)


def test_a_feature_that_is_the_same_in_all_rows_is_left_out(rows):
    codes, x, predictions = rows
    x = (x / 4).astype(np.float32)
    x[codes == 1, 7:20] = np.linspace(0.05, 0.95, 13)  # whose squares do not add up exactly
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = exposure_of(codes, x, predictions, batch=100)
    assert found["0002"] == pytest.approx(by_numerai(codes, x, predictions, 1)[1], abs=1e-12)
    assert found["0002"] < 0.1 < exposure_of(*rows)["0002"]


def test_a_feature_that_differs_in_one_row_counts():
    x = np.full((7000, 1), 0.5, np.float16)
    x[6000] = 0.75
    predictions = np.zeros(7000)
    predictions[6000] = 1
    assert exposure_of(np.zeros(7000, int), x, predictions)["0001"] == pytest.approx(1)


def test_nothing_to_compare_is_nan(rows):
    codes, x, predictions = rows
    x = (x / 4).astype(np.float32)
    predictions[codes == 0] = 0.1
    x[codes == 1] = np.linspace(0, 1, FEATURES)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = exposure_of(codes, x, predictions, batch=70, eras=[*ERAS, "not seen"])
    assert [era for era, value in found.items() if math.isnan(value)] == [
        "0001",
        "0002",
        "not seen",
    ]


def test_a_feature_itself_is_not_more_than_one():
    x = np.random.default_rng(0).random((99, 50), np.float32)
    for feature in x.T:
        for sign in (1, -1):
            found = exposure_of(np.zeros(99, int), x, sign * feature, batch=10)
            assert 1 - 1e-12 < found["0001"] <= 1


def test_the_last_batch_may_be_empty(rows):
    codes, x, predictions = rows
    exposure = Exposure(FEATURES, ERAS)
    exposure.add(codes[:0], x[:0], predictions[:0])
    assert all(map(math.isnan, exposure.max().values()))


def test_memory_is_what_is_promised(rows):
    eras = [f"{era:04d}" for era in range(100)]
    codes, x = np.arange(5000) // 4000, np.zeros((5000, 500), np.int8)
    predictions = np.zeros(5000)
    tracemalloc.start()
    try:
        exposure = Exposure(500, eras)
        held, _ = tracemalloc.get_traced_memory()
        exposure.add(codes, x, predictions)
        exposure.max()
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    promised = 100 * (24 * 500 + 32)
    assert held == pytest.approx(promised, rel=0.01)
    assert after < promised * 1.1
    assert peak < promised + 256 * 500 * 8 + 1e6


def test_wrong_batches_are_refused(rows):
    codes, x, predictions = rows
    exposure = Exposure(FEATURES, ERAS)
    with pytest.raises(ValueError, match=r"x: found shape \(3000, 39\), expected \(3000, 40\)"):
        exposure.add(codes, x[:, 1:], predictions)
    with pytest.raises(ValueError, match=r"predictions: found shape \(3000, 1\)"):
        exposure.add(codes, x, predictions[:, None])
    for code in (-1, 3):
        codes[5] = code
        with pytest.raises(ValueError, match=r"codes: found .*, expected 0 to 2"):
            exposure.add(codes, x, predictions)
    codes[5], predictions[5] = 1, np.nan
    with pytest.raises(NumeraiSequenceError, match=r"1 of 3,000 .* in era 0002"):
        exposure.add(codes, x, predictions)
    assert all(map(math.isnan, exposure.max().values()))
