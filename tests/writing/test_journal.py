"""Journal: a run that was interrupted continues, and makes what it would have made."""

from __future__ import annotations

import json
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from numerai_tables import write_features_json, write_source
from shard_sets import contents

from numerai_sequence import OutputExistsError, SourceError, open_shards, write_shards
from numerai_sequence.format.layout import BatchInfo, Shard, SourceFile
from numerai_sequence.writing import journal, writer
from numerai_sequence.writing.journal import Journal, Progress
from numerai_sequence.writing.scratch import Scratch
from numerai_sequence.writing.source_columns import Source

ROWS, GROUP, SHARDS = 900, 150, 3
READS = 4 * ROWS // GROUP  # blocks of all chunks


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(writer, "BLOCK_BYTES", 20 * GROUP)


@pytest.fixture
def train(tmp_path):
    path = tmp_path / "train.parquet"
    options = {"rows": ROWS, "features": 60, "row_group_rows": GROUP, "missing_target": True}
    return write_source(path, **options)


def write(source, out, **options):
    write_shards(source, out, **{"num_shards": SHARDS, "progress": False, **options}).close()
    return out


@pytest.fixture
def whole(train, tmp_path):
    """The set of a run that was not interrupted."""
    return contents(write(train, tmp_path / "whole"))


class Calls:
    """Counts the calls of a function, and has the one of number `fatal` interrupted."""

    def __init__(self, monkeypatch, owner, name, fatal=None):
        function = getattr(owner, name)
        self.count = 0

        def counted(*arguments, **options):
            self.count += 1
            if self.count == fatal:
                raise KeyboardInterrupt
            return function(*arguments, **options)

        monkeypatch.setattr(owner, name, counted)


def interrupt(source, out, owner, name, call, **options):
    """Press Ctrl-C when a function is called for that time."""
    with pytest.MonkeyPatch.context() as patch:
        Calls(patch, owner, name, call)
        with pytest.raises(KeyboardInterrupt):
            write(source, out, **options)
    return out


def reads_to_end(source, out, **options):
    """Write again; return how many blocks of features were read."""
    with pytest.MonkeyPatch.context() as patch:
        calls = Calls(patch, Source, "read_features")
        write(source, out, **options)
    assert not (out / ".writing").exists()
    return calls.count


def stamps(folder):
    status = {path.name: path.stat() for path in folder.glob("*.arrow")}
    return {name: (s.st_ino, s.st_mtime_ns) for name, s in status.items()}


@pytest.mark.parametrize("call", [1, 2, 7, 13, READS])
def test_blocks_that_are_in_scratch_are_not_read_again(train, whole, tmp_path, call):
    out = interrupt(train, tmp_path / "out", Source, "read_features", call)
    assert (out / ".writing").is_dir()
    # The block before may be encoded by the time of the interrupt, or not.
    assert reads_to_end(train, out) in (READS - call + 1, READS - call + 2)
    assert contents(out) == whole


@pytest.mark.parametrize("call", range(1, 18, 3))
def test_other_columns_that_were_half_added_are_added_once(train, whole, tmp_path, call):
    out = interrupt(train, tmp_path / "out", Scratch, "add_meta", call)
    write(train, out)
    assert contents(out) == whole


@pytest.mark.parametrize("encoding", ["packed", "int8"])
def test_shards_that_are_sealed_are_not_written_again(train, tmp_path, encoding):
    whole = contents(write(train, tmp_path / "whole", encoding=encoding))
    out = tmp_path / "out"
    interrupt(train, out, Scratch, "read_meta", SHARDS, encoding=encoding)
    sealed = stamps(out / ".writing")
    assert len(sealed) == SHARDS
    assert reads_to_end(train, out, encoding=encoding) == 0
    kept = {name for name, stamp in stamps(out).items() if sealed[name] == stamp}
    assert kept == set(sorted(sealed)[: SHARDS - 1])
    assert contents(out) == whole


def test_what_is_missing_of_sealed_shards_is_not_forgotten(train, tmp_path):
    out = interrupt(train, tmp_path / "out", os, "replace", 1)
    assert reads_to_end(train, out) == 0
    with open_shards(out) as shards:
        assert shards.missing == {target: len(range(3, ROWS, 7)) for target in shards.targets}


def test_feature_sets_are_those_at_the_end(train, tmp_path):
    write_features_json(train.parent / "features.json", old=["feature_001"])
    out = interrupt(train, tmp_path / "out", Source, "read_features", 9)
    names = {"new": ["feature_007", "feature_002"], "gone": ["feature_xyz"]}
    write_features_json(train.parent / "features.json", **names)
    assert reads_to_end(train, out) < READS
    assert contents(out) == contents(write(train, tmp_path / "whole"))
    with open_shards(out) as shards:
        assert shards.feature_sets == {"new": ("feature_007", "feature_002")}


@pytest.mark.parametrize("call", range(1, SHARDS + 2))
def test_a_commit_that_was_interrupted_is_done_again(train, whole, tmp_path, call):
    out = interrupt(train, tmp_path / "out", os, "replace", call)
    assert os.listdir(out) == [".writing"]
    sealed = stamps(out / ".writing")
    assert reads_to_end(train, out) == 0
    assert stamps(out) == sealed
    assert contents(out) == whole


