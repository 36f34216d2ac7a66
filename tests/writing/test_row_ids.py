"""Ids: each row of an era is written once, and each era is spelled in one way."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numerai_tables import numerai_table, write_source
from shard_sets import contents, write_set
from tampering import put

from numerai_sequence import SourceError, append_shards, open_shards, write_shards
from numerai_sequence.writing import parquet_reader, row_ids
from numerai_sequence.writing.row_ids import do_differ, find_twice
from numerai_sequence.writing.source_columns import Source

ROWS, ERAS = 300, 9


def save(table, path):
    pq.write_table(table, path, row_group_size=50)
    return path


def with_column(table, name, values):
    return table.set_column(table.column_names.index(name), name, pa.array(values))


def refusal(call, *arguments, **options):
    with pytest.raises(SourceError) as caught:
        call(*arguments, progress=False, **options)
    assert "\n" not in str(caught.value)
    return caught.value


def refused(sources, folder, **options):
    """The error of writing sources; nothing is left."""
    error = refusal(write_shards, sources, folder / "set", **options)
    assert not (folder / "set").exists()
    return error


def rows_of(folder):
    with open_shards(folder) as shards:
        columns = [shards.column(name).to_pylist() for name in ("era", "id", "target")]
    return sorted(zip(*columns, strict=True))


@pytest.mark.parametrize("width", [1, 3, 8, 16, 17, None])
@pytest.mark.parametrize("rows", [0, 1, 2, 60])
def test_strings_that_differ_are_told_from_those_that_do_not(width, rows):
    rng = np.random.default_rng([rows, width or 0])
    for chosen in (2, 8, 10**6):
        numbers = rng.integers(0, chosen, rows)
        texts = [f"{number:0{width or 1}d}"[-(width or 99) :] for number in numbers]
        whole = pa.array(["other", *texts], pa.string())[1:]
        cut = rows // 3
        for column in (whole, pa.chunked_array([whole[:cut], whole[:0], whole[cut:]])):
            assert do_differ(column) == (len(set(texts)) == rows)


def test_texts_of_any_letters_are_told_apart():
    for texts, differ in ((["", ""], False), ([""], True), (["é", "e\u0301"], True), ([], True)):
        assert do_differ(pa.array(texts, pa.string())) == differ


@pytest.mark.parametrize("names", [3, 40, 1000])
def test_the_first_row_that_comes_again_is_found(names):
    rng = np.random.default_rng(names)
    for _ in range(50):
        rows = list(zip(rng.integers(0, 4, 30).tolist(), rng.integers(0, names, 30), strict=True))
        table = pa.table(
            {"era": [f"{era:04d}" for era, _ in rows], "id": [f"n{name}" for _, name in rows]}
        )
        again = [row for row in range(30) if rows[row] in rows[:row]]
        expected = (rows.index(rows[again[0]]), again[0]) if again else None
        assert find_twice(table) == find_twice(table.to_batches()[0]) == expected


# One era in several sources


@pytest.fixture
def table():
    return numerai_table(ROWS, eras=ERAS)


def test_the_same_rows_in_two_files_are_refused(table, tmp_path):
    one, other = (save(table, tmp_path / name) for name in ("train.parquet", "train_int8.parquet"))
    error = refused([one, other], tmp_path)
    assert (error.path, error.column, error.row) == (other, "id", 0)
    for part in (f"era 0001 is also in {one}", "'n000000000000000'", "in row 0; expected each row"):
        assert part in str(error)


@pytest.mark.parametrize("rows_at_once", [1, 70, 1 << 20])
@pytest.mark.parametrize("row", [0, 150, ROWS - 1])
def test_one_row_in_common_is_enough(table, tmp_path, monkeypatch, rows_at_once, row):
    monkeypatch.setattr(row_ids, "_ROWS_AT_ONCE", rows_at_once)
    more = numerai_table(ROWS, eras=ERAS, first_row=1000)
    names = more["id"].to_pylist()
    names[row] = table["id"][row].as_py()
    one = save(table, tmp_path / "a.parquet")
    other = save(with_column(more, "id", names), tmp_path / "b.parquet")
    third = write_source(tmp_path / "c.parquet", rows=40, eras=3, first_row=5000)
    for sources in ([one, third, other], [other, one, third], [third, other, one]):
        error = refused(sources, tmp_path)
        first, second = (path for path in sources if path != third)
        assert (error.path, error.row) == (second, row)
        assert f"era {table['era'][row]} is also in {first}, with this id in row {row}" in str(
            error
        )
        assert repr(names[row]) in str(error)


@pytest.mark.parametrize("link", [None, os.symlink, os.link])
def test_one_file_given_twice_is_refused(table, tmp_path, link):
    path = save(table, tmp_path / "a.parquet")
    again = path
    if link:
        again = tmp_path / "b.parquet"
        link(path, again)
    error = refused([path, again], tmp_path)
    assert error.path == again
    assert f"the same file as {path}; name it once" in str(error)


@pytest.mark.parametrize("rows_at_once", [1, 1 << 20])
def test_an_era_may_be_divided_among_files(table, tmp_path, monkeypatch, rows_at_once):
    monkeypatch.setattr(row_ids, "_ROWS_AT_ONCE", rows_at_once)
    parts = [save(table[start::3], tmp_path / f"{start}.parquet") for start in range(3)]
    whole = save(table, tmp_path / "whole.parquet")
    for sources, out in ((parts, "parts"), (whole, "set")):
        write_shards(sources, tmp_path / out, num_shards=4, progress=False).close()
    assert rows_of(tmp_path / "parts") == rows_of(tmp_path / "set")
    # And so it may when they are refreshed.
    newer = with_column(table, "target", np.arange(ROWS, dtype=np.float32) / 2)
    for start, path in enumerate(parts):
        save(newer[start::3], path)
    found = append_shards(tmp_path / "set", parts, progress=False)
    assert found.corrected == {"target": ROWS - 1}
    write_shards(save(newer, whole), tmp_path / "anew", progress=False).close()
    assert rows_of(tmp_path / "set") == rows_of(tmp_path / "anew")


def test_no_more_is_read_than_the_rows_in_question(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_reader, "_BATCH_ROWS", 10)
    sources = [
        write_source(tmp_path / f"{part}.parquet", rows=ROWS, eras=ERAS, first_row=part * ROWS)
        for part in range(2)
    ]
    more = numerai_table(5, eras=[1] * 5)
    save(pa.concat_tables([more, pq.read_table(sources[0]).slice(5)]), sources[1])
    read, rows = Source.iter_meta, []

    def counted(*arguments):
        for table in read(*arguments):
            rows.append(table.num_rows)
            yield table

    monkeypatch.setattr(Source, "iter_meta", counted)
    monkeypatch.setattr(row_ids, "_ROWS_AT_ONCE", 1)
    assert refused(sources, tmp_path).row == 0
    assert sum(rows) < ROWS / 2


def test_live_files_of_two_rounds_are_one_set(tmp_path):
    options = {"rows": 40, "era_names": "X", "data_type": "live"}
    one = write_source(tmp_path / "a.parquet", **options)
    other = write_source(tmp_path / "b.parquet", first_row=40, **options)
    with write_shards([one, other], tmp_path / "set", progress=False) as shards:
        assert shards.era_rows == {"X": 80}
    error = refused(
        [one, write_source(tmp_path / "c.parquet", first_row=39, **options)], tmp_path / "c"
    )
    assert f"era X is also in {one}, with this id in row 39" in str(error)


# One row twice in a source


@pytest.mark.parametrize("mix_eras", [None, 1, 4])
@pytest.mark.parametrize("executor", [False, True])
def test_a_row_that_is_twice_in_a_file_is_refused(table, tmp_path, mix_eras, executor):
    path = save(pa.concat_tables([table, table[200:202]]), tmp_path / "a.parquet")
    fine = write_source(tmp_path / "b.parquet", rows=50, first_row=900, eras=4)
    with ThreadPoolExecutor(2) as pool:
        error = refused(
            [fine, path], tmp_path, mix_eras=mix_eras, executor=pool if executor else None
        )
    assert (error.path, error.column, error.row) == (path, "id", ROWS)
    era = table["era"][200].as_py()
    assert f"found id 'n0000000000000c8' of era {era} again, which is in row 200 too" in str(error)


@pytest.mark.parametrize("text", ["", "a", "é" * 100, "n00000000000000c"])
def test_two_rows_of_any_id_are_refused_in_one_era(table, tmp_path, text):
    names = table["id"].to_pylist()
    names[3] = names[7] = text
    error = refused(save(with_column(table, "id", names), tmp_path / "a.parquet"), tmp_path)
    assert error.row == 7
    assert "which is in row 3 too; expected each id once in an era" in str(error)


def test_what_is_there_stays_where_rows_are_refused(table, tmp_path):
    folder = write_set(tmp_path, rows=ROWS)
    before = contents(folder)
    path = save(pa.concat_tables([table, table[:1]]), tmp_path / "a.parquet")
    assert refusal(write_shards, path, folder, overwrite=True).row == ROWS
    assert contents(folder) == before
    assert not (folder / ".writing").exists()


def tickers(table):
    """The same ids in each era."""
    eras = table["era"].to_pylist()
    return with_column(table, "id", [f"t{row - eras.index(era)}" for row, era in enumerate(eras)])


@pytest.mark.parametrize("mix_eras", [None, 1])
def test_an_id_may_come_again_in_other_eras_and_be_refreshed(table, tmp_path, mix_eras):
    table = tickers(table)
    path = save(table, tmp_path / "a.parquet")
    write_shards(path, tmp_path / "set", num_shards=2, mix_eras=mix_eras, progress=False).close()
    targets = np.arange(ROWS, dtype=np.float32)
    assert [target for *_, target in rows_of(tmp_path / "set")] != targets.tolist()
    newer = with_column(table, "target", targets[::-1] * 3)
    found = append_shards(tmp_path / "set", save(newer, path), progress=False)
    assert found.corrected == {"target": ROWS - int((targets == targets[::-1] * 3).sum())}
    expected = zip(*(newer[name].to_pylist() for name in ("era", "id", "target")), strict=True)
    assert rows_of(tmp_path / "set") == sorted(expected)
    names = newer["id"].to_pylist()
    names[150] = "t900"
    error = refusal(append_shards, tmp_path / "set", save(with_column(newer, "id", names), path))
    assert f"id 't900' of era {newer['era'][150]} is not in the set" in str(error)


def with_a_row_twice(folder, *, era):
    """A set as older versions wrote it: the first row of an era's record batch is there twice."""
    with open_shards(folder) as shards:
        [path] = [
            part.paths[0]
            for part in map(shards.__getitem__, range(len(shards)))
            if era in part.eras
        ]
        eras, names = (shards.column(name).to_pylist() for name in ("era", "id"))
    one, other = [name for name, of in zip(names, eras, strict=True) if of == era][:2]
    put(folder, path.name, path.read_bytes().replace(other.encode(), one.encode()))
    return one


