"""Arguments: of any type that a user may have them in, or refused with what was given."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numerai_tables import numerai_table, write_features_json
from shard_sets import contents

from numerai_sequence import (
    ManifestError,
    NumeraiSequence,
    NumeraiSequenceError,
    append_shards,
    open_shards,
    write_shards,
)
from numerai_sequence.format.layout import WriteOptions

FEATURES = ["feature_003", "feature_001", "feature_010"]
TARGETS = ["target_b", "target"]


@pytest.fixture
def source(tmp_path):
    pq.write_table(numerai_table(90, eras=7), tmp_path / "train.parquet")
    return tmp_path / "train.parquet"


# Numbers


@pytest.mark.parametrize("kind", ["int8", "uint8", "int16", "int32", "uint32", "int64", "uint64"])
def test_whole_numbers_of_numpy_are_those_of_python(kind):
    three = np.dtype(kind).type(3)
    options = WriteOptions(num_shards=three, mix_eras=three, seed=three)
    assert options == WriteOptions(num_shards=3, mix_eras=3, seed=3)
    assert repr(options) == repr(WriteOptions(num_shards=3, mix_eras=3, seed=3))


@pytest.mark.parametrize("option", ["num_shards", "mix_eras", "seed"])
@pytest.mark.parametrize(
    "value",
    [np.float64(3), np.float32(1.5), np.bool_(True), np.array(3), np.array([3]), pd.NA, b"3"],
    ids=repr,
)
def test_what_is_no_whole_number_is_refused(option, value):
    with pytest.raises((TypeError, ValueError), match=f"^{option}: found .*, expected "):
        WriteOptions(**{option: value})


@pytest.mark.parametrize("value", [0, -1, np.int64(0), np.int8(-3)])
@pytest.mark.parametrize("option", ["num_shards", "mix_eras"])
def test_numbers_that_are_too_small_are_refused(option, value):
    with pytest.raises(ValueError, match=f"^{option}: found {int(value)}, expected at least 1"):
        WriteOptions(**{option: value})


def test_a_set_of_numpy_options_is_the_same_bit_for_bit(source, tmp_path):
    plain = {"num_shards": 3, "mix_eras": 2, "seed": 5, "encoding": "int8"}
    write_shards(source, tmp_path / "plain", progress=False, **plain).close()
    options = {name: np.int64(value) for name, value in plain.items() if name != "encoding"}
    options |= {"encoding": np.str_("int8"), "overwrite": np.True_, "progress": np.False_}
    for _ in range(2):  # and again over what is there
        write_shards(source, tmp_path / "set", **options).close()
        assert contents(tmp_path / "set").keys() >= {"manifest.json"}
    found = json.loads((tmp_path / "set" / "manifest.json").read_text())
    expected = json.loads((tmp_path / "plain" / "manifest.json").read_text())
    assert found["options"] == expected["options"]
    checksums = [[shard["checksum"] for shard in one["shards"]] for one in (found, expected)]
    assert checksums[0] == checksums[1]
    write_shards(source, tmp_path / "plain", **options | {"overwrite": np.False_}).close()


# Names of columns


def as_kinds(names):
    yield "list", list(names)
    yield "tuple", tuple(names)
    yield "Index", pd.Index(names)
    yield "Series", pd.Series(names, index=range(5, 5 + len(names)))
    yield "categories", pd.Categorical(names)
    yield "array", np.array(names)
    yield "objects", np.array(names, object)
    yield "pyarrow", pa.array(names)
    yield "chunks", pa.chunked_array([names[:1], names[1:]])
    yield "keys", dict.fromkeys(names).keys()
    yield "values", dict(enumerate(names)).values()
    yield "generator", (name for name in names)
    yield "np.str_", [np.str_(name) for name in names]


@pytest.mark.parametrize("kind", [kind for kind, _ in as_kinds(FEATURES)])
def test_names_of_columns_may_be_of_any_kind_that_has_an_order(source, tmp_path, kind):
    chosen = {"features": dict(as_kinds(FEATURES))[kind], "targets": dict(as_kinds(TARGETS))[kind]}
    with write_shards(source, tmp_path / "set", progress=False, **chosen) as shards:
        assert (shards.features, shards.targets) == (tuple(FEATURES), tuple(TARGETS))
    plain = {"features": FEATURES, "targets": TARGETS}
    write_shards(source, tmp_path / "set", progress=False, **plain).close()  # it is there


def test_a_feature_set_may_be_a_string_of_numpy(source, tmp_path):
    write_features_json(tmp_path / "features.json", small=FEATURES)
    with write_shards(
        source, tmp_path / "set", features=np.str_("small"), progress=False
    ) as shards:
        assert set(shards.features) == set(FEATURES)


@pytest.mark.parametrize("option", ["features", "targets"])
@pytest.mark.parametrize("kind", [set, frozenset])
def test_a_set_of_names_is_refused_as_it_has_no_order(source, tmp_path, option, kind):
    names = {"features": FEATURES, "targets": TARGETS}[option]
    with pytest.raises(TypeError) as caught:
        write_shards(source, tmp_path / "set", progress=False, **{option: kind(names)})
    expected = (
        f"{option}: found a {kind.__name__}, whose order differs from process to process, expected"
    )
    assert str(caught.value).startswith(expected)
    assert "such as sorted(...)" in str(caught.value)
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("option", ["features", "targets"])
@pytest.mark.parametrize("value", [5, 1.5, True, np.float64(2), Ellipsis], ids=repr)
def test_what_has_no_entries_is_no_list_of_names(source, tmp_path, option, value):
    with pytest.raises(TypeError, match=f"^{option}: found .*, expected a list of column"):
        write_shards(source, tmp_path / "set", progress=False, **{option: value})


# Paths


def not_paths():
    """What may be given for a path; by what an error calls it."""
    frame = numerai_table(20, id_is="column").to_pandas()
    yield "a DataFrame", frame
    yield "a Table", numerai_table(20)
    yield "a RecordBatch", numerai_table(20).to_batches()[0]
    yield "a Series", frame["target"]
    yield "a ndarray", frame["target"].to_numpy()
    yield "a dict", {"a": "train.parquet"}
    yield "a set", {"train.parquet"}
    yield "a bytes", b"train.parquet"
    yield "an int", 5
    yield "a NoneType", None


NOT_PATHS = dict(not_paths())


@pytest.mark.parametrize("kind", NOT_PATHS)
def test_what_is_no_path_is_refused_by_what_it_is(source, tmp_path, kind):
    value, folder = NOT_PATHS[kind], tmp_path / "set"
    calls = {
        "sources": lambda: write_shards(value, folder, progress=False),
        "out": lambda: write_shards(source, value, progress=False),
        "shards": lambda: open_shards(value),
    }
    if value is not None:
        options = {"features_json": value, "progress": False}
        calls["features_json"] = lambda: write_shards(source, folder, **options)
    for option, call in calls.items():
        with pytest.raises(TypeError) as caught:
            call()
        has_entries = kind in ("a Series", "a ndarray") and option in ("sources", "shards")
        shown = "a float" if has_entries else kind
        assert str(caught.value).startswith(f"{option}: found {shown}")
        assert ", expected the " in str(caught.value)
        assert not folder.exists()
    write_shards(source, folder, progress=False).close()
    for option, call in {
        "shards": lambda: append_shards(value, source, progress=False),
        "sources": lambda: append_shards(folder, value, progress=False),
    }.items():
        with pytest.raises(TypeError, match=f"^{option}: found an? .*expected "):
            call()


def test_a_frame_is_told_to_be_saved_first(source, tmp_path):
    frame = numerai_table(20, id_is="column").to_pandas()
    for value in (frame, [frame], [source, frame]):
        with pytest.raises(TypeError, match=r"sources: found a DataFrame.*save a table as Parquet"):
            write_shards(value, tmp_path / "set", progress=False)
    for value in (frame, [frame]):
        for call in (open_shards, NumeraiSequence):
            with pytest.raises(TypeError, match=r"found a DataFrame.*write_shards"):
                call(value)


def test_an_open_file_is_not_read_as_a_list_of_paths(source, tmp_path):
    with (
        open(source, "rb") as file,
        pytest.raises(TypeError, match="sources: found a BufferedReader, expected the path"),
    ):
        write_shards(file, tmp_path / "set", progress=False)


def test_a_set_of_files_is_refused_as_it_has_no_order(source, tmp_path):
    with pytest.raises(TypeError, match=r"sources: found a set, whose order .*sorted"):
        write_shards({source}, tmp_path / "set", progress=False)
    with write_shards(source, tmp_path / "set", progress=False) as shards:
        paths = shards.paths
    with pytest.raises(TypeError, match=r"shards: found a set, whose order .*sorted"):
        open_shards(set(paths))


@pytest.mark.parametrize("kind", [list, tuple, iter, pd.Series, pd.Index, np.array])
def test_paths_may_be_of_any_kind_that_has_an_order(source, tmp_path, kind):
    more = tmp_path / "more.parquet"
    pq.write_table(numerai_table(20, first_row=90, eras=2), more)
    paths = [str(source), str(more)]
    with write_shards(kind(paths), tmp_path / "set", num_shards=2, progress=False) as shards:
        assert shards.rows == 110
        files = [str(path) for path in shards.paths]
    with open_shards(kind(files)) as shards:
        assert shards.rows == 110
    assert not append_shards(tmp_path / "set", kind(paths), progress=False).is_needed


@pytest.mark.parametrize("name", ["train.parquet", "train.pq", "train"])
def test_a_parquet_file_is_no_shard_set(source, tmp_path, name):
    path = source.rename(tmp_path / name)
    values = [path, str(path), [path]]
    if path.suffix:
        values.append(tmp_path / f"*{path.suffix}")
    for value in values:
        for call in (open_shards, NumeraiSequence):
            with pytest.raises(ManifestError) as caught:
                call(value)
            assert isinstance(caught.value, TypeError)  # as for a frame
            assert "a Parquet file, expected a shard set; write one first with" in str(caught.value)
            assert "write_shards(" in str(caught.value)


def test_a_parquet_file_that_is_not_there_is_no_shard_set_either(tmp_path):
    with pytest.raises(NumeraiSequenceError, match=r"expected a shard set; .*write_shards\("):
        open_shards(tmp_path / "train.parquet")


def test_a_folder_may_be_called_like_a_file(source, tmp_path):
    write_shards(source, tmp_path / "set.parquet", progress=False).close()
    with open_shards(tmp_path / "set.parquet") as shards:
        assert shards.rows == 90
