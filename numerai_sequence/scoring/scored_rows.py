"""Scored rows: from a validation sequence to its rows' eras, target and other models' values."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..batching.residual import Residual
from ..checks import is_of
from ..errors import check_known
from ..feeding.sequence import NumeraiSequence
from ..ordering.eras import era_codes, era_span
from .benchmark_models import read_benchmarks, read_meta_model
from .forward_pass import most_rows

Values = npt.NDArray[np.float32]


class ScoredRows:
    """The rows that are scored, in the order of the files, and what they are compared with.

    Parameters
    ----------
    validation : NumeraiSequence
    batch_by : {"rows", "era"}
        How they are predicted: 32 MB at a time, or an era at a time.
    target : str
        A target column.
    meta_model, benchmarks
        As of `benchmarks.read_benchmarks`.

    Attributes
    ----------
    sequence : NumeraiSequence
    eras : pyarrow array of str
    target, meta_model : float32 array, shape (rows,), or None
    benchmarks : dict of str to float32 array
        NaN where a row has none.
    """

    def __init__(
        self,
        validation: NumeraiSequence,
        *,
        batch_by: str,
        target: str,
        meta_model: Any,
        benchmarks: Any,
    ) -> None:
        self.sequence = _ordered(validation, batch_by)
        self.eras = self.sequence.column("era")
        self.target = self._column("target", target)
        self.meta_model = read_meta_model(meta_model, self.sequence)
        self.benchmarks = read_benchmarks(benchmarks, self.sequence)

    def _column(self, option: str, name: str) -> Values:
        shards = self.sequence.shards
        check_known(f"{option} column", (name,), shards.targets, str(shards.folder))
        column: Values = self.sequence.column(name).to_numpy()
        return column

    def without_values(self, scored: npt.NDArray[np.bool_] | None = None) -> str | None:
        """Say which other models have no value in which eras, and what that means for the scores.

        None where each has one in each.

        Parameters
        ----------
        scored : bool array, shape (rows,), optional
            The rows that have a prediction; None for all.
        """
        names, codes = era_codes(self.eras if scored is None else self.eras.filter(scored))
        models = {f"benchmark {name!r}": values for name, values in self.benchmarks.items()}
        if self.meta_model is not None:
            models["meta_model"] = self.meta_model
        lacking: dict[tuple[str, ...], list[str]] = {}
        for model, values in models.items():
            there = ~np.isnan(values if scored is None else values[scored])
            has_value = np.bincount(codes[there], minlength=len(names)) > 0
            eras = tuple(era for era, has in zip(names, has_value, strict=True) if not has)
            lacking.setdefault(eras, []).append(model)
        lacking.pop((), None)
        found = [_lacks(models, eras, len(names)) for eras, models in lacking.items()]
        if not found:
            return None
        return f"{'; '.join(found)}: their scores are NaN, and the means are of the other eras"


def _lacks(models: list[str], eras: tuple[str, ...], all_eras: int) -> str:
    shown = models[-1] if len(models) == 1 else f"{models[0]} and {len(models) - 1} more"
    verb = "has" if len(models) == 1 else "have"
    return f"{shown} {verb} no value in {era_span(eras)} of {all_eras:,}"


def _ordered(validation: NumeraiSequence, batch_by: str) -> NumeraiSequence:
    if batch_by == "era":
        return validation.in_whole_eras()
    kept_bytes = validation._selection.memory_bytes
    return validation.in_order(
        most_rows(len(validation.features), validation.memory_budget, kept_bytes)
    )


def target_of(validation: NumeraiSequence, target: Any) -> str:
    """Return the target column that predictions are compared with.

    Raises
    ------
    ValueError
        It is not given, and the sequence has not one target column.
    """
    name = target
    if name is None:
        name = validation.target
        # Numerai scores with the target, whatever the model is trained on.
        name = name.target if is_of(name, Residual) else name
    if not isinstance(name, str) or name not in validation.shards.targets:
        if isinstance(target, str):
            return target  # and is refused as unknown
        raise ValueError(
            f"EraScores: found target={name!r}, expected one column to score with, as in "
            f"EraScores(..., target={validation.shards.targets[0]!r}); of a model with several "
            "outputs choose one with output="
        )
    return name
