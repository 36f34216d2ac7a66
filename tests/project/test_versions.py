"""Versions: the page of what works together says what CI tries, and what the pins hold."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from numerai_sequence.feeding import keras_private_names as names

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "compatibility.md").read_text(encoding="utf-8")


def pins(file):
    """The versions that a file of `constraints` holds, by package."""
    lines = (ROOT / "constraints" / f"{file}.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def kerases():
    """The table of what is tried on which Keras: the two other cells, by its name."""
    start = PAGE.index("| Keras | with |")
    rows = PAGE[start : PAGE.index("\n\n", start)].splitlines()[2:]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    return {re.split(r" \(| with|,", name)[0]: others for name, *others in cells}


def test_the_table_of_kerases_is_what_ci_runs():
    run = (ROOT / ".ci" / "run").read_text()
    tried = re.findall(r'^ *start_contract "(.+?)"', run, re.MULTILINE)
    assert sorted(kerases()) == sorted(["the newest Keras on TensorFlow", *tried])


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("Keras 3.13", "colab"),
        ("Keras 3.10", "numerai-py3.12"),
        ("Keras 3.8", "keras-3.8"),
        ("Keras 3.0", "keras-3.0"),
        ("tf_keras 2.16", "keras-3.0"),
    ],
)
def test_the_table_of_kerases_has_the_versions_that_are_installed(name, file):
    pinned = pins(file)
    shown = re.findall(r"(TensorFlow|NumPy|pyarrow) ([\d.]+)", kerases()[name][0])
    for package, version in [tuple(name.split()), *shown]:
        assert pinned[package.lower()].startswith(f"{version}.")


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13"])
def test_the_table_of_images_has_the_versions_that_are_pinned(python):
    pinned = pins(f"numerai-py{python}")
    shown = [pinned[package] for package in ("keras", "tensorflow", "numpy", "pandas")]
    assert f"| Python {python} | {' | '.join(shown)} |" in PAGE


def test_the_page_names_the_kerases_that_an_error_names():
    keras, tf_keras, tensorflow = re.findall(r"\d[\d.]+(?: to [\d.]+\d)?", names._KNOWN)
    assert (
        f"| Keras | {keras}, tf_keras {tf_keras}, or the Keras 2 of TensorFlow {tensorflow} |"
        in PAGE
    )
