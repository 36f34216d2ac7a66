"""Predictions: each row's own, by its id, of every kind of data and every kind of model."""

from __future__ import annotations

import gc
import pickle
import sys
import tempfile
import weakref
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from networks import keras, model_of, row_kernel, row_model
from numerai_tables import numerai_table, ragged_eras, write_features_json, write_source

from numerai_sequence import (
    FeatureError,
    NumeraiSequence,
    NumeraiSequenceError,
    SourceError,
    write_shards,
)
from numerai_sequence.predicting import data_argument as data_module
from numerai_sequence.predicting.export import export_predict
from numerai_sequence.predicting.predictions import predict
from numerai_sequence.scoring import forward_pass as forward_module
from numerai_sequence.writing import source_columns as source_module
from numerai_sequence.writing.parquet_reader import Parquet

FEATURES = [f"feature_{number:03d}" for number in range(14)]
IDS = [f"n{number:015x}" for number in range(1037)]


@pytest.fixture(scope="module")
def model():
    return row_model()


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The folder that temporary folders are made in."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def pandas_file(path, values="int8", id_is="index"):
    """The rows of `write_source`, written by pandas as Numerai does."""
    frame = numerai_table(id_is="column", values=values).to_pandas()
    if values == "Int8":
        frame = frame.astype(dict.fromkeys(FEATURES, "Int8"))
    if id_is != "column":
        frame = frame.set_index("id").rename_axis("id" if id_is == "index" else None)
    frame.to_parquet(path)
    return path


def numbers_of(frame):
    return [int(name[1:], 16) for name in frame.index]


def pandas_predictions(model, path, features=FEATURES):
    """What the model says of the columns as pandas reads them, and the frame's index."""
    frame = pd.read_parquet(path)
    x = frame[features].to_numpy(np.float32)
    if x.max() > 1:
        x = x * np.float32(0.25)
    index = frame.index if "id" not in frame else pd.Index(frame["id"])
    return index, model.predict(x, verbose=0, batch_size=len(x))


def silent(model, data, **options):
    return predict(model, data, progress=False, **options)


# What the rows come from


def test_a_shard_set_is_predicted_in_the_order_of_its_files(model, shards):
    frame = silent(model, shards)
    assert list(frame.index) == shards.column("id").to_pylist()
    assert frame.index.name == "id"
    assert list(frame.columns) == ["prediction"]
    assert frame["prediction"].dtype == np.float32
    assert frame["prediction"].tolist() == numbers_of(frame)
    assert sorted(numbers_of(frame)) == list(range(1037))
    assert shards.column("era") is not None  # it is the caller's, and stays open


def test_shards_may_be_a_folder_a_glob_or_files(model, shards):
    expected = silent(model, shards)
    for data in (shards.folder, str(shards.folder / "shard-*.arrow"), shards.paths):
        pd.testing.assert_frame_equal(silent(model, data), expected)
    pd.testing.assert_frame_equal(silent(model, shards[3:5]), silent(model, shards.paths[3:5]))


@pytest.mark.parametrize("values", ["int8", "Int8", "float32", "float64"])
@pytest.mark.parametrize("id_is", ["index", "column", "unnamed index"])
def test_a_parquet_file_is_predicted_in_its_own_order(model, tmp_path, values, id_is, temporary):
    path = pandas_file(tmp_path / "some.parquet", values, id_is)
    frame = silent(model, path)
    index, expected = pandas_predictions(model, path)
    assert list(frame.index) == list(index) == IDS
    assert frame["prediction"].to_numpy().tobytes() == expected.astype(np.float32).tobytes()
    assert frame["prediction"].tolist() == list(range(1037))
    assert not list(temporary.iterdir())


@pytest.mark.parametrize("row_group_rows", [None, 7, 300])
def test_interleaved_eras_keep_the_files_order(model, tmp_path, row_group_rows):
    eras = np.random.default_rng(0).permutation(ragged_eras(1037, 23))
    path = write_source(tmp_path / "a.parquet", eras=eras, row_group_rows=row_group_rows)
    frame = silent(model, path, batch_size=100)
    assert list(frame.index) == IDS
    assert frame["prediction"].tolist() == list(range(1037))


