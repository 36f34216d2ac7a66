"""Faults while writing: the old set or the new one is there, and the error says what happened."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from campaign_runs import ROOT, run_campaign
from click.testing import CliRunner
from numerai_tables import numerai_table, write_source
from small_disks import leave_free, small_disk

from numerai_sequence import (
    CorruptShardError,
    NumeraiSequenceError,
    OutOfMemoryError,
    OutputError,
    OutputExistsError,
    SourceError,
    open_shards,
    write_shards,
)
from numerai_sequence.commands.main import main
from numerai_sequence.errors import is_out_of_memory
from numerai_sequence.format.layout import WriteOptions
from numerai_sequence.reading import set_opener
from numerai_sequence.writing import folder_claim, parquet_reader, writer
from numerai_sequence.writing.output_folder import Output
from numerai_sequence.writing.parquet_reader import Parquet
from numerai_sequence.writing.scratch import Scratch
from numerai_sequence.writing.shuffle_windows import Window
from numerai_sequence.writing.source_columns import Source
from numerai_sequence.writing.write_plan import Plan

ROWS, GROUP, SHARDS = 600, 150, 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks and kills")
@pytest.mark.slow
def test_a_few_of_all_faults_end_as_promised(tmp_path):
    results = run_campaign("writing", tmp_path, count=3)
    assert len(results) == 8
    assert {result["tried"] for result in results} <= {0, 3}  # 0: no memory group can be made
    assert sum(result["tried"] > 0 for result in results) >= 7


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(writer, "BLOCK_BYTES", 20 * GROUP)


@pytest.fixture
def train(tmp_path):
    options = {"features": 40, "row_group_rows": GROUP}
    return write_source(tmp_path / "train.parquet", rows=ROWS, **options)


@pytest.fixture
def later(tmp_path):
    options = {"features": 40, "row_group_rows": GROUP, "first_row": 5000}
    return write_source(tmp_path / "later.parquet", rows=ROWS, **options)


def write(source, out, **options):
    write_shards(source, out, **{"num_shards": SHARDS, "progress": False, **options}).close()
    return out


def contents(folder):
    """Every file of a folder with its bytes, and every folder in it."""
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*")}
    return {name: path.read_bytes() if path.is_file() else None for name, path in found.items()}


def first_id(folder):
    """The least id of a set, after every byte of it was verified."""
    with open_shards(folder) as opened:
        opened.verify()
        return min(opened.column("id").to_pylist())


OLD, NEW = (f"n{number:015x}" for number in (0, 5000))


def shard(source, out, *options):
    command = ["shard", str(source), "--out", str(out), "--quiet", "--num-shards", str(SHARDS)]
    return CliRunner().invoke(main, [*command, *options])


def test_the_command_says_in_a_line_that_a_disk_is_full(train, later, tmp_path):
    with small_disk(tmp_path / "disk") as disk:
        old = write(train, disk / "shards")
        leave_free(disk, 20_000)
        before = contents(old)
        result = shard(later, old, "--overwrite")
        assert result.exit_code == 1
        [line] = result.output.splitlines()
        assert line.startswith(f"Error: {old}: cannot be written (No space left on device); ")
        assert "; the folder is unchanged; about 0.1 MB are needed, " in line
        assert line.endswith("0.0 MB are free: free some space, or choose another disk")
        assert contents(old) == before
        assert shard(train, disk / "new" / "shards").exit_code == 1
        assert os.listdir(disk) == ["shards"]


LIMITED = """
import resource, signal, sys
from numerai_sequence.commands.main import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
main(sys.argv[1:])
"""


def run_limited(code, *arguments):
    """Run Python where no file may be larger than 4000 bytes."""
    command = [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


needs_limits = pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files")


@pytest.mark.slow
@needs_limits
def test_the_command_says_in_a_line_that_a_file_is_too_large(train, later, tmp_path):
    old = write(train, tmp_path / "old")
    before = contents(old)
    for out in (old, tmp_path / "new"):
        command = ["shard", later, "--out", out, "--overwrite", "--quiet"]
        result = run_limited(LIMITED, *command)
        assert result.returncode == 1
        assert result.stderr == (
            f"Error: {out}: cannot be written (File too large); the folder is unchanged; "
            "allow larger files (ulimit -f), or choose another folder\n"
        )
    assert contents(old) == before
    assert not (tmp_path / "new").exists()


SMALL_FILES = """
import resource, signal, sys
from pathlib import Path
import pandas as pd
from numerai_sequence import OutputError, write_predictions
from numerai_sequence.predicting.export import replaced
from numerai_sequence.scoring.score_picture import draw_scores
from numerai_sequence.training.run_folder import Run, write_run
from numerai_sequence.scoring.scores import write_table
from numerai_sequence.synthetic import write_parquet

