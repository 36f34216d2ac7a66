"""Interrupted: fits that go on until the process that has started this one sends a signal.

Called with a folder of shards, a copy of it that is removed, and how many kinds of workers, each a
JSON object. Writes a JSON object a line: the processes when a fit is under way, and how it ended.
"""

from __future__ import annotations

import gc
import itertools
import json
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
from multiprocessing import resource_tracker


def say(**what):
    print(json.dumps(what), flush=True)


def left():
    """The threads, the child processes, and how many descriptors there are."""
    gc.collect()
    threads = [t.name for t in threading.enumerate() if not t.name.startswith("Dummy")]
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return sorted(threads), file.read().split(), len(os.listdir("/proc/self/fd"))


def settled(before):
    for _ in range(50):
        if left() == before:
            break
        time.sleep(0.1)
    return left()


def ready(keras):
    """A callback that says so in the middle of the second epoch."""
    batches = itertools.count(1)

    def count(batch, logs=None):
        if next(batches) == 30:
            say(pids=[child.pid for child in multiprocessing.active_children()])

    return keras.callbacks.LambdaCallback(on_train_batch_end=count)


def fit(sequence, epochs, **workers):
    from keras_models import keras

    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    try:
        model.fit(sequence, epochs=epochs, verbose=0, callbacks=[ready(keras)], **workers)
    except BaseException as error:
        return type(error).__name__, str(error)
    return "no error", ""


def main(folder, copy, *kinds):
    # Not above: the process that is spawned imports this module too.
    from numerai_sequence import NumeraiSequence

    gc.freeze()  # each look collects garbage
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's & has it ignored
    sequence = NumeraiSequence(folder, batch_size=50)
    for kind in map(json.loads, kinds):
        fit(sequence, 1, **kind)  # what is made once and kept
        before = left()
        error, message = fit(sequence, 10**6, **kind)
        say(error=error, message=message)
        say(before=before, after=settled(before))
    multiprocessing.set_start_method("spawn", force=True)
    os.environ["KERAS_BACKEND"] = "numpy"  # which loads fast: of the process that is spawned
    resource_tracker.ensure_running()
    sequence = NumeraiSequence(copy, batch_size=50)
    before = left()
    shutil.rmtree(copy)
    error, message = fit(sequence, 1, workers=1, use_multiprocessing=True)
    say(error=error, message=message)
    say(before=before, after=settled(before))
    multiprocessing.set_start_method("fork", force=True)
    fit(NumeraiSequence(folder, batch_size=50), 10**6, workers=2, use_multiprocessing=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
