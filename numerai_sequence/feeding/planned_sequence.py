"""Planned sequence: the rows, targets and weights of a sequence, and the plan to read them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from ..batching.chosen_rows import choose_rows
from ..batching.epoch import Epoch
from ..batching.inputs import Inputs, keys_of
from ..batching.read_plan import ReadPlan
from ..batching.targets import (
    Outputs,
    Residuals,
    SampleWeight,
    Target,
    Targets,
    given_target,
    read_weights,
    read_weights_by_era,
    stored_names,
    target_names,
)
from ..format.encoding import PACKED, Decoder
from ..format.encodings import ENCODINGS
from ..format.layout import FEATURES
from ..ordering.batch_units import BATCH_BY
from ..ordering.distributed_ranks import Share
from ..reading.selection import Selection
from ..reading.shard_set import ShardSet
from .fit_call import is_fed
from .sequence_arguments import Arguments

# Batches held besides those in Keras's queue: by workers, prefetched by TensorFlow, in use.
_BUFFERS_BESIDES = 16


class PlannedSequence(Arguments):
    """A sequence with its rows, targets, weights and plan, but without batches.

    Pickling keeps its arguments and decisions. The rest belongs to one process and is made again.
    """

    workers: int
    use_multiprocessing: bool
    max_queue_size: int
    epoch: int

    _outputs: Outputs
    _residuals: Residuals
    _inputs: Inputs
    _selection: Selection
    _decode: Decoder
    _plan: ReadPlan
    # The epoch of ``sequence[i]``, after its first use.
    _present: Epoch | None = None
    # The rows on the device, after an `Unpack` layer has copied them there.
    _device_rows: Any = None
    _first_device_row: int | None = None

    @property
    def feature_numbers(self) -> npt.NDArray[np.int64] | None:
        """Numbers of the features in the set. None for all features in the order of the set."""
        known = self.shards.features
        if self.features == known:
            return None
        number_of = {name: number for number, name in enumerate(known)}
        return np.array([number_of[name] for name in self.features], np.int64)

    def _make_decoder(self) -> Decoder:
        features = len(self.shards.features)
        encoding = ENCODINGS[self.shards.encoding]
        return encoding.decoder(features, columns=self.feature_numbers, dtype=self.dtype)

    def _select(
        self, shards: ShardSet, eras: Any, data_type: Any, inputs: Any, missing: str | None = None
    ) -> None:
        self._selection, self._inputs = choose_rows(
            shards,
            eras,
            data_type,
            targets=target_names(self._outputs),
            residuals=self._residuals,
            missing=missing or self.missing_target,
            inputs=inputs,
        )

    @property
    def _row_bytes(self) -> int:
        """Bytes of x for one row."""
        row: npt.NDArray[Any] = self.zeros(1, with_inputs=False)
        return row.nbytes

    def zeros(self, rows: int, *, with_inputs: bool = True) -> Any:
        """Return x of zeros for `rows` rows, in the form that ``fit`` gets."""
        decode = self._decode
        x = (
            np.zeros(rows, np.int32)
            if self.resident
            else np.zeros((rows, decode.width), decode.array_dtype)
        )
        if not (self._inputs and with_inputs):
            return x
        others = {n: np.zeros((rows, len(one)), np.float32) for n, one in self._inputs.items()}
        return {FEATURES: x, **others}

    @property
    def eras(self) -> tuple[str, ...]:
        return self._selection.eras

    @property
    def rows(self) -> int:
        return self._selection.rows

    @property
    def sample_weight(self) -> SampleWeight:
        weight = self._sample_weight
        # Read-only, because a change would affect copies of the sequence, but not the sequence.
        return MappingProxyType(weight) if isinstance(weight, dict) else weight

    @sample_weight.setter
    def sample_weight(self, sample_weight: SampleWeight) -> None:
        weights = read_weights(sample_weight, self._selection)
        if weights and not self._outputs:
            raise ValueError(
                "sample_weight: found it without a target, expected None; give target=, or leave "
                "sample_weight out"
            )
        had_weights = getattr(self, "_sample_weight", sample_weight) is not None
        if had_weights is (weights is None) and self.missing_target != "mask" and is_fed(self):
            raise ValueError(
                "sample_weight: found a change from or to None during fit, expected weights from "
                "the beginning, because Keras already knows the form of a batch; begin with "
                "weights of 1"
            )
        by_era = read_weights_by_era(sample_weight)
        self._sample_weight = sample_weight if by_era is None else by_era
        self._targets = Targets(
            self._outputs,
            weights,
            masks=self.missing_target == "mask",
            added=self._selection.added,
            inputs=keys_of(self._inputs),
        )
        self._present = None

    @property
    def target(self) -> Target:
        target: Target = given_target(self._outputs, self._residuals)
        return target

    @property
    def inputs(self) -> dict[str, tuple[str, ...]]:
        return dict(self._inputs)

    @property
    def all_eras(self) -> tuple[str, ...]:
        """All eras of the set in order of time, selected or not."""
        return self._selection.all_eras

    @property
    def era_codes(self) -> npt.NDArray[np.integer[Any]]:
        """Place of each row's era in `all_eras`, in the order of `column`."""
        return self._selection.era_codes

    @property
    def target_columns(self) -> tuple[str, ...]:
        """Target columns of the set from which y is made."""
        return stored_names(self._outputs, self._residuals, self.shards)

    def _feed_floats(self) -> None:
        if self.dtype == PACKED:
            self._keep(dtype="float32", resident=False)
            self._decode = self._make_decoder()

    def _hold(self, rows: Any, first: int) -> None:
        """Set the rows on the device, and the number of the sequence's first row there."""
        self._device_rows, self._first_device_row = rows, first

    def _prepare(self, paging: str, run_rows: int | None) -> None:
        """Plan how the batches are read."""
        batching = BATCH_BY[self.batch_by]
        share = Share(
            batching.units(self._selection),
            self.batch_size,
            rank=self.rank,
            world_size=self.world_size,
            drop_remainder=self.drop_remainder,
            unit=batching.unit,
        )
        if self.rows and not share.steps:
            raise ValueError(self._no_batch())
        rows = batching.most_rows(self._selection, self.batch_size)
        self._plan = ReadPlan(
            self._selection,
            share,
            memory_budget=self.memory_budget,
            paging=paging,
            batch_rows=rows,
            batch_bytes=min(rows, max(1, self.rows)) * self._row_bytes,
            batching=batching,
            seed=self.seed if self.shuffle else None,
            run_rows=run_rows,
            columns=self._targets.columns,
            buffers=self.max_queue_size + _BUFFERS_BESIDES,
            reads_features=not self.resident,
        )
        self._keep(paging=self._plan.paging, paging_reason=self._plan.reason)
        self._keep(run_rows=self._plan.run_rows)
        self._present = None

    def _no_batch(self) -> str:
        batching = BATCH_BY[self.batch_by]
        found, unit = batching.units(self._selection), batching.unit
        return (
            f"drop_remainder: found {found:,} {unit}, fewer than batch_size={self.batch_size:,}, "
            "so no batch remains; use a smaller batch_size, or leave drop_remainder out"
        )

    def __getstate__(self) -> dict[str, Any]:
        made = "_present", "_targets", "_device_rows"
        return {name: value for name, value in self.__dict__.items() if name not in made}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.sample_weight = self._sample_weight

    @property
    def _fed_as(self) -> str:
        return f"numbers of {self.dtype} rows" if self.resident else self.dtype


def check_packed(dtype: str, resident: bool, outputs: Mapping[Any, Any]) -> None:
    """Raise a `ValueError` if other arguments do not fit packed rows."""
    if resident and dtype != PACKED:
        raise ValueError(
            f"resident: found dtype={dtype!r}, expected dtype='packed', because the device holds "
            "packed rows, which an Unpack layer turns into floats"
        )
    if dtype == PACKED and FEATURES in outputs.values():
        raise ValueError(
            "dtype: found 'packed' with target='features', expected 'float32', because y would be "
            "packed bytes"
        )
