"""Values: the ids, eras, data types and targets of a batch are those of its rows, in its order."""

from __future__ import annotations

import itertools
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numerai_tables import numerai_table, ragged_eras, row_numbers

from numerai_sequence import (
    CorruptShardError,
    FeatureError,
    NumeraiSequence,
    append_shards,
    open_shards,
    write_shards,
)
from numerai_sequence.batching.epoch import Position

ROWS, ERAS, BATCH = 480, 24, 20
COLUMNS = ("id", "era", "data_type", "target", "target_b")


def the_table(*, newest):
    """Row i has id i and target i; `target_b` of every 7th, and of new eras if not `newest`."""
    table = numerai_table(ROWS, eras=ERAS, features=12, missing_target=True)
    eras = ragged_eras(ROWS, ERAS)
    numbers = np.arange(ROWS)
    missing = (numbers % 7 == 3) | (eras > ERAS - 3 if not newest else False)
    kinds = np.where(eras <= (14 if newest else 11), "train", "validation").astype(object)
    kinds[5::11] = None
    for name, column in (
        ("target", pa.array(numbers.astype(np.float32))),
        ("target_b", pa.array((numbers + 0.5).astype(np.float32), mask=missing)),
        ("data_type", pa.array(kinds, pa.string())),
    ):
        table = table.set_column(table.column_names.index(name), name, column)
    return table


