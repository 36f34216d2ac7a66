"""Score kinds: the table of all scores. Logs, pictures, summaries and options of commands read it.

To add a score of predictions and a target, write a function of one era and add a line to `SCORES`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..system.extras import load_extra

Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Score:
    """One kind of score, a number an era.

    Attributes
    ----------
    name : str
        Column of a table of scores. A score with other models named by the user has a column
        ``<name>_<model>`` for each of them.
    help : str
        A noun phrase that describes it, for ``--help``.
    needs : {"", "meta_model", "benchmarks", "exposure", "neutral"}
        Option that asks for the score; "" for scores that are always computed.
    of_era : callable, optional
        Computes the score of an era from float64 arrays of shape (rows,): predictions, target, and
        the other model where `needs` is one; none of them is constant or has NaN. None for a score
        that reads features: its own module computes it.
    is_summed : bool
        Whether the sum over the eras means something. Only then the score has a Sharpe ratio and a
        drawdown, and a line in the picture. The logs have its largest value otherwise.
    """

    name: str
    help: str
    needs: str = ""
    of_era: Callable[..., float] | None = None
    is_summed: bool = True


def load_scorer() -> Any:
    """Import numerai-tools' scoring, or say how to install it."""
    load_extra("pandas", "pandas", "scores")
    return load_extra("numerai_tools.scoring", "numerai-tools", "scores")


def _frames(*columns: Floats) -> Iterator[Any]:
    # numerai-tools wants sorted indices, and no more than a fifth of the rows missing from one
    # side: so it gets whole columns numbered from 0.
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
    """Return the score that a column of a table is of; None for a column of another name."""
    parts = str(column).split("_")
    names = ("_".join(parts[:count]) for count in range(len(parts), 0, -1))
    return next((SCORES[name] for name in names if name in SCORES), None)


def is_summed(column: Any) -> bool:
    """Say whether the sum of a column over the eras means something; of unknown ones it does."""
    score = score_of(column)
    return score is None or score.is_summed


def names_of(needs: str) -> str:
    """Return the scores that an option asks for, as ``--help`` lists them."""
    return " and ".join(score.name for score in SCORES.values() if score.needs == needs)


def monitored_logs() -> list[str]:
    """Return the logs by which the command may choose the best epoch, the default first."""
    names = [name for name, score in SCORES.items() if not score.needs and score.is_summed]
    return [f"val_{name}_{statistic}" for name in names for statistic in ("mean", "sharpe")]


def score_era(
    score: Score, predictions: Floats, target: Floats, model: Floats | None = None
) -> float:
    """Return the score of one era.

    Parameters
    ----------
    score : Score
        One with a function of an era.
    predictions, target : float array, shape (rows,)
    model : float array, shape (rows,), optional
        The other model; rows where it is NaN are left out.

    Returns
    -------
    float
        NaN where one of the arrays is empty or constant.
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
    """Say whether two values differ."""
    return bool(len(values) and values.min() < values.max())
