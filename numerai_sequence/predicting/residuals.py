"""Residuals: the part of an era's predictions that a linear fit of its features leaves.

The text of this module is pickled, like that of `uploaded`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

# The least share of a column's variance that the columns before it may leave. Below it, the fit
# uses singular values, as numerai-tools always does.
_INDEPENDENT = 1e-6
_BLOCK_ROWS, _BLOCK_COLUMNS = 1024, 256
# A smaller share of the predictions is rounding.
_ROUNDING = 1e-9


def neutralized(
    values: npt.NDArray[np.floating[Any]], digits: npt.NDArray[Any], proportion: float
) -> npt.NDArray[np.float64]:
    """Subtract from each column of one era a share of its least-squares fit to the features.

    The fit has an intercept, as in numerai-tools' ``neutralize``.

    Parameters
    ----------
    values : float array, shape (rows, columns)
    digits : array, shape (rows, features)
        Whole numbers 0..4, or floats 0..1 in steps of .25. Sums of their products are exact.
    proportion : float
        The share of the fit to subtract.

    Returns
    -------
    float64 array, shape (rows, columns)
    """
    given = np.asarray(values, np.float64)
    if not len(given) or not proportion:
        return given.copy()
    residual = _residual(given - given.mean(axis=0), digits)
    return np.asarray(residual + (1 - proportion) * (given - residual), np.float64)


def is_spent(left: npt.NDArray[Any], values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return for each column whether neutralization has left only rounding errors of it."""
    spent: npt.NDArray[np.bool_] = np.ptp(left, axis=0) <= _ROUNDING * np.abs(values).max(axis=0)
    return spent


def why_nothing_is_left(
    left: npt.NDArray[Any], values: npt.NDArray[Any], names: Sequence[str], era: str, features: int
) -> str | None:
    """Return a message that names a column that the features explain fully, or None."""
    spent = np.flatnonzero(is_spent(left, values))
    if not len(spent):
        return None
    name, rows = names[spent[0]], len(values)
    if np.ptp(values[:, spent[0]]) == 0:
        return (
            f"column {name!r}: all {rows:,} predictions of era {era} are the same, so neutralizing "
            "leaves nothing; expected predictions that differ"
        )
    return (
        f"column {name!r}: {features:,} features explain all of its {rows:,} predictions of era "
        f"{era}, so neutralizing leaves nothing; use fewer features, or a smaller proportion="
    )


def _residual(
    centred: npt.NDArray[np.float64], digits: npt.NDArray[Any]
) -> npt.NDArray[np.float64]:
    """Return the residual of columns whose mean is 0 after a fit to the features."""
    kept, correlations, sums, scales = _different(digits)
    if not len(kept):
        return centred
    lower = _factor(correlations) if len(kept) < len(digits) - 1 else None
    del correlations
    x = _Centred(digits, kept, sums / len(digits), scales / np.sqrt(len(digits)))
    if lower is None:
        return _by_singular_values(centred, np.concatenate(list(x.blocks())))
    residual = centred
    for _ in range(2):  # the second pass removes the rounding errors of the first
        residual = x.without(residual, _solved(lower, x.products(residual)))
    return residual


def _different(digits: npt.NDArray[Any]) -> tuple[Any, Any, Any, Any]:
    """Return the places of the different features that vary, and their correlations.

    Also return the sums of all features, and the scales of the different ones.
    """
    gram, sums = _products(digits)
    gram *= len(digits)
    gram -= np.outer(sums, sums)  # exact, so that 0 is 0: the feature is the same in all rows
    kept = np.flatnonzero(gram.diagonal() > 0)
    gram = gram if len(kept) == len(sums) else gram[np.ix_(kept, kept)]
    scales = np.sqrt(gram.diagonal())
    gram /= scales
    gram /= scales[:, None]
    different = ~_repeats(gram)
    if not different.all():
        gram = gram[np.ix_(different, different)]
    return kept[different], gram, sums, scales[different]


def _by_singular_values(
    centred: npt.NDArray[np.float64], x: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    if len(x) <= x.shape[1] + 1:
        rows = x @ x.T + 1 / len(x)
        sizes = np.sqrt(rows.diagonal())
        if _factor(rows / sizes / sizes[:, None]) is not None:
            return np.zeros_like(centred)  # the features tell all rows apart, and explain all
    return np.asarray(centred - x @ np.linalg.lstsq(x, centred, rcond=1e-6)[0], np.float64)


def _products(digits: npt.NDArray[Any]) -> tuple[npt.NDArray[np.float64], Any]:
    """Return the features' products with each other, and their sums, both exact."""
    features = digits.shape[1]
    gram, sums = np.zeros((features, features)), np.zeros(features)
    for start in range(0, len(digits), _BLOCK_ROWS):
        block = digits[start : start + _BLOCK_ROWS].astype(np.float32)
        gram += block.T @ block
        sums += block.sum(axis=0, dtype=np.float64)
    return gram, sums


def _repeats(correlations: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Return for each feature whether an earlier one is equal or opposite to it."""
    repeats = np.zeros(len(correlations), bool)
    for place, row in enumerate(correlations):
        if not repeats[place]:
            repeats[place + 1 :] |= np.abs(row[place + 1 :]) > 1 - 1e-12
    return repeats


def _factor(gram: npt.NDArray[np.float64]) -> npt.NDArray[np.float64] | None:
    """Return the lower factor of a matrix of correlations; None if columns are dependent."""
    try:
        lower: npt.NDArray[np.float64] = np.asarray(np.linalg.cholesky(gram), np.float64)
    except np.linalg.LinAlgError:
        return None
    return lower if lower.diagonal().min() ** 2 > _INDEPENDENT else None


def _solved(
    lower: npt.NDArray[np.float64], right: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Solve the equations whose matrix has this lower factor, for the right sides."""
    found = right.copy()
    starts = range(0, len(lower), _BLOCK_COLUMNS)
    for start in starts:
        part, rest = slice(start, start + _BLOCK_COLUMNS), slice(start + _BLOCK_COLUMNS, None)
        found[part] = np.linalg.solve(lower[part, part], found[part])
        found[rest] -= lower[rest, part] @ found[part]
    for start in reversed(starts):
        part = slice(start, start + _BLOCK_COLUMNS)
        found[part] = np.linalg.solve(lower[part, part].T, found[part])
        found[:start] -= lower[part, :start].T @ found[part]
    return found


class _Centred:
    """Features with a mean of 0 and one size, made of digits, some rows at a time."""

    def __init__(self, digits: Any, kept: Any, means: Any, scales: Any) -> None:
        self._digits, self._kept = digits, kept if len(kept) < digits.shape[1] else slice(None)
        self._means, self._scales = means[kept], scales

    def blocks(self) -> Iterator[npt.NDArray[np.float64]]:
        for start in range(0, len(self._digits), _BLOCK_ROWS):
            block = self._digits[start : start + _BLOCK_ROWS][:, self._kept].astype(np.float64)
            block -= self._means
            block /= self._scales
            yield block

    def products(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the product of each feature with each column of the values."""
        found: Any = 0.0
        for place, block in enumerate(self.blocks()):
            rows = slice(place * _BLOCK_ROWS, (place + 1) * _BLOCK_ROWS)
            found = found + block.T @ values[rows]
        return np.asarray(found, np.float64)

    def without(self, values: Any, weights: Any) -> npt.NDArray[np.float64]:
        """Return values less the weighted sum of the features."""
        parts = [block @ weights for block in self.blocks()]
        return np.asarray(values - np.concatenate(parts), np.float64)
