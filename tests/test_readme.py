"""The README: what it shows runs, and it shows all there is."""

from __future__ import annotations

import importlib.util
import os
import pickle
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from networks import keras
from numerai_tools.submissions import validate_submission_numerai
from readme import EXAMPLES, INLINE, PLAIN, README, SHELL, example

import numerai_sequence
from numerai_sequence import NumeraiSequence
from numerai_sequence.cli import main
from numerai_sequence.synthetic import write_parquet, write_version

TESTS = Path(__file__).parent
ROOT = TESTS.parent


def run_python(code, folder, **environment):
    """Run code in a process of its own, and return what it prints."""
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.slow
def test_the_whole_round_runs_and_the_next_week(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_version(tmp_path / "v5.3", rows=3000, features=40, min_eras=90)
    names = {}
    code = example("half = neutralize").replace("seeds=2", "seeds=2, purge=4, progress=False")
    exec(compile(code, "README.md", "exec"), names)
    submission = pd.read_csv("predictions.csv", index_col="id")
    live = pd.read_parquet("v5.3/live.parquet")
    predicted = pickle.loads(Path("predict.pkl").read_bytes())(live)
    found = submission["prediction"].to_numpy(np.float32)
    np.testing.assert_array_equal(found, predicted.loc[submission.index, "prediction"])
    table = numerai_sequence.score(
        names["models"], names["shards"], target="target_ender_60", progress=False
    )
    assert table.shape == (6, 2)
    write_version(tmp_path / "v5.3", rows=3000, features=40, min_eras=90, week=1)
    exec(compile(example('"week/"'), "README.md", "exec"), names)
    run = numerai_sequence.read_run("week/cyrusd_20-seed-1")
    assert run.train[-1] == "0087"
    assert len(run.history["loss"]) == 1


@pytest.mark.slow
def test_the_whole_round_runs_in_a_shell(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_version(tmp_path / "v5.3", rows=3000, features=40, min_eras=90)
    [block] = [block for block in SHELL if "half.parquet" in block]
    lines = block.replace("0575-", "0073-").replace(" --out runs/", " --purge 4 --out runs/")
    for line in lines.splitlines():
        done = CliRunner().invoke(main, shlex.split(line)[1:])
        assert done.exit_code == 0, done.output
    half = pd.read_parquet("half.parquet")
    with numerai_sequence.open_shards("shards") as shards:
        how = {"eras": "0073-", "with_era": True, "progress": False}
        frame = numerai_sequence.predict("runs", shards, **how)
        blend = numerai_sequence.ensemble(frame)
        how = {"features": "serenity", "proportion": 0.5, "progress": False}
        neutral = numerai_sequence.neutralize(blend, shards, **how)
        expected = numerai_sequence.ensemble(neutral, eras=frame["era"])
    assert len(half) == len(expected)
    np.testing.assert_array_equal(half.loc[expected.index, "prediction"], expected["prediction"])
    live = pd.read_parquet("v5.3/live.parquet")
    predicted = pickle.loads(Path("predict.pkl").read_bytes())(live)
    assert 0 < predicted["prediction"].min() < predicted["prediction"].max() < 1


@pytest.mark.slow
def test_the_first_example_runs(tmp_path):
    code = example("print(shards)")
    assert code == EXAMPLES[0]
    assert "model.fit(NumeraiSequence(shards, batch_size=1000), workers=4)" in code
    write_parquet(tmp_path / "train.parquet", rows=5000, features=30)
    shown = run_python(code, tmp_path)
    assert "5,000 rows x 30 features (packed), 41 targets, 16 eras, 16 shards" in shown
    assert "5/5" in shown


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
    names = "keras", "shards", "model", "training", "validation", "scores"
    known = {**globals(), **locals()}
    return folder, {
        **{name: known[name] for name in names},
        "NumeraiSequence": NumeraiSequence,
        "EraScores": numerai_sequence.EraScores,
    }


MODELLING = ["for split in walk", "PearsonLoss()", "workers=4))"]
SLOW = ["class Boost", "csv=", "import keras_tuner"]


@pytest.mark.parametrize(
    "words", [*MODELLING, *(pytest.param(words, marks=pytest.mark.slow) for words in SLOW)]
)
def test_the_modelling_examples_run(modelling, words, monkeypatch):
    folder, names = modelling
    monkeypatch.chdir(folder)
    exec(compile(example(words), "README.md", "exec"), dict(names))


PRELUDE = """
import keras
from numerai_sequence import NumeraiSequence, open_shards
shards = open_shards("shards")
model = keras.Sequential([keras.layers.Input((30,)), keras.layers.Dense(1)])
model.compile("sgd", "mse")
training = NumeraiSequence(shards)
"""


@pytest.mark.slow
def test_the_example_of_resume_runs_and_is_done_when_run_again(modelling, forked):
    folder, _ = modelling
    code = f"import tensorflow as tf{PRELUDE}{example('enable_op_determinism')}"
    for epochs in (10, 0):
        done = forked(code, cwd=folder)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("Epoch ") == epochs
    assert list((folder / "state").iterdir())


@pytest.mark.slow
def test_the_example_of_ranks_runs(modelling):
    folder, _ = modelling
    code = PRELUDE + "import jax\n" + example("jax.process_index")
    code += "print(rank, ranks, len(training), model.fit(training).epoch)"
    assert run_python(code, folder, KERAS_BACKEND="jax").splitlines()[-1] == "0 1 2 [0]"


def test_a_round_gives_what_numerai_accepts(modelling, monkeypatch):
    """Its lines but for those that need Numerai's server."""
    block = example("upload_predictions")
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


def test_the_examples_of_unpack_run(modelling, monkeypatch):
    folder, names = modelling
    monkeypatch.chdir(folder)
    names = dict(names)
    exec(compile(example('core.save("model.keras")'), "README.md", "exec"), names)
    assert keras.models.load_model("model.keras").predict(np.zeros((2, 30))).shape == (2, 1)
    block = example("resident=True").replace("0001-0574", "0001-0012").replace("0591", "0021")
    exec(compile(block, "README.md", "exec"), names)
    assert "val_corr_mean" in names["model"].history.history


def test_the_example_of_other_inputs_runs(modelling, monkeypatch):
    folder, names = modelling
    monkeypatch.chdir(folder)
    ids = pd.read_parquet(folder / "train.parquet", columns=[]).index
    models = pd.DataFrame(0.5, ids, ["v53_lgbm_ender60", "v53_lgbm_ender20"])
    models.to_parquet(folder / "validation_benchmark_models.parquet")
    names = dict(names)
    exec(compile(example("benchmarks = ("), "README.md", "exec"), names)
    names["model"].compile("adam", "mse")
    names["model"].fit(names["training"], verbose=0)


def test_every_example_is_run_by_a_test():
    sources = "".join(path.read_text(encoding="utf-8") for path in TESTS.glob("test_*.py"))
    run = {*MODELLING, *SLOW, *re.findall(r"""\bexample\(["'](.+?)["']\)""", sources)}
    for code in EXAMPLES:
        assert [words for words in run if words in code], f"no test runs:\n{code}"


def test_the_notebook_runs(tmp_path, monkeypatch):
    """Its lines but for those of a notebook, and those that need Numerai's server."""
    block = example("%pip")
    lines = [line for line in block.splitlines() if not re.search("%pip|numerapi|napi", line)]
    assert sum(map(bool, block.splitlines())) < 25
    files = {"train": (40, 1), "validation": (20, 41), "live": (1, 61)}
    for name, (eras, first) in files.items():
        options = {"rows": 30 * eras, "features": 30, "min_eras": eras, "first_era": first}
        write_parquet(tmp_path / f"{name}.parquet", data_type=name, **options)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec("\n".join(lines), names)
    assert names["shards"].rows == 1800
    assert list(names["scores"].table.index) == [f"{era:04d}" for era in range(49, 61)]
    assert len(names["training"].eras) == 32
    assert names["shards"].target_alias == ("target_ender_60",)
    assert list(names["live"]) == ["prediction"]
    assert len(names["live"]) == 30


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


def command_lines():
    """What README gives the command: in blocks line by line, and in the text."""
    lines = [line for block in PLAIN + SHELL for line in block.splitlines()]
    for line in [part for code in lines + INLINE for part in code.split("&&")]:
        if re.match(r"\s*(\S*/)?numerai-sequence\b", line):
            yield shlex.split(line)[1:]


def test_every_command_line_is_one_that_the_command_takes():
    lines = list(command_lines())
    for name, *arguments in filter(None, lines):
        command = main.commands[name]
        if arguments or name == "demo":  # the others are names of commands, in the text
            command.make_context(name, arguments)
    assert {name for name, *_ in filter(None, lines)} == set(main.commands)
    assert sum(len(line) > 1 for line in lines) >= 10


@pytest.mark.parametrize("name", main.commands)
def test_every_option_is_in_the_table_with_its_default(name):
    [row] = re.findall(rf"^\| `{name}\b.*$", README, re.MULTILINE)
    shown = dict(re.findall(r"(--[a-z-]+)(?: ([^`]+))?`", row))
    options = {
        name: option
        for option in main.commands[name].params
        if option.param_type_name == "option"
        for name in (option.opts[0], *option.secondary_opts)
    }
    assert shown.keys() == options.keys()
    for option, value in shown.items():
        default = options[option].to_info_dict()["default"]
        default = default[0] if isinstance(default, tuple) and default else default
        if value and value == value.lower():
            assert str(default) == value, option
        else:  # a flag, or a word in capitals for what has none
            assert not default, option


SHELL_LINES = [part.strip() for block in SHELL for part in re.split(r"&&|\n", block) if part]


@pytest.mark.parametrize("line", SHELL_LINES)
def test_every_shell_line_names_what_is_there(line):
    """Those of the command are parsed above; CI runs the tests, lint and types."""
    words = [word for word in shlex.split(line, comments=True) if not re.match(r"[A-Z_]+=", word)]
    program, *rest = words
    if program.endswith(("python", "python3")) and rest[0] == "-m":
        assert importlib.util.find_spec(rest[1]), line
    elif program.endswith("python"):
        shown = subprocess.run(
            [sys.executable, ROOT / rest[0], "--help"], capture_output=True, text=True
        ).stdout
        for word in rest:
            assert not word.startswith("--") or f"{word} " in shown, line
    else:
        assert Path(program).name in ("pip", "numerai-sequence", "git", "run"), line
    for word in rest:
        assert not word.endswith(".py") or (ROOT / word).exists(), line
