"""Compatibility: sets that were written long ago still hold what was written.

The sets in ``fixtures`` are never written anew. Each was made once, by the version of the format
that it is named after, with `make` below. To add one, make it, commit it, and give it a line in
`MANIFESTS`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from networks import keras

from numerai_sequence import ManifestError, NumeraiSequence, open_shards, write_shards

FIXTURES = Path(__file__).parent / "fixtures"
# The SHA-256 of each set's manifest, which holds those of its shard files.
MANIFESTS = {
    "version-1-int8": "4e7e6a25c669b7746c6764304b27b0cf74fbb4c59ea857571e9ff0a3d6138960",
    "version-1-packed": "911dcf793b5899624749d2ae7d4d13fc161f8f3b92e24f9dad0f284fc91dc7c6",
}

ROWS = np.arange(30)
ERAS = ["0001"] * 7 + ["0002"] * 6 + ["0003"] * 5 + ["0010"] * 8 + ["X"] * 4
IDS = [f"n{row:015x}" for row in ROWS]
DATA_TYPES = [
    None if row % 5 == 4 else {"X": "live", "0010": "validation"}.get(era, "train")
    for row, era in enumerate(ERAS)
]
X = np.stack([(ROWS * (place + 1) + ROWS // 5 + place) % 5 for place in range(7)], axis=1)
FEATURES = [f"feature_{letter}" for letter in "abcdefg"]
TARGET = (ROWS * 3 % 5 / 4).astype(np.float32)
TARGET_20 = np.where(ROWS % 7 == 3, np.nan, ROWS / 32).astype(np.float32)
SETS = {"small": ["feature_g", "feature_b"], "more": ["feature_a", "feature_h"]}


def make(name, encoding):
    """Write a set; run in an empty folder, for the manifest keeps the sources' paths."""
    columns = {"id": IDS, "era": ERAS, "data_type": pa.array(DATA_TYPES, pa.string())}
    columns |= {feature: X[:, place].astype(np.int8) for place, feature in enumerate(FEATURES)}
    columns |= {"target": TARGET, "target_20": pa.array(TARGET_20, from_pandas=True)}
    pq.write_table(pa.table(columns), "train.parquet")
    os.utime("train.parquet", (0, 0))
    Path("features.json").write_text(json.dumps({"feature_sets": SETS, "targets": ["target"]}))
    write_shards("train.parquet", name, num_shards=3, encoding=encoding, seed=7).close()


@pytest.fixture(params=MANIFESTS)
def folder(request):
    return FIXTURES / request.param


@pytest.fixture
def shards(folder):
    with open_shards(folder) as shards:
        yield shards


@pytest.fixture
def numbers(shards):
    """The row of the table that each row of the set is."""
    return np.array([IDS.index(name) for name in shards.column("id").to_pylist()])


def test_files_are_those_that_were_committed(folder, shards):
    sha256 = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    assert sha256.pop("manifest.json") == MANIFESTS[folder.name]
    assert sha256 == {shard.file: shard.checksum for shard in shards.manifest.shards}
    shards.verify()


def test_set_is_as_it_was_described(folder, shards):
    assert shards.encoding == folder.name.rsplit("-", 1)[1]
    assert (shards.rows, len(shards)) == (30, 3)
    assert shards.features == tuple(FEATURES)
    assert shards.targets == ("target", "target_20")
    assert shards.feature_sets == {"small": ("feature_g", "feature_b")}
    assert shards.era_rows == {"0001": 7, "0002": 6, "0003": 5, "0010": 8, "X": 4}
    assert shards.data_types == ["live", "train", "validation"]
    assert shards.missing == {"target_20": 4}


def test_every_row_is_as_it_was_written(shards, numbers):
    assert sorted(numbers) == list(ROWS)
    assert shards.column("era").to_pylist() == [ERAS[row] for row in numbers]
    assert shards.column("data_type").to_pylist() == [DATA_TYPES[row] for row in numbers]
    for name, values in (("target", TARGET), ("target_20", TARGET_20)):
        np.testing.assert_array_equal(shards.column(name).to_numpy(), values[numbers])


@pytest.mark.parametrize(("dtype", "scale"), [("int8", 1), ("float32", 4), ("float16", 4)])
def test_every_feature_is_as_it_was_written(shards, numbers, dtype, scale):
    sequence = NumeraiSequence(shards, 8, dtype=dtype, shuffle=False)
    batches = [sequence[number] for number in range(len(sequence))]
    x, y = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    assert x.dtype == dtype
    np.testing.assert_array_equal(x * scale, X[numbers])
    np.testing.assert_array_equal(y, TARGET[numbers])


def test_feature_set_and_eras_are_found(shards):
    sequence = NumeraiSequence(
        shards, 30, features="small", eras="0002-", target="target_20", missing_target="drop"
    )
    x, y = sequence[0]
    rows = [row for row in ROWS if "0001" < ERAS[row] < "X" and row % 7 != 3]
    assert sorted(y * 32) == rows
    np.testing.assert_array_equal(x * 4, X[(y * 32).astype(int)][:, [6, 1]])


def test_an_epoch_trains_the_weights_of_the_table(shards):
    layer = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")
    model = keras.Sequential([keras.layers.Input((7,)), layer])
    model.compile(keras.optimizers.SGD(0.5), "mse")
    history = model.fit(NumeraiSequence(shards, 30), epochs=1, verbose=0).history
    assert history["loss"] == pytest.approx([np.square(TARGET).mean()])
    step = 2 * (X / 4 * TARGET[:, np.newaxis]).mean(axis=0)  # against the loss's slope at 0
    np.testing.assert_allclose(layer.get_weights()[0][:, 0], 0.5 * step, rtol=1e-5)


def test_a_newer_version_says_to_upgrade(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "set")
    path = tmp_path / "set" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 99}))
    with pytest.raises(ManifestError, match=r"version 99, .*; upgrade numerai_sequence") as caught:
        open_shards(tmp_path / "set")
    assert (caught.value.path, caught.value.found) == (path, "99")


if __name__ == "__main__":
    make(*sys.argv[1:])
