"""Buffers: memory for short-lived arrays, which is used again and so saves page faults.

The page faults of a new array of some megabytes cost as much as the computation that fills it.
`scratch_array` lends memory to a function for a moment. `Buffers` keeps the memory of arrays that
others hold.

Nothing is kept for each thread, because TensorFlow calls Python from new threads every time.
"""

from __future__ import annotations

import math
import sys
import sysconfig
from collections import deque
from typing import Any

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]

# TensorFlow and JAX do not copy an array if the address of its first byte is a multiple of this.
_ALIGNMENT = 64
# Other interpreters do not count references, or not exactly.
_CAN_COUNT = sys.implementation.name == "cpython" and not sysconfig.get_config_var(
    "Py_GIL_DISABLED"
)


def _count_references() -> int:
    """Return the reference count of an object that only one local variable refers to."""
    buffer = np.empty(0, np.uint8)
    return sys.getrefcount(buffer)


# 2 up to Python 3.13, where the call itself holds one; 1 from 3.14 on.
_FREE = _count_references()


class Buffers:
    """Arrays whose memory is used again as soon as nothing refers to them.

    A backend that aliases an array, as TensorFlow, JAX and torch do, refers to it meanwhile. Any
    number of threads may call `empty` at once. No lock is used, so a forked process cannot inherit
    a locked one.

    Parameters
    ----------
    limit : int
        Number of arrays to keep; 0 keeps none. Further arrays are new, and are freed after use.
    slack : float
        A kept array that is more than `slack` times as large as requested is dropped.
    """

    def __init__(self, limit: int, slack: float = 2) -> None:
        self._limit = limit if _CAN_COUNT else 0
        self._slack = slack
        self._kept: deque[Bytes] = deque()

    def empty(self, shape: tuple[int, ...], dtype: Any) -> npt.NDArray[Any]:
        """Return an uninitialized array, aligned to 64 bytes."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        buffer = None
        for _ in range(len(self._kept)):
            try:
                buffer = self._kept.popleft()  # atomic: it is this thread's alone now
            except IndexError:
                break
            if sys.getrefcount(buffer) != _FREE:
                self._kept.append(buffer)
            elif size <= buffer.size - _ALIGNMENT <= self._slack * size:
                break
            # A free one of another size goes: the last batch was smaller, or a batch is larger now.
            buffer = None
        if buffer is None:
            buffer = np.empty(size + _ALIGNMENT, np.uint8)
        start = -buffer.ctypes.data % _ALIGNMENT
        # NumPy lets every view refer to `buffer` itself, so its references are those in use.
        array: npt.NDArray[Any] = buffer[start : start + size].view(dtype).reshape(shape)
        if len(self._kept) < self._limit:
            self._kept.append(buffer)
        return array


# For each name, as many as are borrowed at once.
_BORROWED: dict[str, Buffers] = {}
_MOST_BORROWED = 64


def scratch_array(name: str, rows: int, width: int) -> Bytes:
    """Return a uint8 array of shape (rows, width), in memory that the same name used before.

    The memory is free again as soon as nothing refers to the array.
    """
    buffers = _BORROWED.get(name) or _BORROWED.setdefault(name, Buffers(_MOST_BORROWED, math.inf))
    array: Bytes = buffers.empty((rows, width), np.uint8)
    return array
