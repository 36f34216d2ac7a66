"""Keras 2: changes in `tf_keras`, and in TensorFlow's own Keras up to 2.15.

The numbers of the changes are in `keras_compat`.
"""

from __future__ import annotations

import functools
import importlib
from types import ModuleType
from typing import Any

from ..checks import is_of
from .data_adapters import call_of, on_its_own, shortened
from .epoch_workers import run_pass
from .keras_patches import Changes
from .keras_private_names import root_of
from .output_forms import arrange, arrays_of, without_lists
from .targets_by_name import patch_containers_2


def patch_keras_2(package: ModuleType, kind: type, changes: Changes) -> None:
    """Change how Keras 2 reads our sequences."""
    root = root_of(package)
    adapter = importlib.import_module(f"{root}.engine.data_adapter").KerasSequenceAdapter
    handle, standardize = adapter._handle_multiprocessing, adapter._standardize_batch
    get_dataset = adapter.get_dataset

    @functools.wraps(handle)
    def _handle_multiprocessing(self: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
        if not is_of(x, kind):
            return handle(self, x, *args, **kwargs)
        feeding, shuffles = call_of(self), self._shuffle_sequence
        # The adapter holds the sequence, not this function.
        return lambda: run_pass(self._keras_sequence, shuffles, feeding, self)

    @functools.wraps(standardize)
    def _standardize_batch(self: Any, data: Any) -> Any:
        if is_of(self._keras_sequence, kind):
            # The first call is from the adapter's constructor.
            data = arrange(without_lists(data), call_of(self).form(self._keras_sequence))
            floats = {array.dtype.name for array in arrays_of(data) if array.dtype.kind == "f"}
            if floats <= {package.backend.floatx()}:
                return data  # without a copy of each array, which would not be aligned
        return standardize(self, data)

    @functools.wraps(get_dataset)
    def _get_dataset(self: Any) -> Any:
        dataset = get_dataset(self)
        return on_its_own(dataset) if is_of(self._keras_sequence, kind) else dataset

    handler = importlib.import_module(adapter.__module__).DataHandler
    steps = shortened(handler.steps, kind, "_adapter", "_keras_sequence", "_inferred_steps")
    changes.set(handler, "steps", steps)
    for name, method in {
        "_handle_multiprocessing": _handle_multiprocessing,
        "_standardize_batch": _standardize_batch,
        "get_dataset": _get_dataset,
    }.items():
        changes.set(adapter, name, method)
    patch_containers_2(importlib.import_module(f"{root}.engine.compile_utils"), changes)
