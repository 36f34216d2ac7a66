"""Mutants: a set that is damaged, or that somebody has changed, is read right or refused."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
import signal
import subprocess
import sys
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from campaign_runs import ROOT, run_campaign
from numerai_tables import ragged_eras, row_numbers
from shard_sets import write_set
from tampering import edit, put

from numerai_sequence import (
    CorruptShardError,
    ManifestError,
    NumeraiSequence,
    open_shards,
)

COUNT = 246  # each kind as often as the others
OUTCOMES = {
    *("refused when opened", "refused when read"),
    *("left to verify, which refuses", "read right"),
}
ROWS, ERAS = 300, 12


@pytest.mark.slow
def test_mutants_are_read_right_or_refused(tmp_path):
    results = run_campaign("mutants", tmp_path, count=COUNT)
    assert sum(result["tried"] for result in results) == COUNT
    assert {result["tried"] for result in results} == {6}
    outcomes = Counter()
    for result in results:
        outcomes.update(result["outcomes"])
    assert outcomes.keys() == OUTCOMES
    assert sum(outcomes.values()) == COUNT
    assert outcomes["refused when opened"] > COUNT / 2
    assert all(result["figures"]["most MB"] < 64 for result in results)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Eras 1 to 12 in three shards, two eras a record batch."""
    path = tmp_path_factory.mktemp("whole")
    return write_set(path, rows=ROWS, eras=ERAS, missing_target=True, mix_eras=2)


@pytest.fixture
def folder(whole, tmp_path):
    """A set that a test may change."""
    return shutil.copytree(whole, tmp_path / "set")


def record_batches(folder, name="shard-01.arrow"):
    reader = pa.ipc.open_file(pa.py_buffer((folder / name).read_bytes()))
    return [reader.get_batch(number) for number in range(reader.num_record_batches)]


def file_of(batches, **options):
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(**options)
    with pa.ipc.new_file(sink, batches[0].schema, options=options) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def with_column(batch, name, values):
    columns = [values if field == name else batch[field] for field in batch.schema.names]
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


def refused(error, function, *arguments, match=None):
    with pytest.raises(error, match=match) as caught:
        function(*arguments)
    return pickle.loads(pickle.dumps(caught.value))


OPEN = """
import sys
import pyarrow as pa
from numerai_sequence import CorruptShardError, open_shards
try:
    open_shards(sys.argv[1])
except CorruptShardError as error:
    print(pa.default_memory_pool().max_memory(), error)
"""


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_compressed_shard_is_refused_before_it_is_decompressed(folder, compression):
    """In 300 kB lie 64 MB, of the right schema and number of rows."""
    first, *others = record_batches(folder)
    ids = pa.array(["a" * (64 << 20), *first["id"].to_pylist()[1:]])
    first = with_column(first, "id", ids)
    put(folder, "shard-01.arrow", file_of([first, *others], compression=compression))
    assert (folder / "shard-01.arrow").stat().st_size < 1 << 20
    command = [sys.executable, "-c", OPEN, folder]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    peak, message = done.stdout.split(maxsplit=1)
    assert int(peak) < 1 << 20
    assert message.startswith(
        f"{folder / 'shard-01.arrow'}: Arrow file: found record batch 0: comp"
    )


def test_compressed_shard_of_ours_is_refused_too(folder):
    put(folder, "shard-01.arrow", file_of(record_batches(folder), compression="zstd"))
    refused(CorruptShardError, open_shards, folder, match="compressed")


@pytest.mark.parametrize("name", ["id", "era"])
def test_row_without_id_or_era_is_refused(folder, name):
    first, *others = record_batches(folder)
    values = pa.array([None, *first[name].to_pylist()[1:]])
    put(folder, "shard-01.arrow", file_of([with_column(first, name, values), *others]))
    refused(CorruptShardError, open_shards, folder, match="null in a column without nulls")


def test_record_batches_in_another_order_are_left_to_verify(folder, whole):
    """They are equally long, and the manifest tells of one era's rows as another's."""
    batches = record_batches(folder)
    halves = [batch.slice(0, 20) for batch in batches[:2]]
    put(folder, "shard-01.arrow", file_of(halves))

    def change(document):
        shard = document["shards"][1]
        counts = [Counter(half["era"].to_pylist()) for half in halves]
        missing = [{} for _ in halves]
        for half, numbers in zip(halves, missing, strict=True):
            for target in ("target", "target_b"):
                number = int(np.isnan(half[target].to_numpy()).sum())
                numbers |= {target: number} if number else {}
        shard["batches"] = [
            {"rows": 20, "eras": eras, "data_types": {"train": 20}, "missing": numbers}
            for eras, numbers in zip(counts, missing, strict=True)
        ]
        document["sources"][0]["rows"] += 40 - shard["rows"]
        shard["rows"] = 40

    edit(folder, change)
    with open_shards(folder) as shards:
        shards.verify()
    put(folder, "shard-01.arrow", file_of(halves[::-1]))
    with open_shards(folder) as shards:
        refused(CorruptShardError, shards.verify, match="rows of each era")


