"""Mapped: one shard file in memory, found to be what the manifest says."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .encoding import Bytes
from .guard import Guard
from .layout import META_COLUMNS, Shard
from .opened import Opened, corrupt, not_mapped
from .paging import advise

Numbers = npt.NDArray[np.int64]


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
        except (OSError, ValueError) as error:  # ValueError: more than 32 bits can tell
            raise not_mapped(path, error) from error
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
