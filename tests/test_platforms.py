"""Platforms: where a system lacks something, all works without it, and what it refuses is said.

What is missing is missing in a child process, before the package is imported there: so nothing of
it is imported here but in functions.
"""

from __future__ import annotations

import errno
import hashlib
import json
import mmap
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tables import row_numbers, write_source

HERE = Path(__file__).parent
ROWS, FEATURES = 4000, 40
is_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux's own")


def in_child(function, *arguments, before=(), **environment):
    """Run a function of this module in a process of its own; return what it returns, from JSON."""
    call = (
        f"import json, test_platforms as m; print(json.dumps(m.{function.__name__}(*{arguments})))"
    )
    paths = os.pathsep.join([str(HERE), str(HERE.parent)])
    environment = {"PYTHONPATH": paths, "TF_CPP_MIN_LOG_LEVEL": "3", **environment}
    done = subprocess.run(
        [*before, sys.executable, "-c", call],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
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
    from numerai_sequence.cli import main

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
    unknown = "how much memory is available is not known here"
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
            for part in shards.gather(rows, shards.targets):
                digest.update(part.tobytes())
        pager, before = (
            Pager(shards.files, mode="resident", budget_bytes=1, warms=True),
            bytes_read(),
        )
        while pager.reads_ahead:
            pager.warm()
        is_warm = bytes_read() - before >= sum(shard.bytes for shard in shards.manifest.shards)
        advised = Pager(shards.files, mode="streaming", budget_bytes=1 << 20)
        advised.read_ahead(shards.extents(np.arange(9), ["target"]))
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
    """The library of short.c, and how it gets into a process."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if not sys.platform.startswith("linux") or compiler is None:
        pytest.skip("no C compiler")
    library = tmp_path_factory.mktemp("short") / "short.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", library, HERE / "short.c", "-ldl"]
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    return str(library)


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
        "device); not every file system does that; copy the set to a local disk"
    )


def use_what_may_not_be_written(given):
    """Use a set in a folder that is not to be written to; then meet files not to be read."""
    from click.testing import CliRunner

    from numerai_sequence import NumeraiSequenceError, open_shards, write_shards
    from numerai_sequence.cli import main

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
    assert found["another source"].startswith(f"OutputExistsError: {copy}/set: holds a set of an")
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
    from numerai_sequence.reading.memory import _groups_available

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
