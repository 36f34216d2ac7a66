"""Identity: turn a sequence, a model and a call of ``fit`` into JSON that two runs must share."""

from __future__ import annotations

import hashlib
import inspect
import itertools
from collections.abc import Mapping
from typing import Any

from ..batching.epoch import Position
from ..batching.inputs import column_key
from ..batching.targets import Weights, given_target
from ..feeding.sequence import NumeraiSequence
from .json_descriptions import described, type_name
from .model_architecture import describe_compiled

# The arguments that make an order, and the batches of it.
_ARGUMENTS = (
    "batch_by",
    "batch_size",
    "drop_remainder",
    "dtype",
    "missing_target",
    "run_rows",
    "seed",
    "shuffle",
    "world_size",
)


def identity(sequence: NumeraiSequence) -> dict[str, Any]:
    """Return what the batches of an epoch depend on, besides its number, as JSON values.

    Sample weights that are a function are known by its name and code; see `descriptions`.
    """
    return {
        "class": _class_of(sequence),
        "set": _describe_set(sequence),
        "rows": _describe_rows(sequence),
        "features": described(sequence.features),
        "target": _describe_target(sequence),
        "inputs": _describe_inputs(sequence),
        "sample_weight": describe_weights(sequence._targets.weights),
        **{name: described(getattr(sequence, name)) for name in _ARGUMENTS},
    }


def run_identity(
    sequence: NumeraiSequence, model: Any, arguments: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what a training depends on, besides the layers, which a model may not have yet.

    Parameters
    ----------
    sequence : NumeraiSequence
    model
        Compiled, of any Keras.
    arguments : mapping
        Of ``fit``, by name.
    """
    permutes = None if sequence.shuffle else bool(arguments.get("shuffle", True))
    fit = {"shuffle": permutes, "class_weight": described(arguments.get("class_weight"))}
    return {**identity(sequence), **describe_compiled(model), "fit": fit}


def with_defaults(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return an identity that may be older than an argument, with the argument's default."""
    parameters = inspect.signature(NumeraiSequence.__init__).parameters
    defaults = {name: described(parameters[name].default) for name in ("inputs", *_ARGUMENTS)}
    return {**defaults, **found}


def _describe_target(sequence: NumeraiSequence) -> Any:
    """Return the names of targets; a residual is known by its values, wherever these are from."""
    residuals = {
        name: {"residual of": one.target, "values": _digest_column(sequence, name)}
        for name, one in sequence._residuals.items()
    }
    return described(given_target(sequence._outputs, residuals))


def _describe_inputs(sequence: NumeraiSequence) -> Any:
    """Return the columns of other inputs with their values; None where there are none."""
    found = {
        name: {column: _digest_column(sequence, column_key(name, column)) for column in columns}
        for name, columns in sequence.inputs.items()
    }
    return found or None


def _digest_column(sequence: NumeraiSequence, name: str) -> str:
    """Return the SHA-256 of a column of the rows that take part."""
    return hashlib.sha256(sequence.column(name).to_numpy().tobytes()).hexdigest()


def describe_weights(weights: Weights | None) -> Any:
    """Return what makes sample weights: a column's name, ``{"eras": {...}}``, or a function."""
    given = weights.given() if weights else None
    return {"eras": described(given)} if isinstance(given, Mapping) else described(given)


def _class_of(sequence: NumeraiSequence) -> str | None:
    """Return the name of a class that makes batches of its own; None if it does not."""
    return type_name(sequence) if sequence.made_by else None


def _describe_set(sequence: NumeraiSequence) -> str:
    shards = sequence.shards
    content = f"{shards.rows:,} rows of {len(sequence.all_eras):,} eras"
    return f"{content}, {len(shards.features):,} features, SHA-256 {shards.fingerprint}"


def _describe_rows(sequence: NumeraiSequence) -> str:
    spans = ", ".join(_spans(sequence.eras, sequence.all_eras))
    return f"{sequence.rows:,} rows of {spans}, SHA-256 {sequence._selection.digest()}"


def _spans(eras: tuple[str, ...], all_eras: tuple[str, ...]) -> list[str]:
    """Return neighbouring eras as ``first-last``, in the order of time."""
    spans: list[list[str]] = []
    next_era = dict(itertools.pairwise(all_eras))
    for era in eras:
        if spans and next_era.get(spans[-1][-1]) == era:
            spans[-1][1:] = [era]
        else:
            spans.append([era])
    return ["-".join(span) for span in spans]


def order_digest(sequence: NumeraiSequence, place: Position) -> str:
    """Return the SHA-256 of the rows of a batch, whose epoch is counted as of the sequence."""
    rows = sequence._plan.order(place.epoch).batch(place.batch)
    return hashlib.sha256(rows.tobytes()).hexdigest()
