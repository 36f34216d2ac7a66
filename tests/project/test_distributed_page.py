"""Distributed page: its examples for JAX run, on two devices and as the only one of the ranks."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from documentation_pages import ROOT, example
from networks import keras

from numerai_sequence.synthetic import write_version

JAX = {
    "KERAS_BACKEND": "jax",
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
}


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(keras, "ops"), reason="Keras 3's distributions")
@pytest.mark.parametrize(
    ("block", "shown", "expected"),
    [
        (example("DataParallel())"), "len(jax.devices()), model.history.epoch", "2 [0]"),
        (example("jax.process_index"), "rank, ranks, model.history.epoch", "0 1 [0]"),
    ],
)
def test_examples_for_jax_run(tmp_path, block, shown, expected):
    write_version(tmp_path / "v5.3", rows=3000, features=40, min_eras=90)
    code = f"{example('def build_model')}{block}import jax\nprint({shown})"
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, **JAX, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == expected
