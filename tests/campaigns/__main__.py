"""Campaigns: cause many kills, damages and failures, and count the tries that end as promised.

Each campaign is a module beside this one. `COUNT` is its default number of tries, and `run` makes
them. The same seed repeats the same tries. The tests run a few tries of each campaign.
"""

import importlib
import sys
import tempfile
import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the package of this checkout
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness import report

from campaigns.result import Result

FOLDER = click.Path(file_okay=False, path_type=Path)
NAMES = ("failing", "inputs", "long_runs", "mutants", "resuming", "writing")
PACKAGES = ("numpy", "pyarrow", "tensorflow", "keras", "tf_keras")


def markdown(results: dict[str, list[Result]]) -> str:
    """Return the table, with one line for each kind of try."""
    rows = [
        [
            result.what,
            f"{result.tried:,}",
            ", ".join(f"{count:,} {outcome}" for outcome, count in result.outcomes.items()),
            f"{len(result.failures):,}",
            ", ".join(f"{name} {value}" for name, value in result.figures.items()),
        ]
        for found in results.values()
        for result in found
    ]
    header = ["what was done", "times", "ended as promised", "failed", "measured"]
    return report.table(header, rows)


def read_results(path: Path) -> dict[str, list[Result]]:
    """Return the results of an earlier call, by campaign."""
    earlier = report.read_json(path).get("results", {})
    return {name: [Result(**result) for result in found] for name, found in earlier.items()}


def write_results(out: Path, results: dict[str, list[Result]], seconds: dict[str, float]) -> None:
    document: dict[str, Any] = {
        "machine": report.machine({name: version(name) for name in PACKAGES}),
        "seconds": seconds,
        "results": {name: list(map(asdict, found)) for name, found in sorted(results.items())},
    }
    report.write_json(out / "faults.json", document)
    (out / "faults.md").write_text(markdown(dict(sorted(results.items()))))


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(NAMES))
@click.option(
    "--count", type=int, help="Number of tries of each campaign.  [default: its own number]"
)
@click.option("--seed", default=0, show_default=True, help="Seed for drawing the tries.")
@click.option("--work", type=FOLDER, help="Folder for the files.  [default: a temporary one]")
@click.option("--out", type=FOLDER, default=report.RESULTS, help="Folder for the results.")
def main(
    names: tuple[str, ...], count: int | None, seed: int, work: Path | None, out: Path
) -> None:
    """Run the campaigns NAMES, all of them by default. Exit with 1 if a try fails."""
    if work:
        work.mkdir(parents=True, exist_ok=True)
    results = read_results(out / "faults.json")
    seconds = report.read_json(out / "faults.json").get("seconds", {})
    for name in names or NAMES:
        campaign = importlib.import_module(f"campaigns.{name}")
        started = time.monotonic()
        with tempfile.TemporaryDirectory(dir=work) as folder:
            tries = campaign.COUNT if count is None else count
            results[name] = campaign.run(Path(folder), seed=seed, count=tries)
        seconds[name] = round(time.monotonic() - started, 1)
        write_results(out, results, seconds)
        click.echo(markdown({name: results[name]}))
    failures = [
        f"{result.what}: {failure}"
        for name in names or NAMES
        for result in results[name]
        for failure in result.failures
    ]
    for failure in failures:
        click.echo(failure, err=True)
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
