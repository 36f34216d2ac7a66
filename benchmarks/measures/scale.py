"""Scale: the cost of opening, the first batch, memory and rates, for sets up to terabytes.

The sets are sparse files (`sparse_set`). They are mapped, ordered and paged in like other sets, but
their zeros take no space on the disk and no time to read. Each measurement runs in a fresh process,
which loads TensorFlow and trains one step before it opens the set. Then it takes some hundred
batches: from the sequence itself (``loader``), as the last of 64 ranks (``rank of 64``), or through
``model.fit`` with one or four workers. The slopes are the cost of one more terabyte.
"""

import subprocess
import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np
from harness import report
from harness.input_files import SEED, kept
from harness.process import (
    ENVIRONMENT,
    MB,
    Run,
    child_command,
    drop_from_page_cache,
    files_of,
    measure,
)
from matplotlib.figure import Figure
from tqdm import tqdm

FOLDER = click.Path(file_okay=False, path_type=Path)
# The options of `grow` in `harness.child` for each level.
LEVELS: dict[str, list[Any]] = {
    "loader": ["loader"],
    "rank of 64": ["loader", "--world-size", 64],
    "fit": ["fit"],
    "fit with 4 workers": ["fit", "--workers", 4],
}
COLUMNS = {
    "open s": "open_seconds",
    "first batch s": "first_batch_seconds",
    "peak RSS above base MB": "above_base_bytes",
    "peak RssAnon above base MB": "anon_above_base_bytes",
    "rows/s": "rows_per_second",
}


def sparse_set(work: Path, gigabytes: float, features: int) -> Path:
    """Return the set of this size, written on first use."""
    rows = int(gigabytes * 1e9 / features)
    folder = work / f"sparse_{gigabytes:g}GB_x{features}"
    command = child_command("sparse", folder, rows, features)
    return kept(folder, str(rows), lambda: subprocess.run(command, check=True, env=ENVIRONMENT))


def record(run: Run, folder: Path, gigabytes: float, features: int) -> dict[str, Any]:
    """Return one run as a JSON object."""
    rows, seconds = run.noted("end", "rows"), run.seconds("start", "end")
    base_anon, peak_anon = run.noted("base", "RssAnon"), anon_peak(run)
    return {
        "outcome": run.outcome,
        "features": features,
        "rows": int(gigabytes * 1e9 / features),
        "disk_bytes": sum(path.stat().st_blocks * 512 for path in files_of(folder)),
        "open_seconds": run.seconds("base", "opened"),
        "first_batch_seconds": run.seconds("opened", "first batch"),
        "base_bytes": run.noted("base", "VmRSS"),
        "above_base_bytes": run.above("base"),
        "anon_above_base_bytes": peak_anon - base_anon if base_anon and peak_anon else None,
        "batches_rows": rows,
        "rows_per_second": round(rows / seconds, 1) if rows and seconds else None,
        "paging": run.noted("opened", "paging"),
        "run_rows": run.noted("opened", "run_rows"),
        "versions": run.noted("base", "versions"),
    }


def anon_peak(run: Run) -> int | None:
    """Return the largest RssAnon after the base."""
    base = run.noted("base", "seconds")
    seen = [*run.samples, *run.events.values()]
    found = [one["RssAnon"] for one in seen if base and one["seconds"] >= base]
    return int(max(found)) if found else None


def slopes(runs: dict[str, list[dict[str, Any]]]) -> str:
    """Return a table of the cost of one more terabyte, by level and number of features."""
    rows = []
    for level in LEVELS:
        for features in sorted({records[0]["features"] for records in runs.values()}):
            chosen = [
                records
                for key, records in runs.items()
                if key.endswith(f"| {level}") and records[0]["features"] == features
            ]
            terabytes = [records[0]["rows"] * features / 1e12 for records in chosen]
            if max(terabytes, default=0) < 10 * min(terabytes, default=1):
                continue
            cells = [
                cell(name, slope(terabytes, [best(records, name) for records in chosen]))
                for name in list(COLUMNS.values())[:-1]
            ]
            rows.append([level, f"{features:,}", *cells])
    header = ["", "features", *(f"{name} / TB" for name in list(COLUMNS)[:-1])]
    return report.table(header, rows)


def slope(terabytes: list[float], values: list[float | None]) -> float | None:
    """Return the growth of a value per terabyte, by least squares."""
    known = [(x, y) for x, y in zip(terabytes, values, strict=True) if y is not None]
    return float(np.polyfit(*zip(*known, strict=True), 1)[0]) if len(known) > 1 else None


def best(records: list[dict[str, Any]], name: str) -> float | None:
    """Return the shortest time, the highest rate, or the highest peak of the runs."""
    values = [record[name] for record in records if record[name] is not None]
    return (min if name.endswith("_seconds") else max)(values, default=None)


