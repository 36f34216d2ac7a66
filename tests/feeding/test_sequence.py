"""Sequence: batches hold the rows that they should, in an order that anyone can repeat."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numerai_tables import numerai_table, ragged_eras, row_digits, row_numbers, write_source

from numerai_sequence import FeatureError, NumeraiSequence, open_shards, write_shards
from numerai_sequence.ordering.row_order import epoch_order

ROWS, FEATURES, BATCH = 1037, 14, 50
NAMES = [f"feature_{number:03d}" for number in range(FEATURES)]
REAL_DATA = Path(__file__).resolve().parents[3] / "shared" / "data"

each_encoding = pytest.mark.parametrize("encoding", ["packed", "int8"])
each_dtype = pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
needs_real_data = pytest.mark.skipif(not REAL_DATA.is_dir(), reason="no real data here")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_source(
        tmp_path_factory.mktemp("source") / "train.parquet", rows=ROWS, features=FEATURES
    )


@pytest.fixture(scope="module")
def folders(source):
    """The same rows in both encodings."""
    for encoding in ("packed", "int8"):
        options = {"num_shards": 5, "mix_eras": 2, "encoding": encoding, "progress": False}
        write_shards(source, source.parent / encoding, **options).close()
    return source.parent


@pytest.fixture(scope="module")
def folder(folders):
    return folders / "packed"


def batches_of(sequence):
    return [sequence[number] for number in range(len(sequence))]


def numbers_of(shards):
    """The number of each row, in the source, in the order of the files."""
    return np.array([int(i[1:], 16) for i in shards.column("id").to_pylist()], int)


def order_of(sequence):
    """The rows' numbers, batch by batch."""
    x = [batch if sequence.target is None else batch[0] for batch in batches_of(sequence)]
    return [int(number) for part in x for number in row_numbers(part)]


def expected_x(numbers, dtype="float32"):
    digits = row_digits(numbers, FEATURES)
    return digits if dtype == "int8" else (digits / 4).astype(dtype)


def assert_same(found, expected):
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def assert_same_batches(found, expected):
    assert len(found) == len(expected)
    for (x, y), (expected_x, expected_y) in zip(found, expected, strict=True):
        assert_same(x, expected_x)
        assert_same(y, expected_y)


@each_dtype
@each_encoding
def test_batch_is_x_and_y_of_one_target(folders, encoding, dtype):
    sequence = NumeraiSequence(folders / encoding, BATCH, dtype=dtype)
    assert len(sequence) == 21
    for number in range(21):
        x, y = sequence[number]
        rows = 50 if number < 20 else 37
        assert (x.shape, x.dtype) == ((rows, FEATURES), dtype)
        assert (y.shape, y.dtype) == ((rows,), np.float32)
        assert x.flags.c_contiguous
        assert y.flags.c_contiguous


@each_dtype
def test_list_of_targets_is_a_column_each(folder, dtype):
    for target in (["target_b", "target"], ("target_b",), ["target", "target_b"]):
        x, y = NumeraiSequence(folder, BATCH, target=target, dtype=dtype)[20]
        shift = [0.5 if name == "target_b" else 0 for name in target]
        assert x.shape == (37, FEATURES)
        assert_same(y, (row_numbers(x)[:, np.newaxis] + shift).astype(np.float32))


def test_without_a_target_the_batch_is_x_alone(folder):
    sequence = NumeraiSequence(folder, BATCH, target=None)
    with_target = NumeraiSequence(folder, BATCH)
    for number in (0, 20):
        assert isinstance(sequence[number], np.ndarray)
        assert_same(sequence[number], with_target[number][0])


def test_set_without_targets_gives_x_alone(tmp_path):
    source = write_source(tmp_path / "live.parquet", rows=40, targets=())
    with write_shards(source, tmp_path / "set", progress=False) as shards:
        sequence = NumeraiSequence(shards, 7, target=None)
        assert sorted(order_of(sequence)) == list(range(40))


