"""Checking: bytes that are not as they were written are found while they are read, and changes."""

from __future__ import annotations

import math
import os
import pickle
import shutil
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner
from networks import keras, row_model
from numerai_tables import row_numbers
from shard_sets import write_set

from numerai_sequence import CorruptShardError, NumeraiSequence, open_shards
from numerai_sequence.commands.main import main
from numerai_sequence.feeding.epoch_workers import run_pass
from numerai_sequence.feeding.fit_call import FitCall
from numerai_sequence.reading.file_checks import ChangeDetector, Checker, FileCheck

ROWS, BATCH, BATCHES, SHARDS = 1037, 50, 21, 5
ONE_THREAD, THREADS = {"workers": 1}, {"workers": 4}
PROCESSES = {"workers": 2, "use_multiprocessing": True}
NAMES = ["1-thread", "4-threads", "2-processes"]

each_workers = pytest.mark.parametrize("workers", [ONE_THREAD, THREADS, PROCESSES], ids=NAMES)
linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("written")
    return write_set(folder, rows=ROWS, num_shards=SHARDS, mix_eras=2)


@pytest.fixture
def folder(written, tmp_path):
    """A set to damage."""
    return shutil.copytree(written, tmp_path / "set")


@pytest.fixture
def shards(folder):
    with open_shards(folder) as opened:
        yield opened


def flip(path, place=-1):
    """Flip a bit as a bad disk does: neither the size nor the time of change tells of it."""
    before = os.stat(path)
    with open(path, "r+b") as file:
        file.seek(place, os.SEEK_END if place < 0 else os.SEEK_SET)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def place_of(shards, shard, what):
    """The place in a shard's file of a byte that belongs to a column, or to the schema."""
    if what == "metadata":
        return 100
    file = shards.files[shard]
    # Buffers: validity, offsets of strings, and what is in them or in a target.
    column = file.batches()[0].column(what)
    values = column.storage.flatten() if isinstance(column, pa.ExtensionArray) else column
    return values.buffers()[-1].address - pa.py_buffer(file.map).address + 1


def read_all(sequence, numbers=range(BATCHES)):
    """Read batches until one raises; return how many did not, and the error."""
    read = 0
    for number in numbers:
        try:
            sequence[number]
        except CorruptShardError as error:
            return read, error
        read += 1
    return read, None


def expected_batches(shards, shard):
    """How many batches go well before the one with the last bytes of a damaged shard."""
    sizes = [file.bytes for file in shards.manifest.shards]
    return math.ceil(sum(sizes[: shard + 1]) / math.ceil(sum(sizes) / BATCHES)) - 1


def read_bytes():
    """The bytes that this process has read so far, of whatever files."""
    with open("/proc/self/io") as file:
        return int(file.readline().split()[1])


# Every byte, once.


@pytest.mark.parametrize("what", ["features", "target", "id", "era", "metadata"])
@pytest.mark.parametrize("shard", range(SHARDS))
def test_flipped_bit_is_found_by_the_batch_that_completes_its_file(shards, shard, what):
    sequence = NumeraiSequence(shards, BATCH, verify=True)
    path = shards.paths[shard]
    flip(path, place_of(shards, shard, what))
    read, error = read_all(sequence)
    assert read == expected_batches(shards, shard)
    assert error.path == path
    assert error.expected == shards.manifest.shards[shard].checksum != error.found
    assert str(error).startswith(f"{path}: SHA-256: found {error.found}, expected {error.expected}")
    assert "overwrite=True" in str(error)
    assert "the model was trained on damaged data: discard it" in str(error)


def test_batches_in_any_order_find_it_as_soon(shards):
    numbers = np.random.default_rng(3).permutation(BATCHES).tolist()
    flip(shards.paths[2])
    read, error = read_all(NumeraiSequence(shards, BATCH, verify=True), numbers)
    assert (read, error.path) == (expected_batches(shards, 2), shards.paths[2])


def test_batches_are_those_of_a_sequence_that_does_not_check(shards):
    sequences = [NumeraiSequence(shards, BATCH, verify=verify) for verify in (True, False)]
    for number in range(BATCHES):
        (x, y), (other_x, other_y) = (sequence[number] for sequence in sequences)
        np.testing.assert_array_equal(x, other_x)
        np.testing.assert_array_equal(y, other_y)
        np.testing.assert_array_equal(row_numbers(x), y)


