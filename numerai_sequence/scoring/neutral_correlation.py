"""Neutral correlation: feature-neutral correlations, computed one era at a time."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..checks import short
from ..feeding.sequence import NumeraiSequence
from ..format.feature_sets import resolve_features
from ..ordering.eras import era_span
from ..predicting.residuals import is_spent, neutralized
from ..reading.shard_set import ShardSet
from ..system.optional_packages import load_extra
from ..system.progress import progress_bar
from .forward_pass import x_of
from .score_kinds import CORR, load_scorer, score_era

if TYPE_CHECKING:
    import pandas as pd

Floats = npt.NDArray[np.floating[Any]]


def read_neutral(neutral: Any, shards: ShardSet) -> tuple[str, ...]:
    """Return the features of ``neutral=``: a feature set, a list, or all for True.

    Raises
    ------
    FeatureError
        The shard set lacks a feature or the feature set.
    TypeError
        `neutral` is something else.
    """
    if neutral is None or isinstance(neutral, (bool, np.bool_)):
        return shards.features if neutral else ()
    if not isinstance(neutral, str) and not hasattr(neutral, "__iter__"):
        raise TypeError(
            f"neutral: found {short(neutral)}, expected the name of a feature set, a list of "
            "features, or True for all"
        )
    return resolve_features(neutral, shards.manifest, str(shards.folder))


def era_digits(
    sequence: NumeraiSequence,
    features: str | Sequence[str] | None,
    *,
    doing: str,
    progress: bool = False,
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int8]]]:
    """Yield the features of a sequence's rows, one era at a time, oldest era first.

    Parameters
    ----------
    sequence : NumeraiSequence
    features : str or sequence of str, optional
        Name of a feature set of the shard set, or a list of features; None for all.
    doing : str
        Text of the progress bar.

    Yields
    ------
    rows : int64 array, shape (rows of the era,)
        Numbers of the era's rows, in the order of ``sequence.column``.
    digits : int8 array, shape (rows of the era, features), 0..4
        Features of these rows.
    """
    plain = NumeraiSequence(
        sequence.shards,
        target=None,
        features=features,
        shuffle=False,
        dtype="int8",
        memory_budget=sequence.memory_budget,
        max_queue_size=1,
    )
    one_pass = plain._unshuffled("era", 1, sequence._selection).one_pass()
    with progress_bar(sequence.rows, doing, progress) as bar:
        for number in range(len(one_pass)):
            rows = one_pass.rows(number)
            yield rows, x_of(one_pass[number])
            bar.update(len(rows))


def neutral_correlations(
    sequence: NumeraiSequence,
    predictions: Floats,
    target: Floats,
    *,
    features: str | Sequence[str] | None,
    progress: bool = False,
) -> pd.DataFrame:
    """Return each era's feature-neutral correlation: numerai-tools' ``feature_neutral_corr``.

    Memory holds the features of one era, and their products with each other.

    Parameters
    ----------
    sequence : NumeraiSequence
    predictions : float array, shape (rows, columns)
        Predictions in the order of ``sequence.column``. A column may be NaN in all rows of an era.
    target : float array, shape (rows,)
        Targets. Rows without a target (NaN) are left out.
    features : str or sequence of str, optional
        Features to neutralize to; None for all features of the set.

    Returns
    -------
    pandas.DataFrame
        Scores, float64, indexed by ``era``, with the columns of `predictions`. NaN marks eras
        without rows to score, with constant predictions or targets, or whose predictions the
        features explain fully. They always do if the era has no more rows than features. A warning
        names such eras.
    """
    pandas = load_extra("pandas", "pandas", "scores")
    names, scores, spent = [], [], []
    eras = sequence.column("era")
    parts = era_digits(sequence, features, doing="neutralizing", progress=progress)
    for rows, digits in parts:
        names.append(str(eras[int(rows[0])].as_py()))
        there = ~np.isnan(target[rows])
        row, is_nothing = _score_era(predictions[rows[there]], target[rows[there]], digits[there])
        scores.append(row)
        spent += [names[-1]] if is_nothing else []
    if spent:
        warnings.warn(
            f"neutral: {digits.shape[1]:,} features explain all predictions of {era_span(spent)}, "
            "so the score is NaN there; use fewer features",
            stacklevel=3,
        )
    index = pandas.Index(names, name="era")
    return pandas.DataFrame(np.reshape(scores, (len(names), -1)), index=index)


def _score_era(
    predictions: Floats, target: Floats, digits: npt.NDArray[Any]
) -> tuple[npt.NDArray[np.float64], bool]:
    """Return the scores of the columns, and whether one of them is explained fully."""
    scorer, pandas = load_scorer(), load_extra("pandas", "pandas", "scores")
    scores = np.full(predictions.shape[1], np.nan)
    if not len(target):
        return scores, False
    varies = np.flatnonzero(np.ptp(predictions, axis=0) > 0)  # NaN does not
    if not len(varies):
        return scores, False
    ranks = scorer.tie_kept_rank(pandas.DataFrame(predictions[:, varies].astype(np.float64)))
    ranks = scorer.gaussian(ranks).to_numpy()
    left = neutralized(ranks, digits, 1.0)
    spent = is_spent(left, ranks)
    for place, column in enumerate(varies):
        if not spent[place]:
            truth = target.astype(np.float64)
            scores[column] = score_era(CORR, left[:, place], truth)
    return scores, bool(spent.any())
