"""Forked child: run a function in a process that is forked from a server with all imports done.

Such a process starts within milliseconds, and may be killed.
"""

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[2]
WAIT_SECONDS = 60
_CONTEXT = multiprocessing.get_context("forkserver")


@dataclass(frozen=True)
class End:
    """How a child ended: its exit code, and what its task returned; None where it was killed."""

    code: int
    found: Any


class Child:
    """A process that calls a function once it is told to `go`."""

    def __init__(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> None:
        self._pipe, pipe = _CONTEXT.Pipe()
        call = (pipe, function, arguments, options)
        self._process = _CONTEXT.Process(target=_live, args=call, daemon=True)
        self._process.start()
        pipe.close()
        self._pipe.recv()

    def go(self) -> "Child":
        self._pipe.send(None)
        return self

    def kill_after(self, seconds: float) -> None:
        time.sleep(seconds)
        self._process.kill()

    def end(self) -> End:
        """Wait for the child; fail if it hangs."""
        try:
            found = self._pipe.recv() if self._pipe.poll(WAIT_SECONDS) else None
        except (EOFError, ConnectionResetError):
            found = None
        self._process.join(WAIT_SECONDS)
        code = self._process.exitcode
        if code is None:
            self._process.kill()
            self._process.join()
            raise TimeoutError(f"a child hangs for {WAIT_SECONDS} s")
        self._process.close()
        self._pipe.close()
        return End(code, found)


def run(function: Callable[..., Any], *arguments: Any, **options: Any) -> End:
    """Run a task in a child."""
    return Child(function, *arguments, **options).go().end()


@contextmanager
def fork_server(modules: Sequence[str]) -> Iterator[None]:
    """Keep a process from which children are forked, with these modules imported."""
    path = os.pathsep.join(map(str, (TESTS, TESTS.parent)))
    # Threads do not survive a fork; and no child of ours needs another core.
    before = dict(os.environ)
    os.environ.update(PYTHONPATH=path, OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1")
    _CONTEXT.set_forkserver_preload(list(modules))
    try:
        run(os.getpid)
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _live(
    pipe: Connection, function: Callable[..., Any], arguments: Any, options: dict[str, Any]
) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    pipe.send(None)
    pipe.recv()
    pipe.send(function(*arguments, **options))
