"""Training: what the command trains, on which eras, and what it leaves."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from networks import keras
from small_disks import leave_free, small_disk
from tampering import edit

from numerai_sequence import (
    EraError,
    EraScores,
    ManifestError,
    NumeraiSequence,
    OutputError,
    OutputExistsError,
    open_shards,
    write_shards,
)
from numerai_sequence.scoring.scores import summarize_score
from numerai_sequence.synthetic import write_parquet
from numerai_sequence.training.planned_runs import choose_purge, make_splits
from numerai_sequence.training.run_folder import read_run
from numerai_sequence.training.run_options import TrainOptions
from numerai_sequence.training.scored_runs import train

FEATURES = 60
QUICK = TrainOptions(epochs=2, layers=(8,), batch_size=500)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("training")
    source = write_parquet(
        folder / "train.parquet", rows=6000, features=FEATURES, targets=5, min_eras=40
    )
    with write_shards(source, folder / "set", progress=False) as opened:
        yield opened


def run(shards, out, options=QUICK, **others):
    return train(shards, out, options, **{"overwrite": False, "progress": False, **others})


@pytest.mark.slow
def test_saved_model_has_the_scores_of_the_table(shards, tmp_path):
    table = run(shards, tmp_path)
    written = read_run(tmp_path)
    model = keras.models.load_model(str(tmp_path / "model.keras"), compile=False)
    validation = NumeraiSequence(shards, eras=written.validation)
    again = EraScores(validation).score(model)
    np.testing.assert_allclose(again["corr"], table["corr"], atol=1e-6)
    read = pd.read_csv(tmp_path / "scores.csv", index_col="era", dtype={"era": str})
    pd.testing.assert_frame_equal(read, table)
    assert written.scores["val_corr_sharpe"] == summarize_score(table["corr"]).sharpe
    assert written.features == shards.features
    assert (written.dtype, written.output) == ("float32", None)
    assert written.versions["keras"] == keras.__version__


def test_weights_of_the_best_epoch_are_kept(shards, tmp_path):
    options = replace(QUICK, epochs=40, learning_rate=0.02, patience=2)
    table = run(shards, tmp_path, options)
    means = read_run(tmp_path).history["val_corr_mean"]
    assert len(means) < 40
    assert means.index(max(means)) == len(means) - 3
    assert table["corr"].mean() == pytest.approx(max(means), abs=1e-6)


def test_split_is_purged_as_the_targets_want(shards):
    for targets, purge, last in (
        (("target",), None, "0016"),
        (("target_agnes_20",), None, "0024"),
        (("target_agnes_20", "target_agnes_60"), None, "0016"),
        (("target",), 3, "0029"),
    ):
        options = replace(QUICK, targets=targets, purge=purge)
        [split] = make_splits(shards, options, choose_purge(shards, options)[0])
        assert split.train[-1] == last
        assert split.validation == [f"{era:04d}" for era in range(33, 41)]


def with_target(shards, folder, name):
    """The set's rows, whose `target` equals another one."""
    table = pq.read_table(shards.manifest.sources[0].path)
    place = table.schema.names.index("target")
    source = folder / "train.parquet"
    pq.write_table(table.set_column(place, "target", table[name]), source)
    return source


TWO = ("target", "target_agnes_20")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "purge", "last", "is_old", "targets"),
    [
        ("target_agnes_20", 8, "0024", False, None),
        ("target_agnes_20", 8, "0024", True, TWO),
        ("target_alpha_60", 16, "0016", False, TWO),
        ("target_alpha_60", 16, "0016", True, None),
        ("target_alpha_60", 16, "0016", True, TWO),
    ],
)
def test_target_is_purged_as_what_it_equals(
    shards, tmp_path, capsys, name, purge, last, is_old, targets
):
    source = with_target(shards, tmp_path, name)
    with write_shards(source, tmp_path / "set", targets=targets, progress=False):
        if is_old:  # written before the manifest told of it
            edit(tmp_path / "set", lambda document: document.pop("target_alias"))
    knows = not is_old or targets is None or name in targets
    with open_shards(tmp_path / "set") as found:
        run(found[::2], tmp_path / "run", replace(QUICK, epochs=1))
    shown = capsys.readouterr().out
    if knows:
        assert f"purge {purge}: target equals {name}, a {name[-2:]}-day target\n" in shown
    else:
        assert "purge 16: target equals no other target of the set, so its horizon" in shown
    written = read_run(tmp_path / "run")
    assert written.train[-1] == last
    assert (written.asked["purge"], written.asked["options"]["purge"]) == (purge, None)


