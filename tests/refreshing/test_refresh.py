"""Refresh: a set that was refreshed has what one written anew from the newer file would have."""

from __future__ import annotations

import os
import pickle
import re
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from numerai_tables import numerai_table

from numerai_sequence import (
    CorruptShardError,
    ManifestError,
    NumeraiSequence,
    OutputExistsError,
    SourceError,
    append_shards,
    open_shards,
    write_shards,
)
from numerai_sequence.commands.main import main
from numerai_sequence.format.encodings import ENCODINGS
from numerai_sequence.format.manifest import read_manifest
from numerai_sequence.writing.source_columns import Source

ROWS, ERAS, FEATURES, SHARDS = 1500, 30, 21, 4
KNOWN = 26  # eras that the set has at first


@pytest.fixture(scope="module")
def whole():
    """The file as it will be one day: all eras, all targets."""
    return numerai_table(ROWS, eras=ERAS, features=FEATURES)


def era_numbers(table):
    return np.array([int(era) for era in table["era"].to_pylist()])


def changed(table, name, rows, values):
    """A table with other values in some rows of a column."""
    column = table[name].to_numpy().copy()
    column = column.astype(object) if table[name].type == pa.string() else column
    column[rows] = np.nan if values is None else values
    place = table.column_names.index(name)
    return table.set_column(place, name, pa.array(column, table[name].type, from_pandas=True))


def as_of(whole, era):
    """The file after the week of an era: the newest eras have no targets yet."""
    table = whole.filter(pa.array(era_numbers(whole) <= era))
    numbers = era_numbers(table)
    table = changed(table, "target", numbers > era - 2, None)
    return changed(table, "target_b", numbers > era - 4, None)


def missing(table):
    return {name: table[name].null_count for name in ("target", "target_b")}


def save(table, path):
    pq.write_table(table, path, row_group_size=300)
    return path


def write(table, folder, **options):
    folder.mkdir(exist_ok=True)
    source = save(table, folder / "first.parquet")
    options = {"num_shards": SHARDS, "mix_eras": 3, "progress": False, **options}
    write_shards(source, folder / "set", **options).close()
    return folder / "set"


@pytest.fixture
def folder(whole, tmp_path):
    return write(as_of(whole, KNOWN), tmp_path)


def refresh(folder, table, **options):
    source = save(table, folder.parent / "newer.parquet")
    return append_shards(folder, source, progress=False, **options)


def rows_of(folder):
    """What a set has of each id."""
    with open_shards(folder) as shards:
        rows = np.arange(shards.rows)
        encoded, values = shards.row_reader.gather(rows, shards.targets)
        features = np.empty((len(rows), len(shards.features)), np.int8)
        ENCODINGS[shards.encoding].decoder(len(shards.features), dtype="int8")(encoded, features)
        meta = [shards.column(name).to_pylist() for name in ("id", "era", "data_type")]
        columns = np.array([shards.column(name).to_numpy() for name in shards.targets])
        np.testing.assert_array_equal(columns, values.T)
    return {
        id_: (era, kind, value.tobytes(), feature.tobytes())
        for id_, era, kind, value, feature in zip(*meta, values, features, strict=True)
    }


def files_of(folder):
    return {path.name: path.stat() for path in folder.iterdir()}


def writings_of(folder):
    """What changes when a file is written, to the nanosecond; reading changes its access time."""
    kept = ("st_mode", "st_ino", "st_nlink", "st_size", "st_mtime_ns", "st_ctime_ns")
    files = files_of(folder).items()
    return {name: [getattr(status, one) for one in kept] for name, status in files}


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("encoding", ["packed", "int8"])
@pytest.mark.parametrize("mix_eras", [1, 3, None])
def test_the_rows_are_those_of_a_set_that_is_written_anew(whole, tmp_path, encoding, mix_eras):
    options = {"encoding": encoding, "mix_eras": mix_eras}
    folder = write(as_of(whole, KNOWN), tmp_path / "one", **options)
    for era in range(KNOWN + 1, ERAS + 1):
        newer = as_of(whole, era)
        found = refresh(folder, newer)
        assert found.eras == (f"{era:04d}",)
        assert rows_of(folder) == rows_of(write(newer, tmp_path / f"anew-{era}", **options))
        with open_shards(folder) as shards:
            shards.verify()
            assert shards.missing == missing(newer)
            assert shards.rows == newer.num_rows


