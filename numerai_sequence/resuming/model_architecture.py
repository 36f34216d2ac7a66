"""Model architecture: a compiled model as JSON, with which two runs are compared.

It has the layers in their order with their configurations, the losses and their weights, and the
optimizer. Names that Keras generates, such as ``dense_7``, differ from model to model and are left
out. A layer or a model without a configuration is described by its class, by the shapes of its
weights, and by the numbers, texts and functions among its attributes. Values inside of other
attributes, and the code of methods, are not described.
"""

from __future__ import annotations

import functools
import re
import warnings
from collections.abc import Mapping
from typing import Any

from ..feeding.models_behind_unpack import are_rows
from .json_descriptions import config_of, described, is_function, is_own, type_name

# Keys that do not affect learning, such as a class's module, and whether a layer is built.
_LEFT_OUT = {
    "build_config",
    "build_input_shape",
    "compile_config",
    "jit_compile",
    "module",
    "registered_name",
    "shared_object_id",
}
_MADE_UP = {"InputLayer": "input", "Functional": "model"}  # by Keras 2

_PLAIN = bool, int, float, str

Json = dict[str, Any]


def describe_compiled(model: Any) -> Json:
    """Return the arguments of a model's ``compile`` that affect learning."""
    compiled = getattr(model, "_compile_loss", None) or getattr(model, "compiled_loss", None)
    return {
        "optimizer": _describe_optimizer(getattr(model, "optimizer", None)),
        "loss": described(getattr(model, "loss", None)),
        "loss_weights": described(getattr(compiled, "_user_loss_weights", None)),
    }


def _describe_optimizer(optimizer: Any) -> Json:
    config = _own_functions(optimizer, config_of(optimizer) or {})
    return {"class": type_name(optimizer), **_clean(config)}


def live_learning_rate(model: Any) -> float | None:
    """Return the present learning rate of a model's optimizer; None if it is a schedule."""
    rate = (config_of(_inner(model)) or {}).get("learning_rate")
    found = described(rate)
    return float(found) if isinstance(found, (int, float)) else None


def set_learning_rate(model: Any, rate: float) -> None:
    """Set the learning rate of an optimizer to a number."""
    _inner(model).learning_rate = rate


def _inner(model: Any) -> Any:
    """Return a model's optimizer without a wrapper that scales the loss."""
    return getattr(model.optimizer, "inner_optimizer", model.optimizer)


def describe_model(model: Any) -> Json:
    """Return the layers of a model and their connections, complete if the model is built."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras warns that a lambda cannot be stored
        config = config_of(model) or {}
        layers = config.pop("layers", None)
        if not _is_graph(layers):
            found = [_describe_layer(layer) for layer in getattr(model, "layers", ())]
            own = _clean(_own_values(model))
            return {"class": type_name(model), "layers": found, **own, **_clean(config)}
        return {"class": type_name(model), **_describe_graph(model, config, layers)}


def _is_graph(layers: Any) -> bool:
    return isinstance(layers, list) and all(isinstance(one, Mapping) for one in layers)


def _describe_graph(model: Any, config: Json, entries: list[Any]) -> Json:
    """Return the layers and the connections of a model that knows its connections."""
    if entries and entries[0]["class_name"] == "InputLayer" and "inbound_nodes" not in entries[0]:
        entries = entries[1:]  # a Sequential may get its input layer with the first batch
    layers = [*getattr(model, "layers", ()), *getattr(model, "operations", ())]
    by_name = {layer.name: layer for layer in layers}
    names = [entry["config"].get("name") for entry in entries]
    places = {name: f"layers[{place}]" for place, name in enumerate(names) if name}
    found = []
    for name, entry in zip(names, entries, strict=True):
        calls = entry.get("inbound_nodes")
        made = _describe_layer(by_name[name]) if name in by_name else _clean(entry)
        found.append({**made, "calls": _clean(_placed(calls, places)) or None})
    return {"layers": found, **_clean(_placed(config, places))}


def _describe_layer(layer: Any) -> Json:
    if hasattr(layer, "layers") and hasattr(layer, "fit"):
        return describe_model(layer)
    config = config_of(layer)
    made = _plain_values(layer) if config is None else _own_functions(layer, config)
    name = str(getattr(layer, "name", ""))
    named = {} if _is_made_up(name, type(layer).__name__) else {"name": name}
    return {"class": type_name(layer), **named, **_clean(made)}


def _own_functions(owner: Any, config: Json) -> Json:
    """Return a configuration with descriptions in place of the user's functions."""
    found = {}
    for name, value in config.items():
        functions = [getattr(owner, one, None) for one in (name, f"_{name}")]
        own = [described(function) for function in functions if is_own(function)]
        found[name] = own[0] if own else value
    return found