def markdown(runs: dict[str, list[dict[str, Any]]]) -> str:
    """Return tables by level and number of features, with a row for each size, and the slopes."""
    tables: dict[str, list[list[str]]] = {}
    for key, records in sorted(runs.items(), key=lambda item: place(item[1][0])):
        size, level = key.split(" | ")
        cells = [cell(name, best(records, name)) for name in COLUMNS.values()]
        outcomes = {record["outcome"] for record in records} - {"ok"}
        cells[-1] = ", ".join(sorted(outcomes)) or cells[-1]
        chosen = f"{records[-1]['paging'] or '-'}, {records[-1]['run_rows'] or '-'}"
        row = [size.split(" x ")[0], f"{records[0]['rows']:,}", *cells, chosen]
        tables.setdefault(f"{level}, {records[0]['features']} features", []).append(row)
    header = ["", "rows", *COLUMNS, "paging, run_rows"]
    text = [f"#### {title}\n\n{report.table(header, rows)}" for title, rows in tables.items()]
    return "\n".join([*text, f"#### slopes\n\n{slopes(runs)}"])


def place(record: dict[str, Any]) -> tuple[int, int]:
    """Return the sort key of records: features, then rows."""
    return record["features"], record["rows"]


def cell(name: str, value: float | None) -> str:
    """Return the text of a number in the table: bytes as MB, seconds with two decimals."""
    if value is None:
        return "-"
    value = value / MB if name.endswith("_bytes") else value
    return f"{value:,.2f}" if name.endswith("_seconds") else f"{value:,.0f}"


def plot(runs: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Draw memory and times against the rows."""
    figure = Figure(figsize=(13, 5), layout="tight")
    memory, times = figure.subplots(1, 2)
    features = min(records[0]["features"] for records in runs.values())
    for level in ("loader", "fit"):
        chosen = [
            records
            for key, records in runs.items()
            if key.endswith(f"| {level}") and records[0]["features"] == features
        ]
        chosen.sort(key=lambda records: records[0]["rows"])
        for axis, title, name, scale in [
            (memory, "peak RSS above TensorFlow's", "above_base_bytes", MB),
            (memory, "its anonymous part", "anon_above_base_bytes", MB),
            (times, "open", "open_seconds", 1),
            (times, "first batch", "first_batch_seconds", 1),
        ]:
            points = [(records[0]["rows"], best(records, name)) for records in chosen]
            points = [(rows, value / scale) for rows, value in points if value is not None]
            if points:
                axis.plot(*zip(*points, strict=True), marker="o", label=f"{title}, {level}")
    memory.set(ylabel="MB", ylim=(0, None))
    times.set(ylabel="seconds", yscale="log")
    for axis in (memory, times):
        axis.set(xscale="log", xlabel="rows")
        axis.grid(visible=True, which="both", alpha=0.3)
        axis.legend(fontsize="small")
    figure.savefig(path, dpi=120)


def write_results(
    runs: dict[str, list[dict[str, Any]]], parameters: dict[str, Any], out: Path
) -> None:
    """Write JSON and Markdown."""
    found = [record["versions"] for records in runs.values() for record in records]
    versions = next(filter(None, found), {})
    document = {"machine": report.machine(versions), "parameters": parameters, "runs": runs}
    report.write_json(out / "scale.json", document)
    (out / "scale.md").write_text(markdown(runs))


@click.command()
@click.option(
    "--gigabytes",
    multiple=True,
    default=(1.0, 10.0, 100.0, 1000.0, 10000.0),
    show_default=True,
    help="Size of the features in gigabytes; repeatable.",
)
@click.option(
    "--level", "levels", multiple=True, type=click.Choice(list(LEVELS)), default=list(LEVELS)
)
@click.option(
    "--features", "widths", multiple=True, default=(1050, 3555, 10_000), show_default=True
)
@click.option("--batch-size", default=1000, show_default=True)
@click.option("--batches", default=300, show_default=True, help="Number of batches in each run.")
@click.option(
    "--rounds", default=3, show_default=True, help="Number of rounds; each runs every size once."
)
@click.option("--time-limit-seconds", default=600.0, show_default=True, help="A run's.")
@click.option("--work", type=FOLDER, help="Folder that keeps the sparse sets for the next run.")
@click.option("--out", type=FOLDER, default=report.RESULTS, help="Folder for the results.")
@click.option("--fresh", is_flag=True, help="Discard all earlier results.")
def main(
    gigabytes: tuple[float, ...],
    levels: tuple[str, ...],
    widths: tuple[int, ...],
    batch_size: int,
    batches: int,
    rounds: int,
    time_limit_seconds: float,
    work: Path | None,
    out: Path,
    fresh: bool,
) -> None:
    """Measure how opening, the first batch, memory and rates change with rows and features."""
    parameters = {
        "batch_size": batch_size,
        "batches": batches,
        "seed": SEED,
    }
    runs = report.mergeable(out / "scale.json", parameters, fresh=fresh)
    with tempfile.TemporaryDirectory() as temporary:
        folder = work or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        steps = [
            (number, features, size, level)
            for number in range(rounds)
            for features in widths
            for size in gigabytes
            for level in levels
        ]
        for number, features, size, level in tqdm(steps, desc="runs"):
            path = sparse_set(folder, size, features)
            drop_from_page_cache(path)
            key = f"{size:g} GB x {features:,} | {level}"
            options = ["--features", features, "--batch-size", batch_size, "--batches", batches]
            command, *rest = LEVELS[level]
            run = measure(
                key,
                child_command("grow", command, path, *options, *rest),
                time_limit_seconds=time_limit_seconds,
            )
            found = record(run, path, size, features)
            runs[key] = [found] if number == 0 else [*runs[key], found]
            write_results(runs, parameters, out)
    plot(runs, out / "scale.png")
    click.echo(markdown(runs))