folder = Path(sys.argv[1])
table = pd.DataFrame({"corr": [i / 7e5 for i in range(500)]}, index=list(map(str, range(500))))
frame = table.rename_axis("id")
frame.attrs["features"] = ["feature_a"]
wide = frame.copy()
wide.attrs["features"] = [f"feature_{n}" for n in range(999)]
run = Run({}, tuple(wide.attrs["features"]), "int8", None, (), (), {}, {}, {})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
for name, write in {
    "a.csv": lambda path: write_predictions(frame, path),
    "b.parquet": lambda path: write_predictions(wide, path),
    "c.features.json": lambda path: write_predictions(wide[:9], path.with_name("c.csv")),
    "d.csv": lambda path: write_table(table, path),
    "e.png": lambda path: draw_scores(table, path),
    "run.json": lambda path: write_run(run, path.parent),
    "g.parquet": lambda path: write_parquet(path, rows=900, features=50),
}.items():
    try:
        write(folder / name)
    except OutputError as error:
        print(error.path.name, error.errno, "existing files are unchanged" in str(error))
"""


@needs_limits
@pytest.mark.slow
def test_other_files_that_cannot_be_written_leave_what_was_there(tmp_path):
    names = ["a.csv", "b.parquet", "c.features.json", "d.csv", "e.png", "run.json", "g.parquet"]
    for name in [*names, "a.features.json", "c.csv"]:
        (tmp_path / name).write_text("old")
    before = contents(tmp_path)
    result = run_limited(SMALL_FILES, tmp_path)
    names[2] = "c.csv"  # what was asked for
    assert result.stdout.splitlines() == [f"{name} {errno.EFBIG} True" for name in names]
    assert contents(tmp_path) == before


def test_a_folder_that_may_not_be_written_to_is_said_to_be(train, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError) as caught:
        write(train, tmp_path / "file" / "shards")
    assert caught.value.errno == errno.ENOTDIR
    assert caught.value.path == tmp_path / "file" / "shards"
    assert str(caught.value).endswith("a part of the path is a file; choose another folder")


def test_an_old_shard_that_cannot_be_removed_is_said_to_be_all_that_is_left(train, later, tmp_path):
    out = write(train, tmp_path / "out")
    (out / "shard-01.arrow").unlink()
    (out / "shard-01.arrow").mkdir()
    with pytest.raises(OutputError, match="the new set is complete, and the next run removes"):
        write(later, out, overwrite=True)
    assert first_id(out) == NEW
    (out / "shard-01.arrow").rmdir()
    write(later, out)
    assert len(os.listdir(out)) == SHARDS + 1


@pytest.mark.parametrize(("encoding", "width"), [("packed", 3), ("int8", 9)])
def test_all_shards_are_on_the_disk_with_the_scratch_of_two(encoding, width):
    features = tuple(f"feature_{number}" for number in range(9))
    windows = tuple(Window(shard, 0, (f"{shard}",), 1000) for shard in range(5))
    plan = Plan(features, ("target",), windows, (), (), 1)
    others = 40 + 4  # id, era and data type; target
    shard_bytes = 1000 * (width + others) + 2 * 9 * (len("feature_0") + 4)
    expected = 5 * shard_bytes + 2 * 1000 * (3 + others)
    options = WriteOptions(num_shards=5, encoding=encoding)
    assert plan.disk_bytes(options) == expected
    assert plan.disk_bytes(options, at_once=True) == expected + 3 * 1000 * (3 + others)


@pytest.mark.parametrize("encoding", ["packed", "int8"])
@pytest.mark.parametrize("num_shards", [1, 2, 7])
def test_no_more_room_is_taken_than_is_told(tmp_path, monkeypatch, encoding, num_shards):
    source = write_source(tmp_path / "train.parquet", rows=9000, features=300)
    drop, disk_bytes, taken, told = Scratch.drop, Plan.disk_bytes, [], []

    def measured(scratch, windows):
        files = (path for path in (tmp_path / "out").rglob("*") if path.is_file())
        taken.append(sum(path.stat().st_size for path in files))
        drop(scratch, windows)

    def noted(plan, options, **how):
        told.append(disk_bytes(plan, options, **how))
        return told[-1]

    monkeypatch.setattr(Scratch, "drop", measured)
    monkeypatch.setattr(Plan, "disk_bytes", noted)
    write(source, tmp_path / "out", encoding=encoding, num_shards=num_shards)
    assert 0.95 * max(taken) < told[0] < 1.5 * max(taken)


MEMORY_ERRORS = [
    MemoryError(),
    pa.ArrowMemoryError("malloc of size 5 failed"),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    RuntimeError("can't start new thread"),
    pa.ArrowException("Unknown error: Failed to launch worker thread: try again"),
]


@pytest.mark.slow
@pytest.mark.parametrize("error", MEMORY_ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(
    ("owner", "name", "call"),
    [
        (pq.ParquetFile, "read_row_groups", 1),
        (pq.ParquetFile, "read_row_groups", 12),
        (Scratch, "add_features", 9),
        (Scratch, "read_meta", 2),
        (Output, "commit", 1),
    ],
)
def test_where_memory_runs_out_the_next_run_goes_on(
    train, tmp_path, monkeypatch, owner, name, call, error
):
    reads, calls, function = count_reads(monkeypatch), [], getattr(owner, name)
    whole = contents(write(train, tmp_path / "whole"))
    all_reads = len(reads)

    def failing(*arguments, **options):
        calls.append(name)
        if len(calls) == call:
            raise error
        return function(*arguments, **options)

    out = tmp_path / "out"
    monkeypatch.setattr(owner, name, failing)
    with pytest.raises(OutOfMemoryError) as caught:
        write(train, out)
    assert caught.value.path == out
    assert f"{out}: out of memory while writing" in str(caught.value)
    assert str(error) in str(caught.value)
    is_begun = (owner, call) != (pq.ParquetFile, 1)  # or it was while eras were counted
    assert (f"{out / '.writing'} keeps the finished part" in str(caught.value)) is is_begun
    assert out.exists() is is_begun
    monkeypatch.setattr(owner, name, function)
    reads.clear()
    write(train, out)
    assert (len(reads) < all_reads) is is_begun
    assert contents(out) == whole


def count_reads(monkeypatch):
    reads, function = [], Source.read_features

    def counted(*arguments):
        reads.append(arguments)
        return function(*arguments)

    monkeypatch.setattr(Source, "read_features", counted)
    return reads


def test_only_what_means_memory_is_taken_for_it():
    assert all(map(is_out_of_memory, MEMORY_ERRORS))
    others = [OSError(errno.ENOSPC, "full"), RuntimeError("thread"), pa.ArrowInvalid("memory")]
    assert not any(map(is_out_of_memory, others))


def test_scratch_that_ends_too_early_is_the_disks_fault(train, tmp_path, monkeypatch):
    read = Scratch.read_features

    def cut_off(scratch, window, *arguments):
        path = scratch.folder / f"window-{window:05d}.features"
        os.truncate(path, path.stat().st_size - 1)
        read(scratch, window, *arguments)

    monkeypatch.setattr(Scratch, "read_features", cut_off)
    with pytest.raises(OutputError, match=r"out: cannot be written \(ends too early\)"):
        write(train, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def append(path, other):
    with open(path, "ab") as file:
        file.write(b"more")


CHANGES = {
    "changed while it was read": {
        "replaced": lambda path, other: os.replace(other, path),
        "written over": lambda path, other: shutil.copyfile(other, path),
        "appended to": append,
        "touched": lambda path, other: os.utime(path, (1, 1)),
    },
    "is gone": {"removed": lambda path, other: path.unlink()},
}


@pytest.mark.parametrize("call", [1, 5, 12])
@pytest.mark.parametrize(
    ("says", "change"),
    [(says, change) for says, changes in CHANGES.items() for change in changes.values()],
    ids=[name for changes in CHANGES.values() for name in changes],
)
def test_a_source_that_changes_while_it_is_read_is_refused(
    train, later, tmp_path, monkeypatch, says, change, call
):
    old = write(train, tmp_path / "old", seed=1)
    before, function, calls = contents(old), Source.read_features, []

    def read(*arguments):
        calls.append(arguments)
        if len(calls) == call:
            change(train, later)
        return function(*arguments)

    monkeypatch.setattr(Source, "read_features", read)
    with pytest.raises(SourceError, match=says) as caught:
        write(train, old, overwrite=True)
    assert caught.value.path == train
    assert contents(old) == before


def test_an_era_that_comes_up_later_is_refused_by_name(tmp_path, monkeypatch):
    train = write_source(tmp_path / "train.parquet", rows=ROWS)
    stamp, read = train.stat().st_mtime_ns, Source.iter_meta

    def renamed(*arguments):
        pq.write_table(numerai_table(rows=ROWS, era_names="{:04x}"), train)
        os.utime(train, ns=(stamp, stamp))
        source = Source(train)
        return read(source, *arguments[1:])

    monkeypatch.setattr(Source, "iter_meta", renamed)
    with pytest.raises(SourceError, match="found '000a', which was not among the eras"):
        write(train, tmp_path / "out")


def place_of(path, column, group):
    """Where a column's first data page is in a file."""
    columns = pq.ParquetFile(path).metadata.row_group(group)
    chunks = [columns.column(number) for number in range(columns.num_columns)]
    return next(c.data_page_offset for c in chunks if c.path_in_schema == column)


