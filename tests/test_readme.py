"""The README: what it shows runs, and it shows all there is."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from networks import keras
from numerai_tools.submissions import validate_submission_numerai

import numerai_sequence
from numerai_sequence import NumeraiSequence
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


@pytest.fixture(scope="module")
def modelling(tmp_path_factory):
    """What the later examples begin with: a set of many small eras, and a model."""
    folder = tmp_path_factory.mktemp("readme")
    write_parquet(folder / "train.parquet", rows=2500, features=30, min_eras=170)
    shards = numerai_sequence.write_shards(
        folder / "train.parquet", folder / "shards", progress=False
    )
    layers = [keras.Input((30,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(1)]
    model = keras.Sequential(layers)
    model.compile("adam", "mse")
    split = numerai_sequence.split_eras(shards.eras, validation=0.2, purge=8)
    training, validation = (NumeraiSequence(shards, eras=eras) for eras in split)
    scores = numerai_sequence.EraScores(training)
    names = "keras", "shards", "model", "training", "validation", "scores", "NumeraiSequence"
    known = {**globals(), **locals()}
    return folder, {name: known[name] for name in names}


EXAMPLES = {
    re.search(word, block)[0]: block
    for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL)[1:]
    for word in ("walk_forward", "Boost", "PearsonLoss", "EraScores", "use_multiprocessing|workers")
    if re.search(word, block) and "import ray" not in block  # test_ray.py has those
}


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)
def test_the_modelling_examples_run(modelling, example, monkeypatch):
    folder, names = modelling
    monkeypatch.chdir(folder)
    exec(compile(example, "README.md", "exec"), dict(names))


def test_there_is_an_example_of_everything():
    assert set(EXAMPLES) == {"walk_forward", "Boost", "PearsonLoss", "EraScores", "workers"}


def test_weekly_round_gives_what_numerai_accepts(modelling, monkeypatch):
    """Its lines but for those that need Numerai's server."""
    [block] = [b for b in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "napi" in b]
    assert len(block.splitlines()) <= 10
    folder, names = modelling
    monkeypatch.chdir(folder)
    live = write_parquet(
        folder / "live.parquet", rows=300, features=30, first_era=400, data_type="live"
    )
    (folder / "run").mkdir()
    names["model"].save("run/model.keras")
    lines = [line for line in block.splitlines() if "napi" not in line and "numerapi" not in line]
    exec("\n".join(lines), {"features": names["training"].features})
    submission = pd.read_csv(folder / "predictions.csv")
    ids = pd.read_parquet(live).index.to_series()
    accepted = validate_submission_numerai(ids, submission)
    assert accepted[:2] == ("id", "prediction")
    assert len(accepted[2]) == 300
    assert accepted[3] == []


def test_every_public_name_and_command_is_shown():
    for name in set(numerai_sequence.__all__) - {"__version__"}:
        assert name in README, name
    for name in main.commands:
        assert f"numerai-sequence {name}" in README, name


def test_all_public_names_are_there():
    for name in numerai_sequence.__all__:
        assert getattr(numerai_sequence, name) is not None


def test_it_opens_with_the_memory_that_was_measured():
    opening, _ = README.split("```python", 1)
    assert "97 GB as float32" in opening
    assert "benchmarks/results/peak_rss.png" in opening
    assert README.count("<!-- benchmarks:peak_rss -->") == opening.count("benchmarks:peak_rss") == 1
