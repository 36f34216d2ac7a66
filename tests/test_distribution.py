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

TESTS = Path(__file__).parent
JAX = {
    "KERAS_BACKEND": "jax",
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
}
is_tensorflow = pytest.mark.skipif(not IS_TENSORFLOW, reason="TensorFlow's strategies")


def start(*arguments, **environment):
    paths = os.pathsep.join([str(TESTS.parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, "CUDA_VISIBLE_DEVICES": "", **environment}
    command = [sys.executable, str(TESTS / "devices.py"), *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True)


@pytest.fixture(scope="module")
def running():
    """All the processes, which are started at once."""
    found = {}
    if IS_TENSORFLOW:
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = min(free.getsockname()[1], 65000)
        found["mirrored"] = start("mirrored")
        found["workers"] = [start("workers", number, port) for number in range(2)]
    if IS_KERAS_3:
        found["jax"] = start("jax", **JAX)
    yield found
    for process in [*found.pop("workers", []), *found.values()]:
        process.kill()
        process.communicate()


def result(process):
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors[-2000:]
    return json.loads(out.splitlines()[-1])


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


@is_tensorflow
def test_mirrored_devices_see_each_row_once_and_learn_as_one(running):
    found = result(running["mirrored"])
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
    assert_refused(found["resumed"], "batch of 1 rows", *remedy, "or, to go on where Resume")


@is_tensorflow
def test_workers_share_batches_on_tf_keras_and_are_refused_on_keras_3(running):
    found = [result(worker)["partial"] for worker in running["workers"]]
    if IS_KERAS_3:
        for one in found:
            assert_refused(one, "MultiWorkerMirroredStrategy of 2 devices, 1", "rank=, world_size=")
        return
    here = [np.array(one["here"]) for one in found]
    assert_each_row_once(sum(here))
    assert min(counts.sum() for counts in here) >= 150  # of a batch_size that is of both


@pytest.mark.skipif(not IS_KERAS_3, reason="Keras 3's distributions")
def test_jax_devices_see_whole_batches_and_refuse_others(running):
    found = result(running["jax"])
    assert_all_seen(found["model"])  # where each device has all of a batch
    assert_whole_batches_seen(found["even"])
    remedy = "under keras.distribution.DataParallel", "multiple of 2", "and drop_remainder=True"
    assert_refused(found["partial"], "batch of 1 rows", *remedy)
    assert_refused(found["validation"], "batch of 1 rows", *remedy)
    assert_refused(found["odd"], "batch of 43 rows", *remedy)
    assert_refused(found["eras"], 'batch_by="rows"', *remedy)
