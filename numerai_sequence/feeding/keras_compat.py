"""Keras compat: the one place that knows which Keras is running, and what has to be done about it.

Keras 3 (`keras`), its predecessor as a package of its own (`tf_keras`) and inside TensorFlow up to
2.15 (`keras` 2) each have a ``Sequence`` that their models accept. `sequence_bases` names those of
the Keras packages in use, and `install` changes this in each of them, for our sequences only. The
numbers are those in `relied`, which names what each change needs of Keras.

1. ``fit``, ``evaluate`` and ``predict`` take ``workers``, ``use_multiprocessing`` and
   ``max_queue_size``. They hold for that call and its validation.
   Without it: Keras 3 raises a TypeError, ``evaluate`` a ValueError.
2. Each pass over a sequence has threads and an order of its own (`_get_iterator`,
   `_handle_multiprocessing`).
   Without it: Keras shuffles the batches again, in another order each time. With workers of its own
   Keras 3 hands the batches that a stopped pass has left to the next: a model misses rows and sees
   others twice. Those of Keras 2 wait 5 seconds at the end of each epoch.
3. Keras 3 makes no workers (`__init__`).
   Without it: on JAX and torch the workers of a sequence make each batch again, for nobody.
4. ``fit`` and the others raise the error of a pass as what it is.
   Without it: TensorFlow raises an error of its own. Under Keras 3 its iterator may stay, and
   Python then waits for it at the exit.
5. Lists in a batch become tuples, and y gets the form of the model's outputs
   (`_standardize_batch`).
   Without it: TensorFlow refuses lists. A model with a loss of its own gets a dict for y.
6. Keras 2 takes floats of its own type as they are (`_standardize_batch`).
   Without it: Keras 2 copies each batch.
7. TensorFlow waits for a batch in a thread of its own, and prefetches one (`get_tf_dataset`,
   `get_dataset`).
   Without it: TensorFlow waits in a thread that runs the model. Keras 3 has as many batches made as
   TensorFlow likes; up to 3.5 it shuffles them again. Without the one, each step waits for a batch.
8. Losses and metrics find y and weights by the names in ``target=``; see `targets_by_name`.
   Without it: every Keras compares unnamed outputs with the wrong y, or raises an error.
9. At the end of a call Keras's adapter forgets the sequence, and a model of Keras 2 forgets its
   validation data.
   Without it: TensorFlow keeps each sequence and its files. After a fit that was interrupted, the
   next fit on Keras 2 validates on the data of the first.
10. A Ctrl-C ends a call.
    Without it: Keras 3 catches it where it waits for the logs of a step, and training goes on.
11. A callback follows the epochs of ``fit``. The first epoch may begin at any batch
    (`_enumerate_iterator`, `enumerate_epoch`, `steps`).
    Without it: each epoch has the same order. `Resume` runs out of batches in its first epoch.
12. Up to Keras 3.6 each validation begins anew (`enumerate_epoch`).
    Without it: with ``validation_steps`` each epoch is validated on other rows.
13. ``fit`` and the others refuse a sequence that Keras or TensorFlow would divide among devices and
    processes in another way than is meant.
    Without it: processes read the same rows, or some rows are read by none.
14. ``fit`` notes what a model was fed, and ``model.save`` saves that; see `model_input`.
    Without it: a model predicts from features in another order or scale, and nobody is told.

Every other input reaches Keras as it was given. Installing again changes nothing; what another
import of this package has installed is replaced, and its sequences are fed as ours are.
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
from .keras_changes import Changes
from .keras_methods import give_options
from .keras_private_names import describe_missing, missing, version_of
from .model_input import read_input, write_input

_INSTALLED = "_numerai_sequence_installed"


def sequence_bases() -> tuple[type, ...]:
    """Return the ``Sequence`` classes that a sequence of ours has to inherit from.

    A Keras that lacks something takes no sequence, unless it is ``tf.keras``: see `install`.
    """
    active = active_keras()
    return tuple(
        package.utils.Sequence
        for package in _keras_packages()
        if package is active or not missing(package)
    )


def callback_bases() -> tuple[type, ...]:
    """Return the ``Callback`` classes that a callback of ours has to inherit from."""
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
    """Let models of the Keras packages that are loaded be saved with what they were fed."""
    for name in ("keras", "tf_keras"):
        model = getattr(sys.modules.get(name), "Model", None)
        found = getattr(model, "load_assets", read_input)  # that of another import of this package
        if model is not None and found.__module__ == read_input.__module__:
            model.save_assets, model.load_assets = write_input, read_input


def install(kind: type) -> None:
    """Make the Keras packages in use ready for sequences of class `kind`.

    Those of another import of this package are known by the name of their class. All that is relied
    on in a package is looked for before anything of it is changed; see `relied`.

    Raises
    ------
    NumeraiSequenceError
        The Keras in use lacks something. One that is not in use says so when it is fed a sequence.
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
