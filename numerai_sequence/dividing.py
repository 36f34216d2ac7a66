"""Dividing: find who divides a sequence's batches among processes, besides the sequence itself.

Neither Keras nor TensorFlow is imported: who does not use one of them is not divided by it.
"""

from __future__ import annotations

import sys
from typing import Any


def check_divided_once(world_size: int, model: Any) -> None:
    """Check that rows which processes have divided are not divided again.

    Raises
    ------
    ValueError
        Naming what would do it.
    """
    if world_size == 1:
        return
    found = _dividing_distribution() or _dividing_strategy(model)
    if found:
        name, remedy = found
        raise ValueError(
            f"world_size: found {world_size} under {name}, which divides rows among "
            f"processes itself, so that they would be divided twice; {remedy}"
        )


def _dividing_distribution() -> tuple[str, str] | None:
    """Return the name of Keras 3's distribution where it divides data, and what to do about it."""
    package = getattr(sys.modules.get("keras"), "distribution", None)
    found = package.distribution() if package is not None else None
    # As Keras's own adapters ask; of versions without the option all divide.
    divides = getattr(found, "_is_multi_process", False)
    if not (divides and getattr(found, "auto_shard_dataset", True)):
        return None
    name = type(found).__name__
    return f"keras.distribution.{name}", f"use {name}(..., auto_shard_dataset=False)"


def _dividing_strategy(model: Any) -> tuple[str, str] | None:
    """Return the name of a model's TensorFlow strategy of several processes, and what to do."""
    strategy = getattr(model, "distribute_strategy", None)
    distribute = getattr(sys.modules.get("tensorflow"), "distribute", None)
    for name in ("MultiWorkerMirroredStrategy", "ParameterServerStrategy"):
        if distribute is not None and isinstance(strategy, getattr(distribute, name, ())):
            return f"tf.distribute.{name}", (
                "with tf_keras leave rank and world_size out; with Keras 3 train on JAX, with "
                "keras.distribution.DataParallel(auto_shard_dataset=False)"
            )
    return None
