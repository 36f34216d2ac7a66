"""Feature exposure: the largest correlation of the predictions of each era with one feature."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..format.encoding import SCALE
from .scores import check_finite, one_a_row

# Rows to add at a time: their float64 copy stays in the CPU cache.
_BLOCK_ROWS = 256
# A variance below this share of the squares is rounding: all values are equal.
_ROUNDING = 1e-11
_MIDDLE = 0.5


class Exposure:
    """The largest correlation of the predictions of each era with one feature.

    It keeps only sums, so memory does not grow with the rows: ``eras * (24 * features + 32)``
    bytes, or 55 MB for 650 eras of 3,555 features. Adding takes 256 rows of float64 more.

    Parameters
    ----------
    features : int
        Number of features.
    eras : sequence of str
        Names of the eras. The codes of the rows are indices into them.

    Notes
    -----
    Only one thread may use it at a time.
    """

    def __init__(self, features: int, eras: Sequence[str]) -> None:
        self.eras = list(eras)
        # For each era and feature: the sums of x, of x * prediction and of x * x.
        self._features = np.zeros((len(self.eras), 3, features))
        # For each era: the number of rows, and the sums of the predictions and their squares.
        self._predictions = np.zeros((len(self.eras), 3))
        # Subtract an era's first prediction from the others. Predictions far from 0 but close to
        # each other would lose their differences in the rounding of squares.
        self._origins = np.full(len(self.eras), np.nan)

    def add(
        self,
        codes: npt.NDArray[np.integer[Any]],
        x: npt.NDArray[Any],
        predictions: npt.NDArray[Any],
    ) -> None:
        """Add a batch with rows of any eras.

        Parameters
        ----------
        codes : int array, shape (batch,)
            Index of each row's era in `eras`.
        x : array, shape (batch, features)
            Features: float32 or float16 in 0..1, or int8 in 0..4.
        predictions : float array, shape (batch,)

        Raises
        ------
        NumeraiSequenceError
            A prediction is NaN or infinite.
        ValueError
            An array has another shape, or a code is out of range.
        """
        codes, x = np.asarray(codes, np.int64), np.asarray(x)
        features = self._features.shape[2]
        if x.shape != (len(codes), features):
            raise ValueError(f"x: found shape {x.shape}, expected ({len(codes)}, {features})")
        predictions = one_a_row("predictions", predictions, len(codes)).astype(np.float64)
        if not len(codes):
            return
        if codes.min() < 0 or codes.max() >= len(self.eras):
            raise ValueError(
                f"codes: found {codes.min()} to {codes.max()}, expected 0 to {len(self.eras) - 1}"
            )
        check_finite(predictions, codes, self.eras)
        order = np.argsort(codes, kind="stable")
        starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
        for rows in np.split(order, starts[1:]):
            for first in range(0, len(rows), _BLOCK_ROWS):
                block = rows[first : first + _BLOCK_ROWS]
                self._add_block(codes[block[0]], x[block], predictions[block])

    def max(self) -> dict[str, float]:
        """Return the largest absolute Pearson correlation with one feature, for each era.

        Returns
        -------
        dict of str to float
            Correlations in the order of `eras`. Constant features of an era are left out. NaN marks
            eras without rows, or with constant predictions, or with only constant features.
        """
        return {era: self._max_of(place) for place, era in enumerate(self.eras)}

    def _add_block(self, era: int, x: npt.NDArray[Any], predictions: npt.NDArray[Any]) -> None:
        if np.isnan(self._origins[era]):
            self._origins[era] = predictions[0]
        shifted = predictions - self._origins[era]
        values = x.astype(np.float64)
        if x.dtype.kind in "iu":
            values *= SCALE
        values -= _MIDDLE
        self._features[era, :2] += np.stack([np.ones(len(shifted)), shifted]) @ values
        self._features[era, 2] += np.einsum("ij,ij->j", values, values)
        self._predictions[era] += len(shifted), shifted.sum(), shifted @ shifted

    def _max_of(self, era: int) -> float:
        rows, sums, squares = self._predictions[era]
        if not rows:
            return float("nan")
        x, products, x_squares = self._features[era]
        variance, x_variances = squares - sums**2 / rows, x_squares - x**2 / rows
        varies = x_variances > _ROUNDING * x_squares
        if variance <= _ROUNDING * squares or not varies.any():
            return float("nan")
        covariances = (products - x * (sums / rows))[varies]
        correlations = covariances / np.sqrt(variance * x_variances[varies])
        return min(1.0, float(np.abs(correlations).max()))
