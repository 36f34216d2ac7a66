"""Sparse: a shard set of any size whose values are all zero and take no room on the disk.

Arrow writes the shards as it writes any; only the file skips the zeros instead of storing them, so
that a terabyte is written in seconds and read like any other, except that the disk has no work.
"""

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from numerai_sequence.format.encodings import ENCODINGS
from numerai_sequence.format.layout import (
    FEATURES,
    MANIFEST,
    META_COLUMNS,
    BatchInfo,
    Manifest,
    Shard,
    SourceFile,
    WriteOptions,
    shard_schema,
)
from numerai_sequence.format.manifest import write_manifest
from numerai_sequence.synthetic import feature_names

SHARDS = 16
BATCH_BYTES = 256_000_000  # of features in a record batch, as the package writes it
ROWS_PER_ERA = 5_000


class SparseFile:
    """A file for Arrow to write to, that leaves a hole where the zero buffer would be."""

    closed = False

    def __init__(self, file: BinaryIO, zeros: np.ndarray) -> None:
        self.file = file
        self.address = zeros.ctypes.data

    def write(self, data: Any) -> int:
        # Arrow hands large buffers over as they are, and small ones as bytes.
        if isinstance(data, pa.Buffer) and data.address == self.address:
            self.file.seek(data.size, 1)
            return data.size
        return self.file.write(data)

    def tell(self) -> int:
        return self.file.tell()

    def flush(self) -> None:
        self.file.flush()

    def close(self) -> None:
        self.closed = True


def write_sparse(folder: Path, *, rows: int, features: int) -> None:
    """Write a set of `rows` rows in the int8 encoding, with one target."""
    folder.mkdir()
    names = tuple(feature_names(features))
    schema = shard_schema("int8", names, ("target",))
    batch_rows = max(1, BATCH_BYTES // features)
    zeros = np.zeros(batch_rows * max(features, 8) + 8, np.uint8)
    shards = []
    shares = np.diff(np.linspace(0, rows, SHARDS + 1).astype(np.int64)).tolist()
    for number, share in enumerate(tqdm(shares, desc=f"sparse set of {rows:,} rows")):
        path = folder / f"shard-{number:02}.arrow"
        sizes = [min(batch_rows, share - start) for start in range(0, share, batch_rows)]
        with path.open("wb") as file:
            sink = pa.PythonFile(SparseFile(file, zeros), mode="w")
            with pa.ipc.new_file(sink, schema) as writer:
                for size in sizes:
                    writer.write_batch(zero_batch(schema, size, zeros))
        batches = tuple(
            BatchInfo(size, era_counts(number, size), {"train": size}) for size in sizes
        )
        shards.append(Shard(path.name, path.stat().st_size, share, "", batches))
    options = WriteOptions(num_shards=SHARDS, encoding="int8")
    source = SourceFile("zeros", 0, 0, rows, "")
    manifest = Manifest("int8", names, ("target",), options, (source,), tuple(shards))
    write_manifest(manifest, folder / MANIFEST)


def zero_batch(schema: pa.Schema, rows: int, zeros: np.ndarray) -> pa.RecordBatch:
    """Return a record batch of empty strings and zeros, all of them views of one buffer."""
    buffer = pa.py_buffer(zeros)
    text = pa.Array.from_buffers(pa.string(), rows, [None, buffer, pa.py_buffer(b"")])
    target = pa.Array.from_buffers(pa.float32(), rows, [None, buffer])
    tensor = schema.field(FEATURES).type
    width = tensor.shape[0]
    values = pa.type_for_alias(ENCODINGS["int8"].value_dtype)
    flat = pa.Array.from_buffers(values, rows * width, [None, buffer])
    lists = pa.FixedSizeListArray.from_arrays(flat, width)
    columns = [text for _ in META_COLUMNS]
    columns += [target, pa.ExtensionArray.from_storage(tensor, lists)]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def era_counts(shard: int, rows: int) -> dict[str, int]:
    """Return as many eras of this shard as the rows fill; only the manifest knows of eras."""
    count = -(-rows // ROWS_PER_ERA)
    eras = [f"{shard + SHARDS * number:04}" for number in range(1, count + 1)]
    sizes = np.diff(np.linspace(0, rows, count + 1).astype(np.int64)).tolist()
    return dict(zip(eras, sizes, strict=True))
