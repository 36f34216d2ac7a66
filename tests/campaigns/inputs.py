"""Inputs: tables as users may bring them, by the thousand: read bit for bit, or refused.

They are drawn by the properties of tests/writing/test_user_tables.py. Pytest runs these in child
processes.
"""

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
from tqdm import tqdm

from campaigns.result import Result

COUNT = 2_000

_ROOT = Path(__file__).resolve().parents[2]
_PROPERTIES = {
    "a valid table": "test_a_valid_table_is_read_bit_for_bit",
    "one thing wrong in a table": "test_what_is_damaged_is_refused_by_file_column_and_row",
    "two sources": "test_two_sources_are_read_as_one_or_refused",
    "a damaged file": "test_a_file_that_is_damaged_is_refused",
}
# A property ends with its first failure: the next round goes on with others.
_ROUND = 500
_WAIT_SECONDS = 3600
_SHOWN_LINES = 60


def run(folder: Path, *, seed: int, count: int) -> list[Result]:
    """Try `count` tables for each property."""
    results = [Result(what, 0) for what in _PROPERTIES]
    with tqdm(total=count * len(results), unit="table", desc="inputs") as bar:
        for number, start in enumerate(range(0, count, _ROUND)):
            child_seed = int(np.random.default_rng([seed, number]).integers(1 << 32))
            for result in results:
                tries = min(_ROUND, count - start)
                _try(folder, result, _PROPERTIES[result.what], child_seed, tries, bar)
    return results


def _try(folder: Path, result: Result, test: str, seed: int, count: int, bar: tqdm) -> None:
    """Run one property, and add to its result how the examples ended."""
    noted, said = folder / "outcomes", folder / "pytest.log"
    noted.write_text("")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short"]
    command += [f"--hypothesis-seed={seed}", f"tests/writing/test_user_tables.py::{test}"]
    environment = os.environ | {
        "NUMERAI_SEQUENCE_EXAMPLES": str(count),
        "NUMERAI_SEQUENCE_OUTCOMES": str(noted),
        "PYTHONPATH": str(_ROOT),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TMPDIR": str(folder),
    }
    with open(said, "w") as log:
        child = subprocess.Popen(command, cwd=_ROOT, env=environment, stdout=log, stderr=log)
        code = _wait(child, noted, bar)
    outcomes = noted.read_text().splitlines()
    result.tried += len(outcomes) + bool(code)
    result.outcomes = dict(Counter(result.outcomes) + Counter(outcomes))
    if code:
        again = f"NUMERAI_SEQUENCE_EXAMPLES={count} {' '.join(command[1:])}"
        result.failures.append(f"exit {code} of {again}\n{_shortened(said.read_text())}")


def _wait(child: subprocess.Popen, noted: Path, bar: tqdm) -> int:
    """Wait for the child's end, or end it; return its exit code."""
    first, deadline = bar.n, time.monotonic() + _WAIT_SECONDS
    while child.poll() is None:
        if time.monotonic() > deadline:
            child.kill()
        time.sleep(0.2)
        if more := first + noted.read_text().count("\n") - bar.n:
            bar.update(more)
    return child.wait()


def _shortened(text: str) -> str:
    """Return what pytest says of a failure, or the end of what it says, where it says nothing."""
    lines = [line for line in text.splitlines() if line.startswith("E ")] or text.splitlines()
    return "\n".join(line[:200] for line in lines[-_SHOWN_LINES:])