@each_dtype
@each_encoding
@pytest.mark.parametrize("batch_size", [1, 7, 1000, ROWS, ROWS + 1, 10**6])
def test_each_row_comes_once_with_its_own_values(folders, encoding, dtype, batch_size):
    sequence = NumeraiSequence(folders / encoding, batch_size, dtype=dtype)
    seen = []
    for x, y in batches_of(sequence):
        numbers = y.astype(int)
        assert_same(x, expected_x(numbers, dtype))
        assert_same(y, numbers.astype(np.float32))
        seen += numbers.tolist()
    assert sorted(seen) == list(range(ROWS))


@pytest.mark.parametrize("num_shards", [1, 2, 3, 16, 40])
@pytest.mark.parametrize("mix_eras", [None, 1])
def test_any_number_of_shards_holds_each_row_once(source, tmp_path, num_shards, mix_eras):
    options = {"num_shards": num_shards, "mix_eras": mix_eras, "progress": False}
    with write_shards(source, tmp_path / "set", **options) as shards:
        for run_rows in (None, 8):
            for x, y in batches_of(NumeraiSequence(shards, 100, run_rows=run_rows)):
                assert_same(x, expected_x(y.astype(int)))
            assert sorted(order_of(NumeraiSequence(shards, 77, run_rows=run_rows))) == list(
                range(ROWS)
            )


def test_slices_globs_and_lists_hold_their_rows(folder):
    with open_shards(folder) as shards:
        part = shards[::2]
        expected = sorted(numbers_of(part))
        for way in (part, part.paths, [str(path) for path in part.paths]):
            assert sorted(order_of(NumeraiSequence(way, 33))) == expected
        one = sorted(numbers_of(shards[3]))
        assert sorted(order_of(NumeraiSequence(str(folder / "*3.arrow"), 33))) == one
        assert sorted(order_of(NumeraiSequence(shards.paths[3], 33))) == one


def test_set_of_no_rows_has_no_batches(folder):
    with open_shards(folder) as shards:
        sequence = NumeraiSequence(shards[5:])
        assert len(sequence) == 0
        with pytest.raises(IndexError):
            sequence[0]


@each_dtype
@each_encoding
def test_chosen_features_come_in_the_order_asked_for(folders, encoding, dtype):
    for chosen in (NAMES[::-1], NAMES[:9], ["feature_013"], ["feature_007", "feature_000"]):
        sequence = NumeraiSequence(folders / encoding, BATCH, features=chosen, dtype=dtype)
        assert sequence.features == tuple(chosen)
        columns = [int(name[-3:]) for name in chosen]
        for x, y in batches_of(sequence):
            assert_same(x, expected_x(y.astype(int), dtype)[:, columns])


def test_all_features_by_name_are_all_features(folder):
    assert NumeraiSequence(folder).features == tuple(NAMES)
    for features in (NAMES, tuple(NAMES), iter(NAMES)):
        sequence = NumeraiSequence(folder, BATCH, features=features)
        assert sequence.features == tuple(NAMES)
        assert_same_batches(batches_of(sequence), batches_of(NumeraiSequence(folder, BATCH)))


@pytest.mark.parametrize("batch_size", [1, 7, 50, 1000, ROWS - 1, ROWS])
def test_length_counts_the_last_batch_unless_it_is_dropped(folder, batch_size):
    whole, rest = divmod(ROWS, batch_size)
    sequence = NumeraiSequence(folder, batch_size)
    assert len(sequence) == whole + (rest > 0)
    assert len(sequence[-1][0]) == (rest or batch_size)
    dropped = NumeraiSequence(folder, batch_size, drop_remainder=True)
    assert len(dropped) == whole
    assert_same_batches(batches_of(dropped), batches_of(sequence)[:whole])


def test_no_batch_is_beyond_the_dropped_remainder(folder):
    sequence = NumeraiSequence(folder, BATCH, drop_remainder=True)
    with pytest.raises(IndexError, match="found batch 20, expected -20 to 19: an epoch has 20"):
        sequence[20]
    assert_same(sequence[-1][0], sequence[19][0])


