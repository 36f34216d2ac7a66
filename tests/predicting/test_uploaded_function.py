"""Uploads: one function holds several models, their ensemble, and its neutralization."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from networks import keras
from numerai_tables import write_features_json
from numerai_tools.scoring import neutralize as neutralize_by_numerai
from numerai_tools.scoring import tie_kept_rank

from numerai_sequence import (
    FeatureError,
    NumeraiSequence,
    NumeraiSequenceError,
    SourceError,
    ensemble,
    export_predict,
    neutralize,
    predict,
    write_shards,
)
from numerai_sequence.commands.main import main
from numerai_sequence.feeding.model_input import note_input
from numerai_sequence.ordering.eras import sort_eras
from numerai_sequence.predicting.uploaded import Live
from numerai_sequence.scoring import forward_pass
from numerai_sequence.synthetic import write_parquet
from numerai_sequence.training.run_folder import Run, save_model, write_run

L = keras.layers
FEATURES = 12
WEIGHTS = {"narrow": 0.5, "wide/p": 2, "wide/q": -1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files of twelve eras whose rows come in any order, of one era, and a shard set."""
    folder = tmp_path_factory.mktemp("uploads")
    write_parquet(folder / "train.parquet", rows=900, features=FEATURES, min_eras=12)
    frame = pd.read_parquet(folder / "train.parquet").sample(frac=1, random_state=0)
    frame.to_parquet(folder / "mixed.parquet")
    frame[:150].assign(era="X").to_parquet(folder / "live.parquet")
    names = [name for name in frame if name.startswith("feature")]
    write_features_json(folder / "features.json", small=names[7:2:-1], all=names)
    return folder


@pytest.fixture(scope="module")
def shards(folder):
    with write_shards(folder / "train.parquet", folder / "set", progress=False) as opened:
        yield opened


