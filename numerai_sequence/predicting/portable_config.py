"""Portable config: the saved config of a model, in a form that every Keras of Numerai reads.

Numerai's images have Keras 3.10 to 3.13. A Keras refuses a config with an unknown key. So a key
that Keras 3.10 lacks is left out if it has its default, and is an error otherwise.
``keras_3_10.json`` lists the keys of Keras 3.10: "module": {"class": "key key ..."}.
"""

from __future__ import annotations

import importlib
import inspect
import json
from contextlib import suppress
from functools import cache
from importlib import resources
from types import ModuleType
from typing import Any

from ..errors import NumeraiSequenceError

PACKAGES = ("keras", "tf_keras")
# Needed only for training: saved weights replace the initial ones, and there is no loss.
_TRAINING = ("_initializer", "_regularizer", "_constraint")
_SAVED = {"build_config", "compile_config"}
_PREDICTING = {"__call__", "call", "predict_on_batch", "predict_step", "make_predict_function"}
# Layers that run another library's code, such as a function of JAX.
_WRAPPERS = {"FlaxLayer", "JaxLayer", "TFSMLayer", "TorchModuleWrapper"}
# New keys of tf_keras 2.21; each is False by default.
_NEW_IN_KERAS_2 = {"optional", "robust_masking", "softmax_robust_masking"}
# Classes that Keras 3.10 builds wrongly, with the same keys, and their replacements.
_INSTEAD = {
    "Argmax": "keepdims=False and keras.ops.expand_dims",
    "Argmin": "keepdims=False and keras.ops.expand_dims",
    "BatchNorm": "a BatchNormalization layer",
    "Discretization": "output_mode='int' and a CategoryEncoding layer",
    "Flip": "one keras.ops.flip for each axis",
    "Glu": "keras.ops.split and keras.ops.sigmoid",
    "Logsumexp": "a tuple of axes",
    "RMSNorm": "an RMSNormalization layer",
}
_MISSING = object()
_LAMBDA = (
    "model: found a lambda, which holds the bytecode of one Python version, and Numerai's may be "
    "another; build the model of keras.ops or of Keras's own layers"
)


def keras_of(model: Any) -> ModuleType:
    """Return the Keras package of a model.

    Raises
    ------
    TypeError
        The model is not a Keras model.
    """
    for parent in type(model).__mro__:
        package = parent.__module__.split(".")[0]
        if package in PACKAGES:
            return importlib.import_module(package)
    raise TypeError(f"model: found {type(model).__name__}, expected a Keras model")


def as_plain(model: Any) -> Any:
    """Return a model of Keras's own class, if a subclass changes only the training."""
    own = [kind for kind in type(model).__mro__ if kind.__module__.split(".")[0] not in PACKAGES]
    if own[:-1] and not any(_PREDICTING & set(vars(kind)) for kind in own[:-1]):
        with suppress(AttributeError, RuntimeError, TypeError, ValueError):  # no graph of layers
            is_chain = isinstance(model, keras_of(model).Sequential)
            ends = (*model.inputs, *model.outputs) if is_chain else (model.input, model.output)
            return keras_of(model).Model(*ends)
    return model


def is_keras_2(keras: ModuleType) -> bool:
    """Return whether a Keras is tf_keras, or the Keras of TensorFlow 2.15 and before."""
    return str(keras.__version__).startswith("2.")


def portable_config(config: dict[str, Any], keras: ModuleType) -> dict[str, Any]:
    """Return a model's config without keys that it does not need or that Keras 3.10 lacks.

    Parameters
    ----------
    config : dict
        The config that Keras saves.
    keras : module
        The Keras that saved it. A config of Keras 2 is for Keras 2.

    Raises
    ------
    NumeraiSequenceError
        The model has a layer, function or argument that is not Keras's own, or that Keras 3.10
        lacks.
    """
    found: dict[str, Any] = _portable(config, keras)
    return found


def _portable(value: Any, keras: ModuleType) -> Any:
    if isinstance(value, list):
        return [_portable(one, keras) for one in value]
    if not isinstance(value, dict):
        return value
    if isinstance(value.get("class_name"), str) and "config" in value:
        value = _portable_object(value, keras)
    return {name: _portable(one, keras) for name, one in value.items()}


def _portable_object(saved: dict[str, Any], keras: ModuleType) -> dict[str, Any]:
    """Return a saved object with only the keys that Keras 3.10 knows."""
    _check_own(saved, keras)
    saved = {name: value for name, value in saved.items() if name not in _SAVED}
    if not isinstance(saved["config"], dict) or saved["class_name"].startswith("__"):
        return saved
    config = {
        name: value for name, value in saved["config"].items() if not name.endswith(_TRAINING)
    }
    if is_keras_2(keras):
        return saved | {"config": _known_of_keras_2(saved["class_name"], config, keras)}
    _check_activations(config, keras)
    _check_builds(saved["class_name"], config)
    config = _known(saved, config, keras)
    return saved | {"config": config}