def _own_values(model: Any) -> Json:
    """Return the numbers, texts and functions among the attributes of a user's own model class."""
    parents = [kind for kind in type(model).__mro__ if kind.__name__ == "Model"]
    if not parents:
        return {}
    known = _attributes_of(parents[-1])
    own = {key: one for key, one in vars(model).items() if key[0] != "_" and key not in known}
    functions = {key: described(one) for key, one in own.items() if is_function(one)}
    return {**{key: one for key, one in own.items() if isinstance(one, _PLAIN)}, **functions}


@functools.cache
def _attributes_of(base: type) -> frozenset[str]:
    """Return the attributes that Keras gives to every model."""
    model: Any = base()
    model.compile(loss="mse")
    return frozenset(vars(model))


def _plain_values(layer: Any) -> Json:
    """Return the numbers and texts that are attributes of a layer without a configuration."""
    values = {key: value for key, value in vars(layer).items() if isinstance(value, _PLAIN)}
    return {key: value for key, value in values.items() if key[0] != "_" and key != "built"}


def _placed(value: Any, places: Mapping[str, str]) -> Any:
    """Return a graph's calls, [name, node, tensor, ...], with layers' places for their names."""
    if isinstance(value, Mapping):
        return {name: _placed(one, places) for name, one in value.items()}
    if not isinstance(value, (list, tuple)):
        return value
    names_a_tensor = len(value) > 2 and isinstance(value[0], str) and isinstance(value[1], int)
    if names_a_tensor and value[0] in places:
        return [places[value[0]], *(_placed(one, places) for one in value[1:])]
    return [_placed(one, places) for one in value]


def _clean(value: Any) -> Any:
    """Return a configuration without nulls and without keys that do not affect learning."""
    if isinstance(value, (list, tuple)):
        return [_clean(one) for one in value]
    if not isinstance(value, Mapping):
        return described(value)
    if "class_name" in value:
        return _clean_object(value)
    kept = {str(name): _clean(one) for name, one in value.items() if name not in _LEFT_OUT}
    return {name: one for name, one in kept.items() if one is not None}


def _clean_object(value: Mapping[str, Any]) -> Any:
    """Return the description of an object that Keras saved as a class and a configuration."""
    kind, config = str(value["class_name"]), value.get("config")
    if kind == "SeedGenerator":  # its state is saved with the weights
        return kind
    if not isinstance(config, Mapping):
        return {"class": kind, "name": _clean(config)}
    name = str(config.get("name", ""))
    rest = {key: one for key, one in config.items() if key != "name" or not _is_made_up(name, kind)}
    return {"class": kind, **_clean(rest)}


def _is_made_up(name: str, kind: str) -> bool:
    """Say whether a name is one that Keras generates for a class, such as ``dense_7``."""
    words = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", kind))
    words = re.sub(r"([a-z])([A-Z])", r"\1_\2", words).lower()
    known = "|".join(map(re.escape, (words, f"private{words}", _MADE_UP.get(kind, words))))
    return name.startswith("tf.") or re.fullmatch(rf"({known})(_\d+)?", name) is not None


def describe_variables(model: Any) -> list[str]:
    """Return the last name and the shape of each variable of a model: weights, and seeds."""
    found = []
    for variable in model.variables:
        if are_rows(variable):
            continue
        name = str(variable.name).split("/")[-1].split(":")[0]
        found.append(f"{re.sub(r'_[0-9]+$', '', name)} {list(map(int, variable.shape))}")
    return found
