"""Mutants: shard sets that are damaged or tampered with are read right, or refused in our words.

Each is opened, read in every way and verified in a child process, which takes one after the other.
"""

import json
import os
import select
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from campaigns.mutations import KINDS, write_mutant
from campaigns.mutations.base_sets import make_bases
from campaigns.result import Result

COUNT = 10_000

#: What a mutant may take: that is far more than the sets need, and far less than one might claim.
LIMIT_SECONDS = 10
LIMIT_BYTES = 64 << 20

READER = Path(__file__).resolve().parent / "children/mutant_reader.py"


class Reader:
    """A child process that reads mutants, and another one after each that ends it."""

    def __init__(self) -> None:
        # A Keras that loads fast: no batch gets as far as a model.
        self._environment = os.environ | {"KERAS_BACKEND": "numpy", "TF_CPP_MIN_LOG_LEVEL": "3"}
        self._process: subprocess.Popen[str] | None = None

    def ask(self, folder: Path, base: Path) -> dict[str, Any]:
        """Return how a mutant ended."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, READER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=self._environment,
            )
            self._answer(base, base, seconds=120)
        return self._answer(folder, base, seconds=LIMIT_SECONDS)

    def _answer(self, folder: Path, base: Path, *, seconds: float) -> dict[str, Any]:
        process = self._process
        print(json.dumps([str(folder), str(base)]), file=process.stdin, flush=True)
        ready, _, _ = select.select([process.stdout], [], [], seconds)
        line = process.stdout.readline() if ready else ""
        if line:
            return json.loads(line)
        code = process.wait() if ready else None
        self.close()
        how = f"ended the process with {code}" if ready else f"took more than {seconds} s"
        return {"failure": how, "seconds": seconds, "grown_bytes": 0}

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


@contextmanager
def reading() -> Iterator[Reader]:
    reader = Reader()
    try:
        yield reader
    finally:
        reader.close()


def run(folder: Path, *, seed: int, count: int) -> list[Result]:
    """Try mutants 0 to `count` of a seed; each kind has as many as the others."""
    bases = make_bases(folder)
    answers: dict[str, list[tuple[int, dict[str, Any]]]] = {kind: [] for kind in KINDS}
    with reading() as reader:
        for number in tqdm(range(count), desc="mutants", unit="set"):
            mutant = folder / f"mutant-{number}"
            kind, base = write_mutant(mutant, bases, seed=seed, number=number)
            answers[kind].append((number, reader.ask(mutant, base.folder)))
            shutil.rmtree(mutant)
    return [summed(kind, found, seed) for kind, found in answers.items() if found]


def summed(kind: str, answers: list[tuple[int, dict[str, Any]]], seed: int) -> Result:
    failures = []
    for number, answer in answers:
        if answer["grown_bytes"] > LIMIT_BYTES:
            answer.setdefault("failure", f"took {answer['grown_bytes'] >> 20} MB")
        if "failure" in answer:
            failures.append(f"mutant {number} of seed {seed}: {answer['failure']}")
    outcomes = Counter(answer["outcome"] for _, answer in answers if "failure" not in answer)
    figures = {
        "slowest seconds": round(max(answer["seconds"] for _, answer in answers), 2),
        "most MB": round(max(answer["grown_bytes"] for _, answer in answers) / (1 << 20), 1),
    }
    return Result(kind, len(answers), dict(sorted(outcomes.items())), failures, figures)
