"""Devices: a script that trains on two virtual devices, and prints what a model saw as JSON.

Which devices: ``mirrored``, ``jax``, or ``workers PORT``: two processes, which print a line each.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

ROWS, FEATURES = 301, 14


def main(kind, port=None):
    if kind == "workers":
        fork = multiprocessing.get_context("fork")
        fork.Process(target=train, args=(kind, 1, port)).start()
        train(kind, 0, port)
    else:
        train(kind)


def train(kind, *arguments):
    strategy = start_tensorflow(kind, *arguments) if kind != "jax" else None
    from keras_models import THREADS, RowCounts, counting_model, keras
    from shard_sets import write_set

    from numerai_sequence import NumeraiSequence, Resume

    def model():
        if strategy is None:
            return counting_model(RowCounts(ROWS), FEATURES)
        with strategy.scope():
            return counting_model(RowCounts(ROWS), FEATURES)

    def sequence(size, **options):
        return NumeraiSequence(folder / "set", size, **options)

    def stop_before_the_last_batch(size, resume):
        def stop(batch, logs):
            if batch == ROWS // size - 1:
                raise InterruptedError

        watch = keras.callbacks.LambdaCallback(on_train_batch_end=stop)
        with suppress(InterruptedError):
            model()[0].fit(sequence(size), callbacks=[resume, watch], verbose=0, **THREADS)

    def seen(size, validation=None, more_callbacks=(), **options):
        """What fit, evaluate and predict see of a set; or how they fail."""
        made, recorder = model()
        ours, begun = sequence(size, **options), []
        watch = keras.callbacks.LambdaCallback(on_train_begin=lambda *_: begun.append(True))
        try:
            callbacks = [recorder, watch, *more_callbacks]
            made.fit(ours, validation_data=validation, callbacks=callbacks, verbose=0, **THREADS)
            counts = [recorder.fit[0].tolist()]
            if strategy is not None and kind == "workers":
                local = strategy.experimental_local_results(recorder.metric.counts)
                return {"all": counts[0], "here": local[0].numpy().tolist()}
            made.evaluate(ours, callbacks=[recorder], verbose=0, **THREADS)
            plain = sequence(size, **{**options, "shuffle": False})
            found = made.predict(plain, verbose=0, **THREADS)[:, 0]
        except Exception as error:
            return {"error": type(error).__name__, "text": str(error), "begun": bool(begun)}
        rows = [row for batch in range(len(plain)) for row in plain[batch][1].tolist()]
        tests = [counts.tolist() for counts in recorder.tests]
        return {"fit": counts, "tests": tests, "predict": found.round().tolist(), "rows": rows}

    def weights(size, in_strategy):
        """What a model of no weights learns."""
        with strategy.scope() if in_strategy else tf_default().scope():
            dense = keras.layers.Dense(1, kernel_initializer="zeros")
            made = keras.Sequential([keras.Input((FEATURES,)), dense])
            made.compile(keras.optimizers.SGD(1e-3), "mse")
        made.fit(sequence(size, drop_remainder=True), verbose=0, **THREADS)
        return [value for array in made.get_weights() for value in array.ravel().tolist()]

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_set(folder, rows=ROWS, features=FEATURES)
        found = {}
        if kind == "jax":
            set_model_parallel(keras.distribution)
            found["model"] = seen(60)
            keras.distribution.set_distribution(keras.distribution.DataParallel())
            found["validation"] = seen(60, sequence(60), drop_remainder=True)
            found["eras"] = seen(None, batch_by="era")
        found["partial"] = seen(60)
        if kind == "jax":
            found["even"], found["odd"] = seen(60, drop_remainder=True), seen(43)
        if kind == "mirrored":
            found["odd"] = seen(43)
            found["one"], found["permuted"] = seen(1000), seen(60, shuffle=False)
            resume = Resume(folder / "state", every=ROWS // 60)
            stop_before_the_last_batch(60, resume)
            found["resumed"] = seen(60, more_callbacks=[resume])
            found["weights"] = [weights(60, False), weights(60, True)]
    print(json.dumps(found), flush=True)


def tf_default():
    import tensorflow as tf

    return tf.distribute.get_strategy()


def start_tensorflow(kind, number=None, port=None):
    """Return a strategy of two devices, here or in two processes; before TensorFlow does more."""
    if kind == "workers":
        both = [f"localhost:{int(port) + worker}" for worker in range(2)]
        task = {"type": "worker", "index": int(number)}
        os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": both}, "task": task})
    import tensorflow as tf

    if kind == "workers":
        return tf.distribute.MultiWorkerMirroredStrategy()
    [cpu] = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def set_model_parallel(package):
    """Let JAX cut a model in two, and no batch."""
    mesh = package.DeviceMesh((1, 2), ["batch", "model"], package.list_devices())
    layout = package.LayoutMap(mesh)
    layout["dense.*kernel"] = ("model", None)
    package.set_distribution(package.ModelParallel(layout_map=layout, batch_dim_name="batch"))


if __name__ == "__main__":
    main(*sys.argv[1:])
