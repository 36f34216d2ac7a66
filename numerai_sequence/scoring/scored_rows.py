"""Scored rows: the eras, targets and other models' values of the rows to score."""

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
    """The rows to score, in the order of the files, with their eras, target and other models.

    Parameters
    ----------
    validation : NumeraiSequence
    batch_by : {"rows", "era"}
        Batches for predicting: 32 MB of rows, or one era.
    target : str
        Target column.
    meta_model, benchmarks
        Other models. See `read_benchmarks`.

    Attributes
    ----------
    sequence : NumeraiSequence
    eras : pyarrow array of str
    target, meta_model : float32 array, shape (rows,), or None
    benchmarks : dict of str to float32 array
        Values of other models by name. NaN marks missing values.
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
        """Return a warning that names other models and the eras without their values.

        Return None if no such era exists.

        Parameters
        ----------
        scored : bool array, shape (rows,), optional
            Whether each row has a prediction; None if all have one.
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
        return f"{'; '.join(found)}: the scores there are NaN, and the means leave them out"


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
    """Return the target column to score with.

    Raises
    ------
    ValueError
        `target` is None, and the sequence does not have exactly one target column.
    """
    name = target
    if name is None:
        name = validation.target
        # Numerai scores with the target, whatever the model is trained on.
        name = name.target if is_of(name, Residual) else name
    if not isinstance(name, str) or name not in validation.shards.targets:
        if isinstance(target, str):
            return target  # refused later as unknown
        raise ValueError(
            f"EraScores: found target={name!r}, expected one column to score with, such as "
            f"EraScores(..., target={validation.shards.targets[0]!r}); if the model has several "
            "outputs, choose one with output="
        )
    return name
