"""Writer: every row of the sources is in the set once, whole, and where the format says.

The sets are read back by Arrow alone, and decoded here, not by the package.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numerai_tables import numerai_table, row_digits, write_source

import numerai_sequence
from numerai_sequence import write_shards
from numerai_sequence.writing import parquet_reader, shuffle_windows, writer

ROWS, FEATURES, ERAS = 1037, 14, 23
REAL_V3 = Path(__file__).parents[3] / "shared" / "data" / "v3_mini.parquet"

each_encoding = pytest.mark.parametrize("encoding", ["packed", "int8"])


def write(sources, out, **options):
    """Write a set; return its folder."""
    write_shards(sources, out, progress=False, **options).close()
    return out


def save(table, path, **options):
    pq.write_table(table, path, **options)
    return path


def manifest_of(folder):
    return json.loads((folder / "manifest.json").read_text())


def checksums(folder):
    """SHA-256 of every shard file."""
    files = sorted(folder.glob("*.arrow"))
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def decode(encoded, features, encoding):
    """The digits of encoded rows, by the formula of the format."""
    if encoding == "int8":
        return encoded
    digits = [encoded % 5, encoded // 5 % 5, encoded // 25]
    return np.concatenate(digits, axis=1)[:, :features]


def read_back(folder):
    """Every row in the order of the files: a dict of arrays, with its shard and record batch."""
    found = {name: [] for name in ("id", "era", "data_type", "digits", "targets", "shard", "batch")}
    manifest = manifest_of(folder)
    targets = manifest["targets"]
    for shard, file in enumerate(sorted(folder.glob("*.arrow"))):
        reader = pa.ipc.open_file(file)
        encoding = reader.schema.metadata[b"numerai_sequence.encoding"].decode()
        names = json.loads(reader.schema.metadata[b"numerai_sequence.features"])
        assert (encoding, names) == (manifest["encoding"], manifest["features"])
        assert reader.schema.names == ["id", "era", "data_type", *targets, "features"]
        assert all(reader.schema.field(name).type == pa.float32() for name in targets)
        kind = reader.schema.field("features").type
        width = -(-len(names) // 3) if encoding == "packed" else len(names)
        value = pa.uint8() if encoding == "packed" else pa.int8()
        assert kind.extension_name == "arrow.fixed_shape_tensor"
        assert (kind.shape, kind.value_type) == ([width], value)
        for number in range(reader.num_record_batches):
            batch = reader.get_batch(number)
            batch.validate(full=True)
            for name in ("id", "era", "data_type"):
                found[name] += batch.column(name).to_pylist()
            encoded = batch.column("features").to_numpy_ndarray()
            found["digits"].append(decode(encoded, len(names), encoding))
            values = [batch.column(name).to_numpy() for name in targets]
            found["targets"].append(np.stack(values, 1) if values else np.empty((len(batch), 0)))
            found["shard"] += [shard] * len(batch)
            found["batch"] += [number] * len(batch)
    for name in ("digits", "targets"):
        found[name] = np.concatenate(found[name])
    for name in ("id", "era", "data_type", "shard", "batch"):
        found[name] = np.array(found[name], object)
    return found


def expected_rows(tables, features, targets):
    """What the tables say, row by row, in their order."""

    def column(table, name):
        if name not in table.column_names:
            return np.full(len(table), None)
        return np.array(table[name].to_pylist(), object)

    def digits(table, name):
        values = table[name].to_numpy()
        return values * 4 if values.dtype.kind == "f" else values

    def target(table, name):
        return table[name].cast(pa.float32(), safe=False).to_numpy(zero_copy_only=False)

    ids = ["id" if "id" in table.column_names else "__index_level_0__" for table in tables]
    return {
        "id": np.concatenate([column(t, name) for t, name in zip(tables, ids, strict=True)]),
        "era": np.concatenate([column(table, "era") for table in tables]),
        "data_type": np.concatenate([column(table, "data_type") for table in tables]),
        "digits": np.concatenate([np.stack([digits(t, n) for n in features], 1) for t in tables]),
        "targets": np.concatenate(
            [
                np.stack([target(t, n) for n in targets], 1) if targets else np.empty((len(t), 0))
                for t in tables
            ]
        ),
    }


def assert_holds(folder, tables, *, num_shards=16):
    """Each row of the tables is in the set once, with all that it had, in its era's shard."""
    manifest = manifest_of(folder)
    found = read_back(folder)
    expected = expected_rows(tables, manifest["features"], manifest["targets"])
    by_id, wanted = np.argsort(found["id"]), np.argsort(expected["id"])
    assert len(set(expected["id"])) == len(wanted)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name][by_id], values[wanted], err_msg=name)
    numbers = [int("0" + re.sub("[^0-9]", "", era)) for era in found["era"]]
    np.testing.assert_array_equal(found["shard"], np.array(numbers) % num_shards)
    files = [shard["file"] for shard in manifest["shards"]]
    assert len(files) == num_shards
    assert sorted(os.listdir(folder)) == sorted(["manifest.json", *files])
    return found


