"""Layout: options, schema and checksum are what the format says."""

from __future__ import annotations

import hashlib
import json
import os
import socket

import pyarrow as pa
import pytest

from numerai_sequence.format.layout import (
    MOST_SHARDS,
    Manifest,
    WriteOptions,
    file_checksum,
    open_regular,
    shard_schema,
)


def test_options_have_the_documented_defaults():
    assert WriteOptions() == WriteOptions(
        num_shards=16, encoding="packed", mix_eras=None, features=None, targets=None, seed=0
    )


@pytest.mark.parametrize("option", ["num_shards", "mix_eras"])
def test_counts_of_options_are_whole_numbers_from_1(option):
    for value in (1, 1000):
        assert getattr(WriteOptions(**{option: value}), option) == value
    for value in (0, -1):
        with pytest.raises(ValueError, match=f"{option}: found {value}, expected at least 1"):
            WriteOptions(**{option: value})
    for value in (True, 1.0, "1", [1]):
        with pytest.raises(TypeError, match=f"{option}: found .*, expected a whole number"):
            WriteOptions(**{option: value})


@pytest.mark.parametrize("encoding", ["", "Packed", "int4", None, 8])
def test_unknown_encoding_is_refused_with_the_known_ones(encoding):
    with pytest.raises(ValueError, match=r"encoding: found .*'packed', 'int8'"):
        WriteOptions(encoding=encoding)


def test_seed_is_a_whole_number_from_0():
    assert WriteOptions(seed=2**64).seed == 2**64
    with pytest.raises(ValueError, match="seed: found -1, expected at least 0"):
        WriteOptions(seed=-1)
    for value in (True, 1.5, "1", None):
        with pytest.raises(TypeError, match=r"seed: found .*, expected a whole number"):
            WriteOptions(seed=value)


@pytest.mark.parametrize("number", [MOST_SHARDS + 1, 2**40, 2**70])
def test_so_many_shards_that_they_would_fill_the_memory_are_refused(number):
    assert WriteOptions(num_shards=MOST_SHARDS).num_shards == 10_000
    with pytest.raises(ValueError, match=f"num_shards: found {number}, expected at most 10,000"):
        WriteOptions(num_shards=number)


def test_schema_of_version_1_is_what_it_was():
    names = ("feature_b", "feature_a", "feature_d", "feature_c")
    for encoding, values, width in (("packed", pa.uint8(), 2), ("int8", pa.int8(), 4)):
        schema = shard_schema(encoding, names, ("target", "target_b"))
        assert schema.names == ["id", "era", "data_type", "target", "target_b", "features"]
        assert schema.types == [
            *(pa.string(), pa.string(), pa.string(), pa.float32(), pa.float32()),
            pa.fixed_shape_tensor(values, (width,)),
        ]
        assert schema.metadata == {
            b"numerai_sequence.version": b"1",
            b"numerai_sequence.encoding": encoding.encode(),
            b"numerai_sequence.features": json.dumps(names).encode(),
        }


def test_schema_of_a_manifest_is_that_of_its_shards():
    manifest = Manifest("int8", ("feature_b", "feature_a"), ("target",), WriteOptions(), (), ())
    expected = shard_schema("int8", manifest.features, manifest.targets)
    assert manifest.schema.equals(expected, check_metadata=True)


@pytest.mark.parametrize("size", [0, 1, 2**20, 2**20 + 1, 3 * 2**20 - 1])
def test_checksum_is_the_sha_256_of_all_bytes(tmp_path, size):
    content = bytes(range(256)) * (size // 256) + b"\n" * (size % 256)
    (tmp_path / "file").write_bytes(content)
    read = []
    found = file_checksum(tmp_path / "file", progress=read.append)
    assert found == file_checksum(tmp_path / "file") == hashlib.sha256(content).hexdigest()
    assert sum(read) == size


def bind(path):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def link_to_zeros(path):
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, bind, link_to_zeros])
def test_what_is_not_a_regular_file_is_refused_at_once(tmp_path, monkeypatch, make):
    monkeypatch.chdir(tmp_path)  # the address of a socket has to be short
    path = type(tmp_path)("it")
    make(path)
    for function in (open_regular, file_checksum):
        with pytest.raises(OSError, match=r"not a regular file|No such device"):
            function(path)


def test_link_to_a_regular_file_is_that_file(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    assert file_checksum(tmp_path / "link") == hashlib.sha256(b"content").hexdigest()
