"""Ray calls: the functions that test_ray.py has run in Ray's workers."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import ray

from numerai_sequence import SourceError
from numerai_sequence.training.one_run import Fitter
from numerai_sequence.writing.folder_claim import claimed
from numerai_sequence.writing.scratch import Scratch


def kill_once(marker, result):
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return result, os.getpid()


def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def node_of(*_):
    """Where this runs; long enough for others to run elsewhere."""
    time.sleep(0.2)
    return ray.get_runtime_context().get_node_id()


def is_first(marker):
    """Whether this is the first call for a marker, and not on the head, which no test may kill."""
    me, head = ray.get_runtime_context().get_node_id(), "node:__internal_head__"
    if any(node["NodeID"] == me and head in node["Resources"] for node in ray.nodes()):
        return False
    try:
        marker.with_suffix(".taken").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def stay(marker):
    """Say on which node this is, and wait to be killed."""
    beside = marker.with_suffix(".beside")
    beside.write_text(ray.get_runtime_context().get_node_id())
    beside.replace(marker)
    while True:
        time.sleep(0.1)


def stays_once(function, marker):
    """Once, a portion has written something, and then goes no further."""

    def run(work, number, *rest):
        if is_first(marker):
            add = Scratch.add_features

            def add_and_stay(scratch, *options):
                add(scratch, *options)
                stay(marker)

            Scratch.add_features = add_and_stay
            Scratch.read_meta = lambda *_: stay(marker)
        return function(work, number, *rest)

    return run


def claimed_for_a_while(function, marker):
    """A machine that was thought to be lost is still at the source, and then is not."""

    def run(work, number, *rest):
        folder, begun = work.scratch(number).folder, threading.Event()

        def hold():
            with claimed(folder, make=True):
                begun.set()
                time.sleep(1)

        if number == 1:
            threading.Thread(target=hold).start()
            begun.wait()
            marker.touch()
        return function(work, number, *rest)

    return run


def elsewhere(function, folder):
    """The machine of a task has another file system."""

    def run(work, *rest):
        return function(replace(work, folder=folder / work.folder.name), *rest)

    return run


class StayingFitter(Fitter):
    """Trains as the command does, and once stays in the middle of it."""

    def _fit(self, planned, training, scores):
        held = planned.folder.parent / "held"
        if is_first(held):
            scores.on_train_batch_end = lambda *_, **__: stay(held)
        return super()._fit(planned, training, scores)


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
    """Run the page's function of a worker twice; the second time rank 1 is killed once."""
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