def shuffled(table, seed=0):
    """The same columns in another order."""
    order = np.random.default_rng(seed).permutation(table.num_columns)
    return table.select([table.column_names[place] for place in order])


def cast(table, kind, names=("id", "era", "data_type")):
    for name in names:
        place = table.schema.get_field_index(name)
        table = table.set_column(place, name, table[name].cast(kind))
    return table


def renamed_features(table, name):
    names = [name.format(n[8:]) if n.startswith("feature_") else n for n in table.column_names]
    return table.rename_columns(names)


def with_missing_targets(table):
    """A target that is all null, one that holds null and NaN, and one that is float64."""
    table = table.drop_columns(["target", "target_b"])
    values = [None if row % 7 == 0 else np.nan if row % 5 == 0 else row / 9 for row in range(ROWS)]
    table = table.append_column("target_a", pa.array([None] * ROWS, pa.float32()))
    table = table.append_column("target_b", pa.array(values, pa.float32()))
    return table.append_column("target_c", pa.array(values, pa.float64()))


def live_and_others():
    names = np.array(["X", "0003", "Y", "0016", "0001"])[np.arange(ROWS) % 5]
    return numerai_table(eras=names, era_names="{}")


CASES = {
    "v5": numerai_table,
    "v4.1": lambda: numerai_table(values="Int8"),
    "v3": lambda: numerai_table(values="float32"),
    "float64": lambda: numerai_table(values="float64"),
    "legacy-eras": lambda: numerai_table(era_names="era{}"),
    "live": lambda: numerai_table(era_names="X", data_type="live"),
    "eras-of-no-number": live_and_others,
    "id-first": lambda: numerai_table(id_is="column"),
    "unnamed-index": lambda: shuffled(numerai_table(id_is="unnamed index")),
    "dictionaries": lambda: cast(numerai_table(), pa.dictionary(pa.int32(), pa.string())),
    "large-strings": lambda: cast(numerai_table(), pa.large_string()),
    "shuffled-columns": lambda: shuffled(numerai_table()),
    "one-row": lambda: numerai_table(rows=1, eras=1),
    "one-era": lambda: numerai_table(eras=1),
    "interleaved-eras": lambda: numerai_table(eras=np.arange(ROWS) % ERAS + 1),
    "eras-backwards": lambda: numerai_table(eras=ERAS - np.arange(ROWS) // 47),
    "eras-come-again": lambda: numerai_table(eras=np.arange(ROWS) // 100 % 3),
    "random-eras": lambda: numerai_table(eras=np.random.default_rng(1).integers(0, 50, ROWS)),
    "no-data-type": lambda: numerai_table().drop_columns(["data_type"]),
    "no-target": lambda: numerai_table(targets=()),
    "missing-targets": lambda: with_missing_targets(numerai_table()),
    "not-ascii": lambda: renamed_features(numerai_table(), "feature_é日本{}"),
    "dots": lambda: renamed_features(numerai_table(), "feature.{}.x"),
    "3555-features": lambda: numerai_table(rows=31, eras=3, features=3555),
}


@each_encoding
@pytest.mark.parametrize("case", CASES)
def test_each_row_is_there_once_as_it_was(tmp_path, case, encoding):
    table = CASES[case]()
    path = save(table, tmp_path / "train.parquet")
    folder = write(path, tmp_path / "shards", encoding=encoding)
    assert_holds(folder, [table])
    names = [name for name in table.column_names if name.startswith("feature")]
    assert manifest_of(folder)["features"] == names


@each_encoding
@pytest.mark.parametrize("features", [1, 2, 3, 4, 5, 9, 10])
@pytest.mark.parametrize("block_bytes", [1, 1 << 20])
def test_any_number_of_features_fits(tmp_path, monkeypatch, features, encoding, block_bytes):
    monkeypatch.setattr(writer, "BLOCK_BYTES", block_bytes)
    table = numerai_table(rows=101, features=max(10, features))
    extra = [name for name in table.column_names if name.startswith("feature")][features:]
    table = table.drop_columns(extra)
    folder = write(save(table, tmp_path / "t"), tmp_path / "shards", encoding=encoding)
    found = assert_holds(folder, [table])
    assert found["digits"].shape == (101, features)


@pytest.mark.parametrize("num_shards", [1, 2, 3, 7, 15, 16, 17, 24, 40])
def test_eras_divide_among_any_number_of_shards(tmp_path, num_shards):
    path = write_source(tmp_path / "train.parquet")
    folder = write(path, tmp_path / "shards", num_shards=num_shards)
    assert_holds(folder, [numerai_table()], num_shards=num_shards)
    sizes = [pa.ipc.open_file(file).num_record_batches for file in sorted(folder.glob("*.arrow"))]
    numbers = {era % num_shards for era in range(1, ERAS + 1)}
    assert [size > 0 for size in sizes] == [shard in numbers for shard in range(num_shards)]


@pytest.mark.slow
@pytest.mark.parametrize("row_group_rows", [1, 37, None])
@pytest.mark.parametrize("block_bytes", [1, 14 * 100, 1 << 20])
@pytest.mark.parametrize("meta_rows", [11, 1 << 16])
@pytest.mark.parametrize("eras", [ERAS, np.arange(300) % ERAS], ids=["sorted", "interleaved"])
def test_row_groups_and_blocks_leave_no_trace(
    tmp_path, monkeypatch, row_group_rows, block_bytes, meta_rows, eras
):
    options = {"rows": 300, "eras": eras}
    whole = write(write_source(tmp_path / "a.parquet", **options), tmp_path / "a", num_shards=3)
    monkeypatch.setattr(writer, "BLOCK_BYTES", block_bytes)
    monkeypatch.setattr(parquet_reader, "_BATCH_ROWS", meta_rows)
    path = write_source(tmp_path / "b.parquet", row_group_rows=row_group_rows, **options)
    folder = write(path, tmp_path / "b", num_shards=3)
    assert checksums(folder) == checksums(whole)
    assert_holds(folder, [numerai_table(**options)], num_shards=3)


@each_encoding
@pytest.mark.parametrize("block_bytes", [1, 2000, 20_000, 200_000])
def test_blocks_of_wide_rows_leave_no_trace(tmp_path, monkeypatch, encoding, block_bytes):
    path = write_source(tmp_path / "train.parquet", rows=101, features=700, row_group_rows=60)
    options = {"num_shards": 2, "encoding": encoding}
    whole = write(path, tmp_path / "a", **options)
    monkeypatch.setattr(writer, "BLOCK_BYTES", block_bytes)
    assert checksums(write(path, tmp_path / "b", **options)) == checksums(whole)


@pytest.mark.parametrize("other", ["Int8", "float32", "float64", "int64"])
def test_the_same_values_of_another_type_make_the_same_shards(tmp_path, other):
    first = write_source(tmp_path / "a.parquet")
    second = write_source(tmp_path / "b.parquet", values=other, id_is="column")
    assert checksums(write(first, tmp_path / "a")) == checksums(write(second, tmp_path / "b"))


@each_encoding
@pytest.mark.parametrize("block_bytes", [14 * 100, 1 << 20])
@pytest.mark.parametrize("first_era", [24, 20], ids=["later", "overlapping"])
def test_several_sources_become_one_set(tmp_path, monkeypatch, encoding, block_bytes, first_era):
    monkeypatch.setattr(writer, "BLOCK_BYTES", block_bytes)
    train = numerai_table(rows=500, eras=ERAS)
    validation = numerai_table(
        rows=337,
        first_row=500,
        eras=first_era + np.arange(337) // 20,
        values="float32",
        data_type="validation",
        id_is="unnamed index",
    )
    live = numerai_table(rows=11, first_row=2000, era_names="X", data_type="live", values="Int8")
    tables = [train, shuffled(validation), shuffled(live, 1).drop_columns(["data_type"])]
    paths = [
        save(table, tmp_path / f"{name}.parquet", row_group_size=150)
        for name, table in zip(("train", "validation", "live"), tables, strict=True)
    ]
    folder = write(paths, tmp_path / "shards", encoding=encoding, num_shards=4)
    found = assert_holds(folder, tables, num_shards=4)
    assert set(found["data_type"]) == {"train", "validation", None}
    manifest = manifest_of(folder)
    assert manifest["features"] == [f"feature_{number:03d}" for number in range(FEATURES)]
    assert [described["rows"] for described in manifest["sources"]] == [500, 337, 11]


def test_only_the_columns_asked_for_are_written_in_their_order(tmp_path):
    table = numerai_table(targets=("target", "target_b", "target_c"))
    more = numerai_table(rows=20, first_row=ROWS, features=20, targets=("target_b",))
    paths = [save(table, tmp_path / "a.parquet"), save(more, tmp_path / "b.parquet")]
    features, targets = ["feature_009", "feature_000", "feature_004", "feature_010"], ["target_b"]
    folder = write(paths, tmp_path / "shards", features=features, targets=targets)
    manifest = manifest_of(folder)
    assert (manifest["features"], manifest["targets"]) == (features, targets)
    found = assert_holds(folder, [table, more])
    wanted = row_digits(np.arange(ROWS + 20), FEATURES)[:, [9, 0, 4, 10]]
    np.testing.assert_array_equal(found["digits"][np.argsort(found["id"])], wanted)


def test_no_targets_may_be_asked_for(tmp_path):
    path = write_source(tmp_path / "train.parquet")
    folder = write(path, tmp_path / "shards", targets=[])
    assert manifest_of(folder)["targets"] == []
    assert_holds(folder, [numerai_table()])


@pytest.mark.parametrize("kind", [pa.float64(), pa.int16(), pa.float32()], ids=str)
def test_any_column_of_numbers_is_a_target_when_it_is_named(tmp_path, kind):
    weights = pa.array(np.arange(ROWS) % 50, pa.int64()).cast(kind)
    table = numerai_table().append_column("weight", weights)
    path = save(table, tmp_path / "train.parquet")
    assert manifest_of(write(path, tmp_path / "all"))["targets"] == ["target", "target_b"]
    folder = write(path, tmp_path / "shards", targets=["weight", "target"])
    assert manifest_of(folder)["targets"] == ["weight", "target"]
    found = assert_holds(folder, [table])
    in_order = np.argsort(found["id"])
    np.testing.assert_array_equal(found["targets"][in_order, 0], np.arange(ROWS) % 50)


@each_encoding
def test_the_manifest_counts_the_rows_without_a_target(tmp_path, encoding):
    nulls = numerai_table(missing_target=True, targets=("target", "target_b", "target_c"))
    place = nulls.schema.get_field_index("target_b")
    values = np.where(np.arange(ROWS) < 300, np.nan, 0.5).astype(np.float32)
    table = nulls.set_column(place, "target_b", pa.array(values, mask=np.arange(ROWS) == 500))
    place = table.schema.get_field_index("target_c")
    table = table.set_column(place, "target_c", pa.array(np.zeros(ROWS, np.float32)))
    path = save(table, tmp_path / "train.parquet", row_group_size=100)
    targets = ["target_b", "target_c", "target"]
    options = {"num_shards": 3, "mix_eras": 2, "encoding": encoding, "targets": targets}
    folder = write(path, tmp_path / "s", **options)
    found, seen = read_back(folder), set()
    for number, shard in enumerate(manifest_of(folder)["shards"]):
        for place, batch in enumerate(shard["batches"]):
            rows = (found["shard"] == number) & (found["batch"] == place)
            counts = np.isnan(found["targets"][rows].astype(float)).sum(axis=0).tolist()
            expected = zip(targets, counts, strict=True)
            assert batch["missing"] == {target: count for target, count in expected if count}
            seen |= set(batch["missing"])
    assert seen == {"target", "target_b"}
    with numerai_sequence.open_shards(folder) as shards:
        assert shards.missing == {"target": len(range(3, ROWS, 7)), "target_b": 301}
        assert list(shards.missing) == ["target_b", "target"]
        parts = [part.missing.get("target_b", 0) for part in shards]
        assert sum(parts) == 301
        assert 0 < parts[1] < 301


def test_targets_that_every_row_has_are_not_counted(tmp_path):
    folder = write(write_source(tmp_path / "train.parquet"), tmp_path / "shards")
    batches = [batch for shard in manifest_of(folder)["shards"] for batch in shard["batches"]]
    assert [batch["missing"] for batch in batches] == [{}] * len(batches)
    with numerai_sequence.open_shards(folder) as shards:
        assert shards.missing == {}


@each_encoding
@pytest.mark.skipif(not REAL_V3.exists(), reason="ten real rows that are not given out")
@pytest.mark.parametrize("block_bytes", [1000, 96 << 20])
def test_real_rows_are_there_as_they_were(tmp_path, monkeypatch, encoding, block_bytes):
    monkeypatch.setattr(writer, "BLOCK_BYTES", block_bytes)
    folder = write(REAL_V3, tmp_path / "shards", encoding=encoding)
    found = assert_holds(folder, [pq.read_table(REAL_V3)])
    assert found["digits"].shape[0] == 10
    assert found["digits"].shape[1] > 1000
    assert set(np.unique(found["digits"])) == {0, 1, 2, 3, 4}
    assert "0297" in found["era"]


def test_the_manifest_describes_sources_shards_and_batches(tmp_path):
    path = write_source(tmp_path / "train.parquet")
    folder = write(path, tmp_path / "shards", num_shards=3, mix_eras=4, seed=7)
    manifest, found = manifest_of(folder), read_back(folder)
    assert (manifest["format"], manifest["version"]) == ("numerai_sequence", 1)
    assert manifest["options"] == {
        "num_shards": 3,
        "encoding": "packed",
        "mix_eras": 4,
        "features": None,
        "targets": None,
        "seed": 7,
    }
    [described] = manifest["sources"]
    assert described["path"] == str(path)
    assert described["bytes"] == path.stat().st_size
    assert described["mtime_ns"] == path.stat().st_mtime_ns
    assert described["checksum"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert {s["file"]: s["checksum"] for s in manifest["shards"]} == checksums(folder)
    for number, shard in enumerate(manifest["shards"]):
        assert shard["bytes"] == (folder / shard["file"]).stat().st_size
        assert shard["rows"] == np.count_nonzero(found["shard"] == number)
        for place, batch in enumerate(shard["batches"]):
            is_in_batch = (found["shard"] == number) & (found["batch"] == place)
            eras, counts = np.unique(found["era"][is_in_batch].astype(str), return_counts=True)
            assert batch["eras"] == dict(zip(eras.tolist(), counts.tolist(), strict=True))
            assert list(batch["eras"]) == sorted(batch["eras"])
            assert batch["rows"] == counts.sum()
            assert batch["data_types"] == {"train": batch["rows"]}


def batch_eras(folder):
    """The eras of each record batch, by shard, as numbers."""
    shards = manifest_of(folder)["shards"]
    return [[[int(era) for era in b["eras"]] for b in shard["batches"]] for shard in shards]


@pytest.mark.parametrize("mix_eras", [1, 2, 3, 5, 8, 100])
@pytest.mark.parametrize("eras", [40, 13, 2])
def test_a_batch_holds_at_most_mix_eras_neighbouring_eras(tmp_path, mix_eras, eras):
    path = write_source(tmp_path / "train.parquet", eras=eras)
    folder = write(path, tmp_path / "shards", num_shards=3, mix_eras=mix_eras)
    assert_holds(folder, [numerai_table(eras=eras)], num_shards=3)
    for shard, batches in enumerate(batch_eras(folder)):
        expected = [era for era in range(1, eras + 1) if era % 3 == shard]
        assert [era for batch in batches for era in batch] == expected
        assert len(batches) == -(-len(expected) // mix_eras)
        sizes = [len(batch) for batch in batches]
        assert not sizes or (max(sizes) <= mix_eras and max(sizes) - min(sizes) <= 1)


@each_encoding
def test_windows_hold_as_many_eras_as_fit(tmp_path, monkeypatch, encoding):
    row_bytes = 5 if encoding == "packed" else 14
    monkeypatch.setattr(shuffle_windows, "_WINDOW_BYTES", 120 * row_bytes)
    path = write_source(tmp_path / "train.parquet", row_group_rows=100)
    folder = write(path, tmp_path / "shards", num_shards=2, encoding=encoding)
    assert_holds(folder, [numerai_table()], num_shards=2)
    for shard, batches in zip(manifest_of(folder)["shards"], batch_eras(folder), strict=True):
        assert len(batches) > 3
        assert max(len(batch) for batch in batches) > 1
        assert all(b["rows"] <= 120 or len(b["eras"]) == 1 for b in shard["batches"])
    monkeypatch.setattr(shuffle_windows, "_WINDOW_BYTES", 1)
    folder = write(path, tmp_path / "single", num_shards=2, encoding=encoding)
    assert_holds(folder, [numerai_table()], num_shards=2)
    assert [len(batch) for shard in batch_eras(folder) for batch in shard] == [1] * ERAS


def test_a_small_set_is_one_window_a_shard(tmp_path):
    folder = write(write_source(tmp_path / "train.parquet"), tmp_path / "shards", num_shards=5)
    assert [len(shard["batches"]) for shard in manifest_of(folder)["shards"]] == [1] * 5


def test_rows_of_a_window_are_mixed_thoroughly(tmp_path):
    eras = 1 + np.arange(900) // 100
    path = write_source(tmp_path / "train.parquet", rows=900, eras=eras)
    found = read_back(write(path, tmp_path / "shards", num_shards=1, mix_eras=3))
    numbers = np.array([int(name[1:], 16) for name in found["id"]])
    for batch in range(3):
        rows = numbers[found["batch"] == batch]
        assert sorted(rows) == list(range(batch * 300, batch * 300 + 300))
        # In a random order, neighbours are of different eras in 2 of 3 cases, and a row is as
        # likely before as after the row that it followed in the source.
        changes = np.count_nonzero(np.diff(rows // 100))
        assert 160 < changes < 240
        assert 110 < np.count_nonzero(np.diff(rows) > 0) < 190
        assert abs(np.corrcoef(rows, np.arange(300))[0, 1]) < 0.25


def test_rows_of_an_era_are_mixed_even_where_eras_stay_whole(tmp_path):
    path = write_source(tmp_path / "train.parquet", eras=4)
    found = read_back(write(path, tmp_path / "shards", num_shards=2, mix_eras=1))
    eras, starts = np.unique(found["era"].astype(str), return_index=True)
    assert len(eras) == 4
    assert np.count_nonzero(found["era"][1:] != found["era"][:-1]) == 3
    for start in starts:
        ids = found["id"][found["era"] == found["era"][start]]
        assert 0.3 < np.mean(ids[1:] > ids[:-1]) < 0.7


def test_windows_of_equal_size_are_mixed_differently(tmp_path):
    path = write_source(tmp_path / "train.parquet", rows=400, eras=1 + np.arange(400) // 100)
    found = read_back(write(path, tmp_path / "shards", num_shards=2, mix_eras=1))
    numbers = np.array([int(name[1:], 16) % 100 for name in found["id"]]).reshape(4, 100)
    assert len({tuple(order) for order in numbers.tolist()}) == 4


def test_the_seed_and_nothing_else_decides_the_order(tmp_path):
    path = write_source(tmp_path / "train.parquet")
    folders = [
        write(path, tmp_path / f"shards{run}", num_shards=4, seed=seed)
        for run, seed in enumerate([0, 0, 1, 2**40])
    ]
    first, again, *others = [checksums(folder) for folder in folders]
    assert again == first
    rows = [read_back(folder) for folder in folders]
    for folder, found, sums in zip(folders[2:], rows[2:], others, strict=True):
        assert_holds(folder, [numerai_table()], num_shards=4)
        assert set(sums.values()).isdisjoint(first.values())
        assert not np.array_equal(found["id"], rows[0]["id"])
        assert batch_eras(folder) == batch_eras(folders[0])


def test_progress_is_a_bar_of_rows_with_their_rate(tmp_path, capsys):
    path = write_source(tmp_path / "train.parquet")
    write_shards(path, tmp_path / "shards").close()
    out, shown = capsys.readouterr()
    assert out == ""
    for stage in ("eras of train.parquet", "reading train.parquet", "writing shards"):
        [*_, last] = [line for line in re.split("[\r\n]+", shown) if line.startswith(stage)]
        assert "100%" in last
        assert "1.04k/1.04k" in last
        assert re.search(r"[0-9.]+[kM]?row/s", last)


def test_progress_counts_each_row_once(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(writer, "BLOCK_BYTES", 14 * 20)
    path = write_source(tmp_path / "train.parquet", row_group_rows=300)
    write_shards(path, tmp_path / "shards", num_shards=3).close()
    lines = re.split("[\r\n]+", capsys.readouterr().err)
    for stage in ("eras of train.parquet", "reading train.parquet", "writing shards"):
        assert "1.04k/1.04k" in [line for line in lines if line.startswith(stage)][-1]


def test_without_progress_nothing_is_printed(tmp_path, capfd):
    path = write_source(tmp_path / "train.parquet")
    write_shards(path, tmp_path / "shards", progress=False).close()
    assert capfd.readouterr() == ("", "")


def run_python(code, *arguments, **environment):
    """Run code in a process of its own, with the package that is tested here."""
    package = str(Path(numerai_sequence.__file__).parents[1])
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": package, **environment},
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def test_writing_loads_no_keras(tmp_path):
    code = """
import sys
from numerai_sequence import write_shards
write_shards(sys.argv[1], sys.argv[2], progress=False)
print([name for name in ("keras", "tensorflow", "tf_keras", "jax") if name in sys.modules])
"""
    path = write_source(tmp_path / "train.parquet")
    assert run_python(code, path, tmp_path / "shards") == "[]\n"


MEMORY = """
import sys
from pathlib import Path
from numerai_sequence import write_shards
from numerai_sequence.writing import shuffle_windows
from numerai_sequence.writing import writer

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))

small, large, out, encoding = sys.argv[1:]
write_shards(small, out + "0", encoding=encoding, progress=False)  # all modules are loaded
before = peak()
writer.BLOCK_BYTES = shuffle_windows._WINDOW_BYTES = 2 << 20
assert write_shards(large, out, encoding=encoding, progress=False).rows == 60_000
print(peak() - before)
"""


@pytest.fixture(scope="module")
def one_large_row_group(tmp_path_factory):
    rows, features = 60_000, 1500
    values = np.random.default_rng(0).integers(0, 5, rows + features, dtype=np.int8)
    columns = {f"feature_{n:04d}": values[n : n + rows] for n in range(features)}
    eras = [f"{1 + row // 500:04d}" for row in range(rows)]
    table = pa.table({"id": [f"n{row}" for row in range(rows)], "era": eras, **columns})
    folder = tmp_path_factory.mktemp("large")
    save(table[:300], folder / "small.parquet")
    save(table, folder / "large.parquet", row_group_size=rows)
    return folder


@pytest.mark.slow
@each_encoding
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads VmHWM from /proc")
def test_one_row_group_of_any_size_is_written_in_little_memory(
    one_large_row_group, tmp_path, encoding
):
    small, large = (one_large_row_group / f"{name}.parquet" for name in ("small", "large"))
    assert pq.ParquetFile(large).num_row_groups == 1
    # Arrow's own pools keep what was freed, and more of it the more threads there are.
    quiet = {"ARROW_DEFAULT_MEMORY_POOL": "system", "OMP_NUM_THREADS": "2", "MALLOC_ARENA_MAX": "2"}
    grown = int(run_python(MEMORY, small, large, tmp_path / "shards", encoding, **quiet))
    decoded = 60_000 * 1500
    assert grown < decoded / 3
