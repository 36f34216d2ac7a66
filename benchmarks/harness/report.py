"""Report: results become JSON, a Markdown table, and the tables of the project's pages."""

import json
import os
import platform
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click

BENCHMARKS = Path(__file__).resolve().parents[1]
ROOT = BENCHMARKS.parent
RESULTS = BENCHMARKS / "results"
MARKED = re.compile(r"(<!-- benchmarks:(\S+) -->\n).*?(<!-- /benchmarks -->)", re.DOTALL)


def machine(versions: dict[str, str]) -> dict[str, Any]:
    """Return what the numbers depend on besides the code."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {
        "cpu": cpu[1] if cpu else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "python": platform.python_version(),
        **versions,
    }


def machine_line(machine: dict[str, Any]) -> str:
    """Return the machine and the versions as one line of Markdown."""
    facts = dict(machine)
    cpu, cores, memory = (facts.pop(name) for name in ("cpu", "cores", "memory_bytes"))
    system = f"Linux {facts.pop('kernel').split('-')[0]}"
    versions = [f"{name} {version}" for name, version in facts.items()]
    return ", ".join([cpu, f"{cores} cores, {memory / 1e9:,.0f} GB", system, *versions])


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table, all columns but the first aligned right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return (
        text.replace("| --- |", "|---|").replace(" ---: |", "---:|").replace("|  |", "| |") + "\n"
    )


def read_json(path: Path) -> dict[str, Any]:
    """Return an earlier report, empty when there is none."""
    return json.loads(path.read_text()) if path.exists() else {}


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write or replace a report, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(document, indent=2) + "\n")
    os.replace(temporary, path)


def mergeable(path: Path, parameters: dict[str, Any], *, fresh: bool) -> dict[str, Any]:
    """Return the runs of an earlier report by key, to which more of the same set may be added."""
    earlier = {} if fresh else read_json(path)
    if earlier and earlier["parameters"] != parameters:
        raise click.ClickException(
            f"{path}: holds results of {earlier['parameters']}, and these are of {parameters}; "
            "use --fresh to drop them, or another --out"
        )
    return earlier.get("runs", {})


def best_and_median(values: Iterable[float | None]) -> tuple[float, float] | None:
    """Return both of the values that there are, None for none."""
    known = sorted(value for value in values if value is not None)
    if not known:
        return None
    middle = len(known) // 2
    return known[-1], known[middle] if len(known) % 2 else sum(known[middle - 1 : middle + 1]) / 2


def marked_pages(root: Path = ROOT) -> list[Path]:
    """Return the Markdown pages of the project, or of a copy, that have markers for tables."""
    pages = [page for part in (".", "docs", "benchmarks") for page in (root / part).glob("*.md")]
    return sorted(page for page in pages if MARKED.search(page.read_text()))


def fill(page: Path, results: Path) -> list[str]:
    """Put tables between the markers of a page; return the markers' names.

    Between ``<!-- benchmarks:NAME -->`` and ``<!-- /benchmarks -->`` comes ``NAME.md``; with
    ``NAME#HEADING`` its part under the heading of that name, its spaces written as ``-``. The line
    with the machine and the versions follows.
    """
    text = page.read_text()

    def marked(match: re.Match[str]) -> str:
        name, _, heading = match[2].partition("#")
        if not (results / f"{name}.md").exists():
            click.echo(f"note: {name} has no results; its table stays as it is", err=True)
            return match[0]
        markdown = (results / f"{name}.md").read_text()
        if heading:
            markdown = section(markdown, heading, name)
        line = machine_line(read_json(results / f"{name}.json")["machine"])
        return f"{match[1]}{markdown.strip()}\n\n{line}\n{match[3]}"

    filled = MARKED.sub(marked, text)
    if filled != text:
        temporary = page.with_suffix(".tmp")
        temporary.write_text(filled)
        os.replace(temporary, page)
    return [match[2] for match in MARKED.finditer(text)]


def section(markdown: str, heading: str, name: str) -> str:
    """Return what is under one of the ``####`` headings."""
    parts = re.split(r"^#### (.*)\n", markdown, flags=re.MULTILINE)
    titles = [title.replace(" ", "-") for title in parts[1::2]]
    sections = dict(zip(titles, parts[2::2], strict=True))
    if heading not in sections:
        raise click.ClickException(f"{name}.md: no heading {heading!r}; there are {[*sections]}")
    return sections[heading]
