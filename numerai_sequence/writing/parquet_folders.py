"""Folders: from paths of files, folders and patterns to the paths of Parquet files, in order.

A folder stands for its Parquet files and those of the folders in it, in the order of their names,
where numbers count as numbers: part-2 comes before part-10. What begins with a dot or an underscore
is no data, as in every such folder.
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
    """Return the files that paths stand for; a path that is not there comes back as it is.

    Raises
    ------
    SourceError
        A folder is a shard set, holds no Parquet file or cannot be read; or a pattern matches none.
    """
    return [file for path in paths for file in _expand(path)]


def _expand(path: Path) -> list[Path]:
    if path.is_dir():
        return _in_folder(path)
    if os.path.lexists(path) or not glob.has_magic(str(path)):
        return [path]
    found = sorted(map(Path, glob.glob(str(path), recursive=True)), key=natural)
    if not found:
        raise SourceError(f"{path}: no file matches; expected Parquet files", path=path)
    return [file for one in found for file in _expand(one)]


def _in_folder(folder: Path) -> list[Path]:
    if (folder / MANIFEST).exists():
        raise SourceError(
            f"{folder}: a shard set, expected Parquet files; open_shards opens it, and "
            "append_shards adds newer Parquet files to it",
            path=folder,
        )
    found = sorted(_walk(folder), key=natural)
    if not found:
        what = "a folder without Parquet files; expected at least one; name another"
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
    """Return the key by which paths are sorted where numbers count as numbers."""
    # Text and number take turns, so that only like is compared with like.
    parts = [re.split(r"(\d+)", part) for part in path.parts]
    key = [[int(w) if place % 2 else w for place, w in enumerate(words)] for words in parts]
    return key, str(path)
