"""Run identity: JSON of a sequence, a model and a call of ``fit``, the same for a resumed run."""

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

# The arguments that determine the order and the batches.
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
    """Return all that determines the batches of an epoch, except its number, as JSON values.

    Sample weights from a function are described by its name and code; see `json_descriptions`.
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
    """Return all that determines a training, except the layers, which may not exist yet.

    Parameters
    ----------
    sequence : NumeraiSequence
    model
        A compiled model of any Keras.
    arguments : mapping
        Arguments of ``fit``, by name.
    """
    permutes = None if sequence.shuffle else bool(arguments.get("shuffle", True))
    fit = {"shuffle": permutes, "class_weight": described(arguments.get("class_weight"))}
    return {**identity(sequence), **describe_compiled(model), "fit": fit}


def with_defaults(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return an identity with the defaults of arguments that are newer than it."""
    parameters = inspect.signature(NumeraiSequence.__init__).parameters
    defaults = {name: described(parameters[name].default) for name in ("inputs", *_ARGUMENTS)}
    return {**defaults, **found}


def _describe_target(sequence: NumeraiSequence) -> Any:
    """Return the names of targets, and the values of a residual in place of its source."""
    residuals = {
        name: {"residual of": one.target, "values": _digest_column(sequence, name)}
        for name, one in sequence._residuals.items()
    }
    return described(given_target(sequence._outputs, residuals))


def _describe_inputs(sequence: NumeraiSequence) -> Any:
    """Return the columns of other inputs with digests of their values; None without inputs."""
    found = {
        name: {column: _digest_column(sequence, column_key(name, column)) for column in columns}
        for name, columns in sequence.inputs.items()
    }
    return found or None


def _digest_column(sequence: NumeraiSequence, name: str) -> str:
    """Return the SHA-256 of a column of the selected rows."""
    return hashlib.sha256(sequence.column(name).to_numpy().tobytes()).hexdigest()


def describe_weights(weights: Weights | None) -> Any:
    """Describe sample weights: a column's name, ``{"eras": {...}}``, or a function."""
    given = weights.given() if weights else None
    return {"eras": described(given)} if isinstance(given, Mapping) else described(given)


def _class_of(sequence: NumeraiSequence) -> str | None:
    """Return the name of a sequence's class if it makes its own batches, otherwise None."""
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
    """Return the SHA-256 of the rows of a batch; its epoch is the sequence's count."""
    rows = sequence._plan.order(place.epoch).batch(place.batch)
    return hashlib.sha256(rows.tobytes()).hexdigest()
