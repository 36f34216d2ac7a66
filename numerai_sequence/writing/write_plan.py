"""Write plan: the columns, windows and blocks of a run, from its sources, eras and options."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ..format.encoding import Block
from ..format.encodings import COMPACT, ENCODINGS
from ..format.layout import VERSIONS, WriteOptions
from ..version import __version__
from .shuffle_windows import Window, plan_windows
from .source_columns import Source

OTHER_BYTES = 40  # of a row's id, era and data type


@dataclass(frozen=True)
class Plan:
    """The plan of a run.

    Attributes
    ----------
    features, targets : tuple of str
    windows : tuple of Window
    source_rows : tuple of tuple of int
        For each source, its rows in each window.
    blocks : tuple of Block
        Blocks of columns that are read together.
    skipped : tuple of str
        Eras that are in no window. Their rows are left out.
    rows_per_chunk : int
        Rows that are read together.
    fills_missing : bool
        Whether a missing feature value is written as the middle.
    """

    features: tuple[str, ...]
    targets: tuple[str, ...]
    windows: tuple[Window, ...]
    source_rows: tuple[tuple[int, ...], ...]
    blocks: tuple[Block, ...]
    rows_per_chunk: int
    skipped: tuple[str, ...] = ()
    fills_missing: bool = False

    def windows_of(self, shard: int) -> list[int]:
        """Return the numbers of the windows of a shard file."""
        return [number for number, window in enumerate(self.windows) if window.shard == shard]

    def disk_bytes(self, options: WriteOptions, *, at_once: bool = False) -> int:
        """Return about the most bytes that the run has on the disk at any time.

        With `at_once`, all shard files may be written at the same time.
        """
        packed, encoded = (
            encoding.row_bytes(len(self.features))
            for encoding in (COMPACT, ENCODINGS[options.encoding])
        )
        others = OTHER_BYTES + 4 * len(self.targets)
        rows = np.zeros(options.num_shards, np.int64)
        for window in self.windows:
            rows[window.shard] += window.rows
        names = 2 * sum(len(name) + 4 for name in self.features)  # at either end of a file
        written = np.cumsum(rows * (encoded + others) + names)
        # The scratch of a shard is deleted when the next one has been written.
        dropped = np.concatenate([[0, 0], np.cumsum(rows)])[: len(rows)] * (not at_once)
        return int((written + (rows.sum() - dropped) * (packed + others)).max())


def make_plan(
    sources: Sequence[Source],
    era_rows: Sequence[Counter[str]],
    features: tuple[str, ...],
    targets: tuple[str, ...],
    options: WriteOptions,
    *,
    block_bytes: int,
) -> Plan:
    """Plan a run from its sources and the rows of each of their eras.

    At most `block_bytes` of decoded values are read at a time, or one column of a row group.

    Raises
    ------
    SourceError
        There are no rows.
    """
    if not any(era_rows):
        raise sources[0].error("found no rows, expected at least one; choose another file")
    # A chunk is as many row groups as one block of all columns may hold, or one row group, which
    # is then read in as many blocks of columns as it takes.
    widest = max(source.bytes_per_row(features) for source in sources)
    rows_per_chunk = max(1, block_bytes // widest)
    largest = max(chunk.rows for source in sources for chunk in source.chunks(rows=rows_per_chunk))
    features_per_block = max(1, block_bytes * len(features) // (largest * widest))
    windows = tuple(plan_windows(sum(era_rows, Counter()), len(features), options))
    return Plan(
        features,
        targets,
        windows,
        tuple(tuple(sum(rows[era] for era in w.eras) for w in windows) for rows in era_rows),
        tuple(COMPACT.cut_blocks(len(features), features_per_block=features_per_block)),
        rows_per_chunk,
        fills_missing=options.missing_feature == "middle",
    )


def name_run(
    sources: Sequence[Source],
    options: WriteOptions,
    plan: Plan,
    names: Sequence[str],
) -> str:
    """Return a digest of everything that a run's steps depend on."""
    statuses = [(source.path, source.file.status) for source in sources]
    files = [(os.path.abspath(path), s.st_size, s.st_mtime_ns) for path, s in statuses]
    described = (VERSIONS, __version__, pa.__version__, files, options, plan, names)
    return hashlib.sha256(repr(described).encode()).hexdigest()
