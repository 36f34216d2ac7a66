"""Socket messages: send Python values through a socket, without copies of their arrays.

A message is the number of its parts, the size of each as 8 bytes, and the parts: a pickle, and then
the memory of the arrays.
"""

from __future__ import annotations

import pickle
import socket
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]

#: Function of a shape and a dtype that returns an uninitialized array.
Empty = Callable[[tuple[int, ...], Any], npt.NDArray[Any]]


def pack(value: Any) -> list[memoryview]:
    """Return the parts of a message. Parts of arrays are views."""
    arrays: list[pickle.PickleBuffer] = []
    first = pickle.dumps(value, protocol=5, buffer_callback=arrays.append)
    return [memoryview(first), *(array.raw() for array in arrays)]


def unpack(parts: list[memoryview]) -> Any:
    """Return the value, whose arrays are views of the parts."""
    first, *arrays = parts
    return pickle.loads(first, buffers=arrays)


def write(end: socket.socket, parts: list[memoryview]) -> None:
    """Send the parts.

    Raises
    ------
    OSError
        The other end is closed.
    """
    sizes = [part.nbytes for part in parts]
    end.sendall(struct.pack(f"!Q{len(sizes)}Q", len(sizes), *sizes))
    for part in parts:
        end.sendall(part)


def read(end: socket.socket, empty: Empty = np.empty) -> list[memoryview]:
    """Receive the parts.

    Parameters
    ----------
    end : socket
    empty : function of a shape and a dtype
        Function that returns memory for the largest part.

    Raises
    ------
    EOFError, OSError
        The other end is closed.
    """
    (count,) = struct.unpack("!Q", _fill(end, np.empty(8, np.uint8)))
    sizes = struct.unpack(f"!{count}Q", _fill(end, np.empty(8 * count, np.uint8)))
    largest = max(sizes)
    return [
        _fill(end, (empty if size == largest else np.empty)((size,), np.uint8)) for size in sizes
    ]


def _fill(end: socket.socket, array: Bytes) -> memoryview:
    left = array.data
    while left:
        count = end.recv_into(left)
        if not count:
            raise EOFError
        left = left[count:]
    return array.data
