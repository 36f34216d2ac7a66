"""Misled writers: the source is damaged, or changes while it is read."""

import os
import shutil
from functools import partial
from pathlib import Path

from campaigns.children import forked_child, writer_tasks
from campaigns.outcome_counter import OutcomeCounter
from campaigns.result import Result
from campaigns.writing_troubles import known_sets
from campaigns.writing_troubles.fixture import WriterFixture

FLIPS = ("bits flipped", "bits flipped under checksums")
BEFORE = ("cut off", *FLIPS)
MEANWHILE = ("removed", "replaced", "written over", "truncated", "appended to")
WAYS = (*BEFORE, *MEANWHILE, *FLIPS, *FLIPS)


def break_source(fixture: WriterFixture) -> Result:
    counter = OutcomeCounter("broken source", fixture.count)
    sources = dict.fromkeys(WAYS, fixture.sources["new"])
    sources[FLIPS[1]] = known_sets.add_checksums(
        fixture.sources["new"], fixture.folder / "checked.parquet"
    )
    steps = fixture.steps("nothing")
    for n in counter:
        way, state = WAYS[n % len(WAYS)], fixture.pick(n, ("nothing", "old", "torn"))
        step = int(fixture.rng.integers(1, steps))
        places = fixture.rng.random(int(fixture.rng.integers(1, 4))).tolist()
        with counter.trying(f"{way} at step {step} or places {places}, {state}"):
            source = Path(shutil.copy(sources[way], fixture.folder / "broken.parquet"))
            out, fault = fixture.begin(state), None
            if way in MEANWHILE:
                change = (step, source, way, fixture.sources["old"])
                fault = partial(writer_tasks.change_at, out, *change)
            else:
                damage(source, way, places)
            end = forked_child.run(
                writer_tasks.write,
                source,
                out,
                overwrite=fixture.before(state) == "old",
                fault=fault,
            )
            fixture.expect(end.code == 0, f"the writer died: {end}")
            counter.ends[_judge_source(fixture, out, state, end, source, way)] += 1
    return counter.result()


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
    fixture: WriterFixture, out: Path, state: str, end: forked_child.End, source: Path, way: str
) -> str:
    if end.found.error:
        is_said = end.found.error == "SourceError" and str(source) in end.found.message
        fixture.expect(is_said, f"{end}")
        fixture.unchanged(out, state)
        return "refused"
    known_sets.check_tidy(out)
    if way in MEANWHILE:  # after its last byte was read and it was looked at again
        fixture.expect(known_sets.held(out, fixture.known) == "new", "other rows than the source's")
        return "written before that"
    # pyarrow may crash where it reads what is damaged.
    fixture.expect(
        forked_child.run(writer_tasks.matches, out, source).found, "not what pyarrow reads"
    )
    is_whole = forked_child.run(writer_tasks.matches, out, fixture.sources["new"]).found
    fixture.expect(is_whole or way == FLIPS[0], "damage under a checksum was not seen")
    return "damage without effect" if is_whole else "damage that no one can see"