def test_a_set_that_is_replaced_stays_whole_meanwhile(train, tmp_path):
    out = write(train, tmp_path / "out", seed=1)
    before = contents(out)
    interrupt(train, out, Source, "read_features", 9, overwrite=True)
    assert contents(out) == before
    with pytest.raises(OutputExistsError, match="seed=1"):
        write(train, out)
    assert contents(out) == before
    assert reads_to_end(train, out, overwrite=True) < READS


def test_a_set_that_is_there_is_opened_and_the_rest_removed(train, whole, tmp_path):
    out = write(train, tmp_path / "out")
    interrupt(train, out, Source, "read_features", 9, overwrite=True)
    assert reads_to_end(train, out) == 0
    assert contents(out) == whole


def test_a_run_may_be_interrupted_many_times(train, whole, tmp_path):
    out, runs = tmp_path / "out", 0
    while not (out / "manifest.json").exists():
        runs += 1
        with pytest.MonkeyPatch.context() as patch, suppress(KeyboardInterrupt):
            Calls(patch, Source, "read_features", 4)
            write(train, out)
    assert READS // 3 <= runs <= READS // 2 + 1
    assert contents(out) == whole


def other_time(train):
    os.utime(train, (1, 1))


def other_rows(train):
    stamp = train.stat().st_mtime_ns
    write_source(train, rows=ROWS + 1, features=60, row_group_rows=GROUP)
    os.utime(train, ns=(stamp, stamp))


def other_size(train):
    stamp = train.stat().st_mtime_ns
    pq.write_table(pq.read_table(train), train, row_group_size=GROUP, compression="none")
    os.utime(train, ns=(stamp, stamp))


@pytest.mark.parametrize("change", [other_time, other_rows, other_size])
def test_a_source_that_has_changed_is_read_anew(train, tmp_path, change):
    out = interrupt(train, tmp_path / "out", Source, "read_features", 9)
    change(train)
    assert reads_to_end(train, out) >= READS
    whole = contents(write(train, tmp_path / "whole"))
    assert contents(out) == whole


@pytest.mark.parametrize(
    "options",
    [
        {"seed": 1},
        {"encoding": "int8"},
        {"num_shards": 2},
        {"mix_eras": 1},
        {"targets": ["target"]},
        {"features": [f"feature_{number:03d}" for number in reversed(range(60))]},
    ],
)
def test_other_options_begin_anew(train, tmp_path, options):
    out = interrupt(train, tmp_path / "out", Source, "read_features", 9)
    assert reads_to_end(train, out, **options) == READS
    assert contents(out) == contents(write(train, tmp_path / "whole", **options))


def test_another_version_begins_anew(train, whole, tmp_path, monkeypatch):
    out = interrupt(train, tmp_path / "out", Source, "read_features", 9)
    monkeypatch.setattr("numerai_sequence.writing.write_plan.__version__", "0.0")
    assert reads_to_end(train, out) == READS
    assert contents(out) == whole


def test_an_error_removes_what_an_interrupted_run_has_left(train, tmp_path, monkeypatch):
    out = interrupt(train, tmp_path / "out", Source, "read_features", 9)

    def fail(*arguments):
        raise SourceError("broken", path=train)

    monkeypatch.setattr(Source, "digits", fail)
    with pytest.raises(SourceError):
        write(train, out)
    assert os.listdir(out) == []


def boot_of(tmp_path, monkeypatch, text):
    path = tmp_path / "boot_id"
    path.write_text(text) if text else path.unlink(missing_ok=True)
    monkeypatch.setattr(journal, "_BOOT_ID", path)


@pytest.mark.parametrize(("before", "after"), [("a", "b"), ("", ""), ("a", ""), ("", "a")])
def test_scratch_does_not_outlive_a_restart(train, whole, tmp_path, monkeypatch, before, after):
    for owner, name, call in [(Source, "read_features", 9), (Scratch, "read_meta", SHARDS)]:
        boot_of(tmp_path, monkeypatch, before)
        out = interrupt(train, tmp_path / f"out{call}", owner, name, call)
        boot_of(tmp_path, monkeypatch, after)
        assert reads_to_end(train, out) == READS
        assert contents(out) == whole


def test_sealed_shards_outlive_a_restart(train, whole, tmp_path, monkeypatch):
    boot_of(tmp_path, monkeypatch, "a")
    out = interrupt(train, tmp_path / "out", os, "replace", 1)
    sealed = stamps(out / ".writing")
    boot_of(tmp_path, monkeypatch, "b")
    assert reads_to_end(train, out) == 0
    assert stamps(out) == sealed
    assert contents(out) == whole


