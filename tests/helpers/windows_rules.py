"""Windows: take its ways on in this process, as far as Linux can be made to have them.

A file that is open or mapped is not replaced, renamed or deleted; a folder cannot be opened; one
sees a file onto the disk only through a descriptor that may write; files are locked by msvcrt;
processes are spawned, and fetch their sockets, which are of TCP; NumPy's integers have 32 bits.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import mmap
import multiprocessing
import os
import platform
import shutil
import signal
import socket
import stat
import subprocess  # noqa: F401 - before there is an msvcrt, by which it knows Windows
import sys
import tempfile
import types
from multiprocessing import resource_sharer
from multiprocessing.reduction import ForkingPickler

import numpy as np

LACKING = (
    "fork preadv pread pwrite pwritev posix_fadvise posix_fallocate sched_getaffinity sysconf "
    "getuid geteuid getloadavg O_NONBLOCK O_DIRECTORY O_CLOEXEC"
)
AVAILABLE_BYTES = 3_000_000_000


def take_on():
    """Begin to be as Windows is. Comes before the package is imported."""
    _take_away()
    _lock_as_windows()
    for module, name in ((os, "unlink"), (os, "remove"), (os, "rmdir")):
        setattr(module, name, _refusing(getattr(module, name), 32))
    for name in ("replace", "rename"):
        setattr(os, name, _refusing(getattr(os, name), 5))
    shutil._use_fd_functions = False
    tempfile.TemporaryFile = tempfile.NamedTemporaryFile  # the other one is deleted while open
    os.open, os.fsync = _open_no_folder(os.open), _sync_what_may_write(os.fsync)
    ctypes.windll = types.SimpleNamespace(kernel32=_Kernel)
    _connect_by_tcp()
    multiprocessing.set_start_method("spawn", force=True)


def _take_away():
    for name in LACKING.split():
        delattr(os, name)
    for name in ("pthread_sigmask", "SIGHUP"):
        delattr(signal, name)
    platform.machine = lambda: "AMD64"  # for which no SIGBUS is guarded
    for module in (os, mmap):
        for name in [name for name in dir(module) if name.startswith(("MADV_", "POSIX_FADV_"))]:
            delattr(module, name)


def _lock_as_windows():
    import fcntl

    def lock(descriptor, mode, size):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES)) from None

    sys.modules |= {"fcntl": None, "resource": None}
    sys.modules["msvcrt"] = types.SimpleNamespace(locking=lock, LK_NBLCK=2)
    import numerai_sequence.writing.folder_claim  # noqa: F401

    del sys.modules["msvcrt"]  # others know Windows by it


def in_use():
    """Return what is open or mapped in this process and its children, as (device, inode)."""
    paths = set()
    for process in ["self", *(str(child.pid) for child in multiprocessing.active_children())]:
        folder = f"/proc/{process}/fd"
        paths |= {f"{folder}/{name}" for name in os.listdir(folder)}
        with open(f"/proc/{process}/maps", "rb") as file:
            mapped = {line.split(maxsplit=5)[5:][0] for line in file if line.count(b"/") > 0}
        paths |= {os.fsdecode(path.rstrip()) for path in mapped if b".so" not in path}
    found = set()
    for path in paths:
        with contextlib.suppress(OSError):
            status = os.stat(path)
            found.add((status.st_dev, status.st_ino))
    return found


def _refusing(call, winerror):
    @functools.wraps(call)
    def refusing(path, *others, **options):
        for one in (path, *others):
            try:
                status = os.lstat(one)
            except OSError:
                continue
            if stat.S_ISREG(status.st_mode) and (status.st_dev, status.st_ino) in in_use():
                error = PermissionError(errno.EACCES, "in use by another process", str(path))
                error.winerror = winerror
                raise error
        return call(path, *others, **options)

    return refusing


def _open_no_folder(call):
    @functools.wraps(call)
    def open_file(path, *arguments, **options):
        if os.path.isdir(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return call(path, *arguments, **options)

    return open_file


def _sync_what_may_write(call):
    @functools.wraps(call)
    def sync(descriptor):
        with open(f"/proc/self/fdinfo/{descriptor}", encoding="ascii") as file:
            flags = next(int(line.split()[1], 8) for line in file if line.startswith("flags:"))
        if flags & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return call(descriptor)

    return sync


class _Kernel:
    @staticmethod
    def GlobalMemoryStatusEx(pointer):  # noqa: N802
        sizes = pointer._obj
        assert ctypes.sizeof(sizes) == sizes.length == 64
        sizes.available = AVAILABLE_BYTES
        return 1


def _connect_by_tcp():
    def pair():
        with socket.create_server(("127.0.0.1", 0)) as server:
            one = socket.create_connection(server.getsockname())
            return one, server.accept()[0]

    socket.socketpair = pair
    ForkingPickler.register(
        socket.socket, lambda end: (_fetch, (resource_sharer.DupFd(end.fileno()),))
    )


def _fetch(end):
    return socket.socket(fileno=end.detach())


def number_in_32_bits():
    """Have NumPy make 32-bit integers of Python's, where they fit, as NumPy 1 does on Windows."""

    def narrowing(call):
        @functools.wraps(call)
        def made(*arguments, **options):
            array = call(*arguments, **options)
            given = arguments[:1] if call is cumsum else arguments
            kinds = [options.get("dtype"), *given]
            kinds = [
                kind if isinstance(kind, type) else getattr(kind, "dtype", kind) for kind in kinds
            ]
            is_given = any(isinstance(kind, (type, np.dtype)) for kind in kinds)
            if call is cumsum and getattr(given[0], "dtype", None) == np.int32:
                is_given = "dtype" in options
            if is_given or array.dtype != np.int64 or not array.size:
                return array
            fits = array.min() >= -(2**31) and array.max() < 2**31
            return array.astype(np.int32) if fits or call is cumsum else array

        return made

    cumsum = np.cumsum
    for name in ("arange", "array", "asarray", "full", "cumsum"):
        setattr(np, name, narrowing(getattr(np, name)))
