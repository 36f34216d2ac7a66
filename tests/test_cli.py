"""The command, run as a user does: in a process of its own."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from click.testing import CliRunner
from tables import write_features_json, write_source

from numerai_sequence import open_shards
from numerai_sequence.cli import main


def run(*arguments):
    command = [sys.executable, "-m", "numerai_sequence", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def assert_one_line_error(result, *words):
    assert result.returncode == 1
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1, result.stderr
    for word in words:
        assert word in result.stderr


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
    assert "--feature and --features: choose one" in result.stderr
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
    assert "16 shard files are as they were written" in result.stdout
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


def test_help_explains_every_command_and_option():
    runner = CliRunner()
    assert "Keras" in runner.invoke(main, ["--help"]).output
    for name, command in main.commands.items():
        shown = runner.invoke(main, [name, "--help"]).output
        assert command.help.splitlines()[0] in shown
        for parameter in command.params:
            if parameter.param_type_name == "option":
                assert parameter.opts[0] in shown
                assert parameter.help, f"{name} {parameter.name}"


def test_neither_help_nor_sharding_loads_tensorflow(source, tmp_path):
    code = f"""
import sys
from numerai_sequence.cli import main
main(["shard", {str(source)!r}, "--out", {str(tmp_path / "s")!r}, "--quiet"], standalone_mode=False)
assert not {{"tensorflow", "keras", "jax"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize("train", [False, True], ids=["made-up", "file"])
def test_demo_trains_and_shows_scores_and_cost(train, tmp_path):
    options = ["--rows", 4000, "--features", 30, "--epochs", 3, "--out", tmp_path / "kept"]
    if train:
        from numerai_sequence.synthetic import write_parquet

        options[4:4] = ["--train", write_parquet(tmp_path / "t.parquet", rows=4000, features=30)]
    result = run("demo", *options)
    assert result.returncode == 0, result.stderr
    assert "Epoch 3/3" in result.stdout
    scores = re.findall(r"^ +(00\d\d) +(-?\d\.\d{4})$", result.stdout, re.MULTILINE)
    assert [era for era, _ in scores] == ["0013", "0014", "0015"]
    summary = re.search(r"mean (\S+), std (\S+), Sharpe (\S+)", result.stdout)
    assert float(summary[1]) == pytest.approx(
        sum(float(score) for _, score in scores) / 3, abs=2e-4
    )
    assert re.search(r"rows/s, peak memory [\d,]+ MB", result.stdout)
    assert (tmp_path / "kept" / "shards" / "manifest.json").exists()


def test_demo_refuses_a_target_with_missing_values(tmp_path):
    source = write_source(tmp_path / "live.parquet", values="int8", missing_target=True)
    result = run("demo", "--train", source)
    assert result.returncode == 1
    assert "missing values" in result.stderr.splitlines()[-1]