def test_a_set_with_a_row_twice_is_read_and_refreshed_but_for_that_era(tmp_path):
    folder = write_set(tmp_path, rows=ROWS, eras=ERAS, num_shards=3)
    name = with_a_row_twice(folder, era="0002")
    with open_shards(folder) as shards:
        shards.verify()
        assert shards.column("id").to_pylist().count(name) == 2
    newer = numerai_table(ROWS, eras=ERAS)
    newer = with_column(newer, "target", np.arange(ROWS, dtype=np.float32) + 1)
    others = newer.filter(pa.array([era != "0002" for era in newer["era"].to_pylist()]))
    found = append_shards(folder, save(others, tmp_path / "b.parquet"), progress=False)
    assert found.corrected == {"target": others.num_rows}
    before = contents(folder)
    error = refusal(append_shards, folder, save(newer, tmp_path / "c.parquet"))
    assert f"found id {name!r} of era 0002 twice in the set; write the set again" in str(error)
    assert contents(folder) == before


def test_a_set_with_rows_twice_opens_by_its_sources(tmp_path):
    """It was written before rows were looked at, and is opened as it is."""
    path = save(numerai_table(ROWS, eras=ERAS), tmp_path / "train.parquet")
    write_shards(path, tmp_path / "set", num_shards=3, progress=False).close()
    with_a_row_twice(tmp_path / "set", era="0001")
    with write_shards(path, tmp_path / "set", num_shards=3, progress=False) as shards:
        assert shards.rows == ROWS


