"""Source: what a Parquet file may look like, and what is said of one that is of no use."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numerai_tables import feature_column, numerai_table, row_digits, write_source

from numerai_sequence import (
    FeatureError,
    NumeraiSequence,
    NumeraiSequenceError,
    SourceError,
    write_shards,
)
from numerai_sequence.writing import parquet_reader
from numerai_sequence.writing import writer as writer_module
from numerai_sequence.writing.source_columns import Chunk, Source, open_sources

ROWS, FEATURES, GROUP = 237, 14, 50
IDS = [f"n{number:015x}" for number in range(ROWS)]
STRING_TYPES = [
    pa.string(),
    pa.large_string(),
    pa.dictionary(pa.int32(), pa.string()),
    pa.dictionary(pa.int8(), pa.large_string()),
    *([pa.string_view()] if hasattr(pa, "string_view") else []),
]
each_string_type = pytest.mark.parametrize("kind", STRING_TYPES, ids=str)


def save(table, path, **options):
    pq.write_table(table, path, **options)
    return path


def read_meta(source, chunk, targets):
    """The columns of a chunk that are no features, as one table."""
    return pa.concat_tables(source.iter_meta(chunk, targets))


def read(path):
    """All of a source in one chunk: the other columns, and digits of shape (rows, features)."""
    source = Source(path)
    [chunk] = source.chunks(rows=1 << 20)
    meta = read_meta(source, chunk, source.targets)
    table = source.read_features(chunk, source.features)
    digits = [source.digits(table, name, chunk) for name in source.features]
    source.close()
    return meta, np.stack(digits, axis=1)


def with_column(table, name, column):
    return table.set_column(table.schema.get_field_index(name), name, column)


def with_value(table, name, row, value):
    """The table with another value in one place."""
    values = table[name].to_pylist()
    values[row] = value
    return with_column(table, name, pa.array(values, table.schema.field(name).type))


def contents(folder):
    """Every file of a folder with its bytes, and every folder in it."""
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*")}
    return {name: path.read_bytes() if path.is_file() else None for name, path in found.items()}


def refusal(sources, tmp_path, kind=SourceError, **options):
    """The error that writing raises. A folder that was not there is not there, an old set stays."""
    new, old = tmp_path / "new", tmp_path / "old"
    options = {"num_shards": 3, "progress": False, **options}
    source = write_source(tmp_path / "old.parquet", rows=60)
    write_shards(source, old, num_shards=3, progress=False).close()
    before = contents(old)
    with pytest.raises(kind) as first:
        write_shards(sources, new, **options)
    assert not new.exists()
    with pytest.raises(kind) as second:
        write_shards(sources, old, overwrite=True, **options)
    assert contents(old) == before
    assert str(second.value) == str(first.value)
    return second.value


@pytest.mark.parametrize(
    "values", ["int8", "Int8", "uint8", "int16", "int32", "int64", "uint64", "float32", "float64"]
)
def test_five_values_are_digits_in_any_type(tmp_path, values):
    path = write_source(tmp_path / "train.parquet", rows=ROWS, values=values)
    _, digits = read(path)
    assert digits.dtype == np.uint8
    np.testing.assert_array_equal(digits, row_digits(np.arange(ROWS), FEATURES))


def test_negative_zero_is_zero(tmp_path):
    table = with_value(numerai_table(rows=ROWS, values="float32"), "feature_000", 5, -0.0)
    _, digits = read(save(table, tmp_path / "train.parquet"))
    np.testing.assert_array_equal(digits, row_digits(np.arange(ROWS), FEATURES))


@pytest.mark.parametrize("id_is", ["column", "index", "unnamed index"])
@pytest.mark.parametrize("place", [0, 5, 18])
def test_ids_are_found_wherever_they_are(tmp_path, id_is, place):
    table = numerai_table(rows=ROWS, id_is=id_is)
    name = "__index_level_0__" if id_is == "unnamed index" else "id"
    names = [column for column in table.column_names if column != name]
    table = table.select([*names[:place], name, *names[place:]])
    assert table.column_names.index(name) == place
    meta, digits = read(save(table, tmp_path / "train.parquet"))
    assert meta.column_names == ["id", "era", "data_type", "target", "target_b"]
    assert meta["id"].to_pylist() == IDS
    np.testing.assert_array_equal(digits, row_digits(np.arange(ROWS), FEATURES))


@pytest.mark.parametrize("index", ["id", None, "row"])
@pytest.mark.parametrize("dtype", ["int8", "Int8", "float32", "category"])
def test_files_that_pandas_writes_are_read(tmp_path, index, dtype):
    digits = row_digits(np.arange(ROWS), FEATURES)
    names = [f"feature_{number}" for number in range(FEATURES)]
    frame = pd.DataFrame(digits / 4 if dtype == "float32" else digits, columns=names)
    frame = frame.astype("int8" if dtype == "category" else dtype)
    frame.insert(0, "era", [f"{1 + row // 20:04d}" for row in range(ROWS)])
    frame["data_type"] = "train"
    if dtype == "category":
        frame = frame.astype({"era": "category", "data_type": "category"})
    frame["target"] = np.float32(0.5)
    frame.index = pd.Index(IDS, name=index)
    frame.to_parquet(tmp_path / "train.parquet")
    meta, found = read(tmp_path / "train.parquet")
    np.testing.assert_array_equal(found, digits)
    assert meta["id"].to_pylist() == IDS
    assert meta["era"].to_pylist() == [f"{1 + row // 20:04d}" for row in range(ROWS)]
    assert meta["data_type"].to_pylist() == ["train"] * ROWS
    assert meta["target"].to_pylist() == [0.5] * ROWS


def test_an_id_column_goes_before_an_index(tmp_path):
    table = numerai_table(rows=ROWS, id_is="unnamed index")
    table = table.append_column("id", pa.array([f"other{row}" for row in range(ROWS)]))
    meta, _ = read(save(table, tmp_path / "train.parquet"))
    assert meta["id"].to_pylist()[:2] == ["other0", "other1"]


@pytest.mark.parametrize("name", ["feature_id", "target_id", "features", ""])
def test_an_index_is_no_feature_or_target_whatever_its_name(tmp_path, name):
    table = numerai_table(rows=ROWS, id_is="column").rename_columns({"id": name})
    table = table.replace_schema_metadata({"pandas": json.dumps({"index_columns": [name]})})
    path = save(table, tmp_path / "train.parquet")
    with write_shards(path, tmp_path / "shards", num_shards=3, progress=False) as shards:
        assert sorted(shards.column("id").to_pylist()) == IDS
        assert (len(shards.features), shards.targets) == (FEATURES, ("target", "target_b"))


@pytest.mark.parametrize("index", [["era"], ["data_type"], ["a", "b"], ["b", "a"], [], [{}], {}])
def test_an_index_that_may_be_something_else_than_ids_is_refused(tmp_path, index):
    table = numerai_table(rows=ROWS, id_is="column").rename_columns({"id": "a"})
    table = table.append_column("b", table["a"])
    table = table.replace_schema_metadata({"pandas": json.dumps({"index_columns": index})})
    error = refusal(save(table, tmp_path / "train.parquet"), tmp_path)
    assert (error.column, error.row) == ("id", None)
    assert "the only pandas index; add the column, or make the ids the index" in str(error)


def test_ids_that_are_empty_or_come_again_in_other_eras_are_kept(tmp_path):
    ids = ["", "a", "a", "", "b", "a"]
    table = numerai_table(rows=6, id_is="column")
    path = save(with_column(table, "id", pa.array(ids)), tmp_path / "train.parquet")
    with write_shards(path, tmp_path / "shards", num_shards=3, progress=False) as shards:
        rows = [shards.column(name).to_pylist() for name in ("target", "id")]
    assert sorted(zip(*rows, strict=True)) == sorted(zip(range(6), ids, strict=True))


def test_eras_of_any_text_are_kept_in_the_order_of_time(tmp_path):
    eras = ["0001", "2", "era3", "", "1\0", "9" * 5000, "99999999999999999999", "X"]
    table = numerai_table(rows=8)
    path = save(with_column(table, "era", pa.array(eras)), tmp_path / "train.parquet")
    with write_shards(path, tmp_path / "shards", num_shards=3, progress=False) as shards:
        assert shards.era_rows == dict.fromkeys(eras, 1)
        in_time = ["0001", "2", "era3", "99999999999999999999", "", "1\0", "9" * 5000, "X"]
        assert shards.eras == in_time
        for row, era in enumerate(eras):
            sequence = NumeraiSequence(shards, eras=[era])
            assert (sequence.rows, sequence[0][1].tolist()) == (1, [row])


@pytest.mark.parametrize("missing", ["data_type", "target"])
@pytest.mark.parametrize("kind", ["null", None])
def test_a_data_type_or_a_target_that_is_null_in_all_rows_is_kept_so(tmp_path, missing, kind):
    table = numerai_table(rows=9)
    kind = pa.null() if kind else table.schema.field(missing).type
    table = with_column(table, missing, pa.nulls(9, kind))
    path = save(table, tmp_path / "train.parquet")
    with write_shards(path, tmp_path / "shards", num_shards=3, progress=False) as shards:
        found = shards.column(missing).to_pylist()
        assert [value is None or np.isnan(value) for value in found] == [True] * 9
        assert shards.missing == ({"target": 9} if missing == "target" else {})


@pytest.mark.parametrize("column", ["id", "era", "data_type"])
@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), "dictionary"])
@pytest.mark.parametrize("text", [b"\xff", b"a\xc3", b"\xed\xa0\x80"])
def test_bytes_that_are_no_text_are_named_by_their_row(tmp_path, column, kind, text):
    values = [b"fine", None if column == "data_type" else b"fine", b"fine", text, text]
    array = pa.array(values, pa.binary() if kind != pa.large_string() else pa.large_binary())
    string = kind if kind != "dictionary" else pa.string()
    array = pa.Array.from_buffers(string, len(array), array.buffers())
    array = array.dictionary_encode() if kind == "dictionary" else array
    table = with_column(numerai_table(rows=5), column, array)
    error = refusal(save(table, tmp_path / "train.parquet", row_group_size=2), tmp_path)
    assert (error.column, error.row) == (column, 3)
    assert "found bytes that are not UTF-8, expected text" in str(error)


def test_a_name_of_a_column_that_is_no_text_is_refused(tmp_path):
    path = write_source(tmp_path / "train.parquet", rows=60)
    path.write_bytes(path.read_bytes().replace(b"feature_003", b"feature_\xff\xfe3"))
    error = refusal(path, tmp_path)
    assert (error.path, error.column) == (path, None)
    assert "cannot be read as Parquet: 'utf-8' codec" in str(error)


def test_metadata_nested_without_end_names_no_index(tmp_path):
    table = numerai_table(rows=60, id_is="unnamed index")
    table = table.replace_schema_metadata({"pandas": "[" * 100_000})
    assert refusal(save(table, tmp_path / "train.parquet"), tmp_path).column == "id"


@pytest.mark.parametrize(
    ("kind", "value", "found"),
    [
        ("float32", np.inf, "inf"),
        ("float64", -np.inf, "-inf"),
        ("float64", 1e39, "1e+39"),
        ("float64", -3.5e38, "-3.5e+38"),
        ("float16", np.inf, "inf"),
    ],
)
@pytest.mark.parametrize("meta_rows", [11, 1 << 16])
def test_a_number_that_is_infinite_as_float32_is_named(
    tmp_path, monkeypatch, kind, value, found, meta_rows
):
    monkeypatch.setattr(parquet_reader, "_BATCH_ROWS", meta_rows)
    values = np.arange(ROWS).astype(kind)
    values[[120, 121]] = value
    table = with_column(numerai_table(rows=ROWS), "target_b", pa.array(values))
    error = refusal(save(table, tmp_path / "train.parquet", row_group_size=GROUP), tmp_path)
    assert (error.column, error.row) == ("target_b", 120)
    assert f"found {found}, expected a number in the range of float32, or NaN" in str(error)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("int64", 2**60 + 1),
        ("uint64", 2**64 - 1),
        ("int32", 2**24 + 1),
        ("float64", 1 / 3),
        ("float64", 1e-46),
        ("float64", 3.4028235e38),
        ("float64", -0.0),
    ],
)
def test_numbers_are_rounded_to_float32(tmp_path, kind, value):
    values = np.array([value] * 5, kind)
    table = with_column(numerai_table(rows=5), "target", pa.array(values))
    meta, _ = read(save(table, tmp_path / "train.parquet"))
    found, expected = meta["target"].to_numpy(), values.astype(np.float32)
    np.testing.assert_array_equal(found.view(np.uint32), expected.view(np.uint32))


def test_a_column_whose_name_is_also_a_path_is_read_alone(tmp_path):
    table = numerai_table(rows=ROWS)
    nested = pa.array([{"x": 9, "y": "no"}] * ROWS)
    table = table.append_column("feature_000.x", table["feature_001"])
    table = with_column(table, "feature_000", nested)
    path = save(table, tmp_path / "train.parquet")
    assert refusal(path, tmp_path).column == "feature_000"
    features = ["feature_002", "feature_000.x"]
    with write_shards(path, tmp_path / "shards", features=features, progress=False) as shards:
        sequence = NumeraiSequence(shards, ROWS, shuffle=False, dtype="int8")
        x, rows = sequence[0]
    expected = row_digits(rows.astype(int), FEATURES)[:, [2, 1]]
    np.testing.assert_array_equal(x, expected)


@pytest.mark.parametrize("name", ["train:v5.parquet", "s3:train", "file:train.parquet", "~train"])
def test_a_name_like_an_address_is_that_of_a_file(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    os.rename(write_source(Path("train"), rows=60), name)
    with write_shards(name, "shards", progress=False) as shards:
        assert (shards.rows, shards.manifest.sources[0].path) == (60, name)


@each_string_type
@pytest.mark.parametrize("meta_rows", [1, 60, 1 << 16])
def test_strings_of_any_type_are_read_as_strings(tmp_path, monkeypatch, kind, meta_rows):
    monkeypatch.setattr(parquet_reader, "_BATCH_ROWS", meta_rows)
    table = numerai_table(rows=ROWS, eras=7)
    expected = table.select(["id", "era", "data_type"])
    for name in ["era", "data_type"] if "int8" in str(kind) else expected.column_names:
        table = with_column(table, name, table[name].cast(pa.string()).cast(kind))
    meta, _ = read(save(table, tmp_path / "train.parquet", row_group_size=GROUP))
    assert set(meta.schema.types[:3]) == {pa.string()}
    for name in expected.column_names:
        assert meta[name].to_pylist() == expected[name].to_pylist()


def test_features_and_targets_come_in_the_order_of_the_file(tmp_path):
    table = numerai_table(rows=ROWS)
    names = [table.column_names[place] for place in np.random.default_rng(3).permutation(19)]
    source = Source(save(table.select(names), tmp_path / "train.parquet"))
    assert source.features == tuple(name for name in names if name.startswith("feature"))
    assert source.targets == tuple(name for name in names if name.startswith("target"))
    assert source.rows == ROWS
    [chunk] = source.chunks(rows=ROWS)
    wanted = ["feature_011", "feature_002", "feature_005"]
    assert source.read_features(chunk, wanted).column_names == wanted
    meta = read_meta(source, chunk, ["target_b", "target"])
    assert meta.column_names == ["id", "era", "data_type", "target_b", "target"]


@pytest.mark.parametrize("kind", [pa.float32(), pa.float64(), pa.int8()], ids=str)
def test_targets_are_float32_and_nulls_are_nan(tmp_path, kind):
    values = pa.array([0, 1, None, 0] * 5, kind)
    table = with_column(numerai_table(rows=20, eras=2), "target", values)
    if kind != pa.int8():
        table = with_value(table, "target", 3, float("nan"))
        table = with_value(table, "target", 0, 0.1)
    meta, _ = read(save(table, tmp_path / "train.parquet"))
    assert meta.schema.field("target").type == pa.float32()
    assert meta["target"].null_count == 0
    found = meta["target"].to_numpy()[:4]
    expected = [0, 1, np.nan, 0] if kind == pa.int8() else [np.float32(0.1), 1, np.nan, np.nan]
    np.testing.assert_array_equal(found, np.array(expected, np.float32))


def test_data_types_may_be_null_or_missing(tmp_path):
    table = with_value(numerai_table(rows=ROWS), "data_type", 3, None)
    meta, _ = read(save(table, tmp_path / "train.parquet"))
    assert meta["data_type"].to_pylist() == [None if row == 3 else "train" for row in range(ROWS)]
    meta, _ = read(save(table.drop_columns(["data_type"]), tmp_path / "live.parquet"))
    assert meta["data_type"].to_pylist() == [None] * ROWS
    assert meta.schema.field("data_type").type == pa.string()


def test_a_column_is_not_mistaken_for_one_whose_name_begins_alike(tmp_path):
    table = numerai_table(rows=ROWS, features=10)
    names = ["feature", "feature.a", "feature.a.b", "feature_ä.ü", "feature.é"]
    names += [f"feature_{number}" for number in range(5)]
    table = table.rename_columns(["era", "data_type", *names, "target", "target.b", "id"])
    for name in ("era.x", "id.x", "data_type.x"):
        table = table.append_column(name, pa.array(["?"] * ROWS))
    path = save(table, tmp_path / "train.parquet")
    source = Source(path)
    assert (source.features, source.targets) == (tuple(names), ("target", "target.b"))
    [chunk] = source.chunks(rows=ROWS)
    for name in names:
        assert source.read_features(chunk, [name]).column_names == [name]
    meta, digits = read(path)
    np.testing.assert_array_equal(digits, row_digits(np.arange(ROWS), 10))
    assert meta["id"].to_pylist() == IDS
    assert meta["era"].to_pylist() == table["era"].to_pylist()
    np.testing.assert_array_equal(meta["target.b"].to_numpy(), np.arange(ROWS) + 0.5)


@pytest.mark.parametrize("rows", [1, 49, 50, 51, 100, 149, 10_000])
def test_chunks_are_whole_row_groups_of_at_most_so_many_rows(tmp_path, rows):
    source = Source(write_source(tmp_path / "t.parquet", rows=ROWS, row_group_rows=GROUP))
    chunks = source.chunks(rows=rows)
    assert [group for chunk in chunks for group in chunk.groups] == [0, 1, 2, 3, 4]
    starts = np.cumsum([0, *(chunk.rows for chunk in chunks)])
    assert [chunk.first_row for chunk in chunks] == starts[:-1].tolist()
    assert starts[-1] == ROWS
    sizes = [[50, 50, 50, 50, 37][chunk.groups[0] : chunk.groups[-1] + 1] for chunk in chunks]
    assert [sum(groups) for groups in sizes] == [chunk.rows for chunk in chunks]
    assert all(sum(groups) <= rows or len(groups) == 1 for groups in sizes)
    assert len(chunks) == {1: 5, 49: 5, 50: 5, 51: 5, 100: 3, 149: 2, 10_000: 1}[rows]
    eras = [era for chunk in chunks for era in source.read_eras(chunk).to_pylist()]
    assert eras == numerai_table(rows=ROWS)["era"].to_pylist()


def test_a_chunk_is_read_from_its_own_row_groups(tmp_path):
    source = Source(write_source(tmp_path / "t.parquet", rows=ROWS, row_group_rows=GROUP))
    chunk = Chunk((1, 2), 50, 100)
    assert read_meta(source, chunk, [])["id"].to_pylist() == IDS[50:150]
    table = source.read_features(chunk, ["feature_000"])
    expected = row_digits(np.arange(50, 150), FEATURES)[:, 0]
    np.testing.assert_array_equal(source.digits(table, "feature_000", chunk), expected)


@pytest.mark.parametrize("block_bytes", [100, 14 * 150, 14 * 400, 96 << 20])
def test_empty_row_groups_are_passed_over(tmp_path, monkeypatch, block_bytes):
    monkeypatch.setattr(writer_module, "BLOCK_BYTES", block_bytes)
    table = numerai_table(rows=ROWS)
    path = tmp_path / "train.parquet"
    with pq.ParquetWriter(path, table.schema) as file:
        for part in (table[:0], table[:200], table[:0], table[:0], table[200:], table[:0]):
            file.write_table(part)
    assert pq.ParquetFile(path).num_row_groups == 6
    with write_shards(path, tmp_path / "shards", num_shards=3, progress=False) as shards:
        assert sorted(shards.column("id").to_pylist()) == IDS


@pytest.mark.parametrize(
    ("values", "bytes_per_row"), [("int8", 14), ("float32", 56), ("float64", 112)]
)
def test_decoded_bytes_are_those_of_the_columns_types(tmp_path, values, bytes_per_row):
    source = Source(write_source(tmp_path / "train.parquet", rows=20, values=values))
    assert source.bytes_per_row(source.features) == bytes_per_row
    assert source.bytes_per_row(source.features[:7]) == bytes_per_row / 2


class Folder:
    """A path that is neither a string nor a Path."""

    def __init__(self, path):
        self._path = path

    def __fspath__(self):
        return str(self._path)


@pytest.mark.parametrize("kind", [str, Path, Folder])
def test_one_path_of_any_kind_is_one_source(tmp_path, kind):
    path = write_source(tmp_path / "train.parquet", rows=60)
    for sources in (kind(path), [kind(path)], (kind(path),)):
        with open_sources(sources) as [source]:
            pass
        assert (os.fspath(source.path), source.rows) == (str(path), 60)


@pytest.mark.parametrize("where", ["first row", "later row group", "second source"])
@pytest.mark.parametrize(
    ("values", "wrong"),
    [
        ("int8", 5),
        ("int8", -1),
        ("int8", 127),
        ("int8", None),
        ("Int8", None),
        ("Int8", 5),
        ("uint8", 255),
        ("int64", 256),
        ("int64", -256),
        ("float32", float("nan")),
        ("float32", None),
        ("float32", 0.3),
        ("float32", 1.25),
        ("float32", -0.25),
        ("float32", float("inf")),
        ("float32", 2.0),
        ("float64", 0.25 + 1e-16 * 4),
    ],
)
def test_a_wrong_feature_value_is_named_by_file_column_and_row(
    tmp_path, monkeypatch, values, wrong, where
):
    monkeypatch.setattr(writer_module, "BLOCK_BYTES", FEATURES * GROUP)  # a row group at a time
    row = {"first row": 0, "later row group": 2 * GROUP + 7, "second source": GROUP + 3}[where]
    table = with_value(numerai_table(rows=ROWS, values=values), "feature_006", row, wrong)
    paths = [save(table, tmp_path / "train.parquet", row_group_size=GROUP)]
    if where == "second source":
        good = write_source(tmp_path / "a.parquet", rows=60, first_row=ROWS, values=values)
        paths.insert(0, good)
    error = refusal(paths, tmp_path)
    assert (error.path, error.column, error.row) == (paths[-1], "feature_006", row)
    for part in (str(paths[-1]), "'feature_006'", f"row {row}", "expected one of 0, 1, 2, 3, 4"):
        assert part in str(error)
    found = "null" if wrong is None else "0.3" if wrong == 0.3 else str(wrong)
    assert f"found {found}" in str(error)


@pytest.mark.parametrize("block_bytes", [1, 14 * 60, 14 * 120, 1 << 20])
def test_a_wrong_value_is_found_in_any_block_of_columns(tmp_path, monkeypatch, block_bytes):
    monkeypatch.setattr(writer_module, "BLOCK_BYTES", block_bytes)
    table = with_value(numerai_table(rows=ROWS), "feature_013", 211, 9)
    path = save(table, tmp_path / "train.parquet", row_group_size=GROUP)
    error = refusal(path, tmp_path, num_shards=3)
    assert (error.path, error.column, error.row) == (path, "feature_013", 211)


def test_the_first_of_several_wrong_rows_is_named(tmp_path):
    table = numerai_table(rows=ROWS)
    for row in (90, 60, 200):
        table = with_value(table, "feature_003", row, 7)
    path = save(table, tmp_path / "train.parquet", row_group_size=GROUP)
    assert refusal(path, tmp_path).row == 60


@pytest.mark.parametrize("eras", ["sorted", "interleaved"])
def test_the_row_is_that_of_the_file_where_eras_are_interleaved(tmp_path, eras):
    numbers = np.arange(ROWS) % 5 if eras == "interleaved" else np.arange(ROWS) // 50
    table = with_value(numerai_table(rows=ROWS, eras=numbers), "feature_003", 123, 7)
    assert refusal(save(table, tmp_path / "train.parquet"), tmp_path).row == 123


def test_a_wrong_value_in_a_column_that_is_left_out_is_no_matter(tmp_path):
    table = with_value(numerai_table(rows=ROWS), "feature_003", 5, 7)
    path = save(table, tmp_path / "train.parquet")
    chosen = ["feature_002", "feature_004"]
    with write_shards(path, tmp_path / "shards", features=chosen, progress=False) as shards:
        assert (shards.rows, shards.features) == (ROWS, tuple(chosen))


@pytest.mark.parametrize("column", ["id", "era"])
@pytest.mark.parametrize("row", [0, 2 * GROUP + 31])
@pytest.mark.parametrize("meta_rows", [11, 1 << 16])
def test_a_null_id_or_era_is_named_by_its_row(tmp_path, monkeypatch, column, row, meta_rows):
    monkeypatch.setattr(parquet_reader, "_BATCH_ROWS", meta_rows)
    monkeypatch.setattr(writer_module, "BLOCK_BYTES", FEATURES * GROUP)  # a row group at a time
    table = with_value(numerai_table(rows=ROWS), column, row, None)
    path = save(table, tmp_path / "train.parquet", row_group_size=GROUP)
    error = refusal(path, tmp_path)
    assert (error.path, error.column, error.row) == (path, column, row)
    assert f"column '{column}', row {row}: found null" in str(error)


@pytest.mark.parametrize("column", ["id", "era"])
def test_a_file_without_ids_or_eras_is_refused(tmp_path, column):
    path = save(numerai_table(rows=ROWS).drop_columns([column]), tmp_path / "train.parquet")
    error = refusal(path, tmp_path)
    assert (error.path, error.column, error.row) == (path, column, None)
    assert "missing" in str(error)


@pytest.mark.parametrize("index", ["{", "[]"])
def test_metadata_that_is_not_of_pandas_names_no_index(tmp_path, index):
    table = numerai_table(rows=ROWS, id_is="unnamed index")
    path = save(table.replace_schema_metadata({"pandas": index}), tmp_path / "train.parquet")
    error = refusal(path, tmp_path)
    assert (error.path, error.column) == (path, "id")


def test_a_range_index_is_no_id(tmp_path):
    table = numerai_table(rows=ROWS).drop_columns(["id"]).replace_schema_metadata(None)
    table.to_pandas().to_parquet(tmp_path / "train.parquet")
    assert refusal(tmp_path / "train.parquet", tmp_path).column == "id"


@pytest.mark.parametrize("column", ["feature_003", "target_b"])
@pytest.mark.parametrize("lacks", ["first", "second"])
def test_sources_must_have_the_same_columns(tmp_path, column, lacks):
    whole = write_source(tmp_path / "a.parquet", rows=60)
    part = numerai_table(rows=60, first_row=60).drop_columns([column])
    part = save(part, tmp_path / "b.parquet")
    error = refusal([part, whole] if lacks == "first" else [whole, part], tmp_path)
    assert (error.path, error.column) == (whole if lacks == "first" else part, column)
    assert f"'{column}'" in str(error)
    assert ("features=" if lacks == "first" else "missing") in str(error)


@pytest.mark.parametrize("column", ["feature_003", "target_b"])
def test_a_column_asked_for_must_be_in_every_source(tmp_path, column):
    whole = write_source(tmp_path / "a.parquet", rows=60)
    part = numerai_table(rows=60, first_row=60).drop_columns([column])
    part = save(part, tmp_path / "b.parquet")
    option = "features" if column.startswith("feature") else "targets"
    error = refusal([whole, part], tmp_path, **{option: [column]})
    assert (error.path, error.column) == (part, column)


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("id", pa.array(range(60))),
        ("era", pa.array([True] * 60)),
        ("era", pa.array([True] * 60).dictionary_encode()),
        ("data_type", pa.array(range(60))),
        ("feature_003", pa.array(["1"] * 60)),
        ("feature_003", pa.array([True] * 60)),
        ("feature_003", pa.array([[1]] * 60)),
        ("target_b", pa.array(["1"] * 60)),
    ],
)
@pytest.mark.parametrize("place", ["only", "second"])
def test_a_column_of_another_type_is_refused(tmp_path, column, values, place):
    table = with_column(numerai_table(rows=60), column, values)
    path = save(table, tmp_path / "b.parquet")
    good = write_source(tmp_path / "a.parquet", rows=60)
    error = refusal(path if place == "only" else [good, path], tmp_path)
    assert (error.path, error.column, error.row) == (path, column, None)
    assert f"'{column}': found " in str(error)


@pytest.mark.parametrize("column", ["feature_003", "target", "era", "id"])
def test_a_column_that_comes_twice_is_refused(tmp_path, column):
    table = numerai_table(rows=60)
    table = table.append_column(column, table[column])
    path = save(table, tmp_path / "train.parquet")
    error = refusal(path, tmp_path)
    assert (error.path, error.column) == (path, column)


def test_a_file_that_is_missing_is_refused(tmp_path):
    error = refusal([tmp_path / "nowhere.parquet"], tmp_path)
    assert error.path == tmp_path / "nowhere.parquet"
    assert str(error.path) in str(error)
    error = refusal([write_source(tmp_path / "a.parquet", rows=60), error.path], tmp_path)
    assert error.path == tmp_path / "nowhere.parquet"


@pytest.mark.parametrize("left", [0, 3, 4, 8, 0.5, -1, -8])
def test_a_truncated_file_is_refused(tmp_path, left):
    path = write_source(tmp_path / "train.parquet", rows=ROWS)
    size = path.stat().st_size
    os.truncate(path, int(size * left) if left == 0.5 else left % size)
    error = refusal(path, tmp_path)
    assert (error.path, error.column, error.row) == (path, None, None)
    assert "cannot be read as Parquet" in str(error)
    assert "\n" not in str(error)


def test_a_file_that_is_no_parquet_is_refused(tmp_path):
    path = tmp_path / "train.parquet"
    path.write_text("id,era,feature_1\n" * 100)
    assert refusal(path, tmp_path).path == path
    assert refusal(tmp_path, tmp_path).path == path  # the folder stands for its files


@pytest.mark.parametrize("column", ["era", "id", "target", "feature_005"])
def test_a_damaged_page_is_refused(tmp_path, column):
    path = write_source(tmp_path / "train.parquet", rows=ROWS, row_group_rows=GROUP)
    group = pq.ParquetFile(path).metadata.row_group(3)
    pages = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
    with open(path, "r+b") as file:
        file.seek(pages[column].dictionary_page_offset or pages[column].data_page_offset)
        file.write(b"\xff" * 16)
    error = refusal(path, tmp_path)
    assert error.path == path
    assert "cannot be read" in str(error)


@pytest.mark.parametrize("sources", [1, 2])
def test_sources_without_rows_are_refused(tmp_path, sources):
    table = numerai_table(rows=60)[:0]
    paths = [save(table, tmp_path / f"{number}.parquet") for number in range(sources)]
    error = refusal(paths, tmp_path)
    assert error.path == paths[0]
    assert "no rows" in str(error)


def test_a_source_without_rows_may_stand_beside_others(tmp_path):
    empty = save(numerai_table(rows=60)[:0], tmp_path / "empty.parquet")
    path = write_source(tmp_path / "train.parquet", rows=60)
    for number, sources in enumerate([[empty, path], [path, empty]]):
        with write_shards(sources, tmp_path / f"shards{number}", progress=False) as shards:
            assert sorted(shards.column("id").to_pylist()) == IDS[:60]


def test_a_source_without_features_is_refused(tmp_path):
    table = numerai_table(rows=60)
    path = save(table.select(["era", "target", "id"]), tmp_path / "train.parquet")
    error = refusal(path, tmp_path)
    assert error.path == path
    assert "no feature" in str(error)


@pytest.mark.parametrize(
    ("option", "names", "close", "unknown"),
    [
        ("features", ["feature_001", "feature_0O3"], "feature_003", ["feature_0O3"]),
        ("features", ["feture_002", "abc"], None, ["abc", "feture_002"]),
        ("features", ["target"], None, ["target"]),
        ("features", ["id"], None, ["id"]),
        ("targets", ["target_c"], "target_b", ["target_c"]),
        ("targets", ["feature_001"], None, ["feature_001"]),
    ],
)
def test_an_unknown_name_comes_with_those_like_it(tmp_path, option, names, close, unknown):
    path = write_source(tmp_path / "train.parquet", rows=60)
    error = refusal(path, tmp_path, FeatureError, **{option: names})
    assert isinstance(error, ValueError)
    assert error.names == unknown
    assert repr(unknown[0]) in str(error)
    assert close is None or close in str(error).split("; did you mean ")[1]


def test_an_empty_list_of_features_is_refused(tmp_path):
    path = write_source(tmp_path / "train.parquet", rows=60)
    error = refusal(path, tmp_path, FeatureError, features=[])
    assert (error.names, "found an empty list of features" in str(error)) == ((), True)


@pytest.mark.parametrize("option", ["features", "targets"])
@pytest.mark.parametrize("wrong", [1, None, b"feature_001"])
def test_a_name_that_is_no_text_is_refused(tmp_path, option, wrong):
    path = write_source(tmp_path / "train.parquet", rows=60)
    error = refusal(path, tmp_path, TypeError, **{option: ["feature_001", wrong]})
    assert f"{option}: found {wrong!r} in the list, expected names of columns" in str(error)


@pytest.mark.parametrize("option", ["features", "targets"])
def test_a_name_given_twice_is_refused(tmp_path, option):
    path = write_source(tmp_path / "train.parquet", rows=60)
    name = {"features": "feature_002", "targets": "target_b"}[option]
    error = refusal(path, tmp_path, FeatureError, **{option: [name, name]})
    assert error.names == [name]


def test_one_string_is_no_list_of_targets(tmp_path):
    path = write_source(tmp_path / "train.parquet", rows=60)
    error = refusal(path, tmp_path, TypeError, targets="target_b")
    assert "targets: found 'target_b', expected a list" in str(error)


@pytest.mark.parametrize("name", ["features", "target", "era", "data_type", "id", "feature_001"])
@pytest.mark.parametrize("id_is", ["index", "column", "unnamed"])
def test_features_and_what_rows_are_known_by_are_no_targets(tmp_path, name, id_is):
    path = write_source(tmp_path / "train.parquet", rows=60, targets=(), id_is=id_is)
    name = "__index_level_0__" if (name, id_is) == ("id", "unnamed") else name
    error = refusal(path, tmp_path, FeatureError, targets=[name])
    assert error.names == [name]


@pytest.mark.parametrize("values", [pa.array(["heavy"] * 60), pa.array([True] * 60)])
def test_a_column_that_holds_no_numbers_is_no_target(tmp_path, values):
    table = numerai_table(rows=60).append_column("weight", values)
    path = save(table, tmp_path / "train.parquet")
    error = refusal(path, tmp_path, targets=["weight"])
    assert (error.path, error.column) == (path, "weight")
    assert f"found {values.type}, expected numbers" in str(error)


@pytest.mark.parametrize(
    ("option", "value", "kind"),
    [
        ("num_shards", 0, ValueError),
        ("num_shards", -16, ValueError),
        ("num_shards", 2.0, TypeError),
        ("num_shards", "16", TypeError),
        ("num_shards", None, TypeError),
        ("num_shards", True, TypeError),
        ("mix_eras", 0, ValueError),
        ("mix_eras", -1, ValueError),
        ("mix_eras", 1.0, TypeError),
        ("mix_eras", "9", TypeError),
        ("mix_eras", True, TypeError),
        ("encoding", "zip", ValueError),
        ("encoding", None, ValueError),
        ("encoding", "INT8", ValueError),
        ("seed", -1, ValueError),
        ("seed", 1.5, (TypeError, ValueError)),
        ("seed", "7", (TypeError, ValueError)),
        ("seed", None, (TypeError, ValueError)),
        ("seed", True, (TypeError, ValueError)),
    ],
)
def test_an_option_of_no_use_is_named(tmp_path, option, value, kind):
    path = write_source(tmp_path / "train.parquet", rows=60)
    error = refusal(path, tmp_path, kind, **{option: value})
    assert not isinstance(error, NumeraiSequenceError)
    assert f"{option}: found {value!r}, expected" in str(error)


def test_no_source_at_all_is_refused(tmp_path):
    assert "sources" in str(refusal([], tmp_path, ValueError))


def test_an_error_leaves_no_folder_that_was_not_there(tmp_path):
    path = save(numerai_table(rows=60)[:0], tmp_path / "train.parquet")
    with pytest.raises(SourceError):
        write_shards(path, tmp_path / "a" / "b" / "c", progress=False)
    assert os.listdir(tmp_path) == ["train.parquet"]


def test_feature_columns_of_the_tests_are_what_numerai_wrote():
    digits = np.array([0, 1, 2, 3, 4], np.int8)
    assert feature_column(digits, "float32").to_pylist() == [0, 0.25, 0.5, 0.75, 1]
    assert feature_column(digits, "Int8").type == pa.int8()
