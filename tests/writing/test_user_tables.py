"""Inputs: what users may bring is read bit for bit, or refused with what it takes to repair it."""

from __future__ import annotations

import tempfile
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from damaged_tables import Damage, damages, damages_of_files
from hypothesis import assume, given, note
from hypothesis import strategies as st
from user_tables import (
    FLOATS,
    INTEGERS,
    columns,
    count_outcome,
    examples,
    fault_of_rows,
    in_time,
    multiset,
    save,
    shapes,
    tables,
    writings,
)

from numerai_sequence import (
    FeatureError,
    NumeraiSequence,
    NumeraiSequenceError,
    SourceError,
    write_shards,
)
from numerai_sequence.writing import parquet_reader
from numerai_sequence.writing import writer as writer_module

options_of_writing = st.fixed_dictionaries(
    {
        "num_shards": st.integers(1, 40),
        "encoding": st.sampled_from(["packed", "int8"]),
        "mix_eras": st.none() | st.integers(1, 8),
        "seed": st.integers(0, 2**40),
    }
)


@contextmanager
def reading_in_pieces(draw):
    """Yield a folder; meanwhile the writer reads a few columns and rows at a time, or all."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer_module, "BLOCK_BYTES", draw(st.sampled_from([1, 40, 96 << 20])))
        patch.setattr(parquet_reader, "_BATCH_ROWS", draw(st.sampled_from([1, 7, 1 << 16])))
        yield Path(folder)


def some(draw, names, least=0):
    """None for all, or some of the names in any order."""
    chosen = st.lists(st.sampled_from(names), min_size=least, unique=True) if names else st.just([])
    return draw(st.none() | chosen)


def everything(shards, sequence):
    """The rows of a sequence of x alone, in the order of the files, as of `Brought.rows_with`."""
    x = [sequence[number] for number in range(len(sequence))]
    numbers = [sequence.column(name).to_numpy() for name in shards.targets]
    texts = [sequence.column(name).to_pylist() for name in ("id", "era", "data_type")]
    return multiset(*texts, columns(sequence.rows, numbers), np.concatenate(x))


def check_rows(shards, expected: Counter, draw):
    """All rows once, as the set and its batches give them: in order, shuffled and by era."""
    rows_of_era = Counter()
    for (_, era, *_), count in expected.items():
        rows_of_era[era] += count
    assert shards.eras == in_time(rows_of_era)
    assert shards.era_rows == rows_of_era
    batch_size = draw(st.integers(1, 64))
    how = {"target": None, "shuffle": False, "dtype": "int8"}
    assert everything(shards, NumeraiSequence(shards, batch_size, **how)) == expected
    check_batches(shards, batch_size, expected)
    era = draw(st.sampled_from(shards.eras))
    of_era = NumeraiSequence(shards, batch_size, eras=[era], **how)
    assert of_era.eras == (era,)
    rows = {row: count for row, count in expected.items() if row[1] == era}
    assert everything(shards, of_era) == rows


def check_batches(shards, batch_size, expected):
    """Shuffled batches as float32: every row's features with its own targets, once."""
    target = list(shards.targets) or None
    sequence = NumeraiSequence(shards, batch_size, target=target, missing_target="mask")
    found = Counter()
    for batch in (sequence[number] for number in range(len(sequence))):
        x, y, weights = batch if shards.targets else (batch, *nothing(len(batch)))
        assert x.dtype == y.dtype == weights.dtype == np.float32
        found += multiset(x, y, weights)
    masked = Counter()
    for (*_, numbers, digits), count in expected.items():
        y = np.frombuffer(numbers, np.float32)
        absent = np.isnan(y)
        x = np.frombuffer(digits, np.int8).astype(np.float32) / 4
        weight = np.float32(not absent.any())
        y = np.where(absent, np.float32(0.5), y)
        masked[x.tobytes(), y.tobytes(), weight.tobytes()] += count
    assert found == masked


def nothing(rows):
    """No targets, and the weights of rows that have all of them."""
    return np.empty((rows, 0), np.float32), np.ones(rows, np.float32)


@examples(20)
@given(st.data())
def test_a_valid_table_is_read_bit_for_bit(data):
    brought = data.draw(shapes().flatmap(tables))
    shape = brought.shape
    features = some(data.draw, shape.features, least=1)
    targets = some(data.draw, shape.targets + shape.weights)
    options = data.draw(options_of_writing)
    write = data.draw(writings(brought))
    with reading_in_pieces(data.draw) as folder:
        path = write(folder / "train.parquet")
        with write_shards(
            path, folder / "set", features=features, targets=targets, progress=False, **options
        ) as shards:
            assert features is None or shards.features == tuple(features)
            assert set(shards.features) <= set(shape.features)
            assert set(shards.targets) == set(shape.targets if targets is None else targets)
            check_rows(shards, brought.rows_with(shards.features, shards.targets), data.draw)
    count_outcome("read right")


@examples(50)
@given(st.data())
def test_what_is_damaged_is_refused_by_file_column_and_row(data):
    shape = data.draw(shapes(most_features=4))
    brought = data.draw(tables(shape))
    damage = data.draw(damages(brought))
    has_other = not damage.stands_alone and data.draw(st.booleans())
    other = data.draw(tables(shape, least_rows=0)) if has_other else None
    write = data.draw(writings(replace(brought, table=damage.table), by_pandas=False))
    options = data.draw(options_of_writing) | damage.options
    with reading_in_pieces(data.draw) as folder:
        paths = [write(folder / "it's.parquet")]
        assume(other is None or damage.kind is FeatureError or not fault_of_rows(brought, other))
        if other:
            good = data.draw(writings(other))(folder / "good.parquet")
            paths.insert(data.draw(st.integers(0, 1)), good)
        error = refusal(paths, folder, damage.kind, **options)
        check_refusal(error, damage, folder / "it's.parquet", paths[0])


