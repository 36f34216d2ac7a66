"""Named models: the models of the argument ``model``, loaded and with their names."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checks import file_path, in_order, kind_of, short
from ..errors import NumeraiSequenceError
from ..feeding.keras_compat import active_keras, carry_inputs
from ..feeding.models_behind_unpack import core_of
from ..training.run_folder import MODEL, find_run, runs_in, unfinished_in
from .model_features import callers_level

_MODEL = "a Keras model, the folder of a run, or the file of a model"
_MAPPING = "give them other names, as a mapping of names to models"


@dataclass(frozen=True)
class Named:
    """A model, its name, and its training sequence or run.

    Attributes
    ----------
    name : str or None
        Name of the model; None if it is the only one and has no name.
    model : Keras model
    like
        Training sequence or run. See `predict`.
    """

    name: str | None
    model: Any
    like: Any


def name_models(model: Any, like: Any = None) -> list[Named]:
    """Return the models of the argument `model`, each loaded and with its name.

    Parameters
    ----------
    model : Keras model, path, sequence, or mapping
        One model or several. See `predict`.
    like : optional
        Training sequence or run. See `predict`.

    Raises
    ------
    TypeError
        `model` is, or contains, something other than a model.
    ValueError
        There is no model, two models have the same name, or `like` names an unknown model.
    NumeraiSequenceError
        A file does not exist, or cannot be loaded.
    """
    given = list(_given(model))
    names = [name for name, _ in given if name is not None]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"model: found two models named {twice[0]!r}; {_MAPPING}")
    likes = _likes(like, names)
    return [_load(name, one, likes.get(name)) for name, one in given]


def _likes(like: Any, names: list[str]) -> Mapping[str | None, Any]:
    if not isinstance(like, Mapping):
        return dict.fromkeys([None, *names], like)
    unknown = [name for name in like if name not in names]
    if unknown:
        found = ", ".join(names[:5]) or "one model without a name"
        raise ValueError(f"like: found {short(unknown[0])}, expected the name of a model: {found}")
    return like


def _given(model: Any) -> Iterator[tuple[str | None, Any]]:
    """Yield the name and the model, or its path, of each given model."""
    if isinstance(model, (str, os.PathLike)):
        path = file_path("model", model, _MODEL)
        runs = runs_in(path)
        if runs and (unfinished := unfinished_in(path)):
            warnings.warn(
                f"{path}: left out {', '.join(one.name for one in unfinished[:5])}, which "
                f"{'is' if len(unfinished) == 1 else 'are'} not finished",
                stacklevel=callers_level(),
            )
        yield from [(run.name, run) for run in runs] if runs else [(None, path)]
    elif isinstance(model, Mapping):
        yield from _of_several(_in_mapping(model))
    elif hasattr(model, "predict_on_batch") or not isinstance(model, Iterable):
        if not hasattr(model, "predict_on_batch"):
            raise TypeError(f"model: found {kind_of(model)}, expected {_MODEL}, or several")
        yield None, model
    else:
        yield from _of_several(_in_list(in_order("model", model, "a list of models")))


def _of_several(found: Iterable[tuple[str, Any]]) -> list[tuple[str, Any]]:
    models = list(found)
    if not models:
        raise ValueError(f"model: found none, expected {_MODEL}, or several")
    return models


def _in_mapping(models: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    for name, model in models.items():
        if not isinstance(name, str) or not name:
            raise TypeError(f"model: found the name {short(name)}, expected text")
        for inner, one in _one_or_runs(model):
            yield name if inner is None else f"{name}/{inner}", one


def _in_list(models: list[Any]) -> Iterator[tuple[str, Any]]:
    for number, model in enumerate(models):
        for inner, one in _one_or_runs(model):
            if inner is not None:
                yield inner, one
            else:
                yield _name_of(one) if isinstance(one, Path) else f"model_{number}", one


def _one_or_runs(model: Any) -> Iterator[tuple[str | None, Any]]:
    if isinstance(model, (Mapping, list, tuple)):
        raise TypeError(f"model: found {kind_of(model)} among several, expected {_MODEL}")
    return _given(model)


def _name_of(path: Path) -> str:
    """Return the name of a run's folder, or of a model's file."""
    path = path.absolute()
    return path.parent.name if path.name == MODEL else path.name if path.is_dir() else path.stem


def _load(name: str | None, model: Any, like: Any) -> Named:
    if not isinstance(model, Path):
        return Named(name, core_of(model), like)
    path, run = find_run(model)
    return Named(name, core_of(load_model(path)), run if like is None else like)


def load_model(path: Path) -> Any:
    """Load the file of a model with the active Keras, the one that ``tf.keras`` is."""
    carry_inputs()
    try:
        # Without its loss, which is not needed, and which Keras may not know.
        return active_keras().models.load_model(str(path), compile=False)
    except (OSError, ValueError, TypeError) as error:
        raise NumeraiSequenceError(
            f"{path}: cannot be loaded ({' '.join(str(error).split())[:200]}); expected a file of "
            "a model that this version of Keras saved"
        ) from error
