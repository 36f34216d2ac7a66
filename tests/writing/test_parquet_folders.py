"""Folders: a folder or pattern stands for its Parquet files; addresses and other files do not."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numerai_tables import numerai_table, write_features_json, write_source

from numerai_sequence import (
    ManifestError,
    NumeraiSequenceError,
    OutputError,
    SourceError,
    append_shards,
    open_shards,
    write_shards,
)
from numerai_sequence.writing.parquet_folders import find_files
from numerai_sequence.writing.source_columns import open_sources

ROWS = 60
ERAS = ["0001", "0002", "0003", "0004", "0005", "0006"]


def parts(folder, *names, rows=20):
    """A table in files of these names, in this order."""
    folder.mkdir(parents=True)
    table = numerai_table(rows * len(names), eras=6)
    for place, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table.slice(place * rows, rows), folder / name)
    return folder


def written(sources, folder, **options):
    """The sources of the set that is written, by name, and its rows by era and data type."""
    with write_shards(sources, folder, num_shards=2, progress=False, **options) as shards:
        names = [Path(file.path).name for file in shards.manifest.sources]
        return names, shards.era_rows, shards.data_types


def era_rows():
    numbers = numerai_table(ROWS, eras=6)["era"].to_pylist()
    return {era: numbers.count(era) for era in ERAS}


def test_a_folder_stands_for_its_files_where_part_2_comes_before_part_10(tmp_path):
    folder = parts(tmp_path / "data", "part-2.parquet", "part-10.parquet", "part-1.pq")
    (folder / "_SUCCESS").touch()
    (folder / "_metadata").write_bytes(b"PAR1")
    (folder / ".part-1.parquet.crc").touch()
    (folder / ".hidden.parquet").write_bytes(b"PAR1")
    (folder / "notes.txt").write_text("notes")
    for place, given in enumerate([folder, f"{folder}/", [folder], f"{folder}/part-*"]):
        names, rows, _ = written(given, tmp_path / f"set{place}")
        assert names == ["part-1.pq", "part-2.parquet", "part-10.parquet"]
        assert rows == era_rows()
    assert not append_shards(tmp_path / "set0", folder, progress=False).is_needed
    write_shards(folder, tmp_path / "set0", num_shards=2, progress=False).close()  # as it is


def test_folders_in_a_folder_are_read_too(tmp_path):
    folder = parts(
        tmp_path / "data", "b/0.parquet", "a/1.parquet", "a/_temporary/2.parquet", rows=10
    )
    assert [file.relative_to(folder).as_posix() for file in find_files([folder])] == [
        "a/1.parquet",
        "b/0.parquet",
    ]


def test_files_without_a_suffix_are_known_by_their_first_bytes(tmp_path):
    folder = parts(tmp_path / "data", "000000_0", "000001_0")
    (folder / "other").write_text("other")
    assert [file.name for file in find_files([folder])] == ["000000_0", "000001_0"]


@pytest.mark.parametrize("kind", ["text", "int"])
def test_eras_and_data_types_may_be_in_the_names_of_folders(tmp_path, kind):
    table = numerai_table(ROWS, eras=6, id_is="column", data_type="a b/c")
    if kind == "int":
        numbers = pa.array([int(era) for era in table["era"].to_pylist()])
        table = table.set_column(table.schema.get_field_index("era"), "era", numbers)
    pq.write_to_dataset(table, str(tmp_path / "data"), partition_cols=["data_type", "era"])
    names, rows, data_types = written(tmp_path / "data", tmp_path / "set")
    assert len(names) == 6
    assert (rows, data_types) == (era_rows(), ["a b/c"])
    pq.write_table(numerai_table(ROWS, eras=6, data_type="a b/c"), tmp_path / "whole.parquet")
    assert not append_shards(tmp_path / "set", tmp_path / "whole.parquet", progress=False).is_needed


def test_live_data_may_be_partitioned(tmp_path):
    table = numerai_table(20, eras=np.zeros(20), era_names="X", id_is="column").drop_columns("era")
    for era in ("X", "575.0", "__HIVE_DEFAULT_PARTITION__"):
        folder = tmp_path / era / f"era={era}"
        folder.mkdir(parents=True)
        pq.write_table(table, folder / "0.parquet")
    assert written(tmp_path / "X", tmp_path / "a")[1] == {"X": 20}
    assert written(tmp_path / "575.0" / "era=575.0" / "0.parquet", tmp_path / "b")[1] == {
        "0575": 20
    }
    with pytest.raises(SourceError, match=r"'era': its folder has no era; expected .*era=0001"):
        written(tmp_path / "__HIVE_DEFAULT_PARTITION__", tmp_path / "c")


def test_a_column_goes_before_the_name_of_a_folder(tmp_path):
    folder = parts(tmp_path / "era=0099", "0.parquet", "1.parquet", "2.parquet")
    assert written(folder, tmp_path / "set")[1] == era_rows()


@pytest.mark.parametrize("beside", ["data/features.json", "features.json"])
def test_feature_sets_are_found_in_the_folder_or_beside_it(tmp_path, beside):
    table = numerai_table(ROWS, eras=6, id_is="column")
    pq.write_to_dataset(table, str(tmp_path / "data"), partition_cols=["era"])
    write_features_json(tmp_path / beside, small=["feature_003"])
    with write_shards(tmp_path / "data", tmp_path / "set", features="small", progress=False) as s:
        assert s.features == ("feature_003",)


def test_a_folder_without_parquet_files_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        SourceError, match="empty: found a folder without Parquet files, expected"
    ) as e:
        written(tmp_path / "empty", tmp_path / "set")
    assert e.value.path == tmp_path / "empty"
    with pytest.raises(SourceError, match=r"data/\*\.parquet: no file matches; expected Parquet"):
        written("data/*.parquet", tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_a_shard_set_is_no_source(tmp_path):
    source = write_source(tmp_path / "a.parquet", rows=ROWS)
    written(source, tmp_path / "set")
    for call in (written, lambda given, folder: append_shards(folder, given, progress=False)):
        with pytest.raises(
            SourceError, match="set: found a shard set, expected Parquet files; open it"
        ):
            call(tmp_path / "set", tmp_path / "set")


def test_parquet_files_and_others_are_no_shard_set(tmp_path):
    flat = parts(tmp_path / "flat", "0.parquet")
    deep = parts(tmp_path / "deep", "data_type=train/era=0001/0.parquet")
    for folder in (flat, deep):
        with pytest.raises(
            ManifestError, match=r"a folder of Parquet files, .*write_shards\("
        ) as e:
            open_shards(folder)
        assert isinstance(e.value, TypeError)
    (tmp_path / "a.csv").write_text("id,era\n")
    with pytest.raises(ManifestError, match=r"a\.csv: not a shard file, expected the folder of a "):
        open_shards(tmp_path / "a.csv")
    with pytest.raises(SourceError, match=r"a\.csv: .*convert it with pandas: read_csv"):
        written(tmp_path / "a.csv", tmp_path / "set")


@pytest.mark.parametrize(
    ("address", "remedy"),
    [
        ("s3://bucket/a.parquet", "addresses are not supported: download the file"),
        ("gs://bucket/a.parquet", "addresses are not supported: download the file"),
        ("https://a.b/a.parquet", "addresses are not supported: download the file"),
        ("file:///data/a.parquet", "give its path, '/data/a.parquet'"),
        ("file:///C:/data/a.parquet", "give its path, 'C:/data/a.parquet'"),
        (Path("s3://bucket/a.parquet"), "addresses are not supported: download the file"),
    ],
)
def test_an_address_is_no_path(tmp_path, address, remedy):
    source = write_source(tmp_path / "a.parquet", rows=ROWS)
    written(source, tmp_path / "set")
    calls = {
        "sources": (SourceError, lambda: written(address, tmp_path / "new")),
        "out": (OutputError, lambda: written(source, address)),
        "features_json": (
            SourceError,
            lambda: written(source, tmp_path / "new", features_json=address),
        ),
        "shards": (ManifestError, lambda: open_shards(address)),
    }
    for option, (kind, call) in calls.items():
        with pytest.raises(kind) as caught:
            call()
        shown = f"{option}: found the address {str(address)!r}, expected "
        assert str(caught.value).startswith(shown)
        assert f"; {remedy}" in str(caught.value)
    for option, call in {
        "sources": lambda: append_shards(tmp_path / "set", [address], progress=False),
        "shards": lambda: append_shards(address, source, progress=False),
    }.items():
        with pytest.raises(NumeraiSequenceError, match=f"^{option}: found the address"):
            call()


def test_an_empty_text_is_no_path(tmp_path):
    source = write_source(tmp_path / "a.parquet", rows=ROWS)
    for call in (
        lambda: written("", tmp_path / "set"),
        lambda: written([source, ""], tmp_path / "set"),
        lambda: written(source, ""),
        lambda: open_shards(""),
    ):
        with pytest.raises(NumeraiSequenceError, match=": found an empty string, expected the "):
            call()


def test_a_tilde_is_the_users_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    write_source(tmp_path / "a.parquet", rows=ROWS)
    written("~/a.parquet", "~/set")
    assert os.path.isfile(tmp_path / "set" / "manifest.json")
    with open_shards("~/set") as shards:
        assert shards.rows == ROWS
    with open_shards(Path("~/set/shard-*.arrow")) as shards:
        assert shards.rows == ROWS


def test_only_some_of_many_files_are_open_at_a_time(tmp_path):
    folder = parts(tmp_path / "data", *(f"{number}.parquet" for number in range(40)), rows=3)
    with open_sources(folder) as sources:
        assert len(sources) == 40
        assert sum(source.file._file is not None for source in sources) == 16
        assert [
            source.read_eras(source.chunks(rows=9)[0])[0].as_py() for source in sources[::39]
        ] == [
            "0001",
            "0006",
        ]
        assert sum(source.file._file is not None for source in sources) == 16
        assert sources[0].features is sources[39].features
        pq.write_table(numerai_table(5), folder / "7.parquet")
        with pytest.raises(SourceError, match=r"7\.parquet: changed while it was read"):
            sources[7].read_eras(sources[7].chunks(rows=9)[0])


def test_a_set_of_many_files_is_that_of_one(tmp_path):
    folder = parts(tmp_path / "data", *(f"{number}.parquet" for number in range(30)), rows=2)
    assert written(folder, tmp_path / "set")[1] == era_rows()
    whole = write_source(tmp_path / "whole.parquet", rows=ROWS, eras=6)
    written(whole, tmp_path / "one")
    for name in ("shard-00.arrow", "shard-01.arrow"):
        assert (tmp_path / "set" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()


# Eras that are numbers


def with_eras(eras):
    table = numerai_table(ROWS, eras=6)
    return table.set_column(table.schema.get_field_index("era"), "era", eras)


@pytest.mark.parametrize("kind", ["int8", "uint16", "int64", "float16", "float64", "dictionary"])
def test_eras_that_are_numbers_are_spelled_as_numerai_does(tmp_path, kind):
    numbers = np.array([int(era) for era in numerai_table(ROWS, eras=6)["era"].to_pylist()])
    eras = pa.array(numbers).dictionary_encode() if kind == "dictionary" else None
    eras = pa.array(numbers.astype(kind)) if eras is None else eras
    pq.write_table(with_eras(eras), tmp_path / "a.parquet", row_group_size=17)
    assert written(tmp_path / "a.parquet", tmp_path / "set")[1] == era_rows()
    text = write_source(tmp_path / "b.parquet", rows=ROWS, eras=6)
    assert not append_shards(tmp_path / "set", text, progress=False).is_needed
    with pytest.raises(SourceError, match=r"found id .* again: era 0001 is also in"):
        written([text, tmp_path / "a.parquet"], tmp_path / "twice")


@pytest.mark.parametrize("wrong", [None, -1.0, 2.5, float("nan"), float("inf")])
def test_an_era_that_is_no_whole_number_is_named_by_its_row(tmp_path, wrong):
    eras = [1.0] * ROWS
    eras[41] = wrong
    pq.write_table(with_eras(pa.array(eras, pa.float64())), tmp_path / "a.parquet")
    shown = "null" if wrong is None else wrong
    with pytest.raises(SourceError, match=f"found {shown}, expected an era: a whole n") as caught:
        written(tmp_path / "a.parquet", tmp_path / "set")
    assert (caught.value.column, caught.value.row) == ("era", 41)


@pytest.mark.parametrize(
    ("columns", "name"),
    [
        (["numerai_ticker", "date"], "Signals"),
        (["id", "numerai_ticker", "friday_date"], "Signals"),
        (["symbol", "date"], "Crypto"),
    ],
)
def test_files_of_other_tournaments_are_named(tmp_path, columns, name):
    texts = {column: ["a"] for column in columns}
    pq.write_table(pa.table({**texts, "feature_a": [1], "target": [0.5]}), tmp_path / "a.parquet")
    with pytest.raises(SourceError, match=f"found a Numerai {name} file, .* not supported"):
        written(tmp_path / "a.parquet", tmp_path / "set")
