"""Manifest: write the description of a shard set as manifest.json, and read and check it.

The text is a JSON object with one line for each key. The last key, ``checksum``, is the SHA-256 of
the others. It finds accidental changes, but not deliberate ones. So every value is checked too:
sizes and values have bounds, numbers must add up, and names must stay inside of the folder. Opening
a set and `verify` compare the files with the manifest.

For manifests of later versions of the package see `format_versions`.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..checks import (
    as_count,
    as_counts,
    as_dict,
    as_list,
    as_names,
    as_text,
    as_whole,
    digest,
    reason,
    short,
)
from ..errors import ManifestError
from ..ordering.target_horizon import TARGET
from ..system.files import patiently
from .format_versions import FORMAT, check_known, check_version
from .layout import (
    FEATURES,
    MANIFEST,
    META_COLUMNS,
    BatchInfo,
    Manifest,
    Patch,
    PatchedBatch,
    Shard,
    SourceFile,
    WriteOptions,
    is_shard_name,
    open_regular,
)

# Parsed JSON takes up to 40 times its bytes in memory. The descriptions of record batches are small
# beside the shard files; the rest is names. The manifest of a terabyte has 3 to 9 MB.
_NAMES_BYTES = 1 << 20
_SHARE_OF_SHARDS = 8
_MOST_BYTES = 32 << 20
_KNOWN = {"format", "version", "checksum", *Manifest.__dataclass_fields__} - {"others"}


def write_manifest(manifest: Manifest, path: Path) -> None:
    """Write a manifest, and flush it to the disk."""
    document: dict[str, Any] = {
        "format": FORMAT,
        "version": manifest.version,
        **asdict(manifest),
    }
    document |= document.pop("others")
    if manifest.version == 1:
        del document["patches"]
    if not manifest.target_alias:
        del document["target_alias"]
    _leave_out_defaults(document)
    document["checksum"] = _checksum(document)
    # One line for each key. With one for each number, feature sets would take thousands.
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in document.items()]
    with open(path, "w", encoding="utf-8", newline="\n") as file:  # the same bytes on all systems
        file.write("{\n" + ",\n".join(lines) + "\n}\n")
        file.flush()
        os.fsync(file.fileno())


def _leave_out_defaults(document: dict[str, Any]) -> None:
    """Leave out newer keys with default values, so that the text is as in older versions."""
    if document["options"]["missing_feature"] == WriteOptions.missing_feature:
        del document["options"]["missing_feature"]
    for source in document["sources"]:
        if not source["filled"]:
            del source["filled"]


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a shard set.

    Raises
    ------
    ManifestError
        The manifest is missing, damaged, written by a later version of the package, or too large
        for its shard files.
    """
    path = folder / MANIFEST
    text = _read(path)
    try:
        document = json.loads(text.decode())
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"not JSON ({error})") from error
    try:
        check_version(path, document)
        _check_checksum(document)
        check_known(path, document)
        return _parse(document)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise _damaged(path, reason(error)) from error


def _read(path: Path) -> bytes:
    try:
        with open(patiently(open_regular, path), "rb") as file:  # a writer may be replacing it
            found = os.fstat(file.fileno()).st_size
            most = _most_bytes(path.parent) if found > _NAMES_BYTES else _NAMES_BYTES
            text = file.read(most + 1)
    except OSError as error:
        raise ManifestError(
            f"{path}: {error.strerror or error}; expected the manifest of a shard set, "
            "written by 'numerai-sequence shard'",
            path=path,
            expected=FORMAT,
        ) from error
    if len(text) > most:
        raise ManifestError(
            f"{path}: found {max(found, len(text)):,} bytes, expected at most {most:,} (1 MiB plus "
            "an eighth of the size of the shard files, up to 32 MiB); write the set again with "
            "overwrite=True",
            path=path,
            found=found,
            expected=most,
        )
    return text


