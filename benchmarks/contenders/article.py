"""Article: the generator of 2021, float32 Parquet shards behind two threads and two short queues.

Rebuilt from its description; where that leaves a choice, this takes the plainest pandas code.
"""

import math
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import Queue

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from harness.input_files import SEED, feature_names, read_batches

SHARDS = 16

Batch = tuple[np.ndarray, np.ndarray]


def prepare(parquet: Path, folder: Path) -> None:
    """Split the rows by era mod 16 into float32 Parquet files, features scaled to 0..1."""
    folder.mkdir()
    features = feature_names(parquet)
    schema = pa.schema([(name, pa.float32()) for name in ["target", *features]])
    paths = [folder / f"shard_{number:02}.parquet" for number in range(SHARDS)]
    writers = [pq.ParquetWriter(path, schema) for path in paths]
    for batch in read_batches(parquet, ["era", "target", *features]):
        eras = batch["era"].to_pylist()
        shard = np.array([int(era.removeprefix("era")) % SHARDS for era in eras])
        floats = pa.table([as_float32(batch, name) for name in schema.names], schema=schema)
        for number in np.unique(shard):
            writers[number].write_table(floats.filter(pa.array(shard == number)))
    for writer in writers:
        writer.close()


def as_float32(batch: pa.RecordBatch, name: str) -> pa.Array:
    """Return a column as float32, features scaled from 0..4 to 0..1."""
    column = pc.cast(batch[name], pa.float32())
    return column if name == "target" else pc.multiply(column, pa.scalar(0.25, pa.float32()))


def batch_count(folder: Path, batch_size: int) -> int:
    """Return the batches of an epoch: each shard ends with a partial one."""
    rows = [pq.read_metadata(path).num_rows for path in folder.glob("*.parquet")]
    return sum(math.ceil(count / batch_size) for count in rows)


def batches(folder: Path, batch_size: int, epochs: int) -> Iterator[Batch]:
    """Start the reading and the cutting thread, and return the generator at their end."""
    paths = sorted(folder.glob("*.parquet"))
    shards: Queue[pd.DataFrame | None] = Queue(maxsize=1)
    ready: Queue[Batch | None] = Queue(maxsize=3)
    threading.Thread(target=read_shards, args=(paths, epochs, shards), daemon=True).start()
    threading.Thread(target=cut_batches, args=(shards, ready, batch_size), daemon=True).start()
    return drain(ready)


def read_shards(paths: list[Path], epochs: int, shards: Queue[pd.DataFrame | None]) -> None:
    """Put whole shards on the queue, in a new random order every epoch, and None at the end."""
    rng = np.random.default_rng([SEED, 0])
    try:
        for _ in range(epochs):
            for number in rng.permutation(len(paths)):
                shards.put(pd.read_parquet(paths[number]))
    finally:  # also when reading fails: the run then ends with too few rows instead of hanging
        shards.put(None)


def cut_batches(
    shards: Queue[pd.DataFrame | None], ready: Queue[Batch | None], batch_size: int
) -> None:
    """Shuffle each shard's rows and put them on the queue in batches, the last partial one too."""
    rng = np.random.default_rng([SEED, 1])
    try:
        while (frame := shards.get()) is not None:
            frame = frame.sample(frac=1, random_state=rng)
            for start in range(0, len(frame), batch_size):
                part = frame.iloc[start : start + batch_size]
                # Contiguous copies: a view in the queue would keep its whole shard in memory.
                x = np.ascontiguousarray(part.drop(columns="target"))
                ready.put((x, part["target"].to_numpy(copy=True)))
    finally:
        ready.put(None)


def drain(ready: Queue[Batch | None]) -> Iterator[Batch]:
    """Yield what the queue holds until its None."""
    while (batch := ready.get()) is not None:
        yield batch
