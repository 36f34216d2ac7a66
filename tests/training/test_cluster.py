"""Cluster: what is lost of a cluster of Ray's costs time, and no bit of what is made on it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest
import ray
from numerai_tables import write_source
from ray_calls import StayingFitter
from ray_nodes import NODE, kill_head, kill_node, three_nodes, wait_for

from numerai_sequence import RayTasks, WorkerError, open_shards, write_shards
from numerai_sequence.synthetic import write_parquet
from numerai_sequence.training import scored_runs

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster():
    with three_nodes() as nodes:
        yield nodes


def test_a_node_that_is_killed_while_folds_train_costs_no_bit(cluster, tmp_path, monkeypatch):
    source = write_parquet(tmp_path / "train.parquet", rows=600, features=20, targets=1, min_eras=9)
    write_shards(source, tmp_path / "shards", num_shards=3, progress=False).close()
    options = scored_runs.TrainOptions(step=3, purge=1, epochs=1, layers=(4,))
    tables = {}
    killer = threading.Thread(
        target=lambda: kill_node(cluster, wait_for(tmp_path / "tasks" / "held")), daemon=True
    )
    with open_shards(tmp_path / "shards") as shards:
        for name, executor in (("alone", None), ("tasks", RayTasks())):
            how = {"overwrite": False, "progress": False, "executor": executor}
            tables[name] = scored_runs.train(shards, tmp_path / name, options, **how)
            if executor is None:
                monkeypatch.setattr(scored_runs, "Fitter", StayingFitter)
                killer.start()
    killer.join()
    assert len(cluster.worker_nodes) == 1
    assert tables["alone"].equals(tables["tasks"])
    scores = sorted((tmp_path / "alone").rglob("scores.csv"))
    assert len(scores) > 2
    for path in scores:
        other = tmp_path / "tasks" / path.relative_to(tmp_path / "alone")
        assert other.read_bytes() == path.read_bytes()


def test_the_head_alone_does_all_that_is_left(cluster, tmp_path):
    for node in list(cluster.worker_nodes):
        kill_node(cluster, node.node_id)
    assert list(RayTasks().map(pow, [2, 3], [5, 6])) == [32, 729]


def test_a_node_that_joins_late_takes_tasks(cluster, tmp_path):
    future = RayTasks(num_gpus=1).submit(os.getpid)
    cluster.add_node(**{**NODE, "num_gpus": 1})
    assert future.result(timeout=120) != os.getpid()


def test_a_machine_without_the_package_is_an_error_that_says_so(cluster, tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nsys.modules['numerai_sequence'] = None\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    node = cluster.add_node(**{**NODE, "num_cpus": 2})
    with pytest.raises(WorkerError, match=r"cannot load a task: .*numerai_sequence"):
        RayTasks(num_cpus=2).submit(pow, 2, 3).result(timeout=120)
    kill_node(cluster, node.node_id)


DRIVER = """
import sys
from numerai_sequence import WorkerError, write_shards
from numerai_sequence.system.executor_tasks import ray_at
from numerai_sequence.writing import part_runners
from pathlib import Path
from ray_calls import stay

marker = Path(sys.argv[2])

def stay_anywhere(work, *rest):
    stay(marker)

part_runners._fill = stay_anywhere
try:
    with ray_at(sys.argv[1]) as tasks:
        write_shards(sys.argv[4], sys.argv[3], executor=tasks, progress=False)
except WorkerError as error:
    print(f"said: {error}")
"""


def test_a_head_that_is_lost_is_an_error_in_time(cluster, tmp_path):
    """The last test of this file: nothing is left of the cluster."""
    ray.shutdown()
    source = write_source(tmp_path / "0.parquet")
    patience = {"RAY_gcs_rpc_server_reconnect_timeout_s": "15"}
    arguments = [cluster.address, tmp_path / "held", tmp_path / "out", source]
    with subprocess.Popen(
        [sys.executable, "-c", DRIVER, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **patience},
    ) as driver:
        wait_for(tmp_path / "held")
        kill_head(cluster)
        said, _ = driver.communicate(timeout=120)
    assert "said: " in said, said
    assert f"{cluster.address}: the head of the Ray cluster has not answered for 10 seconds" in said
    assert driver.returncode == 0
    assert not (tmp_path / "out").exists()
