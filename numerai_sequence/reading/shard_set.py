"""Shards: map a set's shard files into memory, and gather rows by their global number."""

from __future__ import annotations

import operator
import os
from collections.abc import Collection
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..errors import CorruptShardError, ManifestError
from ..format.encodings import ENCODINGS
from ..format.layout import META_COLUMNS, Manifest
from ..format.manifest import read_manifest
from ..ordering.target_horizon import TARGET, EqualTargets
from ..system.progress import progress_bar
from .batch_contents import check_column, check_columns, read_targets
from .column_values import Part, check_column_name, copy_values
from .file_checks import ChangeDetector, Checker, FileCheck
from .mapped_file import MappedFile
from .open_file import OpenFile
from .paging import advise
from .patches import Patches
from .row_reader import RowReader
from .set_description import SetDescription

_TRIES = 20
_SHARDS = (
    "the folder of a shard set, a glob, or a list of its shard files; write_shards makes one of "
    "Parquet files"
)

PathLike = str | os.PathLike[str]


class ShardSet(SetDescription):
    """The shard files of a set, or some of them, memory-mapped.

    ``shards[::4]`` is the set of every fourth shard, ``len(shards)`` the number of shard files.
    A set can be used from several threads at once. It pickles by its path: the process that
    unpickles it maps the files anew. `close` it, or use it in a ``with``; slices of it stay open.

    Parameters
    ----------
    folder : path
        Where the manifest and the shard files are.
    manifest : Manifest
        Its shards are those that are opened.

    Attributes
    ----------
    rows : int
    features : tuple of str
        Feature names, in the order of the columns of a batch.
    targets : tuple of str
    feature_sets : dict of str to tuple of str
        The sets of Numerai's features.json, in its order, whose features are all there.
    missing : dict of str to int
        The rows that have no value of a target (NaN); a target that all rows have is not in it.
    eras : list of str
        In the order of time.
    data_types : list of str
    target_alias : tuple of str
        The targets that ``target`` equals in all rows, NaN for NaN. The manifest knows them, also
        those that are not in the set; of a set that was written before it did, they are found by
        reading targets. Numerai moves ``target``, and only these tell how far it looks ahead.
    encoding : str
    paths : list of path
        The shard files.
    watch : ChangeDetector
        To be checked with each batch that is read: it sees a file change.
    checker : Checker
        To take a step of with each batch that is read, where all bytes are to be compared.

    Raises
    ------
    CorruptShardError
        A shard file is missing, or its size or schema is not what the manifest says.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        schema = manifest.schema
        files = [MappedFile(folder / one.file, one, schema) for one in manifest.shards]
        patches = [MappedFile(folder / one.file, one, one.schema) for one in manifest.patches]
        self._open(folder, manifest, files, patches)

    def _open(
        self, folder: Path, manifest: Manifest, files: list[MappedFile], patches: list[MappedFile]
    ) -> None:
        self.folder = folder
        self.manifest = manifest
        self._hold(manifest, files, patches)
        self._target_alias = manifest.target_alias or None
        self._closed = False

    def _hold(self, manifest: Manifest, files: list[MappedFile], patches: list[MappedFile]) -> None:
        self._files, self._patches = files, Patches(patches, manifest)
        sizes = [[batch.rows for batch in shard.batches] for shard in manifest.shards]
        width = ENCODINGS[manifest.encoding].row_bytes(len(manifest.features))
        all_files = [*files, *patches]
        self._row_reader = RowReader(all_files, sizes, width, self._patches.targets(len(files)))
        self.watch = ChangeDetector(all_files)
        self.checker = Checker(all_files, manifest.files)

    def __getstate__(self) -> dict[str, Any]:
        # Absolute: another process may be in another folder.
        return {"folder": self.folder.absolute(), "manifest": self.manifest}

    def __setstate__(self, state: dict[str, Any]) -> None:
        folder, manifest = state["folder"], state["manifest"]
        try:
            self.__init__(folder, manifest)  # type: ignore[misc]
        except CorruptShardError as error:
            try:
                newer = {file.file for file in read_manifest(folder).files}
            except ManifestError:  # no set any more: what is gone is the shard file
                raise error from None
            if newer.issuperset(file.file for file in manifest.files):
                raise
            raise CorruptShardError(
                f"{folder}: the set was refreshed or written again after it was opened, and only "
                "the process that opened it has the old one; open it again with open_shards",
                path=error.path,
                found=error.found,
                expected=error.expected,
            ) from error

    def close(self) -> None:
        """Let go of the files; those that are still in use go with the last who uses them."""
        self._hold(replace(self.manifest, shards=(), patches=()), [], [])
        self._closed = True

    def __enter__(self) -> ShardSet:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __getitem__(self, index: int | slice) -> ShardSet:
        self._check_open()
        if isinstance(index, slice):
            chosen = index
        else:
            number = operator.index(index)
            if not -len(self) <= number < len(self):
                raise IndexError(f"shard {number}, but {self.folder} has {len(self)}")
            chosen = slice(number, number + 1 or None)
        part = object.__new__(ShardSet)
        manifest = replace(self.manifest, shards=self.manifest.shards[chosen])
        part._open(self.folder, manifest, self._files[chosen], self._patches.files)
        return part

    @property
    def target_alias(self) -> tuple[str, ...]:
        if self._target_alias is None:
            equal = EqualTargets(self.targets if TARGET in self.targets else ())
            self.compare_targets(equal)
            self._target_alias = equal.found
        return self._target_alias

    def column(self, name: str, rows: npt.NDArray[np.int64] | None = None) -> pa.ChunkedArray:
        """Return ``id``, ``era``, ``data_type`` or a target for all rows, without copying.

        Parameters
        ----------
        name : str
        rows : int64 array, shape (n,), optional
            Global row numbers, ascending: a copy of their values, for which no others are read.

        Raises
        ------
        FeatureError
            There is no such column.
        CorruptShardError
            It is not what the manifest tells of.
        """
        self._check_open()
        check_column_name(name, (*META_COLUMNS, *self.targets), str(self.folder))
        kind = self.manifest.schema.field(name).type
        if rows is not None:
            return pa.chunked_array(copy_values(name, self._find(name, rows)), kind)
        chunks = []
        for place, shard in enumerate(self.manifest.shards):
            for batch, expected in zip(self.batches(place), shard.batches, strict=True):
                check_column(batch, name, expected, self._files[place].path)
                chunks.append(batch.column(name))
            self.check_whole(place)
        return pa.chunked_array(chunks, kind)

    def _find(self, name: str, rows: npt.NDArray[np.int64]) -> list[Part]:
        """Return the record batches that have a column of some rows, and which rows in them."""
        firsts = np.cumsum([0, *(len(shard.batches) for shard in self.manifest.shards)])
        found = []
        for batch, start, stop in self._row_reader.by_batch(rows):
            place = int(np.searchsorted(firsts, batch, side="right")) - 1
            number = batch - int(firsts[place])
            expected = self.manifest.shards[place].batches[number]
            file, number = self._patches.find(batch, name) or (self._files[place], number)
            within = rows[start:stop] - self._row_reader.starts[batch]
            found.append(Part(file, number, within, expected))
        return found

    def compare_targets(self, equal: EqualTargets, *, except_eras: Collection[str] = ()) -> None:
        """Compare ``target`` with others in all rows but those of some eras.

        Raises
        ------
        CorruptShardError
        """
        self._check_open()
        for place, shard in enumerate(self.manifest.shards):
            if not equal.names:
                return
            for batch, expected in zip(self.batches(place), shard.batches, strict=True):
                names = [TARGET, *filter(self.targets.__contains__, equal.names)]
                path = self._files[place].path
                equal.compare(read_targets(batch, names, expected, path, except_eras=except_eras))
            self.check_whole(place)
            advise(self._files[place].map, "MADV_DONTNEED")

    def batches(self, place: int) -> list[pa.RecordBatch]:
        """Return the record batches of the shard file of a place, without copying.

        Their data types and targets are as they are since the last refresh. What is in them is not
        checked: see `batch_contents`, and `check_whole` afterwards.

        Raises
        ------
        CorruptShardError
        """
        self._check_open()
        batches = self._files[place].batches()
        first = sum(len(shard.batches) for shard in self.manifest.shards[:place])
        path = self._files[place].path
        return [self._patches.apply(one, first + i, path) for i, one in enumerate(batches)]

    def check_whole(self, place: int) -> None:
        """See that what was read of the shard file of a place, and of patches, was the files'.

        Raises
        ------
        CorruptShardError
        """
        for file in (self._files[place], *self._patches.files):
            file.check_whole()

    def spans(self) -> list[tuple[int, int]]:
        """Return the rows of each record batch as (start, stop)."""
        self._check_open()
        return list(pairwise(self._row_reader.starts.tolist()))

    @property
    def row_reader(self) -> RowReader:
        """Copies rows out of the files by their global numbers."""
        self._check_open()
        return self._row_reader

    @property
    def files(self) -> list[MappedFile]:
        """The shard files as they are mapped, and after them the patches."""
        self._check_open()
        return [*self._files, *self._patches.files]

    def verify(self, *, progress: bool = False) -> None:
        """Read every byte of every shard file, and compare it with its checksum.

        And see that it holds the eras, data types and missing targets that the manifest tells of.

        Raises
        ------
        CorruptShardError
            Naming the first file that is not as it was written.
        """
        described = self.manifest.files
        total = sum(one.bytes for one in described)
        with progress_bar(total, "verifying", progress, unit="B") as bar:
            for one, file in zip(described, self.files, strict=True):
                # What is at that path now, be it the file that is mapped or another.
                check = FileCheck(OpenFile(file.path, one), one)
                while count := check.advance():
                    bar.update(count)
            for place, shard in enumerate(self.manifest.shards):
                check_columns(self.batches(place), shard.batches, self._files[place])

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError(f"the shard set {str(self.folder)!r} is closed; open it again")
