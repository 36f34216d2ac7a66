"""The README: what it shows runs, and it shows all there is."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numerai_sequence
from numerai_sequence.cli import main
from numerai_sequence.synthetic import write_parquet

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_the_first_example_runs(tmp_path):
    example, *_ = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert "model.fit(NumeraiSequence(shards, batch_size=1000), workers=4)" in example
    write_parquet(tmp_path / "train.parquet", rows=5000, features=30)
    result = subprocess.run(
        [sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert "5,000 rows x 30 features (packed), 41 targets, 16 eras, 16 shards" in result.stdout
    assert "5/5" in result.stdout


def test_every_public_name_and_command_is_shown():
    for name in set(numerai_sequence.__all__) - {"__version__"}:
        assert name in README, name
    for name in main.commands:
        assert f"numerai-sequence {name}" in README, name


def test_all_public_names_are_there():
    for name in numerai_sequence.__all__:
        assert getattr(numerai_sequence, name) is not None
