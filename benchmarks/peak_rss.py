"""Peak memory: from one Numerai Parquet to the memory and speed of each way to train on it.

Every contender trains the same model on the same rows in a process of its own, started with its
files out of the page cache, while this process samples /proc. Preparing its files is not measured.
Writes ``peak_rss.json``, ``peak_rss.md`` and ``peak_rss.png``. Needs Linux, and a ``--work`` folder
on a disk: files in a tmpfs are memory.

What all contenders share counts for all: TensorFlow's libraries are in RssFile, and what its first
training step builds is above the base. A memory limit covers the page cache too, except pages that
another process read before, such as those libraries.
"""

import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import pyarrow.parquet as pq
from contenders import CONTENDERS, SEED, feature_names, process_memory
from matplotlib.figure import Figure
from tqdm import tqdm

HERE = Path(__file__).resolve().parent
SAMPLE_SECONDS = 0.05
MB = 1e6
# PYTHONPATH: measure the package of this checkout, installed or not.
ENVIRONMENT = os.environ | {"PYTHONPATH": str(HERE.parent), "TF_CPP_MIN_LOG_LEVEL": "3"}
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)
NAMES = click.Choice(list(CONTENDERS))
COLUMNS = {
    "peak RSS (VmHWM) MB": "vm_hwm_bytes",
    "above base MB": "above_base_bytes",
    "peak RssAnon MB": "rss_anon_bytes",
    "peak RssFile MB": "rss_file_bytes",
    "load s": "load_seconds",
    "fit s": "fit_seconds",
    "rows/s": "rows_per_second",
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

    def seconds(self, first: str, last: str) -> float | None:
        """Return the time between two events, None when the run did not get there."""
        if not {first, last} <= self.events.keys():
            return None
        return round(float(self.events[last]["seconds"] - self.events[first]["seconds"]), 3)

    @property
    def rows(self) -> int | None:
        """The rows that the model was trained on, None when training did not end."""
        return self.events.get("fit end", {}).get("rows")

    def summary(self) -> dict[str, Any]:
        """Return the run as one JSON object."""
        base = self.events.get("base", {}).get("VmRSS")
        peak = self.peak("VmHWM")
        fit_seconds = self.seconds("fit start", "fit end")
        return {
            "contender": self.name,
            "outcome": self.outcome,
            "limit_bytes": self.limit_bytes,
            "vm_hwm_bytes": peak,
            "base_bytes": base,
            "above_base_bytes": peak - base if peak and base else None,
            "rss_anon_bytes": self.peak("RssAnon"),
            "rss_file_bytes": self.peak("RssFile"),
            "load_seconds": self.seconds("base", "fit start"),
            "fit_seconds": fit_seconds,
            "rows_trained": self.rows,
            "rows_per_second": round(self.rows / fit_seconds)
            if self.rows and fit_seconds
            else None,
        }


def helper(command: str, *arguments: object) -> list[str]:
    """Return the command line of one process of the benchmark."""
    return [sys.executable, str(HERE / "contenders.py"), command, *map(str, arguments)]


def synthetic_parquet(work: Path, rows: int, features: int) -> Path:
    """Return the synthetic input, written on first use."""
    parquet = work / f"synthetic_{rows}x{features}.parquet"
    if not parquet.exists():
        subprocess.run(helper("synthetic", parquet, rows, features), check=True, env=ENVIRONMENT)
    return parquet


def prepared(name: str, parquet: Path, work: Path) -> Path:
    """Return what the contender trains from, written first unless an earlier run completed it."""
    if CONTENDERS[name].prepare is None:
        return parquet
    folder, marker = work / name, work / f"{name}.complete"
    source = f"{parquet.resolve()} {parquet.stat().st_size} {parquet.stat().st_mtime_ns}"
    if not (marker.exists() and marker.read_text() == source):
        marker.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        click.echo(f"preparing {name}", err=True)
        subprocess.run(helper("prepare", name, parquet, folder), check=True, env=ENVIRONMENT)
        marker.write_text(source)
    return folder


def drop_from_page_cache(source: Path) -> None:
    """Make the next reader of a file, or of a folder's files, start cold."""
    for path in [source] if source.is_file() else source.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())  # dirty pages can't be dropped
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@contextmanager
def memory_group(limit_bytes: int | None) -> Iterator[Path | None]:
    """Make a cgroup v1 group with the limit inside our own; None, with a note, where it can't."""
    root = Path("/sys/fs/cgroup/memory")
    own = re.search(r":memory:/(.*)", Path("/proc/self/cgroup").read_text())
    parent = root / own[1] if own and (root / own[1]).is_dir() else root
    if limit_bytes is None or not os.access(parent, os.W_OK):
        if limit_bytes:
            click.echo(f"note: no memory limit, a cgroup can't be made in {parent}", err=True)
        yield None
        return
    group = parent / f"peak_rss_{os.getpid()}"
    group.mkdir()
    try:
        (group / "memory.limit_in_bytes").write_text(str(limit_bytes))
        yield group
    finally:
        group.rmdir()


