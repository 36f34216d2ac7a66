"""Writer fixture: small sources, folders as a writer may find them, and checks of the result."""

import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from campaigns.children import forked_child, writer_tasks
from campaigns.writing_troubles import known_sets
from campaigns.writing_troubles.known_sets import NOTHING, BrokenPromise

STATES = ("nothing", "old", "begun", "half done", "torn")


class WriterFixture:
    """The sources, and folders in the states that a writer may find."""

    def __init__(self, folder: Path, seed: int, count: int) -> None:
        self.folder, self.count = folder, count
        self.rng = np.random.default_rng(seed)
        shapes = {
            "old": {"rows": 1200, "first_era": 1},
            "new": {"rows": 1260, "first_era": 40},
            "third": {"rows": 1260, "first_era": 80},
        }
        self.sources = {
            name: known_sets.write_source(folder / f"{name}.parquet", seed=seed, **shape)
            for name, shape in shapes.items()
        }
        self.known = {name: known_sets.rows_of_source(path) for name, path in self.sources.items()}
        self.out = folder / "out"
        self._steps: dict[str, int] = {}
        self._make_states()

    def _make_states(self) -> None:
        states = {name: self.folder / f"state {name}" for name in STATES}
        old = states["old"]
        self.write("old", old)
        # Killed by the time that scratch is whole, and in the middle of the commit.
        killed = {"begun": ("nothing", 0.5), "half done": ("old", 0.6), "torn": ("old", 0.85)}
        for name, (state, part) in killed.items():
            self.begin(state, states[name])
            steps = self.steps(state)
            fault = partial(writer_tasks.kill_at, states[name], int(part * steps))
            self.write("new", states[name], overwrite=state == "old", fault=fault)

    def before(self, state: str) -> str:
        return NOTHING if state in ("nothing", "begun") else "old"

    def begin(self, state: str, out: Path | None = None) -> Path:
        """Return a folder in a state."""
        out = self.out if out is None else out
        shutil.rmtree(out, ignore_errors=True)
        found = self.folder / f"state {state}"
        if found.exists():
            shutil.copytree(found, out)
        return out

    def pick(self, n: int, states: tuple[str, ...] = STATES) -> str:
        return states[n % len(states)]

    def write(self, source: str, out: Path, **options: Any) -> forked_child.End:
        return forked_child.run(writer_tasks.write, self.sources[source], out, **options)

    def steps(self, state: str) -> int:
        """Return how many steps writing takes."""
        if state not in self._steps:
            self._steps[state] = self._count_steps(state)
        return self._steps[state]

    def _count_steps(self, state: str) -> int:
        out = self.begin(state, self.folder / "counted")
        fault = partial(writer_tasks.kill_at, out, 0)
        end = self.write("new", out, overwrite=state not in ("nothing", "begun"), fault=fault)
        self.expect(end.found is not None and not end.found.error, f"cannot be written: {end}")
        return int(end.found.steps)

    def expect(self, is_so: bool, otherwise: str) -> None:
        if not is_so:
            raise BrokenPromise(otherwise)

    def judge(self, out: Path, state: str, end: forked_child.End, *, source: str = "new") -> str:
        """Return which set a folder holds, after it is found to be one that it may hold."""
        held = known_sets.held(out, self.known)
        allowed = {self.before(state), source}
        if end.code == 0:
            allowed = {self.before(state)} if end.found.error else {source}
        self.expect(held in allowed, f"holds {held}, after {end}")
        return held

    def unchanged(self, out: Path, state: str) -> None:
        """See that a folder holds the bytes that it held, and nothing else."""
        if self.before(state) == NOTHING:
            # Of the run that was killed, its empty folder is left.
            left = os.listdir(out) if out.exists() else []
            self.expect(not left and (state == "begun" or not out.exists()), f"left over: {left}")
        else:
            found = known_sets.contents(out)
            if state != "old":  # what a killed run has left may stay
                found = {name: data for name, data in found.items() if ".writing" not in name}
            same = found == known_sets.contents(self.folder / "state old")
            self.expect(same, f"not as it was: {sorted(found)}")

    def recover(self, out: Path, held: str) -> None:
        """See that the next run writes the set, and leaves nothing else."""
        end = self.write("new", out, overwrite=held not in (NOTHING, "new"))
        self.expect(end.code == 0 and not end.found.error, f"the next run: {end}")
        self.expect(known_sets.held(out, self.known) == "new", "the next run wrote another set")
        known_sets.check_tidy(out)
