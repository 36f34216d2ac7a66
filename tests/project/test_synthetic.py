"""Synthetic data: shaped like Numerai's, the same for the same seed, and learnable."""

from __future__ import annotations

import re
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from numerai_sequence import append_shards, write_shards
from numerai_sequence.synthetic import (
    SIGNAL_CORRELATION,
    feature_names,
    write_parquet,
    write_version,
)


def _frame(path: Path, **options: Any) -> pd.DataFrame:
    return pd.read_parquet(write_parquet(path, **options))


def _era_correlation(frame: pd.DataFrame, scores: npt.NDArray[np.float64], target: str) -> float:
    """Mean over eras of the Pearson correlation of `scores` with `target`."""
    eras = frame.assign(score=scores).groupby("era")
    return float(np.mean([era["score"].corr(era[target]) for _, era in eras]))


def _fit(frame: pd.DataFrame, names: list[str]) -> npt.NDArray[np.float64]:
    """Least-squares weights of the features, both sides centred."""
    x = frame[names].to_numpy(np.float64) - 2
    weights: npt.NDArray[np.float64]
    weights, *_ = np.linalg.lstsq(x, frame["target"].to_numpy(np.float64) - 0.5, rcond=None)
    return weights


def test_columns_and_types_are_those_of_v5_3(tmp_path: Path) -> None:
    schema = pq.read_schema(write_parquet(tmp_path / "train.parquet", rows=100, features=3))
    names = schema.names
    assert names[:5] == ["era", "data_type", *feature_names(3)]
    assert names[5:8] == ["target_agnes_20", "target_agnes_60", "target_alpha_20"]
    assert names[-4:] == ["target_xerxes_20", "target_xerxes_60", "target", "id"]
    assert len(names) == 2 + 3 + 41 + 1
    string, int8, float32 = pa.string(), pa.int8(), pa.float32()
    assert schema.types == [string] * 2 + [int8] * 3 + [float32] * 41 + [string]


def test_a_single_target_is_target(tmp_path: Path) -> None:
    schema = pq.read_schema(write_parquet(tmp_path / "t", rows=20, features=1, targets=1))
    assert schema.names == ["era", "data_type", *feature_names(1), "target", "id"]


def test_pandas_reads_id_as_the_index(tmp_path: Path) -> None:
    frame = _frame(tmp_path / "train.parquet", rows=100, features=3, targets=2, data_type="live")
    assert frame.index.name == "id"
    assert frame.columns[-1] == "target"
    assert set(frame["data_type"]) == {"live"}
    assert set(frame.dtypes[feature_names(3)]) == {np.dtype("int8")}


def test_ids_are_never_the_same_in_files_of_other_eras(tmp_path: Path) -> None:
    common: dict[str, Any] = {"rows": 50_000, "features": 1, "targets": 1}
    train = _frame(tmp_path / "train.parquet", **common)
    validation = _frame(tmp_path / "validation.parquet", **common, first_era=17)
    ids = [*train.index, *validation.index]
    assert len(set(ids)) == 100_000
    assert all(re.fullmatch("n[0-9a-f]{15}", each) for each in ids)
    assert len({each[1:4] for each in ids}) == 16**3


def test_features_are_uniform_in_0_to_4(tmp_path: Path) -> None:
    frame = _frame(tmp_path / "train.parquet", rows=20_000, features=5, targets=1)
    for name in feature_names(5):
        shares = frame[name].value_counts(normalize=True).sort_index()
        assert list(shares.index) == [0, 1, 2, 3, 4]
        assert shares.to_numpy() == pytest.approx(0.2, abs=0.015)


@pytest.mark.parametrize("features", [1, 3_555, 100_000])
def test_feature_names_are_three_words_and_all_different(features: int) -> None:
    names = feature_names(features, seed=7)
    assert len(set(names)) == len(names) == features
    assert names == sorted(names)
    assert all(re.fullmatch("feature(_[a-z]{6,11}){3}", name) for name in names)


def test_feature_names_depend_on_seed_and_count_alone() -> None:
    assert feature_names(50, seed=1) == feature_names(50, seed=1)
    assert not set(feature_names(50, seed=1)) & set(feature_names(50, seed=2))
    assert not set(feature_names(50, seed=1)) & set(feature_names(51, seed=1))


