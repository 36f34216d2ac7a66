"""Runners: processes that write sources and shards at once make the set that one makes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numerai_tables import numerai_table, write_source
from shard_sets import contents

from numerai_sequence import OutputExistsError, SourceError, open_shards, write_shards
from numerai_sequence.system.executor_tasks import run_all
from numerai_sequence.writing import part_runners
from numerai_sequence.writing.folder_claim import claimed
from numerai_sequence.writing.journal import Journal

SOURCES, SHARDS = 5, 3


@pytest.fixture(scope="module")
def pool():
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        yield pool


@pytest.fixture
def sources(tmp_path):
    """Files of different sizes, whose eras overlap."""
    options = {"features": 31, "row_group_rows": 70, "missing_target": True}
    return [
        write_source(
            tmp_path / f"part-{part}.parquet",
            rows=150 + 40 * part,
            first_row=1000 * part,
            eras=9 + 2 * part,
            **options,
        )
        for part in range(SOURCES)
    ]


def write(sources, out, **options):
    write_shards(sources, out, **{"num_shards": SHARDS, "progress": False, **options}).close()
    return out


class Counted(Executor):
    """A pool that notes what it is given, and may have a call fail."""

    def __init__(self, pool):
        self._pool = pool
        self.calls = []

    def submit(self, function, /, *arguments):
        self.calls.append((function.__name__, *arguments[1:2]))
        return self._pool.submit(function, *arguments)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"encoding": "int8", "mix_eras": 1}, {"num_shards": 40}])
@pytest.mark.parametrize("count", [1, SOURCES])
def test_the_set_is_the_same_bit_for_bit(pool, sources, tmp_path, count, options):
    whole = contents(write(sources[:count], tmp_path / "whole", **options))
    out = write(sources[:count], tmp_path / "out", executor=pool, **options)
    assert contents(out) == whole
    assert sorted(os.listdir(out)) == sorted(whole)


def test_each_source_and_each_shard_is_a_task(pool, sources, tmp_path):
    counted = Counted(pool)
    write(sources, tmp_path / "out", executor=counted)
    expected = [("_fill", number) for number in range(SOURCES)]
    assert counted.calls == expected + [("_seal", number) for number in range(SHARDS)]


def test_progress_counts_the_rows_of_all_sources(pool, sources, tmp_path, capsys):
    write(sources, tmp_path / "out", executor=pool, progress=True)
    err = capsys.readouterr().err
    rows = sum(150 + 40 * part for part in range(SOURCES))
    assert f"reading {SOURCES} files: 100%" in err
    assert f"{rows / 1000:.2f}k/{rows / 1000:.2f}k" in err


def test_the_error_of_a_source_is_raised_and_nothing_left(pool, sources, tmp_path):
    table, bad = numerai_table(rows=90, features=31, first_row=9000), tmp_path / "bad.parquet"
    values = table["feature_017"].to_numpy().copy()
    values[44] = 7
    place = table.column_names.index("feature_017")
    pq.write_table(table.set_column(place, "feature_017", pa.array(values)), bad)
    with pytest.raises(SourceError, match="found 7") as caught:
        write([*sources, bad], tmp_path / "out", executor=pool)
    assert (caught.value.path, caught.value.column, caught.value.row) == (bad, "feature_017", 44)
    assert not (tmp_path / "out").exists()


def test_a_source_that_changes_before_its_task_is_noticed(pool, sources, tmp_path):
    class Late(Counted):
        def submit(self, function, /, *arguments):
            if not self.calls:
                os.utime(sources[3], (1, 1))
            return super().submit(function, *arguments)

    with pytest.raises(SourceError, match="changed while it was read") as caught:
        write(sources, tmp_path / "out", executor=Late(pool))
    assert caught.value.path == sources[3]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["add_source", "add_shard"])
@pytest.mark.parametrize("call", [1, 2, 3])
def test_what_was_noted_is_not_done_again(pool, sources, tmp_path, monkeypatch, kind, call):
    whole, out = contents(write(sources, tmp_path / "whole")), tmp_path / "out"
    add, noted = getattr(Journal, kind), []

    def add_and_interrupt(steps, number, described):
        add(steps, number, described)
        noted.append(number)
        if len(noted) == call:
            raise KeyboardInterrupt

    monkeypatch.setattr(Journal, kind, add_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        write(sources, out, executor=pool)
    monkeypatch.undo()
    counted = Counted(pool)
    write(sources, out, executor=counted)
    done = [number for name, number in counted.calls if name == "_fill"]
    sealed = [number for name, number in counted.calls if name == "_seal"]
    if kind == "add_source":
        assert (done, sealed) == ([n for n in range(SOURCES) if n not in noted], [0, 1, 2])
    else:
        assert (done, sealed) == ([], [n for n in range(SHARDS) if n not in noted])
    assert contents(out) == whole


@pytest.mark.parametrize("alone_first", [False, True])
def test_one_process_goes_on_with_what_many_have_begun(
    pool, sources, tmp_path, monkeypatch, alone_first
):
    whole, out = contents(write(sources, tmp_path / "whole")), tmp_path / "out"
    executors = [None, pool] if alone_first else [pool, None]

    def interrupt(steps, number, described):
        raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "add_shard", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write(sources, out, executor=executors[0])
    monkeypatch.undo()
    write(sources, out, executor=executors[1])
    assert contents(out) == whole


def kill_self(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_process_that_is_killed_leaves_what_was_there(sources, tmp_path, monkeypatch):
    out = write(sources[:2], tmp_path / "out")
    before = contents(out)
    monkeypatch.setattr(part_runners, "_seal", kill_self)
    with (
        ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool,
        pytest.raises(BrokenProcessPool),
    ):
        write(sources, out, executor=pool, overwrite=True)
    assert contents(out) == before
    assert sorted(os.listdir(out)) == sorted(before)
    with open_shards(out) as shards:
        shards.verify()


def test_a_source_that_another_process_is_at_is_left_to_it(pool, sources, tmp_path, monkeypatch):
    pytest.importorskip("fcntl")
    out = tmp_path / "out"

    def interrupt(steps, number, described):
        raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "add_shard", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write(sources, out)
    monkeypatch.undo()
    # Nothing is noted of the source, and a task of the run that was killed is still at it.
    notes = out / ".writing" / "steps.jsonl"
    lines = notes.read_text().splitlines(keepends=True)
    notes.write_text("".join(line for line in lines if '"source": 2' not in line))
    with claimed(out / ".writing" / "source-00002") as is_there:
        assert is_there
        for executor in (pool, None):
            with pytest.raises(
                OutputExistsError, match="another process is writing to this folder"
            ):
                write(sources, out, executor=executor)
            assert (out / ".writing" / "source-00002").exists()
    write(sources, out, executor=pool)
    assert contents(out) == contents(write(sources, tmp_path / "whole"))


def wait_or_fail(number, folder):
    (folder / f"begun-{number}").touch()
    if number == 0:
        raise ValueError("the first one")
    time.sleep(0.2)
    (folder / f"ended-{number}").touch()


def test_an_error_waits_for_what_runs_and_begins_nothing_more(pool, tmp_path):
    with pytest.raises(ValueError, match="the first one"):
        run_all(pool, wait_or_fail, [(n, tmp_path) for n in range(30)], lambda place, found: None)
    begun = {path.name[6:] for path in tmp_path.glob("begun-*")} - {"0"}
    ended = {path.name[6:] for path in tmp_path.glob("ended-*")}
    assert begun == ended
    assert len(begun) < 10