@pytest.mark.parametrize("number", [21, 22, -22, 10**9])
def test_batch_that_is_not_there_is_an_index_error(folder, number):
    with pytest.raises(IndexError, match=rf"found batch {number}, expected .* an epoch has 21"):
        NumeraiSequence(folder, BATCH)[number]


def test_negative_numbers_count_from_the_end_as_in_a_list(folder):
    sequence = NumeraiSequence(folder, BATCH)
    backwards = [sequence[number] for number in range(-21, 0)]
    assert_same_batches(backwards, batches_of(sequence))


@pytest.mark.parametrize("kind", [np.int32, np.int64, np.uint8])
def test_number_of_a_batch_may_be_numpys(folder, kind):
    sequence = NumeraiSequence(folder, BATCH)
    assert_same_batches([sequence[kind(20)]], [sequence[20]])


@pytest.mark.parametrize("number", ["0", 1.0, None, slice(2)])
def test_number_of_a_batch_is_a_whole_number(folder, number):
    with pytest.raises(TypeError):
        NumeraiSequence(folder)[number]


def test_sequence_can_be_gone_through(folder):
    sequence = NumeraiSequence(folder, BATCH)
    assert_same_batches(list(sequence), batches_of(sequence))


def test_epoch_moves_on_only_after_a_batch_of_it(folder):
    sequence = NumeraiSequence(folder, BATCH)
    sequence.on_epoch_end()
    sequence.on_epoch_end()
    assert sequence.epoch == 0
    for epoch in range(3):
        assert sequence.epoch == epoch
        sequence[epoch]
        for _ in range(3):
            sequence.on_epoch_end()
    assert sequence.epoch == 3


@pytest.mark.parametrize("run_rows", [None, 8])
def test_each_epoch_has_an_order_of_its_own(folder, run_rows):
    sequence = NumeraiSequence(folder, BATCH, run_rows=run_rows)
    orders = []
    for _ in range(4):
        orders.append(order_of(sequence))
        assert len(sequence) == 21
        sequence.on_epoch_end()
    assert [sorted(order) for order in orders] == [list(range(ROWS))] * 4
    assert len(set(map(tuple, orders))) == 4
    firsts = {frozenset(order[:BATCH]) for order in orders}
    assert len(firsts) == 4


def test_same_seed_is_the_same_order_and_another_is_not(folders):
    for epoch in range(2):
        orders = []
        for encoding, seed in (("packed", 3), ("int8", 3), ("packed", 4), ("packed", 0)):
            sequence = NumeraiSequence(folders / encoding, BATCH, seed=seed)
            sequence.epoch = epoch
            orders.append(order_of(sequence))
        assert orders[0] == orders[1]
        assert len(set(map(tuple, orders))) == 3


def test_order_is_the_same_for_any_target_dtype_and_features(folder):
    expected = order_of(NumeraiSequence(folder, BATCH, seed=5))
    for options in (
        {"target": None},
        {"target": ["target_b"]},
        {"dtype": "int8"},
        {"dtype": "float16"},
        {"features": NAMES[:10]},
        {"drop_remainder": False, "workers": 3},
    ):
        assert order_of(NumeraiSequence(folder, BATCH, seed=5, **options)) == expected


def test_a_batch_does_not_depend_on_what_was_read_before(folder):
    expected = batches_of(NumeraiSequence(folder, BATCH))
    for number in (20, 0, 7):
        assert_same_batches([NumeraiSequence(folder, BATCH)[number]], [expected[number]])


def test_an_epoch_can_be_taken_up_again(folder):
    sequence = NumeraiSequence(folder, BATCH)
    orders = []
    for _ in range(3):
        orders.append(order_of(sequence))
        sequence.on_epoch_end()
    resumed = NumeraiSequence(folder, BATCH)
    for epoch in (2, 0, 1):
        resumed.epoch = epoch
        assert order_of(resumed) == orders[epoch]


def test_a_pass_keeps_its_epoch_while_the_sequence_moves_on(folder):
    sequence = NumeraiSequence(folder, BATCH)
    expected = batches_of(sequence)
    one_pass = sequence.one_pass()
    for _ in range(3):
        sequence.on_epoch_end()
        sequence[0]
    assert sequence.epoch == 3
    assert len(one_pass) == len(expected)
    assert_same_batches(batches_of(one_pass), expected)


