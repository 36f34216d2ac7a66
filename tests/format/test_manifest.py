"""Manifest: a manifest comes back as it was, and no damage to it goes unnoticed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pickle

import pytest

from numerai_sequence import ManifestError
from numerai_sequence.format.layout import (
    MANIFEST,
    BatchInfo,
    Manifest,
    Shard,
    SourceFile,
    WriteOptions,
)
from numerai_sequence.format.manifest import read_manifest, write_manifest

SHARDS = (
    Shard(
        file="shard-00.arrow",
        bytes=4096,
        rows=30,
        checksum="a" * 64,
        batches=(
            BatchInfo(20, {"0002": 15, "0004": 5}, {"train": 20}, {"target_b": 20}),
            BatchInfo(10, {"X": 10}, {"live": 8}),
        ),
    ),
    Shard("shard-01.arrow", 2048, 0, "b" * 64, ()),
)
EMPTY = {"rows": 0, "eras": {}, "data_types": {}, "missing": {}}
FULL = Manifest(
    encoding="int8",
    features=("feature_b", "feature_a", "feature_ü"),
    targets=("target", "target_b"),
    options=WriteOptions(
        2, "int8", 4, ("feature_b", "feature_a", "feature_ü"), ("target", "target_b"), 9
    ),
    sources=(SourceFile("data/train.parquet", 10_000, 1_700_000_000_000_000_000, 30, "c" * 64),),
    shards=SHARDS,
    feature_sets={"small": (2, 0), "none": (), "all": (0, 1, 2)},
    partial_sets={"rain": (1, 3), "faith": (0, 7)},
)
PLAIN = Manifest("packed", ("feature_a",), (), WriteOptions(1), (), (SHARDS[1],))


def checksum(document):
    """The checksum of what a manifest says."""
    content = {key: value for key, value in document.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def signed(document):
    """The manifest with its checksum made right, as somebody does who knows of it."""
    return document | {"checksum": checksum(document)}


def written(folder, manifest=FULL):
    """The JSON document of a manifest."""
    write_manifest(manifest, folder / MANIFEST)
    return json.loads((folder / MANIFEST).read_text(encoding="utf-8"))


def read_error(folder, content):
    """The error that reading this manifest raises: a document, or the text or bytes of one."""
    if not isinstance(content, (str, bytes)):
        content = json.dumps(content)
    if isinstance(content, str):
        content = content.encode()
    (folder / MANIFEST).write_bytes(content)
    with pytest.raises(ManifestError) as caught:
        read_manifest(folder)
    assert caught.value.path == folder / MANIFEST
    assert str(caught.value).startswith(str(folder / MANIFEST))
    return caught.value


@pytest.mark.parametrize("manifest", [FULL, PLAIN], ids=["full", "plain"])
def test_manifest_comes_back_as_it_was(tmp_path, manifest):
    write_manifest(manifest, tmp_path / MANIFEST)
    assert read_manifest(tmp_path) == manifest


def test_manifest_of_version_1_is_still_read(tmp_path):
    text = """
    {"format": "numerai_sequence", "version": 1, "encoding": "packed",
     "features": ["feature_a", "feature_b"], "targets": ["target"],
     "options": {"num_shards": 1, "encoding": "packed", "mix_eras": null, "features": null,
                 "targets": ["target"], "seed": 3},
     "sources": [{"path": "train.parquet", "bytes": 9, "mtime_ns": 5, "rows": 2, "checksum": "c"}],
     "shards": [{"file": "shard-00.arrow", "bytes": 7, "rows": 2, "checksum": "d",
                 "batches": [{"rows": 2, "eras": {"0001": 2}, "data_types": {"train": 1},
                              "missing": {"target": 1}}]}],
     "feature_sets": {"small": [1]}, "partial_sets": {"all": [2, 5]},
     "checksum": "53761057cfb8ef845d31dbee1cfb541a5b7a7494cb5b561f7c1b64ff9105a810"}
    """
    (tmp_path / MANIFEST).write_text(text)
    assert read_manifest(tmp_path) == Manifest(
        "packed",
        ("feature_a", "feature_b"),
        ("target",),
        WriteOptions(1, "packed", None, None, ("target",), 3),
        (SourceFile("train.parquet", 9, 5, 2, "c"),),
        (
            Shard(
                *("shard-00.arrow", 7, 2, "d"),
                (BatchInfo(2, {"0001": 2}, {"train": 1}, {"target": 1}),),
            ),
        ),
        {"small": (1,)},
        {"all": (2, 5)},
    )


def test_order_of_features_and_targets_is_kept(tmp_path):
    names = tuple(f"feature_{number * 7 % 10}" for number in range(10))
    write_manifest(dataclasses.replace(PLAIN, features=names, targets=names), tmp_path / MANIFEST)
    found = read_manifest(tmp_path)
    assert found.features == found.targets == names


def test_a_feature_in_many_sets_costs_few_bytes(tmp_path):
    names = tuple(f"feature_{number}" for number in range(1000))
    sets = {f"set_{number}": tuple(range(1000)) for number in range(20)}
    sizes = []
    for feature_sets in ({}, sets):
        manifest = dataclasses.replace(PLAIN, features=names, feature_sets=feature_sets)
        write_manifest(manifest, tmp_path / MANIFEST)
        assert read_manifest(tmp_path) == manifest
        sizes.append((tmp_path / MANIFEST).stat().st_size)
    assert sizes[1] - sizes[0] < 20 * 1000 * 5


def test_source_older_than_1970_is_no_damage(tmp_path):
    [source] = FULL.sources
    old = dataclasses.replace(FULL, sources=(dataclasses.replace(source, mtime_ns=-1),))
    write_manifest(old, tmp_path / MANIFEST)
    assert read_manifest(tmp_path) == old


def places(document, at=()):
    """Every place in a document: its keys from the root."""
    yield at
    if isinstance(document, (dict, list)):
        keys = document if isinstance(document, dict) else range(len(document))
        for key in keys:
            yield from places(document[key], (*at, key))


def get(document, place):
    for key in place:
        document = document[key]
    return document


def replaced(document, place, value):
    found = json.loads(json.dumps(document))
    get(found, place[:-1])[place[-1]] = value
    return found if place == ("checksum",) else signed(found)


COUNTED = (
    "eras",
    "data_types",
    "missing",
    "feature_sets",
    "partial_sets",
)  # their keys are names, of which none has to be there
NULLABLE = ("mix_eras", "features", "targets")  # of the options


def unnoticed(folder, damages):
    """Those of some (name, damaged document) that are no ManifestError, and what they are."""
    found = {}
    for name, damaged in damages:
        (folder / MANIFEST).write_text(json.dumps(damaged))
        try:
            read_manifest(folder)
        except Exception as error:
            if isinstance(error, ManifestError) and error.path == folder / MANIFEST:
                continue
            found[name] = repr(error)
        else:
            found[name] = "accepted"
    return found


def without(document, place):
    found = json.loads(json.dumps(document))
    del get(found, place[:-1])[place[-1]]
    return found if place == ("checksum",) else signed(found)


def test_missing_key_is_damage(tmp_path):
    document = written(tmp_path)
    keys = [place for place in places(document) if place and isinstance(place[-1], str)]
    keys = [place for place in keys if len(place) < 2 or place[-2] not in (*COUNTED, "options")]
    keys = [place for place in keys if place not in (("feature_sets",), ("partial_sets",))]
    assert len(keys) == 32
    damages = [(place, without(document, place)) for place in keys]
    assert unnoticed(tmp_path, damages) == {}


@pytest.mark.parametrize("name", WriteOptions.__dataclass_fields__)
def test_missing_option_is_what_the_set_shows_or_its_default(tmp_path, name):
    for manifest in (FULL, PLAIN, dataclasses.replace(PLAIN, options=WriteOptions(1, seed=7))):
        document = written(tmp_path, manifest)
        document["options"].pop(name, None)
        default = WriteOptions.__dataclass_fields__[name].default
        (tmp_path / MANIFEST).write_text(json.dumps(signed(document)))
        if name in ("num_shards", "encoding"):
            assert read_manifest(tmp_path) == manifest
        else:
            options = dataclasses.replace(manifest.options, **{name: default})
            assert read_manifest(tmp_path) == dataclasses.replace(manifest, options=options)


def test_missing_feature_sets_are_none(tmp_path):
    document = written(tmp_path)
    del document["feature_sets"], document["partial_sets"]
    (tmp_path / MANIFEST).write_text(json.dumps(signed(document)))
    bare = dataclasses.replace(FULL, feature_sets={}, partial_sets={})
    assert read_manifest(tmp_path) == bare


def test_manifest_without_options_has_their_defaults(tmp_path):
    shards = tuple(dataclasses.replace(SHARDS[1], file=f"shard-{n:02d}.arrow") for n in range(16))
    manifest = dataclasses.replace(PLAIN, options=WriteOptions(), shards=shards)
    document = signed(written(tmp_path, manifest) | {"options": {}})
    (tmp_path / MANIFEST).write_text(json.dumps(document))
    assert read_manifest(tmp_path) == manifest


OF_EVERY_TYPE = [None, True, -1, 1.5, "", "name", [], [1], {}, {"name": 1}]


def wrong_values(place, value):
    """Values that cannot be at this place of a manifest."""
    wrong = [other for other in OF_EVERY_TYPE if type(other) is not type(value)]
    if isinstance(value, int) and place[-1] != "mtime_ns":
        wrong.append(-1)
    if isinstance(value, list):
        wrong += [[None], [[]]] if place[0] == "feature_sets" else [[None], [1], [[]]]
    if place[:1] == ("options",) and place[-1] in NULLABLE:
        wrong.remove(None)
    return wrong


def test_value_of_another_type_is_damage(tmp_path):
    document = written(tmp_path)
    damages = [
        ((*place, repr(value)), replaced(document, place, value))
        for place in places(document)
        if place
        for value in wrong_values(place, get(document, place))
    ]
    assert len(damages) > 400
    assert unnoticed(tmp_path, damages) == {}


@pytest.mark.parametrize("version", [True, 1.0])
def test_version_is_a_whole_number(tmp_path, version):
    read_error(tmp_path, written(tmp_path) | {"version": version})


def test_every_cut_of_the_file_is_damage(tmp_path):
    text = json.dumps(written(tmp_path))
    for length in range(len(text)):
        assert "not JSON" in str(read_error(tmp_path, text[:length]))


NO_JSON = [
    *(b"", b"\0" * 100, b"\xff\xfe{}", b"not json", b"{'format': 1}", b"[" * 100_000),
    *(b'{"a":' * 100_000, b"9" * 100_000, b'{"format": "numerai_sequence"} {}'),
    *("{}".encode("utf-16"), b'\xef\xbb\xbf{"format": "numerai_sequence"}', b'"\xed\xa0\x80"'),
]


@pytest.mark.parametrize("content", NO_JSON, ids=range(len(NO_JSON)))
def test_no_json_is_damage(tmp_path, content):
    assert "not JSON" in str(read_error(tmp_path, content))


def test_damage_says_to_write_the_set_again(tmp_path):
    damaged = replaced(written(tmp_path), ("shards", 0, "rows"), "many")
    error = read_error(tmp_path, damaged)
    assert "'many'" in str(error)
    assert "'many'" in error.found
    assert "overwrite=True" in str(error)


@pytest.mark.parametrize("content", ["[]", "3", "null", '"numerai_sequence"', "{}"])
def test_json_of_another_kind_is_no_manifest(tmp_path, content):
    error = read_error(tmp_path, content)
    assert (error.found, error.expected) == (None, "numerai_sequence")


def test_manifest_of_another_format_is_refused(tmp_path):
    error = read_error(tmp_path, written(tmp_path) | {"format": "petastorm"})
    assert (error.found, error.expected) == ("'petastorm'", "numerai_sequence")


@pytest.mark.parametrize("version", [3, 10, 3.0, 2.1, "3", "2.5"])
def test_newer_version_asks_for_an_upgrade(tmp_path, version):
    error = read_error(tmp_path, written(tmp_path) | {"version": version})
    assert (error.found, error.expected) == (repr(version), "1 to 2")
    assert f"version {version!r}, expected 1 to 2; upgrade numerai_sequence" in str(error)


def test_newer_version_may_look_quite_different(tmp_path):
    error = read_error(tmp_path, {"format": "numerai_sequence", "version": 9})
    assert (error.found, error.expected) == ("9", "1 to 2")


@pytest.mark.parametrize("version", [0, -1, None, "1", "", "new", True, 2.0, [1]])
def test_unknown_version_asks_to_write_again(tmp_path, version):
    error = read_error(tmp_path, written(tmp_path) | {"version": version})
    assert (error.found, error.expected) == (repr(version), "1 to 2")
    assert "write the set again" in str(error)


def test_missing_manifest_is_named(tmp_path):
    with pytest.raises(ManifestError, match="No such file") as caught:
        read_manifest(tmp_path)
    assert caught.value.path == tmp_path / MANIFEST
    assert isinstance(caught.value.__cause__, FileNotFoundError)


def test_missing_folder_is_a_missing_manifest(tmp_path):
    with pytest.raises(ManifestError) as caught:
        read_manifest(tmp_path / "nowhere")
    assert caught.value.path == tmp_path / "nowhere" / MANIFEST


def test_folder_in_the_place_of_the_manifest_is_an_error(tmp_path):
    (tmp_path / MANIFEST).mkdir()
    with pytest.raises(ManifestError) as caught:
        read_manifest(tmp_path)
    assert caught.value.path == tmp_path / MANIFEST


NO_SHARD_FILES = [
    *("", ".", "..", "../shard-00.arrow", "a/shard-00.arrow", "/shard-00.arrow", "./a", "a/"),
    *("..\\shard-00.arrow", "a\\b", "shard\0.arrow", "shard\ud800.arrow", "manifest.json"),
]


@pytest.mark.parametrize("file", NO_SHARD_FILES, ids=ascii)
def test_name_of_no_shard_file_is_damage(tmp_path, file):
    read_error(tmp_path, replaced(written(tmp_path), ("shards", 0, "file"), file))


@pytest.mark.parametrize(
    ("place", "value", "what"),
    [
        (("shards", 1, "file"), "shard-00.arrow", "named twice"),
        (("features", 1), "feature_b", "comes twice"),
        (("targets", 1), "target", "comes twice"),
        (("features",), [], "no features"),
        (("encoding",), "base7", "base7"),
        (("options", "encoding"), "base7", "base7"),
        (("options", "num_shards"), 0, "num_shards"),
        (("options", "compression"), "zstd", "compression"),
        (("shards", 0, "rows"), 31, "31 rows"),
        (("shards", 0, "batches", 1, "rows"), 11, "eras"),
        (("shards", 0, "batches", 0, "eras", "0004"), 6, "eras"),
        (("shards", 0, "batches"), [], "30 rows"),
        (("shards", 0, "batches", 1, "missing", "target"), 0, "'target': found 0, expected at lea"),
        (("shards", 0, "batches", 1, "eras", "0002"), 0, "'0002': found 0, expected at least 1"),
        (("shards", 0, "batches", 1, "data_types", "live"), 11, "more data types than its 10 rows"),
        (("shards", 1, "batches"), [EMPTY], "differ from the sum of its eras"),
        (("shards", 0, "batches", 0, "rows"), 2**63, "9223372036854775808"),
        (("sources", 0, "rows"), 31, "the shards have 30 rows, the sources 31"),
        (("options", "num_shards"), 3, "found 2 shards, expected 3"),
        (("options", "encoding"), "packed", "encoding: the set and its options differ"),
        (("options", "targets"), ["target"], "targets: the set and its options differ"),
        (("targets", 0), "id", "'id' has the name of another column"),
        (("targets", 0), "features", "'features' has the name of another column"),
        (("features", 0), "\ud800", "surrogates not allowed"),
        (("feature_sets",), {"\udfff": []}, "surrogates not allowed"),
        (("shards", 0, "batches", 1, "eras"), {"\ud800": 10}, "surrogates not allowed"),
        (("shards", 0, "batches", 1, "missing", "target"), 11, "11 of the 10 rows"),
        (("shards", 0, "batches", 1, "missing", "target_c"), 1, "'target_c'"),
        (("feature_sets", "small", 1), 3, "'small': expected indices below 3"),
        (("feature_sets", "small", 1), 2, "'small': expected indices below 3, each once"),
        (("partial_sets", "rain", 0), 3, "'rain': partial with 3 of 3 features"),
        (("partial_sets", "rain"), [1, 3, 5], "too many values"),
        (("partial_sets", "small"), [1, 2], "as complete and as partial"),
    ],
)
def test_contradiction_is_damage(tmp_path, place, value, what):
    assert what in str(read_error(tmp_path, replaced(written(tmp_path), place, value)))


def test_edit_of_any_value_shows(tmp_path):
    """All but where the checksum was made right too."""
    document = written(tmp_path)
    values = {place: get(document, place) for place in places(document) if place}
    simple = {place: value for place, value in values.items() if isinstance(value, (int, str))}
    assert len(simple) == 48
    for place, value in simple.items():
        edited = replaced(document, place, value + (1 if isinstance(value, int) else "x"))
        edited["checksum"] = document["checksum"] + ("x" if place == ("checksum",) else "")
        read_error(tmp_path, edited)


def test_text_may_be_laid_out_otherwise(tmp_path):
    document = written(tmp_path)
    (tmp_path / MANIFEST).write_bytes(json.dumps(document, indent=3).replace("\n", "\r\n").encode())
    assert read_manifest(tmp_path) == FULL


def test_checksum_is_written_as_the_last_line(tmp_path):
    document = written(tmp_path)
    *_, line, end = (tmp_path / MANIFEST).read_text().splitlines()
    assert (line, end) == (f'"checksum": "{checksum(document)}"', "}")


def test_larger_manifest_than_its_shards_can_have_is_refused_unread(tmp_path):
    document = written(tmp_path)
    text = json.dumps(document).encode()
    most = 1 << 20
    for size, shards, is_right in [
        *((most, 0, True), (most + 1, 0, False)),
        *((most + 1, 8, True), (most + 2, 8, False), (32 << 20, 1 << 40, True)),
        *(((32 << 20) + 1, 1 << 40, False), (1 << 40, 1 << 40, False)),
    ]:
        with open(tmp_path / "shard-00.arrow", "wb") as file:
            file.truncate(shards)  # of a terabyte none is on the disk
        (tmp_path / MANIFEST).write_bytes(text + b" " * (min(size, 33 << 20) - len(text)))
        os.truncate(tmp_path / MANIFEST, size)
        if is_right:
            assert read_manifest(tmp_path) == FULL
        else:
            with pytest.raises(ManifestError, match=f"{size:,} bytes, expected at most") as caught:
                read_manifest(tmp_path)
            assert caught.value.found == size


@pytest.mark.parametrize("name", ["version", "format", "options", "features", "shards"])
def test_depth_at_which_python_gives_up_is_damage(tmp_path, name):
    """Around a thousand lists: some can be read, and then neither shown nor pickled."""
    document = written(tmp_path)
    for depth in range(900, 1000, 3):
        text = json.dumps(document | {name: "HERE"})
        error = read_error(tmp_path, text.replace('"HERE"', "[" * depth + "]" * depth))
        pickle.loads(pickle.dumps(error))
        assert len(str(error)) < 500


@pytest.mark.parametrize("value", ["x" * 9999, ["x" * 9999], {"x" * 9999: 1}], ids=type)
def test_no_error_repeats_what_is_endless(tmp_path, value):
    document = written(tmp_path)
    lengths = []
    for place in filter(None, places(document)):
        (tmp_path / MANIFEST).write_text(json.dumps(replaced(document, place, value)))
        try:
            read_manifest(tmp_path)  # names may be long
        except ManifestError as error:
            lengths.append(len(str(error)))
    assert len(lengths) > 60
    assert max(lengths) < 500


def test_pipe_in_the_place_of_the_manifest_is_an_error(tmp_path):
    os.mkfifo(tmp_path / MANIFEST)
    with pytest.raises(ManifestError, match="not a regular file"):
        read_manifest(tmp_path)