def test_live_data_need_no_targets(model, tmp_path):
    table = numerai_table(eras=np.zeros(1037), era_names="X", targets=())
    without = tmp_path / "without.parquet"
    pq.write_table(table.drop_columns(["data_type"]), without)
    nulls = tmp_path / "nulls.parquet"
    pq.write_table(table.append_column("target", pa.nulls(1037, pa.float32())), nulls)
    of_no_type = tmp_path / "none.parquet"  # what pandas makes of a column of None
    pq.write_table(table.append_column("target", pa.nulls(1037)), of_no_type)
    for path in (without, nulls, of_no_type):
        frame = silent(model, path, ranked=True)
        assert np.array_equal(
            frame["prediction"], ((np.arange(1037) + 0.5) / 1037).astype(np.float32)
        )


def test_a_parquet_file_is_known_by_what_is_in_it(model, source):
    expected = silent(model, source)
    renamed = source.rename(source.with_name("download"))
    pd.testing.assert_frame_equal(silent(model, str(renamed)), expected)
    with pytest.raises(SourceError, match="cannot be read as Parquet"):
        silent(model, source)  # which is gone


def test_only_the_features_asked_for_are_read(tmp_path):
    table = numerai_table()
    bad = pa.array(np.full(1037, 9, np.int8))
    path = tmp_path / "a.parquet"
    pq.write_table(
        table.set_column(table.schema.get_field_index("feature_013"), "feature_013", bad), path
    )
    frame = silent(row_model(13), path, features=FEATURES[:13])
    assert frame["prediction"].tolist() == list(range(1037))
    with pytest.raises(SourceError, match="'feature_013', row 0: found 9"):
        silent(row_model(), path)


def test_an_id_that_comes_twice_is_an_error(model, tmp_path, temporary):
    table = numerai_table(id_is="column")
    ids = [*IDS]
    ids[700] = IDS[12]
    path = tmp_path / "a.parquet"
    pq.write_table(table.set_column(0, "id", pa.array(ids)), path, row_group_size=100)
    with pytest.raises(SourceError, match="found 'n00000000000000c' again") as caught:
        silent(model, path)
    assert (caught.value.row, caught.value.column, caught.value.path) == (700, "id", path)
    assert "row 12" in str(caught.value)
    assert not list(temporary.iterdir())


def test_a_frame_is_no_data(model):
    with pytest.raises(TypeError, match="found a DataFrame"):
        silent(model, numerai_table(id_is="column").to_pandas())


def test_no_rows_are_an_error(model, shards, tmp_path):
    with pytest.raises(NumeraiSequenceError, match="no rows"):
        silent(model, shards[:0])
    pq.write_table(numerai_table().slice(0, 0), tmp_path / "empty.parquet")
    with pytest.raises(SourceError, match="no rows"):
        silent(model, tmp_path / "empty.parquet")


# Features


@pytest.mark.parametrize("kind", ["shards", "parquet"])
def test_features_are_taken_in_the_order_given(shards, source, kind):
    features = [*FEATURES[:9][::-1], "feature_012"]
    kernel = np.append(row_kernel(9)[::-1], [[0]], axis=0).astype(np.float32)
    frame = silent(model_of(kernel), shards if kind == "shards" else source, features=features)
    assert frame["prediction"].tolist() == numbers_of(frame)
    assert frame.attrs["features"] == features
    _, expected = pandas_predictions(
        model_of(kernel), pandas_file(source.with_name("pandas.parquet")), features
    )
    assert np.array_equal(frame.loc[IDS].to_numpy(), expected)


@pytest.mark.parametrize("kind", ["shards", "parquet"])
def test_all_features_are_used_where_the_model_takes_so_many(model, shards, source, kind):
    data = shards if kind == "shards" else source
    assert silent(model, data).attrs["features"] == FEATURES
    with pytest.raises(FeatureError, match=r"found 14 features, expected 9.*features=sequence\."):
        silent(row_model(9), data)
    with pytest.raises(FeatureError, match="found 3 features, expected 14"):
        silent(model, data, features=FEATURES[:3])


