"""Starting weights: copy the weights of an earlier model into a new one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import FeatureError, NumeraiSequenceError
from ..feeding.model_input import input_like, input_noted
from ..feeding.sequence import NumeraiSequence
from ..predicting.named_models import load_model
from .run_folder import find_run


def start_from(model: Any, path: Path, training: NumeraiSequence) -> None:
    """Copy the weights of an earlier model, trained on the same features, into a model."""
    earlier = load_model(path)
    run = find_run(path)[1]
    known = input_noted(earlier) if run is None else input_like(run)
    features, dtype = known.features, input_like(training).dtype
    if known.dtype not in (None, dtype):
        raise NumeraiSequenceError(
            f"{path}: found a model of {known.dtype}, expected {dtype}, as in this run; use the "
            "same dtype"
        )
    if features is not None and features != training.features:
        raise FeatureError(
            f"{path}: found a model of {len(features):,} features, expected the "
            f"{len(training.features):,} features of this run, in the same order; use the same "
            "features",
            names=(),
        )
    found, expected = ([tuple(w.shape) for w in one.weights] for one in (earlier, model))
    if found != expected:
        raise NumeraiSequenceError(
            f"{path}: found weights of shapes {found[:6]}, expected {expected[:6]}, as in this "
            "network; build the same network"
        )
    model.set_weights(earlier.get_weights())
