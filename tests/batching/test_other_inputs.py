"""Other inputs: benchmark models' predictions reach the model beside the features, by id."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pandas as pd
import pytest
from networks import keras

from numerai_sequence import (
    EraError,
    EraScores,
    FeatureError,
    NumeraiSequence,
    NumeraiSequenceError,
    Residual,
    Resume,
    ensemble,
    export_predict,
    predict,
    write_shards,
)
from numerai_sequence.resuming.run_identity import identity, with_defaults
from numerai_sequence.synthetic import write_parquet

ERAS, FEATURES = 20, 12
COLUMNS = ("v52", "v53")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("inputs")


@pytest.fixture(scope="module")
def data(folder):
    """`late` has no value in the last eras; `target_model` is a column of numbers."""
    write_parquet(folder / "plain.parquet", rows=2000, features=FEATURES, targets=2, min_eras=ERAS)
    data = pd.read_parquet(folder / "plain.parquet")
    data["target_late"] = data["target"].where(data["era"] <= "0017")
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
    """As validation_benchmark_models.parquet, unsorted."""
    values = np.random.default_rng(0).random((len(data), 2))
    frame = pd.DataFrame(values, data.index, COLUMNS).assign(era=data["era"])
    return frame.sample(frac=1, random_state=0)


@pytest.fixture(scope="module")
def live(folder):
    """Rows of another era, as Parquet, and its models in another order of columns and rows."""
    path = write_parquet(
        folder / "live.parquet", rows=300, features=FEATURES, first_era=400, data_type="live"
    )
    ids = pd.read_parquet(path, columns=[]).index
    values = np.random.default_rng(5).random((len(ids), 3))
    frame = pd.DataFrame(values, ids, ["v53", "other", "v52"])
    frame[::-1].to_parquet(folder / "live_benchmark_models.parquet")
    return path


@pytest.fixture
def source(models):
    return {"benchmarks": models}


def make_model(inputs=None, as_dict=True):
    """A model that returns ``10 * feature 0 + v52 + 100 * v53``."""
    widths = {"features": FEATURES, **(inputs or {"benchmarks": 2})}
    layers = {name: keras.layers.Input((width,), name=name) for name, width in widths.items()}
    joined = keras.layers.Concatenate()(list(layers.values()))
    dense = keras.layers.Dense(1, use_bias=False)
    model = keras.Model(layers if as_dict else list(layers.values()), dense(joined))
    kernel = np.zeros((sum(widths.values()), 1), np.float32)
    kernel[0], kernel[FEATURES], kernel[FEATURES + 1 :] = 10, 1, 100
    dense.set_weights([kernel])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    return model


def wanted(data, models):
    """What the model of `make_model` returns of each row, by id."""
    models = models.loc[data.index]
    return data.filter(like="feature_").iloc[:, 0] * 2.5 + models["v52"] + 100 * models["v53"]


def assert_rows(sequence, data, models, columns=COLUMNS):
    """Each row comes once, with the values of its id."""
    seen = []
    for number in range(len(sequence)):
        batch = sequence[number]
        x = batch[0] if isinstance(batch, tuple) else batch
        ids = sequence.column("id", batch=number).to_pylist()
        assert list(x) == ["features", "benchmarks"]
        assert x["benchmarks"].dtype == np.float32
        assert x["benchmarks"].flags.c_contiguous
        expected = models.loc[ids, list(columns)].to_numpy(np.float32)
        np.testing.assert_array_equal(x["benchmarks"], expected)
        digits = data.loc[ids, list(sequence.features)].to_numpy()
        scale = 1 if sequence.dtype == "int8" else 4
        np.testing.assert_array_equal(x["features"] * scale, digits)
        seen += ids
    assert len(seen) == sequence.rows == len(set(seen))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"run_rows": 4, "dtype": "int8"},
        {"batch_by": "era", "batch_size": 2, "dtype": "float16"},
        {"shuffle": False, "target": None},
        {"features": "every third", "missing_target": "mask"},
        {"rank": 1, "world_size": 3},
        {"eras": "0003-0011", "missing_target": "drop", "target": "target_late"},
    ],
    ids=lambda options: "-".join(options) or "plain",
)
def test_each_row_has_the_values_of_its_id(shards, data, models, source, options):
    options = {"batch_size": 130, **options}
    if options.get("features"):
        options["features"] = shards.features[::3]
    sequence = NumeraiSequence(shards, inputs=source, **options)
    assert sequence.inputs == {"benchmarks": COLUMNS}
    if options.get("rank") is None:
        assert_rows(sequence, data, models)
    part = NumeraiSequence(shards[1::2], inputs=source, **options)
    x = part[0][0] if isinstance(part[0], tuple) else part[0]
    ids = part.column("id", batch=0).to_pylist()
    np.testing.assert_array_equal(
        x["benchmarks"], models.loc[ids, list(COLUMNS)].to_numpy(np.float32)
    )


def test_y_and_weights_are_as_without_inputs(shards, models, source):
    options = {
        "target": {"main": Residual("target", models["v53"]), "decoded": "features"},
        "sample_weight": dict.fromkeys(shards.eras, 0.5),
        "missing_target": "mask",
    }
    plain, fed = (NumeraiSequence(shards, 300, inputs=i, **options) for i in (None, source))
    (x, y, weight), (found_x, found_y, found_weight) = plain[2], fed[2]
    np.testing.assert_array_equal(found_x["features"], x)
    assert found_y["decoded"] is found_x["features"]
    for name in y:
        np.testing.assert_array_equal(found_y[name], y[name])
        np.testing.assert_array_equal(found_weight[name], weight[name])
    assert isinstance(NumeraiSequence(shards, 300, inputs={})[0][0], np.ndarray)


def in_files(models, folder):
    early = models["era"] < "0011"
    models[early].to_parquet(folder / "early.parquet")
    models[~early].to_csv(folder / "late.csv")
    return [str(folder / "early.parquet"), folder / "late.csv"]


SOURCES = {
    "files": (in_files, COLUMNS),
    "files and columns": (lambda m, f: (in_files(m, f), ["v53"]), ("v53",)),
    "an Index of columns": (lambda m, f: (m, m.columns[1:2]), ("v53",)),
    "columns in another order": (lambda m, f: (m, ["v53", "v52"]), ("v53", "v52")),
    "a Series": (lambda m, f: m["v53"], ("v53",)),
    "names": (lambda m, f: {"v52": m["v53"], "v53": m["v52"]}, None),
    "columns of the set": (lambda m, f: ["target_model", "target"], ("target_model", "target")),
    "a column of the set": (lambda m, f: "target_model", ("target_model",)),
}


@pytest.mark.parametrize("form", SOURCES)
def test_sources_are_of_many_kinds(shards, data, models, folder, form):
    make, columns = SOURCES[form]
    sequence = NumeraiSequence(shards, 700, inputs={"benchmarks": make(models, folder)})
    if columns is None:
        swapped = models.rename(columns={"v52": "v53", "v53": "v52"})
        assert_rows(sequence, data, swapped)
    else:
        values = models.join(data[["target_model", "target"]])
        assert sequence.inputs == {"benchmarks": columns}
        assert_rows(sequence, data, values, columns)


def test_row_without_value_is_refused(shards, data, models):
    some = models[(models["era"] < "0019") & (models.index != data.index[0])]
    lacking = len(data) - len(some)
    words = rf"inputs\['benchmarks'\]: column 'v52' has no value in {lacking} of 2,000 rows"
    for options in ({}, {"missing_target": "drop"}, {"missing_target": "mask"}):
        with pytest.raises(EraError, match=words + r" \(3 eras, 0001 to 0020\).* eras=") as caught:
            NumeraiSequence(shards, inputs={"benchmarks": some}, **options)
        assert caught.value.eras == ["0001", "0019", "0020"]
    assert_rows(NumeraiSequence(shards, inputs={"benchmarks": some}, eras="2-18"), data, models)
    # A row that is left out needs none.
    late = models[models["era"] <= "0017"]
    options = {"target": "target_late", "missing_target": "drop"}
    sequence = NumeraiSequence(shards, 300, inputs={"benchmarks": late}, **options)
    assert_rows(sequence, data, models)


def test_whole_eras_need_all_their_values(shards, models, folder, data):
    """Rows without a target are in a batch of a whole era, though they are not trained on."""
    some = data["target"].where(data.index.isin(models.index[::2]))
    path = folder / "some.parquet"
    data.assign(target=some).to_parquet(path)
    half = models[::2]
    with write_shards(path, folder / "some", progress=False) as opened:
        options = {"missing_target": "drop", "shuffle": False}
        sequence = NumeraiSequence(opened, inputs={"benchmarks": half}, **options)
        with pytest.raises(EraError, match="has no value in 1,000 of 2,000 rows"):
            sequence.in_whole_eras()
        whole = NumeraiSequence(opened, inputs={"benchmarks": models}, **options).in_whole_eras()
        assert_rows(whole, data, models)
        assert whole.rows == 2000


@pytest.mark.parametrize("as_dict", [True, False], ids=["dict", "list"])
def test_trained_scored_saved_and_predicted(shards, data, models, source, live, folder, as_dict):
    model = make_model(as_dict=as_dict)
    sequence = NumeraiSequence(shards, 300, inputs=source)
    validation = NumeraiSequence(shards, inputs=source, eras="0015-", shuffle=False)
    scores = EraScores(validation, exposure=True)
    history = model.fit(
        sequence, epochs=2, verbose=0, callbacks=[scores], validation_data=validation, workers=2
    ).history
    loss = ((wanted(data, models) - data["target"]) ** 2).mean()
    assert history["loss"] == [pytest.approx(loss, rel=1e-4)] * 2
    assert model.evaluate(sequence, verbose=0) == pytest.approx(loss, rel=1e-4)
    ordered = sequence.in_order(700)
    found = model.predict(ordered, verbose=0)[:, 0]
    expected = wanted(data, models)[ordered.column("id").to_pylist()]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    of_era = wanted(data, models)[data["era"] == "0016"].rank()
    assert scores.table["corr"].notna().all()
    assert scores.table["exposure"].between(0, 1).all()
    assert of_era.corr(data["target"]) == pytest.approx(scores.table["corr"]["0016"], abs=0.05)

    model.save(folder / f"{as_dict}.keras")
    for one in (model, folder / f"{as_dict}.keras"):
        inputs = {"benchmarks": folder / "live_benchmark_models.parquet"}
        frame = predict(one, live, inputs=inputs, progress=False)
        rows = pd.read_parquet(live)
        their = pd.read_parquet(inputs["benchmarks"])
        np.testing.assert_allclose(frame["prediction"], wanted(rows, their), rtol=1e-5)
        frame = predict(one, shards, inputs=source, eras="::4", progress=False)
        np.testing.assert_allclose(
            frame["prediction"], wanted(data, models)[frame.index], rtol=1e-5
        )


def test_several_models_take_parts_of_the_same_sources(shards, data, models):
    plain = keras.Sequential([keras.layers.Input((FEATURES,)), keras.layers.Dense(1)])
    plain.compile("sgd", "mse")
    both, one = make_model(), make_model({"benchmarks": 1})
    columns = {"both": None, "one": ["v53"]}
    for name, model in (("both", both), ("one", one)):
        given = models if columns[name] is None else (models, columns[name])
        model.fit(NumeraiSequence(shards, 700, inputs={"benchmarks": given}), verbose=0)
    plain.fit(NumeraiSequence(shards, 700, features=shards.features), verbose=0)
    together = {"plain": plain, "one": one, "both": both}
    found = predict(together, shards, inputs={"benchmarks": models}, progress=False)
    alone = predict(plain, shards, progress=False)
    np.testing.assert_allclose(found["plain"], alone["prediction"], rtol=1e-5)
    expected = wanted(data, models)[found.index]
    np.testing.assert_allclose(found["both"], expected, rtol=1e-5)
    v52, v53 = (models.loc[found.index, name] for name in COLUMNS)
    np.testing.assert_allclose(found["one"], expected - v52 - 99 * v53, rtol=1e-4)
    with pytest.raises(
        FeatureError, match="model 'one': model: found no source for its input 'benchmarks'"
    ):
        predict(together, shards, progress=False)


def test_predict_without_its_inputs_or_with_others_says_so(shards, models, source, folder):
    model = make_model()
    model.fit(NumeraiSequence(shards, 700, inputs=source), verbose=0)
    with pytest.raises(FeatureError, match=r"'benchmarks' with the columns \['v52', 'v53'\]"):
        predict(model, shards, progress=False)
    with pytest.raises(FeatureError, match="unknown column 'v52'"):
        predict(model, shards, inputs={"benchmarks": models[["v53"]]}, progress=False)
    with pytest.raises(FeatureError, match="column 'v52', which the model takes, is missing"):
        predict(model, shards, inputs={"benchmarks": (models, ["v53"])}, progress=False)
    with pytest.raises(FeatureError, match="'others', which the model was not trained with"):
        predict(model, shards, inputs={**source, "others": models}, progress=False)
    with pytest.raises(EraError, match="has no value in"):
        predict(model, shards, inputs={"benchmarks": models[:-1]}, progress=False)
    for other in (None, {"benchmarks": (models, ["v53", "v52"])}, {"more": models}):
        sequence = NumeraiSequence(shards, 700, inputs=other)
        with pytest.raises(FeatureError, match=r"evaluate: found .*, as in training"):
            model.evaluate(sequence, verbose=0)
    with pytest.raises(FeatureError, match="as in training"):
        EraScores(NumeraiSequence(shards, shuffle=False)).score(model)


def trained(shards, inputs, **options):
    """A model with random weights that remembers its inputs."""
    sequence = NumeraiSequence(shards, 700, inputs=inputs, **options)
    x = {"features": keras.Input((FEATURES,), name="features", dtype=sequence.dtype)}
    x |= {
        name: keras.Input((len(one),), name=name) for name, one in (sequence.inputs or {}).items()
    }
    floats = dict(x)
    if sequence.dtype == "int8":
        floats["features"] = keras.layers.Rescaling(0.25, dtype="float32")(x["features"])
    several = list(floats.values())
    joined = keras.layers.Concatenate()(several) if several[1:] else several[0]
    hidden = keras.layers.Dense(5, activation="tanh")(joined)
    model = keras.Model(x if several[1:] else several[0], keras.layers.Dense(1)(hidden))
    model.compile("sgd", "mse")
    model.fit(sequence if inputs else NumeraiSequence(shards, 700, **options), verbose=0)
    return model


def test_an_upload_takes_them_from_the_second_argument(shards, models, live, folder):
    given = {"benchmarks": models, "newest": (models, ["v53"])}
    both = trained(shards, given, dtype="int8" if hasattr(keras, "ops") else "float32")
    several = {
        "plain": trained(shards, None),
        "both": both,
        "eras": trained(shards, {"benchmarks": models}, batch_by="era"),
    }
    frame = pd.read_parquet(live).sample(frac=1, random_state=3)
    frame.to_parquet(folder / "shuffled.parquet")
    others = pd.read_parquet(folder / "live_benchmark_models.parquet")
    path = folder / "live_benchmark_models.parquet"
    for asked, inputs in (
        (both, {"benchmarks": path, "newest": (path, ["v53"])}),
        (several, {"benchmarks": path, "newest": (path, ["v53"])}),
    ):
        export_predict(asked, folder / "p.pkl")
        function = pickle.loads((folder / "p.pkl").read_bytes())
        found = function(frame, others)
        how = {"inputs": inputs, "with_era": True, "progress": False}
        expected = ensemble(predict(asked, folder / "shuffled.parquet", **how))
        np.testing.assert_array_equal(found["prediction"], expected["prediction"])
    moved = others.sample(frac=1, random_state=1).assign(more=1.0, era="X")
    pd.testing.assert_frame_equal(function(frame, moved), found)
    other = others.assign(v53=others["v53"].to_numpy()[::-1])
    assert not function(frame, other).equals(found)
    for wrong, words in (
        (None, "live_benchmark_models: found None, expected a frame with the column 'v5"),
        (others.drop(columns="v53"), "found 0 columns 'v53'"),
        (pd.concat([others, others[["v53"]]], axis=1), "found 2 columns 'v53'"),
        (
            others[1:],
            f"no row for 1 of {len(frame)} ids of live_features, such as '{others.index[0]}",
        ),
        (pd.concat([others, others[:1]]), "found id .* twice"),
        (others.reset_index(), "expected all ids in its index"),
        (others.assign(v53=np.nan), f"column 'v53' is NaN or infinite for {len(frame)} of"),
    ):
        with pytest.raises(ValueError, match=words):
            function(frame, wrong)


def test_features_of_integers_are_known_beside_other_inputs(shards, source):
    features = keras.layers.Input((FEATURES,), name="features", dtype="int8")
    others = keras.layers.Input((2,), name="benchmarks")
    for taken in ({"features": features, "benchmarks": others}, [others, features]):
        cast = keras.layers.Lambda(lambda x: keras.backend.cast(x, "float32"))
        if hasattr(keras, "ops"):
            cast = keras.layers.Rescaling(1.0, dtype="float32")
        joined = keras.layers.Concatenate()([cast(features), others])
        model = keras.Model(taken, keras.layers.Dense(1)(joined))
        model.compile("sgd", "mse")
        with pytest.raises(FeatureError, match="use dtype='int8'"):
            model.fit(NumeraiSequence(shards, 700, inputs=source), verbose=0)
        model.fit(NumeraiSequence(shards, 700, inputs=source, dtype="int8"), verbose=0)


def test_a_model_that_remembers_nothing_takes_what_is_given(shards, data, models, source):
    sequence = NumeraiSequence(shards, 700, inputs=source)
    expected = wanted(data, models)
    for options in ({"like": sequence}, {"features": shards.features, "dtype": "float32"}):
        frame = predict(make_model(), shards, inputs=source, progress=False, **options)
        np.testing.assert_allclose(frame["prediction"], expected[frame.index], rtol=1e-5)
    for name in ("benchmark", "benchmarks"):
        with pytest.raises(FeatureError, match="which the model takes"):
            predict(
                make_model(),
                shards,
                inputs={name: models["v53"]},
                like=None,
                progress=False,
                features=shards.features,
            )


def test_a_model_that_was_saved_before_there_were_inputs(shards, folder):
    model = keras.Sequential([keras.layers.Input((FEATURES,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(NumeraiSequence(shards, 700), verbose=0)
    model.save(folder / "old.keras")
    import zipfile

    with zipfile.ZipFile(folder / "old.keras") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    [name] = [name for name in parts if name.endswith("numerai_sequence.json")]
    document = json.loads(parts[name])
    assert document.pop("inputs") is None
    parts[name] = json.dumps(document).encode()
    with zipfile.ZipFile(folder / "old.keras", "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    frame = predict(folder / "old.keras", shards, progress=False)
    pd.testing.assert_frame_equal(frame, predict(model, shards, progress=False))


class Scaled(NumeraiSequence):
    """A class of one's own sees the other inputs, and may change them."""

    def __getitem__(self, index):
        x, *rest = super().__getitem__(index)
        return {**x, "benchmarks": 2 * x["benchmarks"]}, *rest


