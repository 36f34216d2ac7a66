"""Ray calls: the functions that test_ray.py has run in Ray's workers."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from numerai_sequence import SourceError
from numerai_sequence.writing.scratch import Scratch


def kill_once(marker, result):
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return result, os.getpid()


def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def fit_fold(split):
    return len(split.train), split.validation[0]


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


def train_twice(config):
    """Run README's function of a worker twice; the second time rank 1 is killed once."""
    import keras

    from numerai_sequence import Resume, connect_ranks

    rank, world_size = connect_ranks()
    folder = Path(config["folder"])
    with open(folder / f"begun-{rank}", "a") as file:
        file.write(f"rank {rank} of {world_size}\n")

    class ResumeAndKill(Resume):
        def __init__(self, path):
            super().__init__(path, every=3)
            self.name = Path(path).parent.name

        def on_train_batch_end(self, batch, logs=None):
            super().on_train_batch_end(batch, logs)
            if (self.name, rank, batch) == ("killed", 1, 7):
                kill_once(folder / "marker", None)

        def on_train_end(self, logs=None):
            weights = self.model.get_weights()  # all ranks take part
            if rank == 0:
                numbers = [weight.tolist() for weight in weights]
                (folder / f"{self.name}.txt").write_text(repr(numbers))

    def build_model():
        layers = keras.layers
        model = keras.Sequential(
            [keras.Input((config["features"],)), layers.Dropout(0.2), layers.Dense(1)]
        )
        model.compile("adam", "mse")
        return model

    for name in ("whole", "killed"):
        names = {"keras": keras, "build_model": build_model}
        exec(config["source"].replace("/shared/state", f"{folder}/{name}/state"), names)
        names["Resume"] = ResumeAndKill
        names["train"]({})