@pytest.mark.parametrize("kind", ["shards", "parquet"])
def test_an_unknown_feature_is_named_with_those_like_it(model, shards, source, kind):
    data = shards if kind == "shards" else source
    with pytest.raises(FeatureError, match="'feature_0133'; did you mean feature_013"):
        silent(model, data, features=[*FEATURES[:13], "feature_0133"])
    with pytest.raises(FeatureError, match="'feature_001' is named twice"):
        silent(model, data, features=["feature_001", *FEATURES[1:]])
    kind, message = FeatureError, "found no feature sets, expected one named 'small'"
    if data is source:
        kind, message = TypeError, "features: found 'small'"
    with pytest.raises(kind, match=message):
        silent(model, data, features="small")


def test_a_model_of_the_wrong_width_stops_before_anything_is_read(source, monkeypatch):
    def read(*_):
        raise AssertionError

    monkeypatch.setattr(Parquet, "read", read)
    monkeypatch.setattr(Parquet, "iterate", read)
    with pytest.raises(FeatureError):
        silent(row_model(9), source)


@pytest.mark.parametrize("kind", ["shards", "parquet"])
@pytest.mark.parametrize("dtype", ["int8", "float16"])
def test_dtype_is_what_the_model_gets(shards, source, kind, dtype):
    model = row_model(scale=1 if dtype == "int8" else 4)
    frame = silent(model, shards if kind == "shards" else source, dtype=dtype)
    assert frame["prediction"].tolist() == numbers_of(frame)


# Outputs


@pytest.fixture
def kernels():
    rows = row_kernel(14)
    return rows, np.concatenate([2 * rows, -rows, rows], axis=1)


@pytest.mark.parametrize("kind", ["shards", "parquet"])
@pytest.mark.parametrize("as_dict", [False, True])
def test_several_outputs_are_columns_by_their_names(kernels, shards, source, kind, as_dict):
    model = model_of(*kernels, names=["one", "wide"], as_dict=as_dict)
    frame = silent(model, shards if kind == "shards" else source, batch_size=100)
    rows = np.array(numbers_of(frame))
    assert list(frame.columns) == ["one", "wide_0", "wide_1", "wide_2"]
    assert np.array_equal(frame.to_numpy(), np.stack([rows, 2 * rows, -rows, rows], axis=1))
    assert set(frame.dtypes) == {np.dtype(np.float32)}


@pytest.mark.parametrize("as_dict", [False, True])
def test_one_output_is_chosen_by_name(kernels, shards, as_dict):
    model = model_of(*kernels, names=["one", "wide"], as_dict=as_dict)
    for output, factor in {"one": 1, "wide_1": -1, "wide_0": 2}.items():
        frame = silent(model, shards, output=output)
        assert list(frame.columns) == ["prediction"]
        assert np.array_equal(frame["prediction"], factor * np.array(numbers_of(frame)))
    wide = silent(model, shards, output="wide")
    assert list(wide.columns) == ["wide_0", "wide_1", "wide_2"]


def test_an_unknown_output_is_found_before_a_file_is_written(kernels, source, monkeypatch):
    monkeypatch.setattr(data_module, "write", None)
    with pytest.raises(
        ValueError, match=r"found 'won', expected one of one, wide; did you mean one"
    ):
        silent(model_of(*kernels, names=["one", "wide"]), source, output="won")
    with pytest.raises(TypeError, match=r"output: found 0, expected the name of one output: one"):
        silent(model_of(*kernels, names=["one", "wide"]), source, output=0)


def test_outputs_that_were_not_chosen_are_not_kept(shards):
    arrays = []

    class Watched(keras.Model):
        def predict_on_batch(self, x):
            assert not any(array() is not None for array in arrays)
            one, huge = super().predict_on_batch(x)
            arrays.append(weakref.ref(huge))
            return [one, huge]

    inputs = keras.layers.Input((14,))
    outputs = [keras.layers.Dense(width, name=f"d{width}")(inputs) for width in (1, 500)]
    silent(Watched(inputs, outputs), shards, output="d1", batch_size=100)
    assert len(arrays) == 11
    assert not any(array() is not None for array in arrays)


def test_a_model_of_ones_own_class_is_predicted(shards, source):
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(1, use_bias=False)

        def call(self, x):
            return self.dense(x)

    model = Own()
    model(np.zeros((1, 14), np.float32))
    model.dense.set_weights([row_kernel(14)])
    assert silent(model, source)["prediction"].tolist() == list(range(1037))
    frame = silent(model, shards)
    assert frame["prediction"].tolist() == numbers_of(frame)