def test_files_that_are_there_stay(whole, folder):
    before = files_of(folder)
    refresh(folder, as_of(whole, KNOWN + 2))
    after = files_of(folder)
    for name in set(before) - {"manifest.json"}:
        assert (after[name].st_ino, after[name].st_mtime_ns) == (
            before[name].st_ino,
            before[name].st_mtime_ns,
        )
    new = sorted(set(after) - set(before))
    assert [name for name in new if name.startswith("shard")] == [
        "shard-00-1.arrow",
        "shard-03-1.arrow",
    ]
    # Eras of some record batches lack one target, of others the other one, or both.
    columns = [patch.columns for patch in read_manifest(folder).patches]
    assert [f"patch-{number:02d}-1.arrow" for number in range(len(columns))] == new[: len(columns)]
    assert set(columns) <= {("target",), ("target_b",), ("target", "target_b")}


def test_what_is_written_is_proportional_to_what_changed(tmp_path):
    features = 400
    whole = numerai_table(12_000, eras=60, features=features)
    folder = write(as_of(whole, 59), tmp_path, num_shards=16, encoding="int8")
    before = files_of(folder)
    found = refresh(folder, as_of(whole, 60))
    written = sum(s.st_size for name, s in files_of(folder).items() if name not in before)
    rows = int((era_numbers(whole) == 60).sum())
    # The new era, and a target of each of two windows of three eras.
    patched = sum(
        place.rows * len(patch.columns)
        for patch in read_manifest(folder).patches
        for place in patch.places
    )
    names = 4 * features * 20
    assert written < 1.1 * (rows * (features + 60) + patched * 4) + names
    assert 0.5 * written < found.bytes < 2 * written
    assert patched < 0.2 * whole.num_rows


def test_the_plan_tells_what_is_done(whole, folder):
    newer = as_of(whole, KNOWN + 2)
    numbers = era_numbers(newer)
    old = numbers <= KNOWN
    newer = changed(newer, "target", np.flatnonzero(numbers == 3)[:5], 0.25)
    newer = changed(newer, "data_type", np.flatnonzero(numbers == 7), "test")
    before = contents(folder)
    plan = refresh(folder, newer, dry_run=True)
    assert contents(folder) == before
    first = as_of(whole, KNOWN)
    filled = {
        name: first[name].null_count - newer.filter(pa.array(old))[name].null_count
        for name in ("target", "target_b")
    }
    assert (plan.eras, plan.rows) == (("0027", "0028"), int((~old).sum()))
    assert plan.filled == filled
    assert plan.corrected == {"target": 5}
    assert plan.data_types == int((numbers == 7).sum())
    assert f"{plan.rows:,} rows of new eras (2 eras, 0027 to 0028)" in str(plan)
    assert f"{sum(filled.values()):,} values of 2 targets are filled" in str(plan)
    assert "5 values of 1 target are corrected, 5 of them in target" in str(plan)
    assert f"{plan.data_types} rows get another data type" in str(plan)
    assert refresh(folder, newer) == plan
    assert rows_of(folder) == rows_of(write(newer, folder.parent / "anew"))


def test_a_set_that_is_up_to_date_stays_as_it_is(whole, folder):
    refresh(folder, as_of(whole, KNOWN + 1))
    before = writings_of(folder)
    found = refresh(folder, as_of(whole, KNOWN + 1))
    assert not found.is_needed
    assert str(found) == f"{folder}: up to date"
    assert writings_of(folder) == before


