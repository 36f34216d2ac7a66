"""Upload examples: the blocks of the pages that need Numerai's server, with a stand-in for it."""

from __future__ import annotations

from pathlib import Path

import numerapi_stand_in
import pytest
from documentation_pages import example


@pytest.fixture
def folder(tmp_path, monkeypatch):
    numerapi_stand_in.install(monkeypatch)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "v5.3").mkdir()
    for name in ("predictions.csv", "predict.pkl", "v5.3/live.parquet"):
        (tmp_path / name).write_text("something")


def test_the_front_page_uploads_predictions_and_the_model(folder):
    import numerapi

    names = {"numerapi": numerapi}
    exec(example("NUMERAI_PUBLIC_ID"), names)
    assert names["napi"].uploads == [Path("predictions.csv"), Path("predict.pkl")]


def test_the_guide_uploads_the_model_and_then_predictions(folder):
    names = {"public_id": "public", "secret_key": "secret"}
    exec(example("model_upload_docker_images()"), names)
    exec(example("# before you predict"), names)
    assert names["napi"].uploads == [Path("predict.pkl"), Path("predictions.csv")]