@pytest.fixture(scope="module")
def table():
    return the_table(newest=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A set that was written early and refreshed: some columns are in patches."""
    path = tmp_path_factory.mktemp("values")
    early = the_table(newest=False)
    early = early.filter(pa.array(ragged_eras(ROWS, ERAS) < ERAS))
    pq.write_table(early, path / "early.parquet")
    pq.write_table(the_table(newest=True), path / "newest.parquet")
    options = {"num_shards": 3, "mix_eras": 2, "progress": False}
    write_shards(path / "early.parquet", path / "set", **options).close()
    append_shards(path / "set", path / "newest.parquet", progress=False)
    with open_shards(path / "set") as shards:
        assert {name for patch in shards.manifest.patches for name in patch.columns} == {
            "data_type",
            "target_b",
        }
        assert shards.rows == ROWS
    return path / "set"


def x_of(batch):
    return batch[0] if isinstance(batch, tuple) else batch


def assert_same_rows(sequence, number, x, table):
    """All columns of a batch are those of the rows that x says it has."""
    rows = row_numbers(x)
    expected = table.take(pa.array(rows))
    for name in COLUMNS:
        found = sequence.column(name, batch=number)
        assert found.type == table[name].type
        values = expected[name].to_pylist()
        if name == "target_b":
            values = [np.nan if value is None else value for value in values]
            np.testing.assert_array_equal(found.to_numpy(), np.array(values, np.float32))
        else:
            assert found.to_pylist() == values
    return rows.tolist()


ORDERS = [
    {"batch_by": batch_by, "batch_size": size, "shuffle": shuffle, "run_rows": run_rows}
    for batch_by, size in (("rows", 37), ("era", 5))
    for shuffle, run_rows in ((True, 1), (True, 4), (True, 5000), (False, 1))
    if run_rows == 1 or batch_by == "rows"
]
CHOICES = [
    {},
    {"eras": "::3"},
    {"data_type": "train", "target": "target_b", "missing_target": "drop", "paging": "streaming"},
]


@pytest.mark.parametrize("choice", CHOICES, ids=str)
@pytest.mark.parametrize("order", ORDERS, ids=lambda order: "-".join(map(str, order.values())))
def test_columns_of_each_batch_are_those_of_its_rows(folder, table, order, choice):
    sequence = NumeraiSequence(folder, **order, **choice)
    for _ in range(2):
        seen = []
        for number in range(len(sequence)):
            seen += assert_same_rows(sequence, number, sequence[number][0], table)
        assert len(seen) == len(set(seen)) == sequence.rows
        sequence.on_epoch_end()


@pytest.mark.parametrize("drop_remainder", [False, True])
@pytest.mark.parametrize("world_size", [2, 3, 7])
@pytest.mark.parametrize(
    "order",
    [{"batch_size": 40}, {"batch_size": 40, "run_rows": 6}, {"batch_by": "era", "batch_size": 2}],
    ids=["rows", "runs", "eras"],
)
def test_columns_of_each_batch_of_each_rank_are_those_of_its_rows(
    folder, table, order, world_size, drop_remainder
):
    seen = []
    for rank in range(world_size):
        sequence = NumeraiSequence(
            folder, **order, rank=rank, world_size=world_size, drop_remainder=drop_remainder
        )
        sequence.epoch = 3
        for number in range(len(sequence)):
            seen += assert_same_rows(sequence, number, sequence[number][0], table)
    assert len(seen) == len(set(seen))
    assert drop_remainder or len(seen) == ROWS


def test_all_rows_come_in_the_order_of_the_files_whatever_the_order_of_batches(folder):
    with open_shards(folder) as shards:
        expected = shards.column("id").to_pylist()
        for order in ORDERS:
            assert NumeraiSequence(shards, **order).column("id").to_pylist() == expected
        in_order = NumeraiSequence(shards, batch_by="era").in_order(100)
        ids = [in_order.column("id", batch=i).to_pylist() for i in range(len(in_order))]
        assert list(itertools.chain(*ids)) == expected


def test_a_batch_is_counted_from_the_end_and_has_to_be_there(folder):
    sequence = NumeraiSequence(folder, BATCH)
    for number in (-1, -24, np.int64(-3)):
        assert sequence.column("id", batch=number) == sequence.column("id", batch=24 + int(number))
    for number in (24, -25, 10**30):
        expected = f"found batch {number}, expected -24 to 23: an epoch has 24"
        with pytest.raises(IndexError, match=expected):
            sequence.column("id", batch=number)
    for number in ("0", 1.0, slice(2)):
        with pytest.raises(TypeError):
            sequence.column("id", batch=number)


@pytest.mark.parametrize("options", [{}, {"batch": 0}])
def test_unknown_column_is_a_feature_error_with_those_that_there_are(folder, options):
    sequence = NumeraiSequence(folder, BATCH)
    for name in ("targets", "feature_000", "features", "", "eras"):
        with pytest.raises(FeatureError, match="expected one of id, era, data_type, target") as e:
            sequence.column(name, **options)
        assert e.value.names == [name]
    with pytest.raises(FeatureError, match=r"'target_c', .*; did you mean target_b"):
        sequence.column("target_c", **options)
    for name in (None, 3, ["id"]):
        with pytest.raises(TypeError, match="name: found"):
            sequence.column(name, **options)


class Telling(NumeraiSequence):
    """Gives the numbers of its rows, as their ids tell, in the place of y."""

    def __getitem__(self, index):
        x, *_ = super().__getitem__(index)
        ids = self.column("id", batch=index).to_pylist()
        return x, np.array([int(name[1:], 16) for name in ids])


@pytest.mark.parametrize(
    "order", [{"run_rows": 1}, {"run_rows": 8, "paging": "streaming"}, {"batch_by": "era"}]
)
def test_a_pass_of_another_epoch_tells_of_its_own_rows(folder, order):
    sequence = Telling(folder, 30, **order) if "batch_by" not in order else Telling(folder, **order)
    passes = {epoch: sequence.one_pass(place=Position(epoch)) for epoch in (4, 0, 7)}
    passes |= {9: pickle.loads(pickle.dumps(sequence.one_pass(place=Position(9))))}
    seen = {}
    for epoch, one_pass in passes.items():
        with ThreadPoolExecutor(4) as pool:
            batches = list(pool.map(one_pass.__getitem__, range(len(one_pass))))
        for x, numbers in batches:
            np.testing.assert_array_equal(numbers, row_numbers(x))
        seen[epoch] = tuple(np.concatenate([numbers for _, numbers in batches]).tolist())
    assert len(set(seen.values())) == 4
    assert sequence.epoch == 0


def test_rows_of_a_set_are_those_that_are_named(folder):
    with open_shards(folder) as shards:
        whole = {name: shards.column(name) for name in COLUMNS}
        for rows in ([], [0], [ROWS - 1], [3, 4, 5, 400], range(ROWS), range(0, ROWS, 13)):
            numbers = np.array(rows, np.int64)
            for name in COLUMNS:
                found, expected = shards.column(name, numbers), whole[name].take(pa.array(numbers))
                assert str(found.to_pylist()) == str(expected.to_pylist())
        with pytest.raises(IndexError):
            shards.column("id", np.array([ROWS]))


def damage(folder, name, replace):
    """Write other bytes into a column of the last record batch of the first shard file."""
    with open_shards(folder) as shards:
        path, batch = shards.paths[0], shards.batches(0)[-1]
        first = sum(one.num_rows for one in shards.batches(0)[:-1])
        _, offsets, texts = (buffer and buffer.to_pybytes() for buffer in batch[name].buffers())
    data = path.read_bytes()
    for old in (offsets, texts):
        new = replace(old) if old is not None else None
        if new is not None:
            start = data.rindex(old)
            data = data[:start] + new + data[start + len(old) :]
    path.write_bytes(data)
    return first


@pytest.fixture
def fresh(tmp_path, table):
    pq.write_table(table, tmp_path / "train.parquet")
    options = {"num_shards": 2, "mix_eras": 3, "progress": False}
    write_shards(tmp_path / "train.parquet", tmp_path / "set", **options).close()
    return tmp_path / "set"


@pytest.mark.parametrize("with_what", [b"\xff", b"z"])
@pytest.mark.parametrize("name", ["era", "data_type"])
def test_damaged_text_is_found_where_it_is_read_and_only_there(fresh, name, with_what):
    def replace(old):
        return with_what + old[1:] if old[:1].isalnum() else None

    first = damage(fresh, name, replace)
    with open_shards(fresh) as shards:
        assert len(shards.column(name, np.arange(first))) == first
        # The first text is damaged, and not the others; a data type may be missing.
        wrong = first + next(i for i, v in enumerate(shards.batches(0)[-1][name]) if v.is_valid)
        assert len(shards.column(name, np.array([0, wrong + 1, wrong + 20]))) == 3
        for rows in ([wrong], [0, wrong], [wrong, wrong + 1]):
            with pytest.raises(CorruptShardError, match=name) as caught:
                shards.column(name, np.array(rows))
            assert caught.value.path == shards.paths[0]


def test_an_offset_that_leads_astray_is_found(fresh):
    def replace(old):
        if old[:4] != bytes(4):
            return None
        offsets = np.frombuffer(old, np.int32).copy()
        offsets[10] = 2**31 - 1
        return offsets.tobytes()

    first = damage(fresh, "id", replace)
    with open_shards(fresh) as shards:
        assert len(shards.column("id", first + np.arange(9))) == 9
        for row in (9, 10):
            with pytest.raises(CorruptShardError, match="column 'id'"):
                shards.column("id", np.array([first + row]))
