"""Model features: a model's input, from its training and from the user's choice."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..checks import one_of
from ..feeding.model_input import (
    ModelInput,
    check_scale,
    default_dtype,
    input_like,
    input_noted,
    joined,
)
from ..format.encoding import DTYPES
from ..ordering.batch_units import PREDICT_BY
from ..scoring.forward_pass import mixes_rows
from ..scoring.model_outputs import (
    MAKER,
    check_made,
    check_takes,
    depends_on_batch,
    random_rows,
)


def known_input(model: Any, like: Any) -> ModelInput:
    """Return the input that a model was trained on: what it remembers, joined with `like`.

    Raises
    ------
    FeatureError
        The model and `like` differ.
    TypeError
        `like` is neither a sequence nor a run.
    """
    return joined(input_noted(model), input_like(like), "like")


def settle_input(
    model: Any,
    known: ModelInput,
    asked: ModelInput,
    where: str,
    *,
    remedy: str,
    batch_size: int | None = None,
    is_told: bool = True,
    maker: Any = None,
    made_remedy: str = MAKER,
) -> ModelInput:
    """Return the complete input of a model.

    Parameters
    ----------
    model : Keras model
    known : ModelInput
        The training input, from `known_input`.
    asked : ModelInput
        The input that the user chose, with the features of the data.
    where : str
        Name of the data, for errors.
    remedy : str
        Remedy if the model takes another number of features.
    batch_size : int, optional
        Rows of a batch, if the user chose them.
    is_told : bool
        Whether the features that the model was trained on are known.
    maker : NumeraiSequence, optional
        A sequence of the data, of the user's own class, which makes the batches.
    made_remedy : str
        Remedy if the model does not take one array of rows.

    Raises
    ------
    FeatureError, ValueError
        The model was trained on another input, or takes another one.

    Warns
    -----
    UserWarning
        The model was trained on batches of the user's own class, or its training input is not
        known.
    """
    for name, value, words in (
        ("dtype", asked.dtype, DTYPES),
        ("batch_by", asked.batch_by, PREDICT_BY),
    ):
        if value is not None:
            one_of(name, value, words)
    fed = joined(known, asked, where)
    guessed = [] if is_told else [f"all {len(fed.features or ()):,} features of the data"]
    if fed.dtype is None:
        fed = replace(fed, dtype=default_dtype(model))
        guessed += [] if fed.dtype == "int8" else [f"{fed.dtype} of 0 to 1"]
    check_scale(model, fed.dtype, where)
    if maker is None:
        check_takes(
            model,
            len(fed.features or ()),
            fed.inputs or {},
            where,
            remedy=remedy,
            flat_remedy=made_remedy,
        )
        _warn(fed, guessed, where)
        if fed.made_by is not None:
            width = len(fed.features or ())
            check_made(model, fed.made_by, width, str(fed.dtype), made_remedy)
    return replace(fed, batch_by=_batch_by(model, fed, asked, batch_size, maker))


def _warn(fed: ModelInput, guessed: Sequence[str], where: str) -> None:
    if fed.made_by is not None:
        warnings.warn(
            f"{where}: the model was trained on batches of {fed.made_by}.__getitem__, but now gets "
            "batches of NumeraiSequence; if their x differs, make that change in the model",
            stacklevel=callers_level(),
        )
    if guessed:
        warnings.warn(
            f"{where}: the model does not remember its training input, so it gets "
            f"{', as '.join(guessed)}; give the training sequence or the run as like=, or "
            "features= and dtype=",
            stacklevel=callers_level(),
        )


def callers_level() -> int:
    """Return the stacklevel, for the caller, of the first line outside of this package."""
    level, frame = 1, inspect.currentframe()
    passed = __name__.partition(".")[0], "contextlib"
    while (frame := frame and frame.f_back) is not None:
        if str(frame.f_globals.get("__name__")).partition(".")[0] not in passed:
            break
        level += 1
    return level


def _batch_by(
    model: Any, fed: ModelInput, asked: ModelInput, batch_size: int | None, maker: Any
) -> str:
    if batch_size is not None and asked.batch_by == "era":
        raise ValueError(
            f"batch_size: found {batch_size} with batch_by='era', expected None, because a batch "
            "is one era; leave batch_size out"
        )
    if asked.batch_by is not None:
        return asked.batch_by
    if fed.batch_by == "era" and batch_size is None:
        return "era"
    features, dtype = len(fed.features or ()), str(fed.dtype)
    if not (
        depends_on_batch(model, random_rows(features, dtype, fed.inputs))
        if maker is None
        else mixes_rows(model, maker)
    ):
        return "rows"
    if batch_size is not None:
        raise ValueError(
            f"batch_size: found {batch_size}, but the model's predictions depend on the other rows "
            "of a batch; leave batch_size out to make each era a batch, or give batch_by='rows'"
        )
    return "era"
