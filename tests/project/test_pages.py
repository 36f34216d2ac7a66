"""Pages: their examples run, their links lead somewhere, and their commands are taken."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import matplotlib
import numerapi_stand_in
import pytest
from documentation_pages import BLOCKS, PAGES, ROOT, anchors, blocks, links, prose, text_of

import numerai_sequence
from numerai_sequence.commands.main import main
from numerai_sequence.synthetic import write_version

README = ROOT / "README.md"
COMMANDS = {name: main.get_command(click.Context(main), name) for name in main.list_commands(None)}
RUN = [page for page in PAGES if any(block.is_run for block in blocks(page))]
by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN, ids=lambda page: page.name)
def test_the_examples_of_a_page_run_in_order(page, tmp_path, monkeypatch):
    matplotlib.use("Agg")
    numerapi_stand_in.install(monkeypatch)
    monkeypatch.chdir(tmp_path)
    write_version("v5.3", rows=6000, features=40, min_eras=170)
    names = {"__name__": "__main__"}
    for block in blocks(page):
        if block.is_run:
            exec(compile("\n" * block.line + block.text, str(page), "exec"), names)


def test_each_example_that_pages_do_not_run_is_run_by_a_test():
    tests = "".join(text_of(path) for path in (ROOT / "tests").rglob("test_*.py"))
    words = re.findall(r"""\bexample\(["'](.+?)["']\)""", tests)
    for block in BLOCKS:
        if block.language == "python" and not block.is_run:
            assert any(word in block.text for word in words), f"{block.page}: {block.text}"


@by_page
def test_links_lead_somewhere(page):
    for link in links(page):
        if re.match(r"https?:|mailto:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page}: {link}"
        if anchor:
            assert anchor in anchors(target), f"{page}: {link}"


def test_the_front_page_is_short_and_leads_to_each_page():
    assert len(text_of(README).splitlines()) <= 250
    assert "model.fit(NumeraiSequence(shards, batch_size=1000), workers=4)" in text_of(README)
    reached, new = set(), {README}
    while new:
        reached |= new
        paths = {(page.parent / link.partition("#")[0]).resolve() for page in new
                 for link in links(page) if ":" not in link}  # fmt: skip
        new = {path for path in paths if path.suffix == ".md"} - reached
    assert set(PAGES) <= reached


def test_the_guide_shows_every_public_name_and_command():
    shown = "".join(text_of(page) for page in PAGES if page.name != "reference.md")
    for name in set(numerai_sequence.__all__) - {"__version__"}:
        assert re.search(rf"\b{name}\b", shown), name
    for name in COMMANDS:
        assert f"numerai-sequence {name}" in shown, name


def shell_lines():
    """Each command of the pages' shell blocks, and of code in their text."""
    for page in PAGES:
        lines = [block.text for block in blocks(page) if block.language == "sh"]
        inline = re.findall(r"`([^`\n]+)`", prose(page))
        lines += [code for code in inline if code.startswith("numerai-sequence ")]
        for line in "\n".join(lines).replace("\\\n", " ").splitlines():
            for part in line.split("&&"):
                if part.strip() and not part.strip().startswith("#"):
                    yield pytest.param(part.strip(), id=f"{page.name}: {part.strip()[:50]}")


@pytest.mark.parametrize("line", list(shell_lines()))
def test_a_shell_line_names_what_is_there(line):
    """CI runs the tests, lint and types."""
    words = [word for word in shlex.split(line, comments=True) if not re.match(r"[A-Z_]+=", word)]
    program, *rest = words
    if Path(program).name == "numerai-sequence":
        name, *arguments = rest
        if arguments or name == "demo":  # else it is the name of a command, in the text
            COMMANDS[name].make_context(name, arguments)
    elif Path(program).name in ("python", "python3") and rest[0] == "-m":
        assert importlib.util.find_spec(rest[1]), line
    elif Path(program).name in ("python", "python3"):
        names = [word for word in rest[1:2] if not word.startswith("-")]
        command = [sys.executable, ROOT / rest[0], *names, "--help"]
        shown = subprocess.run(command, capture_output=True, text=True).stdout
        for word in rest:
            assert not word.startswith("--") or re.search(rf"{word}\b", shown), line
    else:
        known = ("pip", "git", "cd", ".ci/run", "ruff", "mypy", "jupyter")
        assert program in known or Path(program).name in known, line
    for word in rest:
        if word.endswith(".py"):
            assert (ROOT / word).exists(), line