def test_nan_predictions_are_an_error(shards, source):
    model = row_model()
    model.layers[-1].set_weights([np.full((14, 1), np.nan)])
    for data, first in ((source, IDS[0]), (shards, shards.column("id")[0].as_py())):
        with pytest.raises(NumeraiSequenceError, match=f"1,037 of 1,037 rows are NaN.*{first}"):
            silent(model, data)


def test_the_first_row_that_is_nan_is_named(tmp_path):
    inputs = keras.layers.Input((14,))
    only_row_600 = keras.layers.Dense(1, name="d")(inputs)
    outputs = keras.layers.Activation(keras.activations.relu)(only_row_600)
    outputs = keras.layers.Lambda(lambda x: x / x * 0 + x)(outputs)  # 0 / 0 is NaN
    model = keras.Model(inputs, outputs)
    model.get_layer("d").set_weights([row_kernel(14), np.array([-600], np.float32)])
    source = write_source(tmp_path / "a.parquet", first_row=500)
    with pytest.raises(NumeraiSequenceError, match=r"101 of 1,037 .* 'n0000000000001f4'"):
        silent(model, source)


# Ranks


def eras_of(source, frame):
    """The era of each row of the frame, from the file."""
    table = pq.read_table(source).to_pandas(ignore_metadata=True)
    return table.set_index("id").loc[frame.index, "era"].to_numpy()


@pytest.mark.parametrize("kind", ["shards", "parquet"])
def test_ranks_are_within_the_era(kernels, shards, source, kind):
    model = model_of(*kernels, names=["up", "wide"])
    frame = silent(model, shards if kind == "shards" else source, ranked=True)
    eras = eras_of(source, frame)
    plain = pd.DataFrame({"up": numbers_of(frame)}, index=frame.index)
    sizes = plain.groupby(eras)["up"].transform("size")
    expected = (plain.groupby(eras)["up"].rank() - 0.5) / sizes
    assert np.array_equal(frame["up"], expected.astype(np.float32))
    assert np.allclose(frame["wide_1"], 1 - expected)
    assert frame.min().min() > 0
    assert frame.max().max() < 1


def test_equal_predictions_have_the_same_rank(source):
    kernel = np.zeros((14, 1), np.float32)
    kernel[0] = 4  # rows modulo 5
    frame = silent(model_of(kernel), source, ranked=True)
    for _, ranks in frame["prediction"].groupby(eras_of(source, frame)):
        remainders = np.array([int(name[1:], 16) % 5 for name in ranks.index])
        for value in range(5):
            same = remainders == value
            between = (remainders < value).sum() + same.sum() / 2
            assert np.allclose(ranks[same], between / len(ranks))


# What it takes, and what it leaves


def test_batches_are_bounded_and_alike(shards, source, monkeypatch):
    sizes = []

    class Counting(keras.Model):
        def predict_on_batch(self, x):
            sizes.append(len(x))
            return super().predict_on_batch(x)

    inputs = keras.layers.Input((14,))
    model = Counting(inputs, keras.layers.Dense(1)(inputs))
    monkeypatch.setattr(forward_module, "_BATCH_BYTES", 14 * 4 * 100)
    silent(model, shards)
    assert sizes == [95] * 10 + [87]
    sizes.clear()
    silent(model, source)
    assert sizes == [95] * 11 + [87]  # the first one is a trial
    sizes.clear()
    silent(model, shards, batch_size=500)
    assert sizes == [500, 500, 37]


def test_a_small_budget_makes_small_batches(model, shards):
    frame = silent(model, shards, memory_budget="20MB")
    assert frame["prediction"].tolist() == numbers_of(frame)
    with pytest.raises(ValueError, match="memory_budget"):
        silent(model, shards, memory_budget="much")


@pytest.mark.parametrize(
    "options", [{"dtype": "float64"}, {"batch_size": 0}, {"memory_budget": "much"}], ids=str
)
def test_bad_options_are_found_before_a_file_is_written(model, source, options, monkeypatch):
    monkeypatch.setattr(data_module, "write", None)
    with pytest.raises(ValueError, match=next(iter(options))):
        silent(model, source, **options)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
