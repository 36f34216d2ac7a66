"""Changed values: the data types and targets that differ between a set and newer sources.

Each row of a source is found in the set by its era and id. The differences become patches. For each
record batch with such rows, a patch holds the columns that differ, with their present values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ..checks import short
from ..errors import SourceError
from ..format.layout import BatchInfo, Manifest, Patch, PatchedBatch, Shard
from ..reading.batch_contents import check_column
from ..reading.paging import advise
from ..reading.shard_set import ShardSet
from ..writing.newer_sources import NOT_THE_SAME, WRITE_AGAIN
from ..writing.record_batches import count_missing, count_values, see_on_disk
from ..writing.row_ids import do_differ, find_twice
from ..writing.shuffle_windows import Placement
from ..writing.source_columns import Source


class Comparison:
    """A comparison of the rows of sources with those of the same eras in a set.

    Memory holds one byte for each row of the set that was compared, and the rows that differ. The
    rest of the set is mapped.

    Parameters
    ----------
    shards : ShardSet

    Attributes
    ----------
    filled, corrected : Counter
        For each target, the rows that have a value only now, and the rows whose value changed.
    data_types : int
        Rows whose data type changed.
    without_data_type : int
        Rows without a data type, of eras that the set lacks.
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
        self._columns = ("data_type", *shards.targets)
        # For each compared record batch: itself, and which of its rows were seen.
        self._known: dict[int, tuple[pa.RecordBatch, npt.NDArray[np.bool_]]] = {}
        # Record batches whose eras have ids in common.
        self._repeating: set[int] = set()
        # For each record batch and column: the rows that differ, and their present values.
        self._changes: dict[int, dict[str, list[tuple[npt.NDArray[Any], pa.Array]]]] = {}
        self.filled: Counter[str] = Counter()
        self.corrected: Counter[str] = Counter()
        self.data_types = 0
        self.without_data_type = 0

    def add(self, source: Source, rows: pa.Table) -> None:
        """Compare rows, as `Source.iter_meta` yields them; eras that the set lacks are left out.

        Raises
        ------
        SourceError
            The set lacks such a row, has it twice, or has it in another era; a row appears twice;
            or a target or data type no longer has a value.
        CorruptShardError
            A shard file does not match the manifest.
        """
        batch_of = {era: self._batch_of.get(era, -1) for era in pc.unique(rows["era"]).to_pylist()}
        new = [era for era, batch in batch_of.items() if batch < 0]
        if new and rows["data_type"].null_count:
            nameless = rows["era"].filter(rows["data_type"].is_null())
            self.without_data_type += pc.sum(pc.is_in(nameless, pa.array(new))).as_py() or 0
        placement = Placement(rows["era"], batch_of, np.zeros(len(self._places), np.int64))
        rows = placement.arrange(rows)
        for part in placement.parts:
            self._compare(source, part.window, rows[part.start : part.stop])

    def _compare(self, source: Source, batch: int, rows: pa.Table) -> None:
        rows = rows.combine_chunks()
        known, seen = self._open(batch)
        if batch in self._repeating:
            places = _find_by_era(source, known, rows)
        else:
            places = _find(known, rows)
        if (places < 0).any():
            raise _refused(source, rows, int(np.argmin(places)), "is not in the set")
        _see(source, seen, rows, places)
        before = pa.Table.from_batches([known]).take(places)
        is_other = pc.not_equal(before["era"], rows["era"])
        if pc.any(is_other).as_py():
            row = pc.index(is_other, True).as_py()
            raise _refused(source, rows, row, f"has era {before['era'][row]} in the set")
        for name in self._columns:
            differs = self._find_changes(source, name, before, rows)
            if len(differs):
                columns = self._changes.setdefault(batch, {})
                newer = rows[name].combine_chunks().take(differs)
                columns.setdefault(name, []).append((places[differs], newer))
        place, _ = self._places[batch]
        self._shards.check_whole(place)
        advise(self._shards.files[place].map, "MADV_DONTNEED")

    def _open(self, batch: int) -> tuple[pa.RecordBatch, npt.NDArray[np.bool_]]:
        """Return a record batch that matches the manifest, and which of its rows were seen."""
        if batch not in self._known:
            place, number = self._places[batch]
            columns = ["id", "era", *self._columns]
            known = self._shards.batches(place)[number].select(columns)
            for name in columns:  # damaged texts may point outside of the file
                check_column(known, name, self._meta(batch), self._shards.paths[place])
            if not do_differ(known["id"]):
                self._repeating.add(batch)
            self._known[batch] = known, np.zeros(known.num_rows, bool)
        return self._known[batch]

    def _find_changes(
        self, source: Source, name: str, before: pa.Table, rows: pa.Table
    ) -> npt.NDArray[np.int64]:
        """Return which rows differ in a column, and count them."""
        if name == "data_type":
            old, new = before[name], rows[name]
            # Two nulls are equal, but a comparison with a null gives null.
            same = pc.fill_null(pc.equal(old, new), False).to_numpy()
            both = old.is_null().to_numpy() & new.is_null().to_numpy()
            differs = np.flatnonzero(~(same | both))
            lost = differs[new.is_null().to_numpy()[differs]]
            if len(lost):
                raise _lost(source, rows, int(lost[0]), name, short(old[lost[0]].as_py()))
            self.data_types += len(differs)
            return differs
        was, now = before[name].to_numpy(), rows[name].to_numpy()
        was_missing, is_missing = np.isnan(was), np.isnan(now)
        differs = np.flatnonzero((was != now) & ~(was_missing & is_missing))
        lost = differs[is_missing[differs]]
        if len(lost):
            raise _lost(source, rows, int(lost[0]), name, was[lost[0]])
        filled = int(was_missing[differs].sum())
        self.filled[name] += filled
        self.corrected[name] += len(differs) - filled
        return differs

    @property
    def patch_bytes(self) -> int:
        """The approximate size of the patches in bytes."""
        return sum(
            self._meta(batch).rows * sum(4 if name != "data_type" else 12 for name in columns)
            for batch, columns in self._changes.items()
        )

    def write(self, folder: Path, generation: int) -> tuple[list[Patch], dict[str, Shard]]:
        """Write the differences as patches; return them, and the shards as they are now, by name.

        There is one patch for each combination of columns that differ. For example, the 20-day
        targets may differ in some eras, and the 60-day targets in others.
        """
        shards: dict[str, Shard] = {}
        chosen: dict[tuple[str, ...], list[int]] = {}
        for batch, changes in sorted(self._changes.items()):
            columns = tuple(name for name in self._columns if name in changes)
            chosen.setdefault(columns, []).append(batch)
        patches = [
            self._write(folder / f"patch-{number:02d}-{generation}.arrow", *what, shards)
            for number, what in enumerate(chosen.items())
        ]
        return patches, shards

    def _write(
        self, path: Path, columns: tuple[str, ...], batches: list[int], shards: dict[str, Shard]
    ) -> Patch:
        places = []
        for batch in batches:
            place, number = self._places[batch]
            shard = self._shards.manifest.shards[place]
            places.append(PatchedBatch(shard.file, number, self._meta(batch).rows))
        patch = Patch(path.name, 0, "", columns, tuple(places))
        with open(path, "wb") as file, pa.ipc.new_file(file, patch.schema) as writer:
            for batch in batches:
                newer = self._patch(batch, patch.schema)
                writer.write_batch(newer)
                self._count(batch, newer, shards)
        bytes_, checksum = see_on_disk(path)
        return replace(patch, bytes=bytes_, checksum=checksum)

    def _patch(self, batch: int, schema: pa.Schema) -> pa.RecordBatch:
        """Return columns of a record batch with their present values."""
        (known, _), arrays = self._known[batch], []
        for field in schema:
            values = known[field.name].to_numpy(zero_copy_only=False).copy()
            for places, newer in self._changes[batch][field.name]:
                values[places] = newer.to_numpy(zero_copy_only=False)
            arrays.append(pa.array(values, field.type))
        return pa.RecordBatch.from_arrays(arrays, schema=schema)

    def _count(self, batch: int, newer: pa.RecordBatch, shards: dict[str, Shard]) -> None:
        """Update the counts of the data types and missing targets of a record batch."""
        place, number = self._places[batch]
        shard = self._shards.manifest.shards[place]
        batches = list(shards.get(shard.file, shard).batches)
        counts, names = batches[number], newer.schema.names
        targets = [name for name in names if name != "data_type"]
        missing = {name: n for name, n in counts.missing.items() if name not in targets}
        missing |= count_missing(newer, targets)
        data_types = counts.data_types
        if "data_type" in names:
            data_types = dict(sorted(count_values(newer["data_type"]).items()))
        batches[number] = replace(
            counts,
            data_types=data_types,
            missing={name: missing[name] for name in self._shards.targets if name in missing},
        )
        shards[shard.file] = replace(shard, batches=tuple(batches))

    def _meta(self, batch: int) -> BatchInfo:
        place, number = self._places[batch]
        return self._shards.manifest.shards[place].batches[number]


