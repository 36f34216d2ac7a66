"""Benchmarks: Numerai's files of other models go in as they are, and each value finds its row."""

from __future__ import annotations

import warnings
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from networks import keras

from numerai_sequence import (
    EraScores,
    NumeraiSequence,
    NumeraiSequenceError,
    SourceError,
    write_shards,
)
from numerai_sequence.scoring.benchmark_models import read_benchmarks, read_meta_model
from numerai_sequence.synthetic import write_parquet

VALIDATION = "0015-0020"


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    source = tmp_path_factory.mktemp("benchmarks") / "train.parquet"
    write_parquet(source, rows=2000, features=12, targets=2, min_eras=20)
    with write_shards(source, source.parent / "set", mix_eras=3, progress=False) as opened:
        yield opened


@pytest.fixture(scope="module")
def data(shards):
    return pd.read_parquet(shards.folder.parent / "train.parquet")


@pytest.fixture(scope="module")
def rows(shards):
    return NumeraiSequence(shards, 500, eras=VALIDATION).in_order(500)


@pytest.fixture(scope="module")
def meta(data):
    """As meta_model.parquet, its rows in another order than those of the set."""
    values = np.random.default_rng(0).random(len(data))
    columns = {"era": data["era"], "data_type": "validation", "numerai_meta_model": values}
    return pd.DataFrame(columns, data.index).sample(frac=1, random_state=0)


def expected(meta, rows):
    ids = rows.column("id").to_pandas()
    return meta["numerai_meta_model"].astype(float)[ids].to_numpy(np.float32)


def in_decimals(meta):
    return meta.assign(numerai_meta_model=[Decimal(f"{v:.17f}") for v in meta.iloc[:, 2]])


FORMS = {
    "as it is": lambda meta: meta,
    "id as a column": lambda meta: meta.reset_index(),
    "an index without a name": lambda meta: meta.rename_axis(None),
    "two levels": lambda meta: meta.set_index("era", append=True),
    "categories": lambda meta: meta.set_index(meta.index.astype("category")),
    "one column": lambda meta: meta[["numerai_meta_model"]],
    "a Series": lambda meta: meta["numerai_meta_model"],
    "another name": lambda meta: meta.rename(columns={"numerai_meta_model": "v53_lgbm"}),
    "a number for a name": lambda meta: meta.rename(columns={"numerai_meta_model": 0}),
    "float32": lambda meta: meta.astype({"numerai_meta_model": "float32"}),
    "Float64": lambda meta: meta.astype({"numerai_meta_model": "Float64"}),
    "decimals": in_decimals,
    "Arrow's types": lambda meta: meta.convert_dtypes(dtype_backend="pyarrow"),
    "an Arrow table": lambda meta: pa.table(meta.reset_index()),
    "a record batch": lambda meta: pa.table(meta.reset_index()).to_batches()[0],
    "targets and features": lambda meta: meta.assign(target=0.5, target_b=1.0, feature_a=2),
    "two frames": lambda meta: [meta[meta["era"] < "0017"], meta[meta["era"] >= "0017"]],
    "a dict": lambda meta: {"model": meta["numerai_meta_model"]},
}


@pytest.mark.parametrize("form", FORMS)
def test_a_table_of_any_form_gives_each_row_its_value(meta, rows, form):
    given = FORMS[form](meta)
    np.testing.assert_array_equal(read_meta_model(given, rows), expected(meta, rows))
    found = read_benchmarks(given, rows)
    (values,) = found.values()
    np.testing.assert_array_equal(values, expected(meta, rows))
    assert values.dtype == np.float32


