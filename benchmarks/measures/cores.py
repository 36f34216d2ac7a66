"""Cores: the speed of writing, reading and ``fit`` with more processes, threads and workers.

It is for a machine with many cores, with or without an accelerator. KERAS_BACKEND chooses Keras's
backend, and the backend chooses the device. All is measured in one process. Each rate is the best
of its epochs; the first epoch only compiles.
"""

import gc
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click
import numpy as np
from harness import report
from harness.input_files import SEED

from numerai_sequence import NumeraiSequence, Unpack, open_shards, write_shards
from numerai_sequence.synthetic import write_parquet

FOLDER = click.Path(file_okay=False, path_type=Path)
# The last network is limited by the computing of the device.
HIDDEN = {"F-32-1": (32,), "F-1024-512-1": (1024, 512), "F-4096-4096-1": (4096, 4096)}
DTYPES = ("float32", "int8")


def sources(work: Path, rows: int, features: int, files: int) -> list[Path]:
    """Return synthetic files of consecutive eras, each written by its own process."""
    paths = [work / f"part-{number:02}.parquet" for number in range(files)]
    shape = {"rows": rows // files, "features": features, "targets": 1}
    with ProcessPoolExecutor(files, get_context("spawn")) as pool:
        made = [
            pool.submit(write_parquet, path, first_era=1 + 100 * n, **shape)
            for n, path in enumerate(paths)
        ]
    return [one.result() for one in made]


def writing(paths: list[Path], work: Path, processes: tuple[int, ...]) -> Iterator[list[str]]:
    """Yield a row for each number of processes: rows a second, and the ratio to one process."""
    first = None
    for count in processes:
        pool = ProcessPoolExecutor(count, get_context("spawn")) if count > 1 else nullcontext()
        with pool as executor:
            if executor:
                # Do not measure the start of processes: each has started when it gets a task.
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
    folder: Path,
    batch_size: int,
    workers: tuple[int, ...],
    epochs: int,
    networks: tuple[str, ...],
) -> Iterator[list[str]]:
    """Yield a row for each network and feeding: rows a second through ``fit``, and ratios.

    The first ratio is to int8 arrays in memory. The second is to one batch of floats on the device
    that is trained again and again: no feeding can be faster.
    """
    for network in networks:
        base = limit = 0.0
        for name, feed in feeds(workers).items():
            fit, rows = feed(folder, network, batch_size)
            rate = rows / fastest_epoch(fit, epochs)
            base = rate if name == BASE else base
            limit = rate if name == LIMIT else limit
            yield [network, name, f"{rate:,.0f}", ratio(rate, base), ratio(rate, limit)]
            del fit
            gc.collect()


BASE, LIMIT = "arrays in memory, int8", "one batch over and over"
Feed = Callable[[Path, str, int], tuple[Callable[..., Any], int]]


def feeds(workers: tuple[int, ...]) -> dict[str, Feed]:
    """Return the ways to feed a network, by name."""
    made: dict[str, Feed] = {BASE: partial(from_arrays, dtype="int8"), LIMIT: from_one_batch}
    made["arrays in memory, float32"] = partial(from_arrays, dtype="float32")
    for dtype in (*DTYPES, "packed"):
        for count in workers:
            many = "" if count == 1 else "s"
            made[f"{dtype}, {count} worker{many}"] = partial(from_host, dtype=dtype, workers=count)
    return {**made, "resident, 4 workers": from_device}


def ratio(rate: float, to: float) -> str:
    return f"{rate / to:.2f}" if to else "-"


def from_arrays(
    folder: Path, network: str, batch_size: int, *, dtype: str
) -> tuple[Callable[..., Any], int]:
    with open_shards(folder) as shards:
        x, y = NumeraiSequence(shards, batch_size=shards.rows, dtype=dtype)[0]
    model = build(network, x.shape[1], dtype)
    return partial(model.fit, x, y, batch_size=batch_size), len(y)


def from_one_batch(folder: Path, network: str, batch_size: int) -> tuple[Callable[..., Any], int]:
    import keras

    sequence = NumeraiSequence(folder, batch_size=batch_size)
    batch = tuple(keras.ops.convert_to_tensor(part) for part in sequence[0])

    class Same(keras.utils.PyDataset):
        def __len__(self) -> int:
            return len(sequence)

        def __getitem__(self, index: int) -> Any:
            return batch

    model = build(network, len(sequence.features), "float32")
    return partial(model.fit, Same()), batch_size * len(sequence)


