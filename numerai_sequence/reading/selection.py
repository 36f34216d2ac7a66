"""Selection: choose rows of a shard set by eras, data types and missing targets.

Selected rows are numbered from 0 without gaps, in the order of the files. Ordering and reading work
as if the set had no other rows. A record batch that is selected as a whole costs no memory;
otherwise each selected row costs 4 bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..errors import EraError, close_matches
from ..format.encoding import Bytes
from ..format.encodings import ENCODINGS
from ..format.layout import BatchInfo
from ..ordering.eras import choose_eras
from .batch_contents import COUNTED, encode_texts, find_missing
from .paging import Pager
from .shard_set import ShardSet

Rows = npt.NDArray[np.int64]
Values = npt.NDArray[np.float32]

#: Name of the last column of `Selection.gather`: the number of the row's era among all eras of the
#: set.
ERA = "era"


class Selection:
    """Selected rows of a shard set, numbered from 0.

    Several threads may use it at once. A pickled selection holds only its arguments.

    Parameters
    ----------
    shards : ShardSet
    eras : optional
        Eras to select. See `choose_eras`. None selects all.
    data_types : str, iterable of str, or None
        Data types to select. None selects all.
    complete : sequence of str
        Targets or added columns. Rows without a value in one of them are left out.
    added : mapping of str to float32 array, shape (rows of the set,), optional
        Additional columns with names that the set does not use. NaN marks missing values. `gather`,
        `missing` and `column` treat them as targets.

    Attributes
    ----------
    added : dict of str to float32 array, shape (rows of the set,)
    rows : int
    eras : tuple of str
        Eras with a selected row, oldest first.
    data_types : tuple of str or None

    Raises
    ------
    EraError
        An era or a data type is unknown, or no row is selected.
    """

    def __init__(
        self,
        shards: ShardSet,
        eras: Any = None,
        data_types: str | Iterable[str] | None = None,
        complete: Sequence[str] = (),
        added: Mapping[str, Values] | None = None,
    ) -> None:
        self.shards, self.added = shards, dict(added or {})
        self.all_eras = tuple(shards.eras)
        self._eras = None if eras is None else tuple(choose_eras(eras, self.all_eras))
        self.data_types = None if data_types is None else _check_data_types(data_types, shards)
        self._complete = tuple(complete)
        # Selected eras and data types, by the name of their counts in a record batch.
        wanted = {"eras": self._eras, "data_types": self.data_types}
        self._wanted = {
            what: frozenset(names) for what, names in wanted.items() if names is not None
        }
        self.row_bytes = ENCODINGS[shards.encoding].row_bytes(len(shards.features))
        self._number_rows(list(self._choose()))
        if shards.rows and not self.rows:
            raise EraError(f"{shards.folder}: {self._describe_nothing()}", eras=self._eras)
        self.eras = self._find_eras()

    def _describe_nothing(self) -> str:
        """Return the message for an empty selection."""
        asked = self._eras or self.all_eras  # of which there are some, as there are rows
        which = f"of era {asked[0]}" if len(asked) == 1 else f"of eras {asked[0]} to {asked[-1]}"
        if self.data_types is not None:
            which += f" and data type {', '.join(self.data_types)}"
        if not self._complete:
            return f"found no row {which}; choose other eras or another data type"
        return (
            f"found no row {which} with a value of {', '.join(self._complete)}; choose older eras: "
            "the newest ones get their targets later"
        )

    def __reduce__(self) -> Any:
        return Selection, (self.shards, self._eras, self.data_types, self._complete, self.added)

    def with_added(self, added: Mapping[str, Values]) -> Selection:
        """Return a selection of the same eras and data types with other added columns.

        Parameters
        ----------
        added : mapping of str to float32 array, shape (rows,)
            Columns in the order of the rows of this selection. All other rows get NaN.
        """
        rows = self.rows_of_set(np.arange(self.rows, dtype=np.int64))
        spread = {name: np.full(self.shards.rows, np.nan, np.float32) for name in added}
        for name, values in added.items():
            spread[name][rows] = values
        return Selection(self.shards, self._eras, self.data_types, added=spread)

    def whole_eras(self) -> Selection:
        """Return a selection of the same eras and data types, with rows without targets."""
        return Selection(self.shards, self.eras, self.data_types, added=self.added)

    def _choose(self) -> Iterator[npt.NDArray[np.uint32] | None]:
        """Yield the numbers of the selected rows in each record batch; None for all rows."""
        spans = self.shards.spans()
        for number, meta, batch, path in self._record_batches(self._is_cut):
            if batch is None:
                yield None if self._takes_some(meta) else np.empty(0, np.uint32)
                continue
            mask = np.ones(meta.rows, bool)
            for name in (name for name in COUNTED if COUNTED[name] in self._wanted):
                wanted = self._wanted[COUNTED[name]]
                texts, places = encode_texts(batch, name, meta, path)
                mask &= np.array([*(text in wanted for text in texts), False])[places]
            for name in self._complete:
                if name in self.added:
                    mask &= ~np.isnan(self.added[name][slice(*spans[number])])
                else:
                    mask &= ~find_missing(batch, name, meta, path)
            yield None if mask.all() else np.flatnonzero(mask).astype(np.uint32)

    def _number_rows(self, chosen: Sequence[npt.NDArray[np.uint32] | None]) -> None:
        spans = self.shards.spans()
        kept = [
            stop - start if rows is None else len(rows)
            for (start, stop), rows in zip(spans, chosen, strict=True)
        ]
        self._starts = np.cumsum([0, *kept], dtype=np.int64)
        self.rows = int(self._starts[-1])
        self.is_whole = self.rows == self.shards.rows
        self._first_rows = np.array([start for start, _ in spans], np.int64)
        self._is_part = np.array([rows is not None for rows in chosen], bool)
        # Numbers of the selected rows in partly selected record batches, one after the other.
        parts = [np.empty(0, np.uint32) if rows is None else rows for rows in chosen]
        self._numbers = np.concatenate([np.empty(0, np.uint32), *parts])
        self._first_numbers = np.cumsum([0, *map(len, parts)], dtype=np.int64)[:-1]

    def _record_batches(
        self, is_needed: Callable[[int, BatchInfo], bool]
    ) -> Iterator[tuple[int, BatchInfo, pa.RecordBatch | None, Path]]:
        """Yield the number, description, content if needed, and path of each record batch."""
        number = 0
        paths = self.shards.paths
        for place, shard in enumerate(self.shards.manifest.shards):
            needed = [is_needed(number + i, batch) for i, batch in enumerate(shard.batches)]
            batches = self.shards.batches(place) if any(needed) else [None] * len(needed)
            for meta, batch, is_wanted in zip(shard.batches, batches, needed, strict=True):
                yield number, meta, batch if is_wanted else None, paths[place]
                number += 1
            self.shards.check_whole(place)

    def _takes_some(self, batch: BatchInfo) -> bool:
        wanted = self._wanted.items()
        return all(not getattr(batch, what).keys().isdisjoint(names) for what, names in wanted)

    def _is_cut(self, number: int, batch: BatchInfo) -> bool:
        """Return whether the manifest tells that a record batch is selected only in part."""
        if not self._takes_some(batch):
            return False
        wanted = self._wanted.items()
        has_others = any(not getattr(batch, what).keys() <= names for what, names in wanted)
        # Rows without a data type are in no count of the manifest.
        has_null = self.data_types is not None and sum(batch.data_types.values()) < batch.rows
        # The manifest does not know added columns.
        may_lack = (name in batch.missing or name in self.added for name in self._complete)
        return has_others or has_null or any(may_lack)

    def _find_eras(self) -> tuple[str, ...]:
        if self.is_whole or (self.data_types is None and not self._complete):
            return self.all_eras if self._eras is None else self._eras
        counts = np.bincount(self.era_codes, minlength=len(self.all_eras))
        return tuple(np.array(self.all_eras, object)[counts > 0])

    @cached_property
    def era_codes(self) -> npt.NDArray[np.integer[Any]]:
        """Number of each row's era in `all_eras`: an integer array, shape (rows,)."""
        places = {era: place for place, era in enumerate(self.all_eras)}
        kind: Any = np.uint16 if len(places) < 1 << 16 else np.uint32
        codes: npt.NDArray[np.integer[Any]] = np.empty(self.rows, kind)
        for number, meta, batch, path in self._record_batches(self._has_eras):
            part = slice(*self._starts[number : number + 2])
            if batch is None:
                codes[part] = places[next(iter(meta.eras))] if part.start < part.stop else 0
                continue
            eras, found = encode_texts(batch, "era", meta, path)
            lookup = np.array([places[era] for era in eras], kind)
            codes[part] = lookup[found[self._within(number)]]
        codes.flags.writeable = False  # weights and batches depend on it
        return codes

    def _has_eras(self, number: int, batch: BatchInfo) -> bool:
        return len(batch.eras) > 1 and bool(self._starts[number] < self._starts[number + 1])

    def _within(self, number: int) -> Any:
        """Return the selected rows of a record batch as an index."""
        if not self._is_part[number]:
            return slice(None)
        first = self._first_numbers[number]
        return self._numbers[first : first + self._starts[number + 1] - self._starts[number]]

    def missing(self, target: str) -> dict[str, int]:
        """Return the number of rows without a value of a target, for each era that has some."""
        counts = np.zeros(len(self.all_eras), np.int64)
        if target in self.added:
            absent = np.isnan(self._added(target))
            counts += np.bincount(self.era_codes[absent], minlength=len(counts))
        has_some = self._record_batches(lambda _, meta: target in meta.missing)
        for number, meta, batch, path in has_some:
            if batch is not None:
                absent = find_missing(batch, target, meta, path)[self._within(number)]
                codes = self.era_codes[slice(*self._starts[number : number + 2])]
                counts += np.bincount(codes[absent], minlength=len(counts))
        return {era: int(n) for era, n in zip(self.all_eras, counts, strict=True) if n}

    def digest(self) -> str:
        """Return the SHA-256 of the numbers of the selected rows."""
        digest = hashlib.sha256()
        for numbers in (self._first_rows, self._starts, self._is_part, self._numbers):
            digest.update(numbers.tobytes())
        return digest.hexdigest()

    @property
    def set_bytes(self) -> int:
        """Approximate bytes of the files that the selected rows take."""
        total = sum(shard.bytes for shard in self.shards.manifest.shards)
        return total if self.is_whole else total * self.rows // self.shards.rows

    @property
    def memory_bytes(self) -> int:
        """Bytes of memory that the selection takes."""
        made = self.__dict__.get("era_codes"), self.__dict__.get("by_era", (None,))[0]
        made_bytes = sum(array.nbytes for array in made if array is not None)
        added_bytes = sum(values.nbytes for values in self.added.values())
        return int(self._numbers.nbytes + made_bytes + added_bytes)

    @cached_property
    def by_era(self) -> tuple[npt.NDArray[Any], Rows]:
        """The rows era by era, oldest first, and the number of rows of each. See `EraOrder`."""
        counts = np.bincount(self.era_codes, minlength=len(self.all_eras))
        rows = np.argsort(self.era_codes, kind="stable")
        kind: Any = np.uint32 if len(rows) <= 1 << 32 else np.int64
        return rows.astype(kind), counts[counts > 0]

    @property
    def windows(self) -> list[dict[str, int]]:
        """Number of rows of each selected era, for each record batch."""
        batches = [batch.eras for shard in self.shards.manifest.shards for batch in shard.batches]
        if self._eras is None:
            return batches
        wanted = self._wanted["eras"]
        chosen = [{era: n for era, n in eras.items() if era in wanted} for eras in batches]
        return [eras for eras in chosen if eras]

    def spans(self) -> list[tuple[int, int]]:
        """Return the rows of each record batch as (start, stop)."""
        return list(pairwise(self._starts.tolist()))

    def rows_of_set(self, rows: Rows) -> Rows:
        """Return the global numbers of selected rows in the shard set. Their order is kept."""
        if self.is_whole:
            return rows
        batch = np.searchsorted(self._starts, rows, side="right") - 1
        within = rows - self._starts[batch]
        part = np.flatnonzero(self._is_part[batch])
        within[part] = self._numbers[self._first_numbers[batch[part]] + within[part]]
        found: Rows = self._first_rows[batch] + within
        return found

    def gather(
        self,
        rows: Rows,
        columns: Sequence[str],
        *,
        encoded: Bytes | None = None,
        values: Values | None = None,
        pager: Pager | None = None,
    ) -> tuple[Bytes, Values]:
        """Copy rows from the files. See `RowReader.gather`.

        Added columns may follow the targets in `columns`. The last column may be `ERA`.
        """
        if values is None:
            values = np.empty((len(columns), len(rows)), np.float32)
        targets = self._targets(columns)
        rows_of_set = self.rows_of_set(rows)
        encoded, _ = self.shards.row_reader.gather(
            rows_of_set,
            targets,
            encoded=encoded,
            values=values[: len(targets)],
            pager=pager,
        )
        for place, name in enumerate(columns[len(targets) :], len(targets)):
            values[place] = self.era_codes[rows] if name == ERA else self.added[name][rows_of_set]
        return encoded, values.T

    def _targets(self, columns: Sequence[str]) -> list[str]:
        """Return the columns that are in the files. They come first in `columns`."""
        return [name for name in columns if name != ERA and name not in self.added]

    def _added(self, name: str, rows: Rows | None = None) -> Values:
        rows = np.arange(self.rows, dtype=np.int64) if rows is None else rows
        return self.added[name][self.rows_of_set(rows)]

    def extents(self, rows: Rows, columns: Sequence[str]) -> Iterator[tuple[int, Rows]]:
        """Yield the places of rows in the files. See `RowReader.extents`."""
        return self.shards.row_reader.extents(self.rows_of_set(rows), self._targets(columns))

    def column(self, name: str, rows: Rows | None = None) -> pa.ChunkedArray:
        """Return ``id``, ``era``, ``data_type``, a target or an added column, in the rows' order.

        `rows` are ascending numbers of some selected rows; None returns all of them.
        """
        if isinstance(name, str) and name in self.added:
            return pa.chunked_array([self._added(name, rows)])
        if rows is not None:
            return self.shards.column(name, self.rows_of_set(rows))
        column = self.shards.column(name)
        if self.is_whole:
            return column
        return column.take(pa.array(self.rows_of_set(np.arange(self.rows, dtype=np.int64))))


def _check_data_types(wanted: Any, shards: ShardSet) -> tuple[str, ...]:
    is_list = isinstance(wanted, Iterable) and not isinstance(wanted, str)
    names = tuple(wanted) if is_list else (wanted,)
    known = shards.data_types
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        found = repr(unknown[0]) if unknown else "none"
        close = close_matches(str(found), known)
        raise EraError(
            f"{shards.folder}: data_type: found {found}, expected "
            f"{' or '.join(map(repr, known)) or 'None: the set has no data types'}{close}",
            eras=names,
        )
    return names
