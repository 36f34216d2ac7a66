"""Page cache: which pages of a file are in it, and a file that is dropped from it."""

from __future__ import annotations

import ctypes
import mmap
import os
import sys

import numpy as np
import pytest

is_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux's own")


def cached(path):
    """Which pages of a file are in the page cache."""
    with open(path, "rb") as file:
        map_ = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ | mmap.PROT_WRITE, flags=2)
    pages = -(-len(map_) // mmap.PAGESIZE)
    vector = (ctypes.c_ubyte * pages)()
    start = ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(map_)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mincore(start, ctypes.c_size_t(len(map_)), vector):
        pytest.skip("the kernel does not tell which pages are cached")
    return np.frombuffer(vector, np.uint8) & 1 == 1


def drop(paths):
    for path in paths:
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        if cached(path).mean() > 0.05:
            pytest.skip("these files cannot be dropped from the page cache")
