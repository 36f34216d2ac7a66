"""Output: a folder holds the old set or the new one, whole, whatever happens in between.

The processes that are killed here really write, and really die by SIGKILL.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from numerai_tables import numerai_table, row_digits, write_features_json, write_source

import numerai_sequence
from numerai_sequence import (
    CorruptShardError,
    ManifestError,
    OutputExistsError,
    SourceError,
    append_shards,
    open_shards,
    write_shards,
)

ROWS, SHARDS = 300, 3


def write(source, out, **options):
    """Write a set of three shards; return its folder."""
    write_shards(source, out, num_shards=SHARDS, progress=False, **options).close()
    return out


def ids(first, rows):
    return [f"n{number:015x}" for number in range(first, first + rows)]


def ids_of(folder):
    """The ids of a set, after every byte of it was verified."""
    with open_shards(folder) as shards:
        shards.verify()
        return sorted(shards.column("id").to_pylist())


def contents(folder):
    """Every file of a folder with its bytes, and every folder in it."""
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*")}
    return {name: path.read_bytes() if path.is_file() else None for name, path in found.items()}


def stamps(folder):
    """What changes when a file is written again, or replaced."""
    status = {path.name: path.stat() for path in folder.iterdir()}
    return {name: (s.st_ino, s.st_mtime_ns, s.st_size) for name, s in status.items()}


def files_of_set(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    files = [*manifest["shards"], *manifest.get("patches", [])]
    return {"manifest.json", *(file["file"] for file in files)}


def assert_tidy(folder, *others):
    """The folder holds the set, what else it should, and nothing that writing left there."""
    assert set(os.listdir(folder)) == {*files_of_set(folder), *others}


OLD, NEW = ids(0, ROWS), ids(1000, ROWS + 50)


def write_old_rows(folder):
    return write_source(folder / "train.parquet", rows=ROWS)


def write_new_rows(folder):
    """Other rows under the same name, some weeks later."""
    (folder / "later").mkdir()
    return write_source(folder / "later" / "train.parquet", rows=ROWS + 50, first_row=1000)


@pytest.fixture
def train(tmp_path):
    return write_old_rows(tmp_path)


@pytest.fixture
def later(tmp_path):
    return write_new_rows(tmp_path)


def test_a_folder_is_made_with_its_parents(train, tmp_path):
    out = write(train, tmp_path / "a" / "b" / "shards")
    assert ids_of(out) == OLD
    assert_tidy(out)


def test_an_empty_folder_is_written_into(train, tmp_path):
    out = tmp_path / "shards"
    out.mkdir()
    assert ids_of(write(train, out)) == OLD
    assert_tidy(out)


def test_the_set_is_given_back_open(train, tmp_path):
    with write_shards(train, str(tmp_path / "shards"), progress=False) as shards:
        assert (shards.rows, len(shards), shards.folder) == (ROWS, 16, tmp_path / "shards")


def test_the_same_sources_and_options_find_the_set_as_it_is(train, later, tmp_path):
    options = {"mix_eras": 2, "seed": 5, "features": ["feature_003", "feature_001"]}
    out = write([train, later], tmp_path / "shards", **options)
    before = stamps(out)
    assert ids_of(write([str(train), later], out, **options)) == OLD + NEW
    assert stamps(out) == before


def test_a_source_that_was_touched_or_copied_is_the_same(train, tmp_path):
    out = write(train, tmp_path / "shards")
    before = stamps(out)
    os.utime(train, (1, 1))
    write(train, out)
    (tmp_path / "elsewhere").mkdir()
    copy = shutil.copy(train, tmp_path / "elsewhere" / "renamed.parquet")
    train.unlink()
    write(copy, out)
    assert stamps(out) == before
    assert ids_of(out) == OLD


def test_a_set_that_was_moved_is_found_as_it_is(train, tmp_path):
    out = write(train, tmp_path / "shards").rename(tmp_path / "moved")
    before = stamps(out)
    write(train, out)
    assert stamps(out) == before


def test_a_set_beside_foreign_files_is_found_as_it_is(train, tmp_path):
    out = write(train, tmp_path / "shards")
    (out / "notes.txt").write_text("mine")
    before = stamps(out)
    write(train, out)
    assert stamps(out) == before


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        ({"num_shards": 4}, "num_shards=3, not 4"),
        ({"encoding": "int8"}, "encoding='packed', not 'int8'"),
        ({"mix_eras": 1}, "mix_eras=None, not 1"),
        ({"seed": 1}, "seed=0, not 1"),
        ({"features": ["feature_001"]}, "features=None, not ('feature_001',)"),
        ({"targets": ["target"]}, "targets=None, not ('target',)"),
    ],
)
def test_a_set_of_other_options_is_not_replaced_unasked(train, tmp_path, options, difference):
    out = write(train, tmp_path / "shards")
    before, stamped = contents(out), stamps(out)
    with pytest.raises(OutputExistsError) as caught:
        write_shards(train, out, **{"num_shards": SHARDS, "progress": False, **options})
    assert isinstance(caught.value, FileExistsError)
    assert caught.value.path == out
    for part in (str(out), difference, "overwrite=True"):
        assert part in str(caught.value)
    assert (contents(out), stamps(out)) == (before, stamped)


def change_one_value(path):
    """Other bytes, the same size and number of rows."""
    size, rows = path.stat().st_size, pq.read_table(path)
    place = rows.schema.get_field_index("target")
    values = rows["target"].to_numpy().copy()
    values[[3, 4]] = values[[4, 3]]
    pq.write_table(rows.set_column(place, "target", [values]), path)
    assert path.stat().st_size == size
    os.utime(path, (2, 2))


def test_a_set_of_other_sources_is_not_replaced_unasked(train, later, tmp_path):
    out = write(train, tmp_path / "shards")
    before = contents(out)

    def refused(sources):
        with pytest.raises(OutputExistsError) as caught:
            write(sources, out)
        assert caught.value.path == out
        assert contents(out) == before
        return str(caught.value)

    assert str(later) in refused(later)
    assert "1 sources, not 2" in refused([train, later])
    change_one_value(train)
    assert f"another source than {train}" in refused(train)


def test_the_order_of_sources_is_part_of_a_set(train, later, tmp_path):
    out = write([train, later], tmp_path / "shards")
    with pytest.raises(OutputExistsError, match="another source"):
        write([later, train], out)


def test_foreign_files_are_not_written_among_unasked(train, tmp_path):
    out = tmp_path / "shards"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    (out / "more").mkdir()
    before = contents(out)
    with pytest.raises(OutputExistsError, match=r"found other files.*manifest") as caught:
        write(train, out)
    assert caught.value.path == out
    assert contents(out) == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_in_place_of_the_folder_is_left_alone(train, tmp_path, overwrite):
    out = tmp_path / "shards"
    out.write_text("mine")
    with pytest.raises(OutputExistsError, match="found a file, expected a folder") as caught:
        write(train, out, overwrite=overwrite)
    assert caught.value.path == out
    assert out.read_text() == "mine"


DAMAGES = [b"", b"{", b"[]", b'{"format": "numerai_sequence", "version": 99}', b"\xff\x00"]


@pytest.mark.parametrize("damaged", DAMAGES)
def test_a_damaged_manifest_is_not_replaced_unasked(train, tmp_path, damaged):
    out = write(train, tmp_path / "shards")
    (out / "manifest.json").write_bytes(damaged)
    before = contents(out)
    with pytest.raises(OutputExistsError, match=r"manifest\.json") as caught:
        write(train, out)
    assert caught.value.path == out
    assert contents(out) == before


@pytest.mark.parametrize("damaged", DAMAGES)
def test_a_damaged_manifest_is_replaced_when_asked(train, later, tmp_path, damaged):
    out = write(train, tmp_path / "shards")
    (out / "manifest.json").write_bytes(damaged)
    assert ids_of(write(later, out, overwrite=True)) == NEW
    write(later, out)


def test_a_shard_that_is_missing_or_cut_off_is_found_and_can_be_replaced(train, tmp_path):
    for damage in (Path.unlink, lambda path: os.truncate(path, 10)):
        out = write(train, tmp_path / "shards", overwrite=True)
        damage(next(out.glob("*.arrow")))
        with pytest.raises(CorruptShardError, match="overwrite=True"):
            write(train, out)
        assert ids_of(write(train, out, overwrite=True)) == OLD
        assert_tidy(out)


def test_a_set_whose_shards_are_all_missing_can_be_replaced(train, later, tmp_path):
    out = write(train, tmp_path / "shards")
    for path in out.glob("*.arrow"):
        path.unlink()
    assert ids_of(write(later, out, overwrite=True)) == NEW
    assert_tidy(out)


OLD_SETS = {"small": ["feature_002", "feature_001"], "rain": ["feature_001", "feature_x"]}
NEW_SETS = {"small": ["feature_001", "feature_002"], "medium": ["feature_009"]}


def write_sets(folder, sets):
    return write_features_json(folder / "features.json", **sets)


def sets_of(folder):
    """The feature sets of a set, after every byte of it was verified."""
    with open_shards(folder) as shards:
        shards.verify()
        return {name: list(features) for name, features in shards.feature_sets.items()}


def rest_of(folder):
    """What a manifest says beside feature sets, and its checksum, which is theirs too."""
    document = json.loads((folder / "manifest.json").read_text())
    return {k: v for k, v in document.items() if not k.endswith(("_sets", "checksum"))}


@pytest.mark.parametrize("before", [OLD_SETS, None])
def test_new_feature_sets_are_learned_and_nothing_else_changes(train, tmp_path, before):
    if before:
        write_sets(tmp_path, before)
    out = write(train, tmp_path / "shards", features=["feature_002", "feature_001"])
    (out / "notes.txt").write_text("mine")
    assert sets_of(out) == ({"small": ["feature_002", "feature_001"]} if before else {})
    stamped, rest = stamps(out), rest_of(out)
    write_sets(tmp_path, NEW_SETS)
    for expected in ({"manifest.json"}, set()):
        write(train, out, features=["feature_002", "feature_001"])
        after = stamps(out)
        assert {name for name in after if after[name] != stamped[name]} == expected
        stamped = after
        assert sets_of(out) == {"small": ["feature_001", "feature_002"]}
        with open_shards(out) as shards:
            assert shards.manifest.partial_sets == {"medium": (0, 1)}
    assert rest_of(out) == rest
    assert_tidy(out, "notes.txt")
    whole = write(train, tmp_path / "whole", features=["feature_002", "feature_001"])
    assert (out / "manifest.json").read_bytes() == (whole / "manifest.json").read_bytes()


def test_a_set_keeps_its_feature_sets_where_none_are_given(train, tmp_path):
    out = write(train, tmp_path / "shards", features_json=write_sets(tmp_path, OLD_SETS))
    (tmp_path / "features.json").unlink()
    before = stamps(out)
    write(train, out)
    assert stamps(out) == before
    assert sets_of(out) == {"small": ["feature_002", "feature_001"]}


def test_a_set_written_by_the_name_of_a_feature_set_is_found_as_it_is(train, tmp_path):
    write_sets(tmp_path, OLD_SETS)
    out = write(train, tmp_path / "shards", features="small")
    before = stamps(out)
    write(train, out, features="small")
    write(train, out, features=OLD_SETS["small"])
    assert stamps(out) == before
    write_sets(tmp_path, {**OLD_SETS, "more": ["feature_001"]})
    write(train, out, features="small")
    assert sets_of(out) == {"small": OLD_SETS["small"], "more": ["feature_001"]}
    assert rest_of(out)["features"] == OLD_SETS["small"]


@pytest.mark.parametrize("count", [2, 14])
@pytest.mark.parametrize(
    "change", [lambda names: names[:-1], lambda names: [*names[:-2], names[-1], names[-2]]]
)
def test_a_name_that_now_means_other_features_is_another_set(train, tmp_path, count, change):
    names = [f"feature_{number:03d}" for number in range(count)]
    write_sets(tmp_path, {"small": names})
    out = write(train, tmp_path / "shards", features="small")
    before = contents(out)
    write_sets(tmp_path, {"small": change(names)})
    with pytest.raises(OutputExistsError, match="overwrite=True"):
        write(train, out, features="small")
    assert contents(out) == before
    write(train, out, features="small", overwrite=True)
    assert sets_of(out) == {"small": change(names)}
    assert_tidy(out)


def test_long_lists_that_begin_alike_are_told_apart(train, tmp_path):
    names = [f"feature_{number:03d}" for number in range(14)]
    out = write(train, tmp_path / "shards", features=names)
    with pytest.raises(OutputExistsError, match="other features, such as 'feature_013';"):
        write(train, out, features=names[:-1])
    with pytest.raises(OutputExistsError, match="the same features in another order;"):
        write(train, out, features=[*names[:-2], names[-1], names[-2]])


def test_a_reader_keeps_the_feature_sets_that_it_opened(train, tmp_path):
    write_sets(tmp_path, OLD_SETS)
    out = write(train, tmp_path / "shards")
    with open_shards(out) as opened:
        write_sets(tmp_path, NEW_SETS)
        write(train, out)
        assert list(opened.feature_sets) == ["small"]
        assert sorted(opened.column("id").to_pylist()) == OLD
    assert sets_of(out) == NEW_SETS


def test_feature_sets_are_not_learned_while_another_process_writes(train, tmp_path):
    fcntl = pytest.importorskip("fcntl")
    out = write(train, tmp_path / "shards")
    (out / ".writing").mkdir()
    other = os.open(out / ".writing", os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_SH)
    before = contents(out)
    write_sets(tmp_path, NEW_SETS)
    with pytest.raises(OutputExistsError, match="another process"):
        write(train, out)
    assert contents(out) == before
    os.close(other)
    write(train, out)
    assert sets_of(out) == NEW_SETS
    assert_tidy(out)


def test_overwriting_replaces_the_set_and_removes_its_shards(train, later, tmp_path):
    out = write(train, tmp_path / "shards")
    for source, expected, shards in [(later, NEW, 5), (train, OLD, 2), (train, OLD, 2)]:
        before = stamps(out)
        write_shards(source, out, num_shards=shards, overwrite=True, progress=False).close()
        assert ids_of(out) == expected
        assert_tidy(out)
        assert len(os.listdir(out)) == shards + 1
        after = stamps(out)
        assert not any(after[name] == before[name] for name in after.keys() & before.keys())


def test_overwriting_leaves_foreign_files_alone(train, later, tmp_path):
    out = tmp_path / "shards"
    (out / "more").mkdir(parents=True)
    foreign = {"notes.txt": b"mine", "shard-00.arrow": b"mine too", "more/shard-01.arrow": b"3"}
    for name, text in foreign.items():
        (out / name).write_bytes(text)
    for source, expected in [(train, OLD), (later, NEW), (train, OLD)]:
        write(source, out, overwrite=True)
        assert ids_of(out) == expected
        assert_tidy(out, "notes.txt", "shard-00.arrow", "more")
        assert {name: (out / name).read_bytes() for name in foreign} == foreign


def test_a_reader_keeps_reading_the_set_that_it_opened(train, later, tmp_path):
    out = write(train, tmp_path / "shards", encoding="int8")
    with open_shards(out) as opened:
        write(later, out, overwrite=True)
        assert sorted(opened.column("id").to_pylist()) == OLD
        numbers = np.array([int(name[1:], 16) for name in opened.column("id").to_pylist()])
        encoded, values = opened.row_reader.gather(np.arange(ROWS), ["target"])
        np.testing.assert_array_equal(encoded, row_digits(numbers, 14))
        np.testing.assert_array_equal(values[:, 0], numbers)
    assert ids_of(out) == NEW


@pytest.mark.parametrize("journal", ['{"new": ["notes.txt", "../outside.txt"]}', "{", "[]"])
def test_a_journal_that_is_damaged_removes_no_foreign_file(train, tmp_path, journal):
    out = write(train, tmp_path / "shards")
    for path in (out / "notes.txt", tmp_path / "outside.txt"):
        path.write_text("mine")
    (out / ".writing").mkdir()
    (out / ".writing" / "manifest.json").write_text("{")
    (out / ".writing" / "journal.json").write_text(journal)
    assert ids_of(write(train, out)) == OLD
    assert_tidy(out, "notes.txt")
    assert (tmp_path / "outside.txt").read_text() == "mine"


def test_an_error_after_rows_were_written_removes_them(train, tmp_path):
    table = numerai_table(rows=ROWS, first_row=ROWS)
    place = table.schema.get_field_index("feature_013")
    digits = table["feature_013"].to_numpy().copy()
    digits[-1] = 5
    bad = tmp_path / "bad.parquet"
    pq.write_table(table.set_column(place, "feature_013", [digits]), bad)
    out = write(train, tmp_path / "shards")
    (out / "notes.txt").write_text("mine")
    before = contents(out)
    for folder in (out, tmp_path / "new"):
        with pytest.raises(SourceError, match="row 299"):
            write([train, bad], folder, overwrite=True)
    assert contents(out) == before
    assert not (tmp_path / "new").exists()


# One process that has loaded the package forks a child for each task: starting Python a hundred
# times would take a minute.
NURSERY = """
import contextlib, json, os, resource, signal, sys, time
import pyarrow
from numerai_sequence import append_shards, write_shards