def flip(path, place, bit):
    data = bytearray(path.read_bytes())
    data[place] ^= 1 << bit
    path.write_bytes(data)


@pytest.mark.parametrize("column", ["id", "era", "target", "feature_033"])
def test_a_page_that_is_not_read_is_a_damage_that_is_located(train, tmp_path, column):
    # The kind of the page: Arrow skips one that it does not know, and returns fewer rows.
    flip(train, place_of(train, column, 2) + 1, 0)
    with pytest.raises(SourceError) as caught:
        write(train, tmp_path / "out")
    assert (caught.value.path, caught.value.column) == (train, column)
    assert "row group 2 cannot be read: found 0 rows, expected 150; download it again" in str(
        caught.value
    )


def test_a_value_that_was_changed_is_found_where_pages_have_checksums(tmp_path):
    train, table = tmp_path / "train.parquet", numerai_table(ROWS)
    options = {"compression": "none", "use_dictionary": False, "write_page_checksum": True}
    pq.write_table(table, train, **options)
    # 4 bytes a value; the header and what says that there are no nulls take less than 100.
    place = train.read_bytes().index(bytes([3, 0, 0, 0]), place_of(train, "feature_013", 0) + 100)
    flip(train, place, 0)
    changed = pq.read_table(train)["feature_013"].to_numpy() - table["feature_013"].to_numpy()
    assert changed.tolist().count(-1) == 1
    with pytest.raises(SourceError, match=r"row group 0 cannot be read: .*CRC") as caught:
        write(train, tmp_path / "out")
    assert caught.value.column == "feature_013"