def test_without_shuffle_the_order_is_that_of_the_files(folder):
    with open_shards(folder) as shards:
        expected = numbers_of(shards).tolist()
    for run_rows in (None, 8):
        sequence = NumeraiSequence(folder, 100, shuffle=False, seed=7, run_rows=run_rows)
        for _ in range(2):
            batches = batches_of(sequence)
            assert [int(number) for _, y in batches for number in y] == expected
            assert order_of(sequence) == expected
            sequence.on_epoch_end()


def test_rows_of_a_batch_come_in_the_order_of_the_files(folder):
    with open_shards(folder) as shards:
        place = np.argsort(numbers_of(shards))
    for run_rows in (None, 8):
        for x, _ in batches_of(NumeraiSequence(folder, BATCH, run_rows=run_rows)):
            assert (np.diff(place[row_numbers(x)]) > 0).all()


@pytest.mark.parametrize("run_rows", [1, 2, 8, 64, 5000])
@pytest.mark.parametrize("batch_size", [7, 64, 1000])
def test_runs_of_rows_cover_every_row_once(folder, run_rows, batch_size):
    sequence = NumeraiSequence(folder, batch_size, run_rows=run_rows)
    for _ in range(2):
        for x, y in batches_of(sequence):
            assert_same(x, expected_x(y.astype(int)))
        assert sorted(order_of(sequence)) == list(range(ROWS))
        sequence.on_epoch_end()


def test_one_row_runs_are_the_default(folder):
    expected = order_of(NumeraiSequence(folder, BATCH, run_rows=1))
    assert order_of(NumeraiSequence(folder, BATCH)) == expected
    assert order_of(NumeraiSequence(folder, BATCH, run_rows=2)) != expected


def options_of_all_kinds():
    return [
        {"target": ["target", "target_b"], "features": NAMES[::-1], "seed": 9, "run_rows": 8},
        {"target": "target", "dtype": "int8", "shuffle": False},
        {"target": "target", "dtype": "float16", "drop_remainder": True},
    ]


@pytest.mark.parametrize("options", options_of_all_kinds())
def test_pickled_sequence_gives_the_same_batches(folder, options):
    sequence = NumeraiSequence(folder, BATCH, **options)
    for epoch in range(2):
        expected = batches_of(sequence)
        found = pickle.loads(pickle.dumps(sequence))
        assert found.epoch == epoch
        assert_same_batches(batches_of(found), expected)
        sequence.on_epoch_end()
        found.on_epoch_end()
        assert_same_batches(batches_of(found), batches_of(sequence))


def test_pickle_is_small_and_keeps_the_options_for_keras(folder):
    sequence = NumeraiSequence(folder, BATCH, workers=3, max_queue_size=7)
    before = pickle.dumps(sequence)
    batches_of(sequence)
    pickled = pickle.dumps(sequence)
    assert len(pickled) == len(before) < 10_000
    found = pickle.loads(pickled)
    assert (found.workers, found.use_multiprocessing, found.max_queue_size) == (3, False, 7)
    assert (found.batch_size, found.features) == (BATCH, tuple(NAMES))


@pytest.mark.parametrize("run_rows", [None, 8])
def test_threads_give_the_same_batches(folder, run_rows):
    expected = batches_of(NumeraiSequence(folder, 20, run_rows=run_rows))
    sequence = NumeraiSequence(folder, 20, run_rows=run_rows)

    def read_all(thread):
        numbers = np.random.default_rng(thread).permutation(len(expected))
        found = {int(number): sequence[number] for number in numbers}
        return [found[number] for number in range(len(expected))]

    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(read_all, range(8)):
            assert_same_batches(found, expected)