def from_host(
    folder: Path, network: str, batch_size: int, *, dtype: str, workers: int
) -> tuple[Callable[..., Any], int]:
    sequence = NumeraiSequence(folder, batch_size=batch_size, seed=SEED, dtype=dtype)
    first = [Unpack.of(sequence)] if dtype == "packed" else []
    model = build(network, len(sequence.features), dtype, first)
    return partial(model.fit, sequence, workers=workers), sequence.rows


def from_device(folder: Path, network: str, batch_size: int) -> tuple[Callable[..., Any], int]:
    sequence = NumeraiSequence(
        folder, batch_size=batch_size, seed=SEED, dtype="packed", resident=True
    )
    model = build(network, len(sequence.features), "packed", [Unpack.of(sequence)])
    return partial(model.fit, sequence, workers=4), sequence.rows


def loading(folder: Path) -> Iterator[list[str]]:
    """Yield the time to put the rows on the device, and the memory that they take there."""
    sequence = NumeraiSequence(folder, dtype="packed", resident=True)
    for _ in range(2):  # the first time reads the files, and compiles
        gc.collect()
        before, start = device_bytes(), time.perf_counter()
        layer = Unpack.of(sequence)
        seconds = time.perf_counter() - start
        packed, after = sequence.rows * layer.row_bytes, device_bytes()
        used = "-" if None in (before, after) else f"{(after - before) / packed:.3f}"
        yield [f"{packed / 1e9:.2f}", f"{seconds:.2f}", f"{packed / seconds / 1e9:.2f}", used]
        sequence = NumeraiSequence(folder, dtype="packed", resident=True)
        del layer


def device_bytes() -> int | None:
    """Return the used memory of an accelerator in bytes, or None if unknown."""
    import keras

    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        found = jax.devices()[0].memory_stats()
        return found and int(found["bytes_in_use"])
    if backend == "torch":
        import torch

        return int(torch.cuda.memory_allocated()) if torch.cuda.is_available() else None
    import tensorflow as tf

    found = tf.config.list_logical_devices("GPU")
    return int(tf.config.experimental.get_memory_info("GPU:0")["current"]) if found else None


def build(network: str, features: int, dtype: str, first: Sequence[Any] = ()) -> Any:
    import keras

    layers = keras.layers
    # The same as Rescaling, which needs TensorFlow on every backend.
    scaling = [layers.Lambda(lambda x: keras.ops.cast(x, "float32") * 0.25)]
    scaling = [keras.Input((features,), dtype=dtype), *scaling] if dtype == "int8" else []
    hidden = [layers.Dense(units, "relu") for units in HIDDEN[network]]
    model = keras.Sequential([*first, *scaling, *hidden, layers.Dense(1)])
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
    """Return the name and version of the backend and its device."""
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
@click.option(
    "--files", default=8, show_default=True, help="Number of Parquet files to write from."
)
@click.option("--batch-size", "batch_sizes", multiple=True, default=(1000, 8000))
@click.option("--epochs", default=4, show_default=True, help="Number of epochs of each fit.")
@click.option("--part", "parts", multiple=True, default=("write", "read", "load", "fit"))
@click.option(
    "--network", "networks", multiple=True, help="Network to fit; repeatable.  [default: all]"
)
@click.option("--work", type=FOLDER, required=True, help="Folder for the files, on a disk.")
@click.option("--out", type=FOLDER, default=report.RESULTS, help="Folder for the results.")
def main(
    rows: int,
    features: int,
    files: int,
    batch_sizes: tuple[int, ...],
    epochs: int,
    parts: tuple[str, ...],
    networks: tuple[str, ...],
    work: Path,
    out: Path,
) -> None:
    """Measure writing with processes, reading with threads, and fit with different feeds."""
    cores = len(os.sched_getaffinity(0))
    threads = (1, 2, 4, 8, 16)  # also more threads than cores: they should cost nothing
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
    if "load" in parts:
        show("rows to the device", ["GB", "s", "GB/s", "device memory / GB"], loading(work / "set"))
    for size in batch_sizes:
        if "read" in parts:
            rates = reading(work / "set", size, threads)
            show(f"reading batches of {size}", ["threads", *DTYPES], rates)
        if "fit" in parts:
            rates = fitting(work / "set", size, (1, 4), epochs, networks or tuple(HIDDEN))
            header = ["", "fed by", "rows/s", "of int8 arrays", "of one batch"]
            show(f"fit of batches of {size}", header, rates)