@pytest.mark.slow
def test_purge_and_why_are_said(shards, tmp_path, capsys):
    for place, (options, words) in enumerate(
        (
            ({}, "purge 16: target equals no other target of the set, so its horizon is unknown"),
            ({"purge": 0}, "purge 0: as asked for"),
            ({"targets": ("target_agnes_20",)}, "purge 8: target_agnes_20 is a 20-day target"),
            ({"targets": ("target_agnes_60",)}, "purge 16: target_agnes_60 is a 60-day target"),
        )
    ):
        run(shards, tmp_path / str(place), replace(QUICK, epochs=1, **options))
        assert f"{words}\n" in capsys.readouterr().out


def test_validation_eras_without_a_target_are_named(tmp_path, capsys):
    path = write_parquet(tmp_path / "all.parquet", rows=2000, features=14, targets=2, min_eras=40)
    table = pd.read_parquet(path)
    newest = sorted(set(table["era"]))[-3:]
    table.loc[table["era"].isin(newest), "target"] = np.nan
    table.to_parquet(path)
    with write_shards(path, tmp_path / "set", progress=False) as found:
        run(found, tmp_path / "run", replace(QUICK, epochs=1))
    left = f"Validation leaves out 3 eras, {newest[0]} to {newest[-1]}: no target yet\n"
    shown = capsys.readouterr().out
    assert left in shown
    assert "Training leaves out" not in shown


def change_run(folder, change):
    document = json.loads((folder / "run.json").read_text())
    change(document)
    (folder / "run.json").write_text(json.dumps(document))


@pytest.mark.slow
def test_a_run_with_another_purge_is_another_run(shards, tmp_path, capsys):
    run(shards, tmp_path)
    change_run(tmp_path, lambda document: document["asked"].update(purge=8))
    with pytest.raises(OutputExistsError, match="with other options"):
        run(shards, tmp_path)
    change_run(tmp_path, lambda document: document["asked"].update(purge=16))
    run(shards, tmp_path)
    assert "is already trained" in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_from_before_an_option_is_the_one_of_its_default(shards, tmp_path, capsys):
    run(shards, tmp_path)

    def forget(document):
        del document["asked"]["purge"], document["asked"]["options"]["seed"]

    change_run(tmp_path, forget)
    run(shards, tmp_path)
    assert "is already trained" in capsys.readouterr().out
    with pytest.raises(OutputExistsError, match="with other options"):
        run(shards, tmp_path, replace(QUICK, seed=1))


def test_a_run_of_a_later_version_says_to_upgrade(shards, tmp_path):
    run(shards, tmp_path)
    change_run(tmp_path, lambda document: document.update(missing_feature="keep"))
    with pytest.raises(ManifestError, match=r"'missing_feature'.*; upgrade nume") as caught:
        read_run(tmp_path)
    assert (caught.value.path, caught.value.found) == (tmp_path / "run.json", "'missing_feature'")
    assert "damaged" not in str(caught.value)


