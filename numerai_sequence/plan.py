"""Plan: decide from the sources, their eras and the options what a run writes where."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from .encoding import Block, cut_blocks, row_bytes
from .layout import VERSION, WriteOptions
from .source import Source
from .version import __version__
from .windows import Window, plan_windows

_OTHER_BYTES = 40  # of a row's id, era and data type


@dataclass(frozen=True)
class Plan:
    """What is written where."""

    features: tuple[str, ...]
    targets: tuple[str, ...]
    windows: tuple[Window, ...]
    blocks: tuple[Block, ...]
    rows_per_chunk: int

    def disk_bytes(self, options: WriteOptions) -> int:
        """Return about how many bytes are on the disk at once while it is carried out."""
        packed, encoded = (
            row_bytes(encoding, len(self.features)) for encoding in ("packed", options.encoding)
        )
        others = _OTHER_BYTES + 4 * len(self.targets)
        rows = np.zeros(options.num_shards, np.int64)
        for window in self.windows:
            rows[window.shard] += window.rows
        names = 2 * sum(len(name) + 4 for name in self.features)  # at either end of a file
        written = np.cumsum(rows * (encoded + others) + names)
        # The scratch of a shard goes when the next one has been written.
        dropped = np.concatenate([[0, 0], np.cumsum(rows)])[: len(rows)]
        return int((written + (rows.sum() - dropped) * (packed + others)).max())


def make_plan(
    sources: Sequence[Source],
    era_rows: dict[str, int],
    features: tuple[str, ...],
    targets: tuple[str, ...],
    options: WriteOptions,
    *,
    block_bytes: int,
) -> Plan:
    """Plan what is written from sources whose eras have so many rows.

    At most `block_bytes` of decoded values are read at a time, or one column of a row group.

    Raises
    ------
    SourceError
        There are no rows.
    """
    if not era_rows:
        raise sources[0].error("no rows; expected at least one")
    # A chunk is as many row groups as one block of all columns may hold, or one row group, which
    # is then read in as many blocks of columns as it takes.
    widest = max(source.bytes_per_row(features) for source in sources)
    rows_per_chunk = max(1, block_bytes // widest)
    largest = max(chunk.rows for source in sources for chunk in source.chunks(rows=rows_per_chunk))
    features_per_block = max(1, block_bytes * len(features) // (largest * widest))
    return Plan(
        features,
        targets,
        tuple(plan_windows(era_rows, len(features), options)),
        tuple(cut_blocks("packed", len(features), features_per_block=features_per_block)),
        rows_per_chunk,
    )


def name_run(
    sources: Sequence[Source],
    options: WriteOptions,
    plan: Plan,
    names: Sequence[str],
) -> str:
    """Return a digest of all that a run's steps depend on."""
    statuses = [(source.path, source.file.status) for source in sources]
    files = [(os.path.abspath(path), s.st_size, s.st_mtime_ns) for path, s in statuses]
    described = (VERSION, __version__, pa.__version__, files, options, plan, names)
    return hashlib.sha256(repr(described).encode()).hexdigest()
