"""Residual: y is the target without what a benchmark model explains of it, era by era."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from networks import keras
from numerai_tools.scoring import neutralize

import numerai_sequence
from numerai_sequence import (
    EraError,
    EraScores,
    FeatureError,
    NumeraiSequence,
    NumeraiSequenceError,
    Residual,
    append_shards,
    open_shards,
    write_shards,
)
from numerai_sequence.resuming.run_identity import identity
from numerai_sequence.synthetic import write_parquet

ERAS = 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("residual")


@pytest.fixture(scope="module")
def data(folder):
    """Of the set, and beside it: `late` lacks the last eras and every 9th row."""
    write_parquet(folder / "plain.parquet", rows=2000, features=12, targets=2, min_eras=ERAS)
    data = pd.read_parquet(folder / "plain.parquet")
    is_late = (data["era"] > "0017") | (np.arange(len(data)) % 9 == 4)
    data["target_late"] = data["target"].where(~is_late)
    data["target_model"] = np.random.default_rng(1).random(len(data), np.float32)
    data.to_parquet(folder / "train.parquet")
    return data


@pytest.fixture(scope="module")
def shards(data, folder):
    source = folder / "train.parquet"
    with write_shards(source, folder / "set", mix_eras=3, num_shards=4, progress=False) as opened:
        yield opened


@pytest.fixture(scope="module")
def models(data):
    """As validation_benchmark_models.parquet, with some of the target in it, and unsorted."""
    rng = np.random.default_rng(0)
    found = 0.4 + 0.1 * data["target"] + rng.random(len(data)) / 10
    columns = {"era": data["era"], "v52": rng.random(len(data)), "v53": found, "flat": 0.1}
    return pd.DataFrame(columns, data.index).sample(frac=1, random_state=0)


def expected(data, models, target="target", model="v53", proportion=1.0):
    """By numerai-tools, with the mean of the era put back."""
    there = data[[target]].join(models[[model]]).dropna()
    parts = []
    for _, part in there.groupby(data.loc[there.index, "era"]):
        left = neutralize(part[[target]].astype(float), part[[model]].astype(float), proportion)
        parts.append(left[target] + proportion * part[target].mean())
    return pd.concat(parts).reindex(data.index)


def y_by_id(sequence, name=None):
    """y of each row of an epoch."""
    found = {}
    for number in range(len(sequence)):
        y = sequence[number][1]
        ids = sequence.column("id", batch=number).to_pylist()
        found.update(zip(ids, y if name is None else y[name], strict=True))
    return pd.Series(found)


def assert_residual(found, wanted, atol=1e-6):
    np.testing.assert_allclose(found, wanted[found.index], rtol=0, atol=atol)


@pytest.mark.parametrize("proportion", [1, 0.4, np.float32(0.5), 0])
def test_is_numerai_tools_with_the_mean_of_the_era(shards, data, models, proportion):
    residual = Residual("target", models, model="v53", proportion=proportion)
    sequence = NumeraiSequence(shards, 130, target=residual, run_rows=4)
    found = y_by_id(sequence)
    assert sorted(found.index) == sorted(data.index)
    wanted = expected(data, models, proportion=float(proportion))
    assert_residual(found, wanted)
    means = data["target"].groupby(data["era"]).mean()
    assert_residual(found.groupby(data["era"]).mean(), means)
    assert (abs(wanted - data["target"]).max() > 0.05) == (proportion > 0)
    assert sequence.target is residual
    assert found.dtype == np.float32


def test_line_of_an_era_takes_out_its_correlation(shards, data, models):
    residual = Residual("target", models["v53"])
    found = y_by_id(NumeraiSequence(shards, 1, target=residual, batch_by="era"))
    before = data["target"].groupby(data["era"]).corr(models["v53"].astype(float))
    after = found.groupby(data["era"]).corr(models["v53"].astype(float))
    assert before.min() > 0.3
    assert after.abs().max() < 1e-5


def test_benchmark_that_is_constant_explains_nothing(shards, data, models):
    found = y_by_id(NumeraiSequence(shards, 500, target=Residual("target", models, model="flat")))
    pd.testing.assert_series_equal(found, data["target"][found.index], check_names=False)


def in_two_files(models, folder):
    paths = [folder / "early.parquet", str(folder / "late.csv")]
    models[models["era"] < "0011"].to_parquet(paths[0])
    models[models["era"] >= "0011"].to_csv(paths[1])
    return paths


FORMS = {
    "path": lambda models, folder: models.to_parquet(folder / "m.parquet") or folder / "m.parquet",
    "files": in_two_files,
    "generator of files": lambda models, folder: iter(in_two_files(models, folder)),
    "table": lambda models, folder: pa.table(models.reset_index()),
    "reader": lambda models, folder: pa.table(models.reset_index()).to_reader(),
    "dict": lambda models, folder: {"v53": models["v53"], "v52": models["v52"]},
}


@pytest.mark.parametrize("form", FORMS)
def test_benchmark_in_each_form(shards, data, models, folder, form):
    residual = Residual("target", FORMS[form](models, folder), model="v53")
    found = y_by_id(NumeraiSequence(shards, 700, target=residual))
    assert_residual(found, expected(data, models))


def test_benchmark_may_be_a_column_of_the_set(shards, data):
    found = y_by_id(NumeraiSequence(shards, 700, target=Residual("target", "target_model")))
    models = data[["target_model"]]
    assert_residual(found, expected(data, models, model="target_model"))


def test_stands_among_other_targets(shards, data, models):
    first, second = (Residual("target", models, model="v53", proportion=p) for p in (1, 0.5))
    target = {"plain": "target", "both": ["target_model", first, second], "x": "features"}
    sequence = NumeraiSequence(shards, 130, target=target)
    assert sequence.target == {**target, "both": ("target_model", first, second)}
    assert sequence.target_columns == ("target", "target_model")
    both = pd.DataFrame(y_by_id(sequence, "both").to_list(), y_by_id(sequence, "both").index)
    assert_residual(both[0], data["target_model"])
    assert_residual(both[1], expected(data, models))
    assert_residual(both[2], expected(data, models, proportion=0.5))
    assert_residual(y_by_id(sequence, "plain"), data["target"])
    with pytest.raises(FeatureError, match="is named twice"):
        NumeraiSequence(shards, target=[first, first])


def test_same_words_for_two_benchmarks_are_two_columns(shards, data, models):
    pair = [Residual("target", models.rename(columns={m: "m"})[["m"]]) for m in ("v52", "v53")]
    sequence = NumeraiSequence(shards, 700, target={"a": pair[0], "b": pair[1]})
    for name, model in ("a", "v52"), ("b", "v53"):
        assert_residual(y_by_id(sequence, name), expected(data, models, model=model))


def test_row_without_target_is_refused_left_out_or_masked(shards, data, models):
    residual = Residual("target_late", models, model="v53")
    with pytest.raises(EraError, match="'target_late' is missing"):
        NumeraiSequence(shards, target=residual)
    wanted = expected(data, models, "target_late")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dropped = NumeraiSequence(shards, 130, target=residual, missing_target="drop")
        masked = NumeraiSequence(shards, 700, target=residual, missing_target="mask")
    found = y_by_id(dropped)
    assert sorted(found.index) == sorted(wanted.dropna().index)
    assert_residual(found, wanted)
    _, y, weight = masked[0]
    wanted = wanted[masked.column("id", batch=0).to_pylist()].to_numpy()
    np.testing.assert_array_equal(weight, ~np.isnan(wanted))
    np.testing.assert_allclose(y, np.where(np.isnan(wanted), 0.5, wanted), atol=1e-6)


def test_row_without_benchmark_is_never_left_out_silently(shards, data, models):
    some = models[(models["era"] < "0019") & (models.index != data.index[0])]
    residual = Residual("target", some, model="v53")
    absent = data.index.difference(some.index)
    found = rf"against v53: the benchmark has no value in {len(absent)} of 2,000 rows .*3 eras"
    with pytest.raises(EraError, match=rf"{found}.*choose eras.* eras=") as caught:
        NumeraiSequence(shards, target=residual)
    assert caught.value.eras == ["0001", "0019", "0020"]
    with pytest.warns(UserWarning, match=rf"{found}.* left out") as seen:
        dropped = NumeraiSequence(shards, 700, target=residual, missing_target="drop")
    assert seen[0].filename == __file__
    found_y = y_by_id(dropped)
    assert sorted(found_y.index) == sorted(some.index)
    assert_residual(found_y, expected(data, some))
    with pytest.warns(UserWarning, match="have weight 0"):
        masked = NumeraiSequence(shards, 3000, target=residual, missing_target="mask")
    assert masked[0][2].sum() == len(some)
    whole = NumeraiSequence(shards, target=residual, eras="0002-0018")
    assert_residual(y_by_id(whole), expected(data, some))


def test_only_the_chosen_eras_and_shards_are_looked_at(shards, data, models):
    residual = Residual("target", models[models["era"].isin(["0005", "0009"])], model="v53")
    sequence = NumeraiSequence(shards, 50, target=residual, eras="0005,0009")
    assert_residual(y_by_id(sequence), expected(data, models))
    part = NumeraiSequence(shards[::2], 50, target=Residual("target", models, model="v53"))
    assert 0 < part.rows < len(data)
    assert_residual(y_by_id(part), expected(data, models))


def test_targets_that_a_refresh_has_filled_in_count(data, models, tmp_path):
    before = data[data["era"] < "0020"]
    before = before.assign(target=before["target"].where(before["era"] < "0018"))
    before.to_parquet(tmp_path / "before.parquet")
    data.to_parquet(tmp_path / "after.parquet")
    write_shards(tmp_path / "before.parquet", tmp_path / "set", progress=False).close()
    append_shards(tmp_path / "set", tmp_path / "after.parquet", progress=False)
    residual = Residual("target", models, model="v53")
    with open_shards(tmp_path / "set") as shards:
        sequence = NumeraiSequence(shards, 300, target=residual, inputs={"m": models["v52"]})
        found = y_by_id(sequence)
        assert sorted(found.index) == sorted(data.index)
        assert_residual(found, expected(data, models))
        ids = sequence.column("id", batch=3).to_pylist()
        assert_residual(pd.Series(sequence[3][0]["m"][:, 0], ids), models["v52"])


def test_ranks_share_the_rows(shards, data, models):
    residual = Residual("target", models, model="v53")
    ranks = [
        NumeraiSequence(shards, 300, target=residual, rank=rank, world_size=2) for rank in (0, 1)
    ]
    found = pd.concat(map(y_by_id, ranks))
    assert sorted(found.index) == sorted(data.index)
    assert_residual(found, expected(data, models))


def test_weights_see_the_residual(shards, models):
    residual = Residual("target", models, model="v53")
    options = {"target": residual, "sample_weight": lambda eras, y: 1 + y}
    for _, y, weight in (NumeraiSequence(shards, 700, **options)[n] for n in range(3)):
        np.testing.assert_array_equal(weight, 1 + y)


def test_copy_in_another_process_has_what_it_needs_and_no_more(shards, data, models):
    wide = models.assign(**{f"more_{n}": 0.0 for n in range(50)})
    sequence = NumeraiSequence(shards, 700, target=Residual("target", wide, model="v53"))
    pickled = pickle.dumps(sequence)
    assert len(pickled) < 60 * len(data)
    other = pickle.loads(pickled)
    np.testing.assert_array_equal(other[1][1], sequence[1][1])
    assert other.target.model == "v53"
    assert_residual(
        y_by_id(NumeraiSequence(shards, 700, target=other.target)), expected(data, models)
    )


def test_another_benchmark_is_another_training(shards, models, folder):
    models.to_parquet(folder / "same.parquet")

    def described(benchmark, **options):
        options = {"model": "v53", **options}
        return identity(
            NumeraiSequence(shards, target={"a": Residual("target", benchmark, **options)})
        )

    first = described(models)
    assert described(folder / "same.parquet") == first  # wherever the values are from
    assert described(models.assign(v53=models["v53"].to_numpy()[::-1])) != first
    assert described(models, proportion=0.5) != first
    assert described(models, model="v52") != first
    plain = NumeraiSequence(shards, target="target")
    assert identity(plain)["target"] == "target"


@pytest.mark.parametrize("batch_by", ["rows", "era"])
def test_scores_are_against_the_plain_target(shards, data, models, batch_by):
    def scores(target):
        validation = NumeraiSequence(
            shards, target=target, eras="0015-0020", shuffle=False, batch_by=batch_by
        )
        return EraScores(validation).score(model)

    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.layers.Input((12,)), keras.layers.Dense(1)])
    residual = Residual("target", models, model="v53")
    pd.testing.assert_frame_equal(scores(residual), scores("target"))


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"target": 3}, TypeError, "target: found 3"),
        ({"model": 3}, TypeError, "model: found 3"),
        ({"proportion": True}, TypeError, "proportion: found True"),
        ({"proportion": 1.5}, ValueError, "proportion: found 1.5"),
        ({"proportion": float("nan")}, ValueError, "proportion: found nan"),
        ({"target": "target_x"}, FeatureError, "unknown target of Residual 'target_x'"),
        ({"model": None}, FeatureError, "'v52', 'v53', 'flat'.*model="),
        ({"model": "v5"}, FeatureError, "unknown model of Residual 'v5'; did you mean"),
        ({"benchmark": "missing.parquet"}, NumeraiSequenceError, "no such file"),
        ({"benchmark": "target_mode"}, FeatureError, "did you mean target_model"),
        ({"benchmark": 3}, TypeError, "Residual: benchmark: found 3"),
    ],
)
def test_wrong_argument_is_named(shards, models, arguments, error, words):
    given = {"target": "target", "benchmark": models, "model": "v53", **arguments}
    with pytest.raises(error, match=words):
        NumeraiSequence(
            shards, target=Residual(given.pop("target"), given.pop("benchmark"), **given)
        )


def test_is_shown_in_one_line(models):
    found = repr(Residual("target", models, model="v53"))
    assert found == "Residual('target', DataFrame, model='v53', proportion=1)"
    assert numerai_sequence.Residual is Residual
