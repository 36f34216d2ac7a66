"""Writing: kill, limit, mislead and crowd the writer; a folder holds the old set or the new one."""

from pathlib import Path

from campaigns.children.forked_child import fork_server
from campaigns.result import Result
from campaigns.writing_troubles import crowded, killed, limited, misled
from campaigns.writing_troubles.fixture import WriterFixture

COUNT = 200
MODULES = ("campaigns.children.writer_tasks",)


def run(folder: Path, *, seed: int, count: int) -> list[Result]:
    """Try each trouble `count` times."""
    with fork_server(MODULES):
        fixture = WriterFixture(folder, seed, count)
        return [
            killed.kill_at_random(fixture),
            killed.kill_at_steps(fixture, all_steps=count >= COUNT),
            limited.fill_disk(fixture),
            limited.limit_memory(fixture),
            limited.limit_address_space(fixture),
            misled.break_source(fixture),
            crowded.write_twice(fixture),
            crowded.read_meanwhile(fixture),
        ]
