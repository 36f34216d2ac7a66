"""Failing fit: one fit in which something goes wrong, and a line of JSON on how it ended.

Called with a folder of shards, which may be spoilt, and a JSON object: `trouble`, `seconds` until
it comes, `workers` as `fit` takes them, and the start `method` of processes.
"""

import gc
import json
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

from numerai_sequence import CorruptShardError, NumeraiSequence

if os.environ.get("TF_USE_LEGACY_KERAS"):
    import tf_keras as keras
else:
    import keras

_GOES_ON_SECONDS = 2


class TwoArguments(Exception):
    """Does not unpickle."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(f"{what} {why}")


RAISED = {
    "ours": lambda: CorruptShardError("trouble"),
    "plain": lambda: ZeroDivisionError("trouble"),
    "unpicklable": lambda: TwoArguments("in", "trouble"),
    "exit": lambda: SystemExit("trouble"),
}


class Failing(NumeraiSequence):
    """Raises once its time has come, in whatever process or thread it is asked."""

    due = float("inf")
    kind = "plain"

    def __getitem__(self, index):
        if time.time() >= self.due:
            raise RAISED[self.kind]()
        return super().__getitem__(index)


def spoil(trouble: str, folder: Path) -> None:
    """Do from another thread what comes from outside."""
    shard = sorted(folder.glob("*.arrow"))[0]
    if trouble == "killed worker":
        children = multiprocessing.active_children()
        if children:
            os.kill(children[-1].pid, signal.SIGKILL)
    elif trouble == "Ctrl-C":
        os.kill(os.getpid(), signal.SIGINT)
    elif trouble == "deleted shards":
        shutil.rmtree(folder)
    elif trouble == "replaced shard":
        (folder / "new").write_bytes(b"something else")
        os.replace(folder / "new", shard)
    elif trouble == "shortened shard":
        os.truncate(shard, 5000)
    elif trouble == "overwritten shard":
        with shard.open("rb+") as file:
            file.write(bytes(100))


class Clock(keras.callbacks.Callback):
    """Begins the trouble, and ends a fit that goes on in spite of it."""

    def __init__(self, sequence, spec, folder):
        super().__init__()
        self.sequence, self.spec, self.folder = sequence, spec, folder
        self.due = self.timer = None

    def on_train_batch_end(self, batch, logs=None):
        if self.due is None:
            self.due = time.time() + self.spec["seconds"]
            if self.spec["trouble"] not in RAISED:
                arguments = (self.spec["trouble"], self.folder)
                self.timer = threading.Timer(self.spec["seconds"], spoil, arguments)
                self.timer.start()
        elif time.time() > self.due + _GOES_ON_SECONDS and self.spec["trouble"] not in RAISED:
            self.model.stop_training = True


def fit(sequence, epochs, callbacks, workers):
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(sequence, epochs=epochs, verbose=0, callbacks=callbacks, **workers)


def left():
    """The threads, the child processes, and how many descriptors there are."""
    gc.collect()
    threads = [t.name for t in threading.enumerate() if not t.name.startswith("Dummy")]
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return len(threads), len(file.read().split()), len(os.listdir("/proc/self/fd"))


def main(folder: Path, spec: dict) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    multiprocessing.set_start_method(spec["method"], force=True)
    sequence = Failing(folder, batch_size=20)
    sequence.kind = spec["trouble"] if spec["trouble"] in RAISED else "plain"
    fit(sequence, 1, [], spec["workers"])  # what is made once and kept
    before = left()
    clock = Clock(sequence, spec, folder)
    if spec["trouble"] in RAISED:  # also where processes have copies of the sequence
        sequence.due = time.time() + spec["seconds"]
    try:
        fit(sequence, 10**6, [clock], spec["workers"])
        ended, message = "finished", ""
    except BaseException as error:
        ended, message = type(error).__name__, str(error)
    due = sequence.due if spec["trouble"] in RAISED else clock.due
    seconds = time.time() - due
    if clock.timer:
        clock.timer.join()
    for _ in range(50):
        after = left()
        if all(now <= was for now, was in zip(after, before, strict=True)):
            break
        time.sleep(0.1)
    print(
        json.dumps(
            {
                "ended": ended,
                "message": message,
                "seconds": seconds,
                "before": before,
                "after": after,
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
