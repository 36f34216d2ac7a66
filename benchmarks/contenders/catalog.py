"""Contenders: turn one Numerai Parquet into random batches, each loader in its own way.

Every contender has three parts: `prepare` writes the files of its own format, `batches` hands out
one batch after the other without Keras, and `fit` returns the arguments of ``model.fit``.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from harness.input_files import SEED, feature_names, prepared

from contenders import arrays, article

Batch = tuple[Any, Any]


@dataclass(frozen=True)
class Feeding:
    """How the batches shall come.

    Attributes
    ----------
    keras : module or None
        ``keras`` or ``tf_keras``, that `fit` is for.
    workers, processes : int, bool
        Threads, or processes, of the contenders that are a Keras Sequence.
    max_rows : int or None
        Of the contender that holds float32 rows in memory, to fit there at all.
    """

    batch_size: int = 1000
    epochs: int = 1
    dtype: str = "float32"
    keras: Any = None
    workers: int = 4
    processes: bool = False
    max_rows: int | None = None


@dataclass(frozen=True)
class Contender:
    """One way to train from a Parquet.

    Attributes
    ----------
    fit : callable
        ``fit(source, feeding)`` returns keyword arguments of ``model.fit``.
    batches : callable or None
        ``batches(source, feeding)`` yields batches in random order, epoch after epoch.
    prepare : callable or None
        ``prepare(parquet, folder)`` writes the contender's own files; None when it has none.
    files : str or None
        The contender whose files it reads, if not its own.
    imports : tuple of str
        What it loads before it opens its files, which is no part of a measurement.
    is_sequence : bool
        Keras's workers apply.
    is_in_memory : bool
        It needs all rows there.
    dtypes : tuple of str
    """

    fit: Callable[[Path, Feeding], dict[str, Any]]
    batches: Callable[[Path, Feeding], Iterable[Batch]] | None = None
    prepare: Callable[[Path, Path], object] | None = None
    files: str | None = None
    imports: tuple[str, ...] = ()
    is_sequence: bool = False
    is_in_memory: bool = False
    dtypes: tuple[str, ...] = ("float32", "int8")


# pandas and NumPy: every row in memory.


def fit_pandas(parquet: Path, feeding: Feeding) -> dict[str, Any]:
    """Read the whole file and scale it, as most tournament notebooks do."""
    import pandas as pd

    frame = pd.read_parquet(parquet)
    x = frame[feature_names(parquet)].to_numpy(np.float32) * 0.25
    return {"x": x, "y": frame["target"].to_numpy(np.float32), "batch_size": feeding.batch_size}


def fit_memory(folder: Path, feeding: Feeding) -> dict[str, Any]:
    """Hand Keras arrays, of as many rows as may be in memory."""
    x = np.load(folder / "x.npy", mmap_mode="r")[: feeding.max_rows]
    y = np.load(folder / "y.npy")[: feeding.max_rows]
    x = np.multiply(x, np.float32(0.25)) if feeding.dtype == "float32" else np.array(x)
    return {"x": x, "y": y, "batch_size": feeding.batch_size}


# What is read by row numbers (`arrays`).


def read_rows(x: Any, y: np.ndarray, numbers: np.ndarray, dtype: str) -> Batch:
    """Return the batch of these rows, which are read in the order of the file."""
    numbers = np.sort(numbers)
    rows = x[numbers]
    return (rows if dtype == "int8" else rows.astype(np.float32) * 0.25), y[numbers]


def batches_by_row(open_rows: Any, folder: Path, feeding: Feeding) -> Iterator[Batch]:
    """Yield random rows, in a new order every epoch."""
    x, y = open_rows(folder)
    for epoch in range(feeding.epochs):
        order = np.random.default_rng([SEED, epoch]).permutation(len(y))
        for start in range(0, len(y), feeding.batch_size):
            numbers = order[start : start + feeding.batch_size]
            yield read_rows(x, y, numbers, feeding.dtype)


def fit_by_row(open_rows: Any, folder: Path, feeding: Feeding) -> dict[str, Any]:
    """Gather random rows in a Sequence, the usual answer to "it does not fit"."""
    utils, size = feeding.keras.utils, feeding.batch_size
    options = {"workers": feeding.workers, "use_multiprocessing": feeding.processes}
    is_keras_3 = hasattr(utils, "PyDataset")

    class RowSequence(utils.PyDataset if is_keras_3 else utils.Sequence):
        """Batches of a fixed random row order; Keras shuffles the batches themselves."""

        def __init__(self) -> None:
            super().__init__(**(options if is_keras_3 else {}))
            self.x, self.y = open_rows(folder)
            self.order = np.random.default_rng(SEED).permutation(len(self.y))

        def __len__(self) -> int:
            return math.ceil(len(self.y) / size)

        def __getitem__(self, index: int) -> Batch:
            numbers = self.order[index * size : (index + 1) * size]
            return read_rows(self.x, self.y, numbers, feeding.dtype)

    return {"x": RowSequence(), **({} if is_keras_3 else options)}


# The pipelines: tf.data, and the article of 2021. Only the processes of tf.data import `records`,
# and with it TensorFlow.


def prepare_records(parquet: Path, folder: Path) -> None:
    """Write TFRecord files."""
    from contenders import records

    records.prepare(parquet, folder)


def fit_records(folder: Path, feeding: Feeding) -> dict[str, Any]:
    """Hand Keras the pipeline."""
    from contenders import records

    return {"x": records.pipeline(folder, feeding.batch_size, feeding.dtype)}


def batches_of_records(folder: Path, feeding: Feeding) -> Iterator[Batch]:
    """Yield the pipeline's tensors, made by one thread of its own."""
    from contenders import records

    batches = records.pipeline(folder, feeding.batch_size, feeding.dtype, threads=1)
    yield from batches.repeat(feeding.epochs)


