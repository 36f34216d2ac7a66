"""Files: one file appears at its path whole, or what was there stays."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import NumeraiSequenceError


@contextmanager
def replaced(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a path beside to write the file to, and move it into place at the end.

    Raises
    ------
    NumeraiSequenceError
        The operating system does not let it be written: no such folder, a full disk.
    """
    path = Path(path)
    # With the same suffix: some writers, such as Keras, know by it what to write.
    temporary = path.with_name(f"{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield temporary
        with open(temporary, "rb+") as file:  # Windows syncs no file that is open for reading
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise NumeraiSequenceError(
            f"{path}: cannot be written ({error.strerror or error}); "
            "expected a file name in a folder that exists and has room"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
