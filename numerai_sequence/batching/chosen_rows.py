"""Rows: choose the rows that take part, and add the columns of them that the set does not have."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..errors import EraError
from ..reading.selection import Selection
from ..reading.shard_set import ShardSet
from .inputs import Inputs, check_inputs_complete, input_columns
from .residual import Residual, residual_column
from .targets import check_complete, shown_eras

_REMEDY = (
    "leave them out with missing_target='drop', give them no weight with missing_target='mask', or "
    "choose other eras"
)
_DONE = {"drop": "are left out", "mask": "have no weight"}


def choose_rows(
    shards: ShardSet,
    eras: Any,
    data_type: str | Iterable[str] | None,
    *,
    targets: Sequence[str],
    residuals: Mapping[str, Residual],
    missing: str,
    inputs: Any = None,
) -> tuple[Selection, Inputs]:
    """Return a selection of the rows that take part, and the columns of the model's other inputs.

    Residuals and these columns are added columns of the selection.

    Parameters
    ----------
    shards, eras, data_type
        As of `Selection`.
    targets : sequence of str
        The columns of y, with those of residuals.
    residuals : mapping of str to Residual
        By column.
    missing : {"error", "drop", "mask", "keep"}
        As ``missing_target`` of `NumeraiSequence`; "keep" rows without a target as they are.
    inputs : mapping, optional
        As of `NumeraiSequence`.

    Raises
    ------
    EraError
        With "error": rows lack a target, or have one and no value of its benchmark. Or rows that
        take part lack a value of an input.

    Warns
    -----
    UserWarning
        With "drop" and "mask": rows have a target and no value of its benchmark.
    """
    complete = tuple(targets) if missing == "drop" else ()
    adds = bool(residuals or inputs)
    selection = Selection(shards, eras, data_type, () if adds else complete)
    if missing == "error":
        stored = [residuals[name].target if name in residuals else name for name in targets]
        check_complete(selection, tuple(dict.fromkeys(stored)), _REMEDY)
    if not adds:
        return selection, {}
    columns, added = input_columns(inputs, selection)
    added |= {name: residual_column(one, selection) for name, one in residuals.items()}
    whole = selection.with_added(added)
    if missing != "keep":
        for name, residual in residuals.items():
            _check_benchmark(whole, name, residual, missing)
    found = Selection(shards, eras, data_type, complete, whole.added) if complete else whole
    check_inputs_complete(found, columns)
    return found, columns


def _check_benchmark(selection: Selection, name: str, residual: Residual, missing: str) -> None:
    """Raise an error, or warn, where rows have a target and no value of its benchmark."""
    unresolved = selection.missing(residual.target)
    counts = {era: n - unresolved.get(era, 0) for era, n in selection.missing(name).items()}
    eras = [era for era, n in counts.items() if n]
    if not eras:
        return
    found = (
        f"{selection.shards.folder}: {name}: the benchmark has no value in "
        f"{sum(counts.values()):,} of {selection.rows:,} rows that have {residual.target!r} "
        f"({shown_eras(eras)})"
    )
    if missing == "error":
        remedy = "choose eras that it has with eras=, or leave these rows out with "
        remedy += "missing_target='drop', or give them no weight with missing_target='mask'"
        raise EraError(f"{found}; {remedy}", eras=eras)
    # To the caller of `NumeraiSequence`.
    warnings.warn(f"{found}, which {_DONE[missing]}", stacklevel=5)
