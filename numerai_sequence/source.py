"""Source: a Parquet file's rows become columns of digits, ids, eras and targets."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from .encoding import Bytes, to_digits
from .errors import SourceError, check_known, close_matches
from .layout import META_COLUMNS
from .parquet import Parquet

_FEATURE_PREFIX = "feature"
_TARGET_PREFIX = "target"
_FEATURE_VALUES = "one of 0, 1, 2, 3, 4 (integers) or 0, .25, .5, .75, 1 (floats)"


@dataclass(frozen=True)
class Chunk:
    """Neighbouring row groups that are read together: rows `first_row` to `first_row + rows`."""

    groups: tuple[int, ...]
    first_row: int
    rows: int


class Source:
    """One Parquet file, opened and found to have the columns that every Numerai file has.

    Parameters
    ----------
    path : path
        The ids are in a string column ``id``, or in the file's one pandas index.

    Raises
    ------
    SourceError
        The file cannot be read, or lacks a column, or a column has a type that is of no use.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = Parquet(path)
        self.error = self.file.error
        self._schema = self.file.schema
        names = self._schema.names
        self._types = {field.name: field.type for field in self._schema}
        twice = [name for name in names if self._schema.get_all_field_indices(name)[1:]]
        if twice:
            raise self.error("there are two columns of this name", column=twice[0])
        self.rows: int = self.file.metadata.num_rows
        self.features = tuple(name for name in names if name.startswith(_FEATURE_PREFIX))
        self.targets = tuple(name for name in names if name.startswith(_TARGET_PREFIX))
        self._id = self._find_id()
        taken = {*self.features, *META_COLUMNS, self._id}
        self.others = tuple(name for name in names if name not in taken)
        self._require("era", _is_string, "strings")
        if "data_type" in names:
            self._require("data_type", _is_string, "strings")

    def close(self) -> None:
        self.file.close()

    def check_columns(self, features: Iterable[str], targets: Iterable[str]) -> None:
        """Raise a `SourceError` where one of these columns is missing or not a number."""
        for name in features:
            self._require(name, _is_number, _FEATURE_VALUES)
        for name in targets:
            self._require(name, _is_number, "numbers")

    def bytes_per_row(self, features: Iterable[str]) -> int:
        """Return the bytes that one row of these columns takes when it is decoded."""
        return sum(_value_bytes(self._types[name]) for name in features)

    def chunks(self, *, rows: int) -> list[Chunk]:
        """Cut the file into chunks of at most `rows` rows, or of one row group."""
        chunks: list[Chunk] = []
        groups: list[int] = []
        first, held = 0, 0
        for group in range(self.file.metadata.num_row_groups):
            size = self.file.metadata.row_group(group).num_rows
            if not size:
                continue
            if groups and held + size > rows:
                chunks.append(Chunk(tuple(groups), first, held))
                groups, first, held = [], first + held, 0
            groups.append(group)
            held += size
        return [*chunks, Chunk(tuple(groups), first, held)] if held else chunks

    def iter_meta(self, chunk: Chunk, targets: Sequence[str]) -> Iterator[pa.Table]:
        """Read a chunk's ids, eras, data types and targets, some rows at a time.

        Yields
        ------
        pyarrow.Table
            Columns ``id``, ``era`` and ``data_type`` as strings, only the last with nulls; then
            the targets as float32, a null being NaN.
        """
        names = [self._id, "era", *targets]
        names += ["data_type"] if "data_type" in self._schema.names else []
        first_row = chunk.first_row
        for table in self.file.iterate(chunk.groups, names):
            columns: dict[str, Any] = {
                "id": self._whole(table, self._id, first_row, "an id"),
                "era": self._whole(table, "era", first_row, "an era"),
                "data_type": self.file.text(table, "data_type")
                if "data_type" in names
                else pa.nulls(table.num_rows, pa.string()),
            }
            for name in targets:
                values = table[name].cast(pa.float32(), safe=False)
                columns[name] = values.fill_null(float("nan"))
            yield pa.table(columns)
            first_row += table.num_rows

    def read_eras(self, chunk: Chunk) -> pa.ChunkedArray:
        """Read a chunk's eras, as strings without nulls."""
        return self._whole(self.file.read(chunk.groups, ["era"]), "era", chunk.first_row, "an era")

    def read_features(self, chunk: Chunk, names: Sequence[str]) -> pa.Table:
        """Read columns of a chunk as they are in the file, for `digits`."""
        return self.file.read(chunk.groups, names)

    def digits(self, table: pa.Table, name: str, chunk: Chunk) -> Bytes:
        """Return a feature's values as digits 0..4, a uint8 array of shape (chunk.rows,).

        Raises
        ------
        SourceError
            Naming the file, the column and the row of the first value that is none of these.
        """
        column = table[name]
        if column.null_count:
            row = pc.index(column.is_null(), True).as_py()
            raise self._wrong_value("null", name, chunk.first_row + row)
        values = column.to_numpy()
        digits, invalid = to_digits(values)
        if invalid is not None:
            raise self._wrong_value(values[invalid], name, chunk.first_row + invalid)
        return digits

    def _wrong_value(self, found: object, column: str, row: int) -> SourceError:
        what = f"found {found}, expected {_FEATURE_VALUES}; repair or leave out this feature"
        return self.error(what, column=column, row=row)

    def _find_id(self) -> str:
        names = self._schema.names
        for name in ["id", *self._index_columns()]:
            if isinstance(name, str) and name in names:
                self._require(name, _is_string, "strings")
                return name
        raise self.error("missing; expected a column, or a pandas index, of row ids", column="id")

    def _index_columns(self) -> list[Any]:
        with suppress(ValueError, TypeError, KeyError):
            return list(json.loads(self._schema.metadata[b"pandas"])["index_columns"])
        return []  # not written by pandas

    def _require(self, name: str, accepted: Any, expected: str) -> None:
        if name not in self._types:
            close = close_matches(name, self._schema.names)
            raise self.error(f"missing; expected {expected}{close}", column=name)
        found = self._types[name]
        if not accepted(found):
            raise self.error(f"found {found}, expected {expected}", column=name)

    def _whole(self, table: pa.Table, name: str, first_row: int, what: str) -> pa.ChunkedArray:
        column = self.file.text(table, name)
        if column.null_count:
            row = first_row + pc.index(column.is_null(), True).as_py()
            raise self.error(f"found null, expected {what}", column=name, row=row)
        return column


