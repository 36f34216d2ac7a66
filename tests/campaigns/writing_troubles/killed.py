"""Killed writers: each is killed at a random instant, or at one change of a file."""

import time
from functools import partial

from campaigns.children import forked_child, writer_tasks
from campaigns.outcome_counter import OutcomeCounter
from campaigns.result import Result
from campaigns.writing_troubles.fixture import STATES, WriterFixture


def kill_at_random(fixture: WriterFixture) -> Result:
    counter = OutcomeCounter("SIGKILL at random instants", fixture.count)
    seconds = {}
    for state in STATES:
        out = fixture.begin(state)
        start = time.monotonic()
        fixture.write("new", out, overwrite=fixture.before(state) == "old")
        seconds[state] = time.monotonic() - start
    for n in counter:
        state = fixture.pick(n)
        after = float(fixture.rng.uniform(0, 1.1 * seconds[state]))
        with counter.trying(f"killed after {after:.4f} s, {state}"):
            out = fixture.begin(state)
            overwrite = fixture.before(state) == "old"
            child = forked_child.Child(
                writer_tasks.write, fixture.sources["new"], out, overwrite=overwrite
            ).go()
            child.kill_after(after)
            held = fixture.judge(out, state, child.end())
            fixture.recover(out, held)
            counter.ends[f"{held} is there"] += 1
    return counter.result()


def kill_at_steps(fixture: WriterFixture, *, all_steps: bool) -> Result:
    steps = [(state, step) for state in STATES for step in range(1, fixture.steps(state) + 1)]
    if not all_steps:
        steps = [steps[n] for n in fixture.rng.permutation(len(steps))[: fixture.count]]
    counter = OutcomeCounter("SIGKILL at every change of a file", len(steps))
    for n in counter:
        state, step = steps[n]
        with counter.trying(f"killed at step {step}, {state}"):
            out = fixture.begin(state)
            fault = partial(writer_tasks.kill_at, out, step)
            end = fixture.write("new", out, overwrite=fixture.before(state) == "old", fault=fault)
            held = fixture.judge(out, state, end)
            fixture.recover(out, held)
            counter.ends[f"{held} is there"] += 1
    return counter.result()
