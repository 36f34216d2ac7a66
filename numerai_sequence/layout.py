"""Layout: the on-disk contract that the writer fulfils and the reader relies on.

A shard set is a folder: ``manifest.json``, written last, and the shard files that it names. A shard
is an uncompressed Arrow IPC file with the columns ``id``, ``era``, ``data_type``, one float32
column a target, and ``features``: a canonical ``arrow.fixed_shape_tensor``, so that the encoded
features of one row are neighbouring bytes (`encoding` says what they mean). Rows are permuted
within each record batch, which holds one window of eras.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from .checks import as_count, as_counts, as_dict, as_list, as_names, as_text, as_whole, check_count
from .encoding import ENCODINGS, row_bytes, value_dtype
from .errors import ManifestError

FORMAT = "numerai_sequence"
VERSION = 1
MANIFEST = "manifest.json"
META_COLUMNS = ("id", "era", "data_type")
FEATURES = "features"

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class WriteOptions:
    """What the user asked of the writer; the same options and sources make the same set."""

    num_shards: int = 16
    encoding: str = "packed"
    mix_eras: int | None = None
    features: tuple[str, ...] | None = None
    targets: tuple[str, ...] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_count("num_shards", self.num_shards)
        if self.mix_eras is not None:
            check_count("mix_eras", self.mix_eras)
        if self.encoding not in ENCODINGS:
            raise ValueError(f"encoding: found {self.encoding!r}, expected one of {ENCODINGS}")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise ValueError(f"seed: found {self.seed!r}, expected an integer of at least 0")


@dataclass(frozen=True)
class SourceFile:
    """A Parquet file that rows came from; `checksum` is the SHA-256 of its bytes."""

    path: str
    bytes: int
    mtime_ns: int
    rows: int
    checksum: str


@dataclass(frozen=True)
class Batch:
    """One record batch: its rows, and how many of them each era and each data type has.

    `missing` says how many rows have no value of a target; a target that all have is not in it.
    """

    rows: int
    eras: dict[str, int]
    data_types: dict[str, int]
    missing: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Shard:
    """One shard file: its name in the folder, bytes, rows, SHA-256 and record batches."""

    file: str
    bytes: int
    rows: int
    checksum: str
    batches: tuple[Batch, ...]


@dataclass(frozen=True)
class Manifest:
    """What is in a shard set.

    Attributes
    ----------
    feature_sets : dict of str to tuple of int
        The sets of features.json whose features are all in `features`, as places in it.
    partial_sets : dict of str to (int, int)
        The others: how many of their features are in `features`, and how many they have.
    """

    encoding: str
    features: tuple[str, ...]
    targets: tuple[str, ...]
    options: WriteOptions
    sources: tuple[SourceFile, ...]
    shards: tuple[Shard, ...]
    feature_sets: dict[str, tuple[int, ...]] = field(default_factory=dict)
    partial_sets: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def schema(self) -> pa.Schema:
        return shard_schema(self.encoding, self.features, self.targets)


def shard_schema(encoding: str, features: tuple[str, ...], targets: tuple[str, ...]) -> pa.Schema:
    """Return the Arrow schema of every shard of a set."""
    values = pa.type_for_alias(value_dtype(encoding))
    tensor = pa.fixed_shape_tensor(values, (row_bytes(encoding, len(features)),))
    fields = [pa.field(name, pa.string()) for name in META_COLUMNS]
    fields += [pa.field(name, pa.float32()) for name in targets]
    fields.append(pa.field(FEATURES, tensor))
    metadata = {
        "numerai_sequence.version": str(VERSION),
        "numerai_sequence.encoding": encoding,
        "numerai_sequence.features": json.dumps(features),
    }
    return pa.schema(fields, metadata)


def is_shard_name(name: str) -> bool:
    """Say whether a shard file may have this name: a plain one, that leads nowhere else."""
    return re.fullmatch(r"[\w-][\w.-]*\.arrow", name) is not None


def write_manifest(manifest: Manifest, path: Path) -> None:
    """Write a manifest and see it onto the disk."""
    document = {"format": FORMAT, "version": VERSION, **asdict(manifest)}
    # A line a key: with one a number, the feature sets would fill thousands.
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in document.items()]
    with open(path, "w", encoding="utf-8") as file:
        file.write("{\n" + ",\n".join(lines) + "\n}\n")
        file.flush()
        os.fsync(file.fileno())


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a shard set.

    Raises
    ------
    ManifestError
        It is missing, damaged, or of a version that this package does not read.
    """
    path = folder / MANIFEST
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise ManifestError(
            f"{path}: {error.strerror or error}; expected the manifest of a shard set, "
            "written by 'numerai-sequence shard'",
            path=path,
            expected=FORMAT,
        ) from error
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"no JSON ({error})") from error
    _check_version(path, document)
    try:
        manifest = _parse(document)
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, f"{type(error).__name__}: {error}") from error
    return manifest


