"""Ray: tasks and trainings on three nodes do what they do in one process."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import CancelledError, wait

import pytest
from documentation_pages import example
from numerai_tables import write_source
from ray_calls import (
    claimed_for_a_while,
    elsewhere,
    fail,
    fit_fold,
    kill,
    kill_once,
    killed_once,
    node_of,
    sleep_for_ever,
    stays_once,
    train_twice,
)
from ray_nodes import NODE, kill_node, three_nodes, wait_for
from shard_sets import contents

from numerai_sequence import (
    NumeraiSequenceError,
    RayTasks,
    SourceError,
    WorkerError,
    connect_ranks,
    open_shards,
    write_shards,
)
from numerai_sequence.synthetic import write_parquet
from numerai_sequence.system.executor_tasks import ray_at
from numerai_sequence.training.run_options import TrainOptions
from numerai_sequence.training.scored_runs import train
from numerai_sequence.writing import part_runners


@pytest.fixture(scope="module")
def cluster():
    """Three nodes of Ray's, for all tests of this file."""
    with three_nodes() as nodes:
        yield nodes


def write(sources, out, **options):
    write_shards(sources, out, num_shards=3, progress=False, **options).close()
    return out


@pytest.fixture
def sources(tmp_path):
    return [
        write_source(tmp_path / f"{n}.parquet", rows=200 + n, first_row=1000 * n) for n in range(4)
    ]


@pytest.mark.slow
def test_calls_are_run_in_other_processes(cluster):
    tasks = RayTasks()
    assert list(tasks.map(pow, [2, 3, 4], [5, 6, 7])) == [32, 729, 16384]
    assert tasks.submit(os.getpid).result() != os.getpid()
    assert tasks.submit(dict, a=1).result() == {"a": 1}


@pytest.mark.slow
def test_calls_are_run_on_all_nodes(cluster):
    nodes = {node.node_id for node in cluster.list_all_nodes()}
    found = set()
    for _ in range(20):  # a node may take its time to start a worker
        found |= set(RayTasks().map(node_of, range(6)))
        if found == nodes:
            break
    assert found == nodes


@pytest.mark.slow
def test_a_task_that_is_killed_is_run_again(cluster, tmp_path):
    result, pid = RayTasks().submit(kill_once, tmp_path / "killed", 7).result()
    assert (result, pid != os.getpid()) == (7, True)


@pytest.mark.slow
def test_a_task_that_is_always_killed_is_an_error_that_says_so(cluster):
    with pytest.raises(WorkerError, match="a Ray task was lost"):
        RayTasks(max_retries=1).submit(kill).result()


@pytest.mark.slow
def test_an_error_is_the_one_that_was_raised(cluster):
    with pytest.raises(SourceError, match="x: broken") as caught:
        RayTasks().submit(fail, "x").result()
    assert type(caught.value) is SourceError
    assert (caught.value.path, caught.value.row) == ("x", 3)


@pytest.mark.slow
def test_a_task_that_runs_is_cancelled(cluster, tmp_path):
    future = RayTasks().submit(sleep_for_ever, tmp_path / "runs")
    while not (tmp_path / "runs").exists():
        assert not wait([future], timeout=0.1).done
    assert not future.cancel()
    with pytest.raises((CancelledError, KeyboardInterrupt)):
        future.result(timeout=120)


@pytest.mark.slow
def test_many_sources_make_one_set_bit_for_bit(cluster, sources, tmp_path):
    whole = contents(write(sources, tmp_path / "whole"))
    assert contents(write(sources, tmp_path / "out", executor=RayTasks())) == whole


@pytest.mark.slow
def test_a_worker_that_is_killed_while_it_writes_loses_nothing(
    cluster, sources, tmp_path, monkeypatch
):
    whole = contents(write(sources, tmp_path / "whole"))
    for name in ("_fill", "_seal"):
        monkeypatch.setattr(
            part_runners, name, killed_once(getattr(part_runners, name), tmp_path / name)
        )
        out = write(sources, tmp_path / f"out{name}", executor=RayTasks())
        assert (tmp_path / name).exists()
        assert contents(out) == whole
        monkeypatch.undo()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["_fill", "_seal"])
def test_a_node_that_is_killed_while_it_writes_loses_nothing(
    cluster, sources, tmp_path, monkeypatch, name
):
    whole = contents(write(sources, tmp_path / "whole"))
    monkeypatch.setattr(
        part_runners, name, stays_once(getattr(part_runners, name), tmp_path / "held")
    )
    killer = threading.Thread(
        target=lambda: kill_node(cluster, wait_for(tmp_path / "held")), daemon=True
    )
    killer.start()
    out = write(sources, tmp_path / "out", executor=RayTasks())
    killer.join()
    assert len(cluster.worker_nodes) == 1
    cluster.add_node(**NODE)  # one joins late, and the next tests have three
    assert contents(out) == whole


