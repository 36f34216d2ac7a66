"""Crowded writers: two write to one folder, or others read it at the same time."""

from pathlib import Path
from typing import Any

from campaigns.children import forked_child, writer_tasks
from campaigns.outcome_counter import OutcomeCounter
from campaigns.result import Result
from campaigns.writing_troubles import known_sets
from campaigns.writing_troubles.fixture import WriterFixture


def write_twice(fixture: WriterFixture) -> Result:
    counter = OutcomeCounter("two writers", fixture.count)
    for n in counter:
        state, overwrite = fixture.pick(n), bool(fixture.rng.random() < 0.7)
        names = ("new", "new") if n // 5 % 3 == 0 else ("new", "third")
        pauses = (0.0, float(fixture.rng.choice([0, 0, 0.003, 0.1]) * fixture.rng.random()))
        kill_after = float(fixture.rng.random() * 0.1) if n // 5 % 4 == 3 else None
        how = f"{names}, pauses {pauses}, overwrite {overwrite}, killed {kill_after}, {state}"
        with counter.trying(how):
            out = fixture.begin(state)
            children = [
                forked_child.Child(
                    writer_tasks.write, fixture.sources[name], out, pause=pause, overwrite=overwrite
                )
                for name, pause in zip(names, pauses, strict=True)
            ]
            for child in children:
                child.go()
            if kill_after is not None:
                children[0].kill_after(kill_after)
            ends = [child.end() for child in children]
            counter.ends[_judge_two(fixture, out, state, names, ends, overwrite)] += 1
    return counter.result()


def _judge_two(
    fixture: WriterFixture,
    out: Path,
    state: str,
    names: tuple[str, str],
    ends: list[forked_child.End],
    overwrite: bool,
) -> str:
    won = [name for name, end in zip(names, ends, strict=True) if _is_well(end)]
    refused = [end for end in ends if end.code == 0 and not _is_well(end)]
    for end in refused:
        fixture.expect(end.found.error == "OutputExistsError", f"{end}")
    held = known_sets.held(out, fixture.known)
    is_killed = any(end.code for end in ends)
    before = fixture.before(state)
    may_win = before == known_sets.NOTHING or overwrite
    if not is_killed:
        fixture.expect(bool(won) == may_win, f"{len(won)} won: {ends}")
        fixture.expect(len(set(won)) < 2 or overwrite, f"one was overwritten unasked: {ends}")
    if won and not is_killed:
        known_sets.check_tidy(out)
    fixture.expect(held in (won or [before, *names]), f"holds {held}: {ends}")
    fixture.recover(out, held)
    return ("one killed, " if is_killed else "") + f"{len(won)} wrote, {len(refused)} refused"


def _is_well(end: forked_child.End) -> bool:
    return end.code == 0 and not end.found.error


def read_meanwhile(fixture: WriterFixture) -> Result:
    counter = OutcomeCounter("reader during overwrites", fixture.count)
    out, stop = fixture.begin("old"), fixture.folder / "stop"
    sources = [fixture.sources[name] for name in ("new", "third", "old")]
    readers = [
        forked_child.Child(writer_tasks.read_on, out, fixture.known, stop).go() for _ in range(2)
    ]
    for n in counter:
        with counter.trying(f"overwrite {n}"):
            end = forked_child.run(writer_tasks.write, sources[n % 3], out, overwrite=True)
            fixture.expect(_is_well(end), f"{end}")
    stop.touch()
    found: list[Any] = [reader.end().found for reader in readers]
    stop.unlink()
    with counter.trying("at the end"):
        known_sets.check_tidy(out)
    counter.failures += [failure for reader in found for failure in reader["failures"]]
    for name in fixture.known:
        counter.ends[f"{name} set was opened"] = sum(r["times"].get(name, 0) for r in found)
    counter.figures["slowest_open_ms"] = round(max(reader["slowest_ms"] for reader in found), 1)
    return counter.result()
