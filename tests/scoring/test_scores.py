"""Scoring: numerai-tools' own numbers an era, what is left out, and what is refused."""

from __future__ import annotations

import csv
import math
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from numerai_tools.scoring import correlation_contribution, numerai_corr, sharpe_ratio

from numerai_sequence import EraError, NumeraiSequenceError
from numerai_sequence.scoring.scores import score_eras, summarize_score, write_table

NAN = float("nan")


@pytest.fixture
def rows():
    """Eras of unlike sizes, their rows mixed, ties in the predictions, and three models."""
    rng = np.random.default_rng(0)
    eras = np.array(["0010", "0009", "0100", "X"]).repeat([300, 200, 97, 150])
    target = rng.choice([0, 0.25, 0.5, 0.75, 1], len(eras))
    columns = {"era": rng.permutation(eras), "target": target.astype(np.float32)}
    for name in ("prediction", "meta_model", "ours", "theirs"):
        columns[name] = (target + rng.normal(size=len(eras))).round(1).astype(np.float32)
    return pd.DataFrame(columns)


def arrays(frame, *names):
    return [frame[name].to_numpy().copy() for name in names]


def score(frame, **models):
    return score_eras(*arrays(frame, "era", "prediction", "target"), **models)


def by_numerai(frame, model=None):
    """The scores of the complete frame, era by era, as one would have pandas compute them."""

    def one(era):
        predictions, target = era[["prediction"]].astype(float), era["target"].astype(float)
        if model is None:
            return numerai_corr(predictions, target)["prediction"]
        scores = correlation_contribution(predictions, era[model].astype(float), target)
        return scores["prediction"]

    return frame.groupby("era")[[*frame.columns.drop("era")]].apply(one)


def test_scores_are_numerais_of_the_complete_frame(rows):
    benchmarks = {name: rows[name].to_numpy() for name in ("ours", "theirs")}
    table = score(rows, meta_model=rows["meta_model"].to_numpy(), benchmarks=benchmarks)
    assert list(table.columns) == ["corr", "mmc", "bmc_ours", "bmc_theirs"]
    for column, model in zip(table, [None, "meta_model", "ours", "theirs"], strict=True):
        expected = by_numerai(rows, model)[table.index]
        np.testing.assert_allclose(table[column], expected, rtol=0, atol=1e-12)
        assert expected.abs().min() > 0.001
    assert not np.isclose(table["bmc_ours"], table["bmc_theirs"]).any()


def test_eras_are_in_the_order_of_time(rows):
    table = score(rows)
    assert table.index.tolist() == ["0009", "0010", "0100", "X"]
    assert table.index.name == "era"
    assert list(table.columns) == ["corr"]
    assert table["corr"].dtype == np.float64


def test_order_of_rows_and_kind_of_array_make_no_difference(rows):
    expected = score(rows)
    eras, predictions, target = arrays(rows.sort_values("era"), "era", "prediction", "target")
    chunks = pa.chunked_array([eras[:100].tolist(), eras[100:].tolist()])
    pd.testing.assert_frame_equal(score_eras(chunks, predictions, target), expected)


def test_more_eras_than_16_bits_count_are_told_apart():
    eras = np.array([f"{era:06d}" for era in range(70_000)]).repeat(1)
    predictions, target = np.zeros(len(eras)), np.zeros(len(eras))
    last = [eras[-1], eras[-1]]
    table = score_eras([*eras, *last], [*predictions, 1, 2], [*target, 0.5, 1])
    assert table["corr"].notna().sum() == 1
    assert table["corr"].iloc[-1] > 0.9


def test_rows_without_a_target_are_left_out(rows):
    missing = rows["era"].eq("0010") & (np.arange(len(rows)) % 2 == 1)
    rows.loc[missing, "target"] = np.nan
    meta_model = rows["meta_model"].to_numpy()
    table = score(rows, meta_model=meta_model)
    left = rows[~missing]
    pd.testing.assert_frame_equal(table, score(left, meta_model=meta_model[~missing]))
    assert table["corr"]["0010"] == pytest.approx(by_numerai(left)["0010"])