@pytest.mark.parametrize("when", ["writing", "predicting"])
def test_the_temporary_folder_goes_whatever_happens(source, temporary, monkeypatch, error, when):
    seen = []

    class Interrupted(keras.Model):
        def predict_on_batch(self, x):
            seen.append(list(temporary.iterdir()))
            if len(seen) == 3 and when == "predicting":
                raise error
            return super().predict_on_batch(x)

    def fail(*_):
        seen.append(list(temporary.iterdir()))
        raise error

    inputs = keras.layers.Input((14,))
    if when == "writing":
        monkeypatch.setattr(source_module.Source, "digits", fail)
    with pytest.raises(error):
        silent(Interrupted(inputs, keras.layers.Dense(1)(inputs)), source, batch_size=100)
    assert len(seen[-1]) == 1
    assert not list(temporary.iterdir())


def test_progress_is_shown_in_rows_on_stderr(model, shards, source, capsys):
    predict(model, shards)
    assert "predicting: 100%" in (shown := capsys.readouterr()).err
    assert "1.04k/1.04k" in shown.err
    assert not shown.out
    predict(model, source)
    assert "reading train.parquet: 100%" in (shown := capsys.readouterr()).err
    assert "predicting: 100%" in shown.err
    silent(model, source)
    assert capsys.readouterr() == ("", "")


def test_it_agrees_with_keras_own_predict(shards):
    model = keras.Sequential(
        [
            keras.layers.Input((14,)),
            keras.layers.Dense(8, activation="relu"),
            keras.layers.Dense(1),
        ]
    )
    sequence = NumeraiSequence(shards, batch_size=100, target=None, shuffle=False)
    expected = model.predict(sequence, verbose=0)
    assert np.array_equal(silent(model, shards, batch_size=100).to_numpy(), expected)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux what is mapped")
def test_a_set_that_was_opened_is_let_go(model, shards):
    folder = str(shards.folder)
    shards.close()
    gc.collect()
    frame = silent(model, folder)
    gc.collect()
    assert folder not in Path("/proc/self/maps").read_text()
    assert sorted(frame.index) == IDS


def test_chosen_eras_of_a_set_are_predicted(model, shards, source):
    frame = silent(model, shards, eras="0003-0005", ranked=True)
    assert frame.index.name == "id"
    eras = pq.read_table(source, columns=["id", "era"]).to_pandas(ignore_metadata=True)
    eras = eras.set_index("id")["era"]
    assert sorted(frame.index) == sorted(eras.index[eras.between("0003", "0005")])
    for _, ranks in frame["prediction"].groupby(eras.loc[frame.index]):
        np.testing.assert_allclose(
            np.sort(ranks), (np.arange(len(ranks)) + 0.5) / len(ranks), atol=1e-6
        )
    with pytest.raises(ValueError, match="expected None for a Parquet file"):
        silent(model, source, eras="0003")


def test_a_feature_set_of_the_shard_set_is_taken_by_its_name(tmp_path):
    source = write_source(tmp_path / "train.parquet")
    write_features_json(tmp_path / "features.json", digits=FEATURES[:9][::-1])
    with write_shards(source, tmp_path / "set", progress=False) as shards:
        kernel = row_kernel(9)[::-1]
        frame = silent(model_of(kernel), shards, features="digits")
        assert frame.attrs["features"] == FEATURES[:9][::-1]
        assert np.array_equal(frame["prediction"], numbers_of(frame))


def test_a_sequence_is_no_data(model, shards):
    with pytest.raises(TypeError, match=r"data: found a NumeraiSequence.*predict\(model, sequence"):
        silent(model, NumeraiSequence(shards))


# Missing feature values


def live(columns, rows=60):
    """A frame of live data with these columns in place of their digits."""
    table = numerai_table(rows, id_is="column", eras=np.zeros(rows), era_names="X")
    return table.to_pandas().set_index("id").assign(**columns)


def as_kind(kind, lacking=(3, 7)):
    """Features as pandas has them where some of their values are missing."""
    columns = {}
    for place, name in enumerate(FEATURES):
        digits = numerai_table(60)[name].to_pandas().astype("float64")
        if place == 1:
            digits[list(lacking)] = np.nan
        digits = digits / 4 if kind == "scaled" else digits
        nullable = kind == "Int8" or (kind == "both" and place % 2)
        columns[name] = digits.to_numpy() if not nullable else digits.astype("Int8").to_numpy()
        if nullable:
            columns[name] = pd.array(digits.to_list(), dtype="Float64").astype("Int8")
        elif kind == "beside integers" and place != 1:
            columns[name] = digits.to_numpy().astype("int8")
    return columns


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "model.pkl"
    export_predict(model, path, features=FEATURES, ranked=False)
    return pickle.loads(path.read_bytes())


