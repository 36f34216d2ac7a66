"""A mapped file that is cut off: an error that names it, and never the end of the process."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from shard_sets import write_set

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"),
    reason="guards maps on 64-bit Linux only",
)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("guard")
    return write_set(folder, rows=30_000, features=400, num_shards=2)


@pytest.fixture
def folder(pristine, tmp_path):
    for path in pristine.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def python(code, *, arguments, env):
    """Run Python in a process of its own."""
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)


def run(code, folder, how=python):
    """Run code with a `folder` in a process of its own: pytest has a handler for the signal."""
    before = """
        import faulthandler, mmap, os, sys, threading
        import numpy as np
        from numerai_sequence import CorruptShardError, open_shards
        folder = sys.argv[1]
        rows = np.sort(np.random.default_rng(0).choice(30_000, 1000, replace=False))
        path = folder + "/shard-00.arrow"
    """
    env = os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    return how(textwrap.dedent(before) + textwrap.dedent(code), arguments=[str(folder)], env=env)


def test_a_file_that_is_cut_off_is_an_error_that_names_it(folder):
    done = run(
        """
        whole = open(path, "rb").read()
        for left in 0, 5, 100_000, len(whole) // 2:
            with open(path, "wb") as file:
                file.write(whole)
            shards = open_shards(folder)
            shards.row_reader.gather(rows, ["target"])
            os.truncate(path, left)
            for _ in range(2):
                try:
                    shards.row_reader.gather(rows, ["target"])
                except CorruptShardError as error:
                    assert str(error.path) == path and error.found.startswith(f"{left}, "), error
                    print(error)
        """,
        folder,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("shard-00.arrow: bytes: found ") == 8
    assert done.stdout.count("pages that cannot be read") == 8


def test_it_is_cut_off_while_many_threads_read_it(folder):
    done = run(
        """
        errors, begun = [], threading.Barrier(9)

        def read():
            begun.wait()
            try:
                while True:
                    shards.row_reader.gather(rows, ["target"])
            except CorruptShardError as error:
                errors.append(error)

        shards = open_shards(folder)
        threads = [threading.Thread(target=read) for _ in range(8)]
        [thread.start() for thread in threads]
        begun.wait()
        os.truncate(path, 10_000)
        [thread.join(30) for thread in threads]
        print(len(errors))
        """,
        folder,
    )
    assert (done.returncode, done.stdout) == (0, "8\n"), done.stderr


def test_columns_are_not_zeros_without_a_word(folder):
    done = run(
        """
        shards = open_shards(folder)
        os.truncate(path, 0)
        for name in ("id", "target"):
            try:
                shards.column(name)
            except CorruptShardError as error:
                print(name, error.path == shards.paths[0] or error.path)
        """,
        folder,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "target True"
    assert done.stdout.startswith("id ")


def test_a_fit_ends_with_the_error(folder, forked):
    done = run(
        """
        import keras
        from numerai_sequence import NumeraiSequence
        sequence = NumeraiSequence(folder, batch_size=100, run_rows=1)
        model = keras.Sequential([keras.Input((400,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse")

        class Cut(keras.callbacks.Callback):
            def on_train_batch_end(self, batch, logs=None):
                if batch == 20:
                    os.truncate(path, 20_000)

        try:
            model.fit(sequence, verbose=0, callbacks=[Cut()])
        except Exception as error:
            print("shard-00.arrow" in str(error), flush=True)
        os._exit(0)  # TensorFlow, after an error of any generator, may wait for itself at the exit
        """,
        folder,
        forked,
    )
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


@pytest.mark.parametrize("first", ["", "faulthandler.enable()"])
def test_the_signal_of_another_map_still_ends_the_process(folder, first):
    done = run(
        f"""
        {first}
        shards = open_shards(folder)
        other = folder + "/other"
        with open(other, "wb") as file:
            file.write(bytes(10 * mmap.PAGESIZE))
        with open(other) as file:
            map_ = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        os.truncate(other, 0)
        print("before", flush=True)
        map_[5 * mmap.PAGESIZE]
        print("after")
        """,
        folder,
    )
    assert (done.returncode, done.stdout) == (-signal.SIGBUS, "before\n")
    assert ("Fatal Python error: Bus error" in done.stderr) is bool(first)


def test_a_closed_map_is_guarded_no_more(folder):
    done = run(
        """
        from numerai_sequence.reading import page_faults
        for _ in range(3):
            with open_shards(folder) as shards:
                assert len(page_faults._GUARDS) == 2
            column = shards = None
        print(len(page_faults._GUARDS))
        """,
        folder,
    )
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr
