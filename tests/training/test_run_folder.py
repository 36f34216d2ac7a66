"""Runs: several seeds, targets and folds in one folder, final trainings, and warm starts."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from networks import keras

from numerai_sequence import (
    NumeraiSequence,
    NumeraiSequenceError,
    OutputExistsError,
    ensemble,
    fit_runs,
    predict,
    read_run,
    score,
    write_shards,
)
from numerai_sequence.commands.main import main
from numerai_sequence.synthetic import write_version
from numerai_sequence.training.planned_runs import best_epochs

SEED_0, SEED_1 = "ender_60-seed-0", "ender_60-seed-1"
OTHER = "cyrusd_20-seed-0"
TARGETS = ["target_ender_60", "target_cyrusd_20"]
QUICK = {"validation": 20, "purge": 4, "batch_size": 200, "progress": False}


def build(features, rate=0.01, units=6):
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((features,)), layers.Dense(units, activation="relu"), layers.Dense(1)]
    )
    model.compile(keras.optimizers.Adam(rate), "mse")
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    write_version(folder, rows=3000, features=24, min_eras=60)
    return folder


@pytest.fixture(scope="module")
def shards(folder):
    sources = [folder / "train.parquet", folder / "validation.parquet"]
    with write_shards(sources, folder / "shards", progress=False) as opened:
        yield opened


@pytest.fixture(scope="module")
def runs(shards, folder):
    made = fit_runs(build, shards, folder / "runs", target=TARGETS, seeds=2, epochs=4, **QUICK)
    assert [path.name for path in made] == [
        SEED_0,
        SEED_1,
        OTHER,
        "cyrusd_20-seed-1",
    ]
    return folder / "runs"


def weights(run):
    return keras.models.load_model(str(run / "model.keras"), compile=False).get_weights()


def same(run, other):
    return all(map(np.array_equal, weights(run), weights(other)))


def test_each_run_is_that_of_its_seed_and_target_alone(shards, runs, tmp_path):
    [alone] = fit_runs(
        build, shards, tmp_path / "one", target=TARGETS[0], seeds=[1], epochs=4, **QUICK
    )
    assert alone == tmp_path / "one"
    assert same(alone, runs / SEED_1)
    assert not same(alone, runs / SEED_0)
    written = read_run(runs / OTHER)
    assert written.asked["options"]["targets"] == ["target_cyrusd_20"]
    assert (written.asked["options"]["seed"], written.asked["options"]["network"] is None) == (
        0,
        False,
    )
    assert written.validation[0] == "0041"


def test_the_table_has_each_model_and_their_ensemble(shards, runs, folder):
    table = pd.read_csv(runs / "scores.csv", index_col="era", dtype={"era": str})
    models = [SEED_0, SEED_1, OTHER, "cyrusd_20-seed-1", "ensemble"]
    assert list(table.columns) == [f"{name}/corr" for name in models]
    own = pd.read_csv(runs / OTHER / "scores.csv", index_col="era", dtype={"era": str})
    np.testing.assert_array_equal(table[f"{OTHER}/corr"].dropna(), own["corr"])
    frame = predict(runs, shards, eras="0041-", with_era=True, progress=False)
    assert list(frame.columns) == ["era", *sorted(models[:4])]
    assert len(score(frame, shards, target=TARGETS[0], progress=False).columns) == 4
    expected = score(ensemble(frame), shards, target=TARGETS[0], progress=False)
    np.testing.assert_allclose(table["ensemble/corr"].dropna(), expected["corr"], rtol=1e-12)
    assert (runs / "scores.png").stat().st_size > 10_000


def test_finished_runs_are_skipped_and_others_refused(shards, runs, folder, capsys):
    stamps = {path: path.stat().st_mtime_ns for path in runs.glob("*/model.keras")}
    (runs / SEED_1 / "run.json").rename(runs / SEED_1 / "kept.json")  # as if it had been killed
    with pytest.warns(UserWarning, match=f"left out {SEED_1}, which is not finished"):
        predict(runs, shards, progress=False)
    fit_runs(build, shards, runs, target=TARGETS, seeds=2, epochs=4, **QUICK)
    assert capsys.readouterr().out.count("is already trained") == 3
    changed = [path for path in stamps if path.stat().st_mtime_ns != stamps[path]]
    assert changed == [runs / SEED_1 / "model.keras"]
    for function, options, words in (
        (build, {"epochs": 5}, "--epochs 4, expected 5"),
        (lambda features: build(features, units=7), {"epochs": 4}, "another network"),
        (lambda features: build(features, rate=0.02), {"epochs": 4}, "another network"),
    ):
        with pytest.raises(OutputExistsError, match=words):
            fit_runs(function, shards, runs, target=TARGETS, seeds=2, **options, **QUICK)


def test_a_final_run_has_all_eras_and_the_best_epochs(shards, runs, tmp_path):
    history = read_run(runs / OTHER).history["val_corr_mean"]
    best = history.index(max(history)) + 1
    made = fit_runs(build, shards, tmp_path, final=runs, progress=False)
    assert sorted(path.name for path in made) == sorted(p.name for p in runs.glob("*-seed-*"))
    final = read_run(tmp_path / OTHER)
    assert final.train == tuple(f"{era:04d}" for era in range(1, 57))  # 20 days: 4 eras are open
    assert read_run(tmp_path / SEED_0).train[-1] == "0048"
    assert (final.validation, final.scores) == ((), {})
    assert len(final.history["loss"]) == best == final.asked["options"]["epochs"]
    assert final.asked["options"]["is_final"] is True
    assert not (tmp_path / OTHER / "scores.csv").exists()
    keras.utils.set_random_seed(0)
    model = build(24)
    training = NumeraiSequence(
        shards, 200, target="target_cyrusd_20", missing_target="drop", eras="0001-0056"
    )
    model.fit(training, epochs=best, verbose=0)
    for found, expected in zip(weights(tmp_path / OTHER), model.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)
    frame = predict(tmp_path, shards, progress=False)
    assert len(frame.columns) == 4


def test_a_run_starts_from_the_weights_of_another(shards, runs, tmp_path):
    still = {"final": runs, "start": runs, "epochs": 1, "progress": False}
    made = fit_runs(lambda features: build(features), shards, tmp_path / "a", **still)
    assert not any(same(path, runs / path.name) for path in made)
    keras.utils.set_random_seed(0)
    model = build(24)
    model.set_weights(weights(runs / SEED_0))
    training = NumeraiSequence(
        shards, 200, target="target_ender_60", missing_target="drop", eras="0001-0048"
    )
    model.fit(training, epochs=1, verbose=0)
    for found, expected in zip(weights(tmp_path / "a" / SEED_0), model.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert read_run(made[0]).asked["options"]["start"]
    with pytest.raises(NumeraiSequenceError, match="no run named 'seed-0' to start from; found"):
        fit_runs(build, shards, tmp_path / "b", seeds=2, start=runs, **QUICK)
    with pytest.raises(NumeraiSequenceError, match="started from the weights of another run"):
        fit_runs(build, shards, tmp_path / "b", final=tmp_path / "a", progress=False)
    with pytest.raises(NumeraiSequenceError, match="found a model of float32, expected int8"):
        fit_runs(build, shards, tmp_path / "d", start=runs / SEED_0, dtype="int8", **QUICK)
    with pytest.raises(OutputExistsError, match="found the run to start from in it"):
        fit_runs(build, shards, runs, start=runs, progress=False)
    with pytest.raises(NumeraiSequenceError, match="another network"):
        fit_runs(lambda f: build(f, units=3), shards, tmp_path / "c", final=runs, progress=False)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"final": "runs", "seeds": 2}, "seeds: found it with final="),
        ({"final": "runs", "target": "target"}, "target: found it with final="),
        ({"final": "nowhere"}, r"nowhere.run\.json: No such file"),
        ({"seeds": 0}, "seeds"),
        ({"window": 8}, "window: found 8 without step="),
        ({"target": {"main": "target"}}, "each output to have the name of its target"),
        ({"seeds": [1, 1]}, "each seed once"),
        ({"target": ["target", "target"]}, "each target once"),
        ({"target": []}, "a target or a list"),
    ],
)
def test_what_contradicts_itself_is_refused(shards, runs, tmp_path, options, words):
    options = {**options, **({"final": runs} if options.get("final") == "runs" else {})}
    with pytest.raises((ValueError, TypeError, NumeraiSequenceError), match=words):
        fit_runs(build, shards, tmp_path / "out", progress=False, **options)
    assert not (tmp_path / "out").exists()


def test_what_is_no_compiled_model_is_refused(shards, tmp_path):
    def forgets(features):
        model = keras.Sequential([keras.Input((features,)), keras.layers.Dense(1)])
        return model

    for function in (forgets, lambda features: None):
        with pytest.raises(TypeError, match="expected a compiled Keras model"):
            fit_runs(function, shards, tmp_path, **QUICK)
    with pytest.raises(TypeError, match="expected a function"):
        fit_runs("model", shards, tmp_path, **QUICK)


def test_epochs_are_those_of_the_best_score_that_was_watched(runs):
    history = {"loss": [1.0] * 4, "val_corr_mean": [0.1, float("nan"), 0.3, 0.3]}
    assert best_epochs(replace(read_run(runs / OTHER), history=history)) == 3


def test_a_mapping_is_one_model_of_several_outputs(shards, tmp_path):
    def two(features):
        inputs = keras.Input((features,))
        outputs = {name: keras.layers.Dense(1, name=name)(inputs) for name in TARGETS}
        model = keras.Model(inputs, outputs)
        model.compile("adam", dict.fromkeys(TARGETS, "mse"))
        return model

    target = dict(zip(TARGETS, TARGETS, strict=True))
    [made] = fit_runs(two, shards, tmp_path, target=target, epochs=1, **QUICK)
    assert (made, read_run(made).output) == (tmp_path, TARGETS[0])


def test_a_start_that_has_seen_the_validation_is_said(shards, runs, tmp_path):
    fit_runs(build, shards, tmp_path / "f", final=runs / SEED_0, progress=False)
    with pytest.warns(UserWarning, match="was trained on 8 of the 20 validation eras of the new"):
        fit_runs(build, shards, tmp_path / "w", start=tmp_path / "f", epochs=1, progress=False)


def test_a_run_without_a_score_has_no_best_epoch(runs, shards, tmp_path):
    (tmp_path / "run").mkdir()
    document = json.loads((runs / OTHER / "run.json").read_text())
    document["history"]["val_corr_mean"] = [float("nan")] * 2
    (tmp_path / "run" / "run.json").write_text(json.dumps(document))
    with pytest.raises(NumeraiSequenceError, match="no epoch of a run has a score"):
        fit_runs(build, shards, tmp_path / "f", final=tmp_path / "run", progress=False)


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"patience": 0}, {"purge": -1}, {"step": 1.5}])
def test_numbers_out_of_range_are_refused(shards, tmp_path, wrong):
    with pytest.raises((TypeError, ValueError), match=next(iter(wrong))):
        fit_runs(build, shards, tmp_path / "out", progress=False, **wrong)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_more_callbacks_are_made_for_each_run(shards, tmp_path):
    def callbacks(folder):
        return [keras.callbacks.CSVLogger(str(folder / "log.csv"))]

    made = fit_runs(build, shards, tmp_path, seeds=2, epochs=2, callbacks=callbacks, **QUICK)
    for path in made:
        log = pd.read_csv(path / "log.csv")
        history = read_run(path).history
        np.testing.assert_allclose(log["val_corr_mean"], history["val_corr_mean"])


SHELL = ["--validation", -20, "--purge", 4, "--epochs", 3, "--batch-size", 200]
SHELL += ["--layers", 6, "--quiet"]


def command(*words):
    result = CliRunner().invoke(main, [str(word) for word in words])
    return result.exit_code, result.output


@pytest.fixture(scope="module")
def walked(shards, folder):
    """Two seeds of a walk forward, from the command."""
    out = folder / "walked"
    words = ["--step", 20, "--purge", 4, "--epochs", 2, "--layers", 4, "--quiet", "--seeds", 2]
    code, said = command("train", shards.folder, "--out", out, "--eras", "0001-0048", *words)
    assert code == 0, said
    return out, said


@pytest.mark.slow
def test_folds_of_several_seeds_are_one_folder_and_one_table(walked):
    out, said = walked
    names = ["seed-0-fold-00", "seed-1-fold-00", "seed-0-fold-01", "seed-1-fold-01"]
    assert sorted(path.parent.name for path in out.glob("*/run.json")) == sorted(names)
    assert [said.index(name) for name in names] == sorted(said.index(name) for name in names)
    assert "All 2 folds of 2 models" in said
    table = pd.read_csv(out / "scores.csv", index_col="era", dtype={"era": str})
    assert list(table.columns) == ["seed-0/corr", "seed-1/corr", "ensemble/corr"]
    assert list(table.index) == [f"{era:04d}" for era in range(21, 49)]


@pytest.mark.slow
def test_the_final_run_of_a_walk_forward_is_one_a_seed(shards, walked, tmp_path):
    code, said = command("train", shards.folder, "--final", walked[0], "--out", tmp_path / "f")
    assert code == 0, said
    assert sorted(path.name for path in (tmp_path / "f").iterdir()) == ["seed-0", "seed-1"]
    assert read_run(tmp_path / "f" / "seed-1").train[-1] == "0048"


@pytest.mark.slow
def test_the_command_trains_as_its_options_say(shards, tmp_path):
    out = tmp_path / "two"
    targets = ["--target", TARGETS[0], "--target", TARGETS[1], "--each-target"]
    code, said = command("train", shards.folder, "--out", out, *targets, *SHELL)
    assert code == 0, said
    assert sorted(path.parent.name for path in out.glob("*/run.json")) == ["cyrusd_20", "ender_60"]
    assert "All 2 models" in said
    assert said.count("corr") >= 3
    warm = ["train", shards.folder, "--out", tmp_path / "warm", "--from", out]
    code, said = command(*warm, "--learning-rate", "0.0001", "--epochs", "1", "--quiet")
    assert code == 0, said
    asked = read_run(tmp_path / "warm" / "cyrusd_20").asked["options"]
    assert (asked["learning_rate"], asked["epochs"], asked["layers"]) == (0.0001, 1, [6])
    assert len(asked["start"]) == 16
    code, said = command(*warm, "--layers", "7", "--quiet")
    assert code == 1
    assert "--layers 6, expected 7" in said
    code, said = command("train", shards.folder, "--final", out, "--layers", "7")
    assert code == 2
    assert "--layers: found it with --final, whose run decides it" in said
    code, said = command("train", shards.folder, "--final", out, "--out", tmp_path / "n", "--quiet")
    assert code == 0, said
    week = ["--final", tmp_path / "n", "--from", tmp_path / "n", "--epochs", 1, "--quiet"]
    code, said = command("train", shards.folder, *week, "--out", tmp_path / "week")
    assert code == 0, said
    assert read_run(tmp_path / "week" / "ender_60").asked["options"]["is_final"] is True


@pytest.mark.slow
def test_runs_are_listed_newest_first_and_drawn(shards, runs, walked, tmp_path):
    for age, path in enumerate(sorted(runs.glob("*/run.json"))):
        os.utime(path, (2e9 - age, 2e9 - age))
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "checkpoint.keras").touch()
    code, said = command("runs", runs, walked[0], tmp_path, "--png", tmp_path / "runs.png")
    assert code == 1
    assert "no finished run" in said
    (runs / "begun").mkdir()
    (runs / "begun" / "checkpoint.keras").touch()
    code, said = command("runs", runs, walked[0], "--png", tmp_path / "runs.png")
    assert code == 0, said
    lines = said.splitlines()
    names = [line.split()[0].rpartition(os.sep)[2] for line in lines[1:9]]
    assert names[:4] == sorted(path.parent.name for path in runs.glob("*/run.json"))
    assert "begun: not finished" in said
    mean = read_run(runs / OTHER).scores["val_corr_mean"]
    line = next(line for line in lines if OTHER in line)
    assert f" {mean:.4f} " in line
    assert "target_cyrusd_20" in line
    assert "all (24)" in line
    assert (tmp_path / "runs.png").stat().st_size > 10_000
    code, said = command("runs", runs, "--sort", "mean")
    means = [float(line.split()[1]) for line in said.splitlines()[1:5]]
    assert means == sorted(means, reverse=True)
    (runs / "begun" / "checkpoint.keras").unlink()


def test_a_folder_of_several_names_one(runs):
    with pytest.raises(
        NumeraiSequenceError, match=r"found 4 runs in it: name one, such as .*cyrusd"
    ):
        read_run(runs)


def test_a_run_of_before_has_the_defaults(runs, shards, capsys):
    path = runs / OTHER / "run.json"
    document = json.loads(path.read_text())
    for name in ("is_final", "start", "batch_by"):
        del document["asked"]["options"][name]
    path.write_text(json.dumps(document))
    fit_runs(build, shards, runs, target=TARGETS, seeds=2, epochs=4, **QUICK)
    assert capsys.readouterr().out.count("is already trained") == 4


def printed_feed(capsys):
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith("Rows are")]


def test_packed_and_resident_rows_train_the_same_runs(shards, runs, tmp_path, capsys):
    options = {"target": TARGETS[0], "seeds": [0], "epochs": 4, **QUICK}
    for name, fed, words in (
        ("packed", {"dtype": "packed", "resident": False}, "packed from the host: as asked for"),
        ("resident", {"resident": True}, "resident on CPU: as asked for"),
        ("auto", {}, "fed as float32 from the host: no accelerator"),
        ("float32", {"dtype": "float32"}, "fed as float32 from the host: as asked for"),
    ):
        [run] = fit_runs(build, shards, tmp_path / name, **fed, **options)
        assert same(run, runs / SEED_0)
        table = pd.read_csv(run / "scores.csv", index_col="era", dtype={"era": str})
        expected = pd.read_csv(runs / SEED_0 / "scores.csv", index_col="era", dtype={"era": str})
        assert table.equals(expected)
        assert read_run(run).dtype == "float32"
        [line] = printed_feed(capsys)
        assert words.split(" (")[0] in line
    # How rows reach the device is no option of a run: it is there, and is skipped.
    fit_runs(build, shards, tmp_path / "auto", resident=True, **options)
    assert "is already trained" in capsys.readouterr().out


def test_networks_that_packed_rows_would_change_are_refused(shards, tmp_path):
    options = {"target": TARGETS[0], "epochs": 1, **QUICK}
    with pytest.raises(ValueError, match="found packed rows, but the network takes int8"):
        fit_runs(build, shards, tmp_path / "a", dtype="int8", resident=True, **options)
    with pytest.raises(ValueError, match="found True with another dtype, expected dtype='packed'"):
        fit_runs(build, shards, tmp_path / "a", dtype="float32", resident=True, **options)

    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(1)

        def call(self, x):
            return self.dense(x)

    def build_own(features):
        model = Own()
        model.compile("adam", "mse")
        return model

    with pytest.raises(
        NumeraiSequenceError, match="found a Own, which may train differently behind"
    ):
        fit_runs(build_own, shards, tmp_path / "a", resident=True, **options)


@pytest.mark.slow
def test_a_model_of_several_outputs_is_trained_on_packed_rows(shards, tmp_path):
    def build_two(features):
        inputs = keras.Input((features,))
        outputs = [keras.layers.Dense(1, name=name)(inputs) for name in TARGETS]
        model = keras.Model(inputs, outputs)
        model.compile("adam", dict.fromkeys(TARGETS, "mse"))
        return model

    options = {"target": {name: name for name in TARGETS}, "epochs": 1, **QUICK}
    found = [
        fit_runs(build_two, shards, tmp_path / name, missing_target="mask", **fed, **options)[0]
        for name, fed in (("floats", {}), ("resident", {"resident": True}))
    ]
    assert same(*found)
