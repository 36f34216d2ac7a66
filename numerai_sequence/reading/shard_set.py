"""Shard set: map the shard files of a set into memory and gather rows by global number."""

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

    Open a set with `open_shards`. ``len(shards)`` is the number of shard files. ``shards[::4]`` is
    a set of every fourth shard file. Several threads can use one set at once. A pickled set holds
    only its path and its manifest. The process that unpickles the set maps the files again. To
    close a set, call `close`, or use the set in a ``with`` statement.

    Parameters
    ----------
    folder : path
        Folder with the manifest and the shard files.
    manifest : Manifest
        Description of the shard files to open.

    Attributes
    ----------
    rows : int
        Number of rows.
    features : tuple of str
        Feature names, in the order of the columns of a batch.
    targets : tuple of str
        Target names.
    feature_sets : dict of str to tuple of str
        Feature sets of Numerai's features.json, in its order. Sets with a missing feature are left
        out.
    missing : dict of str to int
        Number of rows without a value (NaN), by target. Complete targets are left out.
    eras : list of str
        Eras, oldest first.
    data_types : list of str
        Data types, such as "train" and "validation".
    target_alias : tuple of str
        Targets that equal ``target`` in all rows, NaN included. Some of them may not be in the set.
        Numerai changes ``target`` over time, and these names show how many days it looks ahead. For
        a set of an older version, the attribute reads the targets to find the names.
    encoding : str
        Encoding of the features, such as "packed".
    paths : list of path
        Paths of the shard files.
    watch : ChangeDetector
        Detector of files that change while the set is open. For internal use.
    checker : Checker
        Comparison of all bytes with their checksums. For internal use.

    Raises
    ------
    CorruptShardError
        A shard file is missing, or its size or schema differs from the manifest.
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
            except ManifestError:  # the whole set is gone: report the missing shard file
                raise error from None
            if newer.issuperset(file.file for file in manifest.files):
                raise
            raise CorruptShardError(
                f"{folder}: the set was refreshed or written again after it was opened; another "
                "process cannot open the old version; open the set again with open_shards",
                path=error.path,
                found=error.found,
                expected=error.expected,
            ) from error

    def close(self) -> None:
        """Close the files.

        Slices of the set stay open. A file that is still in use is closed after its last use.
        """
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
        """Return a column without copying it, or a copy of its values for some rows.

        Parameters
        ----------
        name : str
            Name of the column: "id", "era", "data_type" or a target.
        rows : int64 array, shape (n,), optional
            Global row numbers, ascending. The values of these rows are read and copied. None means
            the whole column.

        Returns
        -------
        pyarrow.ChunkedArray

        Raises
        ------
        FeatureError
            The set has no such column.
        CorruptShardError
            The content of the column differs from the manifest.
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
        """Return the record batches with a column's values for some rows, and the rows in each."""
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
        """Compare ``target`` with other targets in all rows. For internal use.

        Parameters
        ----------
        equal : EqualTargets
            Names to compare with ``target``. Names that differ are removed from it.
        except_eras : collection of str
            Eras whose rows are not compared.

        Raises
        ------
        CorruptShardError
            The content of a target or of the eras differs from the manifest.
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

    def batches(self, index: int) -> list[pa.RecordBatch]:
        """Return the record batches of one shard file, without copying.

        Data types and targets include the last refresh. The values are not compared with the
        manifest. Call `check_whole` after you have read them.

        Parameters
        ----------
        index : int
            Number of the shard file in `paths`, from 0.

        Raises
        ------
        CorruptShardError
            Arrow finds a damaged record batch.
        """
        self._check_open()
        batches = self._files[index].batches()
        first = sum(len(shard.batches) for shard in self.manifest.shards[:index])
        path = self._files[index].path
        return [self._patches.apply(one, first + i, path) for i, one in enumerate(batches)]

    def check_whole(self, index: int) -> None:
        """Check that all bytes read from one shard file, and from the patches, were readable.

        Parameters
        ----------
        index : int
            Number of the shard file in `paths`, from 0.

        Raises
        ------
        CorruptShardError
            A file was cut off after it was opened, or its disk fails.
        """
        for file in (self._files[index], *self._patches.files):
            file.check_whole()

    def spans(self) -> list[tuple[int, int]]:
        """Return the rows of each record batch as (start, stop)."""
        self._check_open()
        return list(pairwise(self._row_reader.starts.tolist()))

    @property
    def row_reader(self) -> RowReader:
        """Reader that copies rows from the files by global row number."""
        self._check_open()
        return self._row_reader

    @property
    def files(self) -> list[MappedFile]:
        """The mapped shard files, followed by the patches."""
        self._check_open()
        return [*self._files, *self._patches.files]

    def verify(self, *, progress: bool = False) -> None:
        """Read all bytes of all files, and compare them with the manifest.

        Checksums, eras, data types and missing targets are compared.

        Parameters
        ----------
        progress : bool
            Whether to show a progress bar.

        Raises
        ------
        CorruptShardError
            A file differs from the manifest. The error names the first such file.
        """
        described = self.manifest.files
        total = sum(one.bytes for one in described)
        with progress_bar(total, "verifying", progress, unit="B") as bar:
            for one, file in zip(described, self.files, strict=True):
                # The file that has this path now. It may not be the file that is mapped.
                check = FileCheck(OpenFile(file.path, one), one)
                while count := check.advance():
                    bar.update(count)
            for place, shard in enumerate(self.manifest.shards):
                check_columns(self.batches(place), shard.batches, self._files[place])

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError(f"the shard set {str(self.folder)!r} is closed; open it again")
