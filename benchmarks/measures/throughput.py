"""Throughput: rows a second of every way to get random batches, with much and little memory.

``loader`` takes batches in one thread, without a model (tf.data and the article start their own
threads). ``fit`` trains. Each measurement runs in a fresh process that counts rows for some seconds
after a warm-up. The situations are:

warm    The files are in the page cache, and there is no memory limit.
cold    The files are not in the page cache. The first pass counts, from its second batch on.
half    As cold, in a cgroup whose limit, page cache included, is half of ``size``.
eighth  As half, with an eighth of ``size``.

For ``fit``, ``size`` is the float32 size of the features. The limit holds from the start of the
process, TensorFlow included. For ``loader``, ``size`` is the size of the contender's own files. The
limit holds from the moment when they are opened. ``throughput.json`` has all runs by the key of
their cell, so later calls can add other cells.
"""

import tempfile
from pathlib import Path
from typing import Any

import click
import pyarrow.parquet as pq
from contenders import models
from contenders.catalog import CONTENDERS, source_of
from harness import report
from harness.input_files import SEED, feature_names, synthetic_parquet
from harness.process import (
    Run,
    child_command,
    drop_from_page_cache,
    files_of,
    group_parent,
    measure,
    read_into_page_cache,
)
from harness.throughput_cells import (
    DTYPES,
    FEEDINGS,
    KERAS,
    LEVELS,
    SHARES,
    SITUATIONS,
    Cell,
    choose,
)
from matplotlib.figure import Figure
from tqdm import tqdm

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)
LEAST_LIMIT_BYTES = 64_000_000  # room for a batch, its decoding and the row order
START_SECONDS = {"loader": 4, "fit": 12}  # of a process, to estimate the whole


def limit_bytes(cell: Cell, source: Path, rows: int, features: int) -> int | None:
    """Return the memory limit of a cell in bytes, or None for no limit."""
    if cell.situation not in SHARES:
        return None
    own = sum(path.stat().st_size for path in files_of(source))
    size = own if cell.level == "loader" else rows * features * 4
    return max(LEAST_LIMIT_BYTES, int(size * SHARES[cell.situation]))


def measured(
    cell: Cell, source: Path, rows: int, features: int, settings: dict[str, Any]
) -> dict[str, Any]:
    """Run one cell once, and return its result."""
    workers, processes = FEEDINGS[cell.feeding]
    options = {"features": features, "dtype": cell.dtype, "workers": workers}
    options |= {"batch-size": settings["batch_size"], "seconds": settings["seconds"]}
    options |= {"in-memory-rows": settings["in_memory_rows"]}
    options["warmup-seconds"] = settings["warmup_seconds"]
    if cell.level == "fit":
        options |= {"keras": cell.keras, "model": cell.model}
    if cell.situation == "cold":  # the second pass would be warm
        options |= {"warmup-seconds": 0, "max-rows": max(1, rows - 2 * settings["batch_size"])}
    arguments = [word for name, value in options.items() for word in (f"--{name}", value)]
    arguments += ["--processes"] if processes else []
    # If warm, read the files again: a limited process leaves single pages there, which are slower.
    drop_from_page_cache(source)
    if cell.situation == "warm":
        read_into_page_cache(source)
    run = measure(
        cell.key,
        child_command("pace", cell.level, cell.contender, source, *arguments),
        limit_bytes=limit_bytes(cell, source, rows, features),
        enters_group_itself=cell.level == "loader",
        sample_seconds=0.2,
        time_limit_seconds=settings["time_limit_seconds"],
    )
    return record(run, settings)


