"""Resuming: trainings that are killed at random batches, and end with the same weights."""

import multiprocessing
import signal
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from campaigns.result import Result
from numerai_sequence import write_shards
from numerai_sequence.synthetic import write_parquet

PROCESSES = multiprocessing.get_context("forkserver")
PRELOADED = ["tensorflow", "keras", "numerai_sequence.resuming.resume"]
COUNT = 20
_ROWS, _BATCHES = 1300, 78  # of all epochs
_WORKERS = (1, 4)
_LIMIT_SECONDS = 120
_MOST_KILLS = 5


def run(folder: Path, *, seed: int, count: int) -> list[Result]:
    """Train once without a kill, and `count` times with one or more."""
    write_parquet(folder / "train.parquet", rows=_ROWS, features=30, seed=seed, progress=False)
    write_shards(folder / "train.parquet", folder / "set", num_shards=3, progress=False).close()
    rng = np.random.default_rng([seed, 6])
    PROCESSES.set_forkserver_preload(PRELOADED)
    if train(folder, "whole", 4, 0) != 0:
        raise RuntimeError("the training that is not killed has failed")
    with np.load(folder / "whole" / "end.npz") as file:
        right = dict(file)
    result, kills = Result("training killed at a random batch", count), 0
    for number in tqdm(range(count), desc="resuming", unit="training"):
        runs, wrong = attempt(folder, f"state-{number}", right, rng)
        kills += len(runs) - 1
        if wrong:
            result.failures.append(f"workers, batches {runs}: {wrong}")
    same = count - len(result.failures)
    result.outcomes, result.figures = {"same weights, bit for bit": same}, {"kills": kills}
    return [result]


def attempt(
    folder: Path, state: str, right: dict[str, Any], rng: np.random.Generator
) -> tuple[list[tuple[int, int]], str | None]:
    """Train in processes that are killed, but for the last; return them, and what is wrong."""
    runs = []
    while True:
        # The first dies in any case, and some of the next.
        dies = not runs or (rng.random() < 0.3 and len(runs) < _MOST_KILLS)
        one = int(rng.choice(_WORKERS)), int(rng.integers(1, _BATCHES)) if dies else 0
        runs.append(one)
        code = train(folder, state, *one)
        if code not in (0, -signal.SIGKILL):
            return runs, f"exit code {code}"
        if code == 0:
            with np.load(folder / state / "end.npz") as found:
                differ = [name for name in right if not np.array_equal(found[name], right[name])]
            return runs, f"other weights: {differ}" if differ else None


def train(folder: Path, state: str, workers: int, batches: int) -> int | None:
    """Run one process; return its exit code, None where it had to be ended."""
    arguments = folder / "set", folder / state, workers, batches
    process = PROCESSES.Process(target=live, args=arguments)
    process.start()
    process.join(_LIMIT_SECONDS)
    code = process.exitcode
    process.kill()
    process.join()
    return code


def live(*arguments: Any) -> None:
    """Train: what runs in the process, which alone imports Keras."""
    from campaigns.children import resumed_fit

    resumed_fit.main(*arguments)