def test_a_file_of_new_eras_alone_is_enough(whole, folder):
    newer = as_of(whole, KNOWN + 1)
    found = refresh(folder, newer.filter(pc.equal(newer["era"], "0027")))
    assert (found.eras, found.filled) == (("0027",), {})
    assert read_manifest(folder).patches == ()
    with open_shards(folder) as shards:
        assert shards.eras[-1] == "0027"
        assert shards.missing["target"] == as_of(whole, KNOWN)["target"].null_count + found.rows


def test_several_files_may_be_given(whole, folder):
    newer = as_of(whole, KNOWN + 2)
    numbers = era_numbers(newer)
    paths = [
        save(newer.filter(pa.array(mask)), folder.parent / name)
        for name, mask in (("a.parquet", numbers % 2 == 0), ("b.parquet", numbers % 2 == 1))
    ]
    append_shards(folder, paths, progress=False)
    assert rows_of(folder) == rows_of(write(newer, folder.parent / "anew"))


def test_who_has_opened_the_set_before_keeps_what_was_there(whole, folder):
    before = rows_of(folder)
    with open_shards(folder) as shards:
        sequence = NumeraiSequence(shards, 100, missing_target="mask", shuffle=False)
        first = [np.array(part) for part in sequence[3]]
        for era in (KNOWN + 2, KNOWN + 4):
            refresh(folder, as_of(whole, era))
            assert shards.missing == missing(as_of(whole, KNOWN))
            for part, again in zip(first, sequence[3], strict=True):
                np.testing.assert_array_equal(part, again)
            shards.verify()
        assert shards.rows == len(before)
    assert set(rows_of(folder)) > set(before)


def test_a_patch_that_nothing_is_left_of_goes(whole, folder):
    newer = changed(as_of(whole, KNOWN), "target", np.arange(0, 300, 7), 0.5)
    refresh(folder, newer)
    [first] = read_manifest(folder).patches
    # The same record batches again, and more.
    newer = changed(newer, "target", np.arange(0, 1000, 7), 0.75)
    refresh(folder, newer)
    [second] = read_manifest(folder).patches
    assert set(first.places) < set(second.places)
    assert [path.name for path in sorted(folder.glob("patch-*"))] == [second.file]
    assert rows_of(folder) == rows_of(write(newer, folder.parent / "anew"))


def test_a_set_that_was_refreshed_since_says_so_in_another_process(whole, folder):
    newer = changed(as_of(whole, KNOWN), "target", np.arange(0, 300, 7), 0.5)
    refresh(folder, newer)
    with open_shards(folder) as shards:
        pickled = pickle.dumps(shards)
        sequence = NumeraiSequence(shards[::2], 100, target=None)
        with pickle.loads(pickled) as again:
            assert again.rows == shards.rows
        refresh(folder, changed(newer, "target", np.arange(0, 1000, 7), 0.75))
        assert len(sequence[0]) == 100
        for what in (pickled, pickle.dumps(sequence)):
            with pytest.raises(CorruptShardError, match=r"refreshed .* open the set again with o"):
                pickle.loads(what)
    open_shards(folder).close()
    with open_shards(folder) as shards:
        pickled = pickle.dumps(shards)
        next(folder.glob("shard-*")).unlink()
        with pytest.raises(CorruptShardError, match=r"shard-.*\.arrow: file: found No such file"):
            pickle.loads(pickled)


def test_a_patch_of_other_columns_stays(whole, folder):
    newer = changed(as_of(whole, KNOWN), "target", np.arange(0, 300, 7), 0.5)
    refresh(folder, newer)
    newer = changed(newer, "target_b", np.arange(0, 1000, 7), 0.75)
    newer = changed(newer, "data_type", np.arange(0, 1000), "test")
    refresh(folder, newer)
    first, second = read_manifest(folder).patches
    assert (first.columns, second.columns) == (("target",), ("data_type", "target_b"))
    assert rows_of(folder) == rows_of(write(newer, folder.parent / "anew"))