def test_threads_may_read_one_epoch_while_another_begins(folder):
    sequence = NumeraiSequence(folder, 20)
    passes, expected = [], []
    for _ in range(3):
        passes.append(sequence.one_pass())
        expected.append(batches_of(sequence))
        sequence.on_epoch_end()

    def read(number):
        epoch, batch = number % 3, number // 3
        return passes[epoch][batch]

    count = len(sequence) * 3
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(read, range(count)))
    for epoch in range(3):
        assert_same_batches(found[epoch::3], expected[epoch])


class Counted:
    """Stands for a reader or a decoder, and counts the threads that are in it at a time."""

    def __init__(self, wrapped, call):
        self.wrapped, self.call = wrapped, call
        self.lock, self.inside, self.most = threading.Lock(), 0, 0

    def __getattr__(self, name):
        return getattr(self.wrapped, name)

    def batch(self, *args):
        return self(*args)

    def __call__(self, *args):
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        time.sleep(0.003)  # so that those who may come in do
        try:
            return self.call(*args)
        finally:
            with self.lock:
                self.inside -= 1


@pytest.mark.parametrize("run_rows", [1, 8])
def test_four_of_many_threads_read_at_a_time_and_no_more_decode_than_have_a_processor(
    folder, run_rows
):
    expected = batches_of(NumeraiSequence(folder, 10, run_rows=run_rows))
    sequence = NumeraiSequence(folder, 10, run_rows=run_rows)
    decode = sequence._decode
    sequence._decode = Counted(decode, decode)
    batches = sequence.one_pass()
    reader = batches._reader
    batches._reader = counted = Counted(reader, reader.batch)
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(batches.__getitem__, range(len(batches))))
    assert_same_batches(found, expected)
    assert counted.most == 4
    assert sequence._decode.most <= min(4, os.cpu_count())


@each_dtype
@each_encoding
@pytest.mark.parametrize("features", [None, NAMES[3:]], ids=["all", "some"])
def test_writing_into_a_batch_changes_no_other(folders, encoding, dtype, features):
    sequence = NumeraiSequence(folders / encoding, BATCH, dtype=dtype, features=features)
    expected = batches_of(
        NumeraiSequence(folders / encoding, BATCH, dtype=dtype, features=features)
    )
    first = sequence[0]
    second = sequence[1]
    first[0][:], first[1][:] = 99, 99
    assert_same_batches([second, sequence[0], sequence[1]], [expected[1], *expected[:2]])
    assert not np.shares_memory(sequence[0][0], sequence[0][0])


def test_batch_outlives_its_sequence(folder):
    expected = NumeraiSequence(folder, BATCH)[3]
    with open_shards(folder) as shards:
        found = NumeraiSequence(shards, BATCH)[3]
    assert_same_batches([found], [expected])


def test_closed_set_gives_no_batches(folder):
    with open_shards(folder) as shards:
        sequence = NumeraiSequence(shards, BATCH)
    with pytest.raises(ValueError, match="is closed"):
        sequence[0]


@pytest.mark.parametrize("missing", ["NaN", "null"])
def test_nan_and_null_are_both_missing_targets(tmp_path, missing):
    table = numerai_table(rows=200, features=FEATURES)
    values = np.arange(200, dtype=np.float32)
    is_missing = values % 7 == 3
    values[is_missing] = np.nan
    column = pa.array(values, from_pandas=missing == "null")
    assert column.null_count == (is_missing.sum() if missing == "null" else 0)
    place = table.schema.get_field_index("target_b")
    pq.write_table(table.set_column(place, "target_b", column), tmp_path / "train.parquet")
    write_shards(tmp_path / "train.parquet", tmp_path / "set", progress=False).close()
    targets = ["target", "target_b"]
    sequence = NumeraiSequence(tmp_path / "set", 30, target=targets, missing_target="mask")
    seen = []
    for x, y, weight in batches_of(sequence):
        numbers = row_numbers(x)
        assert_same(x, expected_x(numbers))
        expected = np.where(is_missing, np.float32(0.5), values)[numbers]
        assert_same(y, np.stack([numbers.astype(np.float32), expected], axis=1))
        assert_same(weight, np.float32(~is_missing[numbers]))
        seen += numbers.tolist()
    assert sorted(seen) == list(range(200))