def measure(name: str, source: Path, options: list[object], limit_bytes: int | None) -> Run:
    """Train one contender in a fresh process and sample its memory from start to exit."""
    drop_from_page_cache(source)
    with memory_group(limit_bytes) as group, tempfile.TemporaryDirectory() as scratch:
        events, log = Path(scratch, "events"), Path(scratch, "log")
        command = helper("fit", name, source, *options, "--events", events)
        if group:  # enter it first, so that all the process reads and allocates is charged to it
            enter = 'echo $$ > "$0" && exec "$@"'
            command = ["sh", "-c", enter, str(group / "cgroup.procs"), *command]
        run = Run(name, started=time.monotonic(), limit_bytes=limit_bytes if group else None)
        with log.open("w") as err, subprocess.Popen(command, stderr=err, env=ENVIRONMENT) as child:
            sample(run, child)
        lines = events.read_text().splitlines() if events.exists() else []
        run.events = {event["event"]: event for event in map(json.loads, lines)}
        run.outcome = outcome(child.returncode, log.read_text(), group)
    return run


def sample(run: Run, child: subprocess.Popen[bytes]) -> None:
    """Append the child's memory to the run until it exits."""
    with tqdm(desc=run.name, unit=" samples", mininterval=1) as bar:
        while child.poll() is None:
            memory = process_memory(child.pid)
            if "VmRSS" in memory:  # gone between exit and poll
                run.samples.append({"seconds": time.monotonic(), **memory})
                bar.set_postfix_str(f"{memory['VmRSS'] / MB:,.0f} MB", refresh=False)
            bar.update()
            time.sleep(SAMPLE_SECONDS)


def outcome(returncode: int, log: str, group: Path | None) -> str:
    """Say in a few words how a measured process ended."""
    if returncode == 0:
        return "ok"
    if returncode == -signal.SIGKILL:
        kills = group and re.search(r"oom_kill (\d+)", (group / "memory.oom_control").read_text())
        return "killed: out of memory" if kills and int(kills[1]) else "killed by SIGKILL"
    click.echo(log, err=True)
    return f"failed with exit status {returncode}"


def machine(runs: list[Run]) -> dict[str, Any]:
    """Return what the numbers depend on besides the code."""
    base = next((run.events["base"] for run in runs if "base" in run.events), {})
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {
        "cpu": cpu[1] if cpu else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "python": platform.python_version(),
        **base.get("versions", {}),
    }