def _check_own(saved: dict[str, Any], keras: ModuleType) -> None:
    """Raise an error if an object is of a user's class or function, or holds bytecode."""
    module, registered = saved.get("module", ""), saved.get("registered_name")
    kind, config = saved["class_name"], saved["config"]
    if kind == "__lambda__":
        raise NumeraiSequenceError(_LAMBDA)
    foreign = kind if kind in _WRAPPERS else None
    if registered and (module is None or module.split(".")[0] not in (*PACKAGES, "builtins")):
        foreign = registered
    if kind == "function" and isinstance(config, str):
        # Keras finds registered objects by their bare names too.
        ours = keras.saving.get_custom_objects()
        foreign = next(
            (name for name in ours if name.split(">")[-1] == config.split(">")[-1]), None
        )
    if foreign:
        raise NumeraiSequenceError(
            f"model: {foreign!r} is not Keras's own, so Numerai does not have it; "
            "build the model of Keras's own layers and functions"
        )
    if kind == "function" and not is_keras_2(keras):
        _check_function(config, keras)


def _check_function(name: Any, keras: ModuleType) -> None:
    """Raise an error if Keras cannot find a function by its saved name."""
    if not hasattr(keras.activations, str(name)):
        raise NumeraiSequenceError(
            f"model: the function {name!r} is not in keras.activations, so Numerai does not have "
            "it; build the model of Keras's own layers and of keras.ops"
        )
    _check_has(name not in _oldest()["keras.activations"], f"activation {name!r}", keras)


def _check_activations(config: dict[str, Any], keras: ModuleType) -> None:
    for key, value in config.items():
        if not key.endswith("activation"):
            continue
        if isinstance(value, dict) and "class_name" not in value:
            raise NumeraiSequenceError(_LAMBDA)
        if isinstance(value, str):
            _check_function(value, keras)


def _check_builds(kind: str, config: dict[str, Any]) -> None:
    """Raise an error if Keras 3.10 has a class and its keys, but builds it wrongly."""
    axis = config.get("axis")
    fails = {
        "Argmax": bool(config.get("keepdims")) and axis is not None,
        "Argmin": bool(config.get("keepdims")) and axis is not None,
        "Discretization": config.get("output_mode", "int") != "int",
        "Flip": isinstance(axis, (list, tuple)),
        "Logsumexp": isinstance(axis, int),
    }
    if kind in _INSTEAD and fails.get(kind, True):
        raise NumeraiSequenceError(
            f"model: {kind}({_shown(config)}) fails in Keras 3.10, which Numerai also runs; use "
            f"{_INSTEAD[kind]} instead"
        )


def _shown(config: dict[str, Any]) -> str:
    keys = ("axis", "keepdims", "output_mode")
    return ", ".join(f"{key}={config[key]!r}" for key in keys if key in config)


def _known(saved: dict[str, Any], config: dict[str, Any], keras: ModuleType) -> dict[str, Any]:
    """Return the keys of a class that Keras 3.10 knows; the others have their defaults."""
    module, kind = saved.get("module"), saved["class_name"]
    classes = _oldest().get(str(module), {})
    _check_has(kind not in classes, kind, keras)
    if "vocabulary" in config and config["vocabulary"] is None:
        raise NumeraiSequenceError(
            f"model: {kind} {config.get('name')!r} has learnt its vocabulary with adapt, but its "
            "config does not hold that vocabulary; pass vocabulary= to the layer"
        )
    names = {*classes[kind].split(), *classes.get("*", "").split()}
    more = {name: value for name, value in config.items() if name not in names}
    for name in [*more]:
        # The name of an operation that takes none is not needed.
        is_default = name == "name" or _default(str(module), kind, name) == _plain(more[name])
        _check_has(not is_default, f"{kind}({name}={str(more[name])[:40]})", keras)
    return {name: value for name, value in config.items() if name in names}


def _known_of_keras_2(kind: str, config: dict[str, Any], keras: ModuleType) -> dict[str, Any]:
    """Return the keys of a class that Numerai's tf_keras 2.19 knows."""
    for name in _NEW_IN_KERAS_2 & set(config):
        _check_has(bool(config[name]), f"{kind}({name}={config[name]})", keras, "tf_keras 2.19")
    return {name: value for name, value in config.items() if name not in _NEW_IN_KERAS_2}


def _check_has(is_missing: bool, what: str, keras: ModuleType, oldest: str = "Keras 3.10") -> None:
    if is_missing:
        raise NumeraiSequenceError(
            f"model: {what} of Keras {keras.__version__} is not in {oldest}, which Numerai also "
            "runs; build the model without it"
        )


def _default(module: str, kind: str, name: str) -> Any:
    """Return the default of an argument of a class or of its parents."""
    for parent in getattr(importlib.import_module(module), kind).__mro__:
        parameters = inspect.signature(parent.__init__).parameters
        if name in parameters:
            return _plain(parameters[name].default)
    return _MISSING


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


@cache
def _oldest() -> dict[str, dict[str, str]]:
    """Return the keys of the classes of Keras 3.10, by module and class."""
    text = resources.files(__package__).joinpath("keras_3_10.json").read_text(encoding="utf-8")
    found: dict[str, dict[str, str]] = json.loads(text)
    return found