@pytest.mark.parametrize("values", ["int8", "Int8", "float32", "float64"])
def test_every_kind_of_source_gives_the_same_batches(folder, tmp_path, values):
    source = write_source(tmp_path / "t.parquet", rows=ROWS, features=FEATURES, values=values)
    options = {"num_shards": 5, "mix_eras": 2, "progress": False}
    write_shards(source, tmp_path / "set", **options).close()
    found = NumeraiSequence(tmp_path / "set", BATCH)
    assert_same_batches(batches_of(found), batches_of(NumeraiSequence(folder, BATCH)))


def test_eras_of_a_batch_come_from_the_whole_history(folder):
    x, _ = NumeraiSequence(folder, 100)[0]
    assert len(set(ragged_eras(ROWS, 23)[row_numbers(x)])) > 15


MODES = [
    {"paging": paging, "memory_budget": budget}
    for paging in ("resident", "streaming")
    for budget in ("auto", "17MB", "1GB")
]


@each_dtype
@each_encoding
@pytest.mark.parametrize("run_rows", [1, 4, 64])
def test_batches_are_what_the_source_and_the_order_say_in_every_mode(
    folders, encoding, dtype, run_rows
):
    with open_shards(folders / encoding) as shards:
        numbers, spans = numbers_of(shards), shards.spans()
    for options in MODES:
        sequence = NumeraiSequence(
            folders / encoding, BATCH, dtype=dtype, run_rows=run_rows, seed=3, **options
        )
        for epoch in range(2):
            order = epoch_order(
                spans, seed=3, epoch=epoch, run_rows=run_rows, group_rows=16384 // BATCH * BATCH
            )
            cuts = [(start, min(start + BATCH, ROWS)) for start in range(0, ROWS, BATCH)]
            chosen = [numbers[order.rows(*cut)] for cut in cuts]
            expected = [(expected_x(part, dtype), part.astype(np.float32)) for part in chosen]
            assert_same_batches(batches_of(sequence), expected)
            sequence.on_epoch_end()


IN_ANOTHER_PROCESS = """
import pickle, sys
from numerai_sequence import NumeraiSequence
folder, answer = sys.argv[1:]
with open(answer, "rb") as file:
    pickled = pickle.load(file)
made = NumeraiSequence(folder, 50, target=["target", "target_b"], seed=9, run_rows=8)
made[0]
made.on_epoch_end()
batches = [[one[number] for number in range(len(one))] for one in (made, *pickled)]
with open(answer, "wb") as file:
    pickle.dump(batches, file)
"""


@pytest.mark.slow
def test_another_process_that_is_not_forked_gives_the_same_batches(folder, tmp_path):
    """Of a sequence that is made there, of one that comes there, and of its passes."""
    sequence = NumeraiSequence(folder, 50, target=["target", "target_b"], seed=9, run_rows=8)
    sequence[0]
    sequence.on_epoch_end()
    passes = []
    for options in MODES:
        for run_rows in (None, 1, 4):
            other = NumeraiSequence(folder, BATCH, run_rows=run_rows, **options)
            other[0]
            other.on_epoch_end()
            passes.append(other.one_pass())
            other.on_epoch_end()  # which must not matter
    (tmp_path / "answer").write_bytes(pickle.dumps([sequence, *passes]))
    # A Keras that loads fast: no batch gets as far as a model.
    environment = {"KERAS_BACKEND": "numpy", "PYTHONHASHSEED": "7"}
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", IN_ANOTHER_PROCESS, str(folder), str(tmp_path / "answer")]
    subprocess.run(command, check=True, env=os.environ | environment)
    found = pickle.loads((tmp_path / "answer").read_bytes())
    for one, batches in zip([sequence, sequence, *passes], found, strict=True):
        assert_same_batches(batches, batches_of(one))


def test_list_of_all_batches_keeps_each_of_them(folder):
    """However many there are, none is written over while it is in the list."""
    for options in MODES:
        sequence = NumeraiSequence(folder, 3, run_rows=4, **options)
        for x, y in batches_of(sequence):
            assert_same(x, expected_x(y.astype(int)))


