"""Docstrings: the examples in them run."""

from __future__ import annotations

import ast
import functools
import inspect
import pickle
import re
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from networks import keras

import numerai_sequence
from numerai_sequence import NumeraiSequence, Unpack, connect_ranks, export_predict
from numerai_sequence.format.encodings import COMPACT, packed
from numerai_sequence.synthetic import write_parquet

PACKAGE = Path(numerai_sequence.__file__).parent
KINDS = ast.Module | ast.ClassDef | ast.FunctionDef


def examples(text):
    """What follows each ``::`` of a docstring, indented."""
    blocks = re.findall(
        r"::\n\n((?:    .*\n|\n)+)", f"{inspect.cleandoc(text)}\n".replace("\t", " ")
    )
    return [textwrap.dedent(block).strip() for block in blocks]


def example(documented):
    """The one example of a docstring."""
    [code] = examples(documented.__doc__)
    return code


def test_there_are_no_examples_but_those_that_run_here():
    found = {}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            text = (ast.get_docstring(node) or "") if isinstance(node, KINDS) else ""
            assert ">>>" not in text, path
            if "::\n" in text:
                found[getattr(node, "name", path.stem)] = len(examples(text))
    expected = ["__init__", "connect_ranks", "packed", "export_predict", "Unpack"]
    assert found == dict.fromkeys(expected, 1)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    write_parquet(tmp_path / "train.parquet", rows=2000, features=30)
    monkeypatch.chdir(tmp_path)


def test_the_package_trains(folder):
    model = keras.Sequential([keras.layers.Input((30,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    names = {"model": model}
    exec(example(numerai_sequence), names)
    assert names["shards"].rows == 2000
    assert np.isfinite(model.history.history["loss"]).all()


def test_the_model_behind_unpack_is_saved(folder):
    shards = numerai_sequence.write_shards("train.parquet", "shards/", progress=False)
    core = keras.Sequential([keras.layers.Input((30,)), keras.layers.Dense(1)])
    names = {"keras": keras, "core": core, "shards": shards}
    names |= {"NumeraiSequence": NumeraiSequence, "Unpack": Unpack}
    exec(example(Unpack), names)
    saved = keras.models.load_model("model.keras")
    np.testing.assert_array_equal(saved.get_weights()[0], core.get_weights()[0])


def test_an_export_does_what_its_calls_do(folder):
    live = pd.read_parquet("train.parquet").assign(era="X")
    features = {"features": [name for name in live if name.startswith("feature")]}
    features["dtype"] = "float32"
    live.to_parquet("live.parquet")
    units = keras.layers.Dense
    models = [keras.Sequential([keras.Input((30,)), units(n), units(1)]) for n in (3, 4)]
    names = {
        "models": models,
        "weights": [2, 1],
        "names": features["features"][:9],
        "predict": functools.partial(numerai_sequence.predict, progress=False, **features),
        "ensemble": numerai_sequence.ensemble,
        "neutralize": functools.partial(numerai_sequence.neutralize, progress=False),
    }
    exec(example(export_predict), names)
    blend = {"ensemble": "rank", "weights": names["weights"]}
    neutral = {"neutralize": names["names"], "proportion": 0.5}
    path = export_predict(models, "predict.pkl", **blend, **neutral, **features)
    found = pickle.loads(path.read_bytes())(live)
    assert found["prediction"].tolist() == names["final"]["prediction"].tolist()
    assert found["prediction"].nunique() == 2000


def test_ranks_are_those_of_the_sequence(folder):
    """That the ranks are connected is tested with Ray, in test_ray; here they are given."""
    numerai_sequence.write_shards("train.parquet", "shards/", progress=False).close()
    names = {"connect_ranks": lambda: (1, 2), "NumeraiSequence": NumeraiSequence}
    exec(example(connect_ranks), names)
    assert (names["training"].rank, names["training"].world_size) == (1, 2)


def test_packed_bytes_are_those_of_the_formula():
    target, formula = example(packed).split("  ")[0].split(" = ")
    assert target == "byte[j]"
    columns = [np.array([value], np.uint8) for value in (4, 0, 3, 1, 2, 1, 4)]
    [block] = COMPACT.cut_blocks(7, features_per_block=9)
    [encoded] = COMPACT.encode_block([columns[place] for place in block.features], block)
    f = [int(column[0]) for column in columns] + [0, 0]  # a feature past the end counts 0
    assert list(encoded) == [eval(formula, {"f": f, "K": 3, "j": j}) for j in range(3)]