@pytest.mark.parametrize(("rows", "eras"), [(16, 16), (1_001, 16), (100_003, 21)])
def test_eras_are_consecutive_and_hold_exactly_the_rows(
    tmp_path: Path, rows: int, eras: int
) -> None:
    path = write_parquet(tmp_path / "t", rows=rows, features=1, targets=1, first_era=575)
    column = pd.read_parquet(path)["era"]
    assert len(column) == rows
    assert list(column.unique()) == [f"{era:04d}" for era in range(575, 575 + eras)]
    assert column.is_monotonic_increasing


def test_era_sizes_grow_as_in_v5_3_and_are_ragged(tmp_path: Path) -> None:
    frame = _frame(tmp_path / "t", rows=200 * 4_784, features=1, targets=1)
    sizes = frame.groupby("era").size().to_numpy()
    assert len(sizes) == 200
    assert sizes[:5].mean() == pytest.approx(2_300, rel=0.06)
    assert sizes[-5:].mean() == pytest.approx(7_200, rel=0.06)
    steps = np.diff(sizes)
    assert (steps > 0).any()
    assert (steps < 0).any()


def test_min_eras_makes_eras_smaller(tmp_path: Path) -> None:
    frame = _frame(tmp_path / "t", rows=300, features=1, targets=1, min_eras=100)
    sizes = frame.groupby("era").size()
    assert len(sizes) == 100
    assert sizes.min() >= 1
    assert sizes.max() <= 6


def test_targets_have_numerais_shares_in_every_era(tmp_path: Path) -> None:
    frame = _frame(tmp_path / "train.parquet", rows=10_000, features=5, targets=1)
    for _, era in frame.groupby("era"):
        counts = era["target"].value_counts().sort_index()
        assert list(counts.index) == [0, 0.25, 0.5, 0.75, 1]
        assert counts.to_numpy() == pytest.approx(
            len(era) * np.array([0.05, 0.2, 0.5, 0.2, 0.05]), abs=1
        )


def test_nulls_are_in_auxiliary_targets_alone(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "train.parquet", rows=20_000, features=2, targets=5)
    table = pq.read_table(path)
    nulls = {name: table[name].null_count / 20_000 for name in table.column_names}
    auxiliary = [name for name in table.column_names if name.startswith("target_")]
    assert len(auxiliary) == 4
    assert [nulls.pop(name) for name in auxiliary] == pytest.approx([0.02] * 4, abs=0.005)
    assert set(nulls.values()) == {0}


def test_target_equals_the_target_that_it_equals_in_v5_3(tmp_path: Path) -> None:
    table = pq.read_table(write_parquet(tmp_path / "t.parquet", rows=5_000, features=2))
    target = table["target"].combine_chunks()
    equal = [name for name in table.column_names if table[name].combine_chunks().equals(target)]
    assert equal == ["target_ender_60", "target"]
    assert table["target_ender_20"].null_count > 0


def test_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    common: dict[str, Any] = {"rows": 2_000, "features": 10, "targets": 3}
    first = write_parquet(tmp_path / "first", **common, seed=5)
    again = write_parquet(tmp_path / "again", **common, seed=5)
    other = write_parquet(tmp_path / "other", **common, seed=6)
    assert first.read_bytes() == again.read_bytes()
    assert first.read_bytes() != other.read_bytes()


def test_other_first_era_gives_other_rows(tmp_path: Path) -> None:
    # One era, so that it has the same size in both files.
    common: dict[str, Any] = {"rows": 1_000, "features": 10, "targets": 1, "min_eras": 1}
    one = _frame(tmp_path / "one", **common, first_era=1)
    two = _frame(tmp_path / "two", **common, first_era=2)
    same = one[feature_names(10)].to_numpy() == two[feature_names(10)].to_numpy()
    assert same.mean() == pytest.approx(0.2, abs=0.02)  # what chance gives five values


def test_model_fitted_on_one_file_scores_on_another(tmp_path: Path) -> None:
    names = feature_names(40, seed=3)
    common: dict[str, Any] = {"features": 40, "targets": 2, "seed": 3}
    train = _frame(tmp_path / "train.parquet", **common, rows=60_000)
    validation = _frame(tmp_path / "validation.parquet", **common, rows=80_000, first_era=575)
    weights = _fit(train, names)
    scores = validation[names].to_numpy() @ weights
    for target in ("target", "target_agnes_20"):
        correlation = _era_correlation(validation, scores, target)
        assert correlation == pytest.approx(SIGNAL_CORRELATION, abs=0.02)
    # 5% of 40 features is fewer than the least number, 3: the others get noise's weights.
    strongest = np.sort(np.abs(weights))[::-1]
    assert strongest[2] > 2 * strongest[3]


