"""Scoring: turn predictions, targets and eras into one score an era, and those into a summary.

The score is Numerai's own, from numerai-tools.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .eras import sort_eras
from .errors import NumeraiSequenceError


@dataclass(frozen=True)
class Summary:
    """Scores over eras: `sharpe` is the mean over the standard deviation (of a population)."""

    mean: float
    std: float
    sharpe: float


def load_scorer() -> Any:
    """Import numerai-tools' scoring, or say how to install it."""
    try:
        from numerai_tools import scoring
    except ImportError as error:
        raise NumeraiSequenceError(
            "scores need numerai-tools; pip install 'numerai_sequence[demo]'"
        ) from error
    return scoring


def era_correlations(
    eras: Sequence[str], predictions: npt.NDArray[Any], target: npt.NDArray[Any]
) -> dict[str, float]:
    """Score each era by Numerai's correlation (`numerai_corr`).

    Parameters
    ----------
    eras : sequence of str, length rows
    predictions : float array, shape (rows,)
    target : float array, shape (rows,)
        Rows without a target (NaN) are left out.

    Returns
    -------
    dict of str to float
        In the order of time; NaN for an era whose predictions or targets are all the same.
    """
    import pandas as pd

    scorer = load_scorer()
    frame = pd.DataFrame({"era": eras, "prediction": predictions, "target": target})
    frame = frame.astype({"prediction": float, "target": float}).dropna(subset=["target"])
    scores: dict[str, float] = {}
    for era, rows in frame.groupby("era", sort=False):
        score = float("nan")
        if rows["prediction"].nunique() > 1 and rows["target"].nunique() > 1:
            score = float(scorer.numerai_corr(rows[["prediction"]], rows["target"]).iloc[0])
        scores[str(era)] = score
    return {era: scores[era] for era in sort_eras(scores)}


def summarize(scores: dict[str, float]) -> Summary:
    """Return the mean, standard deviation and Sharpe ratio over the eras; NaN scores are left out.

    All three are NaN where no era has a score, the Sharpe ratio also where they are all the same.
    """
    values = np.array([score for score in scores.values() if not np.isnan(score)])
    if not len(values):
        return Summary(float("nan"), float("nan"), float("nan"))
    mean, std = float(values.mean()), float(values.std())
    return Summary(mean, std, mean / std if std > 0 else float("nan"))
