"""Blends: ranks of predictions within each era, and one prediction a row from several columns.

The text of this module is pickled, like that of `uploaded`.
"""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd


def blend_in_eras(
    values: npt.NDArray[Any], eras: Any, weights: list[float], by: str
) -> npt.NDArray[np.float32]:
    """Return the weighted sum of the columns' ranks within each era, ranked again.

    Parameters
    ----------
    values : float array, shape (rows, columns)
    eras : array, shape (rows,)
    weights : list of float
        One weight for each column.
    by : {"rank", "gaussian"}
        Values to sum: ranks, or the values of a normal distribution with these ranks.

    Returns
    -------
    float32 array, shape (rows,)
    """
    total = np.zeros(len(values))
    for column, weight in enumerate(weights):
        ranks = _ranks(values[:, column], eras).to_numpy(np.float64)[:, 0]
        total += weight * (_as_normal(ranks) if by == "gaussian" else ranks)
    return rank_in_eras(total, eras)[:, 0]


def _as_normal(ranks: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    # The same ranks appear in each column, and in eras of the same size.
    found, places = np.unique(ranks, return_inverse=True)
    inverse = statistics.NormalDist().inv_cdf
    normal: npt.NDArray[np.float64] = np.array([inverse(rank) for rank in found.tolist()])
    return normal[places.reshape(-1)]


def _ranks(values: npt.NDArray[Any], eras: Any) -> pd.DataFrame:
    groups = pd.DataFrame(values).groupby(np.asarray(eras), dropna=False)
    return (groups.rank(method="average") - 0.5).div(groups.transform("size"), axis=0)


def rank_in_eras(values: npt.NDArray[Any], eras: Any) -> npt.NDArray[np.float32]:
    """Return the rank of each value within its era and column, as (rank - 0.5) / rows.

    Parameters
    ----------
    values : float array, shape (rows,) or (rows, columns)
    eras : array, shape (rows,)

    Returns
    -------
    float32 array, shape (rows, columns)
    """
    found: npt.NDArray[np.float32] = _ranks(values, eras).to_numpy(np.float32)
    return found
