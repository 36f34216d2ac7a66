"""Modelling: the cost of choosing rows, weights, whole eras, scores and predictions.

Each cell runs in a fresh process, on files in the page cache. Batches are taken in one thread,
without a model, and their rate is compared with all rows in the same round. Scores and predictions
use a small network (F-32-1) on the whole set, or on its Parquet file of one row group.
"""

import shutil
import tempfile
import time
from pathlib import Path
from typing import Any, TextIO

import click
from harness import report
from harness.events import note
from harness.input_files import SEED, feature_names, kept, synthetic_parquet
from harness.process import MB, child_command, drop_from_page_cache, measure, read_into_page_cache
from tqdm import tqdm

FOLDER = click.Path(file_okay=False, path_type=Path)

WHOLE = "all rows"
#: By the name of the row: whether the set mixes eras, and the options of `NumeraiSequence`.
CHOICES: dict[str, tuple[bool, dict[str, Any]]] = {
    WHOLE: (True, {}),
    "a range of eras": (True, {"eras": "0031-0400"}),
    "every fourth era": (True, {"eras": slice(0, None, 4)}),
    "a weight for each era": (True, {"sample_weight": lambda eras, y: (eras > "0100") + 1.0}),
    "masked targets": (True, {"missing_target": "mask"}),
    "whole eras, of mixed windows": (True, {"batch_by": "era"}),
    "whole eras, mix_eras=1": (False, {"batch_by": "era"}),
}
SCORES = ("EraScores", "EraScores, exposure", "predict, shards", "predict, Parquet")


def choose(name: str, folder: Path, seconds: float, events: TextIO) -> None:
    """Take batches of some rows for some seconds (in a child process)."""
    from numerai_sequence import NumeraiSequence

    sequence = NumeraiSequence(folder, **CHOICES[name][1])
    sequence[0]
    note(events, "opened")
    start, rows = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        for number in range(len(sequence)):
            rows += len(sequence[number][0])
            if time.perf_counter() - start >= seconds:
                break
        sequence.on_epoch_end()
    note(events, "end", rows=rows)


def score(name: str, folder: Path, parquet: Path, model: Any) -> int:
    """Score or predict all rows (in a child process); return their number."""
    from numerai_sequence import EraScores, NumeraiSequence, predict

    if name.startswith("predict"):
        source = parquet if name.endswith("Parquet") else folder
        return len(predict(model, source, progress=False))
    scores = EraScores(NumeraiSequence(folder), exposure=name.endswith("exposure"))
    scores.score(model)
    return scores.validation.rows


def measured(name: str, folder: Path, parquet: Path, features: int, seconds: float) -> Any:
    """Run a cell in a fresh process."""
    source = parquet if name.endswith("Parquet") else folder
    drop_from_page_cache(source)
    read_into_page_cache(source)
    options = "--features", features, "--seconds", seconds
    run = measure(name, child_command("modelling", name, folder, parquet, *options))
    rows, took = run.noted("end", "rows"), run.seconds("base", "end")
    if name in CHOICES:
        took = run.seconds("opened", "end")
    return {
        "outcome": run.outcome,
        "rows": rows,
        "open_seconds": run.seconds("base", "opened"),
        "rows_per_second": round(rows / took) if rows and took else None,
        "above_base_bytes": run.above("base"),
        "versions": run.noted("base", "versions"),
    }


def markdown(runs: dict[str, list[dict[str, Any]]]) -> str:
    """Return the table. Ratios to all rows in the same round are medians."""
    rows = []
    for name, records in runs.items():
        rate = report.best_and_median(record["rows_per_second"] for record in records)
        ratio = report.best_and_median(
            one["rows_per_second"] / whole["rows_per_second"]
            for one, whole in zip(records, runs[WHOLE], strict=True)
            if name in CHOICES and one["rows_per_second"] and whole["rows_per_second"]
        )
        opened = [record["open_seconds"] for record in records if record["open_seconds"]]
        peaks = [record["above_base_bytes"] for record in records if record["above_base_bytes"]]
        outcomes = ", ".join(sorted({record["outcome"] for record in records} - {"ok"}))
        rows.append(
            [
                name,
                f"{rate[0]:,.0f} ({rate[1]:,.0f})" if rate else outcomes,
                f"{ratio[1]:.2f}" if ratio else "-",
                f"{min(opened):.2f}" if opened else "-",
                f"{max(peaks) / MB:,.0f}" if peaks else "-",
            ]
        )
    header = ["", "rows/s", "of all rows' rate", "open, first batch s", "peak RSS above base MB"]
    return report.table(header, rows)


@click.command()
@click.option("--rows", default=400_000, show_default=True, help="Rows of the synthetic input.")
@click.option("--features", default=3555, show_default=True, help="Its features.")
@click.option("--rounds", default=3, show_default=True)
@click.option("--seconds", default=5.0, show_default=True, help="Seconds of batches in each cell.")
@click.option("--work", type=FOLDER, help="Folder that keeps the input for the next run.")
@click.option("--out", type=FOLDER, default=report.RESULTS, help="Folder for the results.")
def main(
    rows: int, features: int, rounds: int, seconds: float, work: Path | None, out: Path
) -> None:
    """Measure the cost of modelling beside reading all rows."""
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in (*CHOICES, *SCORES)}
    with tempfile.TemporaryDirectory() as temporary:
        folder = work or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        parquet = synthetic_parquet(folder, rows, features, row_group_rows=rows)
        sets = {mixed: prepared_set(parquet, folder, mixed=mixed) for mixed in (True, False)}
        for _ in tqdm(range(rounds), desc="rounds"):
            for name, records in runs.items():
                where = sets[CHOICES[name][0] if name in CHOICES else True]
                records.append(measured(name, where, parquet, features, seconds))
    versions = next(filter(None, (one["versions"] for one in runs[WHOLE])), {})
    document = {
        "machine": report.machine(versions),
        "parameters": {"rows": rows, "features": features, "seed": SEED, "seconds": seconds},
        "runs": runs,
    }
    report.write_json(out / "modelling.json", document)
    (out / "modelling.md").write_text(markdown(runs))
    click.echo(markdown(runs))


def prepared_set(parquet: Path, work: Path, *, mixed: bool) -> Path:
    """Return a shard set of the Parquet file, with windows of several eras or of one."""
    folder = work / f"modelling_{'mixed' if mixed else 'apart'}_{parquet.stem}"

    def write() -> None:
        from numerai_sequence import write_shards

        shutil.rmtree(folder, ignore_errors=True)
        write_shards(parquet, folder, mix_eras=None if mixed else 1).close()

    return kept(folder, f"{parquet.stat().st_size} {len(feature_names(parquet))}", write)