@pytest.mark.parametrize("name", ["dtype", "batch_by"])
def test_what_a_model_is_fed_is_of_a_kind_that_is_known(shards, tmp_path, name):
    run(shards, tmp_path)
    for value, words in (("new", f"{name} 'new', expected one of .*; upgrade"), (3, "damaged")):
        change_run(tmp_path, lambda document, value=value: document.update({name: value}))
        with pytest.raises(ManifestError, match=words):
            read_run(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("asked", [None, [], {}, {"options": 3}], ids=repr)
def test_a_run_that_was_asked_nothing_is_damaged(shards, tmp_path, asked):
    run(shards, tmp_path)
    change_run(tmp_path, lambda document: document.update(asked=asked))
    with pytest.raises(ManifestError, match="damaged"):
        run(shards, tmp_path)


@pytest.mark.slow
def test_walk_forward_trains_a_network_for_each_fold(shards, tmp_path, capsys):
    options = replace(QUICK, step=10, purge=4, epochs=1)
    table = run(shards, tmp_path, options)
    folders = sorted(path.name for path in tmp_path.iterdir())
    assert folders == ["fold-00", "fold-01", "fold-02", "scores.csv", "scores.png"]
    runs = [read_run(tmp_path / name) for name in folders[:3]]
    assert [(fold.train[-1], fold.validation[0]) for fold in runs] == [
        ("0006", "0011"),
        ("0016", "0021"),
        ("0026", "0031"),
    ]
    assert all(fold.train[0] == "0001" for fold in runs)
    assert list(table.index) == [f"{era:04d}" for era in range(11, 41)]
    windowed = make_splits(shards, replace(options, window=6), 4)
    assert [split.train[0] for split in windowed] == ["0001", "0011", "0021"]
    assert "All 3 folds" in capsys.readouterr().out


@pytest.mark.slow
def test_finished_folds_are_not_done_again(shards, tmp_path, capsys):
    options = replace(QUICK, step=10, purge=4, epochs=1)
    first = run(shards, tmp_path, options)
    models = [path.read_bytes() for path in sorted(tmp_path.glob("fold-*/model.keras"))]
    (tmp_path / "fold-01" / "run.json").unlink()  # as if it had been killed
    capsys.readouterr()
    again = run(shards, tmp_path, options)
    assert capsys.readouterr().out.count("is already trained") == 2
    pd.testing.assert_frame_equal(first, again)
    now = [path.read_bytes() for path in sorted(tmp_path.glob("fold-*/model.keras"))]
    assert [old == new for old, new in zip(models, now, strict=True)][::2] == [True, True]


@pytest.mark.slow
def test_another_run_is_not_replaced_unless_asked_for(shards, tmp_path):
    run(shards, tmp_path)
    with pytest.raises(OutputExistsError, match="with other options"):
        run(shards, tmp_path, replace(QUICK, seed=1))
    run(shards, tmp_path, replace(QUICK, seed=1), overwrite=True)
    assert read_run(tmp_path).asked["options"]["seed"] == 1


@pytest.mark.slow
def test_run_that_was_interrupted_is_no_run(shards, tmp_path, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    run(shards, tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr("numerai_sequence.training.one_run.build_network", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(shards, tmp_path, replace(QUICK, seed=1), overwrite=True)
    with pytest.raises(ManifestError, match=r"run\.json"):
        read_run(tmp_path)
    run(shards, tmp_path, replace(QUICK, seed=1))
    assert read_run(tmp_path).asked["options"]["seed"] == 1


def test_rows_of_live_data_take_no_part(tmp_path):
    train_file = write_parquet(tmp_path / "t.parquet", rows=900, features=10, min_eras=20)
    table = pq.read_table(train_file)
    live = table.slice(0, 50)
    live = live.set_column(0, "era", pa.array(["X"] * 50))
    live = live.set_column(
        live.column_names.index("id"), "id", pa.array([f"live{row}" for row in range(50)])
    )
    pq.write_table(live, tmp_path / "live.parquet")
    sources = [train_file, tmp_path / "live.parquet"]
    with write_shards(sources, tmp_path / "set", progress=False) as shards:
        [split] = make_splits(shards, QUICK, 4)
        assert split.validation == ["0017", "0018", "0019", "0020"]
        with pytest.raises(EraError, match="'X' has no number"):
            make_splits(shards, replace(QUICK, eras="0001-,X"), 4)


@pytest.mark.slow
def test_same_seed_is_the_same_network(shards, tmp_path):
    options = replace(QUICK, dropout=0.2)
    tables = [run(shards, tmp_path / name, options) for name in ("a", "b")]
    pd.testing.assert_frame_equal(*tables)
    other = run(shards, tmp_path / "c", replace(options, seed=1))
    assert not other.equals(tables[0])


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["pearson", "rank"])
def test_losses_of_whole_eras_learn(shards, tmp_path, loss):
    if not hasattr(keras, "ops"):
        pytest.skip("these losses are Keras 3's")
    learning = {"epochs": 8, "patience": 8, "learning_rate": 0.003}
    options = replace(QUICK, purge=8, loss=loss, batch_size=None, **learning)
    table = run(shards, tmp_path, options)
    assert table["corr"].mean() > 0.05
    losses = read_run(tmp_path).history["loss"]
    assert losses[-1] < losses[0] <= 1.2


@pytest.mark.slow
def test_several_targets_are_outputs_and_the_first_is_scored(shards, tmp_path):
    targets = ("target_agnes_20", "target")
    options = replace(QUICK, targets=targets, missing_target="mask", purge=8)
    run(shards, tmp_path, options)
    written = read_run(tmp_path)
    assert written.output == "target_agnes_20"
    model = keras.models.load_model(str(tmp_path / "model.keras"), compile=False)
    assert sorted(model.output_names) == sorted(targets)


@pytest.mark.slow
def test_int8_is_the_same_network_scaled_inside(shards, tmp_path):
    tables = [run(shards, tmp_path / t, replace(QUICK, dtype=t)) for t in ("float32", "int8")]
    np.testing.assert_allclose(tables[0]["corr"], tables[1]["corr"], atol=1e-5)


def test_too_few_eras_are_refused(shards, tmp_path):
    with pytest.raises(EraError, match="no era is left to train on"):
        run(shards, tmp_path, replace(QUICK, eras="0001-0008"))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_validation_sharpe_beats_that_of_an_untrained_network(tmp_path, seed):
    """v5.3's columns and eras, but smaller: a weak signal, found across the purged eras."""
    source = write_parquet(
        tmp_path / "train.parquet", rows=12_000, features=FEATURES, min_eras=30, seed=seed
    )
    with write_shards(source, tmp_path / "set", progress=False) as shards:
        options = replace(QUICK, epochs=6, patience=6, learning_rate=0.005, layers=(32,), seed=seed)
        trained = run(shards, tmp_path / "run", options)
        keras.utils.set_random_seed(seed)
        layers = keras.layers
        untrained = keras.Sequential(
            [keras.Input((FEATURES,)), layers.Dense(32, activation="relu"), layers.Dense(1)]
        )
        validation = NumeraiSequence(shards, eras=read_run(tmp_path / "run").validation)
        before = EraScores(validation).score(untrained)
    assert summarize_score(trained["corr"]).sharpe > summarize_score(before["corr"]).sharpe
    assert summarize_score(trained["corr"]).sharpe > 2


@pytest.mark.slow
def test_a_full_disk_leaves_no_part_of_a_model(shards, tmp_path):
    with small_disk(tmp_path / "disk") as disk:
        leave_free(disk, 8192)
        with pytest.raises(
            OutputError, match="the run is not finished; run the same command"
        ) as caught:
            run(shards, disk / "run")
        assert caught.value.path == disk / "run"
        assert os.listdir(disk / "run") == []
        leave_free(disk, 1 << 20)
        run(shards, disk / "run")
        assert "checkpoint.keras" not in os.listdir(disk / "run")
        assert len(read_run(disk / "run").history["loss"]) == 2
