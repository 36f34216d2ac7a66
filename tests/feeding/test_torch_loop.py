"""Torch loop: the guide's training without Keras sees each row once an epoch."""

from __future__ import annotations

import math
import os

import pytest
from documentation_pages import example

from numerai_sequence import NumeraiSequence

pytestmark = pytest.mark.skipif(
    os.environ.get("KERAS_BACKEND") != "torch", reason="torch is not the backend here"
)


def test_the_loop_of_the_guide_trains(shards):
    names = {"training": NumeraiSequence(shards, batch_size=100)}
    exec(example("loss.backward()"), names)
    assert names["training"].epoch == 2
    assert names["number"] == len(names["training"]) - 1
    assert math.isfinite(names["loss"].item())
    assert all(weights.grad.abs().sum() > 0 for weights in names["network"].parameters())
    assert len(names["y"]) == (names["training"].rows % 100 or 100)
