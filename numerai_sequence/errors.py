"""Errors: every exception of the package, each carrying what a program needs to react to it.

All of them are made from one message and optional keyword data, and so survive pickling: an
exception that cannot be unpickled hangs a pool of worker processes.
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
    """The root: catch this one to catch them all.

    Parameters
    ----------
    message : str
        What, where, found, expected, and what to do.
    **data
        The values of the class's ``fields``; the ones left out are None.
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
    """A Parquet source cannot be used: `path`, and where known `column` and `row` (from 0)."""

    fields = ("path", "column", "row")
    path: Any
    column: str | None
    row: int | None


class OutputExistsError(NumeraiSequenceError, FileExistsError):
    """The output folder holds something else: `path`."""

    fields = ("path",)
    path: Any


class OutputError(NumeraiSequenceError, OSError):
    """The system does not let something be written, as on a full disk: `path` and `errno`."""

    fields = ("path", "errno")
    path: Any

    def __reduce__(self) -> Any:
        # Python keeps errno where a pickle does not look for it.
        return type(self), self.args, {**vars(self), "errno": self.errno}


class OutOfMemoryError(NumeraiSequenceError, MemoryError):
    """Memory has run out while `path` was written."""

    fields = ("path",)
    path: Any


class ManifestError(NumeraiSequenceError):
    """A manifest is missing, damaged or of an unknown version: `path`, `found`, `expected`."""

    fields = ("path", "found", "expected")
    path: Any
    found: Any
    expected: Any


class CorruptShardError(NumeraiSequenceError):
    """A shard file's size, schema or checksum is wrong: `path`, `found`, `expected`."""

    fields = ("path", "found", "expected")
    path: Any
    found: Any
    expected: Any


class EraError(NumeraiSequenceError, ValueError):
    """Eras that are not there, or cannot be used: `eras`."""

    fields = ("eras",)
    eras: Any


class FeatureError(NumeraiSequenceError, ValueError):
    """An unknown feature, feature set or target: `names`."""

    fields = ("names",)
    names: Any


class PredictionError(NumeraiSequenceError, ValueError):
    """Predictions, of ours or of other models, that cannot be used; caught as one of its bases."""


class ResumeError(NumeraiSequenceError, ValueError):
    """Training cannot go on where it has stopped: `path`, `found`, `expected`."""

    fields = ("path", "found", "expected")
    path: Any
    found: Any
    expected: Any


class WorkerError(NumeraiSequenceError):
    """A worker that makes batches has ended: `pid`, and where known `exitcode` (-9: by SIGKILL).

    Or it raised what cannot reach who waits for the batch, such as SystemExit. `pid` is None for a
    thread.
    """

    fields = ("pid", "exitcode")
    pid: int | None
    exitcode: int | None


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether this is memory that has run out, whatever it is called."""
    if isinstance(error, OSError):
        return error.errno == codes.ENOMEM
    # A thread that has no room for its stack is a RuntimeError, and to Arrow an unknown error.
    is_hidden = any(words in str(error) for words in _OUT_OF_MEMORY)
    return isinstance(error, MemoryError) or is_hidden


def check_known(kind: str, names: Sequence[str], known: Sequence[str], where: str) -> None:
    """Raise a `FeatureError` with close matches where a name is unknown or comes twice."""
    unknown = sorted(set(names) - set(known))
    if unknown:
        shown = f"{unknown[0]!r}" + (f" and {len(unknown) - 1} more" if unknown[1:] else "")
        close = close_matches(unknown[0], known)
        raise FeatureError(f"{where}: unknown {kind} {shown}{close}", names=unknown)
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise FeatureError(f"{where}: {kind} {twice[0]!r} is named twice", names=twice)


def close_matches(name: str, known: Sequence[str]) -> str:
    """Return the end of a message: which known names are like `name`, if any."""
    # A name with a line break shall not make two lines of a message.
    matches = [
        match if match.isprintable() else repr(match)
        for match in difflib.get_close_matches(name, known, n=3)
    ]
    return f"; did you mean {', '.join(matches)}?" if matches else ""


@contextmanager
def naming(name: str | None) -> Iterator[None]:
    """Begin the message of an error with the name of the model that it is about, if it has one."""
    try:
        yield
    except Exception as error:
        if name is not None:
            text = f"model {name!r}: {error}"
            error.args = (text,)
            if isinstance(error, NumeraiSequenceError):
                error.message = text
        raise