def with_patches(
    manifest: Manifest, patches: Sequence[Patch], shards: Mapping[str, Shard]
) -> Manifest:
    """Return a manifest with more patches, and without those that newer ones replace fully."""
    kept: list[Patch] = []
    newer: set[tuple[PatchedBatch, str]] = set()
    for patch in reversed([*manifest.patches, *patches]):
        has = {(place, name) for place in patch.places for name in patch.columns}
        if not newer.issuperset(has):
            kept.insert(0, patch)
            newer |= has
    now = tuple(shards.get(shard.file, shard) for shard in manifest.shards)
    return replace(manifest, shards=now, patches=tuple(kept))


def _find(known: pa.RecordBatch, rows: pa.Table) -> npt.NDArray[np.int64]:
    """Return the places of rows' ids in a record batch; -1 for ids that it lacks."""
    found = pc.index_in(rows["id"], value_set=known["id"]).fill_null(-1)
    return np.asarray(found.to_numpy(), np.int64)


def _find_by_era(source: Source, known: pa.RecordBatch, rows: pa.Table) -> npt.NDArray[np.int64]:
    """Return the same as `_find` for a record batch whose eras have ids in common."""
    places = np.full(rows.num_rows, -1, np.int64)
    for era in pc.unique(rows["era"]):
        of_era, there = (np.flatnonzero(pc.equal(r["era"], era)) for r in (rows, known))
        wanted, held = rows.take(of_era), known.take(pa.array(there))
        twice = find_twice(held)
        if twice is not None:
            what = f"found id {held['id'][twice[1]].as_py()!r} of era {era} twice in the set"
            raise source.error(
                f"{what}; {WRITE_AGAIN}, from files that have it once", column=source.id_name
            )
        found = _find(held, wanted)
        places[of_era] = np.where(found < 0, -1, there[found])
    return places


def _see(
    source: Source,
    seen: npt.NDArray[np.bool_],
    rows: pa.Table,
    places: npt.NDArray[np.int64],
) -> None:
    """Mark the places of rows as seen; raise an error if a place is seen twice."""
    _, firsts = np.unique(places, return_index=True)
    again = seen[places]
    again[np.setdiff1d(np.arange(len(places)), firsts)] = True
    if again.any():
        raise _refused(source, rows, int(np.argmax(again)), "appears twice")
    seen[places] = True


def _lost(source: Source, rows: pa.Table, row: int, name: str, before: object) -> SourceError:
    what = f"no longer has a {name}, which is {before} in the set"
    return _refused(source, rows, row, what, column=name)


def _refused(
    source: Source, rows: pa.Table, row: int, what: str, column: str | None = None
) -> SourceError:
    found = f"id {rows['id'][row].as_py()!r} of era {rows['era'][row]} {what}"
    return source.error(f"{found}; {NOT_THE_SAME}", column=column)
