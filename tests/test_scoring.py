"""Scoring: one number an era, and what is left out."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from numerai_tools.scoring import numerai_corr

from numerai_sequence.scoring import Summary, era_correlations, summarize


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    eras = np.array(["0010", "0009", "X"]).repeat(200)
    target = rng.choice([0, 0.25, 0.5, 0.75, 1], 600)
    return eras, target + rng.normal(size=600), target


def test_each_era_has_numerais_own_score(rows):
    eras, predictions, target = rows
    scores = era_correlations(eras, predictions, target)
    assert list(scores) == ["0009", "0010", "X"]
    for era, score in scores.items():
        mask = eras == era
        frame = pd.DataFrame({"p": predictions[mask]})
        assert score == numerai_corr(frame, pd.Series(target[mask], name="t")).iloc[0]
        assert 0 < score < 1


def test_rows_without_a_target_are_left_out(rows):
    eras, predictions, target = rows
    expected = era_correlations(eras[:500], predictions[:500], target[:500])
    target[500:] = np.nan
    assert era_correlations(eras, predictions, target) == expected


def test_an_era_of_equal_predictions_has_no_score(rows):
    eras, predictions, target = rows
    predictions[eras == "0009"] = 0.5
    scores = era_correlations(eras, predictions, target)
    assert math.isnan(scores["0009"])
    assert not math.isnan(scores["0010"])


def test_summary_is_mean_std_and_their_ratio():
    summary = summarize({"1": 0.01, "2": 0.03, "3": float("nan")})
    assert summary == Summary(pytest.approx(0.02), pytest.approx(0.01), pytest.approx(2.0))


def test_summary_of_nothing_is_nan():
    summary = summarize({"1": float("nan")})
    assert all(map(math.isnan, (summary.mean, summary.std, summary.sharpe)))