pyarrow.chunked_array([[1]]).to_numpy()  # loads pandas, which no child should have to

def stop_at(step, events, how):
    # Python tells its audit hooks of every change to a folder before it makes it.
    left = [step]

    def hook(event, arguments):
        if event == "open" and str(arguments[0]).endswith(".json") and arguments[1] == "w":
            event = "write"
        if event == "open" and "/.writing/" in str(arguments[0]):
            event = "open inside"
        if event in events:
            left[0] -= 1
        if event in events and left[0] == 0:
            if how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError("no such luck")

    sys.addaudithook(hook)

def list_sorted(is_descending):
    # A file system may list a folder in any order, and so it may be removed in any.
    scandir, listdir = os.scandir, os.listdir

    def sorted_listdir(*folder):
        return sorted(listdir(*folder), reverse=is_descending)

    @contextlib.contextmanager
    def sorted_scandir(*folder):
        with scandir(*folder) as entries:
            yield iter(sorted(entries, key=lambda entry: entry.name, reverse=is_descending))

    os.scandir, os.listdir = sorted_scandir, sorted_listdir

def run(task):
    if task["listing"]:
        list_sorted(task["listing"] == "descending")
    if task["step"]:
        stop_at(task["step"], task["events"], task["how"])
    if task["file_bytes"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (task["file_bytes"],) * 2)
    options = {"num_shards": 3, "overwrite": task["overwrite"], "progress": False}
    try:
        if task["refreshes"]:
            append_shards(task["out"], task["source"], progress=False)
        else:
            write_shards(task["source"], task["out"], **options)
    except OSError:
        return 3
    return 0