def test_nothing_is_checked_unless_asked_for(shards):
    sequence = NumeraiSequence(shards, BATCH)
    flip(shards.paths[0], place_of(shards, 0, "id"))
    assert read_all(sequence) == (BATCHES, None)


@linux_only
def test_each_byte_is_read_once_and_none_in_the_second_epoch(shards):
    size = sum(shard.bytes for shard in shards.manifest.shards)
    read = {}
    for verify in (False, True):
        sequence = NumeraiSequence(shards, BATCH, verify=verify)
        before = read_bytes()
        read_all(sequence)
        middle = read_bytes()
        sequence.on_epoch_end()
        assert read_all(sequence) == (BATCHES, None)
        read[verify] = middle - before, read_bytes() - middle
    first, second = np.subtract(read[True], read[False])
    assert size <= first < 1.01 * size
    assert second < 0.01 * size


@linux_only
def test_shares_are_as_large_as_each_other(shards):
    sequence = NumeraiSequence(shards, BATCH, verify=True, paging="streaming", run_rows=1)
    share = sum(shard.bytes for shard in shards.manifest.shards) / BATCHES
    read = []
    for number in range(BATCHES):
        before = read_bytes()
        sequence.check(is_last=number == BATCHES - 1)
        read.append(read_bytes() - before)
    assert max(read) - min(read) < 0.1 * share


def test_only_the_shards_of_the_sequence_are_compared(shards):
    flip(shards.paths[3])
    with shards[:3] as part:
        sequence = NumeraiSequence(part, BATCH, verify=True)
        assert read_all(sequence, range(len(sequence))) == (len(sequence), None)


def test_what_was_found_is_found_again_until_the_set_is_opened_anew(shards, folder):
    first, second = (NumeraiSequence(shards, BATCH, verify=True) for _ in range(2))
    flip(shards.paths[0])
    read_all(first)
    for sequence in (first, second):
        for number in (0, 7, BATCHES - 1):
            with pytest.raises(CorruptShardError, match="SHA-256"):
                sequence[number]
    flip(shards.paths[0])
    assert read_all(first)[0] == 0
    assert read_all(NumeraiSequence(folder, BATCH, verify=True)) == (BATCHES, None)


def test_a_set_is_compared_once_however_many_sequences_share_it(shards):
    read_all(NumeraiSequence(shards, BATCH, verify=True))
    flip(shards.paths[0])
    other = NumeraiSequence(shards, 7, verify=True)
    assert read_all(other, range(len(other))) == (len(other), None)
    in_order = other.in_order(10)
    assert read_all(in_order, range(len(in_order))) == (len(in_order), None)


def test_pickled_sequence_begins_anew(shards):
    sequence = NumeraiSequence(shards, BATCH, verify=True)
    read_all(sequence)
    flip(shards.paths[0], place_of(shards, 0, "id"))
    again = pickle.loads(pickle.dumps(sequence))
    assert again.verify is True
    assert read_all(again)[1].path == shards.paths[0]
    assert read_all(sequence) == (BATCHES, None)