def record(run: Run, settings: dict[str, Any]) -> dict[str, Any]:
    """Return one run as a JSON object."""
    rows, seconds = run.noted("end", "rows"), run.seconds("start", "end")
    outcome = "ended early" if run.outcome == "ok" and rows is None else run.outcome
    return {
        "outcome": outcome,
        "limit_bytes": run.limit_bytes,
        "rows": rows,
        "seconds": seconds,
        "rows_per_second": round(rows / seconds, 1) if rows and seconds else None,
        "first_batch_seconds": run.seconds("base", "first batch"),
        "vm_hwm_bytes": run.peak("VmHWM"),
        "base_bytes": run.noted("base", "VmRSS"),
        "above_base_bytes": run.above("base"),
        "paging": run.noted("opened", "paging"),
        "run_rows": run.noted("opened", "run_rows"),
        "settings": settings,
        "versions": run.noted("base", "versions"),
    }


def tables(runs: dict[str, list[dict[str, Any]]]) -> str:
    """Return a Markdown table for each panel: best rows a second, with medians in brackets."""
    panels: dict[str, dict[str, dict[str, str]]] = {}
    for key, records in runs.items():
        panel, line, situation = key.split(" | ")
        panels.setdefault(panel, {}).setdefault(line, {})[situation] = cell_text(records)
    text = []
    known = list(CONTENDERS)
    for panel, found in sorted(panels.items(), reverse=True):
        # Cells may have been measured in any order.
        lines = dict(sorted(found.items(), key=lambda item: known.index(item[0].split(",")[0])))
        rows = [[line, *(cells.get(s, "") for s in SITUATIONS)] for line, cells in lines.items()]
        text.append(f"#### {panel}\n\n{report.table(['rows/s', *SITUATIONS], rows)}")
    return "\n".join(text)


def cell_text(records: list[dict[str, Any]]) -> str:
    """Return best and median, or the reason why there are none."""
    found = report.best_and_median(record["rows_per_second"] for record in records)
    outcomes = {record["outcome"] for record in records} - {"ok"}
    if found is None:
        return ", ".join(sorted(outcomes))
    return f"{found[0]:,.0f} ({found[1]:,.0f})" + (" \\*" if outcomes else "")


