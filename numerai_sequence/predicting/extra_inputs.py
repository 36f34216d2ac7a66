"""Extra inputs: the columns that each model takes from the sources of other inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..batching.inputs import Inputs, find_columns, read_inputs
from ..checks import short
from ..errors import FeatureError, naming
from ..reading.join_by_id import several
from ..reading.shard_set import ShardSet
from .batch_members import Member

# For each input, by its name: its source, and its columns, or None for all.
Sources = dict[str, tuple[Any, tuple[str, ...] | None]]


def given_inputs(inputs: Any) -> Sources:
    """Return the sources of other inputs, in a form that can be read several times.

    Raises
    ------
    TypeError, ValueError
        `inputs` is not a mapping, or an input has the name of the features' input.
    """
    read = read_inputs(inputs)
    return {name: (several(source), columns) for name, (source, columns) in read.items()}


def with_inputs(
    members: Sequence[Member], sources: Sources, shards: ShardSet | None
) -> list[Member]:
    """Return models with the columns of the inputs that each of them takes.

    A model that does not remember its training input takes all inputs.

    Parameters
    ----------
    members : sequence of Member
    sources : dict
        From `given_inputs`.
    shards : ShardSet, optional
        Shard set whose columns may be inputs.

    Raises
    ------
    FeatureError
        An input of a model has no source, or a source is for no model.
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
                f"model: found no source for its input {name!r} with the columns "
                f"{short(list(columns))}; give one for these rows, such as inputs={{{name!r}: "
                "'live_benchmark_models.parquet'}",
                names=columns,
            )
        lacking = [one for one in columns if one not in (sources[name][1] or columns)]
        if lacking:
            raise FeatureError(
                f"inputs[{name!r}]: column {lacking[0]!r}, which the model takes, is missing; add "
                "it, or give only the source, and the model takes the columns of its training",
                names=lacking,
            )
