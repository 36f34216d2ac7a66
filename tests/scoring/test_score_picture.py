"""Picture: what is drawn are the sums of the scores, and the file is a whole PNG."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from numerai_sequence import NumeraiSequenceError
from numerai_sequence.scoring.score_picture import draw_scores, score_figure

ROOT = Path(__file__).parents[2]


def table_of(eras, **columns):
    """A table like `score_eras`'s, from era 0575 on."""
    rng = np.random.default_rng(0)
    columns = columns or {"corr": rng.normal(0.02, 0.02, eras)}
    index = pd.Index([f"{era:04d}" for era in range(575, 575 + eras)], name="era")
    return pd.DataFrame(columns, index=index)


def lines_of(figure):
    """The lines of a figure by the start of their label, the zero line not among them."""
    (axes,) = figure.axes
    return {line.get_label().split(":")[0]: line for line in axes.lines[:-1]}


def labels_of(figure):
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def ticks_of(figure):
    (axes,) = figure.axes
    return {int(tick): text.get_text() for tick, text in zip(*both(axes), strict=True)}


def both(axes):
    return axes.get_xticks(), axes.get_xticklabels()


def test_lines_are_the_sums_of_the_scores():
    table = table_of(
        4,
        corr=[0.01, 0.02, -0.05, 0.03],
        exposure=[9.0] * 4,
        mmc=[-0.01, 0.0, 0.0, 0.01],
        bmc_a=1.0,
    )
    lines = lines_of(score_figure(table))
    assert list(lines) == ["corr", "mmc", "bmc_a"]
    for line in lines.values():
        assert line.get_xdata().tolist() == [0, 1, 2, 3]
    assert lines["corr"].get_ydata() == pytest.approx([0.01, 0.03, -0.02, 0.01])
    assert lines["mmc"].get_ydata() == pytest.approx([-0.01, -0.01, -0.01, 0.0])
    assert lines["bmc_a"].get_ydata() == pytest.approx([1, 2, 3, 4])
    assert len({line.get_color() for line in lines.values()}) == 3


def test_eras_without_a_score_are_left_out_of_a_line():
    figure = score_figure(table_of(4, corr=[0.1] * 4, mmc=[np.nan, 0.1, np.nan, 0.2]))
    line = lines_of(figure)["mmc"]
    assert line.get_xdata().tolist() == [1, 3]
    assert line.get_ydata() == pytest.approx([0.1, 0.3])


def test_legend_tells_mean_and_sharpe_ratio_and_no_negative_zero():
    table = table_of(
        2, corr=[0.01, 0.03], mmc=[-0.00001, -0.00003], bmc_a=[-0.01, -0.02], bmc_b=np.nan
    )
    table["bmc_c$d$"] = [0.1, 0.1]
    assert labels_of(score_figure(table)) == [
        "corr: mean 0.0200, Sharpe 2.00",
        "mmc: mean 0.0000, Sharpe \N{MINUS SIGN}2.00",
        "bmc_a: mean \N{MINUS SIGN}0.0150, Sharpe \N{MINUS SIGN}3.00",
        "bmc_b: no score",
        r"bmc_c\$d\$: mean 0.1000",
    ]


def test_there_is_a_line_at_zero():
    (axes,) = score_figure(table_of(5, corr=0.1)).axes
    assert list(axes.lines[-1].get_ydata()) == [0, 0]
    low, high = axes.get_ylim()
    assert low <= 0 < 0.5 < high


@pytest.mark.parametrize("eras", [1, 2, 5, 9, 10, 30, 657])
def test_few_eras_are_named_and_the_first_and_last_of_them(eras):
    ticks = ticks_of(score_figure(table_of(eras)))
    assert len(ticks) == min(eras, 9)
    assert all(name == f"{575 + place:04d}" for place, name in ticks.items())
    assert {0, eras - 1} <= set(ticks)
    steps = np.diff(list(ticks))
    assert eras == 1 or steps.max() - steps.min() <= 1