FILES = {
    "meta_model.parquet": lambda meta, path: meta.to_parquet(path),
    "column.parquet": lambda meta, path: meta.reset_index().to_parquet(path),
    "no_name.parquet": lambda meta, path: meta.rename_axis(None).to_parquet(path),
    "full.PARQUET": lambda meta, path: meta.assign(target=1.0, feature_a=2).to_parquet(path),
    "index.csv": lambda meta, path: meta.to_csv(path),
    "no_name.csv": lambda meta, path: meta.rename_axis(None).to_csv(path),
    "numbered.csv": lambda meta, path: meta.reset_index().to_csv(path),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_gives_each_row_its_value(meta, rows, name, tmp_path):
    FILES[name](meta, tmp_path / name)
    for path in (tmp_path / name, str(tmp_path / name)):
        np.testing.assert_array_equal(read_meta_model(path, rows), expected(meta, rows))
        found = read_benchmarks(path, rows)
        assert list(found) == ["numerai_meta_model"]
        np.testing.assert_array_equal(found["numerai_meta_model"], expected(meta, rows))


def test_a_path_may_begin_with_the_users_folder(meta, rows, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    meta.to_parquet(tmp_path / "meta.parquet")
    np.testing.assert_array_equal(read_meta_model("~/meta.parquet", rows), expected(meta, rows))


def test_each_column_of_numbers_is_a_model(meta, rows):
    models = meta.assign(v53_lgbm=1.5, text="no", is_new=True)
    found = read_benchmarks(models, rows)
    assert list(found) == ["numerai_meta_model", "v53_lgbm"]
    assert set(found["v53_lgbm"]) == {1.5}
    np.testing.assert_array_equal(read_meta_model(models, rows), expected(meta, rows))
    assert list(read_benchmarks(["target", meta["numerai_meta_model"].rename(None)], rows)) == [
        "target",
        "benchmark",
    ]


def test_rows_without_a_value_are_nan(meta, rows):
    values = meta["numerai_meta_model"].astype("Float64").mask(meta["era"].eq("0016"))
    found = read_meta_model(meta.assign(numerai_meta_model=values)[meta["era"].ne("0018")], rows)
    eras = np.array(rows.column("era").to_pylist())
    np.testing.assert_array_equal(np.isnan(found), np.isin(eras, ["0016", "0018"]))


REFUSED = {
    "two models": (lambda m: m.assign(x=1.0, numerai_meta_model="a", y=1.0), "found 'x', 'y', ex"),
    "no model": (
        lambda m: m[["era", "data_type"]],
        "no model among the columns 'era', 'data_type'",
    ),
    "only data": (lambda m: m.assign(target=1.0, feature_a=1)[["target", "feature_a"]], "no model"),
    "no ids": (lambda m: m.reset_index(drop=True), "an index without a name of int64"),
    "whole numbers": (lambda m: m.set_index(pd.RangeIndex(len(m), name="id")), "'id' of int64"),
    "an id twice": (lambda m: pd.concat([m, m[:1]]), "found id 'n.*' 2 times"),
    "all ids twice": (lambda m: pd.concat([m, m]), r" 2 times \(2,000 such ids\)"),
    "infinite": (lambda m: m.assign(numerai_meta_model=np.inf), "2,000 of 2,000 values are inf"),
    "other ids of the same eras": (lambda m: m.set_index("m" + m.index), "no values for the"),
    "other ids of the same eras as floats": (
        lambda m: m.set_index("m" + m.index).assign(era=m["era"].astype(float).to_numpy()),
        "no values for the",
    ),
    "ids that look alike": (lambda m: m.set_index("n" + m.index.str[:0:-1]), "no values for the"),
    "other ids alone": (lambda m: m.set_index("m" + m.index).iloc[:, 2], "no values for the"),
    "a column twice": (lambda m: pd.concat([m, m], axis=1), "found column 'era' twice"),
    "rows of two frames": (lambda m: [m, m[:900].copy()], "values in two of the 2 sources"),
}


@pytest.mark.parametrize("form", REFUSED)
def test_what_is_no_model_by_id_is_refused(meta, rows, form):
    make, message = REFUSED[form]
    with pytest.raises(ValueError, match=message) as caught:
        read_meta_model(make(meta), rows)
    assert isinstance(caught.value, NumeraiSequenceError)


def test_files_that_cannot_be_read_are_named(rows, tmp_path):
    (tmp_path / "damaged.parquet").write_bytes(b"PAR1 and nothing more")
    (tmp_path / "folder.parquet").mkdir()
    for path, message in (
        (tmp_path / "damaged.parquet", "damaged.parquet: cannot be read"),
        (tmp_path / "folder.parquet", "folder.parquet: a folder"),
        (tmp_path / "none.csv", "none.csv: no such file"),
        (tmp_path / "table.xls", "table.xls: expected a path that ends in"),
        (
            "s3://numerai/meta_model.parquet",
            "'s3://numerai/meta_model.parquet', .* download the file",
        ),
        (f"file://{tmp_path}/none.csv", f"give its path, '{tmp_path}/none.csv'"),
    ):
        with pytest.raises(SourceError, match=message):
            read_benchmarks(path, rows)


def test_what_is_neither_is_refused(rows, tmp_path):
    path = tmp_path / "meta.csv"
    path.write_text("id,model\n")
    with open(path) as file:
        for given in (file, b"meta.csv", 3, np.zeros(3), [0.5]):
            with pytest.raises(TypeError, match=r"meta_model: found .*, expected a column"):
                read_meta_model(given, rows)


@pytest.mark.parametrize("form", ["as it is", "a Series", "an Arrow table", "id as a column"])
def test_a_model_of_other_eras_alone_has_no_values(meta, rows, form):
    others = FORMS[form](meta[meta["era"] < "0014"])
    assert np.isnan(read_meta_model(others, rows)).all()
    assert np.isnan(read_meta_model(FORMS[form](meta[:0]), rows)).all()


def test_an_early_fold_has_no_scores_and_one_warning(shards, meta, tmp_path):
    """As of the newest meta model: it has none of the fold's rows."""
    given = tmp_path / "meta_model.parquet"
    meta[meta["era"] > "0017"].to_parquet(given)
    model = keras.Sequential([keras.Input((12,)), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    early = NumeraiSequence(shards, 500, eras="0010-0012")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        scores = EraScores(early, meta_model=given, benchmarks=str(given))
        stop = keras.callbacks.EarlyStopping("val_corr_mean", mode="max", patience=9)
        history = model.fit(early, epochs=2, callbacks=[scores, stop], verbose=0).history
    ours = [str(one.message) for one in caught if "no value in" in str(one.message)]
    assert len(ours) == 1
    assert "and 1 more have no value in 3 eras (0010 to 0012) of 3" in ours[0]
    assert np.isnan(history["val_mmc_mean"]).tolist() == [True, True]
    assert scores.table["mmc"].isna().all()
    assert scores.table["corr"].notna().all()


def test_means_are_of_the_eras_that_a_model_covers(shards, meta):
    model = keras.Sequential([keras.Input((12,)), keras.layers.Dense(1)])
    validation = NumeraiSequence(shards, 500, eras=VALIDATION)
    with pytest.warns(
        UserWarning, match=r"meta_model has no value in 2 eras \(0015 to 0016\) of 6"
    ):
        part = EraScores(validation, meta_model=meta[meta["era"] > "0016"]).score(model)
    whole = EraScores(validation, meta_model=meta).score(model)
    assert part["mmc"].isna().tolist() == [True, True, False, False, False, False]
    np.testing.assert_array_equal(part["mmc"][2:], whole["mmc"][2:])


def test_two_of_a_fit_log_by_their_prefix(shards):
    model = keras.Sequential([keras.Input((12,)), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    training = NumeraiSequence(shards, 500, eras="0001-0012")
    eras = {"": VALIDATION, "recent_": "0019-0020", "old": "0013-0014"}
    all_scores = [
        EraScores(NumeraiSequence(shards, eras=chosen), prefix=prefix)
        for prefix, chosen in eras.items()
    ]
    history = model.fit(training, callbacks=all_scores, verbose=0).history
    for scores, start in zip(all_scores, ("val_", "val_recent_", "val_old_"), strict=True):
        mean = scores.table["corr"].mean()
        assert history[f"{start}corr_mean"] == [pytest.approx(mean, abs=1e-12)]
    again = EraScores(all_scores[0].validation, prefix="recent")
    for _ in range(2):  # the first fit leaves nothing behind
        with pytest.raises(ValueError, match="found two EraScores that log val_recent_corr_mean"):
            model.fit(training, callbacks=[*all_scores, again], verbose=0)
    model.fit(training, callbacks=[again], verbose=0)
    with pytest.raises(TypeError, match="prefix: found 3, expected a str"):
        EraScores(all_scores[0].validation, prefix=3)


def test_two_of_a_fit_write_files_of_their_own(shards, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = keras.Sequential([keras.Input((12,)), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    training = NumeraiSequence(shards, 500, eras="0001-0012")
    validation = NumeraiSequence(shards, eras=VALIDATION)
    first = EraScores(validation, csv="a.csv", png="a.png")
    taken = [("csv", tmp_path / "a.csv"), ("png", "a.png"), ("csv", f"../{tmp_path.name}/a.png")]
    for option, path in taken:
        second = EraScores(validation, prefix="recent", **{option: path})
        with pytest.raises(
            ValueError, match=rf"found two EraScores that write .*a\..* another {option}="
        ):
            model.fit(training, callbacks=[first, second], verbose=0)
        assert not list(tmp_path.iterdir())
    second = EraScores(validation, prefix="recent", csv="b.csv")
    model.fit(training, callbacks=[first, second], verbose=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "a.png", "b.csv"]
    with pytest.raises(
        ValueError, match="csv, png: found c for both, expected two different files"
    ):
        EraScores(validation, csv="c", png="c")
