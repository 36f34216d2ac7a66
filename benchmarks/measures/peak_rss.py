"""Peak memory: the memory and speed of each way to train on one Numerai Parquet file.

Each contender trains the same model on the same rows in its own process, with none of its files in
the page cache at the start. Meanwhile this process samples /proc. The preparation of files is not
measured. The measure writes ``peak_rss.json``, ``peak_rss.md`` and ``peak_rss.png``. It needs
Linux, and a ``--work`` folder on a disk: files in a tmpfs take memory.

Shared costs count for every contender: TensorFlow's libraries are in RssFile, and the memory of its
first training step is above the base. A memory limit includes the page cache, except pages that
another process read before, such as those libraries.
"""

import re
import tempfile
from pathlib import Path
from typing import Any

import click
import pyarrow.parquet as pq
from contenders.catalog import CONTENDERS, source_of
from harness import report
from harness.input_files import SEED, feature_names, synthetic_parquet
from harness.process import MB, SAMPLE_SECONDS, Run, child_command, drop_from_page_cache, measure
from matplotlib.figure import Figure

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)
NAMES = click.Choice(list(CONTENDERS))
DEFAULT = ("pandas", "article", "np.memmap", "numerai_sequence")
COLUMNS = {
    "peak RSS (VmHWM) MB": "vm_hwm_bytes",
    "above base MB": "above_base_bytes",
    "peak RssAnon MB": "rss_anon_bytes",
    "peak RssFile MB": "rss_file_bytes",
    "load s": "load_seconds",
    "fit s": "fit_seconds",
    "rows/s": "rows_per_second",
}


def measured(name: str, source: Path, options: list[object], limit_bytes: int | None) -> Run:
    """Train one contender in a fresh process, with none of its files in the page cache."""
    drop_from_page_cache(source)
    return measure(name, child_command("fit", name, source, *options), limit_bytes=limit_bytes)


def summary(run: Run) -> dict[str, Any]:
    """Return the run as one JSON object."""
    base, peak, rows = run.noted("base", "VmRSS"), run.peak("VmHWM"), run.noted("fit end", "rows")
    fit_seconds = run.seconds("fit start", "fit end")
    return {
        "contender": run.name,
        "outcome": run.outcome,
        "limit_bytes": run.limit_bytes,
        "vm_hwm_bytes": peak,
        "base_bytes": base,
        "above_base_bytes": peak - base if peak and base else None,
        "rss_anon_bytes": run.peak("RssAnon"),
        "rss_file_bytes": run.peak("RssFile"),
        "load_seconds": run.seconds("base", "fit start"),
        "fit_seconds": fit_seconds,
        "rows_trained": rows,
        "rows_per_second": round(rows / fit_seconds) if rows and fit_seconds else None,
    }


def markdown(summaries: list[dict[str, Any]]) -> str:
    """Return the results as a Markdown table. The last column has the outcome of failed runs."""
    rows = []
    for summary in summaries:
        cells = [cell(key, summary[key]) for key in COLUMNS.values()]
        if summary["outcome"] != "ok":
            cells[-1] = summary["outcome"]
        rows.append([summary["contender"], *cells])
    return report.table(["", *COLUMNS], rows)


def cell(key: str, value: float | None) -> str:
    """Return the text of a number in the table: bytes as MB, seconds with one decimal."""
    if value is None:
        return "-"
    value = value / MB if key.endswith("_bytes") else value
    return f"{value:,.1f}" if key.endswith("_seconds") else f"{value:,.0f}"


def plot(runs: list[Run], path: Path) -> None:
    """Draw memory over time: anonymous and file pages, stacked, with a panel per contender."""
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
    summaries = [summary(run) for run in runs]
    versions = next((run.noted("base", "versions") for run in runs if "base" in run.events), {})
    document = {
        "machine": report.machine(versions),
        "parameters": parameters,
        "contenders": summaries,
    }
    report.write_json(out / "peak_rss.json", document)
    (out / "peak_rss.md").write_text(markdown(summaries))
    plot(runs, out / "peak_rss.png")
    click.echo(markdown(summaries))


@click.command()
@click.option("--train", type=FILE, help="Numerai Parquet file.  [default: a synthetic one]")
@click.option("--rows", default=200_000, show_default=True, help="Rows of the synthetic file.")
@click.option("--features", default=1050, show_default=True, help="Its features.")
@click.option("--batch-size", default=1000, show_default=True)
@click.option("--epochs", default=1, show_default=True)
@click.option("--contender", "names", multiple=True, type=NAMES, default=DEFAULT, show_default=True)
@click.option(
    "--memory-limit", callback=size_bytes, help="Memory limit of each process, page cache included."
)
@click.option("--work", type=FOLDER, help="Folder that keeps prepared files for the next run.")
@click.option("--out", type=FOLDER, default=report.RESULTS, help="Folder for the results.")
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
    """Measure the memory and speed of several ways to train a Keras model on one Parquet file."""
    if not Path("/proc/self/status").exists():
        raise click.ClickException("peak_rss reads /proc and runs on Linux only")
    with tempfile.TemporaryDirectory() as temporary:
        folder = work or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        parquet = train or synthetic_parquet(folder, rows, features)
        width, rows = len(feature_names(parquet)), pq.read_metadata(parquet).num_rows
        options = ["--features", width, "--batch-size", batch_size, "--epochs", epochs]
        sources = {name: source_of(name, parquet, folder) for name in names}
        runs = [measured(name, path, options, memory_limit) for name, path in sources.items()]
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
    for run in runs:  # last: a wrong count must not lose the other results
        found = run.noted("fit end", "rows")
        assert run.outcome != "ok" or found == rows * epochs, f"{run.name}: {found} rows"
