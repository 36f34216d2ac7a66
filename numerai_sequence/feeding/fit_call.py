"""Fit call: the state of one call of fit, evaluate or predict, which ends with the call.

Two threads may use one sequence in two calls at once. Keras's adapter may be asked for batches from
any thread, so the adapter has a reference to its call.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from contextvars import ContextVar, Token
from types import ModuleType, TracebackType
from typing import Any, Protocol

from ..batching.epoch import Position
from ..batching.prefetching import Prefetching
from .interrupts import interrupts_deferred
from .output_forms import Form

# Shared by all imports of this package in this process: a notebook may have several.
_SHARED: Any = sys.modules.setdefault("_numerai_sequence_feedings", ModuleType("feedings"))
_PRESENT: ContextVar[FitCall | None] = vars(_SHARED).setdefault(
    "PRESENT", ContextVar("PRESENT", default=None)
)
_ALL: set[FitCall] = vars(_SHARED).setdefault("ALL", set())


class Run(Protocol):
    """A pass at work."""

    failure: Exception | None
    has_ended: bool

    def end(self) -> None: ...


class FitCall:
    """The context manager around a call of a model's method that gets our sequences.

    Parameters
    ----------
    forms : mapping of sequences to forms, optional
        The sequences, and the form of y for each.
    options : mapping, optional
        Options of `Prefetching` for this call, which take precedence over the sequence's.
    model : Keras model, optional
        Model of the method.
    trained : NumeraiSequence, optional
        Sequence for training. None in ``evaluate`` and ``predict``, which use the sequence's own
        epoch.
    first : Position
        Position at which ``fit`` begins, in epochs of ``fit``.
    before : int
        Number of earlier epochs of the sequence.

    Attributes
    ----------
    weights : Weights or None
        `Weights` of the newest training pass.
    given : tuple of str or None
        Names in ``target=``, in order.
    loss
        Loss of ``compile``.
    width : int
        Number of targets in a y that is one array.
    compares, is_ours : bool
        Whether there is a y to compare; and whether all of x and y is from our sequences.
    refusal : Exception or None
        Error that says why y cannot be compared with the outputs.
    """

    def __init__(
        self,
        forms: Mapping[Any, Form] | None = None,
        options: Mapping[str, Any] | None = None,
        *,
        model: Any = None,
        trained: Any = None,
        first: Position | None = None,
        before: int = 0,
    ) -> None:
        self._forms, self._options = forms or {}, options or {}
        self._model, self._trained, self._before = model, trained, before
        epoch, batch = first or (0, 0)
        self._first = Position(before + epoch, batch)
        self._epoch = self._first.epoch
        self.weights: Any = None
        self.given: tuple[str, ...] | None = None
        self.compares = self.is_ours = False
        self.loss: Any = None
        self.width = 1
        self.refusal: Exception | None = None
        self._runs: list[Run] = []
        self._adapters: list[Any] = []

    @classmethod
    def of(cls, adapter: Any) -> FitCall:
        """Return the call in which an adapter is made, and remember the adapter; or a new call.

        TensorFlow keeps every generator, and so the adapter, forever. At the end of the call, the
        adapter forgets the sequence.
        """
        call = _PRESENT.get()
        if call is None:
            return cls()
        call._adapters.append(adapter)
        return call

    @classmethod
    def present(cls) -> FitCall | None:
        """Return the call that this thread is in."""
        return _PRESENT.get()

    def __enter__(self) -> FitCall:
        self._token: Token[FitCall | None] = _PRESENT.set(self)
        _ALL.add(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with interrupts_deferred():
            _PRESENT.reset(self._token)
            _ALL.discard(self)
            # They would end by themselves, but only when their generators are garbage.
            for run in self._runs:
                run.end()
                run.failure = None
            for adapter in self._adapters:
                forget(adapter, "py_dataset", "_keras_sequence")
            # An adapter keeps its call.
            self._forms, self._runs, self._adapters = {}, [], []
            self._model = self._trained = None

    def compare(
        self, given: tuple[str, ...] | None, loss: Any, *, is_ours: bool, width: int
    ) -> None:
        """Set that outputs are compared, with their names and losses."""
        self.compares, self.given, self.loss = True, given, loss
        self.is_ours, self.width = is_ours, width

    def add(self, run: Run) -> None:
        """Add a new pass to the call."""
        self._runs = [old for old in self._runs if old.failure or not old.has_ended] + [run]

    def has(self, sequence: Any) -> bool:
        """Return whether the call gets a sequence."""
        return sequence in self._forms

    def has_checked(self, model: Any, sequences: Iterable[Any]) -> bool:
        """Return whether the call is of this model and gets these sequences."""
        return self._model is model and all(map(self.has, sequences))

    def begin_epoch(self, number: int) -> None:
        """Begin an epoch of ``fit``."""
        if self._trained is None:  # a reused list of callbacks has callbacks of old calls
            return
        self._epoch = self._before + number
        self._trained.begin_epoch(self._epoch)

    def trains(self, adapter: Any) -> bool:
        """Return whether the batches of an adapter are for training, not for validation.

        ``fit`` makes the adapter for training first.
        """
        is_first = bool(self._adapters) and self._adapters[0] is adapter
        return is_first and self._trained is not None

    def place(self, adapter: Any, sequence: Any) -> Position:
        """Return the position at which a new pass of an adapter over a sequence begins.

        Every validation of ``fit`` uses the order of epoch 0, so that ``validation_steps`` selects
        the same rows each time.
        """
        if self._trained is None:
            return Position(sequence.epoch)
        if not self.trains(adapter):
            return Position(0)
        return self._first if self._epoch == self._first.epoch else Position(self._epoch)

    def first_batch(self, sequence: Any) -> int:
        """Return the first batch of a sequence in the call."""
        return self._first.batch if sequence is self._trained else 0

    def form(self, sequence: Any) -> Form:
        """Return the form of y for a sequence."""
        return self._forms.get(sequence)

    def prefetching(self, sequence: Any) -> Prefetching:
        """Return the options of the workers for a sequence."""
        found: Prefetching = sequence.prefetching._replace(**self._options)
        return found

    def cause(self, error: Exception) -> Exception | None:
        """Return the error of a pass that TensorFlow reports as an error of its own."""
        if self.refusal is not None and self.refusal is not error:
            return self.refusal
        if not type(error).__module__.startswith("tensorflow."):
            return None
        failures = [run.failure for run in self._runs if run.failure]
        return next((found for found in failures if type(found).__name__ in str(error)), None)


def is_fed(sequence: Any) -> bool:
    """Return whether a sequence is in use by a model's method."""
    return any(call.has(sequence) for call in list(_ALL))


def forget(holder: Any, *names: str) -> None:
    """Set existing attributes to None: their names differ in Keras 3 and Keras 2."""
    for name in names:
        if getattr(holder, name, None) is not None:
            setattr(holder, name, None)
