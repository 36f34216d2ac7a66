"""Manifest: what is in a shard set becomes the text of its manifest.json, and comes back or fails.

The text is a JSON object with a line for each key. The last one, ``checksum``, is the SHA-256 of
the others: an edit by accident shows. One on purpose does not, and so nothing in the text is
believed that would matter: its size and its values have bounds, its numbers have to add up, no name
leads out of the folder. That the files hold what it tells of is for opening, and for `verify`.

A later version of the package may write more: see `versions`.
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

# What JSON describes takes up to 40 times its bytes in memory. Of the shards of a set, what tells
# of a record batch is a small part; the rest is names. A terabyte's manifest has 3 to 9 MB.
_NAMES_BYTES = 1 << 20
_SHARE_OF_SHARDS = 8
_MOST_BYTES = 32 << 20
_KNOWN = {"format", "version", "checksum", *Manifest.__dataclass_fields__} - {"others"}


def write_manifest(manifest: Manifest, path: Path) -> None:
    """Write a manifest and see it onto the disk."""
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
    # A line a key: with one a number, the feature sets would fill thousands.
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in document.items()]
    with open(path, "w", encoding="utf-8", newline="\n") as file:  # the same bytes everywhere
        file.write("{\n" + ",\n".join(lines) + "\n}\n")
        file.flush()
        os.fsync(file.fileno())


def _leave_out_defaults(document: dict[str, Any]) -> None:
    """Leave out what has come later, where it says nothing: the text is what it always was."""
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
        It is missing, damaged, written by a later version of the package, or too large to be that
        of the shard files beside it.
    """
    path = folder / MANIFEST
    text = _read(path)
    try:
        document = json.loads(text.decode())
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"no JSON ({error})") from error
    try:
        check_version(path, document)
        _check_checksum(document)
        check_known(path, document)
        return _parse(document)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise _damaged(path, reason(error)) from error


def _read(path: Path) -> bytes:
    try:
        with open(patiently(open_regular, path), "rb") as file:  # it may be replaced right now
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
            f"{path}: {max(found, len(text)):,} bytes, expected at most {most:,}: 1 MiB and an "
            "eighth of the shard files beside it, but no more than 32 MiB; write the set again "
            "with overwrite=True",
            path=path,
            found=found,
            expected=most,
        )
    return text


def _most_bytes(folder: Path) -> int:
    """Return the size that the manifest of these shard files can have."""
    with os.scandir(folder) as entries:
        shards = sum(entry.stat().st_size for entry in entries if is_shard_name(entry.name))
    return min(_MOST_BYTES, _NAMES_BYTES + shards // _SHARE_OF_SHARDS)


def _checksum(document: dict[str, Any]) -> str:
    """Return the SHA-256 of what a manifest says, however its text is laid out."""
    return digest({key: value for key, value in document.items() if key != "checksum"})


def _check_checksum(document: dict[str, Any]) -> None:
    if _checksum(document) != as_text(document["checksum"]):
        raise ValueError("what it says is not what its checksum was made from")


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
        raise ValueError(f"what it tells of is of format version {manifest.version}")
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
        raise ValueError("a feature set is there as a whole and in part")
    for name in ("encoding", "features", "targets"):
        if getattr(manifest.options, name) not in (None, getattr(manifest, name)):
            raise ValueError(f"{name} are not those of the options")


def _check_sums(manifest: Manifest) -> None:
    found, expected = len(manifest.shards), manifest.options.num_shards
    if found < expected:
        raise ValueError(f"{found} shards, but the options tell of {short(expected)}")
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
            raise ValueError(f"{short(patch.file)}: columns {short(patch.columns)}")
        for place in patch.places:
            if rows.get((place.shard, place.batch)) != place.rows:
                raise ValueError(
                    f"{short(patch.file)}: no record batch {place.batch} of {place.rows} rows is "
                    f"in {short(place.shard)}"
                )


def _places(name: str, value: Any, features: int) -> tuple[int, ...]:
    places = tuple(as_count(place) for place in as_list(value))
    if max(places, default=0) >= features or len(set(places)) != len(places):
        raise ValueError(f"feature set {short(name)}: expected places below {features}, none twice")
    return places


def _part(name: str, value: Any) -> tuple[int, int]:
    present, features = (as_count(count) for count in as_list(value))
    if present >= features:
        raise ValueError(
            f"feature set {short(name)}: {present} of its {features} features is no part"
        )
    return present, features


def _options(options: Any, encoding: str, shards: int) -> WriteOptions:
    """Return the write options; one that is missing has its default, or what the set shows."""
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
        raise ValueError(f"shard file {short(file)} is no plain file name")
    batches = tuple(_batch(file, batch, targets) for batch in as_list(shard["batches"]))
    rows = as_count(shard["rows"])
    if rows != sum(batch.rows for batch in batches):
        raise ValueError(f"{short(file)}: {rows} rows, but its batches hold another number")
    return Shard(file, as_count(shard["bytes"]), rows, as_text(shard["checksum"]), batches)


def _patch(patch: Any) -> Patch:
    patch = as_dict(patch)
    file = as_text(patch["file"])
    if not is_shard_name(file):
        raise ValueError(f"patch {short(file)} is no plain file name")
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
        raise ValueError(f"{short(file)}: the rows of a batch are not those of its eras")
    if sum(data_types.values()) > rows:  # fewer is right: a row may have no data type
        raise ValueError(f"{short(file)}: a batch has more data types than its {rows} rows")
    for target, count in missing.items():
        if target not in targets or count > rows:
            raise ValueError(
                f"{short(file)}: {count} of a batch's {rows} rows are without {short(target)}"
            )
    return BatchInfo(rows, eras, data_types, missing)
