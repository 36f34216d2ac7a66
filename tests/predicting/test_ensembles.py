"""Ensembles: one prediction a row, as numerai-tools makes it of each era."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from numerai_tables import ragged_eras, write_source
from numerai_tools.scoring import gaussian, tie_kept_rank

from numerai_sequence import EraError, ensemble, write_shards
from numerai_sequence.errors import PredictionError

IDS = pd.Index([f"n{number:015x}" for number in range(1037)], name="id")
ERAS = pd.Series([f"{era:04d}" for era in ragged_eras(1037, 23)], IDS)


@pytest.fixture(scope="module")
def frame():
    rng = np.random.default_rng(0)
    values = np.round(rng.normal(size=(1037, 3)) * [1, 100, 0.1], 2)  # with ties
    return pd.DataFrame(values, IDS, list("abc"))


def by_numerai_tools(frame, eras, weights, by):
    def one_era(part):
        ranks = tie_kept_rank(part.sort_index())  # it refuses other orders
        ranks = gaussian(ranks) if by == "gaussian" else ranks
        return tie_kept_rank((ranks * weights).sum(axis=1).to_frame("prediction"))

    return frame.groupby(eras.to_numpy(), group_keys=False)[list(frame)].apply(one_era)


@pytest.mark.parametrize("by", ["rank", "gaussian"])
@pytest.mark.parametrize("weights", [None, [1, 2.5, 0.3], [2, -1, 0]])
def test_an_ensemble_is_that_of_numerai_tools(frame, by, weights):
    frame = frame.sample(frac=1, random_state=0)  # eras interleaved
    eras = ERAS.loc[frame.index]
    found = ensemble(frame, weights, by=by, eras=ERAS)
    expected = by_numerai_tools(frame, eras, weights or [1, 1, 1], by).loc[frame.index]
    assert list(found.columns) == ["prediction"]
    assert found["prediction"].dtype == np.float32
    pd.testing.assert_index_equal(found.index, frame.index)
    np.testing.assert_allclose(found["prediction"], expected["prediction"], rtol=0, atol=1e-6)


def test_eras_may_be_a_column_a_set_its_path_or_a_file(frame, tmp_path):
    source = write_source(tmp_path / "a.parquet")
    shards = write_shards(source, tmp_path / "shards", progress=False)
    table = pq.read_table(source, columns=["id", "era"]).to_pandas(ignore_metadata=True)
    eras = table.set_index("id")["era"]
    expected = ensemble(frame.assign(era=eras))
    for given in (eras, shards, str(shards.folder), source, str(source)):
        pd.testing.assert_frame_equal(ensemble(frame, eras=given), expected)
    assert not expected.equals(ensemble(frame, eras=pd.Series("X", IDS)))


def test_weights_by_name_are_those_in_order(frame):
    expected = ensemble(frame, [3, 0, 1], eras=ERAS)
    named = {"c": np.int64(1), "a": np.float32(3), "b": 0}
    for weights in (named, np.array([3, 0, 1]), pd.Series([3, 0, 1]), (6, 0, 2)):
        pd.testing.assert_frame_equal(ensemble(frame, weights, eras=ERAS), expected)


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        ([1, 2], ValueError, "found 2, expected 3"),
        ({"a": 1, "b": 1}, ValueError, "with 'c' missing or unknown"),
        ({"a": 1, "b": 1, "c": 1, "d": 1}, ValueError, "with 'd' missing or unknown"),
        ([0, 0, 0], ValueError, "not all 0"),
        ([1, np.nan, 1], ValueError, "finite"),
        ([1, np.inf, 1], ValueError, "finite"),
        (["1", 1, 1], TypeError, "found '1', expected numbers"),
        (3, TypeError, "found 3"),
        ("abc", TypeError, "found 'abc'"),
        ({1, 2, 3}, TypeError, "order"),
    ],
    ids=repr,
)
def test_wrong_weights_are_refused(frame, weights, error, message):
    with pytest.raises(error, match=message):
        ensemble(frame, weights, eras=ERAS)


def test_eras_that_are_not_known_are_refused(frame):
    with pytest.raises(EraError, match=r"no column 'era'.*with_era=True"):
        ensemble(frame)
    with pytest.raises(EraError, match=f"none for 1 of 1,037 rows.*{IDS[5]}"):
        ensemble(frame, eras=ERAS.drop(IDS[5]))
    with pytest.raises(EraError, match=f"missing for 1 row, first '{IDS[7]}'"):
        ensemble(frame.assign(era=ERAS.mask(IDS.isin([IDS[7]]))))
    with pytest.raises(EraError, match=f"found id '{IDS[0]}' twice"):
        ensemble(frame, eras=pd.concat([ERAS, ERAS[:1]]))


def test_predictions_that_are_no_numbers_are_refused(frame):
    holey = frame.copy()
    holey.loc[IDS[9], "b"] = np.nan
    with pytest.raises(PredictionError, match=f"'b' is NaN for 1 of .*{IDS[9]}"):
        ensemble(holey, eras=ERAS)
    with pytest.raises(PredictionError, match="'d' is"):
        ensemble(frame.assign(d="x"), eras=ERAS)
    with pytest.raises(PredictionError, match="expected at least one of each"):
        ensemble(frame[[]], eras=ERAS)
    with pytest.raises(TypeError, match="found a Series"):
        ensemble(frame["a"], eras=ERAS)
    with pytest.raises(ValueError, match="expected one of"):
        ensemble(frame, by="mean", eras=ERAS)
