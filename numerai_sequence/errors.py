"""Errors: the exceptions of the package, with the data that a program needs to react to them.

Each is made from one message and optional keyword data, so that it survives pickling. An exception
that cannot be unpickled hangs a pool of worker processes.
"""

from __future__ import annotations

import difflib
import errno as codes
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

_OUT_OF_MEMORY = ("can't start new thread", "Failed to launch worker thread", "std::bad_alloc")


class NumeraiSequenceError(Exception):
    """Base class of all errors of the package.

    Parameters
    ----------
    message : str
        The problem, its place, the value found, the value expected, and the remedy.
    **data
        Values of the class's ``fields``. A field that is not given is None.
    """

    fields: ClassVar[tuple[str, ...]] = ()

    def __init__(self, message: str, **data: Any) -> None:
        unknown = set(data) - set(self.fields)
        if unknown:
            raise TypeError(f"{type(self).__name__} has no field {sorted(unknown)}")
        super().__init__(message)
        self.message = message
        for field in self.fields:
            setattr(self, field, data.get(field))

    def __str__(self) -> str:
        return self.message


class SourceError(NumeraiSequenceError):
    """A Parquet source cannot be used. Has `path` and, if known, `column` and `row` (from 0)."""

    fields = ("path", "column", "row")
    path: Any
    column: str | None
    row: int | None


class OutputExistsError(NumeraiSequenceError, FileExistsError):
    """The output folder is in use, or already holds something else. Has `path`."""

    fields = ("path",)
    path: Any


class OutputError(NumeraiSequenceError, OSError):
    """The system refuses a write, for example on a full disk. Has `path` and `errno`."""

    fields = ("path", "errno")
    path: Any

    def __reduce__(self) -> Any:
        # Python keeps errno where a pickle does not look for it.
        return type(self), self.args, {**vars(self), "errno": self.errno}


class OutOfMemoryError(NumeraiSequenceError, MemoryError):
    """Out of memory while writing. Has `path`."""

    fields = ("path",)
    path: Any


class ManifestError(NumeraiSequenceError):
    """A manifest is missing, damaged or of an unknown version. Has `path`, `found`, `expected`."""

    fields = ("path", "found", "expected")
    path: Any
    found: Any
    expected: Any


class CorruptShardError(NumeraiSequenceError):
    """A shard file has a wrong size, schema or checksum. Has `path`, `found`, `expected`."""

    fields = ("path", "found", "expected")
    path: Any
    found: Any
    expected: Any


class EraError(NumeraiSequenceError, ValueError):
    """Eras do not exist, or cannot be used. Has `eras`."""

    fields = ("eras",)
    eras: Any


class FeatureError(NumeraiSequenceError, ValueError):
    """A feature, feature set or target is unknown, or does not fit. Has `names`."""

    fields = ("names",)
    names: Any


class PredictionError(NumeraiSequenceError, ValueError):
    """Predictions, of this package or of other models, cannot be used.

    It is not public: catch it as a `NumeraiSequenceError` or a `ValueError`.
    """


class ResumeError(NumeraiSequenceError, ValueError):
    """An interrupted training cannot be resumed. Has `path`, `found`, `expected`."""

    fields = ("path", "found", "expected")
    path: Any
    found: Any
    expected: Any


class WorkerError(NumeraiSequenceError):
    """A worker that makes batches, or a task on another machine, has ended early.

    Has `pid` (None for a thread or a task) and, if known, `exitcode` (-9: killed by SIGKILL). A
    worker also ends early when it raises an exception that cannot be passed on, such as SystemExit.
    """

    fields = ("pid", "exitcode")
    pid: int | None
    exitcode: int | None


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error means that memory ran out, whatever its class."""
    if isinstance(error, OSError):
        return error.errno == codes.ENOMEM
    # A thread that has no room for its stack is a RuntimeError, and to Arrow an unknown error.
    is_hidden = any(words in str(error) for words in _OUT_OF_MEMORY)
    return isinstance(error, MemoryError) or is_hidden


def check_known(kind: str, names: Sequence[str], known: Sequence[str], where: str) -> None:
    """Raise a `FeatureError`, with close matches, if a name is unknown or repeated."""
    unknown = sorted(set(names) - set(known))
    if unknown:
        shown = f"{unknown[0]!r}" + (f" and {len(unknown) - 1} more" if unknown[1:] else "")
        close = close_matches(unknown[0], known)
        raise FeatureError(f"{where}: unknown {kind} {shown}{close}", names=unknown)
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise FeatureError(
            f"{where}: {kind} {twice[0]!r} is named twice; name it once", names=twice
        )


def close_matches(name: str, known: Sequence[str]) -> str:
    """Return the end of a message, which lists the known names that are similar to `name`."""
    # A name with a line break must not split a message into two lines.
    matches = [
        match if match.isprintable() else repr(match)
        for match in difflib.get_close_matches(name, known, n=3)
    ]
    return f"; did you mean {', '.join(matches)}?" if matches else ""


@contextmanager
def naming(name: str | None) -> Iterator[None]:
    """Put the name of the model, if it has one, in front of the message of an error."""
    try:
        yield
    except Exception as error:
        if name is not None:
            text = f"model {name!r}: {error}"
            error.args = (text,)
            if isinstance(error, NumeraiSequenceError):
                error.message = text
        raise
