"""Groups: the same batches however they are fetched."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import pickle
import random
import signal
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest
from numerai_tables import row_numbers, write_source

from numerai_sequence import NumeraiSequence, open_shards, write_shards
from numerai_sequence.batching.epoch import Position
from numerai_sequence.batching.group_reader import batches_per_group

ROWS, FEATURES, BATCH = 5003, 14, 50
TINY = "17MB"  # next to the least: no group fits
BUDGETS = ["auto", TINY, "1GB"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    path = tmp_path_factory.mktemp("groups")
    source = write_source(path / "train.parquet", rows=ROWS, features=FEATURES, eras=40)
    for encoding in ("packed", "int8"):
        options = {"num_shards": 7, "mix_eras": 2, "encoding": encoding, "progress": False}
        write_shards(source, path / encoding, **options).close()
    return path


def small_groups(monkeypatch, rows=400):
    """Let even this small set have many groups."""
    monkeypatch.setattr("numerai_sequence.batching.group_reader._GROUP_ROWS", rows)
    monkeypatch.setattr("numerai_sequence.reading.memory_budget._GROUP_BYTES", 1)


def one_by_one(sequence):
    """The batches as `gather` reads them, with no group and no pager."""
    order = sequence._plan.order(sequence.epoch)
    for start in range(0, ROWS, sequence.batch_size):
        rows = order.rows(start, min(start + sequence.batch_size, ROWS))
        encoded, y = sequence.shards.row_reader.gather(rows, ["target"])
        x = np.empty((len(rows), FEATURES), sequence.dtype)
        sequence._decode(encoded, x)
        yield x, y[:, 0]


def assert_same(found, expected):
    for (x, y), (expected_x, expected_y) in zip(found, expected, strict=True):
        assert (x.dtype, y.dtype) == (expected_x.dtype, expected_y.dtype)
        np.testing.assert_array_equal(x, expected_x)
        np.testing.assert_array_equal(y, expected_y)


@pytest.mark.slow
@pytest.mark.parametrize("least_bytes", [0, 8 << 10], ids=["read", "taken"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
@pytest.mark.parametrize("encoding", ["packed", "int8"])
def test_batches_are_the_same_bits_in_every_mode_and_budget(
    monkeypatch, folders, encoding, dtype, least_bytes
):
    small_groups(monkeypatch, rows=1000)
    for run_rows in (1, 4, 64):
        options = {"batch_size": 125, "run_rows": run_rows, "dtype": dtype, "seed": 3}
        plain = NumeraiSequence(folders / encoding, **options)
        expected = list(one_by_one(plain))
        numbers = np.concatenate([row_numbers(x) for x, _ in expected])
        assert sorted(numbers) == list(range(ROWS))
        monkeypatch.setattr("numerai_sequence.reading.row_reader._READ_BYTES", least_bytes)
        for paging, budget in itertools.product(("resident", "streaming"), BUDGETS):
            options |= {"paging": paging, "memory_budget": budget}
            sequence = NumeraiSequence(folders / encoding, **options)
            assert_same([sequence[i] for i in range(len(sequence))], expected)
            one_pass = sequence.one_pass()
            assert_same([one_pass[i] for i in range(len(one_pass))], expected)


@pytest.mark.parametrize("asked", ["ascending", "descending", "at random"])
@pytest.mark.parametrize("run_rows", [1, 8])
def test_threads_get_the_same_batches_in_any_order(monkeypatch, folders, asked, run_rows):
    small_groups(monkeypatch)
    sequence = NumeraiSequence(folders / "packed", BATCH, run_rows=run_rows, paging="streaming")
    expected = list(one_by_one(sequence))
    numbers = list(range(len(sequence)))
    if asked != "ascending":
        numbers.reverse()
    if asked == "at random":
        random.Random(0).shuffle(numbers)
    one_pass = sequence.one_pass()
    for source in (sequence, one_pass):
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(source.__getitem__, numbers))
        assert_same(found, [expected[number] for number in numbers])


def test_shuffled_pass_keeps_groups_together(monkeypatch, folders):
    small_groups(monkeypatch)
    sequence = NumeraiSequence(folders / "packed", BATCH, shuffle=False, paging="streaming")
    expected = list(one_by_one(sequence))
    one_pass = sequence.one_pass(shuffle=True)
    numbers = one_pass._batches.tolist()
    assert numbers == sequence.one_pass(shuffle=True)._batches.tolist()
    assert numbers != sequence.one_pass(place=Position(1), shuffle=True)._batches.tolist()
    assert sorted(numbers) == list(range(len(sequence)))
    assert numbers != sorted(numbers)
    groups = [number // 8 for number in numbers]
    assert len(list(itertools.groupby(groups))) == len(set(groups)) == 13
    assert_same([one_pass[i] for i in range(len(one_pass))], [expected[i] for i in numbers])


def test_a_group_is_read_once_a_pass(monkeypatch, folders):
    small_groups(monkeypatch)
    sequence = NumeraiSequence(folders / "packed", BATCH, run_rows=4, paging="streaming")
    gathered = []
    gather = sequence.shards.row_reader.gather

    def counting(rows, *args, **options):
        gathered.append(len(rows))
        return gather(rows, *args, **options)

    monkeypatch.setattr(sequence.shards.row_reader, "gather", counting)
    one_pass = sequence.one_pass()
    waiting = deque()
    with ThreadPoolExecutor(4) as pool:
        for number in range(len(one_pass)):
            if len(waiting) == 10:  # as Keras's queue does: nobody is left behind by groups
                waiting.popleft().result()
            waiting.append(pool.submit(one_pass.__getitem__, number))
    assert sum(gathered) == ROWS
    assert sorted(gathered) == [50, 51, 51, 51] + [100] * 48  # in parts


def test_batches_in_no_order_do_not_cost_a_group_each(monkeypatch, folders):
    small_groups(monkeypatch)
    sequence = NumeraiSequence(folders / "packed", BATCH, run_rows=4, paging="streaming")
    gathered = []
    gather = sequence.shards.row_reader.gather
    monkeypatch.setattr(
        sequence.shards.row_reader,
        "gather",
        lambda rows, *args, **options: gathered.append(len(rows)) or gather(rows, *args, **options),
    )
    for number in (9, 90, 31, 13, 77):  # none of them the first of its group
        sequence[number]
    assert gathered == [BATCH] * 5


def test_error_of_a_group_reaches_every_thread_and_the_next_one_tries_again(monkeypatch, folders):
    small_groups(monkeypatch)
    sequence = NumeraiSequence(folders / "packed", BATCH, run_rows=4, paging="streaming")
    expected = list(one_by_one(sequence))
    one_pass = sequence.one_pass()
    gather = sequence.shards.row_reader.gather

    def fail(*args, **options):
        raise OSError("the disk is gone")

    monkeypatch.setattr(sequence.shards.row_reader, "gather", fail)
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(one_pass.__getitem__, number) for number in range(4)]
        assert [str(future.exception()) for future in futures] == ["the disk is gone"] * 4
    monkeypatch.setattr(sequence.shards.row_reader, "gather", gather)
    assert_same([one_pass[0]], expected[:1])


def test_pass_can_be_pickled(monkeypatch, folders):
    small_groups(monkeypatch)
    sequence = NumeraiSequence(folders / "packed", BATCH, run_rows=4, paging="streaming")
    random.seed(3)
    one_pass = sequence.one_pass(shuffle=True)
    again = pickle.loads(pickle.dumps(one_pass))
    assert_same([again[i] for i in range(20)], [one_pass[i] for i in range(20)])


@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="processes cannot be forked here"
)
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_forked_process_reads_for_itself(monkeypatch, folders):
    """Even where a thread of its parent was in the middle of a group, and held the lock."""
    small_groups(monkeypatch)
    sequence = NumeraiSequence(folders / "packed", BATCH, run_rows=4, paging="streaming")
    expected = list(one_by_one(sequence))
    one_pass = sequence.one_pass()
    with one_pass._reader._lock, multiprocessing.get_context("fork").Pool(2) as pool:
        found = pool.map(one_pass.__getitem__, range(0, 100, 9))
    assert_same(found, expected[0:100:9])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes cannot be forked here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_forked_process_leaves_inherited_locks_and_groups_alone(monkeypatch, folders):
    """A process that is forked with the pass in it, while a thread of its parent reads a group."""
    small_groups(monkeypatch)
    sequence = NumeraiSequence(folders / "packed", BATCH, run_rows=4, paging="streaming")
    expected = list(one_by_one(sequence))
    one_pass = sequence.one_pass()
    one_pass[0]
    [group] = one_pass._reader._groups_from(1, 1)
    group.unread.clear()
    group.reads.append(Future())  # by a thread that no child has
    reader, writer = os.pipe()
    with one_pass._reader._lock:
        child = os.fork()
        if child == 0:
            signal.alarm(20)  # a child that waits for the lock ends so
            try:
                found = [one_pass[number] for number in (0, 3, 8, 9, 50, 100)]
                with open(writer, "wb") as pipe:
                    pickle.dump(found, pipe)
            finally:
                os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    assert_same(pickle.loads(answer), [expected[number] for number in (0, 3, 8, 9, 50, 100)])


@pytest.mark.parametrize("shuffle", [False, True])
def test_the_kernel_is_told_of_the_next_group_in_time(monkeypatch, folders, shuffle):
    """Of it whole before its first part is read, and of no part twice, nor of much else."""
    small_groups(monkeypatch)
    sequence = NumeraiSequence(folders / "packed", BATCH, run_rows=4, paging="streaming")
    order, asked = sequence._plan.order(0), []
    monkeypatch.setattr(
        sequence._plan.pager,
        "read_ahead",
        lambda ranges: asked.append([r.tolist() for _, r in ranges]),
    )

    def parts(group):
        rows, _ = order.group_with_positions(group)
        bounds = [len(rows) * part // 4 for part in range(5)]
        for start, stop in itertools.pairwise(bounds):
            yield [
                r.tolist()
                for _, r in sequence.shards.row_reader.extents(rows[start:stop], ["target"])
            ]

    one_pass = sequence.one_pass(shuffle=shuffle)
    groups = list(dict.fromkeys(number // 8 for number in one_pass._batches.tolist()))
    all_parts = [part for group in groups for part in parts(group)]
    seen = set()
    for place, number in enumerate(one_pass._batches.tolist()):
        one_pass[place]
        seen.add(number // 8)
        least = 4 * min(len(seen) + 1, len(groups))
        assert asked == all_parts[: len(asked)]
        assert least <= len(asked) <= least + 4
    assert asked == all_parts


def test_threads_share_the_reading_of_a_group(monkeypatch, folders):
    small_groups(monkeypatch)
    sequence = NumeraiSequence(folders / "packed", BATCH, run_rows=4, paging="streaming")
    gather, readers, all_are_here = (
        sequence.shards.row_reader.gather,
        set(),
        threading.Barrier(4, timeout=20),
    )

    def slow(*args, **options):
        readers.add(threading.get_ident())
        with contextlib.suppress(threading.BrokenBarrierError):
            if len(readers) <= 4 and not all_are_here.broken:
                all_are_here.wait()
        return gather(*args, **options)

    expected = list(one_by_one(sequence))
    monkeypatch.setattr(sequence.shards.row_reader, "gather", slow)
    one_pass = sequence.one_pass()
    with ThreadPoolExecutor(4) as pool:  # the first parts wait until each thread has one
        found = list(pool.map(one_pass.__getitem__, range(4)))
    assert len(readers) == 4
    assert not all_are_here.broken
    assert_same(found, expected[:4])


def test_each_batch_reads_a_part_of_the_next_group(monkeypatch, folders):
    small_groups(monkeypatch)
    sequence = NumeraiSequence(folders / "packed", BATCH, run_rows=4, paging="streaming")
    one_pass = sequence.one_pass()
    left = []
    for place in range(8):
        one_pass[place]
        left.append([len(group.unread) for group in one_pass._reader._groups.values()])
    # Of the group that is handed out, the next one, and the one after it.
    assert left[:5] == [[0, 3, 4], [0, 2, 4], [0, 1, 4], [0, 0, 4], [0, 0, 4]]


def test_groups_are_let_go_when_their_batches_were_handed_out(monkeypatch, folders):
    small_groups(monkeypatch)
    sequence = NumeraiSequence(folders / "packed", BATCH, run_rows=4, paging="streaming")
    one_pass = sequence.one_pass(shuffle=True)
    with ThreadPoolExecutor(3) as pool:
        for _ in pool.map(one_pass.__getitem__, range(len(one_pass))):
            assert len(one_pass._reader._groups) <= 4
    assert not one_pass._reader._groups


@pytest.mark.parametrize("batch_size", [1, 7, 4000, 4097, 5003, 20_000])
def test_any_batch_size_reads_each_row_once(folders, batch_size):
    sequence = NumeraiSequence(folders / "int8", batch_size, paging="streaming", run_rows=32)
    one_pass = sequence.one_pass()
    numbers = np.concatenate([row_numbers(one_pass[i][0]) for i in range(len(one_pass))])
    assert sorted(numbers) == list(range(ROWS))


def test_some_of_the_shards_are_enough(folders):
    with open_shards(folders / "packed") as shards:
        part = shards[1::3]
        sequence = NumeraiSequence(part, BATCH, paging="streaming")
        numbers = [row_numbers(sequence[i][0]) for i in range(len(sequence))]
        ids = [int(name[1:], 16) for name in part.column("id").to_pylist()]
        assert sorted(np.concatenate(numbers)) == sorted(ids)


def test_groups_are_about_16_000_rows_or_each_batch_alone():
    assert batches_per_group(1000) == 16
    assert batches_per_group(4096) == 4
    assert batches_per_group(4097) == 1
    assert batches_per_group(1000, 90_000) == 90
    assert batches_per_group(1000, 5) == 16


def test_single_rows_of_a_resident_set_are_fetched_in_groups_as_large_as_the_budget_lets_them(
    folders,
):
    def rows(budget, **options):
        sequence = NumeraiSequence(folders / "int8", BATCH, memory_budget=budget, **options)
        return sequence._plan.order(0).group_rows

    resident = {"run_rows": 1, "paging": "resident"}
    assert rows("auto", **resident) == (32 << 20) // FEATURES // BATCH * BATCH
    assert rows("512MB", **resident) == 64_000_000 // FEATURES // BATCH * BATCH
    assert rows("5GB", **resident) == (64 << 20) // FEATURES // BATCH * BATCH
    assert rows("5GB", run_rows=1, paging="streaming") == (1 << 14) // BATCH * BATCH
    assert rows("5GB", run_rows=8, paging="resident") == (1 << 14) // BATCH * BATCH


class Beside(NumeraiSequence):
    """Beside each batch it reads another one, wherever that is in the epoch."""

    def other(self, number):
        return (number * 37 + 11) % len(self)

    def __getitem__(self, index):
        beside = super().__getitem__(self.other(index))  # before the batch itself
        return super().__getitem__(index), beside


@pytest.mark.parametrize(
    "options",
    [
        {"run_rows": 1},
        {"run_rows": 4},
        {"run_rows": 4, "memory_budget": TINY},
        {"run_rows": 4, "rank": 2, "world_size": 3},
        {"run_rows": 4, "shuffle": False},
        {"run_rows": 1, "rank": 1, "world_size": 3},
        {"batch_by": "era", "batch_size": 3},
    ],
    ids=str,
)
@pytest.mark.parametrize("paging", ["streaming", "resident"])
def test_any_batch_may_be_asked_for_in_a_pass_that_begins_later(
    monkeypatch, folders, paging, options
):
    """Of a group that is over, or is none of the pass: each has its own rows all the same."""
    small_groups(monkeypatch)
    options = {"batch_size": BATCH, "paging": paging, **options}
    plain = NumeraiSequence(folders / "packed", **options)
    expected = [plain[number] for number in range(len(plain))]
    sequence = Beside(folders / "packed", **options)
    count = len(sequence)
    for first in {5, count // 2, count - 2, count}:
        one_pass = sequence.one_pass(place=Position(0, first))
        assert len(one_pass) == count - first
        with ThreadPoolExecutor(3) as pool:
            found = list(pool.map(one_pass.__getitem__, range(len(one_pass))))
        assert_same([batch for batch, _ in found], expected[first:])
        others = [sequence.other(number) for number in range(first, count)]
        assert_same([beside for _, beside in found], [expected[number] for number in others])


class Twice(NumeraiSequence):
    """An epoch of it has each batch twice."""

    def __len__(self):
        return 2 * super().__len__()

    def __getitem__(self, index):
        return super().__getitem__(index // 2)


@pytest.mark.parametrize("world_size", [1, 3])
@pytest.mark.parametrize("run_rows", [1, 4])
def test_a_subclass_may_have_more_batches_than_it_reads(monkeypatch, folders, run_rows, world_size):
    small_groups(monkeypatch)
    options = {"run_rows": run_rows, "paging": "streaming", "world_size": world_size}
    plain = NumeraiSequence(folders / "packed", BATCH, **options)
    expected = [plain[number // 2] for number in range(2 * len(plain))]
    sequence = Twice(folders / "packed", BATCH, **options)
    one_pass = sequence.one_pass()
    assert_same([one_pass[place] for place in range(len(one_pass))], expected)
    assert_same([sequence[number] for number in range(len(sequence))], expected)
    with pytest.raises(IndexError, match=rf"an epoch has {len(plain)} batches$"):
        sequence[len(sequence)]