def _check_version(path: Path, document: Any) -> None:
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ManifestError(
            f'{path}: not the manifest of a shard set; expected "format": "{FORMAT}"',
            path=path,
            found=document.get("format") if isinstance(document, dict) else None,
            expected=FORMAT,
        )
    found = document.get("version")
    if type(found) is not int or found != VERSION:
        newer = isinstance(found, int) and found > VERSION
        remedy = "upgrade numerai_sequence" if newer else "write the set again"
        raise ManifestError(
            f"{path}: format version {found!r}, expected {VERSION}; {remedy}",
            path=path,
            found=found,
            expected=VERSION,
        )


def _damaged(path: Path, found: str) -> ManifestError:
    return ManifestError(
        f"{path}: damaged: {found}; write the set again with overwrite=True",
        path=path,
        found=found,
    )


def _parse(document: dict[str, Any]) -> Manifest:
    features = as_names(document["features"])
    if not features:
        raise ValueError("no features")
    targets = as_names(document["targets"])
    whole, partial = as_dict(document["feature_sets"]), as_dict(document["partial_sets"])
    manifest = Manifest(
        encoding=as_text(document["encoding"]),
        features=features,
        targets=targets,
        options=_options(document["options"]),
        sources=tuple(_source(source) for source in as_list(document["sources"])),
        shards=tuple(_shard(shard, targets) for shard in as_list(document["shards"])),
        feature_sets={name: _places(name, whole[name], len(features)) for name in whole},
        partial_sets={name: _part(name, partial[name]) for name in partial},
    )
    if manifest.encoding not in ENCODINGS:
        raise ValueError(f"encoding {manifest.encoding!r}, expected one of {ENCODINGS}")
    if len({shard.file for shard in manifest.shards}) != len(manifest.shards):
        raise ValueError("a shard file is named twice")
    if whole.keys() & partial.keys():
        raise ValueError("a feature set is there as a whole and in part")
    return manifest


def _places(name: str, value: Any, features: int) -> tuple[int, ...]:
    places = tuple(as_count(place) for place in as_list(value))
    if max(places, default=0) >= features or len(set(places)) != len(places):
        raise ValueError(f"feature set {name!r}: expected places below {features}, none twice")
    return places


def _part(name: str, value: Any) -> tuple[int, int]:
    present, features = (as_count(count) for count in as_list(value))
    if present >= features:
        raise ValueError(f"feature set {name!r}: {present} of its {features} features is no part")
    return present, features


def _options(options: dict[str, Any]) -> WriteOptions:
    values = dict(options)
    if set(values) != set(WriteOptions.__dataclass_fields__):
        raise KeyError(f"options {sorted(values)}")
    for name in ("features", "targets"):
        values[name] = None if values[name] is None else as_names(values[name])
    return WriteOptions(**values)


def _source(source: dict[str, Any]) -> SourceFile:
    return SourceFile(
        path=as_text(source["path"]),
        bytes=as_count(source["bytes"]),
        mtime_ns=as_whole(source["mtime_ns"]),
        rows=as_count(source["rows"]),
        checksum=as_text(source["checksum"]),
    )


def _shard(shard: dict[str, Any], targets: tuple[str, ...]) -> Shard:
    file = as_text(shard["file"])
    if not is_shard_name(file):
        raise ValueError(f"shard file {file!r} is no plain file name")
    batches = tuple(_batch(file, batch, targets) for batch in as_list(shard["batches"]))
    rows = as_count(shard["rows"])
    if rows != sum(batch.rows for batch in batches):
        raise ValueError(f"{file}: {rows} rows, but its batches hold another number")
    return Shard(file, as_count(shard["bytes"]), rows, as_text(shard["checksum"]), batches)


def _batch(file: str, batch: dict[str, Any], targets: tuple[str, ...]) -> Batch:
    rows, eras = as_count(batch["rows"]), as_counts(batch["eras"])
    missing = as_counts(batch["missing"])
    if rows != sum(eras.values()):
        raise ValueError(f"{file}: the rows of a batch are not those of its eras")
    for target, count in missing.items():
        if target not in targets or not 1 <= count <= rows:
            raise ValueError(f"{file}: {count} of a batch's {rows} rows are without {target!r}")
    return Batch(rows, eras, as_counts(batch["data_types"]), missing)


def file_checksum(path: Path, *, progress: Callable[[int], object] | None = None) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal.

    `progress` is called with the number of bytes of each chunk read.
    """
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            if progress is not None:
                progress(len(chunk))
    return digest.hexdigest()