def cut_off(path):
    os.truncate(path, path.stat().st_size - 8)


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "boot"), [(cut_off, "a"), (cut_off, "b"), (flip, "b"), (Path.unlink, "a")]
)
def test_a_sealed_shard_that_is_damaged_has_all_begun_anew(
    train, whole, tmp_path, monkeypatch, damage, boot
):
    boot_of(tmp_path, monkeypatch, "a")
    out = interrupt(train, tmp_path / "out", os, "replace", 1)
    boot_of(tmp_path, monkeypatch, boot)
    damage(out / ".writing" / "shard-01.arrow")
    assert reads_to_end(train, out) == READS
    assert contents(out) == whole


@pytest.mark.parametrize("torn", [1, 5, 30, 300])
@pytest.mark.parametrize("tail", [b"", b'{"done": "bl', b"\0\0\0\0", b"[]\n", b"{}\n\xff\n"])
def test_a_torn_line_is_left_out(train, whole, tmp_path, torn, tail):
    out = interrupt(train, tmp_path / "out", Source, "read_features", 13)
    notes = out / ".writing" / "source-00000" / "steps.jsonl"
    notes.write_bytes(notes.read_bytes()[:-torn] + tail)
    interrupt(train, out, Source, "read_features", 3)
    assert 0 < reads_to_end(train, out) < READS - 4
    assert contents(out) == whole


def test_progress_goes_on_from_where_it_stood(train, tmp_path, capsys):
    out = interrupt(train, tmp_path / "out", Source, "read_features", 13)
    capsys.readouterr()
    write(train, out, progress=True)
    shown = re.split("[\r\n]+", capsys.readouterr().err)
    assert shown.count(f"{out}: continuing an interrupted run") == 1
    first, *_, last = [line for line in shown if line.startswith("reading train.parquet")]
    assert re.search(r"4\d\d/900 ", first)
    assert "100%" in last
    assert "900/900" in last


def test_nothing_is_said_without_progress_or_before_the_first_step(train, tmp_path, capfd):
    out = interrupt(train, tmp_path / "out", Source, "read_features", 9)
    write(train, out)
    assert capfd.readouterr() == ("", "")
    write(train, tmp_path / "new", progress=True)
    assert "continuing" not in capfd.readouterr().err


def test_two_runs_do_not_write_into_one_folder(train, whole, tmp_path):
    fcntl = pytest.importorskip("fcntl")
    out = interrupt(train, tmp_path / "out", Source, "read_features", 9)
    other = os.open(out / ".writing", os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_SH)
    before = contents(out / ".writing")
    with pytest.raises(OutputExistsError, match="another process") as caught:
        write(train, out, overwrite=True)
    assert caught.value.path == out
    assert contents(out / ".writing") == before
    os.close(other)
    assert reads_to_end(train, out) < READS
    assert contents(out) == whole


BATCH = BatchInfo(3, {"0002": 2, "X": 1}, {"a": 3}, {"target": 2})
SOURCE = SourceFile("train.parquet", 5, 7, 3, "no checksum")
SHARD = Shard("shard-00.arrow", 4, 3, "no checksum", (BATCH,))


def test_what_was_noted_is_found_again(tmp_path, monkeypatch):
    boot_of(tmp_path, monkeypatch, "a")
    folder = tmp_path / "writing"
    folder.mkdir()
    with Journal(folder, "run", 2) as noted:
        assert noted.done == Progress()
        noted.add_meta(0, {0: 10, 1: 20})
        noted.add_block(0, 0)
        noted.add_meta(1, {1: 30})
        noted.add_source(0, SOURCE)
        noted.add_shard(0, SHARD)
    (folder / "shard-00.arrow").write_bytes(b"1234")
    with Journal(folder, "run", 2) as found:
        assert found.done == Progress({0, 1}, {0: 10, 1: 30}, {(0, 0)}, {0: SOURCE}, {0: SHARD})
        found.add_block(0, 1)
    with Journal(folder, "run", 2) as found:
        assert found.done.blocks == {(0, 0), (0, 1)}
    with Journal(folder, "another run", 2) as found:
        assert found.done == Progress()
    assert os.listdir(folder) == ["steps.jsonl"]
    assert len((folder / "steps.jsonl").read_text().splitlines()) == 1


def test_any_beginning_of_the_notes_is_of_use(tmp_path, monkeypatch):
    boot_of(tmp_path, monkeypatch, "a")
    folder = tmp_path / "writing"
    folder.mkdir()
    with Journal(folder, "run", 2) as noted:
        for chunk in range(3):
            noted.add_meta(chunk, {chunk: 10})
            noted.add_block(chunk, 0)
    notes = (folder / "steps.jsonl").read_bytes()
    for size in range(len(notes)):
        copy = Path(shutil.copytree(folder, tmp_path / f"copy{size}"))
        (copy / "steps.jsonl").write_bytes(notes[:size])
        with Journal(copy, "run", 2) as found:
            lines = max(0, notes[:size].count(b"\n") - 1)
            assert len(found.done.meta) == (lines + 1) // 2
            assert len(found.done.blocks) == lines // 2
            found.add_block(7, 7)
        with Journal(copy, "run", 2) as found:
            assert (7, 7) in found.done.blocks
        for line in (copy / "steps.jsonl").read_bytes().splitlines():
            json.loads(line)
