"""Page faults: turn a failed page fault in a mapped file into an error instead of a crash.

If a mapped file is truncated or its disk fails, the next access to a lost page raises the signal
SIGBUS, which kills the process. The handler here maps zeros from that page to the end of the map,
and marks the map as lost. Readers check the mark after they have copied data from the map. The
guard costs nothing until a fault. Other causes of SIGBUS go to the handler that was installed
before.

Python's own signal handlers cannot do this: they run between bytecodes, and the interrupted
instruction would be retried forever. So this module calls libc, with the structures of 64-bit
Linux. On other systems nothing is guarded.
"""

from __future__ import annotations

import ctypes
import mmap
import platform
import signal
import sys
import weakref
from typing import Any

from ..system.fork_safe_locks import ForkSafeLock

_CAN_GUARD = sys.platform == "linux" and platform.machine() in ("x86_64", "aarch64")

_SA_SIGINFO, _SA_NODEFER = 4, 0x40000000
_MAP_PRIVATE, _MAP_FIXED, _MAP_ANONYMOUS = 0x02, 0x10, 0x20
_ADDRESS_IN_SIGINFO = 16
_HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)


class _Action(ctypes.Structure):
    """The ``struct sigaction`` of glibc and musl."""

    _fields_ = [
        ("handler", ctypes.c_void_p),
        ("mask", ctypes.c_ulong * 16),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    ]


class Guard:
    """A guard of one map, from its creation until the map is closed.

    Parameters
    ----------
    map_ : mmap
    address : int
        Start of the map in memory.

    Attributes
    ----------
    lost : bool
        Whether a page could not be read and part of the map now holds zeros.
    """

    def __init__(self, map_: mmap.mmap, address: int) -> None:
        self.start, self.stop = address, address + len(map_)
        self.lost = False
        if _CAN_GUARD:
            _install()
            _GUARDS[self.start] = self
            weakref.finalize(map_, _forget, self).atexit = False

    def replace(self, address: int) -> None:
        """Map zeros from the page of an address to the end of the map."""
        page = address // mmap.PAGESIZE * mmap.PAGESIZE
        flags = _MAP_PRIVATE | _MAP_FIXED | _MAP_ANONYMOUS
        _INSTALLED[0].mmap(page, self.stop - page, mmap.PROT_READ, flags, -1, 0)
        self.lost = True


# Guards by the start of their map.
_GUARDS: dict[int, Guard] = {}
_LOCK = ForkSafeLock()
# libc, the previous handler, and our handler, which must not be garbage-collected.
_INSTALLED: list[Any] = []


def _forget(guard: Guard) -> None:
    if _GUARDS.get(guard.start) is guard:  # a newer map may have this address
        del _GUARDS[guard.start]


def _install() -> None:
    with _LOCK:
        if _INSTALLED:
            return
        # Not on the alternate signal stack, if there is one: it is too small for Python.
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
