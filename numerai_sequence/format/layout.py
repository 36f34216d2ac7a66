"""Layout: the files of a shard set, as the writer makes them and the reader expects them.

A shard set is a folder with ``manifest.json``, which is written last, and the shard files that it
names. A shard file is an uncompressed Arrow IPC file with the columns ``id``, ``era``,
``data_type``, one float32 column for each target, and ``features``. That last column is a canonical
``arrow.fixed_shape_tensor``: the encoded features of one row are neighbouring bytes. See
`encodings`. Each record batch holds the rows of one window of eras, in random order.

A refreshed set also has shard files of later eras, and patches: Arrow files with new data types and
targets for some record batches. It has format version 2. A set without refreshes has version 1.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..checks import one_of, short, whole_number
from .encodings import ENCODINGS

VERSIONS = (1, 2)
MISSING_FEATURE = ("error", "middle")
MANIFEST = "manifest.json"
META_COLUMNS = ("id", "era", "data_type")
FEATURES = "features"

_CHUNK_BYTES = 1 << 20


#: Numerai has about 1,200 eras, and each file needs at least one.
MOST_SHARDS = 10_000


@dataclass(frozen=True)
class WriteOptions:
    """The options of `write_shards`. The same options and sources make the same set."""

    num_shards: int = 16
    encoding: str = "packed"
    mix_eras: int | None = None
    features: tuple[str, ...] | None = None
    targets: tuple[str, ...] | None = None
    seed: int = 0
    missing_feature: str = "error"

    def __post_init__(self) -> None:
        # NumPy's numbers and strings become Python's, as JSON and the digest of a run need them.
        self._set("num_shards", whole_number("num_shards", self.num_shards, least=1))
        if self.num_shards > MOST_SHARDS:
            raise ValueError(
                f"num_shards: found {short(self.num_shards)}, expected at most {MOST_SHARDS:,}"
            )
        if self.mix_eras is not None:
            self._set("mix_eras", whole_number("mix_eras", self.mix_eras, least=1))
        if self.encoding not in tuple(ENCODINGS):  # it may be a list, which has no hash
            raise ValueError(
                f"encoding: found {short(self.encoding)}, expected one of {tuple(ENCODINGS)}"
            )
        self._set("encoding", str(self.encoding))
        self._set("seed", whole_number("seed", self.seed, least=0))
        one_of("missing_feature", self.missing_feature, MISSING_FEATURE)
        self._set("missing_feature", str(self.missing_feature))

    def _set(self, name: str, value: int | str) -> None:
        object.__setattr__(self, name, value)  # the dataclass is frozen


@dataclass(frozen=True)
class SourceFile:
    """A Parquet source of a shard set. `checksum` is the SHA-256 of its bytes.

    `filled` is the number of missing feature values of its rows. They were written as the middle.
    """

    path: str
    bytes: int
    mtime_ns: int
    rows: int
    checksum: str
    filled: int = 0


@dataclass(frozen=True)
class BatchInfo:
    """One record batch: its number of rows, and the rows of each era and data type.

    `missing` has the number of rows without a value, by target. Complete targets are left out.
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
    batches: tuple[BatchInfo, ...]


@dataclass(frozen=True)
class PatchedBatch:
    """A record batch of a shard file: the file, its number and its rows."""

    shard: str
    batch: int
    rows: int


@dataclass(frozen=True)
class Patch:
    """A file with data types or targets that replace those of some record batches.

    The file has the columns `columns`, and one record batch for each of `places`, with the rows in
    the same order.
    """

    file: str
    bytes: int
    checksum: str
    columns: tuple[str, ...]
    places: tuple[PatchedBatch, ...]

    @property
    def schema(self) -> pa.Schema:
        kinds = {"data_type": pa.string()}
        fields = [pa.field(name, kinds.get(name, pa.float32())) for name in self.columns]
        return pa.schema(fields, {"numerai_sequence.version": "2"})


@dataclass(frozen=True)
class Manifest:
    """The description of a shard set.

    Attributes
    ----------
    sources : tuple of SourceFile
        The Parquet sources. For a source of a refresh, `rows` counts only the rows that it added.
    feature_sets : dict of str to tuple of int
        Sets of features.json with all their features in `features`, as indices into it.
    partial_sets : dict of str to (int, int)
        The other sets: the number of their features in `features`, and of all their features.
    patches : tuple of Patch
        The patches, oldest first. A later patch replaces an earlier one of the same column.
    target_alias : tuple of str
        Targets of the sources that equal ``target`` in all rows, also if they are not in `targets`.
        It is empty if they were not compared.
    others : dict
        Keys of the manifest that this version of the package does not know. They are kept.
    """

    encoding: str
    features: tuple[str, ...]
    targets: tuple[str, ...]
    options: WriteOptions
    sources: tuple[SourceFile, ...]
    shards: tuple[Shard, ...]
    feature_sets: dict[str, tuple[int, ...]] = field(default_factory=dict)
    partial_sets: dict[str, tuple[int, int]] = field(default_factory=dict)
    patches: tuple[Patch, ...] = ()
    target_alias: tuple[str, ...] = ()
    others: dict[str, Any] = field(default_factory=dict)

    @property
    def schema(self) -> pa.Schema:
        return shard_schema(self.encoding, self.features, self.targets)

    @property
    def files(self) -> tuple[Shard | Patch, ...]:
        """The shard files and patches in the folder."""
        return (*self.shards, *self.patches)

    @property
    def era_rows(self) -> dict[str, int]:
        """Number of rows of each era."""
        rows: Counter[str] = Counter()
        for shard in self.shards:
            for batch in shard.batches:
                rows.update(batch.eras)
        return dict(rows)

    @property
    def version(self) -> int:
        """The format version of this set."""
        is_refreshed = self.patches or len(self.shards) != self.options.num_shards
        return 2 if is_refreshed else 1


def shard_schema(encoding: str, features: tuple[str, ...], targets: tuple[str, ...]) -> pa.Schema:
    """Return the Arrow schema of every shard of a set."""
    kind = ENCODINGS[encoding]
    values = pa.type_for_alias(kind.value_dtype)
    tensor = pa.fixed_shape_tensor(values, (kind.row_bytes(len(features)),))
    fields = [pa.field(name, pa.string()) for name in META_COLUMNS]
    fields += [pa.field(name, pa.float32()) for name in targets]
    fields.append(pa.field(FEATURES, tensor))
    metadata = {
        "numerai_sequence.version": "1",
        "numerai_sequence.encoding": encoding,
        "numerai_sequence.features": json.dumps(features),
    }
    return pa.schema(fields, metadata)


def is_shard_name(name: str) -> bool:
    """Return whether a name is a plain file name that a shard file may have."""
    return re.fullmatch(r"[\w-][\w.-]*\.arrow", name) is not None


def open_regular(path: Path) -> int:
    """Open a regular file for reading, and return its descriptor.

    Symbolic links are followed: only users who may write to the folder can make one.

    Raises
    ------
    OSError
        The path is not a regular file. A pipe would wait for a writer, and a device has no end.
    """
    binary, at_once = (getattr(os, name, 0) for name in ("O_BINARY", "O_NONBLOCK"))
    descriptor = os.open(path, os.O_RDONLY | binary | at_once)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))
    return descriptor


def file_checksum(path: Path, *, progress: Callable[[int], object] | None = None) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal.

    `progress` is called with the number of bytes of each chunk read.
    """
    digest = hashlib.sha256()
    with open(open_regular(path), "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            if progress is not None:
                progress(len(chunk))
    return digest.hexdigest()
