"""Child: the commands that a benchmark runs as processes of their own, one a measurement.

Each notes what happened when (`events`). What is heavy is imported inside the command that needs
it, and before its event ``base``, so that it is no part of a measurement.
"""

import importlib
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

import click
from contenders import models
from contenders.catalog import CONTENDERS, SEED, Contender, Feeding

from harness.events import forget_peak, note
from harness.stopwatch import Stopwatch, TimeIsUp, drain, ticking

PATH = click.Path(path_type=Path)
NAME = click.Choice(list(CONTENDERS))
EVENTS = click.option("--events", type=click.File("w"), required=True)
BATCH_SIZE = click.option("--batch-size", default=1000)
FOREVER = 1_000_000  # epochs: the stopwatch ends the run


@click.group()
def cli() -> None:
    """One process of a benchmark."""


@cli.command()
@click.argument("parquet", type=PATH)
@click.argument("rows", type=int)
@click.argument("features", type=int)
@click.option("--row-group-rows", type=int)
def synthetic(parquet: Path, rows: int, features: int, row_group_rows: int | None) -> None:
    """Write a Numerai-shaped Parquet of random rows."""
    from numerai_sequence.synthetic import write_parquet

    write_parquet(
        parquet,
        rows=rows,
        features=features,
        seed=SEED,
        row_group_rows=row_group_rows,
        progress=True,
    )


@cli.command()
@click.argument("folder", type=PATH)
@click.argument("rows", type=int)
@click.argument("features", type=int)
def sparse(folder: Path, rows: int, features: int) -> None:
    """Write a shard set of zeros that takes no room."""
    from harness.sparse_set import write_sparse

    write_sparse(folder, rows=rows, features=features)


@cli.command()
@click.argument("name", type=NAME)
@click.argument("parquet", type=PATH)
@click.argument("folder", type=PATH)
def prepare(name: str, parquet: Path, folder: Path) -> None:
    """Write a contender's own files."""
    if write := CONTENDERS[name].prepare:
        write(parquet, folder)


@cli.command()
@click.argument("name", type=NAME)
@click.argument("source", type=PATH)
@click.option("--features", type=int, required=True)
@BATCH_SIZE
@click.option("--epochs", type=int, required=True)
@EVENTS
def fit(
    name: str, source: Path, features: int, batch_size: int, epochs: int, events: TextIO
) -> None:
    """Train on whole epochs of a contender's rows."""
    import keras

    note(events, "base", versions=versions("keras", "pandas"))
    model = models.build(keras, "F-32-1", features)
    feeding = Feeding(batch_size=batch_size, epochs=epochs, keras=keras)
    arguments = CONTENDERS[name].fit(source, feeding)
    note(events, "fit start")
    history = model.fit(**arguments, epochs=epochs, verbose=0)
    note(events, "fit end", rows=int(sum(history.history["rows"])))


@cli.command()
@click.argument("level", type=click.Choice(["loader", "fit"]))
@click.argument("name", type=NAME)
@click.argument("source", type=PATH)
@click.option("--features", type=int, required=True)
@BATCH_SIZE
@click.option("--dtype", default="float32")
@click.option("--keras", "keras_name", default="keras")
@click.option("--model", "model_name", default="F-32-1")
@click.option("--workers", default=4)
@click.option("--processes", is_flag=True)
@click.option("--in-memory-rows", type=int)
@click.option("--warmup-seconds", default=3.0)
@click.option("--seconds", default=10.0)
@click.option("--max-rows", type=int)
@click.option("--group", type=PATH, help="Enter this cgroup.procs after the imports.")
@EVENTS
def pace(
    level: str,
    name: str,
    source: Path,
    features: int,
    batch_size: int,
    dtype: str,
    keras_name: str,
    model_name: str,
    workers: int,
    processes: bool,
    in_memory_rows: int | None,
    warmup_seconds: float,
    seconds: float,
    max_rows: int | None,
    group: Path | None,
    events: TextIO,
) -> None:
    """Count the rows a second of batches alone, or of training."""
    contender = CONTENDERS[name]
    feeding = Feeding(batch_size, FOREVER, dtype, None, workers, processes, max_rows=in_memory_rows)
    stopwatch = Stopwatch(
        lambda event, **details: note(events, event, **details),
        warmup_seconds=warmup_seconds,
        seconds=seconds,
        max_rows=max_rows,
    )
    if level == "loader":
        load(contender, source, feeding, stopwatch, group, events)
    else:
        keras = importlib.import_module(keras_name)
        model = models.build(keras, model_name, features, dtype)
        train(contender, source, replace(feeding, keras=keras), stopwatch, model, events)
    events.close()
    # Workers of Keras may still be waiting; nobody waits for them here.
    os._exit(0)


def load(
    contender: Contender,
    source: Path,
    feeding: Feeding,
    stopwatch: Stopwatch,
    group: Path | None,
    events: TextIO,
) -> None:
    """Take batches as fast as they come."""
    base(events, *contender.imports)
    if group:
        group.write_text(str(os.getpid()))
    assert contender.batches is not None
    batches = contender.batches(source, feeding)
    opened(events, getattr(batches, "sequence", None))
    drain(batches, stopwatch)