def test_a_class_of_ones_own_has_its_inputs(shards, data, models, source):
    model = make_model()
    sequence = Scaled(shards, 700, inputs=source)
    model.fit(sequence, verbose=0)
    expected = wanted(data, models.assign(v52=2 * models["v52"], v53=2 * models["v53"]))
    frame = predict(model, shards, like=sequence, inputs=source, progress=False)
    np.testing.assert_allclose(frame["prediction"], expected[frame.index], rtol=1e-5)
    EraScores(Scaled(shards, inputs=source, shuffle=False)).score(model)


def test_another_process_has_the_values(shards, data, models, source, nothing_left):
    model = make_model()
    sequence = NumeraiSequence(shards, 700, inputs=source)
    assert_rows(pickle.loads(pickle.dumps(sequence)), data, models)
    history = model.fit(sequence, verbose=0, workers=2, use_multiprocessing=True).history
    loss = ((wanted(data, models) - data["target"]) ** 2).mean()
    assert history["loss"] == [pytest.approx(loss, rel=1e-4)]


def test_other_values_are_another_training(shards, models, source, tmp_path):
    first = identity(NumeraiSequence(shards, inputs=source))
    assert json.loads(json.dumps(first)) == first
    other = models.assign(v52=models["v53"])
    assert identity(NumeraiSequence(shards, inputs={"benchmarks": other})) != first
    assert identity(NumeraiSequence(shards, inputs={"b": models})) != first
    plain = identity(NumeraiSequence(shards))
    assert with_defaults({k: v for k, v in plain.items() if k != "inputs"}) == plain
    model, again = make_model(), make_model()
    options = {"verbose": 0, "epochs": 1}
    model.fit(NumeraiSequence(shards, 300, inputs=source), callbacks=[Resume(tmp_path)], **options)
    options["epochs"] = 2
    with pytest.raises(NumeraiSequenceError, match="inputs"):
        again.fit(
            NumeraiSequence(shards, 300, inputs={"benchmarks": other}),
            callbacks=[Resume(tmp_path)],
            **options,
        )
    again.fit(NumeraiSequence(shards, 300, inputs=source), callbacks=[Resume(tmp_path)], **options)


