"""Limited writers: the disk, the memory or the address space is too small."""

import errno
from functools import partial
from pathlib import Path

from harness.process import group_parent, memory_group
from tqdm import tqdm

from campaigns.children import forked_child, writer_tasks
from campaigns.outcome_counter import OutcomeCounter
from campaigns.result import Result
from campaigns.writing_troubles import known_sets
from campaigns.writing_troubles.fixture import WriterFixture
from campaigns.writing_troubles.small_disk import SmallDisk, small_disk

FULL = {errno.ENOSPC: "are free", errno.EFBIG: "ulimit"}
PAGE = 4096


def fill_disk(fixture: WriterFixture) -> Result:
    counter = OutcomeCounter("disk full", fixture.count)
    with small_disk(fixture.folder / "disk") as disk:
        top = 0 if disk is None else _room(fixture, disk)
        for n in counter:
            state, room = fixture.pick(n), float(fixture.rng.uniform(0, 1.05))
            how = ("room", "room", "room", "ballast", "ballast", "files", "limit")[n // 5 % 7]
            step = 1 + int(room * fixture.steps(state))
            left = int(fixture.rng.integers(0, 4)) * PAGE
            with counter.trying(f"{how} {room:.4f}, {left} bytes left, {state}"):
                if disk is None or how == "limit":
                    out = fixture.begin(state)
                    fault = partial(writer_tasks.limit_file_size, int(room * 40_000))
                else:
                    out = fixture.begin(state, disk.folder / "out")
                    fault = partial(writer_tasks.fill_at, out, step, disk.folder, left)
                    fault = fault if how == "ballast" else None
                    if how == "room":
                        disk.resize(disk.used_bytes + int(room * top) // PAGE * PAGE)
                    if how == "files":
                        disk.resize(files=disk.used_files + int(room * 24))
                overwrite = fixture.before(state) == "old"
                try:
                    end = fixture.write("new", out, overwrite=overwrite, fault=fault)
                    _judge_full(fixture, counter, out, state, end)
                finally:
                    if disk is not None:
                        (disk.folder / "ballast").unlink(missing_ok=True)
                        disk.resize()
                fixture.recover(out, known_sets.held(out, fixture.known))
        if disk is not None:
            counter.figures["room_needed_kB"] = top // 1000
    return counter.result()


def _room(fixture: WriterFixture, disk: SmallDisk) -> int:
    """Return about the least room on the disk that is enough."""
    least, most = 0, 1 << 20
    while most - least > 4 * PAGE:
        room = (least + most) // 2 // PAGE * PAGE
        out = fixture.begin("old", disk.folder / "out")
        disk.resize(disk.used_bytes + room)
        end = fixture.write("new", out, overwrite=True)
        disk.resize()
        least, most = (room, most) if end.found and end.found.error else (least, room)
    return most


def _judge_full(
    fixture: WriterFixture, counter: OutcomeCounter, out: Path, state: str, end: forked_child.End
) -> None:
    fixture.judge(out, state, end)
    found = end.found
    if not found.error:
        counter.ends["was enough"] += 1
        return
    is_said = found.error == "OutputError" and FULL.get(found.errno, "?") in found.message
    fixture.expect(is_said and str(out) in found.message, f"{found}")
    fixture.expect("; the folder is unchanged; " in found.message, f"{found}")
    fixture.expect(not (out / ".writing").exists(), "the disk stays full")
    fixture.unchanged(out, state)
    counter.ends[f"full in {found.module}"] += 1


def limit_memory(fixture: WriterFixture) -> Result:
    is_possible = group_parent() is not None
    counter = OutcomeCounter("memory limit", fixture.count if is_possible else 0)
    if not is_possible:
        tqdm.write("note: no memory limit, a cgroup v1 memory group can't be made")
    for n in counter:
        state, limit = fixture.pick(n), int(2 ** fixture.rng.uniform(19, 24.5))
        with counter.trying(f"{limit} bytes, {state}"), memory_group(limit) as group:
            out = fixture.begin(state)
            fault = partial(writer_tasks.enter_group, group)
            end = fixture.write("new", out, overwrite=fixture.before(state) == "old", fault=fault)
            held = fixture.judge(out, state, end)
            fixture.recover(out, held)
            counter.ends["was enough" if end.code == 0 else f"killed, {held} is there"] += 1
    return counter.result()


def limit_address_space(fixture: WriterFixture) -> Result:
    counter = OutcomeCounter("no more address space", fixture.count)
    for n in counter:
        state, room = fixture.pick(n), int(2 ** fixture.rng.uniform(16, 29))
        with counter.trying(f"{room} bytes, {state}"):
            out = fixture.begin(state)
            fault = partial(writer_tasks.limit_address_space, room)
            end = fixture.write("new", out, overwrite=fixture.before(state) == "old", fault=fault)
            held = fixture.judge(out, state, end)
            fixture.recover(out, held)
            if end.code:
                counter.ends["died of it in a library"] += 1
            elif end.found.error:
                fixture.expect(end.found.error == "OutOfMemoryError", f"{end}")
                counter.ends["said so"] += 1
            else:
                counter.ends["was enough"] += 1
    return counter.result()