def batches_of(document):
    return [batch for shard in document["shards"] for batch in shard["batches"]]


def exchange_eras(document):
    """Eras 1 and 4 are in the same record batch."""
    for batch in batches_of(document):
        names = {"0001": "0004", "0004": "0001"}
        batch["eras"] = {names.get(era, era): rows for era, rows in batch["eras"].items()}


def exchange_batches(document):
    first, second = (document["shards"][0]["batches"][number] for number in range(2))
    names = list(second["eras"]), list(first["eras"])
    for batch, eras in zip((first, second), names, strict=True):
        batch["eras"] = dict(zip(eras, batch["eras"].values(), strict=True))


def rename_era(document):
    eras = document["shards"][0]["batches"][0]["eras"]
    eras["0999"] = eras.pop(next(iter(eras)))


def rename_data_types(document):
    for batch in batches_of(document):
        batch["data_types"] = {"live": batch["rows"]}


def lose_data_types(document):
    for batch in batches_of(document):
        batch["data_types"]["train"] -= 1


def lose_missing(document):
    for batch in batches_of(document):
        batch["missing"].pop("target", None)


LIES = [exchange_eras, exchange_batches, rename_era, rename_data_types, lose_data_types]


@pytest.mark.parametrize("lie", [*LIES, lose_missing], ids=lambda lie: lie.__name__)
def test_manifest_that_tells_of_other_rows_is_found_by_verify(folder, lie):
    edit(folder, lie)
    with open_shards(folder) as shards:
        error = refused(CorruptShardError, shards.verify, match=r"rows of each|rows without")
        assert error.path in shards.paths
        assert len(str(error)) < 500


@pytest.mark.parametrize("lie", LIES[:3], ids=lambda lie: lie.__name__)
def test_manifest_that_tells_of_other_eras_is_found_where_eras_are_read(folder, lie):
    edit(folder, lie)
    with open_shards(folder) as shards:
        refused(CorruptShardError, shards.column, "era", match="rows of each era")
        sequence = NumeraiSequence(shards, 50, target=None)
        refused(CorruptShardError, lambda: sequence.era_codes, match="rows of each era")
        eras = shards.eras[::2]
        refused(CorruptShardError, lambda: NumeraiSequence(shards, 50, target=None, eras=eras))


def test_manifest_that_tells_of_other_data_types_is_found_where_they_are_read(folder):
    def change(document):
        for batch in batches_of(document):
            batch["data_types"] = {"train": batch["rows"] - 1, "live": 1}

    edit(folder, change)
    with open_shards(folder) as shards:
        refused(CorruptShardError, shards.column, "data_type", match="rows of each data_type")
        refused(
            CorruptShardError,
            lambda: NumeraiSequence(shards, 50, target=None, data_type="train"),
            match="rows of each data_type",
        )


@pytest.mark.parametrize("policy", ["error", "drop"])
def test_manifest_that_tells_of_other_missing_targets_is_found_where_they_are_read(folder, policy):
    def change(document):
        for batch in batches_of(document):
            batch["missing"]["target"] += 1

    edit(folder, change)
    with open_shards(folder) as shards:
        refused(CorruptShardError, shards.column, "target", match="rows without 'target'")
        refused(
            CorruptShardError,
            lambda: NumeraiSequence(shards, 50, missing_target=policy),
            match="rows without 'target'",
        )


@pytest.mark.parametrize("offset", [-1, 2**31 - 1, 10_000])
@pytest.mark.parametrize("name", ["id", "era", "data_type"])
def test_offset_that_leads_astray_is_found_by_verify_and_by_who_reads_it(folder, name, offset):
    content = bytearray((folder / "shard-01.arrow").read_bytes())
    buffer = pa.py_buffer(bytes(content))
    column = pa.ipc.open_file(buffer).get_batch(1)[name]
    place = column.buffers()[1].address - buffer.address + 4 * 5
    content[place : place + 4] = offset.to_bytes(4, "little", signed=True)
    put(folder, "shard-01.arrow", bytes(content))
    with open_shards(folder) as shards:
        refused(CorruptShardError, shards.verify, match=f"column '{name}'")
        error = refused(CorruptShardError, shards.column, name, match=f"column '{name}'")
        assert error.path == folder / "shard-01.arrow"


class TooSlow(BaseException):
    """No error of ours, and no OSError, which a wait for a pipe would be begun again after."""


@pytest.fixture
def in_seconds():
    """Fail where something waits for a pipe."""

    def fail(*_):
        raise TooSlow

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(10)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("name", ["manifest.json", "shard-02.arrow"])
def test_pipe_in_the_place_of_a_file_does_not_stop_opening(folder, name, in_seconds):
    (folder / name).unlink()
    os.mkfifo(folder / name)
    kind = ManifestError if name == "manifest.json" else CorruptShardError
    error = refused(kind, open_shards, folder, match="not a regular file")
    assert error.path == folder / name


