"""Fit call: what belongs to one call of fit, evaluate or predict, and ends with it.

Two calls at once, in two threads, may be fed the same sequence: which call an adapter of Keras's
was made in is noted with the adapter, for it is asked for batches from any thread.
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

# Of this process, whichever import of this package asks: in a notebook there may be several.
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
    """One call of a model's method that is fed sequences of ours; to be entered around it.

    Parameters
    ----------
    forms : mapping of sequences to forms, optional
        The sequences, and the form that y of each has to have.
    options : mapping, optional
        What the call was given of `Prefetching`, which wins over what a sequence says.
    model : Keras model, optional
        Whose method it is.
    trained : NumeraiSequence, optional
        The one that ``fit`` trains on; None in ``evaluate`` and ``predict``, where the epoch is the
        sequences' own.
    first : Position
        Where ``fit`` begins, as it counts epochs.
    before : int
        Epochs that the sequence has been through before.

    Attributes
    ----------
    weights : Weights or None
        What makes the sample weights of the training pass that began last.
    given : tuple of str or None
        The names in ``target=``, in order, of what the model's outputs are compared with.
    loss
        As of ``compile``.
    width : int
        How many targets a y has that is one array.
    compares, is_ours : bool
        There is a y to compare; and all of x and y is of sequences of ours.
    refusal : Exception or None
        Why outputs cannot be compared, if they cannot.
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
        """Return the call that an adapter is made in, and note that it is; one of its own if none.

        TensorFlow keeps every generator that it was ever given, and the adapter with it, which
        shall not keep the sequence.
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
        """Take note that outputs are compared, by which names, and by which losses."""
        self.compares, self.given, self.loss = True, given, loss
        self.is_ours, self.width = is_ours, width

    def add(self, run: Run) -> None:
        """Take a pass that begins into the call."""
        self._runs = [old for old in self._runs if old.failure or not old.has_ended] + [run]

    def has(self, sequence: Any) -> bool:
        """Say whether the call is fed a sequence."""
        return sequence in self._forms

    def has_checked(self, model: Any, sequences: Iterable[Any]) -> bool:
        """Say whether the call is of this model, and is fed these sequences: then it knows them."""
        return self._model is model and all(map(self.has, sequences))

    def begin_epoch(self, number: int) -> None:
        """Take note that ``fit`` has come to an epoch."""
        if self._trained is None:  # a list of callbacks that is used again has those of old calls
            return
        self._epoch = self._before + number
        self._trained.begin_epoch(self._epoch)

    def trains(self, adapter: Any) -> bool:
        """Say whether the batches of an adapter are trained on, not validated with.

        ``fit`` makes the adapter of what it trains on before any other.
        """
        is_first = bool(self._adapters) and self._adapters[0] is adapter
        return is_first and self._trained is not None

    def place(self, adapter: Any, sequence: Any) -> Position:
        """Return where a pass of an adapter over a sequence that begins now begins.

        Each validation of ``fit`` has the order of epoch 0: with ``validation_steps`` its rows are
        the same each time.
        """
        if self._trained is None:
            return Position(sequence.epoch)
        if not self.trains(adapter):
            return Position(0)
        return self._first if self._epoch == self._first.epoch else Position(self._epoch)

    def first_batch(self, sequence: Any) -> int:
        """Return the batch of a sequence that the call begins with."""
        return self._first.batch if sequence is self._trained else 0

    def form(self, sequence: Any) -> Form:
        """Return the form that y of a sequence has to have."""
        return self._forms.get(sequence)

    def prefetching(self, sequence: Any) -> Prefetching:
        """Return who asks for the batches of a sequence."""
        found: Prefetching = sequence.prefetching._replace(**self._options)
        return found

    def cause(self, error: Exception) -> Exception | None:
        """Return how a pass failed, where TensorFlow says so in an error of its own."""
        if self.refusal is not None and self.refusal is not error:
            return self.refusal
        if not type(error).__module__.startswith("tensorflow."):
            return None
        failures = [run.failure for run in self._runs if run.failure]
        return next((found for found in failures if type(found).__name__ in str(error)), None)


def is_fed(sequence: Any) -> bool:
    """Say whether a model's method is fed a sequence at this moment."""
    return any(call.has(sequence) for call in list(_ALL))


def forget(holder: Any, *names: str) -> None:
    """Set those attributes to None that there are: Keras 3 and Keras 2 have names of their own."""
    for name in names:
        if getattr(holder, name, None) is not None:
            setattr(holder, name, None)
