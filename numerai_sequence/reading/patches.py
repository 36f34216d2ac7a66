"""Patches: columns that a refresh wrote to replace columns of the shard files."""

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
        Description of the open shard files.

    Attributes
    ----------
    files : list of MappedFile
    """

    def __init__(self, files: list[MappedFile], manifest: Manifest) -> None:
        self.files = files
        # By record batch and column: the number of the patch, and of the record batch in it.
        self._newest = _find_newest(manifest)

    def targets(self, shard_files: int) -> list[tuple[str, int, int, int]]:
        """Return the patched targets in the form of `RowReader`, with files after the shards."""
        return [
            (name, batch, shard_files + patch, number)
            for batch, columns in self._newest.items()
            for name, (patch, number) in columns.items()
            if name != "data_type"
        ]

    def find(self, batch: int, name: str) -> tuple[MappedFile, int] | None:
        """Return the patch that replaces a column of a record batch, and its record batch's number.

        Return None if no patch replaces the column.
        """
        newest = self._newest.get(batch, {}).get(name)
        return None if newest is None else (self.files[newest[0]], newest[1])

    def apply(self, batch: pa.RecordBatch, number: int, path: Path) -> pa.RecordBatch:
        """Return a record batch of a shard file with its patched columns replaced.

        Parameters
        ----------
        batch : pyarrow.RecordBatch
        number : int
            Number of the record batch.
        path : path
            Path of the shard file.

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
        except pa.ArrowException as error:  # Arrow checks texts
            raise corrupt(path, "Arrow file", short(str(error)), "an intact one") from error


def _find_newest(manifest: Manifest) -> dict[int, dict[str, tuple[int, int]]]:
    """Return the patched columns of each record batch.

    Each column has the number of its newest patch, and the number of the record batch in it.
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
