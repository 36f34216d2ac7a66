"""Report: the pages hold the tables of the results, and new results come between their markers."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture(scope="module")
def report():
    spec = importlib.util.spec_from_file_location("report", BENCHMARKS / "harness" / "report.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def markers(page):
    return re.findall(r"<!-- benchmarks:(\S+) -->", page.read_text(encoding="utf-8"))


def test_pages_with_markers_are_found(report):
    found = {str(page.relative_to(report.ROOT)) for page in report.marked_pages()}
    expected = {"benchmarks/SCALE.md", "docs/performance.md", "docs/reliability.md"}
    assert expected <= found


def test_every_table_is_the_one_of_its_results(report, tmp_path):
    for page in report.marked_pages():
        copy = tmp_path / page.name
        shutil.copyfile(page, copy)
        assert report.fill(copy, report.RESULTS) == markers(page)
        assert copy.read_text(encoding="utf-8") == page.read_text(encoding="utf-8"), page


def test_every_result_is_shown_on_one_page_at_least(report):
    shown = {name for page in report.marked_pages() for name in markers(page)}
    results = {path.stem for path in report.RESULTS.glob("*.json")}
    assert results - {name.partition("#")[0] for name in shown} == {"upload"}  # told in words


def test_the_front_page_rounds_the_figures_of_the_results(report):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = re.findall(r"^\| .+? \| ([\d.]+) GB \| ([\d,]+) \|$", text, re.MULTILINE)
    rows = (report.RESULTS / "peak_rss.md").read_text(encoding="utf-8").splitlines()[2:]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows if row]
    found = [(int(row[1].replace(",", "")), int(row[-1].replace(",", ""))) for row in cells]
    assert shown == [(f"{mega / 1000:.1f}", f"{rate:,.0f}") for mega, rate in
                     ((mega, round(rate, -3)) for mega, rate in found)]  # fmt: skip


def test_new_results_replace_the_table_between_the_markers(report, tmp_path):
    (tmp_path / "speed.md").write_text("#### a b\n\n| new |\n\n#### c\n\n| other |\n")
    machine = {"cpu": "CPU", "cores": 2, "memory_bytes": 4e9, "kernel": "6.1-x", "python": "3.11"}
    (tmp_path / "speed.json").write_text(json.dumps({"machine": machine}))
    (tmp_path / "docs").mkdir()
    page = tmp_path / "docs" / "page.md"
    text = "Before.\n\n<!-- benchmarks:speed#a-b -->\n{}\n<!-- /benchmarks -->\n\nAfter.\n"
    page.write_text(text.format("| old |"))
    (tmp_path / "other.md").write_text("No table.\n")
    assert report.marked_pages(tmp_path) == [page]
    assert report.fill(page, tmp_path) == ["speed#a-b"]
    line = "CPU, 2 cores, 4 GB, Linux 6.1, python 3.11"
    assert page.read_text() == text.format(f"| new |\n\n{line}")