@linux_only
def test_forked_process_begins_anew_whoever_hashes_in_its_parent(shards):
    sequence = NumeraiSequence(shards, BATCH, verify=True)
    read_all(sequence, range(BATCHES // 2))
    flip(shards.paths[0])
    is_over = threading.Event()
    with ThreadPoolExecutor(1) as pool:  # some bytes a step, so that it hashes nearly always
        steps = pool.submit(lambda: [shards.checker.step(10**6) for _ in iter(is_over.is_set, 1)])
        process = os.fork()
        if not process:
            error = read_all(sequence)[1]
            os._exit(7 if error is not None and error.path == shards.paths[0] else 1)
        is_over.set()
        assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 7
        assert steps.result()
    assert read_all(sequence, range(BATCHES // 2 + 1)) == (BATCHES // 2 + 1, None)


def test_threads_that_race_have_compared_all_when_the_last_one_is_done(shards):
    flip(shards.paths[-1])
    for attempt in range(30):
        checker = Checker(shards.files, shards.manifest.shards)
        start = threading.Barrier(8)

        def take_steps(count, checker=checker, start=start):
            start.wait()
            return sum(is_raising(checker) for _ in range(count))

        with ThreadPoolExecutor(8) as pool:
            raised = sum(pool.map(take_steps, [BATCHES // 8 + (n < BATCHES % 8) for n in range(8)]))
        assert raised >= 1, attempt
        assert is_raising(checker)


def is_raising(checker):
    try:
        checker.step(BATCHES)
    except CorruptShardError:
        return True
    return False


def test_what_cannot_be_read_names_its_file(shards):
    sequence = NumeraiSequence(shards, BATCH, verify=True)
    read_all(sequence, range(3))
    path = shards.paths[1]
    os.truncate(path, 100)
    with pytest.raises(CorruptShardError, match="bytes: found 100, expected at least") as caught:
        shards.checker.step(1)
    assert caught.value.path == path


def test_bytes_are_compared_where_the_system_reads_at_no_place(shards, monkeypatch):
    monkeypatch.delattr(os, "preadv")
    flip(shards.paths[1])
    checks = [
        FileCheck(*of_file) for of_file in zip(shards.files, shards.manifest.shards, strict=True)
    ]
    assert [checks[0].advance(n) for n in (100, 10**9, 10**9)] == [
        100,
        shards.manifest.shards[0].bytes - 100,
        0,
    ]
    with pytest.raises(CorruptShardError, match="SHA-256"):
        checks[1].advance()


# In fit.


class Epochs(keras.callbacks.Callback):
    """Counts epochs that were begun and ended, and does something after the first batch."""

    def __init__(self, do=None):
        super().__init__()
        self.begun = self.ended = 0
        self.do = do

    def on_epoch_begin(self, epoch, logs=None):
        self.begun += 1

    def on_train_batch_end(self, batch, logs=None):
        if self.do is not None:
            self.do()
            self.do = None

    def on_epoch_end(self, epoch, logs=None):
        self.ended += 1


def fit(sequence, do=None, **options):
    """Fit a model; return the epochs, and what fit raised."""
    model = row_model()
    model.compile("sgd", "mse")
    epochs = Epochs(do)
    try:
        model.fit(sequence, verbose=0, callbacks=[epochs], **options)
    except Exception as error:  # TensorFlow may make one of its own of it
        return epochs, str(error)
    return epochs, ""


@each_workers
def test_fit_fails_within_the_first_epoch(shards, workers, nothing_left):
    sequence = NumeraiSequence(shards, BATCH, verify=True)
    flip(shards.paths[-1])
    epochs, error = fit(sequence, epochs=3, **workers)
    assert (epochs.begun, epochs.ended) == (1, 0)
    assert f"{shards.paths[-1]}: SHA-256" in error
    assert "discard it" in error


@each_workers
def test_fit_of_a_whole_set_checks_it_once(shards, workers):
    """What is damaged after the first epoch is not found."""
    sequence = NumeraiSequence(shards, BATCH, verify=True)
    epochs, error = fit(sequence, epochs=1, **workers)
    assert (epochs.ended, error) == (1, "")
    flip(shards.paths[0], place_of(shards, 0, "id"))
    epochs, error = fit(sequence, epochs=2, **workers)
    assert (epochs.ended, error) == (2, "")


def test_worker_process_leaves_the_check_to_who_asks_it(shards):
    sequence = NumeraiSequence(shards, BATCH, verify=True, **PROCESSES)
    flip(shards.paths[0], place_of(shards, 0, "id"))
    in_worker = pickle.loads(pickle.dumps(sequence.one_pass()))
    assert read_all(in_worker) == (BATCHES, None)
    assert read_all(sequence)[1].path == shards.paths[0]


def test_short_epochs_complete_the_check_together(shards):
    sequence = NumeraiSequence(shards, BATCH, verify=True)
    flip(shards.paths[-1])
    epochs, error = fit(sequence, epochs=9, steps_per_epoch=4)
    assert f"{shards.paths[-1]}: SHA-256" in error
    assert 1 <= epochs.ended <= BATCHES // 4


def test_validation_sequence_checks_itself(written, shards):
    validation = NumeraiSequence(shards, BATCH, verify=True)
    flip(shards.paths[-1])
    epochs, error = fit(NumeraiSequence(written, BATCH), validation_data=validation)
    assert f"{shards.paths[-1]}: SHA-256" in error
    assert epochs.ended == 0


def run_train(folder, out):
    options = "--epochs 1 --layers 4 --batch-size 200 --purge 0 --verify --quiet"
    return CliRunner().invoke(main, ["train", str(folder), "--out", str(out), *options.split()])


def test_command_verifies_while_it_trains(written, folder, tmp_path):
    result = run_train(written, tmp_path / "whole")
    assert result.exit_code == 0, result.output
    with open_shards(folder) as shards:
        path = shards.paths[-1]
        flip(path, place_of(shards, SHARDS - 1, "id"))
    result = run_train(folder, tmp_path / "damaged")
    assert result.exit_code != 0
    assert f"{path}: SHA-256" in f"{result.output} {result.exception}"
    assert not (tmp_path / "damaged" / "model.keras").exists()


# Changes while in use.


def overwrite(path, *, place=None):
    """Change a file in place, its size the same; as cp or a restored backup does."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if place is None else place] ^= 1
    with open(path, "r+b") as file:
        file.write(content)


def test_change_in_place_is_noticed_within_a_second(shards):
    sequence = NumeraiSequence(shards, BATCH)
    sequence[0]
    path, before = shards.paths[2], os.stat(shards.paths[2])
    overwrite(path)
    start, error = time.monotonic(), None
    while error is None and time.monotonic() < start + 5:
        error = read_all(sequence, [3])[1]
    assert time.monotonic() - start < 2.5  # and not at the end of these five
    assert error.path == path
    after = os.stat(path)
    shown = [
        f"{status.st_size} bytes last changed at {datetime.fromtimestamp(status.st_mtime)!s:.19}"
        for status in (after, before)
    ]
    assert [error.found[: len(shown[0])], error.expected[: len(shown[1])]] == shown
    assert str(error).startswith(f"{path}: changed while in use: found {error.found}, expected ")
    assert "open the set again" in str(error)
    assert "write_shards" in str(error)


@pytest.mark.parametrize("change", ["overwrite", "lengthen", "shorten", "touch"])
def test_any_change_of_a_file_is_seen(shards, change):
    path = shards.paths[3]
    shards.watch.check(now=True)
    time.sleep(0.01)  # the clock of a file system ticks slowly
    if change == "overwrite":
        overwrite(path)
    elif change == "touch":
        path.touch()
    else:
        os.truncate(path, path.stat().st_size + (1 if change == "lengthen" else -1))
    for _ in range(2):
        with pytest.raises(CorruptShardError, match="changed while in use") as caught:
            shards.watch.check(now=True)
        assert caught.value.path == path


def test_looks_once_a_second(shards):
    watch = ChangeDetector(shards.files)
    time.sleep(1)
    watch.check()
    overwrite(shards.paths[0])
    watch.check()
    time.sleep(1)
    for _ in range(2):
        with pytest.raises(CorruptShardError, match="changed while in use"):
            watch.check()


def test_last_batch_of_an_epoch_looks_at_once(folder):
    with open_shards(folder) as shards:
        sequence = NumeraiSequence(shards, BATCH)
        overwrite(shards.paths[0])
        with pytest.raises(CorruptShardError, match="changed while in use"):
            sequence[BATCHES - 1]


def test_last_batch_of_a_pass_looks_at_once_whatever_its_number(shards):
    sequence = NumeraiSequence(shards, BATCH, shuffle=False, seed=1)
    batches = run_pass(sequence, True, FitCall())
    sizes = [len(next(batches)[0]) for _ in range(BATCHES - 1)]
    assert ROWS % BATCH in sizes, "the last batch of the epoch has come before the end of the pass"
    overwrite(shards.paths[0])
    with pytest.raises(CorruptShardError, match="changed while in use"):
        next(batches)


@each_workers
def test_fit_fails_in_the_epoch_of_the_change(shards, workers, nothing_left):
    sequence = NumeraiSequence(shards, BATCH, run_rows=1)
    change = partial(overwrite, shards.paths[1], place=place_of(shards, 1, "id"))
    epochs, error = fit(sequence, change, epochs=3, **workers)
    assert (epochs.begun, epochs.ended) == (1, 0)
    assert f"{shards.paths[1]}: changed while in use" in error


@pytest.mark.parametrize("verify", [False, True])
def test_files_that_are_deleted_or_replaced_are_read_on(shards, tmp_path, verify):
    sequence = NumeraiSequence(shards, BATCH, verify=verify)
    seen = [row_numbers(sequence[number][0]) for number in range(3)]
    shards.paths[0].unlink()
    for path in shards.paths[1:]:
        other = tmp_path / "other"
        other.write_bytes(b"another file")
        os.replace(other, path)
    shards.watch.check(now=True)
    seen += [row_numbers(sequence[number][0]) for number in range(3, BATCHES)]
    assert sorted(np.concatenate(seen).tolist()) == list(range(ROWS))


def test_closed_set_has_nothing_to_check(folder):
    shards = open_shards(folder)
    path = shards.paths[0]
    shards.close()
    overwrite(path)
    shards.watch.check(now=True)
    shards.checker.step(1)
