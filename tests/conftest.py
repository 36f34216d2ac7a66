"""What the tests share: a small source, its shard set, and a watch over what is left behind."""

from __future__ import annotations

import gc
import os
import sys
import threading
import time

import pytest
from forked_python import Nursery
from numerai_tables import write_source

from numerai_sequence import write_shards


def pytest_collection_finish():
    """Keep what is imported by now, TensorFlow above all, out of every later garbage collection.

    Some tests collect again and again, and each of these half a million objects takes its time.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture
def source(tmp_path):
    return write_source(tmp_path / "train.parquet")


@pytest.fixture
def shards(source, tmp_path):
    with write_shards(source, tmp_path / "shards", progress=False) as opened:
        yield opened


@pytest.fixture(scope="session")
def forked():
    """Run Python in a process that is forked from one which has imported Keras."""
    nursery = Nursery()
    yield nursery.run
    nursery.close()


def _children():
    with open(f"/proc/{os.getpid()}/task/{os.getpid()}/children") as file:
        return set(file.read().split())


@pytest.fixture
def nothing_left():
    """Fail where a test leaves threads of a pool or an enqueuer, or processes, behind."""
    if not sys.platform.startswith("linux"):
        yield
        return

    def left():
        # "Dummy" is a thread of TensorFlow's that has called Python once.
        new = [t.name for t in threading.enumerate() if t not in threads]
        names = [name for name in new if not name.startswith("Dummy")]
        return names, _children() - children

    threads, children = set(threading.enumerate()), _children()
    yield
    for _ in range(50):  # pools end in the background
        if left() == ([], set()):
            return
        time.sleep(0.1)
    assert left() == ([], set())