def test_other_seed_has_another_signal(tmp_path: Path) -> None:
    common: dict[str, Any] = {"rows": 20_000, "features": 20, "targets": 1}
    one = _frame(tmp_path / "one", **common, seed=1)
    two = _frame(tmp_path / "two", **common, seed=2)
    weights = _fit(one, feature_names(20, seed=1))
    scores = two[feature_names(20, seed=2)].to_numpy() @ weights
    assert abs(_era_correlation(two, scores, "target")) < SIGNAL_CORRELATION / 2


def test_targets_share_the_score_but_not_the_noise(tmp_path: Path) -> None:
    frame = _frame(tmp_path / "train.parquet", rows=50_000, features=20, targets=3)
    correlations = frame[["target_agnes_20", "target_agnes_60", "target"]].corr().to_numpy()
    # Two targets share what the model could know: its correlation with each, multiplied.
    assert correlations[np.triu_indices(3, 1)] == pytest.approx(SIGNAL_CORRELATION**2, abs=0.015)


@pytest.mark.parametrize(
    ("rows", "group_rows", "expected"),
    [
        (45_000, None, [20_000, 20_000, 5_000]),
        (1_000, 300, [300, 300, 300, 100]),
        (1_000, 500, [500, 500]),
        (1_000, 5_000, [1_000]),
        (40, 1, [1] * 40),
    ],
)
def test_row_groups_hold_the_rows_asked_for(
    tmp_path: Path, rows: int, group_rows: int | None, expected: list[int]
) -> None:
    whole = write_parquet(tmp_path / "whole", rows=rows, features=2, targets=1, row_group_rows=rows)
    path = write_parquet(
        tmp_path / "cut", rows=rows, features=2, targets=1, row_group_rows=group_rows
    )
    metadata = pq.read_metadata(path)
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == expected
    assert pq.read_table(path).equals(pq.read_table(whole))


