"""Startup: the seconds to import the package and start its command, and the size of an install.

Each time is the shortest of several fresh processes. The size of a package is the size of the files
that its installation lists. The size of an extra is that of the packages that only it needs, if
they are installed here.
"""

import re
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import click
from harness import report
from harness.process import ENVIRONMENT, MB
from packaging.requirements import Requirement

FOLDER = click.Path(file_okay=False, path_type=Path)
NAME = "numerai_sequence"
STARTS = {
    "python": "pass",
    "import numpy": "import numpy",
    "import pyarrow": "import pyarrow",
    "import numerai_sequence": "import numerai_sequence",
    "numerai-sequence --help": "from numerai_sequence.commands.main import main; main(['--help'])",
    "import tensorflow": "import tensorflow",
    "from numerai_sequence import NumeraiSequence": "from numerai_sequence import NumeraiSequence",
}
EXTRAS = ("train", "ray")


def seconds(code: str, rounds: int) -> float:
    """Return the shortest time of a fresh process for some code."""
    found = []
    for _ in range(rounds):
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-c", code], check=True, env=ENVIRONMENT, capture_output=True
        )
        found.append(time.perf_counter() - start)
    return min(found)


def needed(name: str, extra: str = "") -> set[str]:
    """Return the packages that a package needs, itself included."""
    found, left = {canonical(name)}, [(name, extra)]
    while left:
        package, wanted = left.pop()
        for line in metadata.requires(package) or []:
            requirement = Requirement(line)
            if requirement.marker and not requirement.marker.evaluate({"extra": wanted}):
                continue
            other = canonical(requirement.name)
            if other in found and not requirement.extras:
                continue
            try:
                metadata.distribution(other)
            except metadata.PackageNotFoundError:
                click.echo(f"note: {other} is not installed, and not counted", err=True)
                continue
            found.add(other)
            left += [(other, one) for one in ("", *requirement.extras)]
    return found


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def installed_bytes(name: str) -> int:
    """Return the bytes of a package's files."""
    files = metadata.files(name) or []
    paths = [Path(file.locate()) for file in files]
    return sum(path.stat().st_size for path in paths if path.is_file())


@click.command()
@click.option("--rounds", default=5, show_default=True, help="Number of processes for each time.")
@click.option("--work", type=FOLDER, help="Not needed.")
@click.option("--out", type=FOLDER, default=report.RESULTS, help="Folder for the results.")
def main(rounds: int, work: Path | None, out: Path) -> None:
    """Measure the time of a start, and the size of an install."""
    starts = {what: seconds(code, rounds) for what, code in STARTS.items()}
    base = needed(NAME)
    parts = {"numerai_sequence": {canonical(NAME)}, "what it needs": base - {canonical(NAME)}}
    parts |= {f"besides, with [{extra}]": needed(NAME, extra) - base for extra in EXTRAS}
    sizes = {what: sum(map(installed_bytes, names)) for what, names in parts.items()}
    largest = {
        what: sorted(names, key=installed_bytes, reverse=True)[:4] for what, names in parts.items()
    }
    versions = {name: metadata.version(name) for name in ("numpy", "pyarrow", "tensorflow")}
    document = {"machine": report.machine(versions), "seconds": starts, "bytes": sizes}
    report.write_json(out / "startup.json", document)
    times = [[what, f"{found:.2f}"] for what, found in starts.items()]
    rows = [
        [what, f"{sizes[what] / MB:,.1f}", f"{len(names)}", ", ".join(largest[what])]
        for what, names in parts.items()
    ]
    text = (
        f"#### start\n\n{report.table(['', 's'], times)}\n"
        f"#### install\n\n{report.table(['', 'MB', 'packages', 'the largest'], rows)}"
    )
    (out / "startup.md").write_text(text)
    click.echo(text)