def test_batch_larger_than_the_set_takes_no_more_memory_than_the_set(folder):
    sequence = NumeraiSequence(folder, 10**6, memory_budget="64MB")
    assert sorted(order_of(sequence)) == list(range(ROWS))


class Interrupted(NumeraiSequence):
    """Lets another thread's call come in between two looks at the same attribute."""

    looks_left = -1

    @property
    def _reader(self):
        self.looks_left -= 1
        if self.looks_left == 0:
            self.epoch = 1
            super().__getitem__(0)
        return self.__dict__["reader"]

    @_reader.setter
    def _reader(self, reader):
        self.__dict__["reader"] = reader


def test_batch_is_of_the_epoch_in_which_it_was_asked_for(folder):
    sequence = Interrupted(folder, BATCH, run_rows=1)
    expected = sequence[3]
    for looks in (1, 2, 3):
        sequence.looks_left, sequence.epoch = -1, 0
        sequence[0]
        sequence.looks_left = looks
        assert_same_batches([sequence[3]], [expected])


def test_repr_says_what_a_batch_is(folder):
    text = repr(NumeraiSequence(folder, BATCH, features=NAMES[:3], dtype="int8"))
    for part in ("21 batches of 50", "3 features as int8", "target 'target'", str(folder)):
        assert part in text


WRONG = [
    ({"batch_size": 0}, ValueError, "batch_size: found 0, expected at least 1"),
    ({"batch_size": -5}, ValueError, "batch_size: found -5"),
    ({"batch_size": 10.0}, TypeError, r"batch_size: found 10\.0, expected a whole number"),
    ({"batch_size": "10"}, TypeError, "batch_size: found '10'"),
    ({"batch_size": True}, TypeError, "batch_size: found True"),
    ({"batch_by": "week"}, ValueError, r"batch_by: found 'week', expected one of .*'era'"),
    ({"missing_target": "skip"}, ValueError, "missing_target: found 'skip'.*'mask'"),
    ({"missing_target": None}, ValueError, "missing_target: found None"),
    ({"run_rows": 0}, ValueError, "run_rows: found 0"),
    ({"run_rows": 1.5}, TypeError, r"run_rows: found 1\.5"),
    ({"seed": -1}, ValueError, "seed: found -1, expected at least 0"),
    ({"seed": None}, TypeError, "seed: found None"),
    ({"seed": 0.5}, TypeError, r"seed: found 0\.5"),
    ({"workers": -1}, ValueError, "workers: found -1"),
    ({"workers": "4"}, TypeError, "workers: found '4'"),
    ({"max_queue_size": 0}, ValueError, "max_queue_size: found 0"),
    ({"dtype": "float64"}, ValueError, r"dtype: found 'float64'.*'float32', 'float16', 'int8'"),
    ({"dtype": None}, ValueError, "dtype: found None"),
    ({"target": []}, ValueError, "target: found none"),
    ({"target": ""}, ValueError, "target: found none"),
    ({"batchsize": 10}, TypeError, "batchsize"),
    ({"sample_weight": 3}, TypeError, "sample_weight: found 3, expected the name of a column"),
    ({"sample_weight": "target", "target": None}, ValueError, "sample_weight: .*without a target"),
    ({"batch_size": 10, "class_weight": None}, TypeError, "class_weight"),
]


@pytest.mark.parametrize(("options", "kind", "message"), WRONG, ids=[str(o) for o, _, _ in WRONG])
def test_wrong_argument_is_refused_by_name(folder, options, kind, message):
    with pytest.raises(kind, match=message):
        NumeraiSequence(folder, **options)


def test_only_the_batch_size_may_go_without_its_name(folder):
    assert NumeraiSequence(folder, 10).batch_size == 10
    with pytest.raises(TypeError):
        NumeraiSequence(folder, 10, "target")


def test_numpy_numbers_are_whole_numbers(folder):
    made = NumeraiSequence(folder, np.int64(50), seed=np.int32(3), run_rows=np.uint8(8))
    expected = NumeraiSequence(folder, 50, seed=3, run_rows=8)
    assert_same_batches(batches_of(made), batches_of(expected))


