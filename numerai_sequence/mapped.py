"""Mapped: one shard file in memory, found to be what the manifest says."""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from .encoding import Bytes
from .errors import CorruptShardError
from .layout import FEATURES, Shard
from .paging import advise


@dataclass(frozen=True)
class Mapped:
    """A shard file in memory: its map, the map's address, and the record batches in it."""

    map: mmap.mmap
    address: int
    batches: list[pa.RecordBatch]


def map_shard(path: Path, shard: Shard, schema: pa.Schema) -> Mapped:
    """Map one shard file, and check its structure against the manifest."""
    try:
        with open(path, "rb") as file:
            found = os.fstat(file.fileno()).st_size
            if found != shard.bytes or not found:
                raise corrupt(path, "bytes", found, shard.bytes)
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise corrupt(path, "file", error.strerror, f"{shard.bytes} bytes") from error
    advise(mapped, "MADV_RANDOM")  # only the pages that describe the record batches are touched
    try:
        buffer = pa.py_buffer(mapped)
        reader = pa.ipc.open_file(buffer)
        batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        for batch in batches:
            batch.validate()
            if any(column.null_count for column in batch.columns[3:]):
                raise pa.ArrowInvalid("a null target or feature")
    except (pa.ArrowException, OSError, UnicodeError) as error:
        raise corrupt(path, "Arrow file", str(error), "a whole one") from error
    if not reader.schema.equals(schema, check_metadata=True):
        raise corrupt(path, "schema", "another", "that of the manifest")
    rows = [batch.num_rows for batch in batches]
    if rows != [batch.rows for batch in shard.batches]:
        raise corrupt(path, "rows", rows, [batch.rows for batch in shard.batches])
    advise(mapped, "MADV_DONTNEED")
    advise(mapped, "MADV_NORMAL")
    return Mapped(mapped, buffer.address, batches)


def corrupt(path: Path, what: str, found: object, expected: object) -> CorruptShardError:
    return CorruptShardError(
        f"{path}: {what}: found {found}, expected {expected}; write the set again with "
        "overwrite=True, or copy the file again",
        path=path,
        found=found,
        expected=expected,
    )


def matrix(batch: pa.RecordBatch) -> Bytes:
    """View a batch's features as uint8, shape (rows, row bytes)."""
    storage = batch.column(FEATURES).storage
    values: Bytes = storage.flatten().to_numpy(zero_copy_only=True).view(np.uint8)
    return values.reshape(batch.num_rows, storage.type.list_size)
