"""Suite: run all benchmarks, and fill the tables of the project's pages with their results.

If a benchmark fails, the others still run. The end of the output names the failed ones.
"""

import shlex
import subprocess
import sys
from pathlib import Path

import click
from harness import report
from harness.process import BENCHMARKS, ROOT

FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
# Options of --small: large enough for meaningful rates, and done in minutes.
# The faults are the campaigns of tests/campaigns.
SMALL = {
    "peak_rss": "--rows 100000 --features 310",
    "throughput": "--rows 400000 --features 310 --rounds 1 --seconds 2 --warmup-seconds 1"
    " --dtype float32 --feeding '4 threads' --situation warm --situation half --fresh",
    "scale": "--gigabytes 1 --gigabytes 10 --rounds 1 --fresh",
    "write": "--rows 50000 --features 1050 --rounds 1",
    "modelling": "--rows 50000 --features 1050 --rounds 1 --seconds 2",
    "faults": "--count 10",
    "startup": "--rounds 1",
    "upload": "--rows 1000 --features 310 --models 3",
}
FULL = {
    "peak_rss": "--rows 600000",
    "throughput": "",
    "scale": "",
    "write": "",
    "modelling": "",
    "faults": "",
    "startup": "",
    "upload": "",
}


def program(name: str) -> list[Path | str]:
    """Return the arguments of Python that start a benchmark."""
    return [ROOT / "tests/campaigns"] if name == "faults" else [BENCHMARKS / "measure.py", name]


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(list(FULL)))
@click.option("--work", type=FOLDER, required=True, help="Folder for prepared files, on a disk.")
@click.option("--out", type=FOLDER, default=report.RESULTS, help="Folder for the results.")
@click.option(
    "--small", is_flag=True, help="Use small sizes and one round, and write results to --work."
)
@click.option(
    "--page",
    "pages",
    type=FILE,
    multiple=True,
    help="Page to fill with tables; repeatable.  [default: every page with markers for tables]",
)
@click.option("--tables-only", is_flag=True, help="Fill the pages, and run no benchmarks.")
def main(
    names: tuple[str, ...],
    work: Path,
    out: Path,
    small: bool,
    pages: tuple[Path, ...],
    tables_only: bool,
) -> None:
    """Run the benchmarks NAMES, all of them by default, and fill the tables of the pages."""
    pages = pages or tuple(report.marked_pages())
    if small and not tables_only:  # small results must not replace real ones
        out, pages = work / "small", ()
    failed = []
    for name in () if tables_only else names or FULL:
        click.echo(f"== {name}", err=True)
        options = shlex.split((SMALL if small else FULL)[name])
        command = [sys.executable, *program(name), *options, "--work", work, "--out", out]
        if subprocess.run(command).returncode:
            failed.append(name)
    for page in pages:
        filled = report.fill(page, out)
        click.echo(f"{page}: {', '.join(filled) or 'no markers'}", err=True)
    if failed:
        raise click.ClickException(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
