"""Score picture: a PNG file with the cumulative scores of a table, era by era."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from ..system.files import replaced
from ..system.optional_packages import load_extra
from .score_kinds import SCORES, score_of
from .scores import summarize_score

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_WIDTH_INCHES = 9.0
_AXES_INCHES = 4.4
_LINE_INCHES = 0.22  # height of a line of the legend
_DOTS_PER_INCH = 150
_MOST_TICKS = 9
_MOST_MARKERS = 40  # more run into one another
# Colours for all kinds of colour vision (Okabe and Ito, 2008).
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_STYLES = ("-", "--", ":")  # for more lines than colours
_GREY = "#666666"


def draw_scores(
    table: pd.DataFrame, path: str | os.PathLike[str], *, title: str | None = None
) -> None:
    """Draw the cumulative scores of `score_figure` into a PNG file, 1,350 pixels wide.

    An existing file is replaced only when the new one is complete. Figures that are open in pyplot
    do not change.

    Raises
    ------
    OutputError
        The file cannot be written.
    NumeraiSequenceError
        matplotlib is not installed.
    """
    save_figure(score_figure(table, title=title), path)


def score_figure(table: pd.DataFrame, *, title: str | None = None) -> Figure:
    """Draw a line for each score of a table: the sum of the scores up to each era.

    Parameters
    ----------
    table : pandas.DataFrame
        Scores from `score_eras`, or from `score` of several models. Several models have one panel
        for each score, with one line for each model. Columns of scores whose sum has a meaning are
        drawn: all of `SCORES` except ``exposure``. Eras with a NaN score are left out.
    title : str, optional
        Title of the picture.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    NumeraiSequenceError
        matplotlib is not installed.
    ValueError
        The table has none of these columns.
    """
    figures = load_extra("matplotlib.figure", "matplotlib", "pictures")
    panels = _panels(table)
    lines = max(map(len, panels.values()), default=0)
    if not lines:
        known = tuple(name for name, score in SCORES.items() if score.is_summed)
        raise ValueError(
            f"table: found columns {list(table.columns)}, expected at least one of {known}"
        )
    height = _AXES_INCHES * len(panels) + _LINE_INCHES * sum(map(len, panels.values()))
    figure: Figure = figures.Figure(figsize=(_WIDTH_INCHES, height), layout="constrained")
    parts = (
        figure.subfigures(len(panels), squeeze=False)[:, 0] if panels.keys() - {""} else [figure]
    )
    for part, (name, columns) in zip(parts, panels.items(), strict=True):
        _draw_panel(part, name, columns, list(table.index))
    if title:
        first = parts[0].axes[0]
        first.set_title(title, loc="left", fontweight="bold", parse_math=False)
    return figure


def _panels(table: pd.DataFrame) -> dict[str, dict[str, pd.Series]]:
    """Return the lines of each panel by name: one panel without a name, or one for each score."""
    panels: dict[str, dict[str, pd.Series]] = {}
    for column in table.columns:
        model, name = column if isinstance(column, tuple) else ("", column)
        score = score_of(name)
        if score is not None and score.is_summed:
            panel = name if isinstance(column, tuple) else ""
            panels.setdefault(panel, {})[model or name] = table[column]
    return panels


def _draw_panel(part: Any, name: str, lines: dict[str, pd.Series], eras: list[str]) -> None:
    axes = part.add_subplot()
    for place, (label, scores) in enumerate(lines.items()):
        _draw_line(axes, label, scores, place)
    axes.axhline(0, color=_GREY, linewidth=0.8, zorder=1)
    axes.set_ylabel(f"Cumulative {name or 'score'}", parse_math=False)
    _label_eras(axes, eras)
    _tidy(axes)
    # Below, where it covers no line.
    part.legend(loc="outside lower left", frameon=False)


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure as PNG. An existing file is replaced only when the new one is complete."""
    agg = load_extra("matplotlib.backends.backend_agg", "matplotlib", "pictures")
    agg.FigureCanvasAgg(figure)
    with replaced(path) as temporary:
        figure.savefig(temporary, format="png", dpi=_DOTS_PER_INCH)


def _draw_line(axes: Any, name: str, scores: pd.Series, place: int) -> None:
    values = scores.to_numpy(np.float64)
    (eras,) = np.nonzero(~np.isnan(values))
    axes.plot(
        eras,
        np.cumsum(values[eras]),
        marker="o" if len(eras) <= _MOST_MARKERS else None,
        markersize=4,
        color=_COLORS[place % len(_COLORS)],
        linestyle=_STYLES[place // len(_COLORS) % len(_STYLES)],
        label=f"{name}: {_describe(scores)}".replace("$", r"\$"),  # a name is not a formula
    )


def _describe(scores: pd.Series) -> str:
    summary = summarize_score(scores)
    if np.isnan(summary.mean):
        return "no score"
    sharpe = "" if np.isnan(summary.sharpe) else f", Sharpe {_digits(summary.sharpe, 2)}"
    return f"mean {_digits(summary.mean, 4)}{sharpe}"


def _digits(number: float, digits: int) -> str:
    text = f"{round(number, digits) + 0.0:.{digits}f}"  # + 0.0: no negative zero
    return text.replace("-", "\N{MINUS SIGN}")  # as on the axis


def _label_eras(axes: Any, eras: list[str]) -> None:
    """Label a few eras at about equal distances, with the first and the last."""
    ticks = np.linspace(0, len(eras) - 1, min(len(eras), _MOST_TICKS)).round().astype(int)
    axes.set_xticks(ticks, [eras[tick] for tick in ticks])
    axes.set_xlabel("Era")


def _tidy(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e5e5e5", linewidth=0.8)
    axes.set_axisbelow(True)
