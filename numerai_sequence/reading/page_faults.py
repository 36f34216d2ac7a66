"""Guard: a mapped page that cannot be read becomes zeros and a mark, not the end of the process.

When a mapped file is cut off by somebody, or its disk fails, the next touch of a page that is gone
is the signal SIGBUS, which ends a process. Here a handler puts pages of zeros in its place, from
that page to the map's end, and notes that these are not the file's; who has copied something out of
the map asks afterwards. Until then it costs nothing. A SIGBUS of another's goes to the handler that
was there before.

Python cannot handle this signal by itself: its handlers run between bytecodes, and the instruction
that was interrupted would be tried again for ever. So libc is called, whose structures these are
on 64-bit Linux; elsewhere nothing is guarded.
"""

from __future__ import annotations

import ctypes
import mmap
import platform
import signal
import sys
import weakref
from typing import Any

from ..system.locks import ForkSafeLock

_CAN_GUARD = sys.platform == "linux" and platform.machine() in ("x86_64", "aarch64")

_SA_SIGINFO, _SA_NODEFER = 4, 0x40000000
_MAP_PRIVATE, _MAP_FIXED, _MAP_ANONYMOUS = 0x02, 0x10, 0x20
_ADDRESS_IN_SIGINFO = 16
_HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)


class _Action(ctypes.Structure):
    """What glibc and musl call ``struct sigaction``."""

    _fields_ = [
        ("handler", ctypes.c_void_p),
        ("mask", ctypes.c_ulong * 16),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    ]


class Guard:
    """Guards a map for as long as it lives.

    Parameters
    ----------
    map_ : mmap
    address : int
        Where it starts in memory.

    Attributes
    ----------
    lost : bool
        Whether a page could not be read, and some of the map now holds zeros.
    """

    def __init__(self, map_: mmap.mmap, address: int) -> None:
        self.start, self.stop = address, address + len(map_)
        self.lost = False
        if _CAN_GUARD:
            _install()
            _GUARDS[self.start] = self
            weakref.finalize(map_, _forget, self).atexit = False

    def replace(self, address: int) -> None:
        """Put zeros in the place of what is mapped from an address on."""
        page = address // mmap.PAGESIZE * mmap.PAGESIZE
        flags = _MAP_PRIVATE | _MAP_FIXED | _MAP_ANONYMOUS
        _INSTALLED[0].mmap(page, self.stop - page, mmap.PROT_READ, flags, -1, 0)
        self.lost = True


# By where they start.
_GUARDS: dict[int, Guard] = {}
_LOCK = ForkSafeLock()
# libc, the handler before ours, and ours, which must not be collected.
_INSTALLED: list[Any] = []


def _forget(guard: Guard) -> None:
    if _GUARDS.get(guard.start) is guard:  # and not one of a map that is there by now
        del _GUARDS[guard.start]


def _install() -> None:
    with _LOCK:
        if _INSTALLED:
            return
        # Not on the signal stack that there may be: it is too small for Python.
        flags = _SA_SIGINFO | _SA_NODEFER
        handler, before = _HANDLER(_on_bus_error), _Action()
        pointer = ctypes.cast(handler, ctypes.c_void_p).value
        action = _Action(pointer, (ctypes.c_ulong * 16)(), flags, None)
        libc = _open_libc()
        _INSTALLED.extend((libc, before, handler))
        libc.sigaction(signal.SIGBUS, ctypes.byref(action), ctypes.byref(before))


def _on_bus_error(number: int, info: int, context: int) -> None:
    """Run in the thread that touched the page, which then reads it again."""
    address = ctypes.c_void_p.from_address(info + _ADDRESS_IN_SIGINFO).value or 0
    for guard in list(_GUARDS.values()):
        if guard.start <= address < guard.stop:
            guard.replace(address)
            return
    libc, before, _ = _INSTALLED
    libc.sigaction(number, ctypes.byref(before), None)


def _open_libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None)
    word, size = ctypes.c_void_p, ctypes.c_size_t
    libc.mmap.restype = word
    libc.mmap.argtypes = word, size, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long
    return libc
