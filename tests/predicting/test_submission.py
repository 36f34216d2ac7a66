"""Submission: what is in the file is what was in the frame."""

from __future__ import annotations

import json
import os

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from numerai_sequence import NumeraiSequenceError, OutputError
from numerai_sequence.predicting.submission import write_predictions

FEATURES = ["feature_b", "feature_a", "feature_ü"]


@pytest.fixture
def frame():
    values = np.random.default_rng(0).random(500, np.float32)
    values[:3] = [1 / 3, 1e-30, np.nextafter(np.float32(1), np.float32(0))]
    index = pd.Index([f"n{number:x}" for number in range(500)], name="id")
    frame = pd.DataFrame({"prediction": values}, index)
    frame.attrs = {"features": FEATURES, "other": object()}
    return frame


def test_csv_has_ids_and_predictions_in_full(frame, tmp_path):
    path = tmp_path / "live.csv"
    assert write_predictions(frame, path) == path
    assert path.read_text().splitlines()[:2] == ["id,prediction", "n0,0.33333334"]
    again = pd.read_csv(path, index_col="id", dtype={"prediction": np.float32})
    assert list(again.index) == list(frame.index)
    assert again["prediction"].to_numpy().tobytes() == frame["prediction"].to_numpy().tobytes()
    assert json.loads((tmp_path / "live.features.json").read_text()) == FEATURES
    assert sorted(os.listdir(tmp_path)) == ["live.csv", "live.features.json"]


def test_parquet_brings_the_features_back(frame, tmp_path):
    path = tmp_path / "live.parquet"
    write_predictions(frame, str(path))
    again = pd.read_parquet(path)
    assert again.attrs["features"] == FEATURES
    pd.testing.assert_frame_equal(again, frame)
    assert b'"feature_b", "feature_a"' in pq.read_schema(path).metadata[b"PANDAS_ATTRS"]
    assert os.listdir(tmp_path) == ["live.parquet"]
    assert "other" in frame.attrs


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_file_is_replaced_whole_or_not_at_all(frame, tmp_path, suffix, monkeypatch):
    path = tmp_path / f"live{suffix}"
    write_predictions(frame, path)
    before = path.read_bytes()

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", interrupt)
        with pytest.raises(KeyboardInterrupt):
            write_predictions(frame / 3, path)
    assert path.read_bytes() == before
    assert not [name for name in os.listdir(tmp_path) if name.endswith("tmp")]
    changed = frame / 2
    changed.attrs = frame.attrs
    write_predictions(changed, path)
    assert path.read_bytes() != before


def test_what_cannot_be_written_is_an_error(frame, tmp_path):
    with pytest.raises(ValueError, match=r"found suffix '\.txt', expected '.csv' or '.parquet'"):
        write_predictions(frame, tmp_path / "live.txt")
    with pytest.raises(ValueError, match="found index None, expected 'id'"):
        write_predictions(frame.rename_axis(None), tmp_path / "live.csv")
    for other in (frame["prediction"].to_numpy(), frame.to_dict(), "live.parquet", None):
        with pytest.raises(TypeError, match=r"frame: found .*, expected a frame"):
            write_predictions(other, tmp_path / "live.csv")
    assert not os.listdir(tmp_path)