@pytest.mark.slow
def test_a_source_that_a_lost_machine_is_still_at_is_waited_for(
    cluster, sources, tmp_path, monkeypatch
):
    whole = contents(write(sources, tmp_path / "whole"))
    held = claimed_for_a_while(part_runners._fill, tmp_path / "held")
    monkeypatch.setattr(part_runners, "_fill", held)
    assert contents(write(sources, tmp_path / "out", executor=RayTasks())) == whole
    assert (tmp_path / "held").exists()


@pytest.mark.slow
def test_a_folder_that_another_machine_lacks_is_an_error_that_says_so(
    cluster, sources, tmp_path, monkeypatch
):
    monkeypatch.setattr(part_runners, "_fill", elsewhere(part_runners._fill, tmp_path / "local"))
    with pytest.raises(WorkerError, match=r"local/.writing: not found on the machine .* at the"):
        write(sources, tmp_path / "out", executor=RayTasks())
    assert not (tmp_path / "local").exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_task_that_no_node_is_large_enough_for_is_warned_of(cluster):
    tasks = RayTasks(num_cpus=64)
    with pytest.warns(UserWarning, match=r"num_cpus=64, but the largest machine .* has 1;"):
        future = tasks.submit(pow, 2, 3)
    future.cancel()
    with pytest.raises(CancelledError):
        future.result(timeout=60)


@pytest.mark.slow
def test_a_call_that_a_machine_cannot_import_is_an_error_that_says_so(cluster):
    with pytest.raises(WorkerError, match=r"cannot load a task: .*No module named 'not_there'"):
        RayTasks().submit(str, Foreign()).result()


class Foreign:
    def __reduce__(self):
        return exec, ("import not_there",)


@pytest.mark.slow
def test_folds_are_tasks_whose_scores_are_gathered(cluster, tmp_path):
    source = write_parquet(
        tmp_path / "train.parquet", rows=3000, features=20, targets=1, min_eras=30
    )
    options = TrainOptions(step=10, purge=1, epochs=1, layers=(4,))
    tables = {}
    with open_shards(write(source, tmp_path / "shards")) as shards:
        for name, executor in (("alone", None), ("tasks", RayTasks())):
            how = {"overwrite": False, "progress": False, "executor": executor}
            tables[name] = train(shards, tmp_path / name, options, **how)
            assert list(tables[name].index) == shards.eras[10:]
    assert tables["alone"].equals(tables["tasks"])
    for path in (tmp_path / "alone").rglob("scores.csv"):
        other = tmp_path / "tasks" / path.relative_to(tmp_path / "alone")
        assert other.read_text() == path.read_text()
    assert len(list((tmp_path / "tasks").glob("fold-*/model.keras"))) == 2


@pytest.mark.slow
def test_two_workers_train_one_network_and_one_is_killed(cluster, tmp_path):
    """The page's example; the weights are those of a training in which nobody is killed."""
    source = write_parquet(tmp_path / "train.parquet", rows=20_000, features=20, targets=1)
    write(source, tmp_path / "shards")
    block = example("JaxTrainer")
    for name in ("shards", "ray"):
        block = block.replace(f"/shared/{name}", str(tmp_path / name))
    function, start = block.split("JaxTrainer(\n    train,")
    config = {"source": function, "folder": str(tmp_path), "features": 20}
    start = f"JaxTrainer(train_twice, train_loop_config={config!r}, {start}"
    exec(function.split("def train")[0] + start, {"train_twice": train_twice})
    for rank in range(2):
        assert (tmp_path / f"begun-{rank}").read_text() == f"rank {rank} of 2\n" * 2
    assert (tmp_path / "marker").exists()
    assert (tmp_path / "killed.txt").read_text() == (tmp_path / "whole.txt").read_text()


@pytest.mark.slow
def test_the_example_of_tasks_runs(cluster, tmp_path):
    block = example("RayTasks")
    block = block.replace("/shared", str(tmp_path)).replace('ray.init("auto")\n', "")
    source = write_parquet(
        tmp_path / "many.parquet", rows=2000, features=20, targets=1, min_eras=400
    )
    names = {"sources": [source], "fit_fold": fit_fold}
    exec(block.replace("num_cpus=4", "num_cpus=1"), names)
    eras = names["shards"].eras
    assert names["scores"] == [(140, eras[156]), (296, eras[312])]


def test_ranks_are_for_keras_on_jax():
    with pytest.raises(RuntimeError, match="on tensorflow, expected Keras 3 on JAX"):
        connect_ranks()


@pytest.mark.slow
@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "127.0.0.1:port"])
def test_no_cluster_at_an_address_is_an_error_that_says_so(address):
    with (
        pytest.raises(NumeraiSequenceError, match=f"{address}: found no Ray cluster"),
        ray_at(address),
    ):
        pass


@pytest.mark.slow
def test_the_command_starts_a_ray_of_its_own(tmp_path, sources):
    whole = contents(write(sources, tmp_path / "whole"))
    out = tmp_path / "out"
    command = [*map(str, sources), "--out", str(out), "--num-shards", "3", "--ray", "local"]
    done = subprocess.run(
        [sys.executable, "-m", "numerai_sequence", "shard", *command],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert contents(out) == whole