def test_a_model_counts_only_where_it_has_a_value(rows):
    # Fewer than numerai-tools lets pass: it asserts that four fifths are there.
    rows.loc[rows["era"].eq("0010") & (np.arange(len(rows)) % 3 > 0), "meta_model"] = np.nan
    rows.loc[rows["era"].eq("0009"), "meta_model"] = np.nan
    table = score(rows, meta_model=rows["meta_model"].to_numpy())
    expected = by_numerai(rows.dropna(), "meta_model")
    assert table["mmc"]["0010"] == pytest.approx(expected["0010"], abs=1e-12)
    assert math.isnan(table["mmc"]["0009"])
    pd.testing.assert_series_equal(table["corr"], score(rows)["corr"])


@pytest.mark.parametrize(
    ("column", "value", "without"),
    [
        ("prediction", 0.1, ["corr", "mmc", "bmc_ours"]),
        ("target", 0.25, ["corr", "mmc", "bmc_ours"]),
        ("target", NAN, ["corr", "mmc", "bmc_ours"]),
        ("meta_model", 0.1, ["mmc"]),
        ("ours", NAN, ["bmc_ours"]),
    ],
)
def test_an_era_without_a_difference_has_no_score(rows, column, value, without):
    rows.loc[rows["era"] == "0009", column] = value
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = score(
            rows,
            meta_model=rows["meta_model"].to_numpy(),
            benchmarks={"ours": rows["ours"].to_numpy()},
        )
    missing = table.columns[table.loc["0009"].isna()]
    assert missing.tolist() == without
    assert table.drop("0009").notna().all(axis=None)


def test_eras_of_one_and_two_rows_are_no_trouble():
    table = score_eras(["1", "2", "2"], [0.1, 0.2, 0.3], [0.5, 0.0, 1.0], meta_model=[1, 2, 1])
    assert table["corr"].tolist() == [pytest.approx(NAN, nan_ok=True), pytest.approx(1)]
    assert table["mmc"].isna().tolist() == [True, False]


def test_no_rows_make_an_empty_table():
    table = score_eras([], np.zeros(0), np.zeros(0))
    assert (len(table), table.index.name, list(table.columns)) == (0, "era", ["corr"])


@pytest.mark.parametrize("value", [NAN, np.inf])
def test_predictions_that_are_no_numbers_are_refused(rows, value):
    wrong = rows.index[rows["era"].isin(["0010", "X"])][:5]
    rows.loc[wrong, "prediction"] = value
    rows.loc[wrong, "target"] = np.nan
    first = "0010" if "0010" in set(rows["era"][wrong]) else "X"
    with pytest.raises(NumeraiSequenceError, match=f"5 of 747 .* in era {first}, expected"):
        score(rows)


def test_arrays_of_another_shape_are_refused(rows):
    eras, predictions, target = arrays(rows, "era", "prediction", "target")
    with pytest.raises(ValueError, match=r"predictions: found shape \(747, 1\), expected \(747,\)"):
        score_eras(eras, predictions[:, None], target)
    with pytest.raises(ValueError, match=r"target: found shape \(746,\)"):
        score_eras(eras, predictions, target[1:])
    with pytest.raises(ValueError, match=r"meta_model: found shape \(1,\)"):
        score_eras(eras, predictions, target, meta_model=target[:1])
    with pytest.raises(ValueError, match=r"benchmark 'b': found shape \(1,\)"):
        score_eras(eras, predictions, target, benchmarks={"b": target[:1]})


def test_a_row_without_an_era_is_refused():
    with pytest.raises(EraError, match="1 of 2 rows"):
        score_eras(["1", None], np.zeros(2), np.zeros(2))


@pytest.mark.parametrize(
    ("module", "package"), [("pandas", "pandas"), ("numerai_tools.scoring", "numerai-tools")]
)
def test_what_is_not_installed_is_named_with_its_remedy(monkeypatch, module, package):
    monkeypatch.setitem(sys.modules, module, None)  # Python's own mark for a module not there
    with pytest.raises(NumeraiSequenceError, match=package) as caught:
        score_eras(["1"], np.zeros(1), np.zeros(1))
    assert "pip install 'numerai_sequence[train]'" in str(caught.value)


