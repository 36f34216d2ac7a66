"""Keras private names: the private names of Keras that this package uses, and their versions.

`missing` looks for all of them before any change. A method counts as found if its class has it, it
has the needed parameters, and its code has the names of the needed attributes. The numbers above
the names are those of the changes in `keras_compat` that need them.
"""

from __future__ import annotations

import importlib
import inspect
from types import ModuleType
from typing import Any, NamedTuple

Version = tuple[int, int]

# The tested versions, in words, and the command that installs one.
_KNOWN = "Keras 3.0 to 3.16, tf_keras 2.16 to 2.21 and TensorFlow 2.15"
_REMEDIES = {"keras": "pip install 'keras>=3.0,<3.17'", "tf_keras": "pip install 'tf_keras<2.22'"}


class Relied(NamedTuple):
    """A function of Keras, and the parts of it that this package needs.

    Attributes
    ----------
    owner : str
        Module below the package's root, and its class, if any; or the package's ``Model``.
    name : str
    takes : str
        Needed parameters, separated by blanks.
    uses : str
        Needed attributes and names in its code, separated by blanks.
    since, until : (int, int)
        Versions of Keras: the first with the function, and the first without it again.
    backend : str
        The only backend with the function. Empty for all.
    """

    owner: str
    name: str
    takes: str = ""
    uses: str = ""
    since: Version = (0, 0)
    until: Version = (99, 0)
    backend: str = ""

    @property
    def is_wrapped(self) -> bool:
        """Whether the function that it wraps is replaced."""
        return self.owner == "Model" and self.name in ("fit", "evaluate", "predict")


_ADAPTER_3 = "trainers.data_adapters.py_dataset_adapter:PyDatasetAdapter"
_EPOCH_3 = "trainers.epoch_iterator:EpochIterator"
_UTILS_3 = "trainers.compile_utils"
_TENSORFLOW = "backend.tensorflow.trainer"
_FIT = "x callbacks shuffle initial_epoch epochs steps_per_epoch validation_data class_weight"

KERAS_3 = (
    # 2, 3, 9.
    Relied(_ADAPTER_3, "__init__", "x shuffle", "py_dataset shuffle enqueuer"),
    # 2.
    Relied(_ADAPTER_3, "_get_iterator", "", "enqueuer"),
    # 7.
    Relied(_ADAPTER_3, "get_tf_dataset"),
    Relied(_ADAPTER_3, "get_tf_dataset", "", "enqueuer", since=(3, 6)),
    # 5.
    Relied(_ADAPTER_3, "_standardize_batch", "batch"),
    # 11, 12.
    Relied(_EPOCH_3, "__init__", "x", "data_adapter _num_batches"),
    Relied(_EPOCH_3, "_enumerate_iterator", "", "_num_batches data_adapter", since=(3, 7)),
    Relied(_EPOCH_3, "enumerate_epoch", "", "_current_iterator data_adapter", until=(3, 7)),
    Relied(
        f"{_TENSORFLOW}:TFEpochIterator",
        "enumerate_epoch",
        uses="_current_iterator num_batches",
        until=(3, 7),
        backend="tensorflow",
    ),
    # 13.
    Relied("Model", "distribute_strategy", backend="tensorflow"),
    # 8.
    Relied(
        f"{_UTILS_3}:CompileLoss",
        "__init__",
        "",
        "_user_loss _user_loss_weights output_names built",
    ),
    Relied(f"{_UTILS_3}:CompileLoss", "call", "y_true y_pred sample_weight", "built"),
    Relied(f"{_UTILS_3}:CompileMetrics", "__init__", "", "output_names built"),
    Relied(f"{_UTILS_3}:CompileMetrics", "update_state", "y_true y_pred sample_weight", "built"),
    # 1.
    Relied("Model", "fit", _FIT),
    Relied("Model", "evaluate", "x"),
    Relied("Model", "predict", "x"),
    # 8; and `architecture`.
    Relied("Model", "compile", "loss", "_compile_loss"),
    # No change: `scoring.losses`.
    Relied("backend.common.masking", "get_keras_mask", since=(3, 6)),
    # 13.
    Relied("distribution.distribution_lib:DataParallel", "__init__", "", "_is_multi_process"),
)

_ADAPTERS_2, _UTILS_2 = "engine.data_adapter", "engine.compile_utils"

