"""Writer: turn Parquet files into a folder of shard files, in bounded memory.

The eras are counted first, so that each row's shard and window are known before it is read. Then
the sources are read once, a block of columns at a time: each block is encoded, turned into rows and
put into scratch files, while the next one is being decoded. At the end each window is read back,
permuted and written as one record batch. Memory holds two blocks of columns, or one window; never
a whole row group.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from .encoding import Block, Bytes, cut_blocks, encode_block, value_dtype
from .eras import sort_eras
from .layout import (
    FEATURES,
    Batch,
    Manifest,
    Shard,
    SourceFile,
    WriteOptions,
    file_checksum,
    shard_schema,
)
from .output import Output
from .scratch import Scratch
from .source import Chunk, Source, choose_columns, open_sources
from .windows import Placement, Window, plan_windows

_BLOCK_BYTES = 96 << 20  # of decoded values


@dataclass(frozen=True)
class Plan:
    """What is written where."""

    features: tuple[str, ...]
    targets: tuple[str, ...]
    windows: tuple[Window, ...]
    blocks: tuple[Block, ...]
    rows_per_chunk: int


def write(
    sources: Any, out: Path, options: WriteOptions, *, overwrite: bool, progress: bool
) -> Path:
    """Write a shard set, or find that it is already there.

    Parameters
    ----------
    sources : path or sequence of paths
    out : path
        The folder; made if it is not there.
    options : WriteOptions
    overwrite : bool
        Replace what is in the folder. The old set stays whole until the new one is.
    progress : bool
        Show a progress bar on stderr.

    Returns
    -------
    path
        `out`.

    Raises
    ------
    SourceError, FeatureError, OutputExistsError
    """
    opened = open_sources(sources)
    with ExitStack() as stack:
        for source in opened:
            stack.callback(source.close)
        output = Output(out)
        if output.holds_set_of([source.path for source in opened], options, overwrite=overwrite):
            return out
        features, targets = choose_columns(opened, options.features, options.targets)
        folder = stack.enter_context(output.writing())
        background = stack.enter_context(ThreadPoolExecutor(1))
        plan = _plan(opened, features, targets, options, progress)
        scratch = Scratch(folder, [window.rows for window in plan.windows], plan.blocks)
        # A source that is changed from now on shall not pass for the one that was read.
        statuses = [os.stat(source.path) for source in opened]
        # In the background, and first: it also brings the files into the page cache.
        checksums = [background.submit(file_checksum, source.path) for source in opened]
        _fill_scratch(opened, plan, scratch, progress)
        shards = _write_shards(output, folder, plan, scratch, options, progress)
        files = tuple(
            _source_file(source, status, checksum.result())
            for source, status, checksum in zip(opened, statuses, checksums, strict=True)
        )
        output.commit(
            Manifest(options.encoding, plan.features, plan.targets, options, files, shards)
        )
    return out


def _source_file(source: Source, status: os.stat_result, checksum: str) -> SourceFile:
    return SourceFile(str(source.path), status.st_size, status.st_mtime_ns, source.rows, checksum)


def _plan(
    sources: Sequence[Source],
    features: tuple[str, ...],
    targets: tuple[str, ...],
    options: WriteOptions,
    progress: bool,
) -> Plan:
    counts = _count_eras(sources, progress)
    if not counts:
        raise sources[0].error("no rows; expected at least one")
    # A chunk is as many row groups as one block of all columns may hold, or one row group, which
    # is then read in as many blocks of columns as it takes.
    widest = max(source.bytes_per_row(features) for source in sources)
    rows_per_chunk = max(1, _BLOCK_BYTES // widest)
    largest = max(chunk.rows for source in sources for chunk in source.chunks(rows=rows_per_chunk))
    features_per_block = max(1, _BLOCK_BYTES * len(features) // (largest * widest))
    return Plan(
        features,
        targets,
        tuple(plan_windows(counts, len(features), options)),
        tuple(cut_blocks(options.encoding, len(features), features_per_block=features_per_block)),
        rows_per_chunk,
    )


def _count_eras(sources: Sequence[Source], progress: bool) -> Counter[str]:
    counts: Counter[str] = Counter()
    for source in sources:
        with _bar(source.rows, f"eras of {source.path.name}", progress) as bar:
            for chunk in source.chunks(rows=1 << 20):
                counts.update(_value_counts(source.read_eras(chunk)))
                bar.update(chunk.rows)
    return counts


def _fill_scratch(sources: Sequence[Source], plan: Plan, scratch: Scratch, progress: bool) -> None:
    window_of = {era: i for i, window in enumerate(plan.windows) for era in window.eras}
    # The rows that each window has so far; features and the rest are read at paces of their own.
    features = np.zeros(len(plan.windows), np.int64)
    meta = np.zeros(len(plan.windows), np.int64)
    with _one_behind() as encode_behind:
        for source in sources:
            with _bar(source.rows, f"reading {source.path.name}", progress) as bar:
                for chunk in source.chunks(rows=plan.rows_per_chunk):
                    for rows in source.iter_meta(chunk, plan.targets):
                        _add_meta(rows, Placement(rows["era"], window_of, meta), scratch)
                    placement = Placement(source.read_eras(chunk), window_of, features)
                    for number, block in enumerate(plan.blocks, 1):
                        names = [plan.features[feature] for feature in block.features]
                        table = source.read_features(chunk, names)
                        encode_behind(
                            _encode, source, chunk, names, table, block, placement, scratch
                        )
                        done = chunk.first_row + chunk.rows * number // len(plan.blocks)
                        bar.update(done - bar.n)


@contextmanager
def _one_behind() -> Iterator[Callable[..., None]]:
    """Yield a function that runs a call in a thread, while its caller prepares the next one.

    The error of a call is raised by the next call, or at the end.
    """
    calls: list[Future[None]] = []
    with ThreadPoolExecutor(1) as thread:

        def run(function: Callable[..., None], *arguments: Any) -> None:
            if calls:
                calls.pop().result()
            calls.append(thread.submit(function, *arguments))

        yield run
        if calls:
            calls.pop().result()


def _add_meta(rows: pa.Table, placement: Placement, scratch: Scratch) -> None:
    rows = placement.arrange(rows)
    for part in placement.parts:
        scratch.add_meta(part.window, rows[part.start : part.stop])


def _encode(
    source: Source,
    chunk: Chunk,
    names: list[str],
    table: pa.Table,
    block: Block,
    placement: Placement,
    scratch: Scratch,
) -> None:
    columns = [source.digits(table, name, chunk) for name in names]
    rows = placement.arrange(encode_block(columns, block))
    for part in placement.parts:
        scratch.add_features(part.window, part.row, block, rows[part.start : part.stop])


def _write_shards(
    output: Output,
    folder: Path,
    plan: Plan,
    scratch: Scratch,
    options: WriteOptions,
    progress: bool,
) -> tuple[Shard, ...]:
    schema = shard_schema(options.encoding, plan.features, plan.targets)
    sealed = []
    rows = sum(window.rows for window in plan.windows)
    with ThreadPoolExecutor(1) as sealer, _bar(rows, "writing shards", progress) as bar:
        for shard, name in enumerate(output.new_names(options.num_shards)):
            batches = []
            with open(folder / name, "wb") as file, pa.ipc.new_file(file, schema) as writer:
                for number, window in enumerate(plan.windows):
                    if window.shard == shard:
                        batch = _mix(scratch, number, window, schema, options)
                        writer.write_batch(batch)
                        batches.append(_describe(batch))
                        scratch.drop(number)
                        bar.update(window.rows)
            sealed.append(sealer.submit(_seal, folder / name, tuple(batches)))
        return tuple(shard.result() for shard in sealed)


def _mix(
    scratch: Scratch, number: int, window: Window, schema: pa.Schema, options: WriteOptions
) -> pa.RecordBatch:
    rng = np.random.default_rng([options.seed, window.shard, window.number])
    order = rng.permutation(window.rows)
    places = np.empty_like(order)
    places[order] = np.arange(window.rows)
    encoded = scratch.read_features(number, places)
    meta = scratch.read_meta(number).take(order).combine_chunks()
    columns = [meta[name].chunk(0) for name in schema.names[:-1]]
    columns.append(_tensor(encoded, schema.field(FEATURES).type, value_dtype(options.encoding)))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _tensor(encoded: Bytes, tensor: Any, dtype: str) -> pa.Array:
    rows, width = encoded.shape
    values = pa.Array.from_buffers(
        pa.type_for_alias(dtype), rows * width, [None, pa.py_buffer(encoded)]
    )
    storage = pa.FixedSizeListArray.from_arrays(values, width)
    return pa.ExtensionArray.from_storage(tensor, storage)


def _value_counts(column: Any) -> dict[str, int]:
    """Count the values of a string column; nulls are left out."""
    pairs = pc.value_counts(column.drop_null()).to_pylist()
    return {pair["values"]: pair["counts"] for pair in pairs}


def _describe(batch: pa.RecordBatch) -> Batch:
    eras = _value_counts(batch.column("era"))
    return Batch(
        batch.num_rows,
        {era: eras[era] for era in sort_eras(eras)},
        dict(sorted(_value_counts(batch.column("data_type")).items())),
    )


def _seal(path: Path, batches: tuple[Batch, ...]) -> Shard:
    """See a shard onto the disk, and describe it."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())
    rows = sum(batch.rows for batch in batches)
    return Shard(path.name, path.stat().st_size, rows, file_checksum(path), batches)


def _bar(rows: int, description: str, progress: bool) -> Any:
    return tqdm(
        total=rows, desc=description, unit="row", unit_scale=True, disable=not progress, leave=True
    )