def plot(runs: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Draw the best rows a second against the memory limit, with a panel for each table."""
    shown = ["warm", "half", "eighth"]
    names = sorted({key.split(" | ")[0] for key in runs}, reverse=True)
    figure = Figure(figsize=(7 * len(names), 8), layout="tight")
    for name, axis in zip(names, figure.subplots(1, len(names), squeeze=False)[0], strict=True):
        lines: dict[str, dict[int, float]] = {}
        for key, records in runs.items():
            panel, line, situation = key.split(" | ")
            found = report.best_and_median(record["rows_per_second"] for record in records)
            if panel == name and situation in shown and found:
                lines.setdefault(line, {})[shown.index(situation)] = found[0]
        for line, points in lines.items():
            ours = line.startswith("numerai_sequence")
            axis.plot(
                sorted(points),
                [points[at] for at in sorted(points)],
                marker="o",
                linewidth=2.5 if ours else 1.2,
                linestyle="-" if ours else "--",
                label=line,
            )
        axis.set(title=name, yscale="log", ylabel="rows/s", xlabel="memory limit")
        axis.set_xticks(range(len(shown)), ["none", "half", "eighth"])
        axis.grid(visible=True, which="both", alpha=0.3)
        axis.legend(fontsize="x-small", ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.1))
    figure.savefig(path, dpi=120)


def write_results(
    runs: dict[str, list[dict[str, Any]]], parameters: dict[str, Any], out: Path
) -> None:
    """Write JSON and Markdown."""
    versions: dict[str, str] = {}
    for records in runs.values():
        for record in records:
            versions |= record["versions"] or {}
    document = {"machine": report.machine(versions), "parameters": parameters, "runs": runs}
    report.write_json(out / "throughput.json", document)
    (out / "throughput.md").write_text(tables(runs))


def many(name: str, values: Any, default: Any = None) -> Any:
    """Return an option that may be given several times."""
    return click.option(
        f"--{name}",
        multiple=True,
        type=click.Choice(list(values)),
        default=list(values) if default is None else default,
        show_default=True,
    )


@click.command()
@click.option("--train", type=FILE, help="Numerai Parquet file.  [default: a synthetic one]")
@click.option("--rows", default=2_400_000, show_default=True, help="Rows of the synthetic file.")
@click.option("--features", default=1050, show_default=True, help="Its features.")
@many("level", LEVELS)
@many("contender", [name for name in CONTENDERS if name != "pandas"])
@many("dtype", DTYPES)
@many("feeding", list(FEEDINGS)[1:])
@many("situation", SITUATIONS)
@many("keras", KERAS, ["keras"])
@many("model", models.HIDDEN, ["F-32-1"])
@click.option("--batch-size", default=1000, show_default=True)
@click.option(
    "--in-memory-rows", default=400_000, show_default=True, help="Rows for fit on arrays in memory."
)
@click.option(
    "--rounds", default=3, show_default=True, help="Number of rounds; each runs every cell once."
)
@click.option(
    "--seconds", default=10.0, show_default=True, help="Seconds to count rows in each run."
)
@click.option(
    "--warmup-seconds",
    default=3.0,
    show_default=True,
    help="Seconds of warm-up after the first batch.",
)
@click.option("--time-limit-seconds", default=240.0, show_default=True, help="A run's.")
@click.option("--work", type=FOLDER, help="Folder that keeps prepared files for the next run.")
@click.option("--out", type=FOLDER, default=report.RESULTS, help="Folder for the results.")
@click.option("--fresh", is_flag=True, help="Discard all earlier results.")
@click.option("--dry-run", is_flag=True, help="Show the cells and their time, and run nothing.")
def main(
    train: Path | None,
    rows: int,
    features: int,
    level: tuple[str, ...],
    contender: tuple[str, ...],
    dtype: tuple[str, ...],
    feeding: tuple[str, ...],
    situation: tuple[str, ...],
    keras: tuple[str, ...],
    model: tuple[str, ...],
    work: Path | None,
    out: Path,
    fresh: bool,
    dry_run: bool,
    rounds: int,
    **settings: Any,
) -> None:
    """Measure rows a second: warm, cold, and with half and an eighth of the memory."""
    if train:
        rows, features = pq.read_metadata(train).num_rows, len(feature_names(train))
    if not group_parent() and set(situation) & set(SHARES):
        click.echo(
            "note: this user cannot make memory groups (cgroups), so half and eighth are left out",
            err=True,
        )
        situation = tuple(name for name in situation if name not in SHARES)
    chosen = choose(
        levels=level,
        names=contender,
        dtypes=dtype,
        feedings=feeding,
        situations=situation,
        keras=keras,
        models=model,
    )
    cells = list(chosen)
    each = settings["warmup_seconds"] + settings["seconds"]
    total = rounds * sum(START_SECONDS[cell.level] + each for cell in cells)
    click.echo(f"{len(cells)} cells, {rounds} rounds: about {total / 60:,.0f} minutes", err=True)
    if dry_run:
        return click.echo("\n".join(cell.key for cell in cells))
    parameters = {
        "input": train.name if train else "synthetic",
        "rows": rows,
        "features": features,
        "batch_size": settings["batch_size"],
        "seed": SEED,
    }
    runs = report.mergeable(out / "throughput.json", parameters, fresh=fresh)
    with tempfile.TemporaryDirectory() as temporary:
        folder = work or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        parquet = train or synthetic_parquet(folder, rows, features)
        sources = {cell.contender: source_of(cell.contender, parquet, folder) for cell in cells}
        steps = [(number, cell) for number in range(rounds) for cell in cells]
        for number, cell in tqdm(steps, desc="runs"):
            run = measured(cell, sources[cell.contender], rows, features, settings)
            # The first round replaces earlier results of the cell.
            runs[cell.key] = [run] if number == 0 else [*runs[cell.key], run]
            write_results(runs, parameters, out)
    plot(runs, out / "throughput.png")
    click.echo(tables(runs))
