"""Score table: predictions in any form are scored as numerai-tools scores the complete frame."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from numerai_tools.scoring import (
    correlation_contribution,
    feature_neutral_corr,
    max_feature_correlation,
    numerai_corr,
)

from numerai_sequence import EraError, FeatureError, SourceError, score, summarize, write_shards
from numerai_sequence.synthetic import write_parquet

FEW = slice(2, 7)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("evaluation")


@pytest.fixture(scope="module")
def shards(folder):
    write_parquet(folder / "train.parquet", rows=1500, features=12, targets=3, min_eras=12)
    with write_shards(
        folder / "train.parquet", folder / "set", mix_eras=3, progress=False
    ) as opened:
        yield opened


@pytest.fixture(scope="module")
def data(folder, shards):
    return pd.read_parquet(folder / "train.parquet")


@pytest.fixture(scope="module")
def frame(data):
    """Two models, one of which differs only beyond float32, in another order than the data."""
    rng = np.random.default_rng(0)
    weak = data["target"].astype(float) + rng.normal(size=len(data))
    models = {"one": weak, "two": 100 + 1e-7 * rng.normal(size=len(data))}
    return pd.DataFrame(models, data.index).sample(frac=1, random_state=0)


@pytest.fixture(scope="module")
def meta(data):
    values = np.random.default_rng(1).random(len(data))
    columns = {"era": data["era"], "numerai_meta_model": values}
    return pd.DataFrame(columns, data.index)[data["era"] > "0004"]


def expected(data, predictions, target="target", meta=None, neutral=None, exposure=False):
    """The scores of one model, era by era, of the complete frame."""
    found = {}
    for era, rows in data.dropna(subset=[target]).groupby("era"):
        rows = rows.sort_index()
        ours = predictions[rows.index].to_frame("p").astype(float)
        truth = rows[target].astype(float)
        scores = {"corr": numerai_corr(ours, truth)["p"]}
        if meta is not None:
            theirs = meta["numerai_meta_model"].reindex(rows.index).dropna()
            scores["mmc"] = np.nan
            if len(theirs):
                scores["mmc"] = correlation_contribution(ours, theirs, truth)["p"]
        features = rows.filter(like="feature_").astype(float)
        if exposure:
            scores["exposure"] = max_feature_correlation(ours["p"], features)[1]
        if neutral is not None:
            scores["fnc"] = feature_neutral_corr(ours, features[neutral], truth)["p"]
        found[era] = scores
    return pd.DataFrame(found).T.rename_axis("era")


@pytest.fixture(scope="module")
def wanted(shards, data, frame, meta):
    options = {"meta": meta, "neutral": list(shards.features[FEW]), "exposure": True}
    return {model: expected(data, frame[model], **options) for model in frame}


@pytest.mark.parametrize("kind", ["path", "shards", "parquet"])
def test_scores_are_numerais_of_the_complete_frame(shards, folder, frame, meta, wanted, kind):
    given = {
        "path": folder / "set",
        "shards": shards.paths,
        "parquet": str(folder / "train.parquet"),
    }[kind]
    neutral = list(shards.features[FEW])
    with pytest.warns(UserWarning, match=r"meta_model has no value in 4 eras"):
        table = score(frame, given, meta_model=meta, exposure=True, neutral=neutral, progress=False)
    assert table.columns.names == ["model", "score"]
    assert table.index.name == "era"
    for model in frame:
        assert list(table[model]) == list(wanted[model])
        np.testing.assert_allclose(table[model], wanted[model].loc[table.index], rtol=0, atol=1e-6)


def test_one_model_has_columns_of_one_level_and_another_target(shards, data, frame):
    target = shards.targets[0]
    table = score(
        frame["one"], shards, target=target, eras="0003-0006", neutral=True, progress=False
    )
    wanted = expected(data, frame["one"], target, neutral=list(shards.features))
    assert list(table.columns) == ["corr", "fnc"]
    assert table.index.tolist() == ["0003", "0004", "0005", "0006"]
    np.testing.assert_allclose(table, wanted.loc[table.index], rtol=0, atol=1e-6)


FORMS = {
    "a frame": lambda one, path: one.to_frame(),
    "an unnamed Series": lambda one, path: one.rename(None),
    "id as a column": lambda one, path: one.reset_index(),
    "with its era": lambda one, path: one.to_frame().assign(era="0001"),
    "an Arrow table": lambda one, path: pa.table(one.reset_index()),
    "a list of one": lambda one, path: [one],
    "a dict of one": lambda one, path: {"mine": one.to_frame("prediction")},
    "a Parquet file": lambda one, path: (
        one.to_frame().to_parquet(path / "a.parquet") or path / "a.parquet"
    ),
    "a CSV file": lambda one, path: one.to_csv(path / "a.csv") or str(path / "a.csv"),
    "among other rows": lambda one, path: pd.concat([one, one.add_prefix("x")]),
}


@pytest.mark.parametrize("form", FORMS)
def test_predictions_of_any_form_score_the_same(shards, frame, form, tmp_path):
    given = FORMS[form](frame["one"], tmp_path)
    table = score(given, shards, progress=False)
    pd.testing.assert_frame_equal(
        table, score(frame, shards, progress=False)["one"].rename_axis(columns=None)
    )


def test_several_have_the_names_of_their_files_or_those_given(shards, frame, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        frame[["one"]].to_parquet(tmp_path / name / "live.parquet")
        frame[["two"]].to_parquet(tmp_path / f"{name}.parquet")
    frame.to_csv(tmp_path / "both.csv")

    def names(given):
        columns = score(given, shards, progress=False).columns
        return list(dict.fromkeys(columns.get_level_values("model")))

    both = tmp_path / "both.csv"
    assert names([tmp_path / "a.parquet", tmp_path / "b.parquet"]) == ["a", "b"]
    assert names([tmp_path / "a/live.parquet", tmp_path / "b/live.parquet"]) == ["a/live", "b/live"]
    assert names([both, tmp_path / "a.parquet"]) == ["both/one", "both/two", "a"]
    assert names({"x": frame["one"], "y": both}) == ["x", "y/one", "y/two"]
    assert names([frame["one"], frame[["two"]]]) == ["one", "model_1"]
    for given in ([both, both], [frame["one"], frame["one"]]):
        with pytest.raises(ValueError, match=r"twice, expected a name for each model; pass a dict"):
            names(given)


def test_eras_without_predictions_are_left_out(shards, data, frame):
    eras = data["era"][frame.index]
    late = frame["one"][eras > "0007"]
    table = score(late, shards, neutral=True, exposure=True, progress=False)
    assert table.index.tolist() == [f"{era:04d}" for era in range(8, 13)]
    assert table.notna().all(axis=None)
    part = score({"late": late, "early": frame["two"][eras < "0010"]}, shards, progress=False)
    assert part.index.tolist() == [f"{era:04d}" for era in range(1, 13)]
    assert part["late"]["corr"].isna().tolist() == [True] * 7 + [False] * 5
    assert part["early"]["corr"].isna().tolist() == [False] * 9 + [True] * 3
    np.testing.assert_array_equal(part["late"]["corr"][7:], table["corr"])


def test_rows_without_a_target_need_no_prediction(shards, data, frame):
    target = shards.targets[0]
    there = frame["one"][data[target].notna()[frame.index]]
    assert len(there) < len(frame)
    table = score(there, shards, target=target, progress=False)
    pd.testing.assert_frame_equal(table, score(frame["one"], shards, target=target, progress=False))


def test_what_cannot_be_scored_is_refused(shards, data, frame, tmp_path):
    one, eras = frame["one"], data["era"][frame.index]
    first = one.index[eras == "0005"][:3]
    broken = {
        r"no prediction for 3 of \d+ rows of era 0005, expected": one.drop(first),
        r"no prediction for 3 of \d+ rows of era 0005, .*": one.where(~one.index.isin(first)),
        r"no prediction for 1 of .* of era 0001 .and of 11 more eras": one.drop(
            one.index[~eras.duplicated()]
        ),
        r"found id '.*' 2 times": pd.concat([one, one[:1]]),
        r"values are infinite": one.where(one.index != first[0], np.inf),
        r"no values for the": one.reset_index(drop=True),
        r"found no model among": one.to_frame().astype(str),
    }
    for message, given in broken.items():
        with pytest.raises(ValueError, match=message):
            score(given, shards, progress=False)
    with pytest.raises(ValueError, match="found no prediction for the"):
        score(one[eras == "0001"], shards, eras="0002-", progress=False)
    with pytest.raises(TypeError, match=r"predictions: found 3, expected a frame"):
        score(3, shards, progress=False)
    with pytest.raises(SourceError, match="no such file"):
        score(tmp_path / "no.parquet", shards, progress=False)
    with pytest.raises(FeatureError, match="targat"):
        score(one, shards, target="targat", progress=False)
    with pytest.raises(EraError):
        score(one, shards, eras="0099", progress=False)


def test_a_set_of_several_targets_wants_one_named(folder, shards, frame):
    some = list(shards.targets[:2])
    with (
        write_shards(
            folder / "train.parquet", folder / "other", targets=some, progress=False
        ) as other,
        pytest.raises(FeatureError, match=f"{some[0]}, {some[1]}, expected one .* target="),
    ):
        score(frame, other, progress=False)
    with write_shards(
        folder / "train.parquet", folder / "one", targets=some[:1], progress=False
    ) as single:
        table = score(frame, single, progress=False)
    pd.testing.assert_frame_equal(table, score(frame, shards, target=some[0], progress=False))


def test_summaries_are_of_each_score(shards, frame):
    table = score(frame, shards, exposure=True, progress=False)
    summary = summarize(table)
    assert list(summary.columns) == ["mean", "std", "sharpe", "max_drawdown"]
    assert summary.index.names == ["model", "score"]
    corr = table["one"]["corr"]
    assert summary.loc[("one", "corr"), "mean"] == pytest.approx(corr.mean())
    assert summary.loc[("one", "corr"), "std"] == pytest.approx(corr.std(ddof=0))
    assert summary.loc[("one", "corr"), "sharpe"] == pytest.approx(corr.mean() / corr.std(ddof=0))
    sums = corr.cumsum()
    assert summary.loc[("one", "corr"), "max_drawdown"] == pytest.approx(
        (sums.cummax() - sums).max()
    )
    exposure = summary.loc[("two", "exposure")]
    assert exposure["mean"] == pytest.approx(table["two"]["exposure"].mean())
    assert exposure[["sharpe", "max_drawdown"]].isna().all()
    flat = summarize(table["one"])
    assert flat.index.tolist() == ["corr", "exposure"]
    np.testing.assert_array_equal(flat, summary.loc["one"])
    np.testing.assert_array_equal(summarize(corr), flat[:1])


def test_the_table_and_the_picture_are_written(shards, frame, tmp_path):
    table = score(
        frame, shards, exposure=True, csv=tmp_path / "a.csv", png=tmp_path / "a.png", progress=False
    )
    read = pd.read_csv(tmp_path / "a.csv", index_col="era", dtype={"era": str})
    assert list(read.columns) == ["one/corr", "one/exposure", "two/corr", "two/exposure"]
    np.testing.assert_array_equal(read, table)
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"


def test_nothing_is_warned_of_in_an_ordinary_call(shards, frame):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        score(frame, shards, exposure=True, neutral=list(shards.features[FEW]), progress=False)
