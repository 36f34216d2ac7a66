"""Score kinds: what logs, pictures, summaries and the command read from the table."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from numerai_sequence.commands.main import main
from numerai_sequence.scoring.era_scores import log_scores
from numerai_sequence.scoring.score_kinds import CORR, SCORES, Score, monitored_logs, score_of
from numerai_sequence.scoring.score_picture import score_figure
from numerai_sequence.scoring.scores import score_eras, summarize


@pytest.fixture
def added(monkeypatch):
    """A score that nobody knew before: the mean of the predictions."""
    score = Score("mean_value", "the mean", of_era=lambda predictions, target: predictions.mean())
    monkeypatch.setitem(SCORES, score.name, score)
    return score


def make_table():
    eras, target = ["0001"] * 3 + ["0002"] * 3, np.array([0, 0.5, 1] * 2)
    return score_eras(eras, np.array([1, 2, 3, 4, 5, 6.5]), target)


def test_a_score_of_the_table_is_computed_logged_summarized_drawn_and_monitored(added):
    table = make_table()
    assert [table.columns[0], table.columns[-1]] == ["corr", "mean_value"]
    assert table["mean_value"].tolist() == [2, 15.5 / 3]
    assert log_scores(table)["val_mean_value_mean"] == table["mean_value"].mean()
    assert summarize(table).loc["mean_value", "sharpe"] > 0
    [axes] = score_figure(table).axes
    assert [line.get_label().split(":")[0] for line in axes.lines[:2]] == ["corr", "mean_value"]
    assert "val_mean_value_sharpe" in monitored_logs()


def test_a_score_without_a_sum_has_a_mean_and_a_largest_value_alone(added, monkeypatch):
    monkeypatch.setitem(SCORES, added.name, replace(added, is_summed=False))
    table = make_table()
    logs = log_scores(table)
    assert [name for name in logs if "value" in name] == [
        "val_mean_value_mean",
        "val_mean_value_max",
    ]
    assert logs["val_mean_value_max"] == 15.5 / 3
    assert summarize(table).loc["mean_value"].isna().tolist() == [False, False, True, True]
    [axes] = score_figure(table).axes
    assert [line.get_label().split(":")[0] for line in axes.lines[:1]] == ["corr"]


@pytest.mark.parametrize(
    ("column", "name"), [("corr", "corr"), ("bmc_my_model", "bmc"), ("corrected", None)]
)
def test_a_column_is_of_the_score_that_its_name_begins_with(column, name):
    assert score_of(column) is SCORES.get(name)


def test_a_column_is_of_the_score_with_the_longest_name(added):
    assert score_of("mean_value_2") is added
    assert score_of("mean") is None
    assert score_of(("model", "corr")) is None


def test_the_default_of_monitor_is_the_first_log_of_the_first_score():
    assert next(iter(SCORES.values())) is CORR
    assert monitored_logs()[:2] == ["val_corr_mean", "val_corr_sharpe"]


def test_help_names_the_score_that_each_option_adds():
    shown = " ".join(CliRunner().invoke(main, ["score", "--help"]).output.split())
    for words in ("Adds mmc.", "repeatable. Adds bmc.", "Adds fnc."):
        assert words in shown
    assert f"Add exposure: {SCORES['exposure'].help}." in shown
