"""Submission: what is in the file is what was in the frame."""

from __future__ import annotations

import json
import os

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

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
            write_predictions(frame * 2, path)
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
    frame.attrs = {}
    with pytest.raises(ValueError, match=r"found no attrs\['features'\]"):
        write_predictions(frame, tmp_path / "live.csv")
    assert not os.listdir(tmp_path)
