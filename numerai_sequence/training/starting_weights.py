"""Starting weights: from the model of an earlier run to the weights of a new one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import FeatureError, NumeraiSequenceError
from ..feeding.model_input import input_like, input_noted
from ..feeding.sequence import NumeraiSequence
from ..predicting.named_models import load_model
from .run_folder import find_run


def start_from(model: Any, path: Path, training: NumeraiSequence) -> None:
    """Give a model the weights of another one that was trained on the same features."""
    earlier = load_model(path)
    run = find_run(path)[1]
    known = input_noted(earlier) if run is None else input_like(run)
    features, dtype = known.features, input_like(training).dtype
    if known.dtype not in (None, dtype):
        raise NumeraiSequenceError(
            f"{path}: was trained on {known.dtype}, and this run is on {dtype}; use the same dtype"
        )
    if features is not None and features != training.features:
        raise FeatureError(
            f"{path}: was trained on {len(features):,} features, and this run has "
            f"{len(training.features):,}, or others; name the same features",
            names=(),
        )
    found, expected = ([tuple(w.shape) for w in one.weights] for one in (earlier, model))
    if found != expected:
        raise NumeraiSequenceError(
            f"{path}: has weights of the shapes {found[:6]}, and this network {expected[:6]}; "
            "build the same network"
        )
    model.set_weights(earlier.get_weights())
