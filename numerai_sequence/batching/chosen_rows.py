"""Chosen rows: select the rows of a sequence, and add columns that the shard set does not have."""

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
    "leave them out with missing_target='drop', give them weight 0 with missing_target='mask', or "
    "choose other eras with eras="
)
_DONE = {"drop": "are left out", "mask": "have weight 0"}


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
    """Return the selected rows, and the columns of the model's other inputs.

    Residuals and these columns are added to the columns of the selection.

    Parameters
    ----------
    shards, eras, data_type
        See `Selection`.
    targets : sequence of str
        Columns of y, including residuals.
    residuals : mapping of str to Residual
        Residuals by column.
    missing : {"error", "drop", "mask", "keep"}
        ``missing_target`` of `NumeraiSequence`. "keep" does nothing about rows without a target.
    inputs : mapping, optional
        See `NumeraiSequence`.

    Raises
    ------
    EraError
        With "error", rows have no target, or a target but no benchmark value. With any choice,
        selected rows have no value in a column of an input.

    Warns
    -----
    UserWarning
        With "drop" and "mask", rows have a target but no benchmark value.
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
    """Raise an error, or warn, if rows have a target but no benchmark value."""
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
        remedy = "choose eras of the benchmark with eras=, leave these rows out with "
        remedy += "missing_target='drop', or give them weight 0 with missing_target='mask'"
        raise EraError(f"{found}; {remedy}", eras=eras)
    # The warning points to the call of `NumeraiSequence`.
    warnings.warn(f"{found}, which {_DONE[missing]}", stacklevel=5)
