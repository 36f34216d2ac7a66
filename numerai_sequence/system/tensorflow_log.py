"""TensorFlow log: a filter that hides TensorFlow's log lines on stderr, and shows all other lines.

TensorFlow and its libraries log before they read ``TF_CPP_MIN_LOG_LEVEL``, and with JAX long after
the start. So a filter process reads all that C++ and child processes write to the descriptor. It
also shows the last lines of a process that crashes. Python's own stderr bypasses it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

LEVEL = "TF_CPP_MIN_LOG_LEVEL"
_WAIT_SECONDS = 5

# Information, warnings and errors; fatal lines are shown. Their form is abseil's, or TensorFlow's
# earlier one; then the line before the first one, and the second line of another one.
_LOG = (
    rb"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: )?[IWE](\d{4} [\d:.]+ +\d+ | (tensorflow|external)/)"
    rb"|WARNING: All log messages before absl::InitializeLog\(\) is called"
    rb"|To enable the following instructions: "
)

_FILTER = f"""
import os, re, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
is_log = re.compile({_LOG!r}).match
for line in os.fdopen(0, "rb"):
    if not is_log(line):
        os.write(1, line)
"""


@contextmanager
def without_logs() -> Iterator[None]:
    """Hide the log lines of TensorFlow's start, unless the user has set a log level."""
    if LEVEL in os.environ:
        yield
        return
    os.environ[LEVEL] = "2"
    try:
        reader = _start_filter()
        if reader is None:
            yield
            return
        own = os.fdopen(os.dup(2), "w", 1, encoding="locale", errors="backslashreplace")
        shown, sys.stderr = sys.stderr, own
        os.dup2(reader.stdin.fileno(), 2)
        reader.stdin.close()
        try:
            yield
        finally:
            own.flush()
            os.dup2(own.fileno(), 2)
            sys.stderr = shown
            own.close()
            with suppress(subprocess.TimeoutExpired):  # a child may still hold its end
                reader.wait(_WAIT_SECONDS)
    finally:
        os.environ.pop(LEVEL, None)


def _start_filter() -> Any:
    """Start the filter; None if stderr is not the process's own, such as in a notebook."""
    stderr = sys.__stderr__
    if stderr is None or sys.stderr is not stderr:
        return None
    try:
        if stderr.fileno() != 2:
            return None
        stderr.flush()
        return subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _FILTER],
            stdin=subprocess.PIPE,
            stdout=2,
            start_new_session=True,
        )
    except (OSError, ValueError):
        return None
