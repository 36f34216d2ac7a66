"""The reference: it names all that is public, and says what the docstrings say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import click

import numerai_sequence
from numerai_sequence.commands.main import main

ROOT = Path(__file__).parents[2]
REFERENCE = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")


def test_it_is_what_the_docstrings_say():
    command = [sys.executable, ROOT / "docs" / "reference.py", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-500:]


def test_it_has_every_public_name_and_every_command():
    headings = set(re.findall(r"^### (.+)$", REFERENCE, re.MULTILINE))
    commands = {f"numerai-sequence {name}" for name in main.list_commands(click.Context(main))}
    assert headings == (set(numerai_sequence.__all__) - {"__version__"}) | commands


def test_it_has_arguments_their_errors_and_options():
    _, write = REFERENCE.split("\n### write_shards\n")
    write, _ = write.split("\n### sync_shards\n")
    assert "num_shards=16" in write
    assert '- `encoding : {"packed", "int8"}`: ' in write
    assert "- `OutputExistsError`: " in write
    _, shard = REFERENCE.split("\n### numerai-sequence shard\n")
    assert "| `--num-shards" in shard.split("\n### ")[0]
