"""Examples: the notebooks in docs/ run from the first cell to the last, on files like Numerai's."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numerai_tools.submissions import validate_submission_numerai

from numerai_sequence.synthetic import write_version

NOTEBOOKS = Path(__file__).parents[2] / "docs" / "examples"


def test_notebooks_are_kept_without_outputs():
    notebooks = sorted(NOTEBOOKS.glob("*.ipynb"))
    assert [path.name for path in notebooks] == ["colab.ipynb", "round.ipynb"]
    for path in notebooks:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        code = [cell for cell in cells if cell["cell_type"] == "code"]
        assert not any(cell["outputs"] or cell["execution_count"] for cell in code)


@pytest.mark.slow
def test_the_round_goes_from_the_files_to_the_upload(tmp_path, monkeypatch):
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    write_version(tmp_path / "data", rows=4000, features=60, min_eras=140)
    monkeypatch.setenv("NUMERAI_DATA", "data")
    notebook = nbformat.read(NOTEBOOKS / "round.ipynb", as_version=4)
    where = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=600, resources=where).execute()
    submission = pd.read_csv(tmp_path / "predictions.csv")
    live = pd.read_parquet(tmp_path / "data" / "live.parquet")
    validate_submission_numerai(live.index.to_series(), submission)
    predicted = pickle.loads((tmp_path / "predict.pkl").read_bytes())(live)
    found = submission.set_index("id")["prediction"].astype(np.float32)
    np.testing.assert_array_equal(found, predicted.loc[found.index, "prediction"])
    shown = [
        output["data"].get("text/plain", "")
        for cell in notebook["cells"]
        for output in cell.get("outputs", ())
        if "data" in output
    ]
    assert any("half neutralized" in text and "bmc_v53_lgbm_ender60" in text for text in shown)
    assert (tmp_path / "scores.png").stat().st_size > 10_000


@pytest.mark.slow
def test_the_colab_notebook_goes_from_the_files_to_the_upload(tmp_path):
    """All but the cells that need a network: the installation and the download."""
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    write_version(tmp_path / "v5.3", rows=4000, features=40, min_eras=140)
    notebook = nbformat.read(NOTEBOOKS / "colab.ipynb", as_version=4)
    offline = [c for c in notebook.cells if "needs-network" not in c.metadata.get("tags", ())]
    assert len(notebook.cells) - len(offline) == 2
    notebook.cells = offline
    where = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=600, resources=where).execute()
    submission = pd.read_csv(tmp_path / "predictions.csv")
    live = pd.read_parquet(tmp_path / "v5.3" / "live.parquet")
    validate_submission_numerai(live.index.to_series(), submission)
    predicted = pickle.loads((tmp_path / "predict.pkl").read_bytes())(live)
    found = submission.set_index("id")["prediction"].astype(np.float32)
    np.testing.assert_array_equal(found, predicted.loc[found.index, "prediction"])
    assert (tmp_path / "scores.png").stat().st_size > 10_000
