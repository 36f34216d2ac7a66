"""Residual: a target minus the part that a benchmark model's predictions explain."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..checks import share, short
from ..errors import FeatureError, check_known
from ..reading.join_by_id import Lookup, Source, lean_table, listed, models_in, several
from ..reading.selection import Selection
from ..reading.tables import is_table

Values = npt.NDArray[np.float32]
Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, repr=False)
class Residual:
    """A target minus the part that a benchmark model explains, era by era.

    Use a `Residual` in ``target=`` of `NumeraiSequence` in place of a target's name. In each era, a
    line ``target = intercept + slope * prediction`` is fitted by least squares. Then
    ``y = target - proportion * slope * (prediction - the era's mean prediction)``. So the era's
    mean of y equals its mean of the target. ``neutralize`` of numerai-tools and
    ``residual_to_benchmark`` of Numerai's example scripts do the same, but also subtract
    `proportion` of this mean.

    The line is fitted to the selected rows that have a target and a prediction. If the benchmark is
    constant in an era, y is the target.

    Parameters
    ----------
    target : str
        A target column of the set.
    benchmark : str, path, frame, Series, or a list of these
        Predictions of the benchmark models, by id: a file such as
        ``"validation_benchmark_models.parquet"``, a list of such files for different eras, or the
        name of a column of the set. See `EraScores`.
    model : str, optional
        Column of the model, such as ``"v53_lgbm_ender60"``. It is needed if `benchmark` has several
        models.
    proportion : float
        Share of the explained part to subtract, 0 to 1.

    Raises
    ------
    TypeError, ValueError
        An argument has a wrong type, or `proportion` is not 0 to 1.
    """

    target: str
    benchmark: Any
    model: str | None = field(default=None, kw_only=True)
    proportion: float = field(default=1.0, kw_only=True)

    def __post_init__(self) -> None:
        for name, value in ("target", self.target), ("model", self.model):
            if not isinstance(value, str) and not (name == "model" and value is None):
                raise TypeError(f"Residual: {name}: found {short(value)}, expected a column's name")
        object.__setattr__(self, "proportion", share("Residual: proportion", self.proportion))
        object.__setattr__(self, "benchmark", several(self.benchmark))

    def __reduce__(self) -> Any:
        # Worker processes get only the needed column of a frame of benchmark models.
        parts = self.benchmark if isinstance(self.benchmark, list) else [self.benchmark]
        columns = None if self.model is None else [self.model]
        lean = [lean_table("Residual: benchmark", part, columns) for part in parts]
        benchmark = lean if isinstance(self.benchmark, list) else lean[0]
        return _make, (self.target, benchmark, self.model, self.proportion)

    def __repr__(self) -> str:
        given = type(self.benchmark).__name__ if is_table(self.benchmark) else short(self.benchmark)
        model = "" if self.model is None else f", model={self.model!r}"
        return f"Residual({self.target!r}, {given}{model}, proportion={self.proportion:g})"

    def __str__(self) -> str:
        against = "" if self.model is None else f" against {self.model}"
        share = "" if self.proportion == 1 else f" in a proportion of {self.proportion:g}"
        return f"residual of {self.target}{against}{share}"


def _make(target: str, benchmark: Any, model: str | None, proportion: float) -> Residual:
    return Residual(target, benchmark, model=model, proportion=proportion)


def residual_column(residual: Residual, selection: Selection) -> Values:
    """Return the residual of the rows of a selection, float32 of shape (rows,).

    It is NaN if a row lacks the target or the benchmark's value. Memory holds both columns, and a
    copy of one era of them.

    Raises
    ------
    FeatureError, PredictionError, SourceError, TypeError
        The benchmark has no model, several, or not the named one; or it cannot be read.
    """
    shards = selection.shards
    check_known("target of Residual", (residual.target,), shards.targets, str(shards.folder))
    benchmark: Floats = Lookup(selection, np.float64).fill(*_find_model(residual, selection))
    target: Values = selection.column(residual.target).to_numpy()
    left = np.full(selection.rows, np.nan, np.float32)
    rows, counts = selection.by_era
    for of_era in np.split(rows, np.cumsum(counts)[:-1]):
        left[of_era] = _left_over(target[of_era], benchmark[of_era], residual.proportion)
    return left


def _find_model(residual: Residual, selection: Selection) -> tuple[str, list[Source]]:
    found = models_in("Residual: benchmark", residual.benchmark, selection.shards)
    if residual.model is not None:
        check_known("model of Residual", (residual.model,), tuple(found), "benchmark")
        return residual.model, found[residual.model]
    if len(found) != 1:
        raise FeatureError(
            f"Residual: found the models {listed(list(found)) or 'none'} in benchmark=, expected "
            "one; choose it with model=",
            names=tuple(found),
        )
    return next(iter(found.items()))


def _left_over(target: Floats, benchmark: Floats, proportion: float) -> Floats:
    """Return an era's target without the part that a line over the benchmark explains."""
    y = target.astype(np.float64)
    y[np.isnan(benchmark)] = np.nan
    there = ~np.isnan(y)
    if not there.any() or np.ptp(benchmark[there]) == 0:
        return y
    centered = benchmark - benchmark[there].mean()
    known = centered[there]
    slope = known @ (y[there] - y[there].mean()) / (known @ known)
    left: Floats = y - proportion * slope * centered
    return left