@pytest.mark.parametrize("column", ["id", "era", "data_type"])
def test_bytes_that_are_no_text_are_refused(tmp_path, column):
    table = numerai_table(rows=ROWS)
    size = len(table[column][0].as_py())
    offsets = pa.py_buffer(np.arange(ROWS + 1, dtype=np.int32) * size)
    texts = [None, offsets, pa.py_buffer(b"\xff" * (size * ROWS))]
    values = pa.Array.from_buffers(pa.string(), ROWS, texts)
    place = table.schema.get_field_index(column)
    train = tmp_path / "train.parquet"
    pq.write_table(table.set_column(place, column, values), train)
    with pytest.raises(SourceError, match="not UTF-8") as caught:
        write(train, tmp_path / "out")
    assert caught.value.column == column


def test_a_checksum_is_given_up_when_nobody_waits_for_it(train):
    class Stop:
        def is_set(self):
            return True

    with pytest.raises(parquet_reader.CancelledError):
        Parquet(train).checksum(Stop())


needs_locks = pytest.mark.skipif(folder_claim.fcntl is None, reason="claims folders")


@needs_locks
def test_a_claim_of_a_folder_that_was_removed_counts_for_nothing(tmp_path, monkeypatch):
    folder, flock, calls = tmp_path / "a" / "b", folder_claim.fcntl.flock, []

    def late(descriptor, operation):
        calls.append(descriptor)
        if len(calls) == 1:  # the owner removes it between opening and locking
            shutil.rmtree(tmp_path / "a")
        flock(descriptor, operation)

    monkeypatch.setattr(folder_claim.fcntl, "flock", late)
    with folder_claim.claimed(folder, make=True) as is_there:
        assert is_there
        assert folder.is_dir()
        monkeypatch.setattr(folder_claim.fcntl, "flock", flock)
        with pytest.raises(BlockingIOError), folder_claim.claimed(folder):
            pass
    calls.clear()
    monkeypatch.setattr(folder_claim.fcntl, "flock", late)
    with folder_claim.claimed(folder) as is_there:
        assert not is_there
    assert not folder.exists()