def test_pipe_in_the_place_of_a_file_does_not_stop_verify(folder, in_seconds):
    with open_shards(folder) as shards:
        (folder / "shard-02.arrow").unlink()
        os.mkfifo(folder / "shard-02.arrow")
        refused(CorruptShardError, shards.verify, match="not a regular file")


def test_disk_that_cannot_read_is_an_error_when_opening(folder, monkeypatch):
    """And no end of the process, as where a page of a map cannot be read."""

    def fail(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "preadv", fail)
        error = refused(CorruptShardError, open_shards, folder, match="Input/output error")
    assert error.path == folder / "shard-00.arrow"


@pytest.mark.parametrize("name", ["manifest.json", "shard-02.arrow"])
def test_device_in_the_place_of_a_file_is_refused(folder, name):
    (folder / name).unlink()
    (folder / name).symlink_to("/dev/zero")
    kind = ManifestError if name == "manifest.json" else CorruptShardError
    refused(kind, open_shards, folder, match="not a regular file")


def test_set_whose_files_are_links_is_read(folder, whole, tmp_path):
    """Its owner has put them on several disks."""
    linked = tmp_path / "linked"
    linked.mkdir()
    for path in folder.iterdir():
        (linked / path.name).symlink_to(path)
    with open_shards(linked) as shards, open_shards(whole) as expected:
        assert shards.column("id").equals(expected.column("id"))
        shards.verify()


@pytest.mark.parametrize("era", ["9" * 5000, "era" + "9" * 5000, "9" * 101])
def test_era_of_too_many_digits_is_a_name(tmp_path, era):
    with open_shards(write_set(tmp_path, rows=40, eras=[5] * 40, era_names=era)) as shards:
        assert shards.eras == [era]
        assert shards[0].rows == 40
        assert "1 eras" in repr(shards)


def test_era_of_no_rows_is_refused(folder):
    edit(folder, lambda document: batches_of(document)[0]["eras"].update({"0500": 0}))
    refused(ManifestError, open_shards, folder, match="'0500': found 0, expected at least 1")


@pytest.mark.parametrize("fixes", [False, True])
def test_shard_that_the_manifest_has_forgotten_is_missed(folder, fixes):
    def change(document):
        lost = document["shards"].pop()
        if fixes:
            document["options"]["num_shards"] -= 1
        (folder / lost["file"]).unlink()

    edit(folder, change)
    refused(ManifestError, open_shards, folder, match=r"found 2 shards|the shards have \d+ rows")


def test_half_a_letter_in_an_era_is_refused(folder):
    def change(document):
        eras = batches_of(document)[0]["eras"]
        eras["\ud800"] = eras.pop(next(iter(eras)))

    edit(folder, change)
    refused(ManifestError, open_shards, folder, match="surrogates not allowed")


@pytest.mark.parametrize("name", ["id", "era", "features"])
def test_target_of_another_columns_name_is_refused(folder, name):
    def change(document):
        document["targets"][1] = name
        for batch in batches_of(document):
            batch["missing"].pop("target_b", None)

    edit(folder, change)
    refused(ManifestError, open_shards, folder, match="the name of another column")


def test_values_that_no_feature_has_are_decoded_and_left_to_verify(folder):
    """Packed bytes over 124: without the checksum nothing is wrong with them."""
    content = bytearray((folder / "shard-01.arrow").read_bytes())
    with open_shards(folder) as shards:
        first = int(shards.files[1].starts["features"][0])
        start = shards[0].rows
    content[first : first + 5] = b"\xff" * 5
    (folder / "shard-01.arrow").write_bytes(content)
    with open_shards(folder) as shards:
        for dtype in ("float32", "float16", "int8"):
            sequence = NumeraiSequence(shards, 10, target=None, shuffle=False, dtype=dtype)
            x = np.concatenate([sequence[number] for number in range(len(sequence))])
            assert x.shape == (ROWS, 14)
            numbers = row_numbers(np.delete(x, start, axis=0))
            assert len(set(numbers)) == ROWS - 1
        refused(CorruptShardError, shards.verify, match="SHA-256")


def test_whole_set_is_read_and_verified(whole):
    with open_shards(whole) as shards:
        shards.verify()
        sequence = NumeraiSequence(shards, 64, target=None, shuffle=False)
        x = np.concatenate([sequence[number] for number in range(len(sequence))])
        numbers = row_numbers(x)
        assert sorted(numbers) == list(range(ROWS))
        eras = ragged_eras(ROWS, ERAS)[numbers]
        assert [f"{era:04d}" for era in eras] == shards.column("era").to_pylist()
        assert (sequence.era_codes + 1).tolist() == eras.tolist()
