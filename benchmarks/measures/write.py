"""Write: the speed and memory of `write_shards`, compared with reading the same Parquet file.

The input has one row group, the hardest case for memory. The reference is pyarrow's threaded read
of the same columns into memory. Each measurement runs in a fresh process, with the input in the
page cache. Each round reads once, and writes once in each encoding. Ratios are within a round.
"""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import click
import pyarrow.parquet as pq
from harness import report
from harness.input_files import SEED, feature_names, synthetic_parquet
from harness.process import MB, child_command, measure, read_into_page_cache
from tqdm import tqdm

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)
READ = "pyarrow read"
ENCODINGS = ("packed", "int8")


def measured(what: str, parquet: Path, folder: Path) -> dict[str, Any]:
    """Read the input, or write it in an encoding, in a fresh process."""
    read_into_page_cache(parquet)
    target = folder / "written"
    command = child_command("write", parquet, target, "--encoding", what)
    try:
        run = measure(what, child_command("read", parquet) if what == READ else command)
    finally:
        shutil.rmtree(target, ignore_errors=True)
    rows, seconds = run.noted("end", "rows"), run.seconds("base", "end")
    return {
        "outcome": run.outcome,
        "rows": rows,
        "seconds": seconds,
        "rows_per_second": round(rows / seconds) if rows and seconds else None,
        "vm_hwm_bytes": run.noted("end", "VmHWM"),
        "above_base_bytes": run.above("base"),
        "versions": run.noted("base", "versions"),
    }


def ratios(runs: dict[str, list[dict[str, Any]]], what: str) -> list[float]:
    """Return the rate of each round, divided by the rate of the read in the same round."""
    pairs = zip(runs[what], runs[READ], strict=True)
    rates = [(one["rows_per_second"], read["rows_per_second"]) for one, read in pairs]
    return [rate / read for rate, read in rates if rate and read]


def markdown(runs: dict[str, list[dict[str, Any]]]) -> str:
    """Return the table, with the median and range of the ratios."""
    rows = []
    for what, records in runs.items():
        rate = report.best_and_median(record["rows_per_second"] for record in records)
        peaks = [record["vm_hwm_bytes"] for record in records if record["vm_hwm_bytes"]]
        found = ratios(runs, what)
        ratio = "-"
        if found and what != READ:
            middle = report.best_and_median(found)[1]
            ratio = f"{middle:.2f} ({min(found):.2f} to {max(found):.2f})"
        outcomes = ", ".join(sorted({record["outcome"] for record in records} - {"ok"}))
        rows.append(
            [
                what if what == READ else f"write_shards, {what}",
                f"{rate[0]:,.0f} ({rate[1]:,.0f})" if rate else outcomes,
                ratio,
                f"{max(peaks) / MB:,.0f}" if peaks else "-",
            ]
        )
    return report.table(["", "rows/s", "of the read's rate", "peak RSS (VmHWM) MB"], rows)


@click.command()
@click.option("--train", type=FILE, help="Numerai Parquet file.  [default: a synthetic one]")
@click.option("--rows", default=400_000, show_default=True, help="Rows of the synthetic file.")
@click.option("--features", default=3555, show_default=True, help="Its features.")
@click.option("--rounds", default=3, show_default=True)
@click.option("--work", type=FOLDER, help="Folder that keeps the input for the next run.")
@click.option("--out", type=FOLDER, default=report.RESULTS, help="Folder for the results.")
def main(
    train: Path | None, rows: int, features: int, rounds: int, work: Path | None, out: Path
) -> None:
    """Measure the speed and memory of writing a shard set."""
    runs: dict[str, list[dict[str, Any]]] = {what: [] for what in (READ, *ENCODINGS)}
    with tempfile.TemporaryDirectory() as temporary:
        folder = work or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        parquet = train or synthetic_parquet(folder, rows, features, row_group_rows=rows)
        metadata, width = pq.read_metadata(parquet), len(feature_names(parquet))
        for _ in tqdm(range(rounds), desc="rounds"):
            for what, records in runs.items():
                records.append(measured(what, parquet, folder))
    versions = next(filter(None, (one["versions"] for one in runs[READ])), {})
    document = {
        "machine": report.machine(versions),
        "parameters": {
            "input": train.name if train else "synthetic",
            "rows": metadata.num_rows,
            "features": width,
            "row_groups": metadata.num_row_groups,
            "seed": SEED,
        },
        "runs": runs,
    }
    report.write_json(out / "write.json", document)
    (out / "write.md").write_text(markdown(runs))
    click.echo(markdown(runs))
