"""Interrupts: make a Ctrl-C end the training, even if Keras catches the KeyboardInterrupt.

Keras 3 has an ``except: pass`` around its waiting for the logs of a step, which is most of the time
on JAX and torch. A KeyboardInterrupt is lost there, and training continues.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ..errors import WorkerError

# State of the main thread: only it is interrupted.
_is_noted = False
_is_held = False


def _note(number: int, frame: FrameType | None) -> None:
    global _is_noted
    _is_noted = True
    if not _is_held:
        signal.default_int_handler(number, frame)


@contextmanager
def raise_pending_interrupt() -> Iterator[None]:
    """Raise KeyboardInterrupt at the end, after a Ctrl-C that `check` has not raised.

    It does nothing if the user, or an outer call of it, handles Ctrl-C.
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
        check()  # the interrupt may be the cause
        raise
    finally:
        _is_noted = False
        if signal.getsignal(signal.SIGINT) is _note:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def check() -> None:
    """Raise KeyboardInterrupt after a Ctrl-C that was caught or deferred.

    In a thread other than the main thread, raise a `WorkerError`, which ends the pass.
    """
    if _is_noted:
        error = KeyboardInterrupt() if is_main_thread() else WorkerError("interrupted by Ctrl-C")
        raise error from None


@contextmanager
def interrupts_deferred() -> Iterator[None]:
    """Defer a Ctrl-C to the next `check` after the block."""
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
    """Return whether this is the main thread, which a Ctrl-C interrupts."""
    return threading.get_ident() == threading.main_thread().ident
