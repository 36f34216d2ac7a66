"""Sync: one call creates a set or brings it up to date; and the second week's error names it."""

from __future__ import annotations

import json
import shutil

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from numerai_tables import numerai_table, ragged_eras

from numerai_sequence import (
    OutputExistsError,
    SourceError,
    append_shards,
    open_shards,
    sync_shards,
    write_shards,
)
from numerai_sequence.checks import digest
from numerai_sequence.commands.main import main
from numerai_sequence.writing import writer

OPTIONS = {"num_shards": 2, "progress": False}
LAST = 16


def validation_of(last, missing=0):
    """The file once its newest era is `last`, of which the newest ones have no targets yet."""
    eras = ragged_eras(200, 10, 11)
    table = numerai_table(200, eras=eras, first_row=100, data_type="validation")
    table = table.filter(pc.less_equal(table["era"], f"{last:04d}"))
    is_new = pc.greater(table["era"], f"{last - missing:04d}")
    for name in ("target", "target_b"):
        place = table.column_names.index(name)
        values = pc.if_else(is_new, pa.scalar(None, pa.float32()), table[name])
        table = table.set_column(place, name, values)
    return table


def live_of(era):
    table = validation_of(20)
    rows = table.filter(pc.equal(table["era"], era))
    return rows.set_column(0, "era", pa.array(["X"] * len(rows)))


@pytest.fixture
def files(tmp_path):
    train, validation = tmp_path / "train.parquet", tmp_path / "validation.parquet"
    pq.write_table(numerai_table(100, eras=10), train)
    pq.write_table(validation_of(LAST, missing=2), validation)
    return [train, validation]


@pytest.fixture
def folder(files, tmp_path):
    write_shards(files, tmp_path / "set", **OPTIONS).close()
    return tmp_path / "set"


def grow(files, last=LAST + 2):
    pq.write_table(validation_of(last), files[1])


def rows_of(shards):
    names = ("id", "era", "data_type", "target", "target_b")
    return sorted(zip(*(shards.column(name).to_pylist() for name in names), strict=True))


def said(capsys):
    return [line for line in capsys.readouterr().err.splitlines() if ": " in line][-1]


def test_one_call_creates_and_refreshes_and_says_which(files, tmp_path, capsys):
    out, options = tmp_path / "set", {**OPTIONS, "progress": True}
    sync_shards(files, out, **options).close()
    assert said(capsys) == f"{out}: created"
    sync_shards(files, out, **options).close()
    assert said(capsys) == f"{out}: is up to date"
    grow(files)
    with sync_shards(files, out, **options) as shards:
        assert shards.eras[-1] == f"{LAST + 2:04d}"
        assert shards.missing == {}
        with write_shards(files, tmp_path / "anew", **OPTIONS) as anew:
            assert rows_of(shards) == rows_of(anew)
    assert said(capsys) == f"{out}: added 2 eras, filled 2 targets"
    sync_shards(files[1], out, **options).close()
    assert said(capsys) == f"{out}: is up to date"
    grow(files, 20)
    with sync_shards(files[1], out, **options) as shards:
        assert len(shards.eras) == 20
    assert said(capsys) == f"{out}: added 2 eras"


@pytest.mark.parametrize("is_new", [True, False])
def test_an_interrupted_sync_goes_on(files, tmp_path, monkeypatch, is_new):
    out = tmp_path / "set"
    if not is_new:
        sync_shards(files, out, **OPTIONS).close()
        grow(files)

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    for module in (writer, __import__("numerai_sequence.refreshing.refresh", fromlist=["x"])):
        monkeypatch.setattr(module, "seal_all", interrupt)
    with pytest.raises(KeyboardInterrupt):
        sync_shards(files, out, **OPTIONS)
    monkeypatch.undo()
    with sync_shards(files, out, **OPTIONS) as shards, pq.ParquetFile(files[1]) as newer:
        assert shards.rows == 100 + newer.metadata.num_rows
        shards.verify()
    assert not (out / ".writing").exists()


def test_other_options_are_refused_by_name(files, folder):
    options = {"num_shards": 3, "encoding": "int8", "progress": False}
    for call in (sync_shards, write_shards):
        with pytest.raises(OutputExistsError) as caught:
            call(files, folder, **options)
        assert "num_shards=2, not 3, and encoding='packed', not 'int8'" in str(caught.value)
        assert "overwrite=True" in str(caught.value)
    with sync_shards(files, folder, overwrite=True, **options) as shards:
        assert (len(shards), shards.encoding) == (3, "int8")


@pytest.mark.parametrize("is_refreshed", [False, True])
def test_a_set_whose_files_grew_names_the_call(files, folder, is_refreshed):
    if is_refreshed:
        grow(files)
        append_shards(folder, files[1], progress=False)
    grow(files, 20)
    with pytest.raises(OutputExistsError) as caught:
        write_shards(files, folder, **OPTIONS)
    message = str(caught.value)
    assert f"append_shards({str(folder)!r}, {str(files[1])!r})" in message
    assert f"and lacks {2 if is_refreshed else 4} eras of these" in message
    assert "sync_shards" in message
    assert "overwrite" not in message
    append_shards(str(folder), str(files[1]), progress=False)
    with open_shards(folder) as shards:
        assert len(shards.eras) == 20