@pytest.mark.slow
def test_memory_is_bounded_by_row_group_and_era(tmp_path: Path) -> None:
    tracemalloc.start()
    try:
        write_parquet(tmp_path / "t", rows=96_000, features=400, targets=1, row_group_rows=4_000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 96_000 * 400 / 3  # the features; the largest era is 3 MB of their 38


def test_failure_leaves_the_old_file_and_no_temporary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "train.parquet"
    path.write_bytes(b"old")
    seen: list[list[str]] = []

    def interrupted(*_: object, **__: object) -> None:
        seen.append(sorted(each.name for each in tmp_path.iterdir()))
        raise KeyboardInterrupt

    monkeypatch.setattr(pq.ParquetWriter, "write_table", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_parquet(path, rows=1_000, features=2)
    assert len(seen[0]) == 2  # the temporary was there, beside the old file
    assert [each.name for each in tmp_path.iterdir()] == ["train.parquet"]
    assert path.read_bytes() == b"old"


def test_success_replaces_the_old_file_and_returns_its_path(tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    path.write_bytes(b"old")
    assert write_parquet(str(path), rows=1_000, features=2) == path
    assert pq.read_metadata(path).num_rows == 1_000
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": 15}, "rows: found 15, expected 16 to"),
        ({"rows": 99, "min_eras": 100}, "rows: found 99, expected 100 to"),
        ({"min_eras": 0}, "min_eras: found 0, expected 1 to"),
        ({"features": 0}, "features: found 0, expected 1 to 100000"),
        ({"targets": 0}, "targets: found 0, expected 1 to 41"),
        ({"targets": 42}, "targets: found 42, expected 1 to 41"),
        ({"seed": -1}, "seed: found -1, expected 0 to"),
        ({"first_era": 0}, "first_era: found 0, expected 1 to"),
        ({"first_era": 9_985}, "last_era: found 10000, expected 1 to 9999"),
        ({"row_group_rows": 0}, "row_group_rows: found 0, expected 1 to"),
    ],
)
def test_nonsense_is_refused_before_anything_is_written(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        write_parquet(tmp_path / "train.parquet", **{"rows": 1_000, "features": 2, **options})
    assert list(tmp_path.iterdir()) == []


def test_progress_counts_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_parquet(tmp_path / "quiet", rows=2_000, features=2)
    assert capsys.readouterr().err == ""
    write_parquet(tmp_path / "loud", rows=2_000, features=2, progress=True)
    assert "2.00k/2.00k" in capsys.readouterr().err


@pytest.fixture(scope="module")
def weeks(tmp_path_factory):
    """Two weeks of one data version."""
    folder = tmp_path_factory.mktemp("version")
    return [
        write_version(folder / f"week{week}", rows=2000, features=40, seed=3, week=week)
        for week in (0, 1)
    ]


def frame(folder, name):
    return pd.read_parquet(folder / f"{name}.parquet")


def test_a_version_has_train_validation_and_live_as_numerais(weeks):
    train, validation, live = (frame(weeks[0], n) for n in ("train", "validation", "live"))
    assert len(train) + len(validation) == 2000
    assert [*train.columns] == [*validation.columns] == [*live.columns]
    assert (train.index.name, live.index.name) == ("id", "id")
    eras = [*train["era"].unique(), *validation["era"].unique()]
    assert eras == [f"{era:04d}" for era in range(1, 61)]
    assert train["era"].max() == "0036"
    assert set(live["era"]) == {"X"}
    kinds = [set(part["data_type"]) for part in (train, validation, live)]
    assert kinds == [{"train"}, {"validation"}, {"live"}]


def test_targets_that_are_not_known_yet_are_null(weeks):
    for week, folder in enumerate(weeks):
        known = frame(folder, "validation").groupby("era").count().filter(like="target") > 0
        assert known["target"].equals(known["target_ender_60"].rename("target"))
        assert known.index[known["target_ender_20"]].max() == f"{56 + week:04d}"
        assert known.index[known["target_ender_60"]].max() == f"{48 + week:04d}"
        assert not frame(folder, "live").filter(like="target").notna().any(axis=None)


def test_each_week_adds_last_weeks_live_and_changes_no_other_row(weeks):
    assert frame(weeks[0], "train").equals(frame(weeks[1], "train"))
    (old, live), new = (
        (frame(weeks[0], n) for n in ("validation", "live")),
        frame(weeks[1], "validation"),
    )
    features = [*old.filter(like="feature").columns]
    assert new.loc[old.index, features].equals(old[features])
    assert new.iloc[len(old) :][features].equals(live[features])
    both = old["target_ender_60"].notna()
    assert new.loc[old.index[both], "target_ender_60"].equals(old.loc[both, "target_ender_60"])
    assert not set(live.index) & set(frame(weeks[1], "live").index)


def test_other_models_know_something_of_the_target(weeks):
    for part in ("train", "validation", "live"):
        models = frame(weeks[0], f"{part}_benchmark_models")
        assert [*models.columns] == ["era", "v53_lgbm_ender60", "v53_lgbm_cyrusd20"]
        assert models.index.equals(frame(weeks[0], part).index)
    train = frame(weeks[0], "train")["target"]
    model = frame(weeks[0], "train_benchmark_models")["v53_lgbm_ender60"]
    assert 0.07 < train.corr(model) < 0.22
    meta = frame(weeks[0], "meta_model")
    assert [*meta.columns] == ["era", "data_type", "numerai_meta_model"]
    assert (meta["era"].min(), meta["era"].max()) == ("0043", "0060")


def test_a_version_becomes_a_set_that_a_later_week_brings_up_to_date(weeks, tmp_path):
    files = [weeks[0] / "train.parquet", weeks[0] / "validation.parquet"]
    with write_shards(files, tmp_path / "shards", progress=False) as shards:
        assert {*shards.feature_sets} >= {"small", "medium", "all", "serenity"}
        assert len(shards.feature_sets["medium"]) == 10
    done = append_shards(tmp_path / "shards", weeks[1] / "validation.parquet", progress=False)
    assert "0061" in str(done)


@pytest.mark.parametrize("wrong", [{"features": 19}, {"rows": 59}, {"min_eras": 19}, {"week": -1}])
def test_a_version_of_too_little_is_refused(tmp_path, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        write_version(tmp_path, **wrong)