def train(
    contender: Contender,
    source: Path,
    feeding: Feeding,
    stopwatch: Stopwatch,
    model: Any,
    events: TextIO,
) -> None:
    """Train until the stopwatch has seen enough."""
    base(events, feeding.keras.__name__, *contender.imports)
    arguments = contender.fit(source, feeding)
    opened(events, arguments["x"])
    with suppress(TimeIsUp):
        callbacks = [ticking(feeding.keras, stopwatch)]
        model.fit(**arguments, epochs=feeding.epochs, verbose=0, callbacks=callbacks)


@cli.command()
@click.argument("level", type=click.Choice(["loader", "fit"]))
@click.argument("folder", type=PATH)
@click.option("--features", type=int, required=True)
@BATCH_SIZE
@click.option("--batches", required=True, type=int)
@click.option("--workers", default=1, help="Of fit.")
@click.option("--world-size", default=1, help="Be the last of so many ranks.")
@EVENTS
def grow(
    level: str,
    folder: Path,
    features: int,
    batch_size: int,
    batches: int,
    workers: int,
    world_size: int,
    events: TextIO,
) -> None:
    """Open a shard set and take its first batches, in a process that has trained before."""
    import keras
    import numpy as np

    from numerai_sequence import NumeraiSequence

    model = models.build(keras, "F-32-1", features)
    x, y = np.zeros((batch_size, features), np.float32), np.zeros(batch_size, np.float32)
    model.fit(x, y, batch_size=batch_size, verbose=0)
    base(events, "keras")
    ranks = {"rank": world_size - 1, "world_size": world_size}
    sequence = NumeraiSequence(folder, batch_size=batch_size, seed=SEED, **ranks)
    opened(events, sequence)
    stopwatch = Stopwatch(
        lambda event, **details: note(events, event, **details),
        warmup_seconds=0,
        seconds=float("inf"),
        max_rows=(batches - 1) * batch_size,  # the first one starts the stopwatch
    )
    if level == "loader":
        drain((sequence[index] for index in range(len(sequence))), stopwatch)
    else:
        with suppress(TimeIsUp):
            callbacks = [ticking(keras, stopwatch)]
            model.fit(sequence, workers=workers, verbose=0, callbacks=callbacks)
    events.close()
    os._exit(0)


@cli.command()
@click.argument("name")
@click.argument("folder", type=PATH)
@click.argument("parquet", type=PATH)
@click.option("--features", type=int, required=True)
@click.option("--seconds", type=float, required=True)
@EVENTS
def modelling(
    name: str, folder: Path, parquet: Path, features: int, seconds: float, events: TextIO
) -> None:
    """Take batches of a choice of rows, or score or predict all of them."""
    import keras
    import numpy as np
    from measures.modelling import CHOICES, choose, score

    importlib.import_module("numerai_tools.scoring")  # seconds that are no part of the scoring
    model = models.build(keras, "F-32-1", features)
    model.predict_on_batch(np.zeros((1000, features), np.float32))
    base(events, "keras", "pandas")
    if name in CHOICES:
        choose(name, folder, seconds, events)
    else:
        note(events, "end", rows=score(name, folder, parquet, model))


@cli.command()
@click.argument("parquet", type=PATH)
@click.argument("folder", type=PATH)
@click.option("--encoding", required=True)
@EVENTS
def write(parquet: Path, folder: Path, encoding: str, events: TextIO) -> None:
    """Write a shard set."""
    from numerai_sequence import write_shards

    base(events)
    shards = write_shards(parquet, folder, encoding=encoding, progress=False)
    note(events, "end", rows=shards.rows)


@cli.command()
@click.argument("parquet", type=PATH)
@EVENTS
def read(parquet: Path, events: TextIO) -> None:
    """Read all columns into memory with pyarrow's threads."""
    import pyarrow.parquet as pq

    base(events)
    note(events, "end", rows=pq.read_table(parquet, use_threads=True).num_rows)


def base(events: TextIO, *modules: str) -> None:
    """Import these, and note what the process holds before it opens any data."""
    found = versions(*modules)
    forget_peak()
    note(events, "base", versions=found)


def opened(events: TextIO, sequence: Any) -> None:
    """Note that the data is open, and what a `NumeraiSequence` chose by itself."""
    chosen = {what: getattr(sequence, what, None) for what in ("paging", "run_rows")}
    note(events, "opened", **chosen)


def versions(*modules: str) -> dict[str, str]:
    """Import these, NumPy and pyarrow, and return the versions."""
    for module in modules:
        importlib.import_module(module)
    found = {module.split(".")[0] for module in modules} | {"numpy", "pyarrow"}
    if found & {"keras", "tf_keras", "numerai_sequence"}:
        found.add("tensorflow")
    return {name: importlib.import_module(name).__version__ for name in sorted(found)}


if __name__ == "__main__":
    cli()