@examples(15)
@given(st.data())
def test_a_file_that_is_damaged_is_refused(data):
    shape = data.draw(shapes(most_features=2))
    brought = data.draw(tables(shape))
    with tempfile.TemporaryDirectory() as name:
        path = data.draw(writings(brought))(Path(name, "train.parquet"))
        data.draw(damages_of_files)(data.draw, path)
        check_refusal(refusal([path], Path(name), SourceError), Damage(brought.table), path, path)


def refusal(paths, folder, kind, **options):
    """The error that writing raises; nothing is left behind."""
    with pytest.raises(NumeraiSequenceError) as caught:
        write_shards(paths, folder / "set", progress=False, **options).close()
    assert not (folder / "set").exists()
    assert type(caught.value) is kind
    count_outcome("refused")
    return caught.value


def check_refusal(error, damage, path, first):
    """The error names what is wrong, what was expected and what to do, in one line."""
    note(str(error))
    if damage.kind is FeatureError:
        assert error.names == damage.names
        expected = [str(first), repr(damage.names[0]), "unknown"]
    else:
        assert (error.path, error.column, error.row) == (path, damage.column, damage.row)
        expected = [str(path), "expected", "; "]
        expected += [] if damage.column is None else [f"column {damage.column!r}"]
        expected += [] if damage.row is None else [f"row {damage.row}: found"]
    for part in expected:
        assert part in str(error)
    assert "\n" not in str(error)


CHANGES = ["nothing", "lacks a feature", "lacks a target", "has a feature", "has a target"]


@examples(20)
@given(st.data())
def test_two_sources_are_read_as_one_or_refused(data):
    shape = data.draw(shapes())
    brought = [data.draw(tables(shape)), data.draw(tables(shape, least_rows=0))]
    features = some(data.draw, shape.features, least=1)
    targets = some(data.draw, shape.targets + shape.weights)
    change = data.draw(st.sampled_from(CHANGES))
    table, column = changed(data.draw, change, brought[1])
    writes = [
        data.draw(writings(brought[0])),
        data.draw(writings(replace(brought[1], table=table), by_pandas=False)),
    ]
    is_second = data.draw(st.booleans())
    options = data.draw(options_of_writing) | {"features": features, "targets": targets}
    with reading_in_pieces(data.draw) as folder:
        paths = [write(folder / f"{number}.parquet") for number, write in enumerate(writes)]
        if not is_second:
            paths.reverse()
        asked = features if "feature" in change else targets
        if column is not None and (asked is None or column in asked):
            # What the first source has not cannot be asked for.
            kind = SourceError if asked is None or is_second else FeatureError
            damage = Damage(table, column, kind=kind, names=[column])
            check_refusal(refusal(paths, folder, kind, **options), damage, paths[1], paths[0])
        elif fault := fault_of_rows(*brought):
            error = refusal(paths, folder, SourceError, **options)
            column = shape.id if fault == "id" else "era"
            assert (error.path, error.column) == (paths[1], column)
            assert str(paths[0]) in str(error)
        else:
            with write_shards(paths, folder / "set", progress=False, **options) as shards:
                names = shards.features, shards.targets
                rows = brought[0].rows_with(*names) + brought[1].rows_with(*names)
                check_rows(shards, rows, data.draw)
            count_outcome("read right")


def changed(draw, change, brought):
    """The table with one column less or more, and the name of it."""
    what, kind = change.split(" ")[0], change.split(" ")[-1]
    table = brought.table
    if what == "has":
        name = f"{kind} that the other has not"
        # A file has one scale: zeros are of the type of the other features.
        first = table.schema.field(brought.shape.features[0]).type
        type_ = first if kind == "feature" else pa.int8()
        return table.append_column(name, pa.array([0] * table.num_rows).cast(type_)), name
    names = {"feature": brought.shape.features[1:], "target": brought.shape.targets}.get(kind)
    assume(names or what == "nothing")
    if not names:
        return table, None
    name = draw(st.sampled_from(names))
    return table.drop_columns([name]), name


@pytest.mark.parametrize("encoding", ["packed", "int8"])
def test_five_thousand_features_are_read_bit_for_bit(tmp_path, encoding):
    rows, features = 60, 5000
    digits = np.random.default_rng(5).integers(0, 5, (rows, features)).astype(np.int8)
    names = [f"feature_{'é' * (place % 60)}_{place}" for place in range(features)]
    kinds = [(*INTEGERS, *FLOATS)[place % 11] for place in range(features)]
    made = {
        name: pa.array(values.astype(kind))  # beside whole numbers, floats are 0 to 4, too
        for name, values, kind in zip(names, digits.T, kinds, strict=True)
    }
    ids = [f"n{row}" for row in range(rows)]
    table = pa.table({"id": ids, "era": [f"{row % 7:04d}" for row in range(rows)], **made})
    path = save(table, tmp_path / "train.parquet", [0, 20, rows])
    with write_shards(path, tmp_path / "set", encoding=encoding, progress=False) as shards:
        sequence = NumeraiSequence(shards, rows, target=None, shuffle=False, dtype="int8")
        places = [ids.index(name) for name in sequence.column("id").to_pylist()]
        np.testing.assert_array_equal(sequence[0], digits[places])
        assert sorted(places) == list(range(rows))
        assert sequence.features == tuple(names)