def test_the_path_is_one_of_a_file_on_this_machine(frame, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert write_predictions(frame, "~/live.csv") == tmp_path / "live.csv"
    assert sorted(os.listdir(tmp_path)) == ["live.csv", "live.features.json"]
    for address in ("s3://bucket/live.csv", f"file://{tmp_path}/other.csv"):
        with pytest.raises(OutputError, match=f"path: found the address '{address[:20]}"):
            write_predictions(frame, address)
    for other in (b"live.csv", None, 3):
        with pytest.raises(TypeError, match=r"path: found an? .*, expected the path of a \.csv"):
            write_predictions(frame, other)


FORMS = {
    "another name": lambda frame: frame.rename(columns={"prediction": "my_model"}),
    "a Series": lambda frame: frame["prediction"],
    "a Series without a name": lambda frame: frame["prediction"].rename(None),
    "id as a column": lambda frame: frame.reset_index(),
    "id behind": lambda frame: frame.reset_index()[["prediction", "id"]],
    "categories": lambda frame: frame.set_index(frame.index.astype("category")),
    "Float32": lambda frame: frame.astype("Float32"),
    "an Arrow table": lambda frame: pa.table(frame.reset_index()),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_frame_of_any_form_is_written_as_numerai_takes_it(frame, tmp_path, form, suffix):
    bare = pd.DataFrame(frame)
    bare.attrs = {}
    for name, given in (("right", bare), ("found", FORMS[form](bare))):
        write_predictions(given, tmp_path / f"{name}{suffix}")
    assert sorted(os.listdir(tmp_path)) == [f"found{suffix}", f"right{suffix}"]
    if suffix == ".csv":
        assert (tmp_path / "found.csv").read_bytes() == (tmp_path / "right.csv").read_bytes()
        text = (tmp_path / "right.csv").read_text()
        assert text.splitlines()[:2] == ["id,prediction", "n0,0.33333334"]
    else:
        found = pd.read_parquet(tmp_path / "found.parquet")
        pd.testing.assert_frame_equal(found, pd.read_parquet(tmp_path / "right.parquet"))
        assert found["prediction"].tolist() == frame["prediction"].tolist()


def test_digits_of_double_precision_are_kept(tmp_path):
    values = [0.1 + 0.2, 1.0, 0.0, 1 / 3]
    frame = pd.DataFrame({"p": values}, pd.Index(list("abcd"), name="id"))
    write_predictions(frame, tmp_path / "live.csv")
    assert pd.read_csv(tmp_path / "live.csv")["prediction"].tolist() == values


def test_features_of_earlier_predictions_do_not_stay(frame, tmp_path):
    write_predictions(frame, tmp_path / "live.csv")
    bare = frame / 2
    bare.attrs = {}
    write_predictions(bare, tmp_path / "live.csv")
    assert "live.features.json" not in os.listdir(tmp_path)


def valued(frame, value):
    changed = frame.astype("float64")
    changed.iloc[7] = value
    return changed


REFUSED = {
    "NaN": (lambda f: valued(f, np.nan), "1 of 500 predictions are NaN"),
    "NA": (lambda f: f.astype("Float32").mask(f < 0.1), "predictions are NaN"),
    "above": (lambda f: valued(f, 1.0000001), r"1 of 500 .* outside 0 to 1, .*ranked=True.*--rank"),
    "below": (lambda f: valued(f, -1e-9), r"1 of 500 .* outside 0 to 1, such as -1e-09"),
    "infinite": (lambda f: valued(f, np.inf), "outside 0 to 1, such as inf"),
    "two columns": (lambda f: f.assign(other=0.5), "2 columns, prediction, other; .* output="),
    "an era": (lambda f: f.assign(era="X"), "2 columns, prediction, era"),
    "no column": (lambda f: f[[]], "0 columns"),
    "text": (lambda f: f.astype(str), "'prediction' is .*string, expected numbers"),
    "truth": (lambda f: f > 0.5, "'prediction' is bool, expected numbers"),
    "no rows": (lambda f: f[:0], "found no rows"),
    "an id twice": (
        lambda f: pd.concat([f, f[3:5]]),
        r"found id 'n3' 2 times \(2 such ids in all\)",
    ),
    "no id": (lambda f: f.set_index(pd.Index([None, *f.index[1:]], name="id")), "1 of 500 rows"),
    "numbers for ids": (lambda f: f.set_index(pd.RangeIndex(500, name="id")), "ids are int64"),
    "no ids": (lambda f: f.reset_index(drop=True), "found index None, expected 'id'"),
}


@pytest.mark.parametrize("form", REFUSED)
def test_what_numerai_would_refuse_is_refused(frame, tmp_path, form):
    make, message = REFUSED[form]
    with pytest.raises(ValueError, match=message) as caught:
        write_predictions(make(frame), tmp_path / "live.csv")
    assert isinstance(caught.value, NumeraiSequenceError)
    assert not os.listdir(tmp_path)


def test_one_row_and_both_ends_are_taken(tmp_path):
    frame = pd.DataFrame({"prediction": [0, 1]}, pd.Index(["a", "b"], name="id"))
    write_predictions(frame, tmp_path / "two.csv")
    write_predictions(frame[:1], tmp_path / "one.csv")
    assert (tmp_path / "two.csv").read_text() == "id,prediction\na,0.0\nb,1.0\n"
    assert (tmp_path / "one.csv").read_text() == "id,prediction\na,0.0\n"


def test_predictions_that_are_all_the_same_are_written_with_a_warning(frame, tmp_path):
    with pytest.warns(
        UserWarning, match=r"all 500 predictions are 0\.5; Numerai refuses"
    ) as caught:
        write_predictions(frame * 0 + 0.5, tmp_path / "live.csv")
    assert caught[0].filename == __file__
    assert pd.read_csv(tmp_path / "live.csv")["prediction"].eq(0.5).all()
