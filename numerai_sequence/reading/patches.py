"""Patches: the columns of a refresh that replace those of the shard files' record batches."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from ..checks import short
from ..format.layout import Manifest
from .mapped_file import MappedFile
from .open_file import corrupt


class Patches:
    """The patches of a set, and which columns of which record batches they replace.

    Record batches are numbered through all shard files that are open, in their order.

    Parameters
    ----------
    files : list of MappedFile
        The patches, in the order of the manifest.
    manifest : Manifest
        Its shards are those that are open.

    Attributes
    ----------
    files : list of MappedFile
    """

    def __init__(self, files: list[MappedFile], manifest: Manifest) -> None:
        self.files = files
        # By the number of the record batch and the column: the patch, and the record batch there.
        self._newest = _find_newest(manifest)

    def targets(self, shard_files: int) -> list[tuple[str, int, int, int]]:
        """Return the patched targets as `RowReader` takes them, after so many shard files."""
        return [
            (name, batch, shard_files + patch, number)
            for batch, columns in self._newest.items()
            for name, (patch, number) in columns.items()
            if name != "data_type"
        ]

    def find(self, batch: int, name: str) -> tuple[MappedFile, int] | None:
        """Return the patch that has a column of a record batch, and its record batch's number.

        Return None where the shard file's own column is the newest.
        """
        newest = self._newest.get(batch, {}).get(name)
        return None if newest is None else (self.files[newest[0]], newest[1])

    def apply(self, batch: pa.RecordBatch, number: int, path: Path) -> pa.RecordBatch:
        """Return a record batch of a shard file, with the columns that patches have.

        Parameters
        ----------
        batch : pyarrow.RecordBatch
        number : int
            Of the record batch.
        path : path
            Of the shard file.

        Raises
        ------
        CorruptShardError
            Arrow finds a damaged column.
        """
        newest = self._newest.get(number)
        if not newest:
            return batch
        columns = dict(zip(batch.schema.names, batch.columns, strict=True))
        opened = {patch: self.files[patch].batches() for patch, _ in set(newest.values())}
        for name, (patch, place) in newest.items():
            columns[name] = opened[patch][place][name]
        try:
            return pa.RecordBatch.from_arrays(list(columns.values()), schema=batch.schema)
        except pa.ArrowException as error:  # it looks at texts, and refuses an invalid one
            raise corrupt(path, "Arrow file", short(str(error)), "a whole one") from error


def _find_newest(manifest: Manifest) -> dict[int, dict[str, tuple[int, int]]]:
    """Return of each record batch the columns that were patched.

    Each has the number of the newest patch, and that of the record batch there.
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