KERAS_2 = (
    # 2, 9.
    Relied(
        f"{_ADAPTERS_2}:KerasSequenceAdapter",
        "__init__",
        "x shuffle",
        "_keras_sequence _shuffle_sequence",
    ),
    # 2.
    Relied(f"{_ADAPTERS_2}:KerasSequenceAdapter", "_handle_multiprocessing", "x"),
    # 5, 6.
    Relied(f"{_ADAPTERS_2}:KerasSequenceAdapter", "_standardize_batch", "data"),
    # 7.
    Relied(f"{_ADAPTERS_2}:KerasSequenceAdapter", "get_dataset"),
    # 11.
    Relied(f"{_ADAPTERS_2}:DataHandler", "__init__", "", "_adapter"),
    Relied(f"{_ADAPTERS_2}:DataHandler", "steps", "", "_inferred_steps"),
    # 8.
    Relied(f"{_UTILS_2}:Container", "__init__", "", "_output_names"),
    Relied(f"{_UTILS_2}:LossesContainer", "__init__", "", "_user_losses _user_loss_weights _built"),
    Relied(f"{_UTILS_2}:LossesContainer", "__call__", "y_true y_pred sample_weight", "_built"),
    Relied(f"{_UTILS_2}:MetricsContainer", "__init__", "", "_built"),
    Relied(f"{_UTILS_2}:MetricsContainer", "update_state", "y_true y_pred sample_weight", "_built"),
    # 1, 9.
    Relied("Model", "fit", _FIT, "_eval_data_handler"),
    Relied("Model", "evaluate", "x", "_eval_data_handler"),
    Relied("Model", "predict", "x"),
    # 8; and `architecture`.
    Relied("Model", "compile", "loss", "compiled_loss"),
)


def version_of(package: ModuleType) -> Version:
    """Return the first two numbers of a Keras package's version."""
    major, minor = package.__version__.split(".")[:2]
    return int(major), int("".join(digit for digit in minor if digit.isdigit()) or 0)


def root_of(package: ModuleType) -> str:
    """Return the name of the package with the private modules."""
    if version_of(package) >= (3, 0):
        return "keras.src"
    return str(package.utils.Sequence.__module__).rsplit(".utils.", 1)[0]


def enclosed(function: Any) -> Any:
    """Return the closure's cell with the function that a function wraps, or None.

    Every Keras wraps the methods of its models to shorten their tracebacks.
    """
    inner = inspect.unwrap(function)
    cells = getattr(function, "__closure__", None) or ()
    found = (cell for cell in cells if callable(cell.cell_contents))
    return next((cell for cell in found if inspect.unwrap(cell.cell_contents) is inner), None)


def missing(package: ModuleType) -> list[str]:
    """Return the needed private names that a Keras package lacks, in words."""
    version = version_of(package)
    table = KERAS_3 if version >= (3, 0) else KERAS_2
    backend = package.backend.backend()
    return [
        found
        for one in table
        if one.since <= version < one.until and one.backend in ("", backend)
        if (found := _missing(one, package))
    ]


def describe_missing(package: ModuleType, found: list[str]) -> str:
    """Return an error message: the missing names, the tested versions, and how to install one."""
    name = package.__name__.split(".")[0]
    return (
        f"{name} {package.__version__}: found no {', no '.join(found)}; NumeraiSequence works with "
        f"{_KNOWN}; {_REMEDIES[name]}"
    )


def _missing(one: Relied, package: ModuleType) -> str | None:
    functions = definitions(one, package)
    place = f"{one.owner.replace(':', '.')}.{one.name}"
    if not functions:
        return place
    if one.is_wrapped and enclosed(functions[0]) is None and _trains(package):
        return f"function that {place} wraps"
    takes = {*one.takes.split()} - {*inspect.signature(inspect.unwrap(functions[0])).parameters}
    if takes:
        return f"{place}({', '.join(sorted(takes))}=)"
    names = set().union(*map(_names_in, functions))
    lost = [used for used in one.uses.split() if used not in names]
    return f"{lost[0]} in {place}" if lost else None


def _trains(package: ModuleType) -> bool:
    """Return whether models can be fitted; on other backends the methods are not wrapped."""
    return package.backend.backend() not in ("numpy", "openvino")


def definitions(one: Relied, package: ModuleType) -> list[Any]:
    """Return the functions with a name, in a module, or in a class and its parents."""
    owner = owner_of(one.owner, package)
    holders = owner.__mro__ if isinstance(owner, type) else [owner]
    found = [vars(holder).get(one.name) for holder in holders if holder is not None]
    return [getattr(function, "fget", function) for function in found if function is not None]


def owner_of(path: str, package: ModuleType) -> Any:
    """Return a class or a module of a Keras package, or None."""
    if path == "Model":
        return package.Model
    module, _, name = path.partition(":")
    try:
        found = importlib.import_module(f"{root_of(package)}.{module}")
    except ImportError:
        return None
    return getattr(found, name, None) if name else found


def _names_in(function: Any) -> set[Any]:
    """Return the attributes and texts in a function's code."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    if code is None:  # of object, in C
        return set()
    texts = [one if isinstance(one, tuple) else (one,) for one in code.co_consts]
    return {*code.co_names, *(one for several in texts for one in several)}