def open_sources(sources: Any) -> list[Source]:
    """Open one Parquet path, or several."""
    paths = [sources] if isinstance(sources, (str, os.PathLike)) else list(sources)
    if not paths:
        raise ValueError("sources: found none, expected at least one Parquet file")
    return [Source(Path(path)) for path in paths]


def choose_columns(
    sources: Sequence[Source],
    features: Sequence[str] | None,
    targets: Sequence[str] | None,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the feature and target columns to write, and see that every source has them.

    None stands for all of the first source's, in its order. Any other column of numbers may be
    written as a target, but only when it is named: weights of the rows, for example.

    Raises
    ------
    FeatureError
        A name asked for is not in the first source.
    SourceError
        A source has no features, lacks one of the columns, or has one of a type of no use.
    """
    first = sources[0]
    chosen = tuple(features) if features is not None else first.features
    wanted = tuple(targets) if targets is not None else first.targets
    if not chosen:
        raise first.error(f"no feature; expected columns named '{_FEATURE_PREFIX}...'")
    check_known("feature", chosen, first.features, str(first.path))
    check_known("target", wanted, first.others, str(first.path))
    for source in sources:
        source.check_columns(chosen, wanted)
        if features is None:
            _check_same(source, set(source.features) - set(chosen), first)
        if targets is None:
            _check_same(source, set(source.targets) - set(wanted), first)
    return chosen, wanted


def _check_same(source: Source, extra: set[str], first: Source) -> None:
    if extra:
        name = min(extra)
        raise source.error(
            f"is not in {first.path}; name the columns to write with features= and targets=",
            column=name,
        )


def _is_string(found: pa.DataType) -> bool:
    if pt.is_dictionary(found):
        return _is_string(found.value_type)
    return bool(pt.is_string(found) or pt.is_large_string(found))


def _is_number(found: pa.DataType) -> bool:
    return bool(pt.is_integer(found) or pt.is_floating(found))


def _value_bytes(found: pa.DataType) -> int:
    return max(1, int(found.bit_width) // 8)