def network(features, *, scale=1.0, outputs=None, by_batch=False, seed=0):
    """A network of any weights; with by_batch it takes the mean of its batch away."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((features,))
    x = L.Dense(8, "tanh")(L.Rescaling(scale)(inputs))
    x = x - keras.ops.mean(x, axis=0, keepdims=True) if by_batch else x
    made = [L.Dense(1, name=name)(x) for name in outputs or [None]]
    return keras.Model(inputs, made if outputs else made[0])


@pytest.fixture(scope="module")
def models(shards):
    """Two models of three columns, of other features, orders and scales."""
    narrow, wide = network(5, scale=0.25), network(FEATURES, outputs=["p", "q"], seed=1)
    some = [shards.features[place] for place in (6, 1, 9, 3, 0)]
    note_input(narrow, NumeraiSequence(shards, features=some, dtype="int8"))
    note_input(wide, NumeraiSequence(shards))
    return {"narrow": narrow, "wide": wide}


@pytest.fixture
def small_batches(monkeypatch):
    """Batches of 70 rows at most, as are 3,555 features of live data cut into several."""
    monkeypatch.setattr(forward_pass, "_BATCH_BYTES", 4 * FEATURES * 70)


def exported(model, folder, **options):
    path = export_predict(model, folder / "p.pkl", **options)
    return pickle.loads(path.read_bytes())


def by_the_functions(model, file, *, by=None, weights=None, features=None, proportion=1, **options):
    """What `predict`, `ensemble` and `neutralize` make of a file."""
    frame = predict(model, file, with_era=True, progress=False, **options)
    if by is not None:
        frame = ensemble(frame, weights, by=by)
    if features is not None:
        frame = neutralize(frame, file, features=features, proportion=proportion, progress=False)
    return ensemble(frame, eras=file)


def assert_same_bits(function, file, expected):
    found = function(pd.read_parquet(file))
    pd.testing.assert_frame_equal(found, expected, check_exact=True)
    assert found["prediction"].between(0, 1, inclusive="neither").all()
    assert found["prediction"].nunique() > 10


CASES = [
    ("rows", {}, {}),
    ("era", {"ensemble": "gaussian", "weights": WEIGHTS}, {}),
    ("rows", {"weights": [1, 0, 3]}, {"features": "small", "proportion": 0.5}),
]


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize(("batch_by", "blend", "neutral"), CASES)
def test_the_function_gives_the_bits_of_the_functions(
    models, shards, folder, tmp_path, batch_by, blend, neutral
):
    asked = {"neutralize": shards.feature_sets["small"], **neutral} if neutral else {}
    asked.pop("features", None)
    function = exported(models, tmp_path, batch_by=batch_by, **blend, **asked)
    by, weights = blend.get("ensemble", "rank"), blend.get("weights")
    for file in (folder / "mixed.parquet", folder / "live.parquet"):
        expected = by_the_functions(
            models, file, batch_by=batch_by, by=by, weights=weights, **neutral
        )
        assert_same_bits(function, file, expected)
    live = pd.read_parquet(file)
    for given in (live.drop(columns="era"), live[live.columns[::-1]]):
        pd.testing.assert_frame_equal(function(given), expected, check_exact=True)
    names = list(shards.features)
    pd.testing.assert_frame_equal(
        function(live.assign(**(live[names].astype("float32") / 4))), expected, check_exact=True
    )


@pytest.mark.skipif(not hasattr(keras, "ops"), reason="Keras 2 has no such operations")
@pytest.mark.usefixtures("small_batches")
def test_batches_are_those_of_a_files_predict(shards, folder, tmp_path):
    """Where a prediction depends on the batch, another order or another cut would show."""
    model = network(FEATURES, by_batch=True)
    options = {"like": NumeraiSequence(shards), "batch_by": "rows"}
    function = exported(model, tmp_path, ranked=False, **options)
    for name in ("mixed", "live"):
        file = folder / f"{name}.parquet"
        expected = predict(model, file, progress=False, **options)
        del expected.attrs["features"]
        found = function(pd.read_parquet(file))
        pd.testing.assert_frame_equal(found, expected, check_exact=True)


def test_one_model_is_neutralized_to_features_that_it_does_not_take(
    models, shards, folder, tmp_path
):
    model, file = models["narrow"], folder / "mixed.parquet"
    names = [shards.features[place] for place in (11, 2, 3)]
    assert not {names[0], names[1]} & set(predict(model, shards, progress=False).attrs["features"])
    function = exported(model, tmp_path, neutralize=names, proportion=0.7)
    assert_same_bits(function, file, by_the_functions(model, file, features=names, proportion=0.7))
    with pytest.raises(ValueError, match=rf"no column '{names[0]}'.*3 features that predictions"):
        function(pd.read_parquet(file).drop(columns=names[0]))
    holey = pd.read_parquet(file)
    holey[names[0]] = holey[names[0]].where(np.arange(len(holey)) != 5).astype("float32")
    filled = holey.assign(**{names[0]: holey[names[0]].fillna(2).astype("int8")})
    pd.testing.assert_frame_equal(function(holey), function(filled), check_exact=True)
    found = exported(model, tmp_path, neutralize=names, ranked=False)(pd.read_parquet(file))
    plain = predict(model, file, progress=False)
    expected = neutralize(plain, file, features=names, progress=False)
    assert found["prediction"].tolist() == expected["prediction"].tolist()


def test_the_function_does_what_numerai_tools_does(models, shards, folder, tmp_path):
    """Of the whole frame, era by era."""
    file = folder / "mixed.parquet"
    options = {"weights": WEIGHTS, "neutralize": True, "proportion": 0.5}
    found = exported(models, tmp_path, **options)(pd.read_parquet(file))
    data, columns = pd.read_parquet(file), predict(models, file, progress=False)
    expected = []
    for _, rows in data.groupby("era"):
        ranks = tie_kept_rank(columns.loc[rows.index].sort_index()) * pd.Series(WEIGHTS)
        blended = tie_kept_rank(ranks.sum(axis=1).to_frame("prediction"))
        features = data.loc[blended.index, list(shards.features)].astype(float)
        expected.append(tie_kept_rank(neutralize_by_numerai(blended, features, 0.5)))
    expected = pd.concat(expected).loc[found.index]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_a_feature_set_is_that_of_the_training_set_or_of_a_file(models, shards, folder, tmp_path):
    def neutral(name, **options):
        function = exported(models["narrow"], tmp_path, neutralize=name, **options)
        return function.__globals__["known"]["neutral"]

    few = list(shards.feature_sets["small"])
    like = {"like": NumeraiSequence(shards, features=shards.features[:1])}
    taken = predict(models["narrow"], shards, progress=False).attrs["features"]
    assert neutral("small", features_json=folder / "features.json") == few
    assert neutral(True) == taken
    assert neutral(False) == []
    refused = {
        (FeatureError, r"the feature set 'small' is not known; give features_json="): {},
        (FeatureError, "unknown feature set 'smal'; did you mean small"): {
            "features_json": folder / "features.json"
        },
        (SourceError, "nowhere.json"): {"features_json": tmp_path / "nowhere.json"},
    }
    for (error, message), options in refused.items():
        with pytest.raises(error, match=message):
            neutral("smal" if "'smal'" in message else "small", **options)
    model = network(1)
    function = exported(model, tmp_path, **like, neutralize="small")
    assert function.__globals__["known"]["neutral"] == few
    with pytest.raises(FeatureError, match="neutralize: unknown feature 'feature_none'"):
        export_predict(model, tmp_path / "q.pkl", **like, neutralize=["feature_none"])
    assert not (tmp_path / "q.pkl").exists()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"weights": [1, 2]}, ValueError, "weights: found 2, expected 3"),
        ({"weights": {"narrow": 1, "wide": 1}}, ValueError, "weights: found 2 weights"),
        ({"weights": [0, 0, 0]}, ValueError, "not all 0"),
        ({"ensemble": "mean"}, ValueError, "ensemble: found 'mean', expected one of"),
        ({"proportion": 0.5}, ValueError, "proportion: found 0.5 without neutralize="),
        ({"neutralize": True, "proportion": 2}, ValueError, "proportion: found 2"),
        ({"neutralize": ["a", "b", "a"]}, FeatureError, "neutralize: feature 'a' is named twice"),
        ({"neutralize": []}, FeatureError, "neutralize: found no features"),
        ({"neutralize": {"a"}}, TypeError, "neutralize: found a set, whose order"),
        ({"neutralize": 3}, TypeError, "neutralize: found an int, expected a list"),
        ({"like": {"narow": None}}, ValueError, "like: found 'narow', expected the name of"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_wrong_options_are_refused(models, tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        export_predict(models, tmp_path / "p.pkl", **options)
    assert not list(tmp_path.iterdir())


def test_errors_name_the_model(models, folder, tmp_path):
    broken = network(FEATURES)
    broken.set_weights([np.full_like(one, np.nan) for one in broken.get_weights()])
    note_input(broken, NumeraiSequence(folder / "set"))
    with pytest.raises(NumeraiSequenceError, match=r"model 'broken': .*predictions are NaN"):
        export_predict({"broken": broken, **models}, tmp_path / "p.pkl")
    with pytest.raises(ValueError, match=r"model 'new'.*does not remember"):
        export_predict({"new": network(3), **models}, tmp_path / "p.pkl")
    with pytest.raises(ValueError, match="two columns named 'wide/p'"):
        export_predict({**models, "wide/p": models["narrow"]}, tmp_path / "p.pkl")
    function = exported(models, tmp_path)
    live = pd.read_parquet(folder / "live.parquet")
    with pytest.raises(ValueError, match=r"'feature_.* 12 features that the models were trained"):
        function(live.drop(columns=live.columns[live.columns.str.startswith("feature")][2]))
    packed = function.__globals__["known"]["models"][1]
    packed["expected"] = [[two, one] for one, two in packed["expected"]]
    with pytest.raises(ValueError, match="the model 'wide' predicts other values on"):
        function(live)


def test_what_features_explain_cannot_be_ranked(models, folder, tmp_path):
    function = exported(models["narrow"], tmp_path, neutralize=True)
    live = pd.read_parquet(folder / "live.parquet")
    with pytest.raises(ValueError, match="5 features explain all of its 6 predictions of era X"):
        function(live[:6])


def test_eras_are_in_the_order_of_time():
    eras = ["X", "0010", "0002", "era3", "2", "W", "0002", None, "12"]
    known = {"models": [{"inputs": {}}], "features": [], "neutral": []}
    known |= {"batch_by": "rows", "batch_rows": 99}
    frame = pd.DataFrame({"era": eras, "feature_a": np.arange(9) % 5})
    [order] = Live(frame, known)._batches()
    found = [eras[place] for place in order]
    assert found == [*sort_eras(era for era in eras if era is not None), None]


def write_runs(folder, models, shards):
    for name, model in models.items():
        (folder / name).mkdir(parents=True)
        save_model(model, folder / name)
        features, dtype = tuple(shards.features), "float32"
        write_run(Run({"options": {}}, features, dtype, None, (), (), {}, {}, {}), folder / name)
    return folder


def run(*arguments):
    return CliRunner().invoke(main, [*map(str, arguments)])


def test_the_command_exports_a_folder_of_runs(shards, folder, tmp_path):
    seeds = {f"seed-{seed}": network(FEATURES, seed=seed) for seed in (2, 10)}
    runs = write_runs(tmp_path / "runs", seeds, shards)
    out = tmp_path / "p.pkl"
    options = ["--ensemble", "gaussian", "--weights", "1,3", "--proportion", 0.5]
    sets = ["--neutralize", "small", "--features-json", folder / "features.json"]
    result = run("export", runs, "--out", out, *options, *sets)
    assert result.exit_code == 0, result.output
    said = "2 models of 12 features as float32, neutralized to 5 features by 0.5"
    assert result.output.splitlines()[0] == f"{out}: {said}"
    file = folder / "live.parquet"
    expected = by_the_functions(
        seeds,
        file,
        like=NumeraiSequence(shards),
        by="gaussian",
        weights=[1, 3],
        features="small",
        proportion=0.5,
    )
    assert_same_bits(pickle.loads(out.read_bytes()), file, expected)
    result = run("export", runs, "--out", out)
    assert result.output.splitlines()[0] == f"{out}: 2 models of 12 features as float32"
    refused = {
        ("--weights", "1,3"): (2, "--weights: found it without --ensemble"),
        ("--proportion", 0.5): (2, "--proportion: found it without --neutralize"),
        ("--neutralize", "small"): (1, "the feature set 'small' is not known"),
        ("--ensemble", "rank", "--weights", "1"): (1, "weights: found 1, expected 2"),
    }
    for wrong, (code, message) in refused.items():
        result = run("export", runs, "--out", out, *wrong)
        assert result.exit_code == code
        assert message in result.stderr
    result = run("export", runs / "seed-2", "--out", out, "--ensemble", "rank")
    assert (result.exit_code, "leave --ensemble out" in result.stderr) == (1, True)
    result = run("export", runs / "seed-2", "--out", out, "--neutralize", "all")
    assert "12 features as float32, neutralized to 12 features by 1" in result.output