def without_data_type(table, rows):
    kinds = np.array(table["data_type"].to_pylist(), object)
    kinds[rows] = None
    place = table.column_names.index("data_type")
    return table.set_column(place, "data_type", pa.array(kinds, pa.string()))


def test_data_types_may_be_missing_before_and_after(whole, tmp_path):
    table = without_data_type(as_of(whole, KNOWN), slice(0, 90, 2))
    folder = write(table, tmp_path)
    # Some of those that are missing come, some others change, and the rest stays missing.
    newer = changed(table, "data_type", slice(10, 31), "test")
    found = refresh(folder, newer)
    before, after = table["data_type"].to_pylist(), newer["data_type"].to_pylist()
    assert found.data_types == sum(a != b for a, b in zip(before, after, strict=True)) == 21
    assert after.count(None) == 34
    assert rows_of(folder) == rows_of(write(newer, tmp_path / "anew"))
    with open_shards(folder) as shards:
        shards.verify()


@pytest.mark.parametrize("is_column_there", [True, False])
def test_data_types_that_a_set_lacks_are_filled_in(whole, tmp_path, is_column_there):
    table = as_of(whole, KNOWN)
    older = no_data_types(table) if is_column_there else no_column_of_data_types(table)
    folder = write(older, tmp_path)
    assert not refresh(folder, older).is_needed
    assert refresh(folder, table).data_types == table.num_rows
    assert rows_of(folder) == rows_of(write(table, tmp_path / "anew"))
    with open_shards(folder) as shards:
        assert shards.data_types == ["train"]
        shards.verify()


def test_new_eras_of_a_file_without_data_types_have_none(whole, folder):
    newer = as_of(whole, KNOWN + 1)
    newer = newer.filter(pc.equal(newer["era"], "0027"))
    assert refresh(folder, no_column_of_data_types(newer)).data_types == 0
    with open_shards(folder) as shards:
        assert shards.column("data_type").null_count == newer.num_rows


def test_an_older_patch_stays_for_what_the_newer_one_lacks(whole, folder):
    newer = changed(as_of(whole, KNOWN), "target", np.arange(0, 1000, 7), 0.5)
    refresh(folder, newer)
    refresh(folder, changed(newer, "target", [3], 0.75))
    first, second = read_manifest(folder).patches
    assert set(second.places) < set(first.places)
    newest = changed(newer, "target", [3], 0.75)
    assert rows_of(folder) == rows_of(write(newest, folder.parent / "anew"))


def test_training_sees_the_new_targets(whole, folder):
    newer = as_of(whole, KNOWN + 3)
    refresh(folder, newer)
    with open_shards(folder) as shards:
        for run_rows in (1, 8):
            sequence = NumeraiSequence(
                shards, 64, missing_target="drop", run_rows=run_rows, target=["target", "target_b"]
            )
            found = np.concatenate([sequence[number][1] for number in range(len(sequence))])
            expected = np.stack([newer[name].to_numpy() for name in ("target", "target_b")], 1)
            expected = expected[~np.isnan(expected).any(axis=1)].astype(np.float32)
            np.testing.assert_array_equal(
                found[np.lexsort(found.T)], expected[np.lexsort(expected.T)]
            )


def test_parts_and_pickles_of_a_refreshed_set_are_patched_too(whole, folder):
    newer = as_of(whole, KNOWN + 3)
    refresh(folder, newer)
    by_id = dict(zip(newer["id"].to_pylist(), newer["target_b"].to_pylist(), strict=True))
    with open_shards(folder) as shards:
        parts = [shards[:2], shards[2:], shards[::3], pickle.loads(pickle.dumps(shards[1:]))]
        parts.append(open_shards([shards.paths[0], shards.paths[-1]]))
        for part in parts:
            values = part.row_reader.gather(np.arange(part.rows), ["target_b"])[1][:, 0]
            expected = [by_id[id_] for id_ in part.column("id").to_pylist()]
            np.testing.assert_array_equal(values, np.array(expected, np.float32))
            part.close()


