"""Patched methods: make ``fit``, ``evaluate`` and ``predict`` accept our sequences and options."""

from __future__ import annotations

import functools
import gc
import inspect
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

from ..batching.prefetching import Prefetching, check_options
from ..checks import is_of
from .distribution import check_distribution
from .epoch_callback import follow
from .fit_call import FitCall, forget
from .interrupts import raise_pending_interrupt
from .keras_patches import Changes
from .keras_private_names import enclosed
from .model_input import check_inputs, input_noted, note_input
from .output_forms import Form, find_form
from .targets_by_name import given_loss
from .y_for_outputs import Names

OPTIONS = Prefetching._fields

Bases = Callable[[], tuple[type, ...]]


def give_options(
    model: type, name: str, kind: type, changes: Changes, callback_bases: Bases
) -> None:
    """Make a method of Keras's Model accept `OPTIONS` with our sequences.

    In ``model.fit(NumeraiSequence(shards), workers=4)``, Python looks up ``model.fit`` before it
    makes the sequence, so a new attribute of the class would be too late. Every Keras wraps these
    methods to shorten their tracebacks, so the wrapped function is replaced instead.
    """
    owner = next(parent for parent in model.__mro__ if name in vars(parent))
    cell = enclosed(vars(owner)[name])
    if cell is not None:  # on NumPy no model is fit
        changes.set_cell(cell, _with_options(cell.cell_contents, kind, callback_bases))


def _with_options(
    original: Callable[..., Any], kind: type, callback_bases: Bases
) -> Callable[..., Any]:
    signature = inspect.signature(original)

    @functools.wraps(original)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        ours: list[Any] = [one for one in (*args, *kwargs.values()) if is_of(one, kind)]
        if not ours:
            return original(self, *args, **kwargs)
        options = {}
        if is_of(args[0] if args else kwargs.get("x"), kind):
            options = check_options(
                **{option: kwargs.pop(option) for option in OPTIONS if option in kwargs}
            )
        given = signature.bind_partial(self, *args, **kwargs)
        is_compared = original.__name__ != "predict"  # which ignores y
        forms = {one: _form(one, self) if is_compared else None for one in ours}
        is_fed = is_of(given.arguments.get("x"), kind)
        is_trained = original.__name__ == "fit" and is_fed
        trained = given.arguments["x"] if is_trained else None
        around = FitCall.present()
        if around is None or not around.has_checked(self, ours):  # as of a fit that validates
            check_inputs(self, original.__name__, ours, trained)
        with raise_pending_interrupt(), ExitStack() as stack:
            if original.__name__ == "fit":
                call = follow(given.arguments, forms, options, callback_bases(), stack)
                stack.enter_context(call)
                # After an interrupted fit of Keras 2, the next one would use it.
                stack.callback(forget, self, "_eval_data_handler")
            else:
                call = stack.enter_context(FitCall(forms, options, model=self))
            for one in ours:
                first = call.first_batch(one)
                check_distribution(one, self, original.__name__, given.arguments, first)
            if is_compared:
                one = given.arguments["x"] if is_fed else ours[0]
                width = len(one.target) if isinstance(one.target, tuple) else 1
                named = _names(one, trained, self)
                call.compare(named, given_loss(self), is_ours=is_fed, width=width)
            if is_trained:
                note_input(self, trained)
            try:
                return original(*given.args, **given.kwargs)
            except Exception as error:
                cause = call.cause(error)
                if cause is None:
                    raise
        # TensorFlow's error is in a reference cycle with its iterator. If the iterator's thread
        # still ran when the interpreter exits, Python would wait for it forever.
        gc.collect()
        try:
            raise cause
        finally:
            del cause  # or it would be in a reference cycle

    return method


def _names(fed: Any, trained: Any, model: Any) -> Names | None:
    """Return the names of a model's outputs, in order, if only ``target=`` names them."""
    named = tuple(fed.target) if isinstance(fed.target, Mapping) else None
    noted = input_noted(model).outputs
    is_noted = noted is not None and {*(named or ())} <= {*noted}
    return noted if is_noted and trained is None else named


def _form(sequence: Any, model: Any) -> Form:
    names = sequence.target
    return find_form(model, names) if isinstance(names, Mapping) else None
