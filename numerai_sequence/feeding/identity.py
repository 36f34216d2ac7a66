"""Identity: turn a sequence into what its batches depend on, which two sequences have to share."""

from __future__ import annotations

import hashlib
import inspect
from typing import Any

from ..batching.passes import Place
from ..checks import digest
from .sequence import NumeraiSequence

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
    """Return what the batches of an epoch depend on, besides its number.

    What is long is a SHA-256. Sample weights that are a function are not in it.
    """
    weight = sequence.sample_weight
    return {
        "set": sequence.shards.fingerprint,
        "rows": sequence._selection.digest(),
        "features": digest(sequence.features),
        "target": digest(sequence._outputs),
        "sample_weight": None if callable(weight) else digest(weight),
        **{name: getattr(sequence, name) for name in _ARGUMENTS},
    }


def with_defaults(found: dict[str, Any]) -> dict[str, Any]:
    """Return an identity that may be older than an argument, with the argument's default."""
    parameters = inspect.signature(NumeraiSequence.__init__).parameters
    return {**{name: parameters[name].default for name in _ARGUMENTS}, **found}


def order_digest(sequence: NumeraiSequence, place: Place) -> str:
    """Return the SHA-256 of the rows of a batch, whose epoch is counted as of the sequence."""
    rows = sequence._readers.orders(place.epoch).batch(place.batch)
    return hashlib.sha256(rows.tobytes()).hexdigest()
