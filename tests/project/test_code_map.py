"""The map of CONTRIBUTING.md: it shows each folder and file that there is, in the data's way."""

from __future__ import annotations

import re

from documentation_pages import ROOT, text_of

import numerai_sequence.commands.main as command
from numerai_sequence.format.encodings import ENCODINGS
from numerai_sequence.ordering.batch_units import BATCH_BY
from numerai_sequence.scoring.score_kinds import SCORES

PAGE = text_of(ROOT / "CONTRIBUTING.md")
PACKAGE = ROOT / "numerai_sequence"
ROOMS = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
_, MAP = PAGE.split("\n## The map\n")
MAP, REST = MAP.split("\n## Add one thing\n")


def test_the_table_has_each_folder_of_the_package_once():
    rows = re.findall(r"^\| `(\w+)/` \|", MAP, re.MULTILINE)
    assert sorted(rows) == sorted(ROOMS)


def test_the_drawing_names_folders_that_are_there():
    drawn = set(re.findall(r"\b([a-z]+)/", MAP.split("```")[1])) - {"numerai_sequence"}
    assert drawn == ROOMS - {"system"}


def test_files_on_the_map_are_there():
    for name in re.findall(r"`([a-z_]+(?:/[a-z_]+)*\.py)`", MAP + REST):
        assert list(PACKAGE.rglob(name)) or (ROOT / name).exists(), name


def test_each_test_folder_has_the_name_of_a_room():
    others = {"campaigns", "helpers", "project"}
    folders = {path.parent.name for path in (ROOT / "tests").glob("*/test_*.py")}
    assert folders - others <= ROOMS


def test_what_can_be_added_is_named_in_a_table():
    for table in (ENCODINGS, BATCH_BY, SCORES, command.COMMANDS):
        assert table
    for name in ("ENCODINGS", "BATCH_BY", "SCORES", "COMMANDS"):
        assert f"`{name}`" in REST