@pytest.mark.parametrize(
    ("inputs", "error", "words"),
    [
        (["v53"], TypeError, "inputs: found"),
        ({3: "m.parquet"}, TypeError, "inputs: found 3"),
        ({"features": "m.parquet"}, ValueError, "an input 'features', expected another name"),
        ({"b": "missing.parquet"}, NumeraiSequenceError, "no such file"),
        ({"b": "target_mode"}, FeatureError, "did you mean target_model"),
        ({"b": ("target_model", None)}, TypeError, "expected a list of column names"),
        ({"b": ("target_model", [])}, ValueError, r"inputs\['b'\]: found no column"),
        ({"b": ("target_model", ["a", "a"])}, FeatureError, "'a' is named twice"),
        ({"b": ("target_model", ["target"])}, FeatureError, "unknown column 'target'"),
        ({"b": 3}, TypeError, r"inputs\['b'\]: found 3"),
        ({"b": None}, TypeError, r"inputs\['b'\]: found None"),
    ],
)
def test_wrong_argument_is_named(shards, inputs, error, words):
    with pytest.raises(error, match=words):
        NumeraiSequence(shards, inputs=inputs)


def test_inputs_stay_as_they_were_made(shards, source):
    sequence = NumeraiSequence(shards, inputs=source)
    sequence.inputs.clear()
    assert sequence.inputs == {"benchmarks": COLUMNS}
    with pytest.raises(AttributeError, match="make a new NumeraiSequence"):
        sequence.inputs = {}
