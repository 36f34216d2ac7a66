"""Supplied: from the sources of other inputs to the columns of them that each model takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..batching.inputs import Inputs, find_columns, read_inputs
from ..checks import short
from ..errors import FeatureError, naming
from ..reading.join_by_id import several
from ..reading.shard_set import ShardSet
from .ensemble_members import Member

# The source of each input, by its name, and the columns of it; None for all.
Sources = dict[str, tuple[Any, tuple[str, ...] | None]]


def given_inputs(inputs: Any) -> Sources:
    """Return the sources of other inputs, which may be read several times.

    Raises
    ------
    TypeError, ValueError
        They are no mapping, or an input has the name of the features'.
    """
    read = read_inputs(inputs)
    return {name: (several(source), columns) for name, (source, columns) in read.items()}


def with_inputs(
    members: Sequence[Member], sources: Sources, shards: ShardSet | None
) -> list[Member]:
    """Return models with the columns of the inputs that each takes.

    A model that does not remember what it was trained on takes all that are given.

    Parameters
    ----------
    members : sequence of Member
    sources : dict
        From `given_inputs`.
    shards : ShardSet, optional
        Whose columns may be inputs.

    Raises
    ------
    FeatureError
        An input that a model takes has no source, or a source is for no model.
    """
    taken = [_with_inputs(member, sources, shards) for member in members]
    for name in sources:
        if not any(name in member.inputs for member in taken):
            raise FeatureError(
                f"inputs: found {name!r}, which the model was not trained with, expected "
                f"{short(sorted({one for member in taken for one in member.inputs})) or 'none'}; "
                "leave it out",
                names=(name,),
            )
    return taken


def _with_inputs(member: Member, sources: Sources, shards: ShardSet | None) -> Member:
    known = member.known
    if known.inputs is None and known.features is None:
        given = {name: one if one[1] else one[0] for name, one in sources.items()}
        found: Inputs = find_columns(given, shards)
    else:
        found = known.inputs or {}
    with naming(member.name):
        _check_given(found, sources)
    inputs = found or None
    asked = replace(member.asked, inputs=inputs)
    return replace(member, known=replace(known, inputs=inputs), asked=asked)


def _check_given(inputs: Inputs, sources: Sources) -> None:
    for name, columns in inputs.items():
        if name not in sources:
            raise FeatureError(
                f"model: takes the input {name!r}, of the columns {short(list(columns))}, which is "
                f"not given; give a source of them for these rows, such as inputs={{{name!r}: "
                "'live_benchmark_models.parquet'}",
                names=columns,
            )
        lacking = [one for one in columns if one not in (sources[name][1] or columns)]
        if lacking:
            raise FeatureError(
                f"inputs[{name!r}]: column {lacking[0]!r} is missing, which the model takes; leave "
                "the columns out, and it takes those that it was trained on",
                names=lacking,
            )
