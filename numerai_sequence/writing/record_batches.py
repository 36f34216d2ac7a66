"""Record batches: each window's rows, from scratch, as one record batch of a shard file."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ..format.encoding import Bytes
from ..format.encodings import COMPACT, ENCODINGS
from ..format.layout import (
    FEATURES,
    META_COLUMNS,
    BatchInfo,
    Shard,
    WriteOptions,
    file_checksum,
    shard_schema,
)
from ..ordering.eras import sort_eras
from .row_ids import check_window
from .scratch import Scratch
from .write_plan import Plan


class Mixer:
    """A maker of record batches, which uses the same memory for all of them.

    Parameters
    ----------
    scratches : sequence of Scratch
        One for each source. Their rows are packed.
    sources : sequence of path
        Paths of the sources, for errors.
    plan : Plan
    options : WriteOptions
    shards : collection of int
        Shards that it will write.
    seed : int, optional
        Seed for permuting the rows of a window; None keeps the order of the sources.
    """

    def __init__(
        self,
        scratches: Sequence[Scratch],
        sources: Sequence[Path],
        plan: Plan,
        options: WriteOptions,
        shards: Collection[int],
        seed: int | None,
    ) -> None:
        self._scratches = scratches
        self._sources = sources
        self._plan = plan
        self._seed = seed
        features = len(plan.features)
        self._schema = shard_schema(options.encoding, plan.features, plan.targets)
        # Made once: an allocator keeps memory of large short-lived arrays, which adds to the peak.
        rows = max((w.rows for w in plan.windows if w.shard in shards), default=0)
        self._packed = np.empty((rows, COMPACT.row_bytes(features)), np.uint8)
        self._encoding, self._decoder = ENCODINGS[options.encoding], None
        if self._encoding is not COMPACT:
            self._decoder = COMPACT.decoder(features, dtype="int8")
            self._digits = np.empty((rows, features), np.int8)

    def write(
        self, path: Path, shard: int, progress: Callable[[int], object]
    ) -> tuple[BatchInfo, ...]:
        """Write a shard file; `progress` is called with the rows of each record batch.

        Raises
        ------
        SourceError
            A row appears twice.
        """
        batches = []
        with open(path, "wb") as file, pa.ipc.new_file(file, self._schema) as writer:
            for number in self._plan.windows_of(shard):
                batch = self._mix(number)
                writer.write_batch(batch)
                batches.append(_describe(batch))
                progress(batch.num_rows)
        return tuple(batches)

    def _mix(self, number: int) -> pa.RecordBatch:
        """Return a window's rows, mixed. The next call overwrites them."""
        window = self._plan.windows[number]
        order = np.arange(window.rows)
        if self._seed is not None:
            rng = np.random.default_rng([self._seed, window.shard, window.number])
            order = rng.permutation(window.rows)
        places = np.empty_like(order)
        places[order] = np.arange(window.rows)
        packed = self._packed[: window.rows]
        metas, paths, start = [], [], 0
        for path, scratch in zip(self._sources, self._scratches, strict=True):
            if scratch.rows[number]:
                stop = start + scratch.rows[number]
                scratch.read_features(number, places[start:stop], packed)
                metas.append(scratch.read_meta(number))
                paths.append(path)
                start = stop
        meta = pa.concat_tables(metas).take(order).combine_chunks()
        check_window(meta, paths)
        columns = [meta[name].chunk(0) for name in self._schema.names[:-1]]
        columns.append(_tensor(self._encode(packed), self._schema.field(FEATURES).type))
        return pa.RecordBatch.from_arrays(columns, schema=self._schema)

    def _encode(self, packed: Bytes) -> Bytes:
        """Return rows in the encoding of the set."""
        if self._decoder is None:
            return packed
        digits = self._digits[: len(packed)]
        self._decoder(packed, digits)
        return self._encoding.encode(digits.view(np.uint8))


def seal(path: Path, batches: tuple[BatchInfo, ...]) -> Shard:
    """Flush a shard file to the disk, and describe it."""
    rows = sum(batch.rows for batch in batches)
    bytes_, checksum = see_on_disk(path)
    return Shard(path.name, bytes_, rows, checksum, batches)


def see_on_disk(path: Path) -> tuple[int, str]:
    """Flush a file to the disk, and return its size in bytes and its SHA-256."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())
    return path.stat().st_size, file_checksum(path)


def count_values(column: Any) -> dict[str, int]:
    """Count the values of a string column; nulls are left out."""
    pairs = pc.value_counts(column.drop_null()).to_pylist()
    return {pair["values"]: pair["counts"] for pair in pairs}


def _tensor(rows: npt.NDArray[Any], tensor: Any) -> pa.Array:
    values = pa.Array.from_buffers(tensor.value_type, rows.size, [None, pa.py_buffer(rows)])
    storage = pa.FixedSizeListArray.from_arrays(values, rows.shape[1])
    return pa.ExtensionArray.from_storage(tensor, storage)


def _describe(batch: pa.RecordBatch) -> BatchInfo:
    eras = count_values(batch.column("era"))
    return BatchInfo(
        batch.num_rows,
        {era: eras[era] for era in sort_eras(eras)},
        dict(sorted(count_values(batch.column("data_type")).items())),
        count_missing(batch, batch.schema.names[len(META_COLUMNS) : -1]),
    )


def count_missing(batch: pa.RecordBatch, targets: Iterable[str]) -> dict[str, int]:
    """Count the rows without each target; there, NaN stands for null."""
    counts = {name: int(np.isnan(batch.column(name).to_numpy()).sum()) for name in targets}
    return {name: count for name, count in counts.items() if count}