def fit_article(folder: Path, feeding: Feeding) -> dict[str, Any]:
    """Hand Keras the generator."""
    batches = article.batches(folder, feeding.batch_size, feeding.epochs)
    steps = article.batch_count(folder, feeding.batch_size)
    return {"x": batches, "steps_per_epoch": steps, "shuffle": False}


def batches_of_article(folder: Path, feeding: Feeding) -> Iterator[Batch]:
    """Return the generator, with its two threads."""
    return article.batches(folder, feeding.batch_size, feeding.epochs)


# numerai_sequence: this package.


def prepare_shards(encoding: str, parquet: Path, folder: Path) -> None:
    """Write a shard set with the package's defaults."""
    from numerai_sequence import write_shards

    write_shards(parquet, folder, encoding=encoding, progress=True)


def open_sequence(folder: Path, feeding: Feeding, **options: Any) -> Any:
    """Open the shard set with the package's defaults, as README.md does."""
    from numerai_sequence import NumeraiSequence

    return NumeraiSequence(
        folder, batch_size=feeding.batch_size, seed=SEED, dtype=feeding.dtype, **options
    )


def fit_shards(folder: Path, feeding: Feeding, **options: Any) -> dict[str, Any]:
    """Hand Keras the sequence, and the workers in ``fit``."""
    workers = {"workers": feeding.workers, "use_multiprocessing": feeding.processes}
    return {"x": open_sequence(folder, feeding, **options), **workers}


class ShardBatches:
    """The sequence's batches one after the other, as one worker asks for them."""

    def __init__(self, folder: Path, feeding: Feeding, **options: Any) -> None:
        self.sequence = open_sequence(folder, feeding, **options)
        self.epochs = feeding.epochs

    def __iter__(self) -> Iterator[Batch]:
        for _ in range(self.epochs):
            for index in range(len(self.sequence)):
                yield self.sequence[index]
            self.sequence.on_epoch_end()


def shards(encoding: str, files: str | None = None, **options: Any) -> Contender:
    """Return the package as a contender, with these options of the sequence."""
    return Contender(
        partial(fit_shards, **options),
        partial(ShardBatches, **options),
        None if files else partial(prepare_shards, encoding),
        files,
        imports=("numerai_sequence.feeding.sequence",),
        is_sequence=True,
    )


def by_row(open_rows: Any, **rest: Any) -> Contender:
    """Return a contender that is read by row numbers."""
    fit, batches = partial(fit_by_row, open_rows), partial(batches_by_row, open_rows)
    return Contender(fit, batches, is_sequence=True, **rest)


CONTENDERS = {
    "pandas": Contender(fit_pandas, imports=("pandas",), is_in_memory=True, dtypes=("float32",)),
    "article": Contender(fit_article, batches_of_article, article.prepare, dtypes=("float32",)),
    "np.memmap": by_row(partial(arrays.open_array, "r"), prepare=arrays.prepare_memmap),
    "numerai_sequence": shards("packed"),
    "numerai_sequence int8": shards("int8"),
    "numerai_sequence run_rows=1": shards("packed", "numerai_sequence", run_rows=1),
    "numerai_sequence run_rows=1 512MB": shards(
        "packed", "numerai_sequence", run_rows=1, memory_budget="512MB"
    ),
    "numerai_sequence int8 run_rows=1 512MB": shards(
        "int8", "numerai_sequence int8", run_rows=1, memory_budget="512MB"
    ),
    "datasets": by_row(arrays.open_dataset, prepare=arrays.prepare_dataset, imports=("datasets",)),
    "tf.data": Contender(fit_records, batches_of_records, prepare_records, imports=("tensorflow",)),
    "memory": Contender(
        fit_memory,
        partial(batches_by_row, partial(arrays.open_array, None)),
        files="np.memmap",
        is_in_memory=True,
    ),
}


def source_of(name: str, parquet: Path, work: Path) -> Path:
    """Return what the contender reads, prepared in the work folder if it is not there yet."""
    contender = CONTENDERS[name]
    if contender.prepare is None and contender.files is None:
        return parquet
    return prepared(contender.files or name, parquet, work)
