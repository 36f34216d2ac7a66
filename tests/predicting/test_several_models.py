"""Several models at once: a column a model, each the same as of that model alone."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from networks import model_of, row_kernel, row_model
from numerai_tables import write_source

from numerai_sequence import FeatureError, NumeraiSequence, predict, write_shards
from numerai_sequence.errors import NumeraiSequenceError
from numerai_sequence.feeding.model_input import note_input
from numerai_sequence.feeding.sequence import NumeraiSequence as Sequence
from numerai_sequence.training.run_folder import Run, save_model, write_run

FEATURES = [f"feature_{number:03d}" for number in range(14)]


class Doubled(NumeraiSequence):
    def __getitem__(self, index):
        x, *others = super().__getitem__(index)
        return (2 * x, *others)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_source(tmp_path_factory.mktemp("several") / "a.parquet")


@pytest.fixture(scope="module")
def shards(source):
    return write_shards(source, source.with_name("shards"), progress=False)


def remembering(model, shards, **options):
    note_input(model, Sequence(shards, **options))
    return model


@pytest.fixture(scope="module")
def models(shards):
    backwards = np.ascontiguousarray(row_kernel(9)[::-1])
    rng = np.random.default_rng(0)
    return {
        "all": remembering(row_model(), shards),
        "raw": remembering(row_model(scale=1), shards, dtype="int8"),
        "half": remembering(
            model_of(row_kernel(10)), shards, dtype="float16", features=FEATURES[:10]
        ),
        "backwards": remembering(model_of(backwards), shards, features=FEATURES[:9][::-1]),
        "middle": remembering(
            model_of(rng.normal(size=(5, 1)).astype("f4")), shards, features=FEATURES[4:9]
        ),
        "two": remembering(model_of(row_kernel(14), -row_kernel(14), names=["p", "q"]), shards),
    }


def silent(model, data, **options):
    return predict(model, data, progress=False, **options)


@pytest.mark.parametrize("kind", ["shards", "parquet"])
@pytest.mark.parametrize("batch_by", ["rows", "era"])
def test_each_column_is_that_of_the_model_alone(models, source, shards, kind, batch_by):
    data = shards if kind == "shards" else source
    found = silent(models, data, batch_by=batch_by)
    assert list(found.columns) == [*list(models)[:5], "two/p", "two/q"]
    for name, model in models.items():
        alone = silent(model, data, batch_by=batch_by)
        columns = [name] if len(alone.columns) == 1 else [f"{name}/p", f"{name}/q"]
        pd.testing.assert_index_equal(found.index, alone.index)
        np.testing.assert_allclose(found[columns], alone, rtol=1e-6)
    assert found["all"].tolist() == [int(one[1:], 16) for one in found.index]
    assert found["raw"].tolist() == found["backwards"].tolist() == found["all"].tolist()
    assert sorted(found.attrs["features"]) == FEATURES


def test_a_class_of_ones_own_makes_its_batches(models, source, shards):
    like = {"own": Doubled(shards)}
    found = silent({"own": row_model(), "all": models["all"]}, source, like=like)
    assert list(found.columns) == ["own", "all"]
    assert (found["own"] == 2 * found["all"]).all()


def test_a_list_numbers_its_models_and_eras_are_a_column(models, shards):
    found = silent([models["all"], models["raw"]], shards, with_era=True, ranked=True)
    assert list(found.columns) == ["era", "model_0", "model_1"]
    assert found["era"].tolist() == shards.column("era").to_pylist()
    alone = silent(models["all"], shards, ranked=True)
    assert found["model_1"].tolist() == alone["prediction"].tolist()
    assert list(silent([models["all"]], shards).columns) == ["model_0"]


def test_errors_name_the_model(models, shards, tmp_path):
    with pytest.raises(FeatureError, match=r"model 'narrow'.*expected 9"):
        silent({**models, "narrow": model_of(row_kernel(9))}, shards)
    broken = model_of(np.full((14, 1), np.nan, np.float32))
    with pytest.raises(NumeraiSequenceError, match=r"predictions of 'broken': 1,037 of"):
        silent({"all": models["all"], "broken": broken}, shards, features=FEATURES)
    with pytest.raises(ValueError, match=r"model 'all'.*'other'"):
        silent({"all": models["all"]}, shards, output="other")
    with pytest.raises(ValueError, match="expected the name of a model: all"):
        silent({"all": models["all"]}, shards, like={"al": None})


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ([], ValueError, "found none"),
        ({}, ValueError, "found none"),
        (3, TypeError, "found an int"),
        ([3], TypeError, "found an int"),
        ({1: "a"}, TypeError, "found the name 1"),
        ([[1]], TypeError, "found a list among several"),
        ("nowhere", NumeraiSequenceError, "no such file"),
    ],
    ids=repr,
)
def test_what_is_no_model_is_refused(shards, given, error, message):
    with pytest.raises(error, match=message):
        silent(given, shards)


def write_runs(folder, shards, models):
    for name, model in models.items():
        (folder / name).mkdir(parents=True)
        save_model(model, folder / name)
        run = Run({"options": {}}, tuple(FEATURES), "float32", None, (), (), {}, {}, {})
        write_run(run, folder / name)
    return folder


def test_runs_are_named_by_their_folders(shards, tmp_path):
    kernels = {"seed-10": row_kernel(14), "seed-2": -row_kernel(14)}
    folder = write_runs(tmp_path / "runs", shards, {n: model_of(k) for n, k in kernels.items()})
    found = silent(folder, shards)
    assert list(found.columns) == ["seed-2", "seed-10"]
    assert (found["seed-2"] == -found["seed-10"]).all()
    assert found["seed-10"].tolist() == [int(one[1:], 16) for one in found.index]
    alone = silent(folder / "seed-10", shards)
    assert alone["prediction"].tolist() == found["seed-10"].tolist()
    as_list = silent([folder / "seed-2", str(folder / "seed-10" / "model.keras")], shards)
    pd.testing.assert_frame_equal(as_list, found)
    mapped = silent({"w": folder}, shards)
    assert list(mapped.columns) == ["w/seed-2", "w/seed-10"]
    with pytest.raises(ValueError, match=r"two models named 'seed-2'.*mapping"):
        silent([folder, folder / "seed-2"], shards)
