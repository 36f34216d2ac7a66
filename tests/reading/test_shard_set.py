"""Shards: the rows of the files, whichever way they are opened, and no damage unseen."""

from __future__ import annotations

import gc
import itertools
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from numerai_tables import ragged_eras, row_digits, write_source
from tampering import put

from numerai_sequence import (
    CorruptShardError,
    FeatureError,
    ManifestError,
    open_shards,
    write_shards,
)
from numerai_sequence.reading.mapped_file import MappedFile

ROWS, FEATURES, ERAS = 1037, 14, 23
each_encoding = pytest.mark.parametrize("encoding", ["packed", "int8"])


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The same rows in both encodings; only for reading."""
    path = tmp_path_factory.mktemp("sets")
    source = write_source(path / "train.parquet", rows=ROWS, features=FEATURES, eras=ERAS)
    for encoding in ("packed", "int8"):
        write_shards(
            source,
            path / encoding,
            num_shards=5,
            mix_eras=2,
            encoding=encoding,
            progress=False,
        ).close()
    return path


@pytest.fixture
def opened(folders):
    with open_shards(folders / "packed") as opened:
        yield opened


@pytest.fixture
def folder(folders, tmp_path):
    """A set that a test may damage."""
    shutil.copytree(folders / "packed", tmp_path / "set")
    return tmp_path / "set"


def numbers_of(shards):
    """The number of each row, in the source, as its id says."""
    return np.array([int(i[1:], 16) for i in shards.column("id").to_pylist()], int)


def encoded(encoding, numbers):
    """The bytes that these rows must have."""
    digits = row_digits(numbers, FEATURES)
    if encoding == "int8":
        return digits.view(np.uint8)
    third = (FEATURES + 2) // 3
    padded = np.zeros((len(digits), 3 * third), np.uint8)
    padded[:, :FEATURES] = digits
    return padded[:, :third] + 5 * padded[:, third : 2 * third] + 25 * padded[:, 2 * third :]


def assert_rows_are_right(shards, rows=None):
    """Gather rows by their global number: each is what the source has."""
    rows = np.arange(shards.rows) if rows is None else rows
    numbers = numbers_of(shards)[rows]
    found, values = shards.row_reader.gather(rows, ["target_b", "target"])
    assert (found.dtype, values.dtype) == (np.uint8, np.float32)
    np.testing.assert_array_equal(found, encoded(shards.encoding, numbers))
    np.testing.assert_array_equal(values, np.stack([numbers + 0.5, numbers], axis=1))


@each_encoding
def test_set_holds_each_row_of_the_source_once(folders, encoding):
    with open_shards(folders / encoding) as shards:
        assert shards.rows == ROWS
        assert sorted(numbers_of(shards)) == list(range(ROWS))
        assert_rows_are_right(shards)


def test_set_says_what_is_in_it(folders, opened):
    assert opened.features == tuple(f"feature_{number:03d}" for number in range(FEATURES))
    assert opened.targets == ("target", "target_b")
    assert opened.encoding == "packed"
    assert opened.data_types == ["train"]
    assert opened.folder == folders / "packed"
    assert opened.paths == sorted((folders / "packed").glob("*.arrow"))
    assert len(opened) == len(opened.paths) == 5


def test_eras_come_in_the_order_of_time_with_their_rows(opened):
    eras, counts = np.unique(ragged_eras(ROWS, ERAS), return_counts=True)
    names = [f"{era:04d}" for era in eras]
    assert opened.eras == names
    assert opened.era_rows == dict(zip(names, counts.tolist(), strict=True))
    assert list(opened.era_rows) == names


def test_live_era_comes_last_and_data_types_are_sorted(tmp_path):
    live = write_source(
        tmp_path / "live.parquet", rows=3, eras=1, era_names="X", data_type="live", first_row=50
    )
    train = write_source(tmp_path / "train.parquet", rows=50, eras=4)
    options = {"num_shards": 2, "mix_eras": 1, "progress": False}
    with write_shards([live, train], tmp_path / "set", **options) as shards:
        assert shards.eras == ["0001", "0002", "0003", "0004", "X"]
        assert shards.data_types == ["live", "train"]
        assert shards[1].data_types == ["train"]
        assert shards[1].eras == ["0001", "0003"]


def test_repr_says_what_and_how_much(opened):
    text = repr(opened)
    for part in ("1,037 rows", "14 features", "packed", "2 targets", "23 eras", "5 shards"):
        assert part in text
    assert str(opened.folder) in text


@each_encoding
def test_shard_is_an_arrow_file_that_any_reader_opens(folders, encoding):
    with open_shards(folders / encoding) as shards:
        expected = numbers_of(shards)
        tables = [pa.ipc.open_file(path).read_all() for path in shards.paths]
    table = pa.concat_tables(tables).combine_chunks()
    assert table.column_names == ["id", "era", "data_type", "target", "target_b", "features"]
    assert table["target"].to_pylist() == expected.tolist()
    assert table["era"].to_pylist() == [f"{era:04d}" for era in ragged_eras(ROWS, ERAS)[expected]]
    tensor = table["features"].chunk(0).to_numpy_ndarray()
    np.testing.assert_array_equal(tensor.view(np.uint8), encoded(encoding, expected))


def test_era_is_in_the_shard_of_its_number(opened):
    for number, shard in enumerate(opened):
        assert {int(era) % 5 for era in shard.eras} == {number}
        assert set(shard.column("era").to_pylist()) == set(shard.eras)


@pytest.mark.parametrize("kind", [str, Path])
def test_folder_one_file_glob_and_list_open_the_same_rows(folders, opened, kind):
    folder = folders / "packed"
    expected = numbers_of(opened).tolist()
    with open_shards(kind(folder)) as found:
        assert numbers_of(found).tolist() == expected
    with open_shards(kind(folder / "*.arrow")) as found:
        assert numbers_of(found).tolist() == expected
        assert found.paths == opened.paths
    with open_shards(kind(path) for path in opened.paths) as found:
        assert numbers_of(found).tolist() == expected
    with open_shards(kind(opened.paths[3])) as found:
        assert numbers_of(found).tolist() == numbers_of(opened[3]).tolist()
        assert found.paths == [opened.paths[3]]


def test_glob_opens_what_it_matches_in_the_order_of_names(folders, opened):
    with open_shards(str(folders / "packed" / "shard-0[31].arrow")) as found:
        assert found.paths == [opened.paths[1], opened.paths[3]]
        assert_rows_are_right(found)


def test_list_counts_rows_in_the_order_of_the_list(opened):
    for order in ([4, 0, 2], [1], [3, 2, 1, 0, 4]):
        with open_shards([opened.paths[shard] for shard in order]) as found:
            expected = np.concatenate([numbers_of(opened[shard]) for shard in order])
            assert numbers_of(found).tolist() == expected.tolist()
            assert found.paths == [opened.paths[shard] for shard in order]
            assert_rows_are_right(found)


def test_relative_paths_open_too(folders, monkeypatch):
    monkeypatch.chdir(folders / "packed")
    for path in (".", "shard-02.arrow", "shard-*.arrow", Path("shard-00.arrow")):
        with open_shards(path) as found:
            assert_rows_are_right(found)


def test_folder_with_the_signs_of_a_glob_in_its_name_opens(folder):
    folder = folder.rename(folder.with_name("set [1]*"))
    with open_shards(folder) as found:
        assert found.rows == ROWS
        assert_rows_are_right(found)
        with open_shards(found.paths[2]) as one:
            assert one.paths == [found.paths[2]]


SLICES = [slice(None), slice(1, 3), slice(None, None, 4), slice(None, None, -1), slice(-2, None)]


@pytest.mark.parametrize("chosen", [*SLICES, slice(3, 100)], ids=str)
def test_slice_holds_the_rows_of_its_shards(opened, chosen):
    part = opened[chosen]
    assert part.paths == opened.paths[chosen]
    assert len(part) == len(opened.paths[chosen])
    expected = np.concatenate([numbers_of(opened[shard]) for shard in range(5)[chosen]])
    assert numbers_of(part).tolist() == expected.tolist()
    assert part.rows == len(expected)
    assert_rows_are_right(part)


def test_slice_of_a_slice_is_one_of_its_shards(opened):
    part = opened[::2][1:]
    assert part.paths == [opened.paths[2], opened.paths[4]]
    assert_rows_are_right(part)
    assert part[-1].paths == [opened.paths[4]]


def test_empty_slice_holds_nothing(opened):
    part = opened[5:]
    assert (len(part), part.rows, part.eras, part.paths, part.spans()) == (0, 0, [], [], [])
    assert part.column("id").to_pylist() == []


@pytest.mark.parametrize("shard", range(-5, 5))
def test_shard_is_had_by_its_number_as_in_a_list(opened, shard):
    assert opened[shard].paths == [opened.paths[shard]]
    assert_rows_are_right(opened[shard])


@pytest.mark.parametrize("kind", [np.int64, np.uint8])
def test_number_of_a_shard_may_be_numpys(opened, kind):
    assert opened[kind(3)].paths == [opened.paths[3]]
    assert_rows_are_right(opened[kind(3)])


@pytest.mark.parametrize("shard", [5, -6, 100])
def test_shard_that_is_not_there_is_an_index_error(opened, shard):
    with pytest.raises(IndexError, match=rf"shard {shard}, but .* has 5"):
        opened[shard]


@pytest.mark.parametrize("shard", ["0", 1.0, None])
def test_shard_by_anything_else_is_a_type_error(opened, shard):
    with pytest.raises(TypeError):
        opened[shard]


def test_shards_of_a_set_can_be_gone_through(opened):
    assert [shard.paths[0] for shard in opened] == opened.paths
    assert sum(shard.rows for shard in opened) == ROWS


def test_shard_without_eras_has_no_rows_and_does_no_harm(tmp_path):
    source = write_source(tmp_path / "train.parquet", rows=30, features=FEATURES, eras=[2] * 30)
    with write_shards(source, tmp_path / "set", num_shards=4, progress=False) as shards:
        assert [shard.rows for shard in shards] == [0, 0, 30, 0]
        assert shards[3].eras == []
        assert shards[3].column("era").to_pylist() == []
        assert_rows_are_right(shards)
        shards.verify()


def test_column_is_that_of_all_rows_in_their_order(opened):
    numbers = numbers_of(opened)
    assert opened.column("id").to_pylist() == [f"n{number:015x}" for number in numbers]
    eras = ragged_eras(ROWS, ERAS)
    assert opened.column("era").to_pylist() == [f"{eras[number]:04d}" for number in numbers]
    assert opened.column("data_type").to_pylist() == ["train"] * ROWS
    for name, shift in (("target", 0), ("target_b", 0.5)):
        assert opened.column(name).type == pa.float32()
        np.testing.assert_array_equal(opened.column(name).to_numpy(), numbers + shift)


def test_column_is_not_copied(opened):
    for name in ("id", "era", "target"):
        before = pa.total_allocated_bytes()
        column = opened.column(name)
        assert pa.total_allocated_bytes() == before
        assert column.nbytes > 0


@pytest.mark.parametrize("name", ["features", "feature_000", "target_c", ""])
def test_unknown_column_is_a_feature_error_with_the_known_ones(opened, name):
    with pytest.raises(FeatureError, match="id, era, data_type, target, target_b"):
        opened.column(name)


def test_spans_are_the_record_batches_one_after_another(opened):
    spans = opened.spans()
    assert [row for start, stop in spans for row in range(start, stop)] == list(range(ROWS))
    lengths = [batch.rows for shard in opened.manifest.shards for batch in shard.batches]
    assert [stop - start for start, stop in spans] == lengths
    assert len(spans) == 13  # five shards of 4 or 5 eras, two eras a batch
    eras = opened.column("era").to_pylist()
    assert all(len(set(eras[start:stop])) <= 2 for start, stop in spans)


@each_encoding
def test_gather_is_the_rows_one_by_one(folders, encoding):
    rng = np.random.default_rng(0)
    with open_shards(folders / encoding) as shards:
        for count in (1, 2, 10, 300, ROWS - 1, ROWS):
            assert_rows_are_right(shards, np.sort(rng.permutation(ROWS)[:count]))
        for start, stop in shards.spans():
            for row in (start, stop - 1):
                assert_rows_are_right(shards, np.array([row]))


@each_encoding
@pytest.mark.parametrize("least_bytes", [0, 40])
def test_runs_that_are_read_are_the_rows_that_are_taken(
    monkeypatch, folders, encoding, least_bytes
):
    monkeypatch.setattr("numerai_sequence.reading.row_reader._READ_BYTES", least_bytes)
    rng = np.random.default_rng(1)
    with open_shards(folders / encoding) as shards:
        reads = []
        for file in shards.files:
            monkeypatch.setattr(
                file, "read_into", lambda *a, f=file: (reads.append(1), MappedFile.read_into(f, *a))
            )
        for length in (1, 2, 7, 40):
            starts = rng.permutation(ROWS // length)[: ROWS // length // 2] * length
            rows = np.sort((starts[:, np.newaxis] + np.arange(length)).reshape(-1))
            assert_rows_are_right(shards, rows)
        assert_rows_are_right(shards)
        assert reads


def test_short_reads_are_gone_on_with(monkeypatch, opened):
    preadv = os.preadv
    monkeypatch.setattr("numerai_sequence.reading.row_reader._READ_BYTES", 0)
    monkeypatch.setattr(os, "preadv", lambda fd, parts, at: preadv(fd, [parts[0][:3]], at))
    assert_rows_are_right(opened)


def test_file_that_has_become_shorter_is_an_error_that_names_it(monkeypatch, folder):
    monkeypatch.setattr("numerai_sequence.reading.row_reader._READ_BYTES", 0)
    with open_shards(folder) as shards:
        path = shards.paths[1]
        first = shards[0].rows
        os.truncate(path, shards.files[1].starts["features"][0] + 5)
        with pytest.raises(CorruptShardError, match=r"bytes: found .*at least") as caught:
            shards.row_reader.gather(np.arange(first, first + 100), [])
        assert caught.value.path == path


def test_gather_reads_only_the_targets_asked_for(opened):
    numbers = numbers_of(opened)
    rows = np.arange(0, ROWS, 3)
    assert opened.row_reader.gather(rows, [])[1].shape == (len(rows), 0)
    np.testing.assert_array_equal(
        opened.row_reader.gather(rows, ["target"])[1][:, 0], numbers[rows]
    )
    twice = opened.row_reader.gather(rows, ["target", "target"])[1]
    np.testing.assert_array_equal(twice, np.stack([numbers[rows]] * 2, axis=1))


@each_encoding
def test_gathered_rows_are_a_copy_of_their_own(folders, encoding):
    rows = np.arange(100)
    with open_shards(folders / encoding) as shards:
        first, values = shards.row_reader.gather(rows, ["target"])
        first[:], values[:] = 99, -1
        assert_rows_are_right(shards)
        kept, _ = shards.row_reader.gather(rows, [])
        expected = kept.copy()
    gc.collect()
    np.testing.assert_array_equal(kept, expected)


def reopened(shards):
    return pickle.loads(pickle.dumps(shards))


def test_pickled_set_opens_the_same_shards_anew(opened):
    with open_shards([opened.paths[3], opened.paths[1]]) as listed:
        for shards in (opened, opened[1:4], opened[-1], opened[::2][1:], listed):
            with reopened(shards) as found:
                assert found.paths == shards.paths
                assert found.manifest == shards.manifest
                assert numbers_of(found).tolist() == numbers_of(shards).tolist()
                assert_rows_are_right(found)


def test_pickle_holds_no_rows(opened):
    assert len(pickle.dumps(opened)) < sum(path.stat().st_size for path in opened.paths) / 5


def test_pickled_set_is_open_when_the_first_is_closed(folders):
    with open_shards(folders / "packed") as shards:
        found = reopened(shards)
    with found:
        assert_rows_are_right(found)


def test_unpickling_checks_the_files(folder):
    with open_shards(folder) as shards:
        pickled = pickle.dumps(shards)
        removed = shards.paths[2]
    removed.unlink()
    with pytest.raises(CorruptShardError) as caught:
        pickle.loads(pickled)
    assert caught.value.path == removed


def test_slices_and_columns_stay_open_when_the_set_is_closed(folders):
    with open_shards(folders / "packed") as shards:
        part, column = shards[1:3], shards.column("target")
        expected = numbers_of(shards).tolist()
    gc.collect()
    assert_rows_are_right(part)
    assert column.to_pylist() == expected
    part.close()


def test_closing_a_slice_leaves_the_set_open(opened):
    opened[1].close()
    assert_rows_are_right(opened)


def test_closed_set_gives_no_rows(folders):
    with open_shards(folders / "packed") as shards:
        pass
    shards.close()  # a second time: nothing happens
    closed = pytest.raises(ValueError, match=r"packed.* is closed; open it again")
    with closed:
        shards.row_reader.gather(np.arange(3), ["target"])
    with closed:
        shards.column("id")
    with closed:
        shards[0]
    with closed:
        shards[1:]
    assert (shards.rows, len(shards)) == (ROWS, 5)


def test_with_closes_after_an_error_too(folders):
    with pytest.raises(FeatureError), open_shards(folders / "packed") as shards:
        shards.column("nothing")
    with pytest.raises(ValueError, match="is closed"):
        shards.column("id")


def corrupt(folder):
    """The error that opening the set raises."""
    with pytest.raises(CorruptShardError) as caught:
        open_shards(folder)
    assert str(caught.value).startswith(str(caught.value.path))
    return caught.value


@pytest.mark.parametrize("change", [-1, -8, -1000, 1, 8, 4096])
def test_shard_of_another_size_is_corrupt(folder, change):
    path = folder / "shard-02.arrow"
    size = path.stat().st_size
    os.truncate(path, size + change)
    error = corrupt(folder)
    assert (error.path, error.found, error.expected) == (path, size + change, size)


def test_empty_shard_file_is_corrupt(folder):
    path = folder / "shard-04.arrow"
    size = path.stat().st_size
    os.truncate(path, 0)
    error = corrupt(folder)
    assert (error.path, error.found, error.expected) == (path, 0, size)


def test_missing_shard_is_corrupt(folder):
    path = folder / "shard-00.arrow"
    size = path.stat().st_size
    path.unlink()
    error = corrupt(folder)
    assert error.path == path
    assert "No such file" in error.found
    assert str(size) in error.expected


def test_folder_in_the_place_of_a_shard_is_corrupt(folder):
    path = folder / "shard-03.arrow"
    path.unlink()
    path.mkdir()
    assert corrupt(folder).path == path


@pytest.mark.parametrize("filling", [b"\0", b"\xff", b"ARROW1\0\0"])
def test_file_that_is_no_arrow_file_is_corrupt(folder, filling):
    path = folder / "shard-01.arrow"
    size = path.stat().st_size
    path.write_bytes((filling * size)[:size])
    error = corrupt(folder)
    assert error.path == path
    assert "Arrow" in str(error)


def test_only_the_shards_asked_for_have_to_be_whole(folder):
    with open_shards(folder) as shards:
        paths = shards.paths
    paths[3].unlink()
    with open_shards([path for path in paths if path != paths[3]]) as found:
        assert_rows_are_right(found)


def put_other_shard(folder, tmp_path, *, targets=("target", "target_b"), features=None):
    """Replace a shard by that of a set which differs in the names of its columns only."""
    path = tmp_path / "other.parquet"
    write_source(path, rows=ROWS, features=FEATURES, eras=ERAS, targets=targets)
    options = {"num_shards": 5, "mix_eras": 2, "features": features, "progress": False}
    with write_shards(path, tmp_path / "other", **options) as shards:
        other = shards.paths[2]
    replaced = folder / "shard-02.arrow"
    assert other.stat().st_size == replaced.stat().st_size
    shutil.copyfile(other, replaced)
    return replaced


def test_shard_of_the_same_size_with_other_targets_is_corrupt(folder, tmp_path):
    path = put_other_shard(folder, tmp_path, targets=("target", "target_c"))
    error = corrupt(folder)
    assert error.path == path
    assert "schema" in str(error)


def test_shard_of_the_same_size_with_features_in_another_order_is_corrupt(folder, tmp_path):
    names = [f"feature_{number:03d}" for number in reversed(range(FEATURES))]
    path = put_other_shard(folder, tmp_path, features=names)
    error = corrupt(folder)
    assert error.path == path
    assert "schema" in str(error)


def test_shard_with_its_rows_cut_otherwise_is_corrupt(folder, tmp_path):
    """The same schema and the same size, but other record batches."""
    path = folder / "shard-02.arrow"
    table = pa.ipc.open_file(path).read_all().combine_chunks()
    first, *rest = (batch.num_rows for batch in pa.ipc.open_file(path).read_all().to_batches())
    with pa.ipc.new_file(tmp_path / "cut.arrow", table.schema) as writer:
        start = 0
        for rows in (first - 1, rest[0] + 1, *rest[1:]):
            writer.write_table(table[start : start + rows].combine_chunks())
            start += rows
    put(folder, path.name, (tmp_path / "cut.arrow").read_bytes())
    error = corrupt(folder)
    assert error.path == path
    assert error.found == f"record batch 0: {first - 1} rows, expected {first}"


def test_swapped_shards_are_corrupt(folder):
    one, two = folder / "shard-01.arrow", folder / "shard-02.arrow"
    one.rename(folder / "aside")
    two.rename(one)
    (folder / "aside").rename(two)
    assert corrupt(folder).path == one


def test_damage_anywhere_is_seen_on_opening_or_left_to_verify(tmp_path):
    """No flipped byte of a shard gets out of `open_shards` as another error."""
    source = write_source(tmp_path / "train.parquet", rows=12, features=10, eras=1)
    with write_shards(source, tmp_path / "set", num_shards=1, progress=False) as shards:
        [path] = shards.paths
    content = path.read_bytes()
    seen, others = 0, {}
    for place in range(0, len(content), 3):
        damaged = bytearray(content)
        damaged[place] ^= 0x80
        path.write_bytes(damaged)
        try:
            open_shards(tmp_path / "set").close()
        except Exception as error:
            if isinstance(error, CorruptShardError) and error.path == path:
                seen += 1
            else:
                others[place] = repr(error)
    assert others == {}
    assert seen > 100


def test_whole_set_is_verified_without_a_word(folders, capsys):
    for encoding in ("packed", "int8"):
        with open_shards(folders / encoding) as shards:
            assert shards.verify() is None
            assert shards[::2].verify() is None
    assert capsys.readouterr() == ("", "")


def test_verifying_shows_its_progress_when_asked(opened, capsys):
    opened.verify(progress=True)
    shown = capsys.readouterr()
    assert "verifying" in shown.err
    assert "100%" in shown.err
    assert shown.out == ""


@pytest.mark.parametrize("part", [0.0, 0.3, 0.6, 1.0])
@pytest.mark.parametrize("shard", [0, 2, 4])
def test_one_flipped_byte_is_found_and_its_file_named(folder, shard, part):
    with open_shards(folder) as shards:
        path = shards.paths[shard]
        place = int((path.stat().st_size - 1) * part)
        with open(path, "r+b") as file:
            file.seek(place)
            byte = file.read(1)[0]
            file.seek(place)
            file.write(bytes([byte ^ 1]))
        with pytest.raises(CorruptShardError) as caught:
            shards.verify()
        error = caught.value
        assert error.path == path
        assert str(path) in str(error)
        assert error.expected == shards.manifest.shards[shard].checksum
        assert len(error.found) == 64
        assert error.found != error.expected
        others = [number for number in range(5) if number != shard]
        with open_shards([shards.paths[number] for number in others]) as whole:
            whole.verify()


def test_first_of_several_damaged_files_is_named(folder):
    with open_shards(folder) as shards:
        for shard in (3, 1):
            with open(shards.paths[shard], "r+b") as file:
                file.seek(-1, os.SEEK_END)
                file.write(b"!")
        with pytest.raises(CorruptShardError) as caught:
            shards.verify()
        assert caught.value.path == shards.paths[1]


def test_file_removed_since_opening_is_found_by_verify(folder):
    with open_shards(folder) as shards:
        shards.paths[1].unlink()
        with pytest.raises(CorruptShardError) as caught:
            shards.verify()
        assert caught.value.path == shards.paths[1]


@pytest.mark.parametrize("name", ["shard-05.arrow", "shard-00-1.arrow", "other.arrow"])
def test_leftover_file_is_no_shard(folder, name):
    shutil.copyfile(folder / "shard-00.arrow", folder / name)
    ways = [folder / "*.arrow", folder / name, [folder / "shard-00.arrow", folder / name]]
    for way in ways:
        with pytest.raises(ManifestError, match="does not list it; expected") as caught:
            open_shards(way)
        assert caught.value.path == folder / name
    with open_shards(folder) as shards:
        assert len(shards) == 5


def test_manifest_is_no_shard(folder):
    with pytest.raises(ManifestError) as caught:
        open_shards(str(folder / "*"))
    assert caught.value.path == folder / "manifest.json"


def test_file_without_a_manifest_beside_it_is_no_shard(folder):
    (folder / "manifest.json").unlink()
    for way in (folder, folder / "*.arrow", folder / "shard-00.arrow"):
        with pytest.raises(ManifestError) as caught:
            open_shards(way)
        assert caught.value.path == folder / "manifest.json"


@pytest.mark.parametrize("way", ["nowhere", "set/nothing-*.arrow", "set/shard-99.arrow"])
def test_path_that_leads_nowhere_is_a_manifest_error_that_names_it(folder, way):
    with pytest.raises(ManifestError) as caught:
        open_shards(folder.parent / way)
    assert str(folder.parent / way) in str(caught.value)


def test_empty_list_is_a_manifest_error():
    with pytest.raises(ManifestError, match="no shard file") as caught:
        open_shards([])
    assert caught.value.found == 0


def test_shards_of_two_folders_are_no_set(folders):
    paths = [folders / encoding / "shard-00.arrow" for encoding in ("packed", "int8")]
    with pytest.raises(ManifestError, match="2 folders") as caught:
        open_shards(paths)
    assert caught.value.found == 2


needs_proc = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="no /proc/self/fd")


def open_files():
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


@needs_proc
def test_opening_and_closing_leaks_no_file_descriptor(folders):
    before = open_files()
    for _ in range(50):
        with open_shards(folders / "packed") as shards:
            shards.row_reader.gather(np.arange(0, ROWS, 5), ["target"])
            shards.column("id").to_pylist()
            shards[::2].close()
    assert open_files() == before


@needs_proc
def test_opening_a_damaged_set_leaks_no_file_descriptor(folder):
    os.truncate(folder / "shard-04.arrow", 100)
    before = open_files()
    for _ in range(50):
        corrupt(folder)
    assert open_files() == before


@needs_proc
def test_set_that_is_forgotten_is_closed(folders):
    before = open_files()
    for shards in itertools.starmap(open_shards, [(folders / "packed",)] * 10):
        assert shards.rows == ROWS
    del shards
    assert open_files() == before
