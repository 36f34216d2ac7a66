"""User network: check a user's model, and compute a digest of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..checks import digest
from ..resuming.model_architecture import describe_compiled, describe_model


def checked_network(model: Any, features: int) -> Any:
    """Return a user's model, built if it was not yet."""
    if not hasattr(model, "fit") or getattr(model, "optimizer", None) is None:
        raise TypeError(
            f"build_model: found {type(model).__name__}, expected a compiled Keras model: call "
            "model.compile(optimizer, loss), and return the model"
        )
    if not model.built:
        model(np.zeros((1, features), np.float32))
    return model


def network_digest(model: Any) -> str:
    """Return a digest of a network: its layers, loss and optimizer."""
    return digest([describe_model(model), describe_compiled(model)])[:16]