def test_few_eras_have_markers_and_many_have_none():
    assert lines_of(score_figure(table_of(5)))["corr"].get_marker() == "o"
    assert lines_of(score_figure(table_of(650)))["corr"].get_marker() == "None"


def test_many_scores_are_told_apart():
    table = table_of(5, **{f"bmc_{model}": 0.1 for model in range(15)})
    lines = lines_of(score_figure(table)).values()
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 15


def test_title_is_taken_word_for_word():
    (axes,) = score_figure(table_of(5), title=r"a $\no$ b").axes
    assert axes.get_title(loc="left") == r"a $\no$ b"


@pytest.mark.parametrize("eras", [0, 1, 5, 650])
def test_file_is_a_png_of_one_width(eras, tmp_path):
    path = tmp_path / "scores.png"
    path.write_text("an older one")
    draw_scores(table_of(eras, corr=0.1, mmc=0.2), path, title=r"a $\no$ b")
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert content[-8:-4] == b"IEND"
    assert struct.unpack(">II", content[16:24]) == (1350, 726)
    assert [file.name for file in tmp_path.iterdir()] == ["scores.png"]


def test_the_longest_legend_is_inside():
    table = table_of(650, **{f"bmc_{'long' * 15}_{model}": 0.1 for model in range(25)})
    figure = score_figure(table)
    FigureCanvasAgg(figure).draw()
    (axes,), (legend,) = figure.axes, figure.legends
    box, inside = legend.get_window_extent(), figure.bbox
    assert inside.x0 <= box.x0 < box.x1 <= inside.x1
    assert inside.y0 <= box.y0 < box.y1 <= axes.get_window_extent().y0
    assert axes.get_window_extent().height > 0.6 * 4.4 * figure.dpi


@pytest.mark.slow
def test_pyplot_is_left_alone(tmp_path):
    before = matplotlib.pyplot.get_fignums()
    draw_scores(table_of(5), tmp_path / "scores.png")
    assert matplotlib.pyplot.get_fignums() == before
    code = """
import sys, pandas
from numerai_sequence.scoring.score_picture import draw_scores
draw_scores(pandas.DataFrame({"corr": [0.1]}, index=["0001"]), sys.argv[1])
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run(
        [sys.executable, "-c", code, tmp_path / "again.png"],
        check=True,
        cwd=ROOT,
        env={**os.environ, "MPLBACKEND": "TkAgg"},
    )
    assert (tmp_path / "again.png").exists()


def test_a_picture_that_cannot_be_written_says_so(tmp_path):
    with pytest.raises(NumeraiSequenceError, match=r"no/scores.png: cannot be written"):
        draw_scores(table_of(5), tmp_path / "no" / "scores.png")


def test_a_table_without_scores_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"found columns \['exposure'\], expected at least one of .*'corr'"
    ):
        draw_scores(table_of(5, exposure=0.1), tmp_path / "scores.png")
    assert not list(tmp_path.iterdir())


def test_missing_matplotlib_is_named_with_its_remedy(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(NumeraiSequenceError, match="pictures need matplotlib") as caught:
        draw_scores(table_of(5), tmp_path / "scores.png")
    assert "pip install 'numerai_sequence[train]'" in str(caught.value)


def test_several_models_have_a_panel_a_score_and_a_line_a_model():
    tables = {name: table_of(5, corr=0.1, mmc=0.2, exposure=0.3) for name in ("a", "b")}
    table = pd.concat(tables, axis=1, names=["model", "score"])
    figure = score_figure(table, title="Two")
    assert [axes.get_ylabel() for axes in figure.axes] == ["Cumulative corr", "Cumulative mmc"]
    for axes, height in zip(figure.axes, (0.5, 1.0), strict=True):
        labels = [line.get_label().split(":")[0] for line in axes.lines]
        assert labels[:2] == ["a", "b"]
        assert [line.get_ydata()[-1] for line in axes.lines[:2]] == pytest.approx([height] * 2)
    assert figure.axes[0].get_title(loc="left") == "Two"
