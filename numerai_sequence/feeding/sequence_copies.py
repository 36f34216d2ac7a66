"""Sequence copies: copies of a sequence with another order, or with other rows."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ..batching.inputs import check_inputs_complete
from ..checks import whole_number
from ..errors import check_known
from ..format.encoding import PACKED
from ..format.feature_sets import resolve_features
from ..reading.memory_budget import check_budget
from ..reading.selection import Selection
from ..reading.shard_set import ShardSet
from .planned_sequence import PlannedSequence

_SEQUENCE = f"{__package__}.sequence"

Kind = TypeVar("Kind", bound="SequenceCopies")


class SequenceCopies(PlannedSequence):
    """A sequence that makes copies of itself, of the same class, for predictions and scores."""

    @property
    def made_by(self) -> str | None:
        """Name of the class if it has its own ``__getitem__``; None for `NumeraiSequence`."""
        owner = next(kind for kind in type(self).__mro__ if "__getitem__" in vars(kind))
        is_ours = (owner.__module__, owner.__qualname__) == (_SEQUENCE, "NumeraiSequence")
        return None if is_ours else type(self).__name__

    def in_order(self: Kind, batch_size: int) -> Kind:
        """Return a sequence of the same rows, of all ranks, in the order of the files, without y.

        A class with its own ``__getitem__``, which may need y, keeps y.
        """
        return self._unshuffled("rows", whole_number("batch_size", batch_size, least=1))

    def in_whole_eras(self: Kind) -> Kind:
        """Return a sequence of the same eras in order of time, with one era in each batch.

        It has all rows of the selected data types, also rows without a target. See `in_order`.
        """
        selection = self._selection.whole_eras()
        check_inputs_complete(selection, self._inputs)
        return self._unshuffled("era", 1, selection)

    def over(
        self: Kind,
        shards: ShardSet,
        *,
        batch_by: str,
        batch_size: int,
        eras: Any = None,
        data_type: str | Iterable[str] | None = None,
        inputs: Mapping[str, Any] | None = None,
        memory_budget: int | str = "auto",
    ) -> Kind:
        """Return a sequence of another set's rows, of the same class and features.

        It keeps rows without a target. If this sequence has weights, its weights are 1. `inputs`
        are the sources of the model's other inputs, with the same columns. See `in_order`.

        Raises
        ------
        FeatureError
            The set lacks a feature, or a target of y, which the class may need.
        """
        other = copy.copy(self)
        where = str(shards.folder)
        resolve_features(self.features, shards.manifest, where)
        check_known(
            f"target of {self.made_by}, which may use y,",
            self.target_columns,
            shards.targets,
            where,
        )
        other._keep(shards=shards, memory_budget=check_budget(memory_budget), paging="auto")
        other._feed_floats()
        other._decode = other._make_decoder()
        other._select(shards, eras, data_type, inputs, "keep")
        if self._sample_weight is not None:
            other._sample_weight = None
            other.sample_weight = _equal_weights
        return other._unshuffled(batch_by, batch_size, other._selection)

    def in_floats(self: Kind) -> Kind:
        """Return a sequence of the same batches, with floats in place of packed rows."""
        if self.dtype != PACKED:
            return self
        other = copy.copy(self)
        other._feed_floats()
        other._prepare(self.paging, self.run_rows)
        return other

    def _unshuffled(
        self: Kind, batch_by: str, batch_size: int, selection: Selection | None = None
    ) -> Kind:
        other = copy.copy(self)
        if selection is not None and self.resident:  # the rows are not those on the device
            other._feed_floats()
        other._selection = selection or self._selection
        if self.made_by is None:
            other._outputs, other.sample_weight = {}, None
        other._keep(batch_by=batch_by, batch_size=batch_size, shuffle=False)
        other._keep(drop_remainder=False, rank=0, world_size=1)
        other._prepare(self.paging, 1)
        return other


def _equal_weights(eras: npt.NDArray[Any], y: Any) -> npt.NDArray[np.float32]:
    return np.ones(len(eras), np.float32)
