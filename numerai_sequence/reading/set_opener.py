"""Set opener: find the shard files that a path names, and open them as a shard set."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path

from ..checks import file_paths
from ..errors import CorruptShardError, ManifestError, NumeraiSequenceError
from ..format.layout import MANIFEST, is_shard_name
from ..format.manifest import read_manifest
from ..system.files import is_in_use
from .shard_set import PathLike, ShardSet

_TRIES = 20
_SHARDS = (
    "the folder of a shard set, a glob, or a list of its shard files; write_shards makes one of "
    "Parquet files"
)


def open_shards(path: PathLike | Iterable[PathLike]) -> ShardSet:
    """Open a shard set.

    Parameters
    ----------
    path : path or iterable of paths
        The folder of a shard set, a list of some of its shard files, or a glob such as
        "shards/shard-0*.arrow". A list keeps its order. The files of a glob are in the order of the
        set. Patch files in a list or glob are ignored: the patches always apply to every opened
        shard file.

    Returns
    -------
    ShardSet

    Raises
    ------
    ManifestError
        The manifest is missing, damaged or of an unknown version, or does not list a file.
    CorruptShardError
        A shard file's size or schema is wrong.
    TypeError
        `path` is not a path, but for example a DataFrame.
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
    """A Parquet file was given in place of a shard set. It is a `TypeError` too, as for a frame."""


def _check_no_parquet(path: Path) -> None:
    if _is_parquet(path) or _holds_parquet(path):
        what = "a folder of Parquet files" if path.is_dir() else "a Parquet file"
        raise _ParquetError(
            f"{path}: found {what}, expected a shard set; write one first with "
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
    """Open the set in a folder, or the set that is replacing it at this moment."""
    manifest = read_manifest(folder)
    for _ in range(_TRIES):
        try:
            return ShardSet(folder, manifest)
        except NumeraiSequenceError as error:
            # On Windows a file that is being deleted is still listed, but cannot be opened.
            if not isinstance(error, CorruptShardError) and not is_in_use(error.__cause__):
                raise
            # A new set's files have new names. Its manifest comes first, then the old files go.
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
            f"{files[0]}: found a patch, expected shard files; open shard files or the folder "
            f"{folder}: its patches apply to every shard file that is opened",
            path=files[0],
        )
    for file in shards:
        if file.name not in known:
            raise ManifestError(
                f"{file}: {folder / MANIFEST} does not list it; expected one of its {len(known)} "
                f"files, such as {next(iter(known), None)}",
                path=file,
            )
    names = [file.name for file in shards]
    if is_glob:  # a newer file's name may sort before an older one's
        names = [name for name in known if name in names]
    return ShardSet(folder, replace(manifest, shards=tuple(known[name] for name in names)))
