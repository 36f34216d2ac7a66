"""Scored rows: from a validation sequence to its rows' eras, target and other models' values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..errors import check_known
from ..feeding.sequence import NumeraiSequence
from .forward import most_rows

if TYPE_CHECKING:
    import pandas as pd

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
    meta_model : str, pandas.Series or None
    benchmarks : mapping of str to str or pandas.Series
        Other models by name: columns of the set, or values indexed by id.

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
        meta_model: str | pd.Series | None,
        benchmarks: Mapping[str, str | pd.Series],
    ) -> None:
        self.sequence = _ordered(validation, batch_by)
        self.eras = self.sequence.column("era")
        self.target = self._column("target", target)
        others = {} if meta_model is None else {"meta_model": meta_model}
        self.meta_model = self._aligned("meta_model", others).get("meta_model")
        self.benchmarks = self._aligned("benchmarks", benchmarks)

    def _column(self, option: str, name: str) -> Values:
        shards = self.sequence.shards
        check_known(f"{option} column", (name,), shards.targets, str(shards.folder))
        column: Values = self.sequence.column(name).to_numpy()
        return column

    def _aligned(
        self, option: str, models: Mapping[str, str | pd.Series]
    ) -> dict[str, npt.NDArray[np.float32]]:
        """Return other models' values of the rows, NaN where they have none."""
        is_given = any(not isinstance(model, str) for model in models.values())
        ids = self.sequence.column("id").to_pandas() if is_given else None
        return {
            name: self._column(option, model)
            if isinstance(model, str)
            else _values_of(name, model, ids)
            for name, model in models.items()
        }


def _ordered(validation: NumeraiSequence, batch_by: str) -> NumeraiSequence:
    if batch_by == "era":
        return validation.in_whole_eras()
    kept_bytes = validation._selection.memory_bytes
    return validation.in_order(
        most_rows(len(validation.features), validation.memory_budget, kept_bytes)
    )


def _values_of(name: str, model: pd.Series, ids: pd.Series) -> Values:
    values: Values = model.reindex(ids).to_numpy(np.float32)
    if np.isnan(values).all():
        raise ValueError(
            f"{model.name or name!r}: has a value for none of {len(ids):,} validation rows, such "
            f"as {ids.iloc[0]!r}; expected a Series or frame that is indexed by id"
        )
    return values


def named_models(benchmarks: Any) -> dict[str, Any]:
    """Return what is given as other models by name: one column, some, or a frame of them."""
    if benchmarks is None:
        return {}
    if isinstance(benchmarks, str):
        return {benchmarks: benchmarks}
    if hasattr(benchmarks, "items"):  # a frame, or a dict of columns
        return dict(benchmarks.items())
    if not isinstance(benchmarks, Iterable):
        raise TypeError(
            f"benchmarks: found {benchmarks!r}, expected a column, a list of them, or a frame "
            "that is indexed by id"
        )
    return {name: name for name in benchmarks}


def target_of(validation: NumeraiSequence, target: Any) -> str:
    """Return the target column that predictions are compared with.

    Raises
    ------
    ValueError
        It is not given, and the sequence has not one target column.
    """
    name = validation.target if target is None else target
    if not isinstance(name, str) or name not in validation.shards.targets:
        if isinstance(target, str):
            return target  # and is refused as unknown
        raise ValueError(
            f"target: found {name!r}, expected the name of the target column to score with, "
            "target='target'"
        )
    return name
