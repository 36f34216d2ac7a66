"""Compatibility: sets that were written long ago still hold what was written.

The sets in ``stored_sets`` are never written anew. Each was made once, by the version of the format
that it is named after, with `make` or `make_refreshed` below. To add one, make it, commit it, and
give it a line in `SHA256`. The set of `FUTURE` was made with `make_future`, and nobody can read it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from networks import keras
from shard_sets import contents, write_set
from tampering import edit

from numerai_sequence import (
    ManifestError,
    NumeraiSequence,
    OutputExistsError,
    append_shards,
    open_shards,
    write_shards,
)
from numerai_sequence.format.encodings import ENCODINGS

FIXTURES = Path(__file__).parent / "stored_sets"
# What `LC_ALL=C sha256sum * | sha256sum` prints in the folder of each set.
SHA256 = {
    "future-option": "385ae905d143018aebe47a1c9163752961b5270f2b628af02380657925710bf5",
    "version-1-int8": "fe228e4c935a76a64b78458afba8b6619a4d420bfa49aa3f5c936351689a7058",
    "version-1-packed": "38a40bebfbad9111b698ac28f84b2e2d5ab7fc2bfe5ec10d4daad6bc4d0e501e",
    "version-2-int8": "8e25d3afebee99f8ba10a56b5866ccfd1cff3f365caed78a28eac9bc89565420",
    "version-2-packed": "8fba74074748a1e72a2ed12b1697cb79b890cbc2a0b57b6972cafefa6a50fdf5",
}

FUTURE = "future-option"

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


def write_rows(rows, path, target_20=TARGET_20):
    columns = {"id": IDS, "era": ERAS, "data_type": pa.array(DATA_TYPES, pa.string())}
    columns |= {feature: X[:, place].astype(np.int8) for place, feature in enumerate(FEATURES)}
    columns |= {"target": TARGET, "target_20": pa.array(target_20, from_pandas=True)}
    pq.write_table(pa.table(columns).take(rows), path)
    os.utime(path, (0, 0))


def make(name, encoding):
    """Write a set; run in an empty folder, for the manifest keeps the sources' paths."""
    write_rows(ROWS, "train.parquet")
    Path("features.json").write_text(json.dumps({"feature_sets": SETS, "targets": ["target"]}))
    write_shards("train.parquet", name, num_shards=3, encoding=encoding, seed=7).close()


def make_refreshed(name, encoding):
    """The same, of which eras 0010 and X, and some values of a target, came later."""
    earlier = np.where(ROWS % 3 == 0, np.nan, TARGET_20)
    write_rows(ROWS[:18], "train.parquet", earlier)
    Path("features.json").write_text(json.dumps({"feature_sets": SETS, "targets": ["target"]}))
    write_shards("train.parquet", name, num_shards=3, encoding=encoding, seed=7).close()
    write_rows(ROWS, "newer.parquet")
    append_shards(name, "newer.parquet")


def make_future(name):
    """A set as of a later version of the package, which has one more write option."""
    make(name, "packed")
    edit(Path(name), lambda document: document["options"].update(of_the_future=True))


@pytest.fixture(params=[name for name in SHA256 if name != FUTURE])
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


@pytest.mark.parametrize("name", SHA256)
def test_files_are_those_that_were_committed(name):
    folder = FIXTURES / name
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    lines = "".join(f"{files[name]}  {name}\n" for name in sorted(files))
    assert hashlib.sha256(lines.encode()).hexdigest() == SHA256[name], lines


def test_files_are_those_that_the_manifest_tells_of(shards):
    shards.verify()


def test_set_is_as_it_was_described(folder, shards):
    assert shards.encoding == folder.name.rsplit("-", 1)[1]
    assert shards.rows == 30
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


def refused(folder):
    with pytest.raises(ManifestError) as caught:
        open_shards(folder)
    assert caught.value.path == folder / "manifest.json"
    assert "damaged" not in str(caught.value)
    assert "again" not in str(caught.value)
    return caught.value


def test_an_option_from_the_future_says_to_upgrade():
    error = refused(FIXTURES / FUTURE)
    assert "found write option 'of_the_future', expected one of num_shards, " in str(error)
    assert str(error).endswith("; upgrade numerai_sequence")
    assert error.found == "'of_the_future'"
    assert "seed" in error.expected


@pytest.fixture
def copied(folder, tmp_path):
    return Path(shutil.copytree(folder, tmp_path / "set"))


@pytest.mark.parametrize("value", [None, False, 3, "keep", [], {"a": [1]}], ids=repr)
def test_whatever_the_option_from_the_future_is(copied, value):
    edit(copied, lambda document: document["options"].update(of_tomorrow=value))
    assert "write option 'of_tomorrow'" in str(refused(copied))


def test_a_choice_from_the_future_says_to_upgrade(copied):
    edit(copied, lambda document: document["options"].update(missing_feature="keep"))
    error = refused(copied)
    assert "missing_feature 'keep', expected one of error, middle; upgrade numerai_" in str(error)
    assert (error.found, error.expected) == ("'keep'", ("error", "middle"))


@pytest.mark.parametrize("places", [("manifest",), ("options",), ("manifest", "options")])
def test_an_encoding_from_the_future_says_to_upgrade(copied, places):
    def change(document):
        for place in places:
            (document if place == "manifest" else document["options"])["encoding"] = "float8"

    edit(copied, change)
    error = refused(copied)
    assert "encoding 'float8', expected one of packed, int8" in str(error)
    assert str(error).endswith("; upgrade numerai_sequence")
    assert (error.found, error.expected) == ("'float8'", tuple(ENCODINGS))


def test_a_damaged_manifest_is_damaged_whatever_its_options(copied):
    path = copied / "manifest.json"
    document = json.loads(path.read_text())
    document["options"]["of_the_future"] = True  # and the checksum is what it was
    path.write_text(json.dumps(document))
    with pytest.raises(ManifestError, match=r"damaged: .* checksum"):
        open_shards(copied)


def test_keys_from_the_future_that_are_no_options_are_ignored(copied):
    def change(document):
        for part in (document, *document["sources"], *document["shards"]):
            part["of_the_future"] = [1]
        for shard in document["shards"]:
            for batch in shard["batches"]:
                batch["of_the_future"] = {"a": 1}

    with open_shards(copied) as shards:
        before = shards.manifest
    edit(copied, change)
    with open_shards(copied) as shards:
        assert replace(shards.manifest, others={}) == before
        assert shards.manifest.others == {"of_the_future": [1]}  # for the next refresh


def test_a_set_from_before_an_option_is_the_one_that_its_default_makes(tmp_path):
    folder = write_set(tmp_path)
    edit(folder, lambda document: document["options"].pop("seed"))
    before = contents(folder)
    options = {"num_shards": 3, "progress": False}
    write_shards(tmp_path / "train.parquet", folder, **options).close()
    assert contents(folder) == before
    with pytest.raises(OutputExistsError, match="a set with seed=0, not 1"):
        write_shards(tmp_path / "train.parquet", folder, seed=1, **options)


@pytest.mark.parametrize("option", ["mix_eras", "features", "targets"])
def test_an_option_from_before_it_was_there_has_its_default(copied, option):
    with open_shards(copied) as shards:
        before = shards.manifest
    edit(copied, lambda document: document["options"].pop(option))
    with open_shards(copied) as shards:
        assert shards.manifest == before
        shards.verify()


if __name__ == "__main__":
    make(*sys.argv[1:])
