"""Process: run one measured process from a known page cache, in its memory group, and sample it.

What is measured runs in a fresh process (`child`), so that what one contender imports or caches
never weighs on another.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from harness.events import process_memory, read_events

BENCHMARKS = Path(__file__).resolve().parents[1]
ROOT = BENCHMARKS.parent
SAMPLE_SECONDS = 0.05
MB = 1e6
# PYTHONPATH: measure the package of this checkout, installed or not.
ENVIRONMENT = os.environ | {
    "PYTHONPATH": os.pathsep.join(map(str, (ROOT, BENCHMARKS))),
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "HF_DATASETS_OFFLINE": "1",
}


@dataclass
class Run:
    """One measured process: its memory over time, the events it noted, and how it ended."""

    name: str
    started: float
    samples: list[dict[str, float]] = field(default_factory=list)
    events: dict[str, dict[str, Any]] = field(default_factory=dict)
    outcome: str = "ok"
    limit_bytes: int | None = None

    def peak(self, name: str) -> int | None:
        """Return the largest value of a /proc field, in samples and events."""
        seen = [sample[name] for sample in (*self.samples, *self.events.values()) if name in sample]
        return int(max(seen)) if seen else None

    def noted(self, event: str, name: str) -> Any:
        """Return what an event says of `name`, None when the run did not get there."""
        return self.events.get(event, {}).get(name)

    def seconds(self, first: str, last: str) -> float | None:
        """Return the time between two events, None when the run did not get there."""
        if not {first, last} <= self.events.keys():
            return None
        return round(float(self.events[last]["seconds"] - self.events[first]["seconds"]), 3)

    def above(self, event: str, last: str = "end") -> int | None:
        """Return the peak of resident bytes between two events, above what the first one found.

        For processes that forget their peak at the first one.
        """
        base, peak = self.noted(event, "VmRSS"), self.noted(last, "VmHWM")
        return peak - base if base and peak else None


def child_command(command: str, *arguments: object) -> list[str]:
    """Return the command line of one process of the benchmark."""
    return [sys.executable, "-m", "harness.child", command, *map(str, arguments)]


def files_of(source: Path) -> list[Path]:
    """Return the file, or the files of the folder."""
    paths = [source] if source.is_file() else sorted(source.rglob("*"))
    return [path for path in paths if path.is_file()]


def drop_from_page_cache(source: Path) -> None:
    """Make the next reader of a file, or of a folder's files, start cold."""
    for path in files_of(source):
        with path.open("rb") as file:
            os.fsync(file.fileno())  # dirty pages can't be dropped
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_into_page_cache(source: Path) -> None:
    """Make the next reader of a file, or of a folder's files, start warm."""
    for path in files_of(source):
        with path.open("rb", buffering=0) as file:
            while file.read(1 << 24):
                pass


def group_parent() -> Path | None:
    """Return the cgroup v1 folder in which a memory group can be made, None where none can."""
    root = Path("/sys/fs/cgroup/memory")
    own = re.search(r":memory:/(.*)", Path("/proc/self/cgroup").read_text())
    parent = root / own[1] if own and (root / own[1]).is_dir() else root
    limits = parent / "memory.limit_in_bytes"
    return parent if limits.exists() and os.access(parent, os.W_OK) else None


@contextmanager
def memory_group(limit_bytes: int | None) -> Iterator[Path | None]:
    """Make a cgroup v1 group with the limit inside our own; None, with a note, where it can't."""
    parent = group_parent() if limit_bytes else None
    if parent is None:
        if limit_bytes:
            click.echo("note: no memory limit, a cgroup v1 memory group can't be made", err=True)
        yield None
        return
    group = parent / f"numerai_sequence_{os.getpid()}"
    group.mkdir()
    try:
        (group / "memory.limit_in_bytes").write_text(str(limit_bytes))
        yield group
    finally:
        remove_group(group)


def remove_group(group: Path) -> None:
    """Remove the group, whose last processes may take a moment to be gone."""
    for _ in range(100):
        with suppress(OSError):
            return group.rmdir()
        time.sleep(0.1)
    group.rmdir()


def measure(
    name: str,
    command: list[str],
    *,
    limit_bytes: int | None = None,
    enters_group_itself: bool = False,
    sample_seconds: float = SAMPLE_SECONDS,
    time_limit_seconds: float | None = None,
) -> Run:
    """Run one command of `child` and sample its memory from start to exit.

    Parameters
    ----------
    name : str
    command : list of str
        From `child_command`; ``--events FILE`` is added to it.
    limit_bytes : int, optional
        Of the process's memory together with its page cache.
    enters_group_itself : bool
        The limit begins when the process says so, by ``--group FILE``, and not at its start.
    sample_seconds, time_limit_seconds : float
        A process that is not done after the time limit is killed.
    """
    # In a session of its own, the process does not end with ours: also `kill` shall clean up.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with memory_group(limit_bytes) as group, tempfile.TemporaryDirectory() as scratch:
        events, log = Path(scratch, "events"), Path(scratch, "log")
        command = [*command, "--events", str(events)]
        if group and enters_group_itself:
            command += ["--group", str(group / "cgroup.procs")]
        elif group:  # enter it first, so that all the process reads and allocates is charged to it
            enter = 'echo $$ > "$0" && exec "$@"'
            command = ["sh", "-c", enter, str(group / "cgroup.procs"), *command]
        run = Run(name, started=time.monotonic(), limit_bytes=limit_bytes if group else None)
        with (
            log.open("w") as err,
            subprocess.Popen(command, stderr=err, env=ENVIRONMENT, start_new_session=True) as child,
        ):
            try:
                in_time = sample(run, child, sample_seconds, time_limit_seconds)
            finally:
                with suppress(ProcessLookupError):  # its worker processes may outlive it
                    os.killpg(child.pid, signal.SIGKILL)
        run.events = read_events(events)
        run.outcome = outcome(child.returncode, log.read_text(), group) if in_time else "timed out"
    return run


def sample(
    run: Run, child: subprocess.Popen[bytes], every_seconds: float, limit_seconds: float | None
) -> bool:
    """Append the child's memory to the run until it exits; False when its time is over."""
    with tqdm(desc=run.name, unit=" samples", mininterval=1, leave=False) as bar:
        while child.poll() is None:
            if limit_seconds and time.monotonic() - run.started > limit_seconds:
                return False
            memory = process_memory(child.pid)
            if "VmRSS" in memory:  # gone between exit and poll
                run.samples.append({"seconds": time.monotonic(), **memory})
                bar.set_postfix_str(f"{memory['VmRSS'] / MB:,.0f} MB", refresh=False)
            bar.update()
            time.sleep(every_seconds)
    return True


def outcome(returncode: int, log: str, group: Path | None) -> str:
    """Say in a few words how a measured process ended."""
    if returncode == 0:
        return "ok"
    if returncode == -signal.SIGKILL:
        kills = group and re.search(r"oom_kill (\d+)", (group / "memory.oom_control").read_text())
        return "killed: out of memory" if kills and int(kills[1]) else "killed by SIGKILL"
    click.echo(log, err=True)
    return f"failed with exit status {returncode}"
