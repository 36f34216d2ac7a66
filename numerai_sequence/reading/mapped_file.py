"""MappedFile: one shard file mapped into memory, after comparing it with the manifest."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..checks import short
from ..format.arrow_file import find_values
from ..format.encoding import Bytes
from ..format.layout import Patch, Shard
from .open_file import OpenFile, corrupt, not_mapped
from .page_faults import Guard

Numbers = npt.NDArray[np.int64]


class MappedFile(OpenFile):
    """A shard file or patch that is memory-mapped, and also open for plain reads.

    It keeps the positions of the values as numbers. Arrow objects for all record batches of a
    terabyte would take more memory than the batches of an epoch.

    Parameters
    ----------
    path : path
    described : Shard or Patch
        Description of the file in the manifest.
    schema : pyarrow.Schema

    Attributes
    ----------
    map : mmap
    starts : dict of int64 arrays, each of shape (record batches,)
        Positions in the file where the values of the features and of each target start.

    Raises
    ------
    CorruptShardError
        The file is missing, or its size or structure differs from the manifest.
    """

    def __init__(self, path: Path, described: Shard | Patch, schema: pa.Schema) -> None:
        super().__init__(path, described)
        try:
            self.map = mmap.mmap(self.descriptor, 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:  # ValueError: does not fit into 32 bits
            raise not_mapped(path, error) from error
        self._buffer = pa.py_buffer(self.map)
        self._bytes: Bytes = np.frombuffer(self.map, np.uint8)
        self._guard = Guard(self.map, self._buffer.address)
        self.starts = self._find_values(described, schema)

    def _find_values(self, described: Shard | Patch, schema: pa.Schema) -> dict[str, Numbers]:
        parts = described.batches if isinstance(described, Shard) else described.places
        try:
            rows = [part.rows for part in parts]
            return find_values(self._copy, described.bytes, schema, rows)
        except ValueError as error:
            raise corrupt(self.path, "Arrow file", str(error), "an intact one") from error

    def _copy(self, start: int, stop: int) -> bytes:
        """Read bytes of the file without its map, so that no page is mapped yet."""
        copied = np.empty(max(0, stop - start), np.uint8)
        self.read_into(start, copied)
        return copied.tobytes()

    def batches(self, numbers: Iterable[int] | None = None) -> list[pa.RecordBatch]:
        """Return all record batches, or those with the given numbers, as views of the file.

        Their contents are not checked. See `batch_contents`.

        Raises
        ------
        CorruptShardError
            Arrow finds damage that the checks at opening did not.
        """
        # Two threads must not share a reader.
        try:
            reader = pa.ipc.open_file(self._buffer)
            wanted = range(reader.num_record_batches) if numbers is None else numbers
            return [reader.get_batch(number) for number in wanted]
        except (pa.ArrowException, OSError) as error:
            raise corrupt(self.path, "Arrow file", short(str(error)), "an intact one") from error

    def check_whole(self) -> None:
        """Check that no page of the map had to be replaced by zeros.

        Raises
        ------
        CorruptShardError
            The file was cut off after it was opened, or its disk fails. Zeros were read instead.
        """
        if self._guard.lost:
            found = f"{os.fstat(self.descriptor).st_size}, and pages that cannot be read"
            raise corrupt(self.path, "bytes", found, len(self.map))

    def view(self, start: int, shape: tuple[int, ...], dtype: Any) -> Any:
        """Return a part of the file as an array."""
        return np.ndarray(shape, dtype, self._bytes, start)
