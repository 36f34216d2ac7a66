"""Ray nodes: a cluster of three nodes on this machine, each with workers of its own."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

HELPERS = Path(__file__).parent
NODE = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}


@contextmanager
def three_nodes():
    """Start a head and two more nodes, and join them; all is ended, and removed, after it."""
    folder = tempfile.mkdtemp(prefix="ray-")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", folder)  # or another cluster is found by its address file
        patch.setenv("RAY_worker_niceness", "0")  # or other tests at work leave them no time
        patch.setenv("PYTHONPATH", os.pathsep.join([str(HELPERS), str(HELPERS.parents[1])]))
        nodes = Cluster()
        try:
            for _ in range(3):
                nodes.add_node(**NODE)
            join(nodes)
            yield nodes
        finally:
            ray.shutdown()
            for node in nodes.list_all_nodes():
                node.kill_all_processes(check_alive=False, allow_graceful=False)
            shutil.rmtree(folder, ignore_errors=True)


def join(nodes):
    ray.init(nodes.address, log_to_driver=False, configure_logging=False)


def kill_node(nodes, node_id):
    """Kill all that runs on a node, at once."""
    (node,) = (node for node in nodes.worker_nodes if node.node_id == node_id)
    nodes.remove_node(node, allow_graceful=False)


def kill_head(nodes):
    for name in ("gcs_server", "raylet"):
        os.kill(nodes.head_node.all_processes[name][0].process.pid, signal.SIGKILL)


def wait_for(path, seconds=120):
    """Return what is in a file as soon as it is there."""
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline, f"no {path.name}"
        time.sleep(0.05)
    return path.read_text()