# One era in two spellings

PAIRS = [("0001", "1"), ("1", "0001"), ("0001", "era1"), ("01", "era0001"), ("era1", "era01")]


@pytest.mark.parametrize(("one", "other"), PAIRS)
@pytest.mark.parametrize("place", ["one file", "two files", "a set"])
def test_one_number_in_two_spellings_is_refused(tmp_path, place, one, other):
    tables = [
        numerai_table(20, eras=[0] * 20, era_names=era, first_row=100 * part)
        for part, era in enumerate(["0007", one, "X", other])
    ]
    first, second = tmp_path / "first.parquet", tmp_path / "second.parquet"
    save(pa.concat_tables(tables[:2]), first)
    save(pa.concat_tables(tables[2:]), second)
    if place == "one file":
        second = save(pa.concat_tables(tables), second)
        error = refused([second], tmp_path)
        spellings, where = {one, other}, "this file too"
    elif place == "two files":
        error = refused([first, second], tmp_path)
        spellings, where = {one, other}, f"in {first};"
    else:
        write_shards(first, tmp_path / "set", progress=False).close()
        before = contents(tmp_path / "set")
        for options in ({"dry_run": True}, {}):
            error = refusal(append_shards, tmp_path / "set", second, **options)
        assert contents(tmp_path / "set") == before
        spellings, where = {one, other}, f"in the set {tmp_path / 'set'};"
    assert (error.path, error.column, error.row) == (second, "era", None)
    assert where in str(error)
    assert all(f"era {spelling!r}" in str(error) for spelling in spellings)


