"""Oldest Keras: the classes that the installed Keras has, and the keys that their configs may have.

``numerai_sequence/predicting/keras_3_10.json`` holds those of Keras 3.10.0, the oldest that Numerai
has. To write it, run this with the Python of an environment that has ``keras==3.10.0``:

    python tests/oldest_keras.py > numerai_sequence/predicting/keras_3_10.json
"""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import re

# What a config says of itself, as in {"units": units} and config["layers"].
KEY = re.compile(r"""["'](\w+)["']:|config\[["'](\w+)["']\]|config\.get\(["'](\w+)["']""")


def arguments(kind):
    """Return the names of the arguments of a class, and of its parents as far as it takes them."""
    names = set()
    for parent in kind.__mro__[:-1]:
        if "__init__" in vars(parent):
            parameters = inspect.signature(parent.__init__).parameters.values()
            kinds = {p.kind for p in parameters}
            named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
            names |= {p.name for p in parameters if p.kind in named}
            if inspect.Parameter.VAR_KEYWORD not in kinds:
                break
    return names - {"self"}


def own_keys(kind, base):
    """Return the keys that the methods of a class write into a config, and read from one."""
    names = set()
    for parent in kind.__mro__[: kind.__mro__.index(base)]:
        for method in {"get_config", "from_config"} & set(vars(parent)):
            found = KEY.findall(inspect.getsource(getattr(parent, method)))
            names |= {name for groups in found for name in groups if name}
    return names


def modules(name):
    module = importlib.import_module(name)
    found = [module]
    for below in pkgutil.iter_modules(getattr(module, "__path__", ()), f"{name}."):
        if not below.name.endswith("_test"):
            found += modules(below.name)
    return found


def table():
    """Return the keys of each class by its module and name; "*" has those of each in a module."""
    import keras
    from keras.src.ops.operation import Operation

    layer, policy = keras.layers.Layer, keras.dtype_policies.DTypePolicy
    common = arguments(layer)

    def public(module, *bases):
        kinds = {name: kind for name, kind in vars(module).items() if inspect.isclass(kind)}
        return {
            name: (arguments(kind) | own_keys(kind, base)) - common
            for name, kind in kinds.items()
            for base in bases
            if issubclass(kind, base) and kind is not base
        }

    policies = {name: {"name"} for name in ("DTypePolicy", "FloatDTypePolicy")}
    policies |= {
        name: arguments(getattr(keras.dtype_policies, name))
        for name in ("DTypePolicyMap", "QuantizedDTypePolicy", "QuantizedFloat8DTypePolicy")
    }
    graph = {"input_layers", "layers", "output_layers"}
    found = {
        "keras": policies | {"Sequential": {"build_input_shape", "layers", *common}},
        "keras.activations": {name: set() for name in vars(keras.activations) if name[0] != "_"},
        "keras.dtype_policies": policies,
        "keras.layers": public(keras.layers, layer) | {"*": common},
        "keras.src.models.functional": {"Functional": graph | {"name", "trainable"}},
    }
    assert issubclass(keras.dtype_policies.FloatDTypePolicy, policy)
    for module in modules("keras.src.ops"):
        own = {
            # Its dtype was of no use where an operation does not name it, and is gone since.
            name: arguments(kind) - {"dtype"} | set(inspect.signature(kind).parameters)
            for name, kind in vars(module).items()
            if inspect.isclass(kind)
            and issubclass(kind, Operation)
            and kind.__module__ == module.__name__
        }
        found |= {module.__name__: own} if own else {}
    return {
        module: {name: " ".join(sorted(keys)) for name, keys in kinds.items()}
        for module, kinds in found.items()
    }


if __name__ == "__main__":
    print(json.dumps(table(), indent=0, sort_keys=True))
