"""Writing: kill, starve, crowd and mislead the writer; a folder holds the old set or the new."""

from pathlib import Path

import company
import starving
from nursery import nursery
from writing_bench import Bench

from . import Result

COUNT = 200
MODULES = ("writers",)


def run(folder: Path, *, seed: int, count: int) -> list[Result]:
    with nursery(MODULES):
        bench = Bench(folder, seed, count)
        return [
            starving.kill_at_random(bench),
            starving.kill_at_steps(bench, all_steps=count >= COUNT),
            starving.fill_disk(bench),
            starving.limit_memory(bench),
            starving.limit_address_space(bench),
            company.break_source(bench),
            company.write_twice(bench),
            company.read_meanwhile(bench),
        ]