def test_texts_that_are_no_numbers_are_eras_of_their_own(tmp_path):
    eras = ["0001", "", "X", "eraX", "²", "-1", "1.5", "1 0", "era", "9" * 5000, "1\0"]
    tables = [
        numerai_table(5, eras=[0] * 5, era_names=era, first_row=10 * part)
        for part, era in enumerate(eras)
    ]
    path = save(pa.concat_tables(tables), tmp_path / "a.parquet")
    with write_shards(path, tmp_path / "set", progress=False) as shards:
        assert shards.era_rows == dict.fromkeys(eras, 5)
    assert not append_shards(tmp_path / "set", path, progress=False).is_needed


@pytest.mark.parametrize("era", ["1.0", " 0001", "0001 ", "+1", "Era1", "ERA 1", "1\n", "\uff11"])
def test_a_number_in_yet_other_spellings_is_refused(tmp_path, era):
    names = {"0001": "a.parquet", era: "b.parquet"}
    one, other = (
        save(numerai_table(5, eras=[0] * 5, era_names=name, first_row=10 * part), tmp_path / file)
        for part, (name, file) in enumerate(names.items())
    )
    with pytest.raises(SourceError, match="expected one spelling of an era"):
        write_shards([one, other], tmp_path / "both", progress=False)
    write_shards(one, tmp_path / "set", progress=False).close()
    with pytest.raises(SourceError, match="expected one spelling of an era"):
        append_shards(tmp_path / "set", other, progress=False)
    with pytest.raises(TypeError, match="overwrite: found 'False', expected True or False"):
        write_shards(other, tmp_path / "set", overwrite="False", progress=False)


def test_eras_that_are_in_one_source_each_are_not_read_again(tmp_path, monkeypatch):
    sources = [
        write_source(tmp_path / f"{part}.parquet", rows=90, eras=np.repeat([part, part + 4], 45),
                     first_row=100 * part)
        for part in range(3)
    ]  # fmt: skip
    read, calls = row_ids._read_rows, []
    monkeypatch.setattr(row_ids, "_read_rows", lambda *what: calls.append(what) or read(*what))
    write_shards(sources, tmp_path / "set", progress=False).close()
    append_shards(tmp_path / "set", sources, progress=False)
    assert calls == []
