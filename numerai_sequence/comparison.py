"""Comparison: of rows that a set has, which data types and targets do sources now say otherwise?

Each row of a source is found in the set by its era and id. What differs is kept, and becomes a
patch: of each record batch that has such rows, all data types and targets as they are now.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from .batches import count_missing, count_values, see_on_disk
from .errors import SourceError
from .layout import Batch, Manifest, Patch, Place, Shard, patch_schema
from .paging import advise
from .shards import ShardSet
from .source import Source
from .windows import Placement

_REMEDY = "write the set again with 'numerai-sequence shard --overwrite'"


class Comparison:
    """Compares the rows of sources with those of the same eras in a set.

    Memory holds a byte for each row of the set that was compared, and the rows that differ.

    Parameters
    ----------
    shards : ShardSet

    Attributes
    ----------
    filled, corrected : Counter
        By target, the rows that have a value now and had none, and those that have another.
    data_types : int
        The rows that have another data type.
    """

    def __init__(self, shards: ShardSet) -> None:
        self._shards = shards
        self._places = [
            (place, number)
            for place, shard in enumerate(shards.manifest.shards)
            for number in range(len(shard.batches))
        ]
        self._batch_of: dict[str, int] = {}
        for batch, (place, number) in enumerate(self._places):
            eras = shards.manifest.shards[place].batches[number].eras
            self._batch_of |= dict.fromkeys(eras, batch)
        self._seen: dict[int, npt.NDArray[np.bool_]] = {}
        self._changes: dict[int, list[tuple[npt.NDArray[Any], pa.Table]]] = {}
        self.filled: Counter[str] = Counter()
        self.corrected: Counter[str] = Counter()
        self.data_types = 0

    def add(self, source: Source, rows: pa.Table) -> None:
        """Compare rows, as `Source.iter_meta` yields them; eras that the set lacks are left out.

        Raises
        ------
        SourceError
            The set lacks such a row, or has it in another era; an id is there twice; or a target
            has no value any more.
        """
        batch_of = {era: self._batch_of.get(era, -1) for era in pc.unique(rows["era"]).to_pylist()}
        placement = Placement(rows["era"], batch_of, np.zeros(len(self._places), np.int64))
        rows = placement.arrange(rows)
        for part in placement.parts:
            self._compare(source, part.window, rows[part.start : part.stop])

    def _compare(self, source: Source, batch: int, rows: pa.Table) -> None:
        rows = rows.combine_chunks()
        known = self._batch(batch)
        found = pc.index_in(rows["id"], value_set=known["id"]).combine_chunks()
        if found.null_count:
            row = pc.index(found.is_null(), True).as_py()
            raise _refused(source, rows, row, "is not in the set")
        places = found.to_numpy().astype(np.int64)
        self._see(source, batch, rows, places)
        before = pa.Table.from_batches([known]).take(places)
        is_other = pc.not_equal(before["era"], rows["era"])
        if pc.any(is_other).as_py():
            row = pc.index(is_other, True).as_py()
            raise _refused(source, rows, row, f"is of era {before['era'][row]} in the set")
        changed = self._count_changes(source, before, rows)
        if changed.any():
            kept = np.flatnonzero(changed)
            columns = patch_schema(self._shards.targets).names
            self._changes.setdefault(batch, []).append(
                (places[kept], rows.select(columns).take(kept))
            )
        place, _ = self._places[batch]
        advise(self._shards.files[place].map, "MADV_DONTNEED")

    def _batch(self, batch: int) -> pa.RecordBatch:
        place, number = self._places[batch]
        known = self._shards.batches(place)[number]
        return known.select(["id", "era", *patch_schema(self._shards.targets).names])

    def _see(
        self, source: Source, batch: int, rows: pa.Table, places: npt.NDArray[np.int64]
    ) -> None:
        seen = self._seen.get(batch)
        if seen is None:
            seen = self._seen[batch] = np.zeros(self._meta(batch).rows, bool)
        _, firsts = np.unique(places, return_index=True)
        again = seen[places]
        again[np.setdiff1d(np.arange(len(places)), firsts)] = True
        if again.any():
            raise _refused(source, rows, int(np.argmax(again)), "is there twice")
        seen[places] = True

    def _count_changes(
        self, source: Source, before: pa.Table, rows: pa.Table
    ) -> npt.NDArray[np.bool_]:
        """Count what differs, and return in which rows something does."""
        old, new = before["data_type"], rows["data_type"]
        # Two nulls are the same, and what compares with one of them is null.
        same = pc.fill_null(pc.equal(old, new), False).to_numpy()
        changed: npt.NDArray[np.bool_] = ~(
            same | (old.is_null().to_numpy() & new.is_null().to_numpy())
        )
        self.data_types += int(changed.sum())
        for name in self._shards.targets:
            was, now = before[name].to_numpy(), rows[name].to_numpy()
            was_missing, is_missing = np.isnan(was), np.isnan(now)
            differs = (was != now) & ~(was_missing & is_missing)
            lost = differs & is_missing
            if lost.any():
                row = int(np.argmax(lost))
                what = f"has no {name} any more, which is {was[row]} in the set"
                raise _refused(source, rows, row, what, column=name)
            self.filled[name] += int((differs & was_missing).sum())
            self.corrected[name] += int((differs & ~was_missing).sum())
            changed |= differs
        return changed

    @property
    def patch_rows(self) -> int:
        """The rows of all record batches that have one that differs."""
        return sum(self._meta(batch).rows for batch in self._changes)

    def write(self, path: Path) -> tuple[Patch, dict[str, Shard]] | None:
        """Write what differs as a patch; return it, and the shards as they are with it, by name.

        None: nothing differs.
        """
        if not self._changes:
            return None
        batches, newer = sorted(self._changes), {}

        def patched() -> Iterator[pa.RecordBatch]:
            for batch in batches:
                columns = self._patch(batch)
                newer[batch] = replace(
                    self._meta(batch),
                    data_types=dict(sorted(count_values(columns["data_type"]).items())),
                    missing=count_missing(columns, self._shards.targets),
                )
                yield columns

        schema = patch_schema(self._shards.targets)
        with open(path, "wb") as file, pa.ipc.new_file(file, schema) as writer:
            for columns in patched():
                writer.write_batch(columns)
        bytes_, checksum = see_on_disk(path)
        shards: dict[str, Shard] = {}
        places = []
        for batch in batches:
            place, number = self._places[batch]
            shard = self._shards.manifest.shards[place]
            counts = list(shards.get(shard.file, shard).batches)
            counts[number] = newer[batch]
            shards[shard.file] = replace(shard, batches=tuple(counts))
            places.append(Place(shard.file, number, newer[batch].rows))
        return Patch(path.name, bytes_, checksum, tuple(places)), shards

    def _meta(self, batch: int) -> Batch:
        place, number = self._places[batch]
        return self._shards.manifest.shards[place].batches[number]

    def _patch(self, batch: int) -> pa.RecordBatch:
        """Return all data types and targets of a record batch, as they are now."""
        known, schema = self._batch(batch), patch_schema(self._shards.targets)
        values = [
            np.array(known["data_type"].to_pylist(), object),
            *(known[name].to_numpy().copy() for name in self._shards.targets),
        ]
        for places, rows in self._changes[batch]:
            for name, column in zip(schema.names, values, strict=True):
                column[places] = rows[name].to_pandas() if name == "data_type" else rows[name]
        arrays = [
            pa.array(column, field.type) for column, field in zip(values, schema, strict=True)
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=schema)


def with_patch(manifest: Manifest, patch: Patch, shards: dict[str, Shard]) -> Manifest:
    """Return a manifest with one patch more, and without those that nothing is left of."""
    patches, newer = [patch], set(patch.places)
    for older in reversed(manifest.patches):
        if not newer.issuperset(older.places):
            patches.insert(0, older)
            newer.update(older.places)
    now = tuple(shards.get(shard.file, shard) for shard in manifest.shards)
    return replace(manifest, shards=now, patches=tuple(patches))


def _refused(
    source: Source, rows: pa.Table, row: int, what: str, column: str | None = None
) -> SourceError:
    found = f"id {rows['id'][row].as_py()!r} of era {rows['era'][row]} {what}"
    return source.error(f"{found}; {_REMEDY}, or refresh it from the right file", column=column)
