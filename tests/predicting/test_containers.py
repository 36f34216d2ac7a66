"""Containers: each kind of model predicts in Numerai's images what it does here.

``NUMERAI_CONTAINERS`` names the Pythons of environments with the versions of the images, separated
as in ``PATH``; ``.ci/run`` makes two of them.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from exported_kinds import FEATURES, KINDS, live_frame, predicted
from networks import keras

from numerai_sequence import ensemble, export_predict, neutralize, predict
from numerai_sequence.predicting import portable_config

HELPERS = Path(__file__).parents[1] / "helpers"
OUTPUTS = [f"outputs_in_a_dict/{name}" for name in ("a", "b_0", "b_1")]
PYTHONS = [path for path in os.environ.get("NUMERAI_CONTAINERS", "").split(os.pathsep) if path]
pytestmark = [
    pytest.mark.skipif(not PYTHONS, reason="NUMERAI_CONTAINERS names no environments"),
    pytest.mark.skipif(not hasattr(keras, "ops"), reason="the kinds are for Keras 3"),
    pytest.mark.filterwarnings("ignore:features. the model does not remember"),
]


def run(python, *arguments):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [python, *map(str, arguments)], capture_output=True, text=True, env=environment, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A folder with a pickle of each kind, and what each has to predict."""
    folder = tmp_path_factory.mktemp("exported")
    live = live_frame(300)
    live.to_parquet(folder / "live.parquet")
    live[["era"]].assign(model=0.5).to_parquet(folder / "benchmarks.parquet")
    expected = {}
    for name, make in KINDS.items():
        model, options = make()
        path = folder / f"{name}.pkl"
        export_predict(model, path, features=FEATURES, ranked=False, **options)
        expected[name] = predicted(model, live, options)
    expected["an_ensemble"] = export_ensemble(folder)
    return folder, expected


def export_ensemble(folder):
    """Export several kinds as one, and return what the functions here make of them."""
    models = {name: KINDS[name]()[0] for name in ("dense", "int8_input", "outputs_in_a_dict")}
    options, live = {"features": FEATURES}, folder / "live.parquet"
    blend = {"weights": {"dense": 2, "int8_input": 1} | dict.fromkeys(OUTPUTS, 0.5)}
    export_predict(
        models,
        folder / "an_ensemble.pkl",
        ensemble="gaussian",
        neutralize=FEATURES[:5],
        proportion=0.5,
        **blend,
        **options,
    )
    columns = predict(models, live, with_era=True, progress=False, **options)
    blended = ensemble(columns, by="gaussian", **blend)
    neutral = neutralize(blended, live, features=FEATURES[:5], proportion=0.5, progress=False)
    return ensemble(neutral, eras=live)["prediction"].to_numpy()


@pytest.mark.parametrize("python", PYTHONS)
def test_each_kind_predicts_the_same(exported, tmp_path, python):
    folder, expected = exported
    there = shutil.copytree(folder, tmp_path / "there")
    print(run(python, HELPERS / "numerai_container.py", there))
    errors = {path.stem: path.read_text() for path in there.glob("*.error")}
    assert not errors, "\n".join(errors.values())
    assert len(expected) >= 25
    for name, values in expected.items():
        with open(there / f"{name}.csv") as file:
            rows = list(csv.reader(file))
        assert rows[0] == ["id", "prediction"]
        assert [row[0] for row in rows[1:]] == list(live_frame(300).index)
        found = np.array([float(row[1]) for row in rows[1:]])
        print(f"{name}: {np.abs(found - values).max():.1e} of {np.ptp(values):.3f}")
        # Nearly equal predictions may change places.
        within = 2.5 / len(values) if name == "an_ensemble" else 1e-5
        assert np.abs(found - values).max() < within, name


@pytest.mark.parametrize("python", PYTHONS)
def test_the_table_holds_what_the_oldest_keras_has(python):
    version = run(python, "-c", "import keras; print(keras.__version__)").split()[-1]
    if version != "3.10.0":
        pytest.skip(f"it has Keras {version}")
    table = json.loads(Path(portable_config.__file__).with_name("keras_3_10.json").read_text())
    assert json.loads(run(python, HELPERS / "oldest_keras_classes.py")) == table
