"""Platforms: where a system lacks something, all works without it, and what it refuses is said.

What is missing is missing in a child process, before the package is imported there: so nothing of
it is imported here but in functions.
"""

from __future__ import annotations

import errno
import hashlib
import json
import mmap
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from numerai_tables import row_numbers, write_source

HELPERS = Path(__file__).parents[1] / "helpers"
ROWS, FEATURES = 4000, 40
is_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux's own")


def in_child(function, *arguments, before=(), **environment):
    """Run a function of this module in a process of its own; return what it returns, from JSON."""
    call = (
        f"import json, test_platforms as m; print(json.dumps(m.{function.__name__}(*{arguments})))"
    )
    paths = os.pathsep.join(map(str, [Path(__file__).parent, HELPERS, HELPERS.parents[1]]))
    environment = {"PYTHONPATH": paths, "TF_CPP_MIN_LOG_LEVEL": "3", **environment}
    done = subprocess.run(
        [*before, sys.executable, "-c", call],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def as_others():
    """Return the beginning of a command that the modes of files hold for, or skip."""
    if os.geteuid():
        return []
    if not shutil.which("setpriv"):
        pytest.skip("root may do everything, and there is no setpriv")
    return ["setpriv", "--inh-caps=-all", "--bounding-set=-all"]


def as_read_only(folder):
    """Return the beginning of a command that finds a folder on a file system that is read-only."""
    mount = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'
    for kind in (["--mount"], ["--user", "--map-root-user", "--mount"]):
        command = ["unshare", *kind, "sh", "-c", mount, str(folder)]
        if shutil.which("unshare") and not subprocess.run([*command, "true"]).returncode:
            return command
    (folder / "set").chmod(0o555)  # nothing can be mounted here: then its mode shall do
    return as_others()


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A folder with a source and its shard set; and what the manifest says of its bytes."""
    from numerai_sequence import write_shards

    folder = tmp_path_factory.mktemp("given")
    source = write_source(folder / "train.parquet", rows=ROWS, features=FEATURES, eras=24)
    with write_shards(source, folder / "set", num_shards=3, progress=False):
        return folder


def checksums(shards):
    return [shard.checksum for shard in shards.manifest.shards]


def forget_the_system():
    """Take away what Linux has and other systems may lack."""
    for name in ("preadv", "posix_fadvise", "sched_getaffinity", "sysconf", "fork"):
        delattr(os, name)
    for module in (os, mmap):
        for name in [name for name in dir(module) if name.startswith(("MADV_", "POSIX_FADV_"))]:
            delattr(module, name)
    for name in ("fcntl", "resource"):
        sys.modules[name] = None

    def refuse(event, arguments):
        is_path = event in ("open", "os.listdir", "os.scandir") and isinstance(arguments[0], str)
        if is_path and arguments[0].startswith(("/proc", "/sys")):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), arguments[0])

    sys.addaudithook(refuse)


def use_all(given, work):
    """Write, open, verify, train and predict, and run the command, without the system's help."""
    forget_the_system()
    given, work = Path(given), Path(work)
    from click.testing import CliRunner
    from keras_models import keras

    from numerai_sequence import NumeraiSequence, open_shards, predict, write_shards
    from numerai_sequence.commands.main import main

    def command(*arguments):
        result = CliRunner().invoke(main, list(map(str, arguments)), catch_exceptions=False)
        return result.exit_code, result.output

    def rows_read(**options):
        sequence = NumeraiSequence(shards, 300, **options)
        batches = [sequence[number][0] for number in range(len(sequence))]
        found = np.sort(np.concatenate([row_numbers(x) for x in batches]))
        return sequence.paging_reason, found.tolist() == list(range(ROWS))

    with write_shards(given / "train.parquet", work / "set", num_shards=3, progress=False) as new:
        new.verify()
        written = checksums(new)
    with open_shards(given / "set") as shards:
        shards.verify()
        tight = {"paging": "streaming", "memory_budget": "24MB"}
        read = [rows_read(), rows_read(run_rows=1, **tight), rows_read(run_rows=16, **tight)]
        model = keras.Sequential([keras.layers.Input((FEATURES,)), keras.layers.Dense(1)])
        model.compile("adam", "mse")
        fitted = model.fit(NumeraiSequence(shards, 100), workers=2, verbose=0)
        predicted = predict(model, shards)
        ids = predicted.index.tolist() == shards.column("id").to_pylist()
    options = ["--layers", "4", "--epochs", "1", "--quiet", "--out", work / "run"]
    commands = [
        command("info", given / "set"),
        command("verify", given / "set", "--quiet"),
        command("train", given / "set", *options),
        command("predict", work / "run", given / "set", "--out", work / "p.csv", "--quiet"),
    ]
    return {
        "written": written,
        "read": read,
        "loss": fitted.history["loss"],
        "ids": ids,
        "commands": commands,
        "predictions": len((work / "p.csv").read_text().splitlines()),
    }


@is_linux
@pytest.mark.slow
def test_all_works_on_a_read_only_file_system_without_any_of_linux(given, tmp_path):
    from numerai_sequence import open_shards

    found = in_child(use_all, str(given), str(tmp_path), before=as_read_only(given))
    with open_shards(given / "set") as shards:
        assert found["written"] == checksums(shards)
    unknown = "the available memory is unknown on this system"
    assert found["read"] == [[unknown, True], ["as asked for", True], ["as asked for", True]]
    assert np.isfinite(found["loss"]).all()
    assert found["ids"]
    assert [code for code, _ in found["commands"]] == [0] * 4, found["commands"]
    assert found["predictions"] == ROWS + 1


def bytes_read():
    """Return how much this process has had the kernel read, from disks or the page cache."""
    return int(Path("/proc/self/io").read_text().split()[1])


def read_all(source, out):
    """Write a set, and read it in every way; return what it holds."""
    from numerai_sequence import write_shards
    from numerai_sequence.reading.paging import Pager

    with write_shards(source, out, num_shards=3, progress=False) as shards:
        shards.verify()
        rng, digest = np.random.default_rng(0), hashlib.sha256()
        for rows in (np.arange(ROWS), np.sort(rng.choice(ROWS, 300, replace=False))):
            for part in shards.row_reader.gather(rows, shards.targets):
                digest.update(part.tobytes())
        pager, before = (
            Pager(shards.files, mode="resident", budget_bytes=1, warms=True),
            bytes_read(),
        )
        while pager.reads_ahead:
            pager.warm()
        is_warm = bytes_read() - before >= sum(shard.bytes for shard in shards.manifest.shards)
        advised = Pager(shards.files, mode="streaming", budget_bytes=1 << 20)
        advised.read_ahead(shards.row_reader.extents(np.arange(9), ["target"]))
        advised.let_go()
        return [checksums(shards), digest.hexdigest(), is_warm]


def read_all_and_be_refused(source, out):
    """Do the same, and then open the set where no file can be mapped."""
    from numerai_sequence import NumeraiSequenceError, open_shards

    found = read_all(source, out)
    os.environ["NO_MAP"] = "1"
    try:
        open_shards(out)
    except NumeraiSequenceError as error:
        return found, f"{type(error).__name__}: {error}"


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """The library of short_reads.c, and how it gets into a process."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if not sys.platform.startswith("linux") or compiler is None:
        pytest.skip("no C compiler")
    library = tmp_path_factory.mktemp("short") / "short.so"
    command = [
        compiler,
        "-shared",
        "-fPIC",
        "-O1",
        "-o",
        library,
        HELPERS / "short_reads.c",
        "-ldl",
    ]
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    return str(library)


@pytest.mark.slow
def test_short_and_interrupted_reads_change_no_byte(short, given, tmp_path):
    folder = tmp_path / "far"
    folder.mkdir()
    shutil.copy2(given / "train.parquet", folder)
    options = {"LD_PRELOAD": short, "FOLDER": str(folder), "NO_ADVICE": "1"}
    source, out = str(folder / "train.parquet"), str(folder / "set")
    found, refused = in_child(read_all_and_be_refused, source, out, **options)
    assert found == read_all(source, tmp_path / "near")
    assert found[2]
    assert refused == (
        f"NumeraiSequenceError: {folder}/set/shard-00.arrow: cannot be mapped into memory (No such "
        "device); some file systems cannot map files; copy the set to a local disk"
    )


def use_what_may_not_be_written(given):
    """Use a set in a folder that is not to be written to; then meet files not to be read."""
    from click.testing import CliRunner

    from numerai_sequence import NumeraiSequenceError, open_shards, write_shards
    from numerai_sequence.commands.main import main

    given = Path(given)
    folder, source, other = given / "set", given / "train.parquet", given / "other.parquet"
    options = {"num_shards": 3, "progress": False}

    def attempt(function, *arguments, **options):
        try:
            function(*arguments, **options).close()
        except (NumeraiSequenceError, OSError) as error:
            return f"{type(error).__name__}: {error}"

    folder.chmod(0o555)
    with write_shards(source, folder, **options) as shards:
        shards.verify()
        opened = shards.rows
    information = CliRunner().invoke(main, ["info", str(folder)])
    found = {
        "opened": opened,
        "information": [information.exit_code, information.output],
        "same source": attempt(write_shards, source, folder, **options),
        "another source": attempt(write_shards, other, folder, **options),
        "overwritten": attempt(write_shards, other, folder, overwrite=True, **options),
        "new folder": attempt(write_shards, source, folder / "inside", **options),
    }
    for name in ("train.parquet", "set/shard-01.arrow", "set/manifest.json"):
        (given / name).chmod(0)
        found[name] = attempt(open_shards, folder)
        found[name] = found[name] or attempt(write_shards, source, given / "b", **options)
        (given / name).chmod(0o444)
    found["at last"] = attempt(open_shards, folder)
    return found


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="files have no modes")
def test_folder_that_may_not_be_written_serves_and_what_may_not_be_read_is_named(given, tmp_path):
    copy = shutil.copytree(given, tmp_path / "copy", copy_function=shutil.copy2)
    write_source(copy / "other.parquet", rows=300)
    before = {path.name: path.stat().st_mtime_ns for path in (copy / "set").iterdir()}
    found = in_child(use_what_may_not_be_written, str(copy), before=as_others())
    assert {path.name: path.stat().st_mtime_ns for path in (copy / "set").iterdir()} == before
    assert found["opened"] == ROWS
    assert found["information"][0] == 0
    assert found["same source"] is None
    assert found["another source"].startswith(f"OutputExistsError: {copy}/set: holds a set with an")
    assert "Permission denied" in found["overwritten"]
    assert "Permission denied" in found["new folder"]
    assert found["train.parquet"].startswith(f"SourceError: {copy}/train.parquet: cannot be read")
    assert "Permission denied" in found["train.parquet"]
    assert found["set/shard-01.arrow"] == (
        f"NumeraiSequenceError: {copy}/set/shard-01.arrow: cannot be opened (Permission denied); "
        "expected a file that this user may read"
    )
    assert found["set/manifest.json"].startswith(
        f"ManifestError: {copy}/set/manifest.json: Permission denied; expected"
    )
    assert found["at last"] is None


def open_with_few(given, limit, amount):
    """Open a set where the system allows no more of something."""
    import resource

    from numerai_sequence import NumeraiSequenceError, open_shards

    given = Path(given)
    before, most = resource.getrlimit(getattr(resource, limit))
    resource.setrlimit(getattr(resource, limit), (amount, most))
    try:
        open_shards(given / "set")
    except NumeraiSequenceError as error:
        told = f"{type(error).__name__}: {error}"
    resource.setrlimit(getattr(resource, limit), (before, most))
    open_shards(given / "set").verify()
    return told


@is_linux
def test_system_without_room_for_files_says_so_and_calls_no_shard_damaged(given):
    told = in_child(open_with_few, str(given), "RLIMIT_NOFILE", 6)
    assert told.startswith("NumeraiSequenceError: ")
    assert "Too many open files" in told
    assert "ulimit -n" in told


def look_into_closed_groups(root):
    from numerai_sequence.reading.memory_budget import _groups_available

    Path(root, "sys/fs/cgroup/closed").chmod(0)
    return list(_groups_available(Path(root)))


@is_linux
def test_control_group_that_may_not_be_looked_into_is_no_obstacle(tmp_path):
    (tmp_path / "sys/fs/cgroup/closed/inner").mkdir(parents=True)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/closed/inner\n")
    for name, number in (("max", "900"), ("current", "100"), ("stat", "active_file 0")):
        (tmp_path / f"sys/fs/cgroup/memory.{name}").write_text(number)
    found = in_child(look_into_closed_groups, str(tmp_path), before=as_others())
    assert found == [800]


def rows_of(shards):
    """Return the numbers of the rows of a set, as its features tell them, ascending."""
    encoded, _ = shards.row_reader.gather(np.arange(shards.rows, dtype=np.int64), [])
    from numerai_sequence.format.encodings import ENCODINGS

    x = np.empty((shards.rows, FEATURES), np.float32)
    ENCODINGS[shards.encoding].decoder(FEATURES, dtype="float32")(encoded, x)
    return np.sort(row_numbers(x)).tolist()


def names_in(folder):
    return sorted(path.name for path in Path(folder).iterdir())


def write_as_on_windows(given, newer, work):
    """Write, append, sync and replace sets that are open all the while."""
    import gc
    import warnings

    import windows_rules

    windows_rules.take_on()
    warnings.filterwarnings("error", category=EncodingWarning, module="numerai_sequence")
    from numerai_sequence import append_shards, open_shards, sync_shards, write_shards
    from numerai_sequence.commands.main import main

    out, options = Path(work) / "set 特", {"num_shards": 3, "progress": False}
    first = write_shards(Path(given) / "train.parquet", out, **options)
    found = {"written": checksums(first)}
    second = write_shards(Path(given) / "train.parquet", out, seed=1, overwrite=True, **options)
    found["first"], found["second"] = rows_of(first), rows_of(second)
    found["names"] = [names_in(out)]
    refreshed = []
    for path in newer:
        append_shards(out, path, progress=False)
        refreshed.append(open_shards(out))
    found["refreshed"] = [[one.rows, one.missing, len(one.manifest.patches)] for one in refreshed]
    for one in (first, second, *refreshed):
        one.verify()
    sync_shards(newer[-1], out, seed=1, progress=False, num_shards=3).close()
    found["names"].append(names_in(out))
    main(["info", str(out)], standalone_mode=False)
    for one in (first, second, *refreshed):
        one.close()
    del one, first, second, refreshed
    gc.collect()
    append_shards(out, newer[-1], progress=False)
    with open_shards(out) as shards:
        found["files"] = sorted(file.file for file in shards.manifest.files)
    found["names"].append(names_in(out))
    return found


def write_newer(folder):
    """Write the files of three weeks: two eras without some targets, with them, and corrected."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq
    from numerai_tables import numerai_table

    options = {
        "rows": 500,
        "features": FEATURES,
        "first_row": ROWS,
        "eras": [25] * 200 + [26] * 300,
    }
    tables = [numerai_table(missing_target=is_new, **options) for is_new in (True, False)]
    place = tables[1].schema.get_field_index("target")
    more = pc.cast(pc.add(tables[1]["target"], 1), "float32")
    tables += [tables[1].set_column(place, "target", more)]
    tables[2] = tables[2].set_column(tables[2].schema.get_field_index("target_b"), "target_b", more)
    paths = [folder / f"week-{number}.parquet" for number in range(3)]
    for path, table in zip(paths, tables, strict=True):
        pq.write_table(table.replace_schema_metadata(tables[0].schema.metadata), path)
    return [str(path) for path in paths]


@is_linux
def test_sets_that_are_open_are_replaced_refreshed_and_synced_as_on_windows(given, tmp_path):
    """Their files stay until nobody has them open, and go with the next run."""
    newer = write_newer(tmp_path)
    environment = {"PYTHONWARNDEFAULTENCODING": "1", "PYTHONIOENCODING": "cp1252"}
    found = in_child(write_as_on_windows, str(given), newer, str(tmp_path), **environment)
    from numerai_sequence import open_shards

    with open_shards(given / "set") as shards:
        assert found["written"] == checksums(shards)
    assert found["first"] == found["second"] == list(range(ROWS))
    missing = sum(number % 7 == 3 for number in range(ROWS, ROWS + 500))
    both = {"target": missing, "target_b": missing}
    assert found["refreshed"] == [[ROWS + 500, both, 0], [ROWS + 500, {}, 1], [ROWS + 500, {}, 1]]
    before = [f"shard-{number:02d}.arrow" for number in range(3)]
    assert set(before) < set(found["names"][0])
    assert {*before, "patch-00-3.arrow", ".left.json"} < set(found["names"][1])
    assert found["names"][2] == sorted(["manifest.json", *found["files"]])


def claim_as_on_windows(work):
    """Claim a folder twice at the same time, and once more; replace a file that is open."""
    import threading

    import windows_rules

    windows_rules.take_on()
    from numerai_sequence import OutputError
    from numerai_sequence.system.files import replaced
    from numerai_sequence.writing.folder_claim import claimed

    folder, found = Path(work) / "one" / "two", []
    for make in (False, True, True):
        with claimed(folder, make=make) as is_there:
            found.append([is_there, names_in(work)])
            try:
                with claimed(folder, make=True):
                    found.append("claimed twice")
            except BlockingIOError:
                found.append("refused")
    path, told = Path(work) / "one" / "p.csv", None
    held = open(path, "w", encoding="utf-8")  # noqa: SIM115
    try:
        with replaced(path) as beside:
            beside.write_text("new", encoding="utf-8")
    except OutputError as error:
        told = str(error)
    threading.Timer(0.1, held.close).start()  # as a virus scanner does
    with replaced(path) as beside:
        beside.write_text("new", encoding="utf-8")
    return found, names_in(path.parent), told, path.read_text(encoding="utf-8")


@is_linux
def test_folder_is_claimed_once_and_an_open_file_is_told_of_as_on_windows(tmp_path):
    found, names, told, text = in_child(claim_as_on_windows, str(tmp_path))
    assert found == [
        *([False, []], "claimed twice"),
        *([True, ["one"]], "refused", [True, ["one"]], "refused"),
    ]
    assert names == ["p.csv", "two"]
    assert told.startswith(f"{tmp_path}/one/p.csv: cannot be written (in use by another process);")
    assert "close the program that has it open" in told
    assert text == "new"


def use_processes_as_on_windows():
    """Have a worker process make batches, and one that dies before it has fetched its socket."""

    import windows_rules

    windows_rules.take_on()
    from worker_batches import Squares

    from numerai_sequence import WorkerError
    from numerai_sequence.feeding.worker_processes import Workers
    from numerai_sequence.reading.memory_budget import available_memory

    squares = Workers(Squares(), 1)
    squares.start()
    values, process = squares.batch(7)
    again = squares.batch(8)[0]
    squares.end()
    multiprocessing.set_executable(shutil.which("false"))
    dying = Workers(Squares(), 1)
    dying.start()
    try:
        dying.batch(0)
    except WorkerError as error:
        told = str(error)
    dying.end()
    numbers = [float(values.max()), float(again.min()), process != os.getpid()]
    return numbers, told, available_memory()


@pytest.mark.slow
@is_linux
def test_worker_processes_answer_or_are_missed_as_on_windows():
    import windows_rules

    numbers, told, available = in_child(use_processes_as_on_windows)
    assert numbers == [49.0, 64.0, True]
    assert "ended with exit code 1 before its pass had ended" in told
    assert "if __name__ == '__main__'" in told
    assert available == windows_rules.AVAILABLE_BYTES


def find_rows_in_32_bits(given):
    """Find rows past 2 GiB and past row 2 ** 31, with NumPy's integers as on Windows."""

    import windows_rules

    windows_rules.number_in_32_bits()
    from numerai_sequence import open_shards
    from numerai_sequence.ordering.era_order import EraOrder
    from numerai_sequence.ordering.row_order import epoch_order
    from numerai_sequence.reading.row_reader import RowReader
    from numerai_sequence.reading.selection import Selection

    shards, width = open_shards(Path(given) / "set"), 3_000_000
    batches = [[batch.rows for batch in shard.batches] for shard in shards.manifest.shards]
    rows = RowReader(shards.files, batches, width, [])
    many = RowReader(shards.files[:1], [[2**30] * 6], width, [])
    selection = Selection(shards, eras=["0003", "0017"])
    orders = [
        epoch_order([(0, ROWS)], seed=seed, batch_size=ROWS, run_rows=run, group_rows=ROWS)
        for seed, run in ((None, 1), (1, 1), (1, 16))
    ]
    sizes = np.full(4, ROWS // 4)
    orders.append(EraOrder(np.arange(ROWS), sizes, seed=1, epoch=0, batch_size=4))
    chosen = [order.batch(0) for order in orders]
    chosen += [order.group_with_positions(0)[0] for order in orders]
    chosen += [selection.rows_of_set(np.arange(selection.rows))]
    found = [[(number, ends.tolist()) for number, ends in rows.extents(c, [])] for c in chosen]
    return [
        [one == found[0] for one in found[:-1]],
        found[0],
        rows._starts_of["features"].tolist(),
        many.starts.tolist(),
        Selection(shards, eras=["0003", "0017"]).digest(),
    ]


@pytest.mark.slow
def test_rows_are_found_past_2_gib_where_numpy_counts_in_32_bits(given):
    from numerai_sequence import open_shards
    from numerai_sequence.reading.selection import Selection

    same, found, starts, many, digest = in_child(find_rows_in_32_bits, str(given))
    assert all(same)
    with open_shards(given / "set") as shards:
        sizes = [[b.rows for b in shard.batches] for shard in shards.manifest.shards]
        assert digest == Selection(shards, eras=["0003", "0017"]).digest()
    numbers = [(place, size) for place, of_shard in enumerate(sizes) for size in of_shard]
    width = 3_000_000
    assert found == [
        [place, [[start, start + size * width]]]
        for (place, size), start in zip(numbers, starts, strict=True)
    ]
    assert found[-1][1][0][1] > 2**32
    assert many == [number * 2**30 for number in range(7)]


def live_as_on_windows(given, work):
    """Fit with worker processes, predict, and run the command."""

    import windows_rules

    windows_rules.take_on()
    from click.testing import CliRunner
    from keras_models import keras

    from numerai_sequence import (
        NumeraiSequence,
        open_shards,
        predict,
        write_predictions,
    )
    from numerai_sequence.commands.main import main

    given, work, temporary = Path(given), Path(work), os.environ["TMPDIR"]

    def command(*arguments):
        result = CliRunner().invoke(main, list(map(str, arguments)), catch_exceptions=False)
        assert not result.exit_code, result.output
        return names_left()

    def names_left():
        """Return what is left of temporary folders, but for the one of multiprocessing."""
        return [name for name in names_in(temporary) if not name.startswith("pymp-")]

    shards = open_shards(given / "set")
    training = NumeraiSequence(shards, 500, workers=1, use_multiprocessing=True)
    model = keras.Sequential([keras.layers.Input((FEATURES,)), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    os.environ["KERAS_BACKEND"] = "numpy"  # which loads fast: of the process that is spawned
    loss = model.fit(training, verbose=0).history["loss"]
    left, known = [], NumeraiSequence(shards, 500)
    for suffix in ("csv", "parquet"):
        predictions = predict(model, given / "train.parquet", like=known, ranked=True)
        write_predictions(predictions, work / f"p.{suffix}")
        left.append(names_left())
    quiet = ["--quiet", "--overwrite", "--epochs", "1", "--layers", "4"]
    left.append(command("train", given / "set", "--out", work / "run", *quiet))
    left.append(command("train", given / "set", "--out", work / "run", *quiet))
    to_csv = ["--out", work / "q.csv", "--quiet"]
    left.append(command("predict", work / "run", given / "train.parquet", *to_csv))
    left.append(command("demo", "--train", given / "train.parquet", "--epochs", "1"))
    csv = (work / "p.csv").read_bytes()
    return {
        "loss": loss,
        "reason": training.paging_reason,
        "left": left,
        "lines": [csv.count(b"\n"), csv.count(b"\r")],
        "names": names_in(work),
    }


@is_linux
@pytest.mark.slow
def test_whole_life_is_as_on_windows(given, tmp_path):
    """Temporary folders are gone, though no file that is open can be deleted."""
    work = tmp_path / "work"
    work.mkdir()
    # Its path is short: multiprocessing puts sockets there.
    with tempfile.TemporaryDirectory(dir="/tmp") as temporary:
        environment = {"TMPDIR": temporary, "KERAS_BACKEND": "jax"}  # which loads fast
        found = in_child(live_as_on_windows, str(given), str(work), **environment)
    assert np.isfinite(found["loss"]).all()
    assert found["reason"].endswith("3,000 MB of memory available")
    assert found["left"] == [[]] * 6
    assert found["lines"] == [ROWS + 1, 0]
    assert not [name for name in found["names"] if "tmp" in name or "lock" in name]
