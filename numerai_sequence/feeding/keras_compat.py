"""Keras compat: find the Keras packages in use, and change them for our sequences.

Keras 3 (`keras`), Keras 2 as a separate package (`tf_keras`), and Keras 2 in TensorFlow up to 2.15
(`keras` 2) each have a ``Sequence`` that their models accept. `sequence_bases` returns those of the
Keras packages in use. `install` makes these changes in each package, for our sequences only. The
numbers are also in `keras_private_names`, which lists the private names that each change needs.

1. ``fit``, ``evaluate`` and ``predict`` take ``workers``, ``use_multiprocessing`` and
   ``max_queue_size``. They hold for that call and its validation.
   Without it: Keras 3 raises a TypeError, ``evaluate`` a ValueError.
2. Each pass over a sequence has its own threads and order (`_get_iterator`,
   `_handle_multiprocessing`).
   Without it: Keras shuffles the batches again, in another order each time. Keras 3's own workers
   pass the remaining batches of a stopped pass to the next one, so a model misses rows and sees
   others twice. Keras 2's own workers wait 5 seconds at the end of each epoch.
3. Keras 3 makes no workers (`__init__`).
   Without it: on JAX and torch, Keras's workers make each batch again, and nobody uses it.
4. ``fit`` and the others raise the original error of a pass.
   Without it: TensorFlow raises its own error. Under Keras 3 its iterator may remain, and Python
   then waits for it at the exit.
5. Lists in a batch become tuples, and y gets the form of the model's outputs
   (`_standardize_batch`).
   Without it: TensorFlow refuses lists. A model with its own loss gets a dict for y.
6. Keras 2 does not convert floats of its own type (`_standardize_batch`).
   Without it: Keras 2 copies each batch.
7. TensorFlow waits for a batch in a separate thread, and prefetches one batch (`get_tf_dataset`,
   `get_dataset`).
   Without it: TensorFlow waits in a thread that runs the model. Keras 3 lets TensorFlow prefetch
   any number of batches; up to 3.5 it shuffles them again. Without prefetching, each step waits for
   a batch.
8. Losses and metrics find y and weights by the names in ``target=``. See `targets_by_name`.
   Without it: every Keras compares unnamed outputs with the wrong y, or raises an error.
9. At the end of a call Keras's adapter forgets the sequence, and a model of Keras 2 forgets its
   validation data.
   Without it: TensorFlow keeps each sequence and its files. After a fit that was interrupted, the
   next fit on Keras 2 validates on the data of the first.
10. A Ctrl-C ends a call.
    Without it: Keras 3 catches it while it waits for the logs of a step, and training continues.
11. A callback follows the epochs of ``fit``. The first epoch may begin at any batch
    (`_enumerate_iterator`, `enumerate_epoch`, `steps`).
    Without it: each epoch has the same order. `Resume` runs out of batches in its first epoch.
12. Up to Keras 3.6, each validation begins with its first batch (`enumerate_epoch`).
    Without it: with ``validation_steps``, each epoch is validated on other rows.
13. ``fit`` and the others refuse a sequence that Keras or TensorFlow would divide among devices and
    processes in a wrong way.
    Without it: processes read the same rows, or some rows are never read.
14. ``fit`` attaches a description of its input to the model, and ``model.save`` saves it. See
    `model_input`.
    Without it: a model may predict from features in another order or scale, without any warning.

Other inputs reach Keras unchanged. Installing again changes nothing. Changes of another import of
this package are replaced, and also work for its sequences.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from types import ModuleType
from typing import Any

from ..checks import is_of
from ..errors import NumeraiSequenceError
from .keras2 import patch_keras_2
from .keras3 import patch_keras_3
from .keras_patches import Changes
from .keras_private_names import describe_missing, missing, version_of
from .model_input import read_input, write_input
from .patched_methods import give_options

_INSTALLED = "_numerai_sequence_installed"


def sequence_bases() -> tuple[type, ...]:
    """Return the base classes of our sequences: the ``Sequence`` of each Keras in use.

    A Keras without the needed private names is left out, unless it is ``tf.keras``. See `install`.
    """
    active = active_keras()
    return tuple(
        package.utils.Sequence
        for package in _keras_packages()
        if package is active or not missing(package)
    )


def callback_bases() -> tuple[type, ...]:
    """Return the base classes of our callbacks: the ``Callback`` of each Keras in use."""
    return tuple(package.callbacks.Callback for package in _keras_packages())


def _keras_packages() -> list[ModuleType]:
    packages = [importlib.import_module("keras")]
    # Keras 3 on JAX or torch runs without TensorFlow: do not load it for a package nobody uses.
    wanted = "tensorflow" in sys.modules or "TF_USE_LEGACY_KERAS" in os.environ
    if "tf_keras" in sys.modules or (wanted and importlib.util.find_spec("tf_keras")):
        with suppress(ImportError):  # made for another TensorFlow: the user cannot use it either
            packages.append(importlib.import_module("tf_keras"))
    return packages


def active_keras() -> ModuleType:
    """Return the Keras that ``tf.keras`` is."""
    is_legacy = os.environ.get("TF_USE_LEGACY_KERAS", "").lower() in ("1", "true")
    return importlib.import_module("tf_keras" if is_legacy else "keras")


def carry_inputs() -> None:
    """Make models of the loaded Keras packages save a description of their input."""
    for name in ("keras", "tf_keras"):
        model = getattr(sys.modules.get(name), "Model", None)
        found = getattr(model, "load_assets", read_input)  # that of another import of this package
        if model is not None and found.__module__ == read_input.__module__:
            model.save_assets, model.load_assets = write_input, read_input


def install(kind: type) -> None:
    """Change the Keras packages in use for sequences of class `kind`.

    Sequences of another import of this package are recognized by the name of their class. Before
    any change, all needed private names of a package are looked up. See `keras_private_names`.

    Raises
    ------
    NumeraiSequenceError
        The active Keras lacks a private name. Another Keras raises it when it gets a sequence.
    """
    for package in _keras_packages():
        before = getattr(package, _INSTALLED, None)
        if getattr(before, "made_by", None) is kind:
            continue
        if before is not None:
            before.undo()
            delattr(package, _INSTALLED)
        changes = Changes(kind)
        try:
            _serve(package, kind, changes)
        except BaseException:
            changes.undo()
            raise
        setattr(package, _INSTALLED, changes)


def _serve(package: ModuleType, kind: type, changes: Changes) -> None:
    found = missing(package)
    if not found:
        for name in ("fit", "evaluate", "predict"):
            give_options(package.Model, name, kind, changes, callback_bases)
        patch = patch_keras_3 if version_of(package) >= (3, 0) else patch_keras_2
        patch(package, kind, changes)
        return
    message = describe_missing(package, found)
    if package is active_keras():
        raise NumeraiSequenceError(message)
    for name in ("fit", "evaluate", "predict"):  # the other Keras may be the one that is used
        changes.set(package.Model, name, _refusing(getattr(package.Model, name), kind, message))


def _refusing(original: Callable[..., Any], kind: type, message: str) -> Callable[..., Any]:
    @functools.wraps(original)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        if any(is_of(one, kind) for one in (*args, *kwargs.values())):
            raise NumeraiSequenceError(message)
        return original(self, *args, **kwargs)

    return method
