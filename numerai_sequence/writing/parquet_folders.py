"""Parquet folders: the Parquet files that paths, folders and patterns stand for, in order.

A folder stands for its Parquet files and those of its subfolders, in the order of their names.
Numbers in names count as numbers: part-2 comes before part-10. Names that begin with a dot or an
underscore are ignored, as is usual for folders of Parquet files.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from ..errors import SourceError
from ..format.layout import MANIFEST

_SUFFIXES = (".parquet", ".parq", ".pq")
_MAGIC = b"PAR1"


def find_files(paths: Iterable[Path]) -> list[Path]:
    """Return the files that paths stand for. A path that does not exist is returned as it is.

    Raises
    ------
    SourceError
        A folder is a shard set, holds no Parquet file or cannot be read; or a pattern matches no
        file.
    """
    return [file for path in paths for file in _expand(path)]


def _expand(path: Path) -> list[Path]:
    if path.is_dir():
        return _in_folder(path)
    if os.path.lexists(path) or not glob.has_magic(str(path)):
        return [path]
    found = sorted(map(Path, glob.glob(str(path), recursive=True)), key=natural)
    if not found:
        raise SourceError(
            f"{path}: no file matches; expected Parquet files; check the path", path=path
        )
    return [file for one in found for file in _expand(one)]


def _in_folder(folder: Path) -> list[Path]:
    if (folder / MANIFEST).exists():
        raise SourceError(
            f"{folder}: found a shard set, expected Parquet files; open it with open_shards, or "
            "add newer Parquet files to it with append_shards",
            path=folder,
        )
    found = sorted(_walk(folder), key=natural)
    if not found:
        what = "found a folder without Parquet files, expected at least one; choose another folder"
        raise SourceError(f"{folder}: {what}", path=folder)
    return found


def _walk(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        what = f"{error.strerror}; expected a folder that you may read"
        raise SourceError(f"{error.filename}: {what}", path=Path(error.filename)) from error

    for place, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if name[0] not in "._"]
        for name in names:
            path = Path(place, name)
            if name[0] not in "._" and _is_parquet(path):
                yield path


def _is_parquet(path: Path) -> bool:
    if path.suffix.lower() in _SUFFIXES:
        return True
    with suppress(OSError):
        if path.is_file():  # a pipe would wait
            with open(path, "rb") as file:
                return file.read(len(_MAGIC)) == _MAGIC
    return False


def natural(path: Path) -> tuple[list[list[str | int]], str]:
    """Return the sort key of a path in which numbers count as numbers."""
    # Texts and numbers alternate, so that texts are only compared with texts.
    parts = [re.split(r"(\d+)", part) for part in path.parts]
    key = [[int(w) if place % 2 else w for place, w in enumerate(words)] for words in parts]
    return key, str(path)
