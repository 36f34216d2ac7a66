"""Data adapters: the common part of our changes in the adapters of Keras 2 and Keras 3."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator
from typing import Any

from ..checks import is_of
from .fit_call import FitCall

_FEEDING = "_numerai_sequence_feeding"


def shortened(
    method: Callable[[Any], Iterator[Any]], kind: type, adapter: str, source: str, count: str
) -> Callable[[Any], Iterator[Any]]:
    """Return a method that runs the steps of an epoch, without those that were trained before.

    The last three arguments are names of attributes: the adapter, the adapter's sequence, and the
    number of steps.
    """

    @functools.wraps(method)
    def steps(self: Any) -> Iterator[Any]:
        fed = getattr(self, adapter)
        sequence = getattr(fed, source, None)
        if not is_of(sequence, kind):
            yield from method(self)
            return
        whole = getattr(self, count)
        setattr(self, count, whole - call_of(fed).place(fed, sequence).batch)
        try:
            yield from method(self)
        finally:
            setattr(self, count, whole)

    return steps


def call_of(adapter: Any) -> FitCall:
    """Return the call of a model's method in which an adapter was made."""
    call: FitCall | None = vars(adapter).get(_FEEDING)
    if call is None:
        call = FitCall.of(adapter)
        setattr(adapter, _FEEDING, call)
    return call


def on_its_own(dataset: Any) -> Any:
    """Return a TensorFlow dataset that waits for batches in its own thread."""
    tensorflow = importlib.import_module("tensorflow")
    options = tensorflow.data.Options()
    options.autotune.enabled = False
    options.threading.private_threadpool_size = 1
    return dataset.with_options(options)