def test_what_is_slow_to_import_waits_until_it_is_needed():
    code = """
import sys
from numerai_sequence.scoring import feature_exposure
from numerai_sequence.scoring import score_picture
from numerai_sequence.scoring import scores
late = {"pandas", "matplotlib", "numerai_tools", "sklearn", "keras", "tensorflow"}
assert not late & set(sys.modules), late & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_summary_is_mean_std_their_ratio_and_the_deepest_fall():
    scores = {"1": 0.01, "2": 0.03, "3": NAN, "4": -0.02, "5": 0.01, "6": -0.04, "7": 0.06}
    summary = summarize_score(scores)
    values = pd.Series(scores).dropna()
    assert summary.mean == pytest.approx(values.mean())
    assert summary.std == pytest.approx(values.std(ddof=0))
    assert summary.sharpe == pytest.approx(sharpe_ratio(values))
    assert summary.max_drawdown == pytest.approx(0.05)


def test_drawdown_is_that_of_numerais_notebooks():
    scores = pd.Series(np.random.default_rng(1).normal(0.01, 0.02, 300))
    scores.index = [f"{era:04d}" for era in range(300)]
    cumulative = scores.cumsum()
    expected = (cumulative.expanding(min_periods=1).max() - cumulative).max()
    assert summarize_score(scores).max_drawdown == pytest.approx(expected)
    assert expected > 0.02


def test_drawdown_is_of_the_order_of_time():
    scores = {"era10": -0.05, "era2": 0.03, "era1": 0.02}
    assert summarize_score(scores).max_drawdown == pytest.approx(0.05)
    assert summarize_score(pd.Series(scores)) == summarize_score(scores)


def test_scores_that_only_rise_have_no_drawdown():
    assert summarize_score({"1": -0.01, "2": 0.02, "3": 0.03}).max_drawdown == 0


def test_equal_scores_have_no_sharpe_ratio():
    summary = summarize_score({"1": 0.1, "2": 0.1, "3": 0.1})  # whose mean is not quite 0.1
    assert summary.mean == pytest.approx(0.1)
    assert math.isnan(summary.sharpe)


@pytest.mark.parametrize("scores", [{"1": NAN}, {}])
def test_summary_of_nothing_is_nan(scores):
    summary = summarize_score(scores)
    assert all(map(math.isnan, (summary.mean, summary.std, summary.sharpe, summary.max_drawdown)))


def test_a_written_table_reads_back_equal(rows, tmp_path):
    meta_model = rows["meta_model"].where(rows["era"] != "0009").to_numpy()
    table = score(rows, meta_model=meta_model, benchmarks={"a, b": rows["ours"].to_numpy()})
    path = tmp_path / "scores.csv"
    path.write_text("an older one")
    with open(path) as older:
        write_table(table, path)
        assert older.read() == "an older one"  # it was replaced, not written over
    with open(path, encoding="utf-8", newline="") as file:
        names, *lines = csv.reader(file)
    assert names == ["era", "corr", "mmc", "bmc_a, b"]
    assert [line[0] for line in lines] == ["0009", "0010", "0100", "X"]
    numbers = [[float(field or "nan") for field in line[1:]] for line in lines]
    np.testing.assert_array_equal(numbers, table)
    read = pd.read_csv(path, index_col="era", dtype={"era": str})
    pd.testing.assert_frame_equal(read, table)
    assert [file.name for file in tmp_path.iterdir()] == ["scores.csv"]


def test_a_table_that_cannot_be_written_leaves_what_was_there(rows, tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text("an older one")
    with pytest.raises(AttributeError):
        write_table(None, path)
    assert path.read_text() == "an older one"
    with pytest.raises(NumeraiSequenceError, match=r"no/scores.csv: cannot be written \(No such"):
        write_table(score(rows), tmp_path / "no" / "scores.csv")
    assert [file.name for file in tmp_path.iterdir()] == ["scores.csv"]
