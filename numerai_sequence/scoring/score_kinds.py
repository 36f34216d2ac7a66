"""Score kinds: the table of all scores, for logs, pictures, summaries and command options.

To add a score of predictions and a target, write a function of one era and add a line to `SCORES`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..system.optional_packages import load_extra

Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Score:
    """A kind of score, with one number for each era.

    Attributes
    ----------
    name : str
        Column of a table of scores. A score with other models named by the user has a column
        ``<name>_<model>`` for each of them.
    help : str
        Noun phrase that describes it, for ``--help``.
    needs : {"", "meta_model", "benchmarks", "exposure", "neutral"}
        Option that adds the score; "" for scores that are always computed.
    of_era : callable, optional
        Function of an era's predictions, target and, if `needs` names one, other model: float64
        arrays of shape (rows,), not constant and without NaN. None for a score that reads features:
        its own module computes it.
    is_summed : bool
        Whether the sum over the eras has a meaning. If so, the score has a Sharpe ratio, a
        drawdown, and a line in the picture. If not, the logs have its largest value.
    """

    name: str
    help: str
    needs: str = ""
    of_era: Callable[..., float] | None = None
    is_summed: bool = True


def load_scorer() -> Any:
    """Import the scoring of numerai-tools. If it is missing, the error says how to install it."""
    load_extra("pandas", "pandas", "scores")
    return load_extra("numerai_tools.scoring", "numerai-tools", "scores")


def _frames(*columns: Floats) -> Iterator[Any]:
    # numerai-tools needs sorted indices, and at most a fifth of the rows missing on one side. So it
    # gets whole columns, numbered from 0.
    pandas = load_extra("pandas", "pandas", "scores")
    predictions, *others = columns
    yield pandas.DataFrame({"prediction": predictions})
    for place, values in enumerate(others):
        yield pandas.Series(values, name=f"other_{place}")


def _correlation(predictions: Floats, target: Floats) -> float:
    return float(load_scorer().numerai_corr(*_frames(predictions, target)).iloc[0])


def _contribution(predictions: Floats, target: Floats, model: Floats) -> float:
    frames = _frames(predictions, model, target)
    return float(load_scorer().correlation_contribution(*frames).iloc[0])


CORR = Score("corr", "Numerai's correlation with the target", of_era=_correlation)
EXPOSURE = Score(
    "exposure",
    "the largest correlation with a feature",
    needs="exposure",
    is_summed=False,
)
FNC = Score("fnc", "the correlation without what these features explain", needs="neutral")

#: By name, in the order of a table's columns.
SCORES: dict[str, Score] = {
    score.name: score
    for score in (
        CORR,
        Score(
            "mmc",
            "the contribution to the meta model",
            needs="meta_model",
            of_era=_contribution,
        ),
        Score(
            "bmc",
            "the contribution to each benchmark model",
            needs="benchmarks",
            of_era=_contribution,
        ),
        EXPOSURE,
        FNC,
    )
}


def score_of(column: Any) -> Score | None:
    """Return the kind of score of a table's column, or None for another name."""
    parts = str(column).split("_")
    names = ("_".join(parts[:count]) for count in range(len(parts), 0, -1))
    return next((SCORES[name] for name in names if name in SCORES), None)


def is_summed(column: Any) -> bool:
    """Return whether the sum of a column over the eras has a meaning; True for unknown columns."""
    score = score_of(column)
    return score is None or score.is_summed


def names_of(needs: str) -> str:
    """Return the scores that an option adds, as listed by ``--help``."""
    return " and ".join(score.name for score in SCORES.values() if score.needs == needs)


def monitored_logs() -> list[str]:
    """Return the logs that the command can monitor to choose the best epoch, default first."""
    names = [name for name, score in SCORES.items() if not score.needs and score.is_summed]
    return [f"val_{name}_{statistic}" for name in names for statistic in ("mean", "sharpe")]


def score_era(
    score: Score, predictions: Floats, target: Floats, model: Floats | None = None
) -> float:
    """Return the score of one era.

    Parameters
    ----------
    score : Score
        Score with a function `of_era`.
    predictions, target : float array, shape (rows,)
    model : float array, shape (rows,), optional
        Values of the other model. Rows with NaN are left out.

    Returns
    -------
    float
        The score; NaN if one of the arrays is empty or constant.
    """
    assert score.of_era is not None
    columns = [predictions, target]
    if model is not None:
        there = ~np.isnan(model)
        columns = [values[there] for values in (*columns, model)]
    if not all(map(varies, columns)):  # numerai-tools would warn, or divide by zero
        return float("nan")
    return score.of_era(*columns)


def varies(values: Floats) -> bool:
    """Return whether there are two different values."""
    return bool(len(values) and values.min() < values.max())
