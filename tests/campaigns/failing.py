"""Failing: real fits in which something goes wrong, on each Keras, in threads and processes."""

import json
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from harness.process import ENVIRONMENT
from tqdm import tqdm

from campaigns.result import Result
from numerai_sequence import write_shards
from numerai_sequence.synthetic import write_parquet

COUNT = 100
CHILD = Path(__file__).parent / "children/failing_fit.py"
_AT_ONCE = 2
_LIMIT_SECONDS = 90  # of which TensorFlow's import and spawned processes take most
_MOST_SECONDS = 10
_MOST_SECONDS_OF_SPAWNED = 25  # they import TensorFlow, before they are asked for a batch

KERAS: dict[str, dict[str, str]] = {
    "keras": {},
    "jax": {"KERAS_BACKEND": "jax"},
    "torch": {"KERAS_BACKEND": "torch"},
    "tf_keras": {"TF_USE_LEGACY_KERAS": "1"},
}
WORKERS: list[dict[str, Any]] = [
    {"workers": 1},
    {"workers": 4},
    {"workers": 2, "use_multiprocessing": True},
]
# By what goes wrong, how a fit may end.
ENDS = {
    "ours": {"CorruptShardError"},
    "plain": {"ZeroDivisionError"},
    "unpicklable": {"TwoArguments", "WorkerError"},
    "exit": {"WorkerError", "SystemExit"},  # in the main thread it is the program's own
    "killed worker": {"WorkerError", "finished"},
    "Ctrl-C": {"KeyboardInterrupt"},
    "deleted shards": {"finished", "CorruptShardError"},
    "replaced shard": {"finished", "CorruptShardError"},
    "shortened shard": {"CorruptShardError"},
    "overwritten shard": {"CorruptShardError"},
}


def draw(rng: np.random.Generator, number: int) -> dict[str, Any]:
    """Return one try: each trouble in turn, and the rest at random."""
    workers = WORKERS[int(rng.integers(len(WORKERS)))]
    trouble = list(ENDS)[number % len(ENDS)]
    if trouble == "killed worker":
        workers = WORKERS[2]
    methods = ["fork"] * 3 + ["forkserver", "spawn"]
    return {
        "keras": list(KERAS)[int(rng.integers(len(KERAS)))],
        "trouble": trouble,
        "workers": workers,
        "method": methods[int(rng.integers(len(methods)))],
        "seconds": round(float(rng.uniform(0, 1.5)), 3),
    }


def attempt(spec: dict[str, Any], pristine: Path, folder: Path) -> dict[str, Any]:
    """Run one fit, and return how it ended; with `wrong` where that breaks the promise."""
    shutil.copytree(pristine, folder)
    command = [sys.executable, str(CHILD), str(folder), json.dumps(spec)]
    child = subprocess.Popen(
        command,
        env=ENVIRONMENT | KERAS[spec["keras"]],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, errors = child.communicate(timeout=_LIMIT_SECONDS)
        found = json.loads(out.splitlines()[-1]) if child.returncode == 0 and out else {}
        found["wrong"] = judge(spec, found, child.returncode, errors)
    except subprocess.TimeoutExpired:
        found = {"wrong": f"hung for {_LIMIT_SECONDS} s"}
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
        shutil.rmtree(folder, ignore_errors=True)
    return found


def judge(spec: dict[str, Any], found: dict[str, Any], code: int, errors: str) -> str | None:
    """Say what is wrong with how a fit ended, if anything is."""
    is_spawned = "use_multiprocessing" in spec["workers"] and spec["method"] != "fork"
    most = _MOST_SECONDS_OF_SPAWNED if is_spawned else _MOST_SECONDS
    if "ended" not in found:
        return f"exit status {code}: {errors[-500:]}"
    if found["ended"] not in ENDS[spec["trouble"]]:
        return f"ended with {found['ended']}: {found['message'][:300]}"
    if found["seconds"] > most:
        return f"took {found['seconds']:.1f} s"
    if any(now > was for now, was in zip(found["after"], found["before"], strict=True)):
        return f"left threads, processes, descriptors {found['after']}, not {found['before']}"
    return None


def run(folder: Path, *, seed: int, count: int) -> list[Result]:
    """Try `count` fits, some at a time."""
    write_parquet(folder / "train.parquet", rows=3000, features=20)
    write_shards(folder / "train.parquet", folder / "set", num_shards=3, progress=False).close()
    rng = np.random.default_rng([seed, 5])
    specs = [draw(rng, number) for number in range(count)]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        tries = [
            pool.submit(attempt, spec, folder / "set", folder / str(number))
            for number, spec in enumerate(specs)
        ]
        ends = [one.result() for one in tqdm(tries, desc="failing fits", unit="fit")]
    return [collect(trouble, specs, ends) for trouble in ENDS]


def collect(trouble: str, specs: list[dict[str, Any]], ends: list[dict[str, Any]]) -> Result:
    result = Result(f"in fit: {trouble}", 0)
    outcomes: dict[str, int] = {}
    slowest = 0.0
    for spec, found in zip(specs, ends, strict=True):
        if spec["trouble"] != trouble:
            continue
        result.tried += 1
        if found["wrong"]:
            result.failures.append(f"{json.dumps(spec)}: {found['wrong']}")
        else:
            end = "finished epoch" if found["ended"] == "finished" else "clear error"
            outcomes[end] = outcomes.get(end, 0) + 1
            slowest = max(slowest, found["seconds"])
    result.outcomes, result.figures = outcomes, {"slowest_s": round(slowest, 1)}
    return result