for line in sys.stdin:
    task = json.loads(line)
    start = time.monotonic()
    child = os.fork()
    if not child:
        code = 1
        try:
            code = run(task)
        finally:
            os._exit(code)
    if task["kill_after"]:
        time.sleep(task["kill_after"])
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    print(json.dumps([os.waitstatus_to_exitcode(status), time.monotonic() - start]), flush=True)
"""
MOVES = ("os.rename",)
CHANGES = (*MOVES, "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree", "write")


@pytest.fixture(scope="module")
def nursery():
    """A function that writes a set in a child; it returns the exit code, and the seconds taken."""
    package = str(Path(numerai_sequence.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": package, "OPENBLAS_NUM_THREADS": "1"}

    def child(
        source,
        out,
        *,
        overwrite=False,
        refreshes=False,
        step=0,
        events=CHANGES,
        how="kill",
        kill_after=0,
        file_bytes=0,
        listing=None,
    ):
        task = {"source": str(source), "out": str(out), "overwrite": overwrite, "step": step}
        task |= {"events": events, "how": how, "kill_after": kill_after}
        task |= {"file_bytes": file_bytes, "listing": listing, "refreshes": refreshes}
        print(json.dumps(task), file=process.stdin, flush=True)
        return json.loads(process.stdout.readline())

    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", NURSERY],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        yield child
        process.stdin.close()


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks and kills")


@pytest.fixture(scope="module")
def states(nursery, tmp_path_factory):
    """Folders that a run may begin with, and the source of the new rows."""
    folder = tmp_path_factory.mktemp("states")
    source, new = write_old_rows(folder), write_new_rows(folder)
    old = write(source, folder / "old")
    (old / "notes.txt").write_text("mine")
    (folder / "empty").mkdir()
    torn = Path(shutil.copytree(old, folder / "torn"))
    nursery(new, torn, overwrite=True, step=SHARDS + 1, events=MOVES)
    return {"old": old, "empty": folder / "empty", "torn": torn, "source": source, "new": new}


def rows_of(out):
    """The ids of a whole set, or none where there is none."""
    if (out / "manifest.json").exists():
        return ids_of(out)
    with pytest.raises(ManifestError):
        open_shards(out)
    return []


def write_copy(states, state, out, source):
    """Write into a copy of a folder, without being killed; return it."""
    shutil.copytree(states[state], out)
    return write(source, out, overwrite=state != "empty")


@pytest.mark.slow
@needs_fork
@pytest.mark.parametrize("state", ["old", "empty", "torn"])
def test_a_kill_at_any_step_leaves_the_old_set_or_the_new(states, nursery, tmp_path, state):
    before, overwrite = ([], False) if state == "empty" else (OLD, True)
    whole = contents(write_copy(states, state, tmp_path / "whole", states["new"]))
    outcomes = []
    for step in range(1, 200):
        out = Path(shutil.copytree(states[state], tmp_path / f"out{step}"))
        code, _ = nursery(states["new"], out, overwrite=overwrite, step=step)
        outcomes.append(rows_of(out))
        assert ids_of(write(states["new"], out, overwrite=overwrite)) == NEW
        assert_tidy(out, *(["notes.txt"] if before else []))
        assert outcomes[-1] != before or contents(out) == whole
        if code == 0:  # there are no more steps
            break
        assert code == -signal.SIGKILL
    changed = outcomes.index(NEW)
    assert outcomes == [before] * changed + [NEW] * (len(outcomes) - changed)
    # Before: the hidden folder is made, scratch cleared, 3 shards and the manifest moved. After:
    # the hidden folder is removed, in several steps.
    assert changed >= 2 * SHARDS + 5
    assert len(outcomes) - changed >= 3


@needs_fork
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_kill_is_mended_when_the_old_set_is_asked_for_again(states, tmp_path, overwrite):
    out = Path(shutil.copytree(states["torn"], tmp_path / "out"))
    assert len(list(out.glob("*.arrow"))) == 2 * SHARDS  # of the old set, and of none
    old = {name: stamp for name, stamp in stamps(out).items() if name in files_of_set(out)}
    assert ids_of(write(states["source"], out, overwrite=overwrite)) == OLD
    assert_tidy(out, "notes.txt")
    is_as_it_was = {name: stamps(out).get(name) for name in old} == old
    assert is_as_it_was is not overwrite


@needs_fork
@pytest.mark.parametrize("how", ["kill", "fail"])
@pytest.mark.parametrize("listing", ["ascending", "descending"])
def test_feature_sets_are_learned_whole_or_not_at_all(nursery, tmp_path, listing, how):
    train = write_old_rows(tmp_path)
    write_sets(tmp_path, OLD_SETS)
    old = write(train, tmp_path / "old")
    write_sets(tmp_path, NEW_SETS)
    whole = contents(write(train, Path(shutil.copytree(old, tmp_path / "whole"))))
    outcomes = []
    for step in range(1, 100):
        out = Path(shutil.copytree(old, tmp_path / f"out{step}"))
        before = stamps(out)
        task = {"overwrite": False, "step": step, "how": how, "listing": listing}
        code, _ = nursery(train, out, **task)
        outcomes.append(sets_of(out))
        if how == "fail" and step <= 4:
            assert ".writing" not in contents(out)
        assert contents(write(train, out)) == whole
        after = stamps(out)
        assert {name for name in after if after[name] != before[name]} == {"manifest.json"}
        if code == 0:  # there are no more steps
            break
        assert code == (3 if how == "fail" else -signal.SIGKILL)
    changed = outcomes.index(NEW_SETS)
    kept = {"small": OLD_SETS["small"]}
    assert outcomes == [kept] * changed + [NEW_SETS] * (len(outcomes) - changed)
    assert changed >= 4  # the hidden folder is made, manifest and journal written, it is moved
    assert len(outcomes) - changed >= 3


@needs_fork
@pytest.mark.parametrize("listing", ["ascending", "descending"])
def test_a_kill_while_mending_leaves_the_old_set(states, nursery, tmp_path, listing):
    for step in range(1, 100):
        out = Path(shutil.copytree(states["torn"], tmp_path / f"out{step}"))
        code, _ = nursery(states["source"], out, overwrite=False, step=step, listing=listing)
        assert ids_of(out) == OLD
        assert ids_of(write(states["source"], out)) == OLD
        assert_tidy(out, "notes.txt")
        if code == 0:
            break
        assert code == -signal.SIGKILL
    assert step > SHARDS + 2


@pytest.mark.slow
@needs_fork
def test_a_kill_over_a_damaged_manifest_leaves_nothing_behind(states, nursery, tmp_path):
    damaged = Path(shutil.copytree(states["old"], tmp_path / "damaged"))
    (damaged / "manifest.json").write_text("{")
    for step in range(1, 200):
        out = Path(shutil.copytree(damaged, tmp_path / f"out{step}"))
        code, _ = nursery(states["new"], out, overwrite=True, step=step)
        assert ids_of(write(states["new"], out, overwrite=True)) == NEW
        # Which files a damaged set had is not known, so they stay.
        assert_tidy(out, *(set(os.listdir(damaged)) - {"manifest.json"}))
        if code == 0:
            break
    assert step > 2 * SHARDS + 5


@pytest.mark.slow
@needs_fork
@pytest.mark.parametrize("state", ["old", "empty"])
def test_a_kill_at_any_time_leaves_the_old_set_or_the_new(states, nursery, tmp_path, state):
    rows, instants = 12_000, 20
    source = write_source(tmp_path / "t", rows=rows, features=120, row_group_rows=3000)
    before, overwrite = ([], False) if state == "empty" else (OLD, True)
    whole = contents(write_copy(states, state, tmp_path / "whole", source))
    runs = [nursery(source, tmp_path / f"run{n}", overwrite=False) for n in range(3)]
    assert [code for code, _ in runs] == [0, 0, 0]
    codes, outcomes = [], []
    for instant in range(instants):
        out = Path(shutil.copytree(states[state], tmp_path / f"out{instant}"))
        seconds = min(seconds for _, seconds in runs) * (instant + 0.5) / instants
        codes.append(nursery(source, out, overwrite=overwrite, kill_after=seconds)[0])
        outcomes.append(rows_of(out))
        assert ids_of(write(source, out, overwrite=overwrite)) == ids(0, rows)
        assert_tidy(out, *(["notes.txt"] if before else []))
        assert outcomes[-1] != before or contents(out) == whole
    assert codes.count(-signal.SIGKILL) >= 12
    assert outcomes[0] == before
    assert all(outcome in (before, ids(0, rows)) for outcome in outcomes)


@pytest.fixture(scope="module")
def grouped(tmp_path_factory):
    """A source of several row groups, and the set that is made of it."""
    folder = tmp_path_factory.mktemp("grouped")
    path = folder / "train.parquet"
    source = write_source(path, rows=3000, features=200, row_group_rows=1500, targets=("y",))
    return source, contents(write(source, folder / "whole"))


KILLED_INSIDE = {"events": ("open inside",)}


@needs_fork
def test_a_run_goes_on_after_a_kill_at_any_file(grouped, nursery, tmp_path):
    source, whole = grouped
    for step in range(1, 500, 3):
        out = tmp_path / f"out{step}"
        code, _ = nursery(source, out, overwrite=False, step=step, **KILLED_INSIDE)
        if code == 0:
            break
        assert code == -signal.SIGKILL
        assert contents(write(source, out)) == whole
        shutil.rmtree(out)
    assert step > 20


@needs_fork
def test_a_run_that_is_killed_again_and_again_comes_to_its_end(grouped, nursery, tmp_path):
    source, whole = grouped
    out, codes = tmp_path / "out", []
    while len(codes) < 40 and 0 not in codes:
        code, _ = nursery(source, out, overwrite=False, step=12, **KILLED_INSIDE)
        codes.append(code)
    assert codes == [-signal.SIGKILL] * (len(codes) - 1) + [0]
    assert len(codes) > 2
    assert contents(out) == whole


@pytest.mark.slow
@needs_fork
@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("listing", ["ascending", "descending"])
def test_what_was_half_removed_is_not_gone_on_with(states, nursery, tmp_path, listing, overwrite):
    killed = Path(shutil.copytree(states["old"], tmp_path / "killed"))
    nursery(states["new"], killed, overwrite=True, step=10, **KILLED_INSIDE)
    assert len(list(killed.glob(".writing/source-00000/window-*"))) == 2 * SHARDS
    for step in range(1, 100):
        out = Path(shutil.copytree(killed, tmp_path / f"out{step}"))
        # Another run removes what is there; it is killed; and the first is asked for again.
        code, _ = nursery(states["source"], out, overwrite=overwrite, step=step, listing=listing)
        assert ids_of(write(states["new"], out, overwrite=True)) == NEW
        assert_tidy(out, "notes.txt")
        if code == 0:
            break
    assert step > 2 * SHARDS


@needs_fork
@pytest.mark.parametrize("step", range(1, SHARDS + 2))
@pytest.mark.parametrize("state", ["old", "empty", "torn"])
def test_a_move_that_fails_leaves_the_old_set_and_nothing_else(
    states, nursery, tmp_path, state, step
):
    out = Path(shutil.copytree(states[state], tmp_path / "out"))
    overwrite = state != "empty"
    task = {"step": step, "events": MOVES, "how": "fail"}
    code, _ = nursery(states["new"], out, overwrite=overwrite, **task)
    assert code == 3
    assert contents(out) == contents(states["old" if overwrite else "empty"])


@needs_fork
@pytest.mark.parametrize("file_bytes", [1, 1000, 4000, 8000])
def test_a_disk_that_takes_no_more_leaves_the_old_set_and_nothing_else(
    states, nursery, tmp_path, file_bytes
):
    old = Path(shutil.copytree(states["old"], tmp_path / "old"))
    code, _ = nursery(states["new"], old, overwrite=True, file_bytes=file_bytes)
    assert code == 3
    assert contents(old) == contents(states["old"])
    code, _ = nursery(states["new"], tmp_path / "new", overwrite=False, file_bytes=file_bytes)
    assert code == 3
    assert not (tmp_path / "new").exists()
    assert ids_of(write(states["new"], old, overwrite=True)) == NEW


@pytest.mark.slow
@needs_fork
@pytest.mark.parametrize("how", ["kill", "fail"])
def test_a_refresh_that_ends_at_any_step_leaves_the_old_set_or_the_new(nursery, tmp_path, how):
    whole = numerai_table(rows=ROWS, eras=8)
    pq.write_table(whole, tmp_path / "new.parquet")
    known = whole.filter(pc.less(whole["era"], "0007"))
    values = known["target"].to_numpy().copy()
    values[::7] = np.nan  # which come with the new file
    place = known.schema.get_field_index("target")
    column = pa.array(values, known["target"].type, from_pandas=True)
    pq.write_table(known.set_column(place, "target", column), tmp_path / "old.parquet")
    old = write(tmp_path / "old.parquet", tmp_path / "old")
    before, after = sorted(known["id"].to_pylist()), sorted(whole["id"].to_pylist())
    missing, seen = {"target": int(np.isnan(values).sum())}, set()
    for step in range(1, 100):
        out = Path(shutil.copytree(old, tmp_path / f"out{step}"))
        code, _ = nursery(tmp_path / "new.parquet", out, refreshes=True, step=step, how=how)
        found = ids_of(out)
        with open_shards(out) as shards:
            assert (found, shards.missing) in ((before, missing), (after, {}))
        seen.add(len(found))
        if how == "fail" and found == before:
            assert_tidy(out)
        assert not append_shards(out, tmp_path / "new.parquet", progress=False).is_needed or (
            found == before
        )
        assert ids_of(out) == after
        assert_tidy(out)
        if code == 0:
            break
    assert step > 10
    assert seen == {len(before), len(after)}