def markdown(summaries: list[dict[str, Any]]) -> str:
    """Return the results as a Markdown table, a failed contender's outcome in its last column."""
    lines = [f"| | {' | '.join(COLUMNS)} |", "|---" + "|---:" * len(COLUMNS) + "|"]
    for summary in summaries:
        cells = [cell(key, summary[key]) for key in COLUMNS.values()]
        if summary["outcome"] != "ok":
            cells[-1] = summary["outcome"]
        lines.append(f"| {summary['contender']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def cell(key: str, value: float | None) -> str:
    """Return one number as the table shows it: bytes as MB, seconds with a decimal."""
    if value is None:
        return "-"
    value = value / MB if key.endswith("_bytes") else value
    return f"{value:,.1f}" if key.endswith("_seconds") else f"{value:,.0f}"


def plot(runs: list[Run], path: Path) -> None:
    """Draw memory over time, one panel a contender: anonymous and file pages, stacked."""
    figure = Figure(figsize=(4 * len(runs), 4), layout="tight")
    axes = figure.subplots(1, len(runs), sharey=True, squeeze=False)
    for run, axis in zip(runs, axes[0], strict=True):
        seconds = [sample["seconds"] - run.started for sample in run.samples]
        layers = [[s[name] / MB for s in run.samples] for name in ("RssAnon", "RssFile")]
        axis.stackplot(seconds, layers, labels=["RssAnon", "RssFile"], alpha=0.7)
        if "fit start" in run.events:
            fit_start = run.events["fit start"]["seconds"] - run.started
            axis.axvline(fit_start, color="black", linestyle="--", label="fit starts")
        if run.limit_bytes:
            axis.axhline(run.limit_bytes / MB, color="red", linestyle=":", label="memory limit")
        ended = "" if run.outcome == "ok" else f"\n{run.outcome}"
        axis.set(title=run.name + ended, xlabel="seconds since the process started")
        axis.legend(loc="upper left", fontsize="small")
    axes[0][0].set_ylabel("resident memory, MB")
    figure.savefig(path, dpi=120)


def size_bytes(context: click.Context, option: click.Parameter, text: str | None) -> int | None:
    """Read a size such as 13GB, 800MB or 1.5GiB."""
    if text is None:
        return None
    match = re.fullmatch(r"([\d.]+)\s*([KMG]?)(i?)B?", text, re.IGNORECASE)
    if match is None:
        raise click.BadParameter("expected a size such as 13GB or 800MiB")
    number, prefix, binary = match.groups()
    return int(float(number) * (1024 if binary else 1000) ** " KMG".index(prefix.upper() or " "))


def write_results(runs: list[Run], parameters: dict[str, Any], out: Path) -> None:
    """Print the table and write JSON, Markdown and picture."""
    summaries = [run.summary() for run in runs]
    out.mkdir(parents=True, exist_ok=True)
    report = {"machine": machine(runs), "parameters": parameters, "contenders": summaries}
    (out / "peak_rss.json").write_text(json.dumps(report, indent=2) + "\n")
    (out / "peak_rss.md").write_text(markdown(summaries))
    plot(runs, out / "peak_rss.png")
    click.echo(markdown(summaries))


@click.command()
@click.option("--train", type=FILE, help="Numerai Parquet; default: a synthetic one.")
@click.option("--rows", default=200_000, show_default=True, help="Rows of the synthetic one.")
@click.option("--features", default=1050, show_default=True, help="Its features.")
@click.option("--batch-size", default=1000, show_default=True)
@click.option("--epochs", default=1, show_default=True)
@click.option("--contender", "names", multiple=True, type=NAMES, help="Default: all.")
@click.option("--memory-limit", callback=size_bytes, help="For each process with its page cache.")
@click.option("--work", type=FOLDER, help="Keep prepared files here for the next run.")
@click.option("--out", type=FOLDER, default=HERE / "results", help="Where results go.")
def main(
    train: Path | None,
    rows: int,
    features: int,
    batch_size: int,
    epochs: int,
    names: tuple[str, ...],
    memory_limit: int | None,
    work: Path | None,
    out: Path,
) -> None:
    """Measure the memory and speed of several ways to train a Keras model on one Parquet."""
    if not Path("/proc/self/status").exists():
        raise click.ClickException("peak_rss.py reads /proc and runs on Linux only")
    with tempfile.TemporaryDirectory() as temporary:
        folder = work or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        parquet = train or synthetic_parquet(folder, rows, features)
        width, rows = len(feature_names(parquet)), pq.read_metadata(parquet).num_rows
        options = ["--features", width, "--batch-size", batch_size, "--epochs", epochs]
        sources = {name: prepared(name, parquet, folder) for name in names or CONTENDERS}
        runs = [measure(name, path, options, memory_limit) for name, path in sources.items()]
    parameters = {
        "input": train.name if train else "synthetic",
        "rows": rows,
        "features": width,
        "batch_size": batch_size,
        "epochs": epochs,
        "seed": SEED,
        "memory_limit_bytes": memory_limit,
        "page_cache": "each contender's files are dropped from it before its run",
        "sample_seconds": SAMPLE_SECONDS,
    }
    write_results(runs, parameters, out)
    for run in runs:  # last: a wrong count shall not lose the other results
        assert run.outcome != "ok" or run.rows == rows * epochs, f"{run.name}: {run.rows} rows"


if __name__ == "__main__":
    main()