@pytest.mark.parametrize("grows", [False, True])
def test_a_copied_file_is_told_apart(files, folder, grows):
    if grows:
        grow(files)
    copy = shutil.copy(files[1], folder.parent / "copy.parquet")
    with pytest.raises(
        OutputExistsError, match=r"copy\.parquet is a copy of .*validation\.parquet"
    ):
        write_shards([*files, copy], folder, **OPTIONS)
    with pytest.raises(SourceError, match=r"also in .*validation\.parquet"):
        sync_shards([*files, copy], folder, **OPTIONS)


def test_an_overlapping_file_is_told_apart(files, folder):
    part = folder.parent / "part.parquet"
    pq.write_table(validation_of(LAST - 1), part)
    with pytest.raises(OutputExistsError, match=r"era 0011 is also in .*; leave one of the files"):
        write_shards([*files, part], folder, **OPTIONS)


def test_an_era_of_other_rows_is_no_growth(files, folder):
    pq.write_table(validation_of(LAST + 1).slice(3), files[1])
    with pytest.raises(
        OutputExistsError, match=r"\d+ rows of era 0011, expected \d+ as in the set"
    ):
        write_shards(files, folder, **OPTIONS)


def test_live_rows_are_not_added_again_under_their_number(files, folder):
    live = folder.parent / "live.parquet"
    pq.write_table(live_of("0018"), live)
    append_shards(folder, live, progress=False)
    grow(files, 17)
    assert append_shards(folder, files[1], progress=False).eras == ("0017",)
    grow(files, 18)
    before = (folder / "manifest.json").read_bytes()
    with pytest.raises(
        SourceError, match=r"has era '0018' and era 'X'.*without the file of that era"
    ):
        append_shards(folder, files[1], progress=False)
    assert (folder / "manifest.json").read_bytes() == before


def test_rows_of_a_known_era_are_not_added_as_live_rows(files, folder):
    live = folder.parent / "live.parquet"
    pq.write_table(live_of("0015"), live)
    with pytest.raises(SourceError, match=r"has era '0015' and era 'X'.*leave out the rows"):
        append_shards(folder, live, progress=False)


def test_ids_that_come_in_every_era_may_come_in_live_rows_too(tmp_path):
    table = numerai_table(60, eras=[*range(1, 7)] * 10)
    ids = pa.array([f"ticker{row // 6}" for row in range(60)])
    table = table.set_column(table.column_names.index("id"), "id", ids)
    path, era = tmp_path / "some.parquet", table["era"]
    pq.write_table(table.filter(pc.less(era, "0005")), path)
    write_shards(path, tmp_path / "set", **OPTIONS).close()
    rows = table.filter(pc.equal(era, "0005"))
    pq.write_table(rows.set_column(0, "era", pa.array(["X"] * 10)), path)
    assert append_shards(tmp_path / "set", path, progress=False).eras == ("X",)
    pq.write_table(table.filter(pc.equal(era, "0006")), path)
    assert append_shards(tmp_path / "set", path, progress=False).eras == ("0006",)


def test_the_plan_tells_of_rows_without_a_data_type(files, folder):
    newer = validation_of(LAST + 1).drop_columns(["data_type"])
    pq.write_table(newer.filter(pc.equal(newer["era"], "0017")), files[1])
    found = append_shards(folder, files[1], progress=False)
    assert found.without_data_type == found.rows > 0
    assert f"{found.rows} of them have no data type, so data_type='train' leaves" in str(found)


def test_keys_that_are_not_known_stay(files, folder):
    path = folder / "manifest.json"
    document = json.loads(path.read_text())
    document |= {"later": {"a": [1]}, "others": 3}
    document["checksum"] = digest({k: v for k, v in document.items() if k != "checksum"})
    path.write_text(json.dumps(document))
    grow(files)
    sync_shards(files, folder, **OPTIONS).close()
    found = json.loads(path.read_text())
    assert (found["later"], found["others"]) == ({"a": [1]}, 3)


def test_the_command_creates_plans_and_refreshes(files, tmp_path):
    out = tmp_path / "set"

    def run(*options):
        arguments = ["sync", *map(str, files), "--out", str(out), "--num-shards", "2", "--quiet"]
        return CliRunner().invoke(main, [*arguments, *options])

    assert f"{out}: would be created from" in run("--dry-run").stdout
    assert not out.exists()
    assert run().stdout.startswith(f"{out}: created\n")
    grow(files)
    before = (out / "manifest.json").read_bytes()
    shown = run("--dry-run").stdout.splitlines()
    assert shown[0] == f"{out}: would have added 2 eras, filled 2 targets"
    assert (out / "manifest.json").read_bytes() == before
    assert run().stdout.startswith(f"{out}: added 2 eras, filled 2 targets\n")
    assert run().stdout.startswith(f"{out}: is up to date\n")
    refused = run("--seed", "4")
    assert refused.exit_code == 1
    assert "seed=0, not 4" in refused.stderr


def test_the_same_call_serves_in_both_weeks(files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for last in (LAST, LAST + 2):
        grow(files, last)
        with sync_shards(["train.parquet", "validation.parquet"], "shards/") as shards:
            assert shards.eras[-1] == f"{last:04d}"
