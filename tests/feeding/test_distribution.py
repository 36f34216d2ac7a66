"""Distribution: on two devices a model sees each row once, or is told so before training begins."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from keras_models import IS_KERAS_3, IS_TENSORFLOW, assert_each_row_once

HELPERS = Path(__file__).parents[1] / "helpers"
JAX = {
    "KERAS_BACKEND": "jax",
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
}
is_tensorflow = pytest.mark.skipif(not IS_TENSORFLOW, reason="TensorFlow's strategies")


def environment(**others):
    paths = os.pathsep.join(
        [str(HELPERS.parents[1]), str(HELPERS), os.environ.get("PYTHONPATH", "")]
    )
    return {**os.environ, "PYTHONPATH": paths, "CUDA_VISIBLE_DEVICES": "", **others}


@pytest.fixture(scope="module", autouse=True)
def on_jax():
    """What is seen on JAX's devices: a function, for a process that runs during all tests."""
    if not IS_KERAS_3:
        yield
        return
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        [sys.executable, HELPERS / "two_devices.py", "jax"],
        env=environment(**JAX),
        stdout=pipe,
        stderr=pipe,
        text=True,
    )

    def seen():
        out, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors[-2000:]
        return json.loads(out.splitlines()[-1])

    yield seen
    process.kill()
    process.communicate()


def on_tensorflow(forked, *arguments):
    """What is seen on TensorFlow's devices, by each process that prints it."""
    done = forked(module="two_devices", arguments=arguments, env=environment())
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def assert_all_seen(found):
    for counts in found["fit"] + found["tests"]:
        assert_each_row_once(np.array(counts))
    assert found["predict"] == found["rows"]
    assert sorted(found["rows"]) == list(range(301))


def assert_whole_batches_seen(found):
    for counts in found["fit"] + found["tests"]:
        assert counts[-1] == 0
        assert sorted(counts) == [0] * 2 + [1] * 300
    assert found["predict"] == found["rows"]


def assert_refused(found, *texts):
    assert (found["error"], found["begun"]) == ("ValueError", False)
    for text in texts:
        assert text in found["text"]


@pytest.mark.slow
@is_tensorflow
def test_mirrored_devices_see_each_row_once_and_learn_as_one(forked):
    [found] = on_tensorflow(forked, "mirrored")
    assert_all_seen(found["partial"])
    one, both = found["weights"]
    assert max(np.abs(one)) > 1
    np.testing.assert_allclose(both, one, rtol=1e-5)
    if not IS_KERAS_3:
        for name in ("odd", "one", "permuted"):
            assert_all_seen(found[name])
        [counts] = found["resumed"]["fit"]
        assert sum(counts) == 1
        return
    remedy = "under tf.distribute.MirroredStrategy", "multiple of 2", "and drop_remainder=True"
    assert_refused(found["odd"], "batch of 43 rows", *remedy)
    assert_refused(found["one"], "batch of 301 rows", *remedy)
    assert_refused(found["permuted"], "batch of 1 rows", *remedy)  # which may come first
    assert_refused(found["resumed"], "batch of 1 rows", *remedy, "or, to resume at this batch")


@is_tensorflow
def test_workers_share_batches_on_tf_keras_and_are_refused_on_keras_3(forked):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = min(free.getsockname()[1], 65000)
    found = [worker["partial"] for worker in on_tensorflow(forked, "workers", port)]
    assert len(found) == 2
    if IS_KERAS_3:
        for one in found:
            assert_refused(one, "MultiWorkerMirroredStrategy of 2 devices, 1", "rank=, world_size=")
        return
    here = [np.array(one["here"]) for one in found]
    assert_each_row_once(sum(here))
    assert min(counts.sum() for counts in here) >= 150  # of a batch_size that is of both


@pytest.mark.slow
@pytest.mark.skipif(not IS_KERAS_3, reason="Keras 3's distributions")
def test_jax_devices_see_whole_batches_and_refuse_others(on_jax):
    found = on_jax()
    assert_all_seen(found["model"])  # where each device has all of a batch
    assert_whole_batches_seen(found["even"])
    remedy = "under keras.distribution.DataParallel", "multiple of 2", "and drop_remainder=True"
    assert_refused(found["partial"], "batch of 1 rows", *remedy)
    assert_refused(found["validation"], "batch of 1 rows", *remedy)
    assert_refused(found["odd"], "batch of 43 rows", *remedy)
    assert_refused(found["eras"], 'batch_by="rows"', *remedy)
