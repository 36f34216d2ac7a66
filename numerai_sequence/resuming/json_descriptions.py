"""JSON descriptions: the user's values, such as a loss, as JSON that is the same in any process.

A description holds no memory address, and does not depend on the order of a set. For a function, it
has the name, the code, the defaults and the enclosed values. It leaves out the global names that
the function uses, and the attributes of a method's object. For a function of Keras, NumPy or a
similar library, it has the name only. For an object, it has the class, and the configuration if
there is one.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import sys
from collections.abc import Mapping, Set
from types import CodeType, FunctionType, MethodType
from typing import Any

import numpy as np

from ..checks import digest

# Packages whose functions and classes are described by their names.
_LIBRARIES = {
    "builtins",
    "jax",
    "keras",
    "math",
    "numerai_sequence",
    "numpy",
    "operator",
    "tensorflow",
    "tf_keras",
    "torch",
}
_PYTHON = sys.implementation.cache_tag

# The most values of an array in a description; a larger array is described by its SHA-256.
_VALUES = 64
_DEPTH = 12


def described(value: Any, *, depth: int = 0) -> Any:
    """Return a JSON value that is different for different values."""
    if depth > _DEPTH:
        return type_name(value)
    if value is None or isinstance(value, (bool, np.bool_)):
        return None if value is None else bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return _number(float(value))
    if isinstance(value, (str, complex)):
        return str(value)
    inner = functools.partial(described, depth=depth + 1)
    if isinstance(value, Mapping):
        return {_key(key): inner(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [inner(one) for one in value]
    if isinstance(value, Set):
        return sorted(map(inner, value), key=json.dumps)
    if is_function(value):
        return describe_function(value, depth=depth)
    if isinstance(value, type):
        return _full_name(value)
    if isinstance(value, (bytes, bytearray)):
        return hashlib.sha256(value).hexdigest()
    return _array(value) if hasattr(value, "__array__") else _object(value, depth)


def _number(value: float) -> Any:
    """Return a float as the user wrote it: Keras turns 0.1 into float32, and back into a float."""
    if not math.isfinite(value):
        return str(value)  # JSON has none, and NaN would differ from itself
    with np.errstate(over="ignore"):
        single = np.float32(value)
    return float(str(single)) if float(single) == value else value


def _key(key: Any) -> str:
    return str(key) if isinstance(key, str) else json.dumps(described(key))


def _array(value: Any) -> Any:
    """Return the description of an array or a tensor."""
    try:
        array = np.asarray(value)
    except Exception:  # a symbol of a graph, which has no values
        return type_name(value)
    if array.ndim == 0 and array.dtype != object:
        return described(array.item())
    if array.size <= _VALUES or array.dtype == object:
        return described(array.tolist())
    return [str(array.dtype), list(array.shape), hashlib.sha256(array.tobytes()).hexdigest()]


def _object(value: Any, depth: int) -> Any:
    if depth > 1:  # the attributes of an inner object may change during the training
        return type_name(value)
    config = config_of(value) or {}
    values = {name: one for name, one in getattr(value, "__dict__", {}).items() if name != "name"}
    found = {"class": type_name(value), **config, **values}
    return {_key(name): described(one, depth=2) for name, one in found.items()}


def config_of(value: Any) -> dict[str, Any] | None:
    """Return the configuration of a Keras object, without its name; None if it has none."""
    try:
        config = value.get_config()
    except Exception:  # objects without a configuration raise various errors
        return None
    if not isinstance(config, Mapping):
        return None
    return {str(name): one for name, one in config.items() if name != "name"}


def is_function(value: Any) -> bool:
    """Say whether a value is a function, and not an object of a user's class."""
    kinds = FunctionType, MethodType, functools.partial, np.ufunc, type(len), type(str.join)
    is_wrapped = hasattr(value, "__wrapped__") or hasattr(value, "python_function")
    return isinstance(value, kinds) or (is_wrapped and not isinstance(value, type))


def is_own(value: Any) -> bool:
    """Say whether a value is a function of the user, whose name does not describe it."""
    return is_function(value) and not isinstance(describe_function(value), str)


def describe_function(function: Any, *, depth: int = 0) -> Any:
    """Return the name of a library's function, or the description of a user's function."""
    inner = functools.partial(described, depth=depth + 1)
    if isinstance(function, functools.partial):
        given = {"args": inner(function.args), "options": inner(function.keywords)}
        return {"function": inner(function.func), **given}
    function = _unwrapped(function)
    code = getattr(function, "__code__", None)
    if code is None or _is_known(function):
        return _full_name(function)
    found = {
        "function": _full_name(function),
        "encloses": inner(_enclosed(function, code)),
        "defaults": inner(
            [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).items()]
        ),
        "code": f"{_PYTHON}, SHA-256 {_code_digest(code)}",
    }
    return {name: value for name, value in found.items() if value}


def _unwrapped(function: Any) -> Any:
    for _ in range(_DEPTH):
        inner = getattr(function, "python_function", None) or getattr(function, "__wrapped__", None)
        inner = inner or getattr(function, "__func__", None)
        if inner is None:
            break
        function = inner
    return function


def _enclosed(function: Any, code: CodeType) -> dict[str, Any]:
    found = {}
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=False):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # the cell is still empty
            continue
    return found


def _code_digest(code: CodeType) -> str:
    """Return the SHA-256 of a function's code, which does not depend on its place in a file."""
    constants = [
        _code_digest(one) if isinstance(one, CodeType) else described(one, depth=2)
        for one in code.co_consts
    ]
    return digest([code.co_code.hex(), list(code.co_names), list(code.co_varnames), constants])


def type_name(value: Any) -> str:
    """Return the name of an object's class, with its module if it is the user's."""
    return _full_name(type(value))


def _full_name(value: Any) -> str:
    name = str(getattr(value, "__qualname__", None) or getattr(value, "__name__", "?"))
    return name if _is_known(value) else f"{_module(value)}.{name}"


def _is_known(value: Any) -> bool:
    return _module(value).split(".")[0] in _LIBRARIES


def _module(value: Any) -> str:
    return str(getattr(value, "__module__", None) or "builtins")
