"""Cores: what more threads and processes bring in writing, in reading and in ``fit``.

Meant for a machine with many cores, and an accelerator where it has one: Keras runs on the backend
that KERAS_BACKEND names, and takes the device that the backend takes. Everything is in one process,
each rate the best of its epochs, the first of which only compiles.
"""

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click
import numpy as np
import report
from inputs import SEED

from numerai_sequence import NumeraiSequence, open_shards, write_shards
from numerai_sequence.synthetic import write_parquet

FOLDER = click.Path(file_okay=False, path_type=Path)
HIDDEN = {"F-32-1": (32,), "F-1024-512-1": (1024, 512)}
DTYPES = ("float32", "int8")


def sources(work: Path, rows: int, features: int, files: int) -> list[Path]:
    """Return synthetic files of consecutive eras, written by as many processes."""
    paths = [work / f"part-{number:02}.parquet" for number in range(files)]
    shape = {"rows": rows // files, "features": features, "targets": 1}
    with ProcessPoolExecutor(files, get_context("spawn")) as pool:
        made = [
            pool.submit(write_parquet, path, first_era=1 + 100 * n, **shape)
            for n, path in enumerate(paths)
        ]
    return [one.result() for one in made]


def writing(paths: list[Path], work: Path, processes: tuple[int, ...]) -> Iterator[list[str]]:
    """Yield a row for each number of processes: rows a second, and how many times one's."""
    first = None
    for count in processes:
        pool = ProcessPoolExecutor(count, get_context("spawn")) if count > 1 else nullcontext()
        with pool as executor:
            if executor:
                # Their start is not the writing's: each is there when it has one of these.
                list(executor.map(time.sleep, [1.0] * count))
            start = time.perf_counter()
            shards = write_shards(
                paths, work / "set", executor=executor, overwrite=True, progress=False
            )
            rate = shards.rows / (time.perf_counter() - start)
        shards.close()
        first = first or rate
        yield [f"{count}", f"{rate:,.0f}", f"{rate / first:.2f}"]


def reading(folder: Path, batch_size: int, threads: tuple[int, ...]) -> Iterator[list[str]]:
    """Yield a row for each number of threads: rows a second without a model."""
    for count in threads:
        cells = []
        for dtype in DTYPES:
            sequence = NumeraiSequence(folder, batch_size=batch_size, seed=SEED, dtype=dtype)
            seconds = []
            for _ in range(3):
                batches = sequence.one_pass()
                start = time.perf_counter()
                with ThreadPoolExecutor(count) as pool:
                    for _ in pool.map(partial(take, batches), range(len(batches))):
                        pass
                seconds.append(time.perf_counter() - start)
            cells.append(f"{sequence.rows / min(seconds):,.0f}")
        yield [f"{count}", *cells]


def take(batches: Any, number: int) -> None:
    batches[number]


def fitting(
    folder: Path, batch_size: int, workers: tuple[int, ...], epochs: int
) -> Iterator[list[str]]:
    """Yield a row for each network and feeding: rows a second through ``fit``."""
    with open_shards(folder) as shards:
        features = len(shards.features)
    for network in HIDDEN:
        for feeding in ("arrays in memory", *(f"{count} workers" for count in workers)):
            cells = []
            for dtype in DTYPES:
                sequence = NumeraiSequence(folder, batch_size=batch_size, seed=SEED, dtype=dtype)
                model = build(network, features, dtype)
                if feeding == "arrays in memory":
                    whole = NumeraiSequence(folder, batch_size=sequence.rows, dtype=dtype)
                    x, y = whole[0]
                    fit = partial(model.fit, x, y, batch_size=batch_size)
                else:
                    fit = partial(model.fit, sequence, workers=int(feeding.split()[0]))
                cells.append(f"{sequence.rows / fastest_epoch(fit, epochs):,.0f}")
            yield [network, feeding, *cells]


def build(network: str, features: int, dtype: str) -> Any:
    import keras

    layers = keras.layers
    # What Rescaling does, which needs TensorFlow on every backend.
    scaling = [layers.Lambda(lambda x: keras.ops.cast(x, "float32") * 0.25)]
    scaling = scaling if dtype == "int8" else []
    hidden = [layers.Dense(units, "relu") for units in HIDDEN[network]]
    inputs = keras.Input((features,), dtype=dtype)
    model = keras.Sequential([inputs, *scaling, *hidden, layers.Dense(1)])
    model.compile("adam", "mse")
    return model


def fastest_epoch(fit: Callable[..., Any], epochs: int) -> float:
    import keras

    class Times(keras.callbacks.Callback):
        def __init__(self) -> None:
            super().__init__()
            self.seconds: list[float] = []

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.start = time.perf_counter()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.seconds.append(time.perf_counter() - self.start)

    times = Times()
    fit(epochs=epochs, verbose=0, callbacks=[times])
    return min(times.seconds[1:])


def device() -> str:
    """Return what the backend computes on."""
    import keras

    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return f"JAX {jax.__version__}, {jax.devices()[0].device_kind}"
    if backend == "torch":
        import torch

        name = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
        return f"torch {torch.__version__}, {name}"
    return "TensorFlow"


@click.command()
@click.option("--rows", default=400_000, show_default=True)
@click.option("--features", default=3555, show_default=True)
@click.option("--files", default=8, show_default=True, help="That the rows come from.")
@click.option("--batch-size", "batch_sizes", multiple=True, default=(1000,), show_default=True)
@click.option("--epochs", default=4, show_default=True, help="Of each fit.")
@click.option("--part", "parts", multiple=True, default=("write", "read", "fit"))
@click.option("--work", type=FOLDER, required=True, help="Keeps the files; on a disk.")
@click.option("--out", type=FOLDER, default=report.RESULTS, help="Where results go.")
def main(
    rows: int,
    features: int,
    files: int,
    batch_sizes: tuple[int, ...],
    epochs: int,
    parts: tuple[str, ...],
    work: Path,
    out: Path,
) -> None:
    """Measure writing by processes, reading by threads, and fit by workers."""
    cores = len(os.sched_getaffinity(0))
    threads = (1, 2, 4, 8, 16)  # more than there are processors, too: they should cost nothing
    counts = tuple(count for count in threads if count <= cores)
    text = [f"{cores} cores, {device()}, NumPy {np.__version__}, {rows:,} rows x {features:,}"]
    work.mkdir(parents=True, exist_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    paths = sources(work, rows, features, files)

    def show(title: str, header: list[str], lines: Iterator[list[str]]) -> None:
        text.append(f"#### {title}\n\n{report.table(header, lines)}")
        click.echo(text[-1])
        (out / "cores.md").write_text("\n".join(text))

    if "write" in parts:
        show("writing", ["processes", "rows/s", "times one's"], writing(paths, work, counts))
    else:
        write_shards(paths, work / "set", progress=False).close()
    for size in batch_sizes:
        if "read" in parts:
            rates = reading(work / "set", size, threads)
            show(f"reading batches of {size}", ["threads", *DTYPES], rates)
        if "fit" in parts:
            rates = fitting(work / "set", size, threads, epochs)
            show(f"fit of batches of {size}", ["", "fed by", *DTYPES], rates)


if __name__ == "__main__":
    main()
