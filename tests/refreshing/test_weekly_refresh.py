"""Weeks: a set that is refreshed week after week is what pandas says of the newest file."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from numerai_sequence import NumeraiSequence, append_shards, open_shards, write_shards
from numerai_sequence.format.encodings import ENCODINGS

FIRST, WEEKS, FEATURES = 14, 10, 7
DAYS = {"target": 3, "target_a_20": 3, "target_b_60": 8}  # weeks until a target resolves
COLUMNS = [f"feature_{number}" for number in range(FEATURES)]


def history():
    """The file as it will be one day; the newer half of it is of validation."""
    rng = np.random.default_rng(7)
    eras = [era for era in range(1, FIRST + WEEKS + 1) for _ in range(9 + era * 5 % 7)]
    frame = pd.DataFrame({"era": [f"{era:04d}" for era in eras]})
    frame.index = pd.Index([f"n{number:015x}" for number in rng.permutation(len(eras))], name="id")
    kinds = np.select([np.array(eras) < 8, np.array(eras) < 18], ["train", "validation"], "test")
    frame["data_type"] = kinds
    for name in COLUMNS:
        frame[name] = rng.integers(0, 5, len(eras)).astype(np.int8)
    for name in DAYS:
        frame[name] = rng.integers(0, 5, len(eras)).astype(np.float32) / 4
        frame.loc[rng.random(len(eras)) < 0.1, name] = np.nan  # never resolves
    return frame


def file_of_week(whole, week):
    """What Numerai gives out in a week: newer eras have no targets yet, some were corrected."""
    newest = FIRST + week
    numbers = whole["era"].astype(int)
    frame = whole[numbers <= newest].copy()
    numbers = numbers[numbers <= newest]
    for name, weeks in DAYS.items():
        frame.loc[numbers > newest - weeks, name] = np.nan
    rng = np.random.default_rng(11)
    for corrected in range(1, week + 1):  # what was corrected stays so
        row = int(rng.integers(0, 60))
        frame.iloc[row, frame.columns.get_loc("target")] = np.float32(corrected / 16)
    return frame


def assert_is(folder, frame, encoding):
    """The set holds the rows of a frame, and each of its counts is right."""
    frame = frame.sort_index()
    with open_shards(folder) as shards:
        shards.verify()
        assert shards.eras == sorted(frame["era"].unique())
        assert shards.era_rows == frame.groupby("era").size().to_dict()
        assert shards.data_types == sorted(frame["data_type"].unique())
        missing = frame[list(DAYS)].isna().sum()
        assert shards.missing == missing[missing > 0].to_dict()
        names = ("id", "era", "data_type", *DAYS)
        found = pd.DataFrame({name: shards.column(name).to_pylist() for name in names})
        encoded, values = shards.row_reader.gather(np.arange(shards.rows), list(DAYS))
        features = np.empty((shards.rows, FEATURES), np.int8)
        ENCODINGS[encoding].decoder(FEATURES, dtype="int8")(encoded, features)
        found[COLUMNS] = features
        np.testing.assert_array_equal(values, found[list(DAYS)])
    found = found.set_index("id").sort_index()[frame.columns]
    expected = frame.astype(dict.fromkeys(DAYS, np.float64))
    pd.testing.assert_frame_equal(found, expected, check_dtype=False, check_index_type=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("encoding", "mix_eras", "is_whole"), [("packed", None, True), ("int8", 1, False)]
)
def test_ten_weeks_are_what_pandas_says(tmp_path, encoding, mix_eras, is_whole):
    whole, folder, source = history(), tmp_path / "set", tmp_path / "validation.parquet"
    expected = file_of_week(whole, 0)
    expected.to_parquet(source)
    options = {"encoding": encoding, "mix_eras": mix_eras, "num_shards": 4, "progress": False}
    write_shards(source, folder, **options).close()
    assert_is(folder, expected, encoding)
    for week in range(1, WEEKS + 1):
        newer = file_of_week(whole, week)
        if not is_whole:  # with the eras whose targets may yet come
            newer = newer[newer["era"].astype(int) > FIRST + week - 10]
        newer.sample(frac=1, random_state=week).to_parquet(source)
        found = append_shards(folder, source, progress=False)
        before = expected
        expected = pd.concat([before[~before.index.isin(newer.index)], newer])
        assert found.eras == (f"{FIRST + week:04d}",)
        assert found.rows == len(expected) - len(before)
        then, now = before[list(DAYS)], expected.loc[before.index, list(DAYS)]
        filled = (then.isna() & now.notna()).sum()
        corrected = (then.notna() & (then != now)).sum()
        assert found.filled == filled[filled > 0].to_dict()
        assert found.corrected == corrected[corrected > 0].to_dict()
        assert found.data_types == 0
        assert_is(folder, expected, encoding)
        assert not append_shards(folder, source, progress=False).is_needed
    assert found.filled.keys() == DAYS.keys()
    for data_type in ("train", "validation", "test"):
        chosen = expected[expected["data_type"] == data_type]
        sequence = NumeraiSequence(folder, 50, data_type=data_type, missing_target="mask")
        batches = [sequence[number] for number in range(len(sequence))]
        y, weights = (np.concatenate([batch[part] for batch in batches]) for part in (1, 2))
        assert sorted(y[weights > 0]) == sorted(chosen["target"].dropna())
        assert len(y) == len(chosen)
