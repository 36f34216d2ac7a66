"""Archive: what is packed to be given away holds all that its tests and its users need."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = (".ci", "benchmarks", "constraints", "docs", "numerai_sequence", "tests")
FILES = ("CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "MANIFEST.in", "README.md", "ruff.toml")
SETUP = ("setup.cfg", "setup.py")

pytestmark = pytest.mark.slow


def files_of(*folders):
    """The files in some folders of the project, by their paths, without what Python leaves."""
    found = (path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file())
    return {str(path.relative_to(ROOT)) for path in found if "__pycache__" not in path.parts}


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """The source archive, made from a copy of the project."""
    pytest.importorskip("setuptools", reason="from Python 3.12 on no environment has it at first")
    copy, out = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("archive")
    for name in files_of(*FOLDERS) | {*FILES, *SETUP}:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, copy / name)
    run("setup.py", "-q", "sdist", "--dist-dir", str(out), cwd=copy)
    [packed] = out.iterdir()
    return packed


def run(*arguments, cwd):
    done = subprocess.run([sys.executable, *arguments], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_source_archive_holds_the_whole_project(archive):
    with tarfile.open(archive) as packed:
        names = {name.partition("/")[2] for name in packed.getnames() if not is_made(name)}
        folders = {member.name.partition("/")[2] for member in packed if member.isdir()}
    assert names - folders == files_of(*FOLDERS) | {*FILES, *SETUP}


def is_made(name):
    """Whether the packing has made a file."""
    return ".egg-info" in name or name.endswith("PKG-INFO")


def test_a_wheel_of_the_archive_holds_the_whole_package(archive, tmp_path):
    options = ["--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    run("-m", "pip", "wheel", "-q", *options, str(archive), "-w", str(tmp_path), cwd=tmp_path)
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        names = {name for name in packed.namelist() if ".dist-info/" not in name}
        [entries] = [name for name in packed.namelist() if name.endswith("entry_points.txt")]
        assert b"numerai-sequence = numerai_sequence.commands.main:main" in packed.read(entries)
    assert names == files_of("numerai_sequence")
