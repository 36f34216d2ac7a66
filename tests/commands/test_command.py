"""The command, run as a user does: in a process of its own."""

from __future__ import annotations

import json
import pickle
import re
import shlex
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from networks import keras
from numerai_tables import write_features_json, write_source

from numerai_sequence import open_shards, predict, score, write_shards
from numerai_sequence.commands.main import COMMANDS, main
from numerai_sequence.synthetic import write_parquet


def run(*arguments):
    command = [sys.executable, "-m", "numerai_sequence", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture(scope="session")
def run_keras(forked):
    """The same for commands that need Keras: the process is forked from one that has loaded it."""
    return lambda *arguments: forked(module="numerai_sequence", arguments=arguments)


def run_here(*arguments):
    """The same in this process, which has loaded Keras already."""
    result = CliRunner().invoke(main, [*map(str, arguments)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return subprocess.CompletedProcess(arguments, result.exit_code, result.stdout, result.stderr)


def assert_one_line_error(result, *words):
    assert result.returncode == 1
    assert result.stdout == ""
    [line] = result.stderr.splitlines()
    assert line.startswith("Error: ")
    for word in words:
        assert word in line


def test_shard_writes_a_set_with_a_progress_bar_in_rows(source, tmp_path):
    out = tmp_path / "set"
    result = run("shard", source, "--out", out, "--num-shards", 3, "--encoding", "int8")
    assert result.returncode == 0, result.stderr
    assert re.search(r"reading train.parquet: 100%.*1\.04k/1\.04k.*row/s", result.stderr)
    assert "1,037" in result.stdout
    with open_shards(out) as shards:
        assert (len(shards), shards.encoding, shards.rows) == (3, "int8", 1037)


def test_shard_takes_several_sources_and_options(source, tmp_path):
    second = write_source(tmp_path / "b.parquet", first_row=5000, rows=63, data_type="validation")
    out = tmp_path / "set"
    options = ["--mix-eras", 1, "--seed", 7, "--target", "target_b", "--feature", "feature_002"]
    result = run("shard", source, second, "--out", out, "--quiet", *options)
    assert (result.returncode, result.stderr) == (0, "")
    with open_shards(out) as shards:
        assert shards.rows == 1100
        assert shards.data_types == ["train", "validation"]
        assert (shards.targets, shards.features) == (("target_b",), ("feature_002",))
        assert (shards.manifest.options.mix_eras, shards.manifest.options.seed) == (1, 7)


def test_info_shows_what_is_in_a_set(shards):
    result = run("info", shards.folder)
    assert result.returncode == 0
    shown = dict(line.split(None, 1) for line in result.stdout.splitlines() if "data" not in line)
    assert shown["rows"] == "1,037"
    assert shown["features"] == "14, packed"
    assert shown["targets"] == "2: target, target_b"
    assert shown["eras"] == "23: 0001 to 0023"
    assert shown["shards"].startswith("16 files, 16 record batches, ")

    assert "feature sets none" in result.stdout
    assert "missing" not in result.stdout


SETS = {"small": ["feature_004", "feature_001"], "rain": ["feature_001", "feature_x"]}


def test_shard_writes_a_feature_set_by_its_name(source, tmp_path):
    named = write_features_json(tmp_path / "v5.json", **SETS)
    out = tmp_path / "set"
    options = ["--features-json", named, "--features", "small", "--quiet"]
    result = run("shard", source, "--out", out, *options)
    assert (result.returncode, result.stderr) == (0, "")
    with open_shards(out) as shards:
        assert shards.features == tuple(SETS["small"])
    assert_one_line_error(run("shard", source, "--out", out, *options[:3], "smal"), "mean small")


def test_features_are_given_in_one_way(source, tmp_path):
    write_features_json(tmp_path / "features.json", **SETS)
    options = ["--features", "small", "--feature", "feature_001"]
    result = run("shard", source, "--out", tmp_path / "set", *options)
    assert result.returncode == 2
    assert "Usage: " in result.stderr
    assert "--feature, --features: found both" in result.stderr
    assert not (tmp_path / "set").exists()


def test_info_shows_feature_sets_and_missing_targets(tmp_path):
    source = write_source(tmp_path / "train.parquet", rows=8000, missing_target=True)
    write_features_json(tmp_path / "features.json", **SETS)
    assert run("shard", source, "--out", tmp_path / "set", "--quiet").returncode == 0
    lines = run("info", tmp_path / "set").stdout.splitlines()
    assert "feature sets small 2, rain 1 of 2" in lines
    assert "missing      rows without target 1,143, target_b 1,143" in lines


def test_verify_accepts_a_whole_set_and_names_a_damaged_file(shards):
    result = run("verify", shards.folder)
    assert result.returncode == 0
    assert "16 shard files match their checksums" in result.stdout
    assert "verifying: 100%" in result.stderr
    data = bytearray(shards.paths[5].read_bytes())
    data[len(data) // 2] ^= 1
    shards.paths[5].write_bytes(data)
    assert_one_line_error(run("verify", shards.folder, "--quiet"), "shard-05.arrow", "SHA-256")


def test_bad_input_is_one_line_and_exit_code_1(source, shards, tmp_path):
    missing = tmp_path / "nothing.parquet"
    assert_one_line_error(run("shard", missing, "--out", tmp_path / "x"), "nothing.parquet")
    assert_one_line_error(run("info", tmp_path / "x"), "manifest.json", "No such file")
    assert_one_line_error(run("verify", source), "manifest.json")
    wrong = write_source(tmp_path / "wrong.parquet", values="float32", features=12)
    assert_one_line_error(run("shard", wrong, "--out", shards.folder), "overwrite=True")
    assert_one_line_error(
        run("shard", wrong, "--out", tmp_path / "x", "--feature", "feature_01"), "feature_010"
    )


def test_a_wrong_value_is_one_line_too(source, tmp_path):
    result = run("shard", source, "--out", tmp_path / "x", "--num-shards", 20_000)
    assert_one_line_error(result, "num_shards: found 20000, expected at most 10,000")


def test_each_command_is_in_the_table_and_its_first_sentence_is_not_cut():
    assert main.commands.keys() == COMMANDS.keys()
    _, listed = CliRunner().invoke(main, ["--help"]).output.split("Commands:\n")
    assert re.findall(r"^  (\w+) .+\.$", listed, re.MULTILINE) == sorted(COMMANDS)
    assert "..." not in listed


def test_help_explains_every_command_and_option():
    runner = CliRunner()
    assert "Keras" in runner.invoke(main, ["--help"]).output
    for name, command in main.commands.items():
        shown = runner.invoke(main, [name, "--help"]).output
        assert command.help.splitlines()[0] in shown
        [example] = re.findall(rf"^  Example:\n    numerai-sequence {name} (.+)$", shown, re.M)
        command.make_context(name, shlex.split(example))
        for parameter in command.params:
            if parameter.param_type_name == "option":
                assert parameter.opts[0] in shown
                assert parameter.help, f"{name} {parameter.name}"


def test_neither_help_nor_sharding_loads_tensorflow(source, tmp_path):
    code = f"""
import sys
from numerai_sequence.commands.main import main
main(["shard", {str(source)!r}, "--out", {str(tmp_path / "s")!r}, "--quiet"], standalone_mode=False)
assert not {{"tensorflow", "keras", "jax"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.slow
@pytest.mark.parametrize("train", [False, True], ids=["made-up", "file"])
def test_demo_trains_and_shows_scores_and_cost(train, tmp_path, run_keras):
    options = ["--rows", 4000, "--features", 30, "--epochs", 3, "--out", tmp_path / "kept"]
    if train:
        options[4:4] = ["--train", write_parquet(tmp_path / "t.parquet", rows=4000, features=30)]
    result = (run_here if train else run_keras)("demo", *options)
    assert result.returncode == 0, result.stderr
    assert "Epoch 3/3" in result.stdout
    scores = re.findall(r"^ +(00\d\d) +(-?\d\.\d{4})$", result.stdout, re.MULTILINE)
    assert [era for era, _ in scores] == ["0014", "0015", "0016"]
    summary = re.search(r"mean (\S+), std (\S+), Sharpe (\S+)", result.stdout)
    assert float(summary[1]) == pytest.approx(
        sum(float(score) for _, score in scores) / 3, abs=2e-4
    )
    assert re.search(r"rows/s, peak memory [\d,]+ MB", result.stdout)
    assert "purge 8: target_cyrusd_20 is a 20-day target" in result.stdout
    assert "8 eras purged" in result.stdout
    assert f"The files are in {tmp_path / 'kept'}" in result.stdout
    assert (tmp_path / "kept" / "shards" / "manifest.json").exists()
    assert (tmp_path / "kept" / "run" / "model.keras").exists()


@pytest.fixture(scope="module")
def set_and_run(tmp_path_factory, run_keras):
    """A set of two feature sets, and a network trained on one of them by the command."""
    folder = tmp_path_factory.mktemp("trained")
    source = write_parquet(folder / "train.parquet", rows=3000, features=30, min_eras=24)
    names = pq.read_schema(source).names[2:32]
    write_features_json(folder / "features.json", small=names[20:4:-2], all=names)
    write_shards(source, folder / "set", progress=False).close()
    result = run_keras(
        *("train", folder / "set", "--out", folder / "run", "--features", "small", "--quiet"),
        *("--epochs", 4, "--layers", "16,8", "--batch-size", 200, "--validation", "0020-"),
        *("--purge", 8),
    )
    assert result.returncode == 0, result.stderr
    return folder, names, result


def test_train_says_what_it_did_and_leaves_a_run(set_and_run):
    folder, names, result = set_and_run
    assert "purge 8: as asked for" in result.stdout
    assert "rows of 11 eras, 0001 to 0011" in result.stdout
    assert "rows of 5 eras, 0020 to 0024, 8 eras purged between them" in result.stdout
    assert re.search(r"mean -?\d\.\d+, std .* Sharpe .* max drawdown", result.stdout)
    assert f"Files in {folder / 'run'}: model.keras, run.json" in result.stdout
    files = sorted(path.name for path in (folder / "run").iterdir())
    assert files == ["model.keras", "run.json", "scores.csv", "scores.png"]
    written = json.loads((folder / "run" / "run.json").read_text())
    assert written["features"] == names[20:4:-2]
    assert written["train"] == [f"{era:04d}" for era in range(1, 12)]
    assert written["validation"] == [f"{era:04d}" for era in range(20, 25)]
    assert len(written["history"]["val_corr_mean"]) in (3, 4)


def test_predict_takes_the_run_with_its_features_and_live_rows(set_and_run, tmp_path, run_keras):
    folder, names, _ = set_and_run
    live = write_parquet(
        tmp_path / "live.parquet", rows=400, features=30, first_era=30, data_type="live"
    )
    frame = pd.read_parquet(live)
    model = keras.models.load_model(str(folder / "run" / "model.keras"), compile=False)
    x = frame[names[20:4:-2]].to_numpy(np.float32) / 4
    expected = model.predict(x, verbose=0)[:, 0]
    for suffix, how in (("csv", run_keras), ("parquet", run_here)):
        out = tmp_path / f"predictions.{suffix}"
        result = how("predict", folder / "run", live, "--out", out, "--quiet")
        assert result.returncode == 0, result.stderr
        assert "400 rows" in result.stdout
        read = pd.read_csv(out).set_index("id") if suffix == "csv" else pd.read_parquet(out)
        assert read.index.tolist() == frame.index.tolist()
        np.testing.assert_allclose(read["prediction"], expected, atol=1e-6)
    assert pd.read_parquet(out).attrs["features"] == names[20:4:-2]
    saved = json.loads((tmp_path / "predictions.features.json").read_text())
    assert saved == names[20:4:-2]


def test_predict_ranks_chosen_eras_of_a_set(set_and_run, tmp_path):
    folder, _, _ = set_and_run
    out = tmp_path / "p.parquet"
    result = run_here(
        "predict", folder / "run", folder / "set", "--out", out, "--eras", "0020-", "--rank"
    )
    assert result.returncode == 0, result.stderr
    assert "predicting: 100%" in result.stderr
    frame = pd.read_parquet(out)
    eras = pd.read_parquet(folder / "train.parquet").loc[frame.index, "era"]
    assert set(eras) == {f"{era:04d}" for era in range(20, 25)}
    for era, ranks in frame["prediction"].groupby(eras):
        expected = (np.arange(len(ranks)) + 0.5) / len(ranks)
        np.testing.assert_allclose(np.sort(ranks), expected, atol=1e-6, err_msg=era)


def test_predict_with_a_model_alone_knows_its_features_or_takes_a_set_by_name(
    set_and_run, tmp_path
):
    folder, names, _ = set_and_run
    alone, bare = tmp_path / "alone.keras", tmp_path / "bare.keras"
    alone.write_bytes((folder / "run" / "model.keras").read_bytes())
    options = folder / "set", "--out", tmp_path / "p.csv", "--quiet"
    assert run_here("predict", alone, *options).returncode == 0
    assert json.loads((tmp_path / "p.features.json").read_text()) == names[20:4:-2]
    keras.models.clone_model(keras.models.load_model(str(alone), compile=False)).save(str(bare))
    result = run_here("predict", bare, *options)
    assert_one_line_error(result, "found 30 features, expected 8")
    result = run_here("predict", bare, *options, "--features", "small")
    assert result.returncode == 0, result.stderr


def test_predict_names_the_option_that_makes_predictions_a_submission(set_and_run, tmp_path):
    folder, _, _ = set_and_run
    model = keras.models.load_model(str(folder / "run" / "model.keras"), compile=False)
    kernel, bias = model.layers[-1].get_weights()
    model.layers[-1].set_weights([kernel, bias + 5])
    model.save(str(tmp_path / "high.keras"))
    command = "predict", tmp_path / "high.keras", folder / "set", "--out", tmp_path / "p.csv"
    assert_one_line_error(run_here(*command, "--quiet"), "outside 0 to 1", "--rank")
    assert not (tmp_path / "p.csv").exists()
    assert run_here(*command, "--quiet", "--rank").returncode == 0


def test_export_writes_a_function_that_gives_the_same_predictions(set_and_run, tmp_path):
    folder, _, _ = set_and_run
    result = run_here("export", folder / "run", "--out", tmp_path / "predict.pkl")
    assert result.returncode == 0, result.stderr
    needs = "for tf_keras" if keras.__version__.startswith("2.") else "for Keras 3.10 or newer and"
    assert result.stdout.splitlines()[1].startswith(f"{tmp_path / 'predict.pkl'}: {needs}")
    frame = pd.read_parquet(folder / "train.parquet")
    frame = frame[frame["era"] == "0021"]
    found = pickle.loads((tmp_path / "predict.pkl").read_bytes())(frame)
    expected = predict(
        keras.models.load_model(str(folder / "run" / "model.keras"), compile=False),
        folder / "set",
        features="small",
        eras="0021",
        ranked=True,
        progress=False,
    )
    assert found.index.tolist() == frame.index.tolist()
    np.testing.assert_allclose(found.loc[expected.index], expected, atol=1e-6)


WRONG_USE = [
    (["train", "SET", "--out", "r", "--validation", "1.5"], "expected a share between 0 and 1"),
    (["train", "SET", "--out", "r", "--memory-budget", "much"], "a size such as '512MB'"),
    (["train", "SET", "--out", "r", "--layers", "32,x"], "expected numbers such as 256,64"),
    (["train", "SET", "--out", "r", "--layers", "0"], "expected numbers such as 256,64"),
    (["train", "SET", "--out", "r", "--window", "3"], "--window: found it without --step"),
    (["train", "SET", "--out", "r", "--monitor", "val_loss"], "val_corr_mean"),
    (["train", "SET", "--validation", "1"], "expected -1: for the newest 1 eras, or 0001 for"),
    (["train", "SET", "--validation", "0"], "found 0, expected a share between 0 and 1"),
    (["train", "SET", "--validation", "20"], "expected -20: for the newest 20 eras, or 0020"),
    (["train", "SET", "--target", "target", "--target", "target"], "found 'target' twice"),
    (
        ["predict", "RUN", "SET", "--out", "p.xls"],
        "expected a file name that ends in .csv or .parquet",
    ),
    (["predict", "RUN", "SET", "--out", "nowhere/p.csv"], "in an existing folder"),
    (["export", "RUN", "--out", "p.pickle"], "expected a file name that ends in .pkl"),
]


@pytest.mark.parametrize(
    ("arguments", "message"), WRONG_USE, ids=[" ".join(a) for a, _ in WRONG_USE]
)
def test_wrong_use_is_refused_before_the_work(set_and_run, arguments, message, monkeypatch):
    folder, _, _ = set_and_run
    monkeypatch.chdir(folder)
    names = {"SET": "set", "RUN": "run"}
    result = run_here(*(names.get(argument, argument) for argument in arguments))
    assert result.returncode == 2
    assert message in " ".join(result.stderr.split())


def test_commands_about_models_refuse_what_is_none(set_and_run, tmp_path):
    folder, _, _ = set_and_run
    (tmp_path / "broken.keras").write_text("no model")
    result = run_here("predict", tmp_path / "broken.keras", folder / "set", "--out", "p.csv")
    assert_one_line_error(result, "broken.keras: cannot be loaded")
    result = run_here("predict", tmp_path / "none.keras", folder / "set", "--out", "p.csv")
    assert_one_line_error(result, "none.keras: no such file")
    result = run_here("export", tmp_path, "--out", "p.pkl")
    assert_one_line_error(result, "run.json", "numerai-sequence train")
    result = run_here("train", folder / "set", "--out", folder / "run", "--epochs", 5)
    assert_one_line_error(result, "a run of another set, or with other options", "--overwrite")
    assert "--epochs 4, expected 5; " in result.stderr
    assert "--purge 8, expected 16" in result.stderr
    result = run_here("train", folder / "set", "--out", tmp_path / "r", "--features", "tiny")
    assert_one_line_error(result, "unknown feature set 'tiny'")


def test_score_prints_summaries_of_several_files_side_by_side(tmp_path):
    source = write_parquet(tmp_path / "train.parquet", rows=1200, features=9, targets=1)
    write_shards(source, tmp_path / "set", progress=False).close()
    data = pd.read_parquet(source)
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        noisy = data["target"].astype(float) + rng.normal(size=len(data))
        noisy.to_frame("prediction").to_parquet(tmp_path / f"{name}.parquet")
    files = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    options = ["--eras", "0001-0010", "--neutral", "all", "--exposure", "--quiet"]
    written = ["--csv", tmp_path / "s.csv", "--png", tmp_path / "s.png"]
    result = run_here("score", *files, tmp_path / "set", *options, *written)
    assert (result.returncode, result.stderr) == (0, "")
    table = score(dict(zip("ab", files, strict=True)), tmp_path / "set", eras="0001-0010")
    first, _, _, *lines = result.stdout.splitlines()
    assert first == "10 eras, 0001 to 0010"
    shown = {tuple(line.split()[:2]): line.split()[2] for line in lines}
    assert list(shown) == [(m, s) for m in "ab" for s in ("corr", "exposure", "fnc")]
    assert shown["b", "corr"] == f"{table['b']['corr'].mean():.4f}"
    assert len((tmp_path / "s.csv").read_text().splitlines()) == 11
    assert (tmp_path / "s.png").read_bytes()[:4] == b"\x89PNG"
    alone = run_here("score", files[0], source, "--quiet")
    assert alone.stdout.splitlines()[0] == "16 eras, 0001 to 0016"
    for option, path in ("--csv", "s.txt"), ("--png", "no/s.png"):
        refused = run_here("score", files[0], source, option, tmp_path / path)
        assert refused.returncode == 2
        assert f"{option}: found" in refused.stderr
    assert_one_line_error(
        run_here("score", tmp_path / "c.parquet", tmp_path / "set", "--quiet"), "no such file"
    )
