"""Keras 3: changes in `keras` from 3.0 on.

The numbers of the changes are in `keras_compat`.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from ..checks import is_of
from .data_adapters import call_of, on_its_own, shortened
from .epoch_workers import run_pass
from .keras_patches import Changes
from .keras_private_names import version_of
from .output_forms import arrange, without_lists
from .targets_by_name import patch_containers_3

# Batches that TensorFlow prefetches from our generator. By default it takes any number.
_PREFETCHED = 1


def patch_keras_3(package: ModuleType, kind: type, changes: Changes) -> None:
    """Change how Keras 3 reads our sequences.

    An adapter of our own would need as many private names: Keras accepts one only from 3.7 on, and
    each backend reads its batches in another way.
    """
    module = importlib.import_module("keras.src.trainers.data_adapters.py_dataset_adapter")
    adapter = module.PyDatasetAdapter
    made, get_iterator = adapter.__init__, adapter._get_iterator
    get_dataset, standardize = adapter.get_tf_dataset, adapter._standardize_batch

    @functools.wraps(made)
    def init(self: Any, x: Any, *args: Any, **kwargs: Any) -> None:
        made(self, x, *args, **kwargs)
        if is_of(x, kind):
            self.enqueuer = None  # Keras's enqueuer for all passes, which is not started
            call_of(self)  # while the call is known

    @functools.wraps(standardize)
    def _standardize_batch(self: Any, batch: Any) -> Any:
        if is_of(self.py_dataset, kind):
            batch = arrange(without_lists(batch), call_of(self).form(self.py_dataset))
        return standardize(self, batch)

    @functools.wraps(get_iterator)
    def _get_iterator(self: Any) -> Any:
        if not is_of(self.py_dataset, kind):
            return get_iterator(self)
        # Other backends than TensorFlow read batches in the thread that trains.
        overlaps, feeding = package.backend.backend() == "tensorflow", call_of(self)
        batches = run_pass(self.py_dataset, self.shuffle, feeding, self, overlaps=overlaps)
        return (self._standardize_batch(batch) for batch in batches)

    @functools.wraps(get_dataset)
    def get_tf_dataset(self: Any) -> Any:
        if not is_of(self.py_dataset, kind):
            return get_dataset(self)
        # The pass shuffles and prefetches. Keras does neither if there is any enqueuer.
        shuffles, self.shuffle, self.enqueuer = self.shuffle, False, self.py_dataset
        try:
            return on_its_own(get_dataset(self)).prefetch(_PREFETCHED)
        finally:
            self.shuffle, self.enqueuer = shuffles, None

    for owner, name in _epochs_of_keras_3(package):
        method = getattr(owner, name)
        if name == "enumerate_epoch":
            method = _from_first_batch(method, kind)
        steps = shortened(method, kind, "data_adapter", "py_dataset", "_num_batches")
        changes.set(owner, name, steps)
    for name, method in {
        "__init__": init,
        "_get_iterator": _get_iterator,
        "get_tf_dataset": get_tf_dataset,
        "_standardize_batch": _standardize_batch,
    }.items():
        changes.set(adapter, name, method)
    patch_containers_3(importlib.import_module("keras.src.trainers.compile_utils"), changes)


def _epochs_of_keras_3(keras: ModuleType) -> list[tuple[Any, str]]:
    """Return the classes, and the name of the method in each, that run an epoch's steps."""
    epochs = importlib.import_module("keras.src.trainers.epoch_iterator").EpochIterator
    if version_of(keras) >= (3, 7):
        return [(epochs, "_enumerate_iterator")]
    found = [(epochs, "enumerate_epoch")]
    if keras.backend.backend() == "tensorflow":
        trainer = importlib.import_module("keras.src.backend.tensorflow.trainer")
        found.append((trainer.TFEpochIterator, "enumerate_epoch"))
    return found


def _from_first_batch(
    method: Callable[[Any], Iterator[Any]], kind: type
) -> Callable[[Any], Iterator[Any]]:
    """Return a method that begins a new pass each time, unless it trains.

    Up to Keras 3.6, a validation with ``validation_steps`` would continue where the last one ended,
    with other rows.
    """

    @functools.wraps(method)
    def steps(self: Any) -> Iterator[Any]:
        adapter = self.data_adapter
        sequence = getattr(adapter, "py_dataset", None)
        if is_of(sequence, kind) and not call_of(adapter).trains(adapter):
            self._current_iterator = None
        yield from method(self)

    return steps