def _most_bytes(folder: Path) -> int:
    """Return the largest size of a manifest for the shard files in a folder."""
    with os.scandir(folder) as entries:
        shards = sum(entry.stat().st_size for entry in entries if is_shard_name(entry.name))
    return min(_MOST_BYTES, _NAMES_BYTES + shards // _SHARE_OF_SHARDS)


def _checksum(document: dict[str, Any]) -> str:
    """Return the SHA-256 of the content of a manifest, independent of its spacing."""
    return digest({key: value for key, value in document.items() if key != "checksum"})


def _check_checksum(document: dict[str, Any]) -> None:
    if _checksum(document) != as_text(document["checksum"]):
        raise ValueError("its content does not match its checksum")


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
    known = frozenset(targets)
    whole = as_dict(document.get("feature_sets", {}))
    partial = as_dict(document.get("partial_sets", {}))
    encoding = as_text(document["encoding"])
    shards = tuple(_shard(shard, known) for shard in as_list(document["shards"]))
    manifest = Manifest(
        encoding=encoding,
        features=features,
        targets=targets,
        options=_options(document["options"], encoding, len(shards)),
        sources=tuple(_source(source) for source in as_list(document["sources"])),
        shards=shards,
        patches=tuple(_patch(patch) for patch in as_list(document.get("patches", []))),
        feature_sets={as_text(name): _places(name, whole[name], len(features)) for name in whole},
        partial_sets={as_text(name): _part(name, partial[name]) for name in partial},
        target_alias=as_names(document.get("target_alias", [])),
        others={name: value for name, value in document.items() if name not in _KNOWN},
    )
    _check_names(manifest)
    _check_sums(manifest)
    _check_places(manifest)
    if document["version"] != manifest.version:
        raise ValueError(
            f"found version {document['version']}, but the content has version {manifest.version}"
        )
    return manifest


def _check_names(manifest: Manifest) -> None:
    for name in (*META_COLUMNS, FEATURES):
        if name in manifest.targets:
            raise ValueError(f"target {name!r} has the name of another column")
    if manifest.target_alias and (
        TARGET not in manifest.targets or TARGET in manifest.target_alias
    ):
        raise ValueError(f"{TARGET!r} cannot equal {short(manifest.target_alias)}")
    files = [file.file for file in manifest.files]
    if len(set(files)) != len(files):
        raise ValueError("a shard file is named twice")
    if manifest.feature_sets.keys() & manifest.partial_sets.keys():
        raise ValueError("a feature set is listed as complete and as partial")
    for name in ("encoding", "features", "targets"):
        if getattr(manifest.options, name) not in (None, getattr(manifest, name)):
            raise ValueError(f"{name}: the set and its options differ")


def _check_sums(manifest: Manifest) -> None:
    found, expected = len(manifest.shards), manifest.options.num_shards
    if found < expected:
        raise ValueError(
            f"found {found} shards, expected {short(expected)}, the num_shards of the options"
        )
    found, expected = (
        sum(part.rows for part in parts) for parts in (manifest.shards, manifest.sources)
    )
    if found != expected:
        raise ValueError(f"the shards have {short(found)} rows, the sources {short(expected)}")


def _check_places(manifest: Manifest) -> None:
    rows = {
        (shard.file, number): batch.rows
        for shard in manifest.shards
        for number, batch in enumerate(shard.batches)
    }
    for patch in manifest.patches:
        unknown = set(patch.columns) - {"data_type", *manifest.targets}
        if unknown or not patch.columns:
            raise ValueError(f"{short(patch.file)}: unexpected columns {short(patch.columns)}")
        for place in patch.places:
            if rows.get((place.shard, place.batch)) != place.rows:
                raise ValueError(
                    f"{short(patch.file)}: {short(place.shard)} has no record batch {place.batch} "
                    f"of {place.rows} rows"
                )


def _places(name: str, value: Any, features: int) -> tuple[int, ...]:
    places = tuple(as_count(place) for place in as_list(value))
    if max(places, default=0) >= features or len(set(places)) != len(places):
        raise ValueError(f"feature set {short(name)}: expected indices below {features}, each once")
    return places


def _part(name: str, value: Any) -> tuple[int, int]:
    present, features = (as_count(count) for count in as_list(value))
    if present >= features:
        raise ValueError(
            f"feature set {short(name)}: partial with {present} of {features} features, expected "
            "fewer"
        )
    return present, features


def _options(options: Any, encoding: str, shards: int) -> WriteOptions:
    """Return the write options. Missing ones get their default, or the value of the set."""
    values = {"encoding": encoding, **as_dict(options)}
    values.setdefault("num_shards", min(WriteOptions.num_shards, shards))
    for name in ("features", "targets"):
        if values.get(name) is not None:
            values[name] = as_names(values[name])
    return WriteOptions(**values)


def _source(source: Any) -> SourceFile:
    source = as_dict(source)
    return SourceFile(
        path=as_text(source["path"]),
        bytes=as_count(source["bytes"]),
        mtime_ns=as_whole(source["mtime_ns"]),
        rows=as_count(source["rows"]),
        checksum=as_text(source["checksum"]),
        filled=as_count(source.get("filled", 0)),
    )


def _shard(shard: Any, targets: frozenset[str]) -> Shard:
    shard = as_dict(shard)
    file = as_text(shard["file"])
    if not is_shard_name(file):
        raise ValueError(f"shard file {short(file)} is not a plain file name")
    batches = tuple(_batch(file, batch, targets) for batch in as_list(shard["batches"]))
    rows = as_count(shard["rows"])
    if rows != sum(batch.rows for batch in batches):
        raise ValueError(f"{short(file)}: {rows} rows, but its record batches have another sum")
    return Shard(file, as_count(shard["bytes"]), rows, as_text(shard["checksum"]), batches)


def _patch(patch: Any) -> Patch:
    patch = as_dict(patch)
    file = as_text(patch["file"])
    if not is_shard_name(file):
        raise ValueError(f"patch {short(file)} is not a plain file name")
    places = [as_dict(place) for place in as_list(patch["places"])]
    return Patch(
        file,
        as_count(patch["bytes"]),
        as_text(patch["checksum"]),
        as_names(patch["columns"]),
        tuple(
            PatchedBatch(as_text(place["shard"]), as_count(place["batch"]), as_count(place["rows"]))
            for place in places
        ),
    )


def _batch(file: str, batch: Any, targets: frozenset[str]) -> BatchInfo:
    batch = as_dict(batch)
    rows, eras = as_count(batch["rows"]), as_counts(batch["eras"])
    data_types, missing = as_counts(batch["data_types"]), as_counts(batch["missing"])
    if not rows or rows != sum(eras.values()):
        raise ValueError(
            f"{short(file)}: the rows of a record batch differ from the sum of its eras"
        )
    if sum(data_types.values()) > rows:  # fewer is valid: a row may have no data type
        raise ValueError(f"{short(file)}: a record batch has more data types than its {rows} rows")
    for target, count in missing.items():
        if target not in targets or count > rows:
            raise ValueError(
                f"{short(file)}: {count} of the {rows} rows of a record batch lack {short(target)}"
            )
    return BatchInfo(rows, eras, data_types, missing)