def test_a_glob_of_a_refreshed_set_is_the_set(whole, folder):
    for era in (KNOWN + 1, KNOWN + 3):
        refresh(folder, as_of(whole, era))
    assert len(read_manifest(folder).patches) > 1
    with open_shards(folder) as shards:
        for glob in (folder / "*.arrow", f"{folder}/[ps]*"):
            with open_shards(glob) as found:
                assert found.paths == shards.paths  # in the order of the set, too
                assert found.manifest == shards.manifest
                assert found.fingerprint == shards.fingerprint
                assert found.column("id") == shards.column("id")
                for target in shards.targets:
                    np.testing.assert_array_equal(found.column(target), shards.column(target))
                assert NumeraiSequence(glob, missing_target="drop").rows > 0


def test_some_files_of_a_refreshed_set_are_patched(whole, folder):
    newer = as_of(whole, KNOWN + 3)
    refresh(folder, newer)
    by_id = dict(zip(newer["id"].to_pylist(), newer["target_b"].to_pylist(), strict=True))
    patches = sorted(folder.glob("patch-*"))
    with open_shards(folder) as shards:
        paths = shards.paths
    for files in (
        folder / "shard-0[12].arrow",
        folder / "*[12].arrow",  # and a patch, perhaps
        str(paths[2]),
        [paths[3], *patches, paths[0]],
        [*map(str, patches), str(paths[1])],
    ):
        with open_shards(files) as found:
            assert 0 < len(found) < len(paths)
            values = found.column("target_b").to_numpy()
            expected = [by_id[id_] for id_ in found.column("id").to_pylist()]
            np.testing.assert_array_equal(values, np.array(expected, np.float32))
            missing = int(np.isnan(values).sum())
            assert found.missing.get("target_b", 0) == missing
            found.verify()
    with open_shards([paths[3], *patches, paths[0]]) as found:
        assert found.paths == [paths[3], paths[0]]


def test_patches_alone_are_no_set(whole, folder):
    refresh(folder, as_of(whole, KNOWN + 3))
    patches = sorted(folder.glob("patch-*"))
    for files in (folder / "patch-*.arrow", patches, str(patches[0])):
        with pytest.raises(ManifestError, match="found a patch, expected shard files; ") as caught:
            open_shards(files)
        assert str(folder) in str(caught.value)
    with pytest.raises(ManifestError, match="named twice"):
        open_shards([folder / "shard-00.arrow", patches[0], patches[0]])


def test_the_fingerprint_is_another(whole, folder):
    with open_shards(folder) as shards:
        before = shards.fingerprint
    refresh(folder, changed(as_of(whole, KNOWN), "target", [3], 0.75))
    with open_shards(folder) as shards:
        assert shards.fingerprint != before


def test_a_refreshed_set_is_of_format_version_2(whole, folder):
    assert '"version": 1,' in (folder / "manifest.json").read_text()
    refresh(folder, as_of(whole, KNOWN + 1))
    assert '"version": 2,' in (folder / "manifest.json").read_text()


