"""Writer tasks: what the child processes of `writing` do, and the faults that befall them.

A fault is a function without arguments. The child calls it before it begins to write.
"""

import os
import resource
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from tqdm import tqdm

from campaigns.writing_troubles import known_sets
from numerai_sequence import NumeraiSequenceError, open_shards, write_shards

pa.chunked_array([[1]]).to_numpy()  # imports pandas, which no child should have to
tqdm.set_lock(threading.RLock())  # its own is a semaphore, which a killed child would leave

Fault = Callable[[], None]
PACKAGE = os.sep + "numerai_sequence" + os.sep
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "shutil.rmtree")


@dataclass(frozen=True)
class Outcome:
    """How writing ended: the error's class and text, errno, the module it came from, and steps."""

    error: str = ""
    message: str = ""
    errno: int | None = None
    module: str = ""
    is_ours: bool = True
    steps: int = 0


def write(
    source: Path, out: Path, *, fault: Fault | None = None, pause: float = 0, **options: Any
) -> Outcome:
    """Write a set in small pieces."""
    known_sets.small_pieces()
    if fault:
        fault()
    time.sleep(pause)
    try:
        write_shards(source, out, **known_sets.OPTIONS, **options).close()
    except Exception as error:
        ours = isinstance(error, NumeraiSequenceError)
        code = getattr(error, "errno", None)
        name = type(error).__name__
        return Outcome(name, str(error), code, _module(error), ours, Steps.taken)
    return Outcome(steps=Steps.taken)


def _module(error: BaseException) -> str:
    """Return the module of ours in which the first cause of an error arose."""
    while error.__cause__ is not None:
        error = error.__cause__
    module, trace = "", error.__traceback__
    while trace is not None:
        path = trace.tb_frame.f_code.co_filename
        if PACKAGE in path:
            module = Path(path).stem
        trace = trace.tb_next
    return module


class Steps:
    """Counts what a child does to a folder: files opened, moved and removed, and synced."""

    taken = 0

    def __init__(self, folder: Path, step: int, action: Callable[[], object]) -> None:
        self._folder, self._step, self._action = str(folder), step, action
        sys.addaudithook(self._hear)
        self._fsync, os.fsync = os.fsync, self._sync

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        is_inside = event == "open" and str(arguments[0]).startswith(self._folder)
        if event in CHANGES or is_inside:
            self._take()

    def _sync(self, descriptor: int) -> None:
        self._take()
        self._fsync(descriptor)

    def _take(self) -> None:
        Steps.taken += 1
        if Steps.taken == self._step:
            self._action()


def kill_at(folder: Path, step: int) -> None:
    Steps(folder, step, lambda: os.kill(os.getpid(), signal.SIGKILL))


def fill_at(folder: Path, step: int, disk: Path, left_bytes: int) -> None:
    """Have something else fill a disk at a step, up to some bytes."""

    def fill() -> None:
        room = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize - left_bytes
        if room > 0:
            descriptor = os.open(disk / "ballast", os.O_WRONLY | os.O_CREAT)
            os.posix_fallocate(descriptor, 0, room)
            os.close(descriptor)

    Steps(folder, step, fill)


def change_at(folder: Path, step: int, source: Path, how: str, other: Path) -> None:
    """Have something change a source at a step."""
    Steps(folder, step, lambda: change(source, how, other))


def change(source: Path, how: str, other: Path) -> None:
    if how == "removed":
        source.unlink()
    elif how == "replaced":
        copy = source.with_name("copy.parquet")
        shutil.copyfile(other, copy)
        os.replace(copy, source)
    elif how == "written over":
        shutil.copyfile(other, source)
    elif how == "truncated":
        os.truncate(source, source.stat().st_size // 2)
    else:
        with open(source, "ab") as file:
            file.write(b"more")


def limit_file_size(limit_bytes: int) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))


def limit_address_space(room_bytes: int) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + room_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def enter_group(group: Path) -> None:
    (group / "cgroup.procs").write_text(str(os.getpid()))


def overwrite(sources: list[Path], out: Path, times: int) -> list[Outcome]:
    """Write one set over the other, again and again."""
    return [write(sources[n % len(sources)], out, overwrite=True) for n in range(times)]


def read_on(out: Path, known: dict[str, known_sets.Rows], stop: Path) -> dict[str, Any]:
    """Open a set and read it until a file is there; say how often which set was found."""
    found: dict[str, Any] = {"times": {}, "failures": [], "slowest_ms": 0.0}
    while not stop.exists():
        start = time.perf_counter()
        try:
            open_shards(out).close()
            opened = time.perf_counter()
            # Its files may be removed while it is open, so they cannot be opened once more.
            name = known_sets.held(out, known, verify=False)
            found["times"][name] = found["times"].get(name, 0) + 2
        except (NumeraiSequenceError, AssertionError) as error:
            found["failures"].append(f"{type(error).__name__}: {error}")
        else:
            found["slowest_ms"] = max(found["slowest_ms"], 1000 * (opened - start))
    return found


def matches(folder: Path, source: Path) -> bool:
    """Say whether a set has the rows that pyarrow reads from a source."""
    return known_sets.same_rows(known_sets.rows_of_set(folder), known_sets.rows_of_source(source))
