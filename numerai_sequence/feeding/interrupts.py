"""Interrupts: a Ctrl-C ends what it was meant for, though someone on the way catches it.

Keras 3 has an ``except: pass`` about where it waits for the logs of a step, which is most of the
time on JAX and torch: the KeyboardInterrupt of a Ctrl-C is lost there, and training goes on.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ..errors import WorkerError

# Of the main thread: only it is interrupted.
_is_noted = False
_is_held = False


def _note(number: int, frame: FrameType | None) -> None:
    global _is_noted
    _is_noted = True
    if not _is_held:
        signal.default_int_handler(number, frame)


@contextmanager
def raise_pending_interrupt() -> Iterator[None]:
    """Raise KeyboardInterrupt in the end, if there was a Ctrl-C meanwhile that `check` did not.

    Where the user, or another one of these, handles Ctrl-C, this does nothing.
    """
    global _is_noted
    if not is_main_thread() or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, _note)
    try:
        yield
        check()
    except Exception:
        check()  # it may well have come of the interrupt
        raise
    finally:
        _is_noted = False
        if signal.getsignal(signal.SIGINT) is _note:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def check() -> None:
    """Raise KeyboardInterrupt where a Ctrl-C was caught by someone, or held back.

    In another thread than the main one, which it would not end, an error that ends the pass.
    """
    if _is_noted:
        error = KeyboardInterrupt() if is_main_thread() else WorkerError("interrupted by Ctrl-C")
        raise error from None


@contextmanager
def interrupts_deferred() -> Iterator[None]:
    """Let a Ctrl-C wait until this has been done, and whoever checks next."""
    global _is_held
    if not is_main_thread():
        yield
        return
    before, _is_held = _is_held, True
    try:
        yield
    finally:
        _is_held = before


def is_main_thread() -> bool:
    """Say whether this is the thread that a Ctrl-C interrupts."""
    return threading.get_ident() == threading.main_thread().ident