@pytest.mark.parametrize("damage", ["cut", "flip", "gone"])
def test_a_damaged_patch_is_noticed(whole, folder, damage):
    refresh(folder, as_of(whole, KNOWN + 1))
    path = min(folder.glob("patch-*"))
    data = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(data[:-8])
    else:
        data[len(data) // 2] ^= 64
        path.write_bytes(data)
    with (
        pytest.raises(CorruptShardError, match=re.escape(str(path))),
        open_shards(folder) as shards,
    ):
        shards.verify()


def test_a_set_that_is_not_what_its_manifest_tells_of_is_not_compared_with(whole, folder):
    path = folder / "shard-00.arrow"
    data = path.read_bytes()
    eras = data.index(b"0004" * 2)
    path.write_bytes(data[:eras] + b"0008" + data[eras + 4 :])
    before = contents(folder)
    with pytest.raises(CorruptShardError, match="rows of each era"):
        refresh(folder, as_of(whole, KNOWN + 1))
    assert contents(folder) == before


def more_features(table):
    return table.append_column("feature_new", table["feature_003"])


def more_targets(table):
    return table.append_column("target_new", table["target"])


def fewer_features(table):
    return table.drop_columns(["feature_003"])


def another_id(table):
    column = table["id"].to_pylist()
    column[5] = "another"
    return table.set_column(table.column_names.index("id"), "id", pa.array(column))


def an_id_twice(table):
    column = table["id"].to_pylist()
    column[5] = column[6]
    return table.set_column(table.column_names.index("id"), "id", pa.array(column))


def another_era(table):
    # Two rows of two eras of one record batch change places.
    column = table["id"].to_pylist()
    eras = table["era"].to_pylist()
    one, other = eras.index("0001"), eras.index("0005")
    column[one], column[other] = column[other], column[one]
    return table.set_column(table.column_names.index("id"), "id", pa.array(column))


def a_row_less(table):
    return table.slice(1)


def a_target_less(table):
    return changed(table, "target", [9], None)


def a_data_type_less(table):
    return without_data_type(table, [9])


def no_data_types(table):
    return without_data_type(table, slice(None))


def no_column_of_data_types(table):
    return table.drop_columns(["data_type"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            more_features,
            "found features that the set lacks, such as 'feature_new'.*write the set",
        ),
        (more_targets, "found targets that the set lacks, such as 'target_new'.*write the set"),
        (fewer_features, "column 'feature_003': missing"),
        (another_id, "id 'another' of era 0001 is not in the set.*write the set again"),
        (an_id_twice, "of era 0001 appears twice"),
        (another_era, "has era 000[15] in the set"),
        (a_row_less, r"found \d+ rows of era 0001, expected \d+ as in the set"),
        (a_target_less, r"'target': id 'n0+9' of era 0001 no longer has a target, which is 9.0 in"),
        (
            a_data_type_less,
            "'data_type': id 'n0+9' of era 0001 no longer has a data_type, which is",
        ),
        (no_data_types, r"'data_type': id 'n\w+' of era 000. no longer has a data_type, which is"),
        (
            no_column_of_data_types,
            "no longer has a data_type, which is 'train' in the set; write the",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(whole, folder, change, message):
    before = contents(folder)
    for dry_run in (True, False):
        with pytest.raises(SourceError, match=message) as caught:
            refresh(folder, change(as_of(whole, KNOWN + 1)), dry_run=dry_run)
        assert caught.value.path == folder.parent / "newer.parquet"
    assert contents(folder) == before


def test_columns_that_were_not_asked_for_are_no_reason(whole, tmp_path):
    options = {"features": ["feature_004", "feature_002"], "targets": ["target_b"]}
    folder = write(as_of(whole, KNOWN), tmp_path, **options)
    newer = more_targets(more_features(as_of(whole, KNOWN + 1)))
    refresh(folder, newer)
    anew = write(as_of(whole, KNOWN + 1), tmp_path / "anew", **options)
    assert rows_of(folder) == rows_of(anew)


def test_an_era_in_two_files_is_refused(whole, folder):
    path = save(as_of(whole, KNOWN + 1), folder.parent / "a.parquet")
    other = save(as_of(whole, KNOWN + 1), folder.parent / "b.parquet")
    with pytest.raises(SourceError, match=r"era 0001 is also in .*a\.parquet"):
        append_shards(folder, [path, other], progress=False)


def test_a_bad_feature_of_a_new_era_is_refused(whole, folder):
    before = contents(folder)
    newer = as_of(whole, KNOWN + 1)
    row = int(np.flatnonzero(era_numbers(newer) == KNOWN + 1)[2])
    with pytest.raises(SourceError, match="found 9, expected one of") as caught:
        refresh(folder, changed(newer, "feature_011", [row], 9))
    assert (caught.value.column, caught.value.row) == ("feature_011", row)
    assert contents(folder) == before


def test_features_of_known_rows_are_not_read(whole, folder):
    newer = changed(as_of(whole, KNOWN), "feature_011", [7], 9)
    assert not refresh(folder, newer).eras


def test_no_set_is_no_set(whole, tmp_path):
    with pytest.raises(ManifestError):
        refresh(tmp_path / "none", as_of(whole, KNOWN))
    assert not (tmp_path / "none").exists()


def test_writing_again_over_a_refreshed_set_says_so(whole, folder):
    refresh(folder, as_of(whole, KNOWN + 1))
    with pytest.raises(OutputExistsError, match=r"refreshed since, from .*newer\.parquet"):
        write(as_of(whole, KNOWN), folder.parent)


@pytest.mark.parametrize("call", range(1, 9))
@pytest.mark.parametrize("done", [False, True])
def test_an_interrupted_refresh_leaves_the_old_set_or_the_new_one(
    whole, folder, monkeypatch, call, done
):
    before, newer = rows_of(folder), as_of(whole, KNOWN + 2)
    copy = shutil.copytree(folder, folder.parent / "copy")
    refresh(copy, newer)
    after, moves = rows_of(copy), len(os.listdir(copy)) - len(os.listdir(folder)) + 1
    replace, calls = os.replace, []

    def interrupted(*paths):
        calls.append(paths)
        if done:
            replace(*paths)
        if len(calls) == call:
            raise KeyboardInterrupt
        if not done:
            replace(*paths)

    monkeypatch.setattr(os, "replace", interrupted)
    try:
        refresh(folder, newer)
    except KeyboardInterrupt:
        monkeypatch.undo()
        # The new files are moved, and then the manifest.
        assert rows_of(folder) == (after if done and call == moves else before)
    else:
        assert call > moves
    monkeypatch.undo()
    refresh(folder, newer)
    assert rows_of(folder) == after
    assert not (folder / ".writing").exists()
    known = {file.file for file in read_manifest(folder).files} | {"manifest.json"}
    assert {path.name for path in folder.iterdir()} == known


def test_an_interrupted_refresh_is_gone_on_with(whole, folder, monkeypatch):
    monkeypatch.setattr("numerai_sequence.refreshing.refresh.BLOCK_BYTES", 1000)
    newer, read, calls = as_of(whole, KNOWN + 1), Source.read_features, []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return read(*arguments)

    monkeypatch.setattr(Source, "read_features", interrupted)
    source = save(newer, folder.parent / "newer.parquet")
    with pytest.raises(KeyboardInterrupt):
        append_shards(folder, source, progress=False)
    first = len(calls)
    append_shards(folder, source, progress=False)
    monkeypatch.setattr(Source, "read_features", read)
    total = len(calls)
    assert rows_of(folder) == rows_of(write(newer, folder.parent / "anew"))
    assert 0 < total - first < total - 3


def test_the_command_shows_the_plan(whole, folder, capsys):
    source = save(as_of(whole, KNOWN + 1), folder.parent / "newer.parquet")
    before = contents(folder)
    for options in (["--dry-run"], []):
        main(["refresh", str(folder), str(source), "--quiet", *options], standalone_mode=False)
        out = capsys.readouterr().out
        assert "rows of new eras (0027)" in out
        assert ("nothing is written" in out) == bool(options)
        assert (contents(folder) == before) == bool(options)
    main(["refresh", str(folder), str(source)], standalone_mode=False)
    shown = capsys.readouterr()
    assert "up to date" in shown.out
    assert "comparing newer.parquet" in shown.err
