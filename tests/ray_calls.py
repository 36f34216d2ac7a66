"""Ray calls: the functions that test_ray.py has run in Ray's workers."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from numerai_sequence import SourceError
from numerai_sequence.scratch import Scratch


def kill_once(marker, result):
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return result, os.getpid()


def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def fail(path):
    raise SourceError(f"{path}: broken", path=path, row=3)


def sleep_for_ever(marker):
    marker.touch()
    while True:
        time.sleep(0.1)


def killed_once(function, marker):
    def run(work, number, *rest):
        if number == 1 and not marker.exists():
            marker.touch()
            # When it has written something.
            Scratch.add_features = Scratch.read_meta = kill
        return function(work, number, *rest)

    return run


def train_rank(config):
    """Train one rank's copy of a network twice; the second time rank 1 is killed once."""
    from numerai_sequence import NumeraiSequence, Resume, connect_ranks

    rank, world_size = connect_ranks()
    import jax
    import keras

    folder = Path(config["folder"])
    with open(folder / f"begun-{rank}", "a") as file:
        file.write(f"{jax.process_index()} of {jax.process_count()}\n")
    for name in ("whole", "killed"):
        sequence = NumeraiSequence(
            config["shards"], 50, rank=rank, world_size=world_size, drop_remainder=True
        )
        keras.utils.set_random_seed(1)
        layers = keras.layers
        model = keras.Sequential(
            [keras.Input((len(sequence.features),)), layers.Dropout(0.2), layers.Dense(1)]
        )
        model.compile("adam", "mse")
        callbacks = [Resume(folder / name, every=3)]
        if (name, rank) == ("killed", 1):
            callbacks.append(killing(folder / "marker"))
        model.fit(sequence, epochs=2, callbacks=callbacks, verbose=0)
        weights = model.get_weights()  # all ranks take part
        if rank == 0:
            (folder / f"{name}.txt").write_text(repr([weight.tolist() for weight in weights]))


def killing(marker):
    """Return a callback that kills the process in the middle of an epoch, if it is the first."""
    import keras

    class Kill(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 7 and not marker.exists():
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)

    return Kill()
