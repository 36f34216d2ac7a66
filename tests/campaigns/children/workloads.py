"""Workloads: what a process does with shard sets for many rounds, with a look after each."""

import importlib
import multiprocessing
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

# Its sequence is asked for in the processes alone: it comes with TensorFlow.
import numerai_sequence
from numerai_sequence import open_shards, write_shards

ROWS, FEATURES, BATCH_ROWS = 4000, 60, 100

Look = Callable[[], None]


def fit_arrays(folder: Path, look: Look, rounds: int, *, keras: str = "keras") -> None:
    """Train on NumPy arrays: what Keras itself loses."""
    x, y = arrays()
    build(keras).fit(x, y, batch_size=BATCH_ROWS, **epochs(keras, look, rounds))


def fit_plain(folder: Path, look: Look, rounds: int) -> None:
    """Train on new sequences of Keras's own kind: TensorFlow keeps something of each."""
    model = build("keras")
    for _ in range(rounds):
        model.fit(plain_sequence(), verbose=0)
        look()


def evaluate_plain(folder: Path, look: Look, rounds: int) -> None:
    """Evaluate two batches of a sequence of Keras's own kind again and again."""
    model, sequence = build("keras"), plain_sequence()
    for _ in range(rounds):
        model.evaluate(sequence, steps=2, verbose=0)
        look()


def fit(
    folder: Path,
    look: Look,
    rounds: int,
    *,
    keras: str = "keras",
    method: str = "fork",
    validates: bool = False,
    **options: Any,
) -> None:
    """Train for so many epochs; `options` are those of Keras's fit."""
    multiprocessing.set_start_method(method, force=True)
    multiprocessing.set_forkserver_preload(["numerai_sequence.feeding.sequence"])
    module = importlib.import_module(keras)  # first: a sequence is one of all that are loaded
    sequence = numerai_sequence.NumeraiSequence(folder, BATCH_ROWS)
    if validates:
        options["validation_data"] = numerai_sequence.NumeraiSequence(
            folder, BATCH_ROWS, shuffle=False
        )
    model = build(keras)
    assert isinstance(model, module.Model)
    model.fit(sequence, **epochs(keras, look, rounds), **options)


def fit_two_models(folder: Path, look: Look, rounds: int, **options: Any) -> None:
    """Train two models on a sequence each, in two threads."""
    other = Thread(fit, folder, lambda: None, rounds, **options)
    fit(folder, look, rounds, **options)
    other.join()


def fit_and_read(folder: Path, look: Look, rounds: int, **options: Any) -> None:
    """Train on a sequence that another thread reads batches of meanwhile."""
    sequence = numerai_sequence.NumeraiSequence(folder, BATCH_ROWS)
    is_over = threading.Event()

    def read() -> None:
        while not is_over.is_set():
            for number in range(len(sequence)):
                sequence[number]

    other = Thread(read)
    try:
        model = build("keras")
        model.fit(sequence, **epochs("keras", look, rounds), **options)
    finally:
        is_over.set()
    other.join()


def fit_anew(folder: Path, look: Look, rounds: int) -> None:
    """Train an epoch, write the set anew, open it again, and so on."""
    sources = sorted(folder.parent.glob("*.parquet"))
    written = folder.with_name("anew")
    model = None
    for number in range(rounds):
        source = sources[number % len(sources)]
        options = {"num_shards": 4, "overwrite": True, "progress": False}
        with write_shards(source, written, **options) as shards:
            sequence = numerai_sequence.NumeraiSequence(shards, BATCH_ROWS)
            model = model or build("keras")
            model.fit(sequence, workers=2, verbose=0)
        look()


def open_sequences(folder: Path, look: Look, rounds: int) -> None:
    """Open sequences, read some batches, pickle and unpickle them, and drop them."""
    for number in range(rounds):
        sequence = numerai_sequence.NumeraiSequence(
            folder, BATCH_ROWS, seed=number, run_rows=1 + number % 8
        )
        sequence[0], sequence[len(sequence) - 1]
        if number % 4 == 0:
            pickle.loads(pickle.dumps(sequence))[1]
            sequence.in_order(BATCH_ROWS + number)[2]
        look()


def open_sets(folder: Path, look: Look, rounds: int) -> None:
    """Open sets and slices of them, read a column, check every byte of some, and close them."""
    for number in range(rounds):
        with open_shards(folder) as shards:
            part, one = shards[:: 1 + number % 3], shards[number % len(shards)]
            part.column("id"), one.row_reader.gather(np.arange(20), one.targets)
            if number % 10 == 0:
                shards.verify()
        look()


def abandon(folder: Path, look: Look, rounds: int) -> None:
    """Begin passes over a sequence, alone and in threads of Keras's, and drop them half-way."""
    sequence = numerai_sequence.NumeraiSequence(folder, BATCH_ROWS)
    model = build("keras")
    for number in range(rounds):
        next(iter(sequence))
        sequence.one_pass()[number % len(sequence)]
        model.evaluate(sequence, steps=2, verbose=0, workers=2)
        look()


def open_and_train(folder: Path, look: Look, rounds: int) -> None:
    """Open a sequence, train a model on it and drop the sequence, with one model for all."""
    model = None
    for number in range(rounds):
        sequence = numerai_sequence.NumeraiSequence(folder, 10 * BATCH_ROWS, seed=number)
        model = model or build("keras")
        model.fit(sequence, workers=2, verbose=0)
        look()


class Thread(threading.Thread):
    """A thread that is running, and whose error `join` raises."""

    def __init__(self, function: Callable[..., None], *arguments: Any, **options: Any) -> None:
        super().__init__(daemon=True)
        self._call = function, arguments, options
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        function, arguments, options = self._call
        try:
            function(*arguments, **options)
        except BaseException as error:
            self._error = error

    def join(self, timeout: float | None = None) -> None:
        super().join(timeout)
        if self._error is not None:
            raise self._error


def plain_sequence() -> Any:
    """Return a sequence that is none of ours, of some batches of zeros."""
    keras = importlib.import_module("keras")

    class Plain(keras.utils.PyDataset):
        def __len__(self) -> int:
            return 4

        def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
            return np.zeros((BATCH_ROWS, FEATURES), np.float32), np.zeros(BATCH_ROWS, np.float32)

    return Plain(workers=2)


def arrays() -> tuple[np.ndarray, np.ndarray]:
    """Return x and y of the shapes that the set has."""
    return np.zeros((ROWS, FEATURES), np.float32), np.zeros(ROWS, np.float32)


def build(keras: str) -> Any:
    """Return a small compiled model."""
    module = importlib.import_module(keras)
    layers = [module.Input((FEATURES,)), module.layers.Dense(8, "relu"), module.layers.Dense(1)]
    model = module.Sequential(layers)
    model.compile(optimizer="adam", loss="mse")
    return model


def epochs(keras: str, look: Look, rounds: int) -> dict[str, Any]:
    """Return arguments of fit that have each epoch looked at."""
    callback = importlib.import_module(keras).callbacks.LambdaCallback
    looking = callback(on_epoch_end=lambda epoch, logs: look())
    return {"epochs": rounds, "verbose": 0, "callbacks": [looking]}
