"""Mapped: one shard file in memory, found to be what the manifest says."""

from __future__ import annotations

import mmap
import os
import weakref
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .encoding import Bytes
from .errors import CorruptShardError
from .guard import Guard
from .layout import META_COLUMNS, Shard
from .paging import advise

Numbers = npt.NDArray[np.int64]

REMEDY = "write the set again with overwrite=True, or copy the file again"
_IN_USE = "open the set again, and write sets with write_shards, which changes no file in place"


class Opened:
    """A shard file that is open for plain reads. It is closed with the last reference to this.

    Parameters
    ----------
    path : path
    shard : Shard
        What the manifest says of the file.

    Attributes
    ----------
    descriptor : int

    Raises
    ------
    CorruptShardError
        The file is missing, or its size is not what the manifest says.
    """

    def __init__(self, path: Path, shard: Shard) -> None:
        self.path = path
        try:
            self.descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
            weakref.finalize(self, os.close, self.descriptor).atexit = False
            self._status = self._read_status()
        except OSError as error:
            raise corrupt(path, "file", error.strerror, f"{shard.bytes} bytes") from error
        found = self._status[0]
        if found != shard.bytes or not found:
            raise corrupt(path, "bytes", found, shard.bytes)

    def _read_status(self) -> tuple[int, int]:
        """Return the size and the time of change, in nanoseconds, of the file that is open."""
        status = os.fstat(self.descriptor)
        return status.st_size, status.st_mtime_ns

    def check_unchanged(self) -> None:
        """Compare the file with what it was when it was opened, by its size and time of change.

        Raises
        ------
        CorruptShardError
            It has been changed since, or cannot be looked at any more.
        """
        try:
            found = self._read_status()
        except OSError as error:
            raise corrupt(self.path, "file", error.strerror, "an open one", _IN_USE) from error
        if found != self._status:
            was, is_now = _describe(*self._status), _describe(*found)
            raise corrupt(self.path, "changed while in use", is_now, was, _IN_USE)

    def read_into(self, start: int, out: Bytes) -> None:
        """Read bytes of the file, from `start` on, as many as `out` has room for.

        Raises
        ------
        CorruptShardError
            The file ends too early, or cannot be read.
        """
        left = out.reshape(-1).data
        while left:
            try:
                count = self._read(start, left)
            except OSError as error:
                raise corrupt(self.path, "file", error.strerror, "readable bytes") from error
            if not count:
                raise corrupt(self.path, "bytes", start, f"at least {start + len(left)}")
            left, start = left[count:], start + count

    def _read(self, start: int, out: memoryview) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(self.descriptor, [out], start)
        # Windows, where nobody can put another file in the place of one that is open.
        with open(self.path, "rb", buffering=0) as file:
            file.seek(start)
            return file.readinto(out) or 0


class Mapped(Opened):
    """A shard file that is memory-mapped, and open for plain reads.

    Which bytes of the file are which values is kept as numbers: the Arrow objects of a terabyte's
    record batches would take more memory than its batches do.

    Parameters
    ----------
    path : path
    shard : Shard
        What the manifest says of the file.
    schema : pyarrow.Schema

    Attributes
    ----------
    map : mmap
    starts : dict of int64 arrays, each of shape (record batches,)
        Where in the file the values of the features and of each target start.

    Raises
    ------
    CorruptShardError
        The file is missing, or its size or structure is not what the manifest says.
    """

    def __init__(self, path: Path, shard: Shard, schema: pa.Schema) -> None:
        super().__init__(path, shard)
        try:
            self.map = mmap.mmap(self.descriptor, 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise corrupt(path, "file", error.strerror, f"{shard.bytes} bytes") from error
        self._buffer = pa.py_buffer(self.map)
        self._bytes: Bytes = np.frombuffer(self.map, np.uint8)
        self._guard = Guard(self.map, self._buffer.address)
        # Only the pages that describe the record batches are touched.
        advise(self.map, "MADV_RANDOM")
        self.starts = self._check(shard, schema)
        self.check_whole()
        advise(self.map, "MADV_DONTNEED")
        advise(self.map, "MADV_NORMAL")

    def _check(self, shard: Shard, schema: pa.Schema) -> dict[str, Numbers]:
        """Check the structure against the manifest; return where the values start."""
        rows: list[int] = []
        names = schema.names[len(META_COLUMNS) :]
        starts = {name: np.zeros(len(shard.batches), np.int64) for name in names}
        try:
            reader = pa.ipc.open_file(self._buffer)
            if not reader.schema.equals(schema, check_metadata=True):
                raise corrupt(self.path, "schema", "another", "that of the manifest")
            if reader.num_record_batches != len(shard.batches):
                found, expected = reader.num_record_batches, len(shard.batches)
                raise corrupt(self.path, "record batches", found, expected)
            for number in range(reader.num_record_batches):
                batch = reader.get_batch(number)
                batch.validate()
                rows.append(batch.num_rows)
                for name in names:
                    starts[name][number] = self._start(batch.column(name))
        except (pa.ArrowException, OSError, UnicodeError) as error:
            raise corrupt(self.path, "Arrow file", str(error), "a whole one") from error
        if rows != [batch.rows for batch in shard.batches]:
            raise corrupt(self.path, "rows", rows, [batch.rows for batch in shard.batches])
        return starts

    def _start(self, column: pa.Array) -> int:
        """Return the place in the file of a column's first value."""
        if column.null_count:
            raise pa.ArrowInvalid("a null target or feature")
        values = column.storage.flatten() if isinstance(column, pa.ExtensionArray) else column
        address: int = values.to_numpy(zero_copy_only=True).ctypes.data
        return address - self._buffer.address if len(values) else 0

    def batches(self) -> list[pa.RecordBatch]:
        """Return the record batches, views of the file."""
        # A reader is no thing for two threads at once.
        try:
            reader = pa.ipc.open_file(self._buffer)
            return [reader.get_batch(number) for number in range(reader.num_record_batches)]
        except (pa.ArrowException, OSError) as error:
            raise corrupt(self.path, "Arrow file", str(error), "a whole one") from error

    def check_whole(self) -> None:
        """See that what was read out of the map was the file's.

        Raises
        ------
        CorruptShardError
            The file was cut off since it was opened, or its disk fails: there were zeros instead.
        """
        if self._guard.lost:
            found = f"{os.fstat(self.descriptor).st_size}, and pages that cannot be read"
            raise corrupt(self.path, "bytes", found, len(self.map))

    def view(self, start: int, shape: tuple[int, ...], dtype: Any) -> Any:
        """Return a part of the file as an array."""
        return np.ndarray(shape, dtype, self._bytes, start)


def corrupt(
    path: Path, what: str, found: object, expected: object, remedy: str = REMEDY
) -> CorruptShardError:
    return CorruptShardError(
        f"{path}: {what}: found {found}, expected {expected}; {remedy}",
        path=path,
        found=found,
        expected=expected,
    )


def _describe(bytes_: int, mtime_ns: int) -> str:
    changed = datetime.fromtimestamp(mtime_ns / 1e9).isoformat(" ", "milliseconds")
    return f"{bytes_} bytes last changed at {changed}"
