"""Company: a writer whose source changes, or who is not alone at a folder."""

import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import nursery
import writers
import written
from campaigns import Result
from tally import Tally
from writing_bench import Bench

FLIPS = ("bits flipped", "bits flipped under checksums")
BEFORE = ("cut off", *FLIPS)
MEANWHILE = ("removed", "replaced", "written over", "truncated", "appended to")
WAYS = (*BEFORE, *MEANWHILE, *FLIPS, *FLIPS)


def break_source(bench: Bench) -> Result:
    tally = Tally("broken source", bench.count)
    sources = dict.fromkeys(WAYS, bench.sources["new"])
    sources[FLIPS[1]] = written.add_checksums(
        bench.sources["new"], bench.folder / "checked.parquet"
    )
    steps = bench.steps("nothing")
    for n in tally:
        way, state = WAYS[n % len(WAYS)], bench.pick(n, ("nothing", "old", "torn"))
        step = int(bench.rng.integers(1, steps))
        places = bench.rng.random(int(bench.rng.integers(1, 4))).tolist()
        with tally.trying(f"{way} at step {step} or places {places}, {state}"):
            source = Path(shutil.copy(sources[way], bench.folder / "broken.parquet"))
            out, fault = bench.begin(state), None
            if way in MEANWHILE:
                change = (step, source, way, bench.sources["old"])
                fault = partial(writers.change_at, out, *change)
            else:
                damage(source, way, places)
            end = nursery.run(
                writers.write, source, out, overwrite=bench.before(state) == "old", fault=fault
            )
            bench.expect(end.code == 0, f"the writer died: {end}")
            tally.ends[_judge_source(bench, out, state, end, source, way)] += 1
    return tally.result()


def damage(path: Path, way: str, places: list[float]) -> None:
    """Damage a source: places are parts of its pages."""
    if way == "cut off":
        os.truncate(path, int(places[0] * path.stat().st_size))
        return
    with open(path, "r+b") as file:
        data = bytearray(file.read())
        pages = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
        for place in places:
            data[4 + int(place * (pages - 4))] ^= 1 << int(place * 1e6) % 8
        file.seek(0)
        file.write(data)


def _judge_source(
    bench: Bench, out: Path, state: str, end: nursery.End, source: Path, way: str
) -> str:
    if end.found.error:
        is_said = end.found.error == "SourceError" and str(source) in end.found.message
        bench.expect(is_said, f"{end}")
        bench.unchanged(out, state)
        return "refused"
    written.check_tidy(out)
    if way in MEANWHILE:  # after its last byte was read and it was looked at again
        bench.expect(written.held(out, bench.known) == "new", "other rows than the source's")
        return "written before that"
    # pyarrow may crash where it reads what is damaged.
    bench.expect(nursery.run(writers.matches, out, source).found, "not what pyarrow reads")
    is_whole = nursery.run(writers.matches, out, bench.sources["new"]).found
    bench.expect(is_whole or way == FLIPS[0], "damage under a checksum was not seen")
    return "damage without effect" if is_whole else "damage that no one can see"


def write_twice(bench: Bench) -> Result:
    tally = Tally("two writers", bench.count)
    for n in tally:
        state, overwrite = bench.pick(n), bool(bench.rng.random() < 0.7)
        names = ("new", "new") if n // 5 % 3 == 0 else ("new", "third")
        pauses = (0.0, float(bench.rng.choice([0, 0, 0.003, 0.1]) * bench.rng.random()))
        kill_after = float(bench.rng.random() * 0.1) if n // 5 % 4 == 3 else None
        how = f"{names}, pauses {pauses}, overwrite {overwrite}, killed {kill_after}, {state}"
        with tally.trying(how):
            out = bench.begin(state)
            children = [
                nursery.Child(
                    writers.write, bench.sources[name], out, pause=pause, overwrite=overwrite
                )
                for name, pause in zip(names, pauses, strict=True)
            ]
            for child in children:
                child.go()
            if kill_after is not None:
                children[0].kill_after(kill_after)
            ends = [child.end() for child in children]
            tally.ends[_judge_two(bench, out, state, names, ends, overwrite)] += 1
    return tally.result()


def _judge_two(
    bench: Bench,
    out: Path,
    state: str,
    names: tuple[str, str],
    ends: list[nursery.End],
    overwrite: bool,
) -> str:
    won = [name for name, end in zip(names, ends, strict=True) if _is_well(end)]
    refused = [end for end in ends if end.code == 0 and not _is_well(end)]
    for end in refused:
        bench.expect(end.found.error == "OutputExistsError", f"{end}")
    held = written.held(out, bench.known)
    is_killed = any(end.code for end in ends)
    before = bench.before(state)
    may_win = before == written.NOTHING or overwrite
    if not is_killed:
        bench.expect(bool(won) == may_win, f"{len(won)} won: {ends}")
        bench.expect(len(set(won)) < 2 or overwrite, f"one was overwritten unasked: {ends}")
    if won and not is_killed:
        written.check_tidy(out)
    bench.expect(held in (won or [before, *names]), f"holds {held}: {ends}")
    bench.recover(out, held)
    return ("one killed, " if is_killed else "") + f"{len(won)} wrote, {len(refused)} refused"


def _is_well(end: nursery.End) -> bool:
    return end.code == 0 and not end.found.error


def read_meanwhile(bench: Bench) -> Result:
    tally = Tally("reader during overwrites", bench.count)
    out, stop = bench.begin("old"), bench.folder / "stop"
    sources = [bench.sources[name] for name in ("new", "third", "old")]
    readers = [nursery.Child(writers.read_on, out, bench.known, stop).go() for _ in range(2)]
    for n in tally:
        with tally.trying(f"overwrite {n}"):
            end = nursery.run(writers.write, sources[n % 3], out, overwrite=True)
            bench.expect(_is_well(end), f"{end}")
    stop.touch()
    found: list[Any] = [reader.end().found for reader in readers]
    stop.unlink()
    with tally.trying("at the end"):
        written.check_tidy(out)
    tally.failures += [failure for reader in found for failure in reader["failures"]]
    for name in bench.known:
        tally.ends[f"{name} set was opened"] = sum(r["times"].get(name, 0) for r in found)
    tally.figures["slowest_open_ms"] = round(max(reader["slowest_ms"] for reader in found), 1)
    return tally.result()
