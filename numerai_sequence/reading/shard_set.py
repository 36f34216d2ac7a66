"""Shards: map a set's shard files into memory, and gather rows by their global number.

Global row numbers count through the shards in their order, and through each shard's record batches.
"""

from __future__ import annotations

import glob
import operator
import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain, pairwise
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..checks import digest, file_paths, short
from ..errors import CorruptShardError, ManifestError, NumeraiSequenceError
from ..format.encoding import Bytes
from ..format.encodings import ENCODINGS
from ..format.layout import MANIFEST, META_COLUMNS, Manifest, is_shard_name
from ..format.manifest import read_manifest
from ..ordering.eras import sort_eras
from ..ordering.target_horizon import TARGET, EqualTargets
from ..system.files import is_in_use
from ..system.progress import progress_bar
from .batch_contents import check_column, check_columns, read_targets
from .column_values import Part, check_column_name, copy_values
from .file_checks import Checker, FileCheck, Watch
from .mapped_file import Mapped
from .open_file import Opened, corrupt
from .paging import Pager, advise
from .row_reader import Rows

_TRIES = 20
_SHARDS = (
    "the folder of a shard set, a glob, or a list of its shard files; write_shards makes one of "
    "Parquet files"
)

PathLike = str | os.PathLike[str]


class ShardSet:
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
    watch : Watch
        To look at with each batch that is read: it sees a file change.
    checker : Checker
        To take a step of with each batch that is read, where all bytes are to be compared.

    Raises
    ------
    CorruptShardError
        A shard file is missing, or its size or schema is not what the manifest says.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        schema = manifest.schema
        files = [Mapped(folder / one.file, one, schema) for one in manifest.shards]
        patches = [Mapped(folder / one.file, one, one.schema) for one in manifest.patches]
        self._open(folder, manifest, files, patches)

    def _open(
        self, folder: Path, manifest: Manifest, files: list[Mapped], patches: list[Mapped]
    ) -> None:
        self.folder = folder
        self.manifest = manifest
        self._hold(manifest, files, patches)
        self._target_alias = manifest.target_alias or None
        self._closed = False

    def _hold(self, manifest: Manifest, files: list[Mapped], patches: list[Mapped]) -> None:
        self._files, self._patches = files, patches
        self._patched = _find_patched(manifest)
        sizes = [[batch.rows for batch in shard.batches] for shard in manifest.shards]
        width = ENCODINGS[manifest.encoding].row_bytes(len(manifest.features))
        patched = [
            (name, batch, len(files) + patch, number)
            for batch, columns in self._patched.items()
            for name, (patch, number) in columns.items()
            if name != "data_type"
        ]
        self._rows = Rows([*files, *patches], sizes, width, patched)
        self.watch = Watch([*files, *patches])
        self.checker = Checker([*files, *patches], manifest.files)

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

    def __len__(self) -> int:
        return len(self.manifest.shards)

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
        part._open(self.folder, manifest, self._files[chosen], self._patches)
        return part

    def __repr__(self) -> str:
        return (
            f"<ShardSet {str(self.folder)!r}: {self.rows:,} rows x {len(self.features):,} features "
            f"({self.encoding}), {len(self.targets)} targets, {len(self.eras):,} eras, "
            f"{len(self)} shards>"
        )

    @property
    def rows(self) -> int:
        return sum(shard.rows for shard in self.manifest.shards)

    @property
    def features(self) -> tuple[str, ...]:
        return self.manifest.features

    @property
    def targets(self) -> tuple[str, ...]:
        return self.manifest.targets

    @property
    def feature_sets(self) -> dict[str, tuple[str, ...]]:
        features, sets = self.manifest.features, self.manifest.feature_sets
        return {name: tuple(features[place] for place in sets[name]) for name in sets}

    @property
    def missing(self) -> dict[str, int]:
        counts = self._count("missing")
        return {target: counts[target] for target in self.targets if target in counts}

    @property
    def target_alias(self) -> tuple[str, ...]:
        if self._target_alias is None:
            equal = EqualTargets(self.targets if TARGET in self.targets else ())
            self.compare_targets(equal)
            self._target_alias = equal.found
        return self._target_alias

    @property
    def encoding(self) -> str:
        return self.manifest.encoding

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of what is in it: of its columns, and of its files' checksums, in order."""
        content = [self.encoding, self.features, self.targets]
        return digest([*content, [file.checksum for file in self.manifest.files]])

    @property
    def paths(self) -> list[Path]:
        return [self.folder / shard.file for shard in self.manifest.shards]

    @property
    def era_rows(self) -> dict[str, int]:
        """The rows of each era, in the order of time."""
        counts = self._count("eras")
        return {era: counts[era] for era in sort_eras(counts)}

    @property
    def eras(self) -> list[str]:
        return list(self.era_rows)

    @property
    def data_types(self) -> list[str]:
        return sorted(self._count("data_types"))

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
        for batch, start, stop in self._rows.by_batch(rows):
            place = int(np.searchsorted(firsts, batch, side="right")) - 1
            number = batch - int(firsts[place])
            file, expected = self._files[place], self.manifest.shards[place].batches[number]
            newer = self._patched.get(batch, {}).get(name)
            if newer:
                file, number = self._patches[newer[0]], newer[1]
            within = rows[start:stop] - self._rows.starts[batch]
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
        checked: see `contents`, and `check_whole` afterwards.

        Raises
        ------
        CorruptShardError
        """
        self._check_open()
        batches = self._files[place].batches()
        first = sum(len(shard.batches) for shard in self.manifest.shards[:place])
        for number, batch in enumerate(batches):
            newer = self._patched.get(first + number)
            if newer:
                batches[number] = self._patch(batch, newer, self._files[place].path)
        return batches

    def _patch(
        self, batch: pa.RecordBatch, newer: dict[str, tuple[int, int]], path: Path
    ) -> pa.RecordBatch:
        """Return a record batch with the columns that patches have, by their numbers there."""
        columns = dict(zip(batch.schema.names, batch.columns, strict=True))
        opened = {patch: self._patches[patch].batches() for patch, _ in set(newer.values())}
        for name, (patch, number) in newer.items():
            columns[name] = opened[patch][number][name]
        try:
            return pa.RecordBatch.from_arrays(list(columns.values()), schema=batch.schema)
        except pa.ArrowException as error:  # it looks at texts, and ends at one that leads astray
            raise corrupt(path, "Arrow file", short(str(error)), "a whole one") from error

    def check_whole(self, place: int) -> None:
        """See that what was read of the shard file of a place, and of patches, was the files'.

        Raises
        ------
        CorruptShardError
        """
        for file in (self._files[place], *self._patches):
            file.check_whole()

    def spans(self) -> list[tuple[int, int]]:
        """Return the rows of each record batch as (start, stop)."""
        self._check_open()
        return list(pairwise(self._rows.starts.tolist()))

    def gather(
        self,
        rows: npt.NDArray[np.int64],
        targets: Sequence[str],
        *,
        encoded: Bytes | None = None,
        values: npt.NDArray[np.float32] | None = None,
        pager: Pager | None = None,
    ) -> tuple[Bytes, npt.NDArray[np.float32]]:
        """Copy rows out of the files.

        Parameters
        ----------
        rows : int64 array, shape (n,)
            Global row numbers, ascending.
        targets : sequence of str
        encoded : uint8 array, shape (n, row bytes), optional
            For the encoded rows.
        values : float32 array, shape (len(targets), n), optional
            For the targets.
        pager : Pager, optional
            Makes room for the pages that are mapped.

        Returns
        -------
        encoded : uint8 array, shape (n, row bytes)
        values : float32 array, shape (n, len(targets))
        """
        self._check_open()
        return self._rows.gather(rows, targets, encoded=encoded, values=values, pager=pager)

    def extents(
        self, rows: npt.NDArray[np.int64], targets: Sequence[str]
    ) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
        """Yield where rows are in the files.

        Parameters
        ----------
        rows, targets
            As of `gather`.

        Yields
        ------
        number : int
            The place of the file in `files`.
        ranges : int64 array, shape (ranges, 2)
            Bytes of the file, as start and stop; those less than a page apart are joined.
        """
        self._check_open()
        return self._rows.extents(rows, targets)

    @property
    def files(self) -> list[Mapped]:
        """The shard files as they are mapped, and after them the patches."""
        self._check_open()
        return [*self._files, *self._patches]

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
                check = FileCheck(Opened(file.path, one), one)
                while count := check.advance():
                    bar.update(count)
            for place, shard in enumerate(self.manifest.shards):
                check_columns(self.batches(place), shard.batches, self._files[place])

    def _count(self, what: str) -> Counter[str]:
        counts: Counter[str] = Counter()
        for shard in self.manifest.shards:
            for batch in shard.batches:
                counts.update(getattr(batch, what))
        return counts

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError(f"the shard set {str(self.folder)!r} is closed; open it again")


def _find_patched(manifest: Manifest) -> dict[int, dict[str, tuple[int, int]]]:
    """Return of each record batch the columns that were patched.

    Each with the number of the patch, and that of the record batch there.
    """
    first, count = {}, 0
    for shard in manifest.shards:
        first[shard.file] = count
        count += len(shard.batches)
    found: dict[int, dict[str, tuple[int, int]]] = {}
    for number, patch in enumerate(manifest.patches):
        for newer, place in enumerate(patch.places):
            if place.shard in first:
                columns = found.setdefault(first[place.shard] + place.batch, {})
                columns |= dict.fromkeys(patch.columns, (number, newer))
    return found


def open_shards(path: PathLike | Iterable[PathLike]) -> ShardSet:
    """Open a shard set.

    Parameters
    ----------
    path : path or iterable of paths
        A folder; or some of its shard files, as a list in any order, or as a glob
        ("shards/shard-0*.arrow") in the order of the set. Patches of a refresh that are among them
        are no shard files, and left out: those of a set apply to each of its shard files that is
        opened.

    Returns
    -------
    ShardSet

    Raises
    ------
    ManifestError
        There is no manifest, it is damaged or of another version, or does not know a file.
    CorruptShardError
        A shard file's size or schema is wrong.
    TypeError
        `path` is something else, such as a frame.
    """
    files = file_paths("shards", path, _SHARDS, ManifestError)
    if not isinstance(path, (str, os.PathLike)):
        return _open_files(files)
    text = os.fspath(files[0])
    if os.path.isdir(text) or not (os.path.isfile(text) or glob.has_magic(text)):
        _check_no_parquet(files[0])
        return _open_folder(files[0])
    return _open_files([Path(file) for file in glob.glob(text) or [text]], is_glob=True)


class _ParquetError(ManifestError, TypeError):
    """A Parquet file was given for a shard set, which is as wrong as a frame."""


def _check_no_parquet(path: Path) -> None:
    if _is_parquet(path) or _holds_parquet(path):
        what = "a folder of Parquet files" if path.is_dir() else "a Parquet file"
        raise _ParquetError(
            f"{path}: {what}, expected a shard set; write one first with "
            f"write_shards({str(path)!r}, 'shards/'), which makes a folder with a {MANIFEST}",
            path=path,
        )


def _holds_parquet(folder: Path) -> bool:
    """Say whether a folder that is no shard set holds Parquet files, also partitioned ones."""
    if not folder.is_dir() or (folder / MANIFEST).exists():
        return False
    found = chain.from_iterable(
        folder.glob(f"{part}*.parquet") for part in ("", "*=*/", "*=*/*=*/")
    )
    return next(found, None) is not None


def _is_parquet(path: Path) -> bool:
    if path.suffix == ".parquet":
        return not path.is_dir()
    with suppress(OSError):
        if path.is_file():  # a pipe would wait
            with open(path, "rb") as file:
                return file.read(4) == b"PAR1"
    return False


def _open_folder(folder: Path) -> ShardSet:
    """Open the set that is there, or the one that replaces it in this moment."""
    manifest = read_manifest(folder)
    for _ in range(_TRIES):
        try:
            return ShardSet(folder, manifest)
        except NumeraiSequenceError as error:
            # On Windows a file that is being deleted is there, but cannot be opened.
            if not isinstance(error, CorruptShardError) and not is_in_use(error.__cause__):
                raise
            # A new set's files have new names, and the old ones go when its manifest is there.
            newer = read_manifest(folder)
            if newer == manifest:
                raise
            manifest = newer
    return ShardSet(folder, manifest)


def _open_files(files: list[Path], *, is_glob: bool = False) -> ShardSet:
    folders = {file.parent for file in files}
    if len(folders) != 1:
        found = "no shard file" if not folders else f"shard files of {len(folders)} folders"
        raise ManifestError(f"found {found}; expected those of one shard set", found=len(folders))
    [folder] = folders
    _check_no_parquet(files[0])
    if files[0].is_file() and not is_shard_name(files[0].name):
        raise ManifestError(f"{files[0]}: not a shard file, expected {_SHARDS}", path=files[0])
    manifest = read_manifest(folder)
    known = {shard.file: shard for shard in manifest.shards}
    if len(set(files)) != len(files):
        raise ManifestError(f"{folder}: a shard file is named twice", path=folder)
    patches = {patch.file for patch in manifest.patches}
    shards = [file for file in files if file.name not in patches]
    if not shards:
        raise ManifestError(
            f"{files[0]}: a patch, expected shard files; patches apply to each shard file that is "
            f"opened: open some of these, or the folder {folder}",
            path=files[0],
        )
    for file in shards:
        if file.name not in known:
            raise ManifestError(
                f"{file}: not a shard of {folder / MANIFEST}; expected one of {len(known)} files "
                f"such as {next(iter(known), None)}",
                path=file,
            )
    names = [file.name for file in shards]
    if is_glob:  # a newer file's name may sort before an older one's
        names = [name for name in known if name in names]
    return ShardSet(folder, replace(manifest, shards=tuple(known[name] for name in names)))