WRONG_NAMES = [
    ({"features": ["feature_0001"]}, ["feature_0001"], "unknown feature 'feature_0001'; did you"),
    ({"features": ["feature_001", "zzz", "yyy"]}, ["yyy", "zzz"], "feature 'yyy' and 1 more"),
    ({"features": ["target"]}, ["target"], "unknown feature 'target'"),
    ({"features": ["feature_001"] * 2}, ["feature_001"], "'feature_001' is named twice"),
    ({"features": []}, (), "features: found none"),
    ({"features": "feature_000"}, ["feature_000"], "is a feature, not a feature set"),
    ({"features": "medium"}, ["medium"], "found no feature sets, expected one named 'medium'"),
    ({"target": "targt"}, ["targt"], "unknown target 'targt'; did you mean target"),
    ({"target": ["target", "target_c"]}, ["target_c"], "'target_c'; did you mean .*target_b"),
    ({"target": ["target", "target"]}, ["target"], "'target' is named twice"),
    ({"target": "feature_000"}, ["feature_000"], "unknown target 'feature_000'"),
]


@pytest.mark.parametrize(
    ("options", "names", "message"), WRONG_NAMES, ids=[message for _, _, message in WRONG_NAMES]
)
def test_wrong_name_is_shown_with_the_set_and_close_matches(folder, options, names, message):
    with pytest.raises(FeatureError, match=message) as caught:
        NumeraiSequence(folder, **options)
    assert caught.value.names == names
    assert str(folder) in str(caught.value)


@needs_real_data
@each_encoding
def test_real_v3_rows_come_back_bit_for_bit(tmp_path, encoding):
    path = REAL_DATA / "v3_mini.parquet"
    table = pq.read_table(path)
    names = [name for name in table.column_names if name.startswith("feature")]
    targets = [name for name in table.column_names if name.startswith("target")]
    assert (table.num_rows, len(names)) == (10, 1050)
    ids = table["id"].to_pylist()
    options = {"encoding": encoding, "progress": False}
    with write_shards(path, tmp_path / "set", **options) as shards:
        rows = [ids.index(i) for i in shards.column("id").to_pylist()]
        assert sorted(rows) == list(range(10))
        assert shards.features == tuple(names)
        assert shards.eras == sorted(table["era"].to_pylist())
        x = np.stack([table[name].to_numpy() for name in names], axis=1)[rows]
        y = np.stack([table[name].to_numpy() for name in targets], axis=1)[rows]
        for dtype, expected in (
            ("float32", x),
            ("int8", (x * 4).astype(np.int8)),
            ("float16", x.astype(np.float16)),
        ):
            sequence = NumeraiSequence(shards, 10, target=targets, shuffle=False, dtype=dtype)
            [(found_x, found_y)] = batches_of(sequence)
            assert found_x.dtype == expected.dtype
            assert found_x.tobytes() == expected.tobytes()
            assert_same(found_y, y)


@needs_real_data
def test_real_feature_sets_can_be_chosen_from_a_real_width(tmp_path):
    document = json.loads((REAL_DATA / "v5.3_features.json").read_text())
    names, small = document["feature_sets"]["all"], document["feature_sets"]["small"]
    assert set(small) < set(names)
    digits = np.random.default_rng(0).integers(0, 5, (40, len(names)), np.int8)
    other = numerai_table(rows=40, features=10).select(["id", "era", "target"])
    columns = [*other.columns, *(pa.array(column) for column in digits.T)]
    table = pa.table(columns, [*other.column_names, *names])
    pq.write_table(table, tmp_path / "train.parquet")
    with write_shards(tmp_path / "train.parquet", tmp_path / "set", progress=False) as shards:
        x, y = NumeraiSequence(shards, 40)[0]
        assert_same(x, (digits[y.astype(int)] / 4).astype(np.float32))
        x, y = NumeraiSequence(shards, 40, features=small, dtype="int8")[0]
        columns = [names.index(name) for name in small]
        assert_same(x, digits[y.astype(int)][:, columns])
