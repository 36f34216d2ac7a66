"""Neutralization: what is left equals that of numerai-tools, whatever the features are."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numerai_tools.scoring import neutralize as by_numerai

from numerai_sequence.predicting.uploaded import neutralized

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