@pytest.mark.parametrize("kind", ["Int8", "digits", "scaled", "both", "beside integers"])
def test_missing_values_are_the_middle_as_in_the_exported_function(model, exported, tmp_path, kind):
    frame = live(as_kind(kind))
    frame.to_parquet(tmp_path / "live.parquet")
    with pytest.warns(UserWarning, match="replaced with the middle") as caught:
        found = silent(model, tmp_path / "live.parquet", features=FEATURES)
    expected = exported(pd.read_parquet(tmp_path / "live.parquet"))
    np.testing.assert_allclose(found["prediction"], expected["prediction"], rtol=1e-5)
    numbers = np.arange(60.0)
    numbers[[3, 7]] += (2 - numbers[[3, 7]] // 5 % 5) * 5  # whose second digit is 2 now
    np.testing.assert_allclose(found["prediction"], numbers, rtol=1e-5)
    [warning] = [warning for warning in caught if "middle" in str(warning.message)]
    assert warning.filename == __file__  # the line that has called
    assert str(warning.message) == (
        f"{tmp_path / 'live.parquet'}: 2 missing feature values in 2 of 60 rows, of 1 feature "
        "(feature_001), replaced with the middle"
    )


def test_what_is_missing_is_counted_by_values_rows_and_features(model, tmp_path):
    columns = as_kind("digits")
    columns[FEATURES[0]] = np.full(60, np.nan)  # a whole column
    columns[FEATURES[5]] = [None] * 60
    live(columns).to_parquet(tmp_path / "live.parquet", row_group_size=25)
    with pytest.warns(UserWarning, match="122 missing feature values in 60 of 60 rows, of 3 ") as w:
        silent(model, tmp_path / "live.parquet", features=FEATURES)
    assert "(feature_000 and 2 more)" in str(w[-1].message)


def test_the_scale_of_a_few_features_is_that_of_the_file(tmp_path):
    chosen = [FEATURES[0], FEATURES[4]]  # the second digit of these rows is 0 or more, this one 0
    columns = {name: np.minimum(values, 1) for name, values in as_kind("digits", ()).items()}
    columns[FEATURES[9]] = np.full(60, 3.0)
    frame = live(columns)
    frame.to_parquet(tmp_path / "live.parquet")
    few = model_of(np.eye(2, dtype="float32")[:, :1] * 4)
    export_predict(few, tmp_path / "few.pkl", features=chosen, ranked=False)
    function = pickle.loads((tmp_path / "few.pkl").read_bytes())
    found = silent(few, tmp_path / "live.parquet", features=chosen)["prediction"]
    np.testing.assert_allclose(found, np.minimum(np.arange(60) % 5, 1), rtol=1e-6)
    np.testing.assert_allclose(function(frame)["prediction"], found, rtol=1e-6)


NOT_DATA = {
    "a DataFrame": lambda: live({}),
    "a list": lambda: [["live.parquet"]],
    "a dict": lambda: {"live": "live.parquet"},
    "an int": lambda: 5,
    "a NoneType": lambda: None,
    "a bytes": lambda: b"live.parquet",
    "a Table": lambda: numerai_table(20),
}


@pytest.mark.parametrize("kind", NOT_DATA)
def test_what_is_no_data_is_named(model, kind):
    with pytest.raises(
        TypeError, match=rf"^data: found {kind}.*, expected a shard set or the path"
    ):
        silent(model, NOT_DATA[kind]())


@pytest.mark.parametrize("address", ["s3://bucket/live.parquet", "file:///data/live.parquet"])
def test_an_address_is_no_data(model, address):
    with pytest.raises(NumeraiSequenceError, match=f"data: found the address '{address}'.*path"):
        silent(model, address)


def test_a_folder_of_parquet_files_is_no_data(model, tmp_path):
    write_source(tmp_path / "live.parquet", rows=60)
    with pytest.raises(NumeraiSequenceError, match=r"a folder of Parquet files.*write_shards\("):
        silent(model, tmp_path)
