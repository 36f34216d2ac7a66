"""Contenders: turn one Numerai Parquet into arguments of ``model.fit``, each loader in its own way.

Every contender has two halves: `prepare` writes the files of its own format, `feed` opens them for
training. The file is also the command that a benchmark starts as a fresh process (``synthetic``,
``prepare``, ``fit``), so that what one contender imports or caches never weighs on another. Only
`fit` loads Keras, which is why that import stands inside functions.
"""

import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from typing import Any, TextIO

import click
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tqdm import tqdm

SEED = 0
WORKERS = 4  # threads of the two contenders that are a Keras Sequence
SHARDS = 16  # as in the article, and in our own shard sets
ROWS_PER_READ = 16_384

Batch = tuple[np.ndarray, np.ndarray]


def feature_names(parquet: Path) -> list[str]:
    """Return the names of the feature columns, in the file's order; v5's are int8 in 0..4."""
    fields = [field for field in pq.read_schema(parquet) if field.name.startswith("feature")]
    if not fields or not all(pa.types.is_integer(field.type) for field in fields):
        raise click.ClickException(f"{parquet}: expected int8 feature columns, as in the v5 data")
    return [field.name for field in fields]


def read_batches(parquet: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """Yield the file's rows in order, a few thousand at a time, under a progress bar."""
    with (
        pq.ParquetFile(parquet) as source,
        tqdm(total=source.metadata.num_rows, unit=" rows", unit_scale=True, desc="prepare") as bar,
    ):
        for batch in source.iter_batches(ROWS_PER_READ, columns=columns):
            yield batch
            bar.update(batch.num_rows)


# pandas: every row in memory.


def feed_pandas(parquet: Path, batch_size: int, epochs: int) -> dict[str, Any]:
    """Read the whole file and scale it, as most tournament notebooks do."""
    frame = pd.read_parquet(parquet)
    x = frame[feature_names(parquet)].to_numpy(np.float32) * 0.25
    return {"x": x, "y": frame["target"].to_numpy(np.float32), "batch_size": batch_size}


# The article of 2021: float32 Parquet shards, two threads, two short queues. Rebuilt from its
# description; where that leaves a choice, this takes the plainest pandas code.


def prepare_article(parquet: Path, folder: Path) -> None:
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


def feed_article(folder: Path, batch_size: int, epochs: int) -> dict[str, Any]:
    """Start the reading and the cutting thread and return the generator at their end."""
    paths = sorted(folder.glob("*.parquet"))
    shards: Queue[pd.DataFrame | None] = Queue(maxsize=1)
    batches: Queue[Batch | None] = Queue(maxsize=3)
    threading.Thread(target=read_shards, args=(paths, epochs, shards), daemon=True).start()
    threading.Thread(target=cut_batches, args=(shards, batches, batch_size), daemon=True).start()
    steps = sum(math.ceil(pq.read_metadata(path).num_rows / batch_size) for path in paths)
    return {"x": drain(batches), "steps_per_epoch": steps, "shuffle": False}


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
    shards: Queue[pd.DataFrame | None], batches: Queue[Batch | None], batch_size: int
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
                batches.put((x, part["target"].to_numpy(copy=True)))
    finally:
        batches.put(None)


def drain(batches: Queue[Batch | None]) -> Iterator[Batch]:
    """Yield what the queue holds until its None."""
    while (batch := batches.get()) is not None:
        yield batch


# np.memmap: one row-major int8 file.


def prepare_memmap(parquet: Path, folder: Path) -> None:
    """Write one row-major int8 array of all features, and one of targets."""
    folder.mkdir()
    features = feature_names(parquet)
    shape = (pq.read_metadata(parquet).num_rows, len(features))
    x = np.lib.format.open_memmap(folder / "x.npy", mode="w+", dtype=np.int8, shape=shape)
    targets, start = [], 0
    for batch in read_batches(parquet, ["target", *features]):
        stop = start + batch.num_rows
        x[start:stop] = np.stack([batch[name].to_numpy() for name in features], axis=1)
        targets.append(batch["target"].to_numpy().astype(np.float32))
        start = stop
    np.save(folder / "y.npy", np.concatenate(targets))


def feed_memmap(folder: Path, batch_size: int, epochs: int) -> dict[str, Any]:
    """Gather random rows from the mapped array, the usual answer to "it does not fit"."""
    import keras

    class MemmapSequence(keras.utils.PyDataset):
        """Batches of a fixed random row order; Keras shuffles the batches themselves."""

        def __init__(self) -> None:
            super().__init__(workers=WORKERS)
            self.x = np.load(folder / "x.npy", mmap_mode="r")
            self.y = np.load(folder / "y.npy")
            self.order = np.random.default_rng(SEED).permutation(len(self.y))

        def __len__(self) -> int:
            return math.ceil(len(self.y) / batch_size)

        def __getitem__(self, index: int) -> Batch:
            rows = np.sort(self.order[index * batch_size : (index + 1) * batch_size])
            return self.x[rows].astype(np.float32) * 0.25, self.y[rows]

    return {"x": MemmapSequence()}


# numerai_sequence: this package.


def prepare_shards(parquet: Path, folder: Path) -> None:
    """Write a shard set with the package's defaults."""
    from numerai_sequence import write_shards

    write_shards(parquet, folder, progress=True)


def feed_shards(folder: Path, batch_size: int, epochs: int) -> dict[str, Any]:
    """Open the shard set with the package's defaults, as the README does."""
    from numerai_sequence import NumeraiSequence

    return {"x": NumeraiSequence(folder, batch_size=batch_size, seed=SEED), "workers": WORKERS}


@dataclass(frozen=True)
class Contender:
    """One way to train from a Parquet.

    Attributes
    ----------
    prepare : callable or None
        ``prepare(parquet, folder)`` writes the contender's own files; None when it has none.
    feed : callable
        ``feed(source, batch_size, epochs)`` returns keyword arguments of ``model.fit``.
    """

    prepare: Callable[[Path, Path], None] | None
    feed: Callable[[Path, int, int], dict[str, Any]]


CONTENDERS = {
    "pandas": Contender(None, feed_pandas),
    "article": Contender(prepare_article, feed_article),
    "np.memmap": Contender(prepare_memmap, feed_memmap),
    "numerai_sequence": Contender(prepare_shards, feed_shards),
}


def process_memory(pid: int | str = "self") -> dict[str, int]:
    """Return VmHWM, VmRSS, RssAnon and RssFile of a process in bytes; empty when it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    fields = dict(line.split(":", 1) for line in lines)
    names = ("VmHWM", "VmRSS", "RssAnon", "RssFile")
    return {name: int(fields[name].split()[0]) * 1024 for name in names if name in fields}


def small_model(features: int) -> Any:
    """Return the model that every contender trains; its metric ``rows`` counts trained rows."""
    import keras

    class RowCount(keras.metrics.Metric):
        """Counts inside the model, where a batch that is only fetched does not arrive."""

        def __init__(self) -> None:
            super().__init__(name="rows", dtype="int64")
            self.total = self.add_variable(shape=(), initializer="zeros", dtype="int64")

        def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
            self.total.assign_add(keras.ops.cast(keras.ops.shape(y_true)[0], "int64"))

        def result(self) -> Any:
            return keras.ops.convert_to_tensor(self.total)

    keras.utils.set_random_seed(SEED)
    layers = [keras.Input((features,)), keras.layers.Dense(32, "relu"), keras.layers.Dense(1)]
    model = keras.Sequential(layers)
    model.compile(optimizer="adam", loss="mse", metrics=[RowCount()])
    return model


def note(events: TextIO, event: str, **details: Any) -> None:
    """Write an event as a JSON line, with memory and the monotonic clock that processes share."""
    line = {"event": event, "seconds": time.monotonic(), **process_memory(), **details}
    print(json.dumps(line), file=events, flush=True)


@click.group()
def cli() -> None:
    """One process of a benchmark."""


@cli.command()
@click.argument("parquet", type=click.Path(path_type=Path))
@click.argument("rows", type=int)
@click.argument("features", type=int)
def synthetic(parquet: Path, rows: int, features: int) -> None:
    """Write a Numerai-shaped Parquet of random rows."""
    from numerai_sequence.synthetic import write_parquet

    write_parquet(parquet, rows=rows, features=features, seed=SEED, progress=True)


@cli.command()
@click.argument("name", type=click.Choice(list(CONTENDERS)))
@click.argument("parquet", type=click.Path(path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path))
def prepare(name: str, parquet: Path, folder: Path) -> None:
    """Write a contender's own files."""
    if write := CONTENDERS[name].prepare:
        write(parquet, folder)


@cli.command()
@click.argument("name", type=click.Choice(list(CONTENDERS)))
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--features", type=int, required=True)
@click.option("--batch-size", type=int, required=True)
@click.option("--epochs", type=int, required=True)
@click.option("--events", type=click.File("w"), required=True)
def fit(
    name: str, source: Path, features: int, batch_size: int, epochs: int, events: TextIO
) -> None:
    """Train the model on a contender's files and note what happened when."""
    import keras
    import tensorflow as tf

    modules: list[Any] = [tf, keras, np, pd, pa]
    note(events, "base", versions={module.__name__: module.__version__ for module in modules})
    model = small_model(features)
    arguments = CONTENDERS[name].feed(source, batch_size, epochs)
    note(events, "fit start")
    history = model.fit(**arguments, epochs=epochs, verbose=0)
    note(events, "fit end", rows=int(sum(history.history["rows"])))


if __name__ == "__main__":
    cli()
