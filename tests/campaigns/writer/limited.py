"""Starving: a writer that is killed, or whose disk or memory is full."""

import errno
import time
from functools import partial
from pathlib import Path

import nursery
import writers
import written
from campaigns import Result
from process import group_parent, memory_group
from small_disk import SmallDisk, small_disk
from tally import Tally
from tqdm import tqdm
from writing_bench import STATES, Bench

FULL = {errno.ENOSPC: "free now", errno.EFBIG: "ulimit"}
PAGE = 4096


def kill_at_random(bench: Bench) -> Result:
    tally = Tally("SIGKILL at random instants", bench.count)
    seconds = {}
    for state in STATES:
        out = bench.begin(state)
        start = time.monotonic()
        bench.write("new", out, overwrite=bench.before(state) == "old")
        seconds[state] = time.monotonic() - start
    for n in tally:
        state = bench.pick(n)
        after = float(bench.rng.uniform(0, 1.1 * seconds[state]))
        with tally.trying(f"killed after {after:.4f} s, {state}"):
            out = bench.begin(state)
            overwrite = bench.before(state) == "old"
            child = nursery.Child(
                writers.write, bench.sources["new"], out, overwrite=overwrite
            ).go()
            child.kill_after(after)
            held = bench.judge(out, state, child.end())
            bench.recover(out, held)
            tally.ends[f"{held} is there"] += 1
    return tally.result()


def kill_at_steps(bench: Bench, *, all_steps: bool) -> Result:
    steps = [(state, step) for state in STATES for step in range(1, bench.steps(state) + 1)]
    if not all_steps:
        steps = [steps[n] for n in bench.rng.permutation(len(steps))[: bench.count]]
    tally = Tally("SIGKILL at every change of a file", len(steps))
    for n in tally:
        state, step = steps[n]
        with tally.trying(f"killed at step {step}, {state}"):
            out = bench.begin(state)
            fault = partial(writers.kill_at, out, step)
            end = bench.write("new", out, overwrite=bench.before(state) == "old", fault=fault)
            held = bench.judge(out, state, end)
            bench.recover(out, held)
            tally.ends[f"{held} is there"] += 1
    return tally.result()


def fill_disk(bench: Bench) -> Result:
    tally = Tally("disk full", bench.count)
    with small_disk(bench.folder / "disk") as disk:
        top = 0 if disk is None else _room(bench, disk)
        for n in tally:
            state, room = bench.pick(n), float(bench.rng.uniform(0, 1.05))
            how = ("room", "room", "room", "ballast", "ballast", "files", "limit")[n // 5 % 7]
            step = 1 + int(room * bench.steps(state))
            left = int(bench.rng.integers(0, 4)) * PAGE
            with tally.trying(f"{how} {room:.4f}, {left} bytes left, {state}"):
                if disk is None or how == "limit":
                    out = bench.begin(state)
                    fault = partial(writers.limit_file_size, int(room * 40_000))
                else:
                    out = bench.begin(state, disk.folder / "out")
                    fault = partial(writers.fill_at, out, step, disk.folder, left)
                    fault = fault if how == "ballast" else None
                    if how == "room":
                        disk.resize(disk.used_bytes + int(room * top) // PAGE * PAGE)
                    if how == "files":
                        disk.resize(files=disk.used_files + int(room * 24))
                overwrite = bench.before(state) == "old"
                try:
                    end = bench.write("new", out, overwrite=overwrite, fault=fault)
                    _judge_full(bench, tally, out, state, end)
                finally:
                    if disk is not None:
                        (disk.folder / "ballast").unlink(missing_ok=True)
                        disk.resize()
                bench.recover(out, written.held(out, bench.known))
        if disk is not None:
            tally.figures["room_needed_kB"] = top // 1000
    return tally.result()


def _room(bench: Bench, disk: SmallDisk) -> int:
    """Return about the least room on the disk that is enough."""
    least, most = 0, 1 << 20
    while most - least > 4 * PAGE:
        room = (least + most) // 2 // PAGE * PAGE
        out = bench.begin("old", disk.folder / "out")
        disk.resize(disk.used_bytes + room)
        end = bench.write("new", out, overwrite=True)
        disk.resize()
        least, most = (room, most) if end.found and end.found.error else (least, room)
    return most


def _judge_full(bench: Bench, tally: Tally, out: Path, state: str, end: nursery.End) -> None:
    bench.judge(out, state, end)
    found = end.found
    if not found.error:
        tally.ends["was enough"] += 1
        return
    is_said = found.error == "OutputError" and FULL.get(found.errno, "?") in found.message
    bench.expect(is_said and str(out) in found.message, f"{found}")
    bench.expect("as it was, and nothing else is left" in found.message, f"{found}")
    bench.expect(not (out / ".writing").exists(), "the disk stays full")
    bench.unchanged(out, state)
    tally.ends[f"full in {found.module}"] += 1


def limit_memory(bench: Bench) -> Result:
    is_possible = group_parent() is not None
    tally = Tally("memory limit", bench.count if is_possible else 0)
    if not is_possible:
        tqdm.write("note: no memory limit, a cgroup v1 memory group can't be made")
    for n in tally:
        state, limit = bench.pick(n), int(2 ** bench.rng.uniform(19, 24.5))
        with tally.trying(f"{limit} bytes, {state}"), memory_group(limit) as group:
            out = bench.begin(state)
            fault = partial(writers.enter_group, group)
            end = bench.write("new", out, overwrite=bench.before(state) == "old", fault=fault)
            held = bench.judge(out, state, end)
            bench.recover(out, held)
            tally.ends["was enough" if end.code == 0 else f"killed, {held} is there"] += 1
    return tally.result()


def limit_address_space(bench: Bench) -> Result:
    tally = Tally("no more address space", bench.count)
    for n in tally:
        state, room = bench.pick(n), int(2 ** bench.rng.uniform(16, 29))
        with tally.trying(f"{room} bytes, {state}"):
            out = bench.begin(state)
            fault = partial(writers.limit_address_space, room)
            end = bench.write("new", out, overwrite=bench.before(state) == "old", fault=fault)
            held = bench.judge(out, state, end)
            bench.recover(out, held)
            if end.code:
                tally.ends["died of it in a library"] += 1
            elif end.found.error:
                bench.expect(end.found.error == "OutOfMemoryError", f"{end}")
                tally.ends["said so"] += 1
            else:
                tally.ends["was enough"] += 1
    return tally.result()