@contextmanager
def before_claim(monkeypatch, action):
    """Have something done right before a folder is claimed to be written to."""
    claimed, calls = folder_claim.claimed, []

    def late(folder, *, make=False):
        if make and not calls:
            calls.append(folder)
            action()
        return claimed(folder, make=make)

    with monkeypatch.context() as patch:
        patch.setattr("numerai_sequence.writing.output_folder.claimed", late)
        yield


def test_a_set_that_another_process_has_just_written_is_not_replaced_unasked(
    train, later, tmp_path, monkeypatch
):
    out = tmp_path / "out"
    with (
        before_claim(monkeypatch, lambda: write(later, out)),
        pytest.raises(OutputExistsError, match="another source than"),
    ):
        write(train, out)
    assert first_id(out) == NEW
    assert len(os.listdir(out)) == SHARDS + 1
    with before_claim(monkeypatch, lambda: write(train, out, overwrite=True)):
        write(later, out, overwrite=True)
    assert first_id(out) == NEW


def test_the_set_that_another_process_has_just_written_is_the_one(train, tmp_path, monkeypatch):
    out, found = tmp_path / "out", []

    def write_first():
        found.append(contents(write(train, out)))

    with before_claim(monkeypatch, write_first):
        write(train, out)
    assert [contents(out)] == found


def overwrite_after(monkeypatch, out, sources):
    """Have a set overwritten right after its manifest is read, for each of some sources."""
    read, left = set_opener.read_manifest, list(sources)
    options = {"feature_set": None, "features_json": None, "overwrite": True, "progress": False}

    def late(folder):
        manifest = read(folder)
        if left:
            writer.write(left.pop(0), out, WriteOptions(num_shards=SHARDS), **options)
        return manifest

    monkeypatch.setattr(set_opener, "read_manifest", late)


@pytest.mark.parametrize("times", [1, 2, 5])
def test_a_set_that_is_replaced_while_it_is_opened_is_opened_anew(
    train, later, tmp_path, monkeypatch, times
):
    out = write(train, tmp_path / "out")
    overwrite_after(monkeypatch, out, [later, train, later, train, later][:times])
    with open_shards(out) as opened:
        assert min(opened.column("id").to_pylist()) == (NEW if times % 2 else OLD)


def test_a_shard_that_is_missing_of_the_set_that_is_there_is_missing(train, tmp_path):
    out = write(train, tmp_path / "out")
    (out / "shard-01.arrow").unlink()
    with pytest.raises(CorruptShardError, match=r"shard-01\.arrow"):
        open_shards(out)


def test_names_of_shards_do_not_come_back(train, later, tmp_path):
    out, names = write(train, tmp_path / "out"), []
    for source in (later, train, later):
        names += [path.name for path in out.glob("*.arrow")]
        write(source, out, overwrite=True)
    names += [path.name for path in out.glob("*.arrow")]
    assert len(names) == len(set(names)) == 4 * SHARDS


def test_errors_of_writing_are_told_apart_from_errors_of_reading(train, tmp_path):
    with pytest.raises(NumeraiSequenceError) as caught:
        write(tmp_path / "nowhere.parquet", tmp_path / "out")
    assert type(caught.value) is SourceError
    assert "No such file" in str(caught.value)
