"""Source columns: a Parquet file's rows as columns of digits, ids, eras and targets."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from ..errors import SourceError, close_matches
from ..format.encoding import Bytes
from ..format.layout import META_COLUMNS, SourceFile
from ..ordering.eras import spell_era
from ..ordering.target_horizon import TARGET
from .column_types import is_era, is_number_or_null, is_string, value_bytes
from .feature_digits import FEATURE_VALUES, read_digits
from .feature_scale import Scale, find_scale
from .open_files import Company
from .parquet_folders import find_files
from .parquet_reader import Parquet
from .path_partitions import partition_values
from .tournaments import check_tournament

FEATURE_PREFIX = "feature"


@dataclass(frozen=True)
class Chunk:
    """Neighbouring row groups that are read together: rows `first_row` to `first_row + rows`."""

    groups: tuple[int, ...]
    first_row: int
    rows: int


class Source:
    """An open Parquet file that has the columns of a Numerai file.

    Parameters
    ----------
    path : path
        The ids are in a string column ``id``, or else in the file's only pandas index. The names of
        its folders may give the era and the data type instead: ``era=0001/part-0.parquet``.
    company : Company, optional
        The open files. With too many of them, this one is closed until it is read again.

    Attributes
    ----------
    rows : int
    id_name : str
        Name of the column of ids.
    features, targets, others : tuple of str
        Names of all features, of all targets, and of all columns that may be targets.

    Raises
    ------
    SourceError
        The file cannot be read, lacks a column, or has a column of a wrong type.
    """

    def __init__(self, path: Path, company: Company | None = None) -> None:
        self.path = path
        self.file = Parquet(path, company)
        self.error = self.file.error
        self._schema, names = self.file.schema, self.file.names
        # Files of one folder have the same columns: memory holds their names once.
        share = self.file.company.shared
        self._types = share("types", {field.name: field.type for field in self._schema})
        twice = [name for name in names if self._schema.get_all_field_indices(name)[1:]]
        if twice:
            what = "found two columns of this name, expected one; rename or remove the other"
            raise self.error(what, column=twice[0])
        check_tournament(self.file)
        self.rows = sum(self.file.group_rows)
        self._given = partition_values(path, names)
        self.id_name = self._find_id()
        columns = [name for name in names if name != self.id_name]
        self.features = share("features", _starting(columns, FEATURE_PREFIX))
        self.targets = share("targets", _starting(columns, TARGET))
        taken = {*self.features, *META_COLUMNS, self.id_name}
        self.others = share("others", tuple(name for name in names if name not in taken))
        if "era" not in self._given:
            self._require("era", is_era, "strings or whole numbers")
        elif self._given["era"] is None:
            what = "its folder has no era; expected a folder name such as era=0001"
            raise self.error(f"{what}; rename the folder", column="era")
        if "data_type" in names:
            self._require("data_type", is_string, "strings")

    @cached_property
    def scale(self) -> Scale:
        """The scale of the features that are floats. Finding it may read the file."""
        return find_scale(self.file, {name: self._types[name] for name in self.features})

    def close(self) -> None:
        self.file.close()

    def describe(self, checksum: str) -> SourceFile:
        """Return the manifest's description of the file.

        Raises
        ------
        SourceError
            The file has changed since it was opened.
        """
        self.file.check_unchanged()
        status = self.file.status
        return SourceFile(str(self.path), status.st_size, status.st_mtime_ns, self.rows, checksum)

    def check_columns(
        self,
        features: Iterable[str],
        targets: Iterable[str],
        remedy: str = "choose others with {}=",
    ) -> None:
        """Raise a `SourceError` if one of these columns is missing or does not hold numbers."""
        for name in features:
            self._require(
                name, is_number_or_null, FEATURE_VALUES, f", or {remedy.format('features')}"
            )
        for name in targets:
            self._require(name, is_number_or_null, "numbers", f", or {remedy.format('targets')}")

    def has_numbers(self, name: str) -> bool:
        """Return whether a column exists and may be written as a target."""
        return name in self._types and is_number_or_null(self._types[name])

    def bytes_per_row(self, features: Iterable[str]) -> int:
        """Return the bytes of one decoded row of these columns."""
        return sum(value_bytes(self._types[name]) for name in features)

    def chunks(self, *, rows: int) -> list[Chunk]:
        """Cut the file into chunks of at most `rows` rows, or of one row group."""
        chunks: list[Chunk] = []
        groups: list[int] = []
        first, held = 0, 0
        for group, size in enumerate(self.file.group_rows):
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
            Columns ``id``, ``era`` and ``data_type`` as strings; only ``data_type`` may have
            nulls. Then the targets, rounded to float32, with NaN for null.

        Raises
        ------
        SourceError
            A value cannot be stored. The message names the file, the column and the row.
        """
        meta = [name for name in META_COLUMNS[1:] if name in self._types]
        names = [self.id_name, *meta, *targets]
        first_row = chunk.first_row
        for table in self.file.iterate(chunk.groups, names):
            columns: dict[str, Any] = {
                "id": self._strings(table, self.id_name, first_row, "an id"),
                "era": self._eras(table, first_row),
                "data_type": self._strings(table, "data_type", first_row)
                if "data_type" in meta
                else _repeated(self._given.get("data_type"), table.num_rows),
            }
            for name in targets:
                columns[name] = self._floats(table, name, first_row)
            yield pa.table(columns)
            first_row += table.num_rows

    def iter_numbers(
        self, chunk: Chunk, names: Sequence[str]
    ) -> Iterator[dict[str, npt.NDArray[np.float32]]]:
        """Read columns of numbers of a chunk, some rows at a time.

        Yields
        ------
        dict of str to float32 array, shape (rows,)
            Rounded as by `iter_meta`; a number that is too large for float32 is infinite.
        """
        for table in self.file.iterate(chunk.groups, names):
            yield {name: _as_float32(table[name]).to_numpy() for name in names}

    def read_eras(self, chunk: Chunk) -> pa.ChunkedArray:
        """Read a chunk's eras, as strings without nulls."""
        if "era" in self._given:
            return _repeated(self._given["era"], chunk.rows)
        return self._eras(self.file.read(chunk.groups, ["era"]), chunk.first_row)

    def read_features(self, chunk: Chunk, names: Sequence[str]) -> pa.Table:
        """Read columns of a chunk as the file has them, for `digits`."""
        return self.file.read(chunk.groups, names)

    def digits(self, table: pa.Table, name: str, chunk: Chunk) -> Bytes:
        """Return a feature's values as digits 0..4, a uint8 array of shape (chunk.rows,).

        Raises
        ------
        SourceError
            A value is not a digit. The message names the file, the column and the row.
        """
        return read_digits(self.file, self.scale, table[name], name, chunk.first_row)

    def _find_id(self) -> str:
        index = self._index_columns()
        name = "id" if "id" in self._types else index[0] if len(index) == 1 else None
        if not isinstance(name, str) or name not in self._types or name in META_COLUMNS[1:]:
            what = "missing; expected row ids in a column of this name, or in the only pandas index"
            raise self.error(f"{what}; add the column, or make the ids the index", column="id")
        self._require(name, is_string, "strings")
        return name

    def _index_columns(self) -> list[Any]:
        with suppress(ValueError, TypeError, KeyError, RecursionError):
            return list(json.loads(self._schema.metadata[b"pandas"])["index_columns"])
        return []  # not written by pandas

    def _require(self, name: str, accepted: Any, expected: str, remedy: str = "") -> None:
        if name not in self._types:
            close = close_matches(name, self._schema.names)
            what = f"missing; expected {expected}{close}; add it{remedy}"
            raise self.error(what, column=name)
        found = self._types[name]
        if not accepted(found):
            what = f"found {found}, expected {expected}; convert it{remedy}"
            raise self.error(what, column=name)

    def _strings(
        self, table: pa.Table, name: str, first_row: int, wanted: str | None = None
    ) -> pa.ChunkedArray:
        """Return a column as strings. If `wanted` is given, a null is an error."""
        column = self.file.text(table, name)
        if wanted and column.null_count:
            row = first_row + pc.index(column.is_null(), True).as_py()
            what = f"found null, expected {wanted}; fill it in, or remove the row"
            raise self.error(what, column=name, row=row)
        try:
            column.validate(full=True)
        except pa.ArrowException as error:
            row = first_row + _first_broken(column)
            what = "found bytes that are not UTF-8, expected text; write the file again as UTF-8"
            raise self.error(what, column=name, row=row) from error
        return column

    def _eras(self, table: pa.Table, first_row: int) -> pa.ChunkedArray:
        """Return the eras as strings without nulls, with numbers as Numerai writes them."""
        if "era" in self._given:
            return _repeated(self._given["era"], table.num_rows)
        column = table["era"]
        if is_string(column.type):
            return self._strings(table, "era", first_row, "an era")
        if pt.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if pt.is_float16(column.type):  # which Arrow does not look up
            column = column.cast(pa.float32())
        spelled = [_spelled(number) for number in pc.unique(column).to_pylist()]
        codes = pc.index_in(column, value_set=pc.unique(column))
        eras = pa.chunked_array([pa.array(spelled, pa.string()).take(codes.combine_chunks())])
        if eras.null_count:
            row = pc.index(eras.is_null(), True).as_py()
            found = "null" if column.is_null()[row].as_py() else column[row]
            what = f"found {found}, expected an era: a whole number of at least 0, or text"
            what += "; fix it, or remove the row"
            raise self.error(what, column="era", row=first_row + row)
        return eras

    def _floats(self, table: pa.Table, name: str, first_row: int) -> pa.ChunkedArray:
        """Return a column of numbers as float32 without nulls or infinities."""
        values = _as_float32(table[name])
        place = pc.index(pc.is_inf(values), True).as_py()
        if place >= 0:
            what = f"found {table[name][place]}, expected a number in the range of float32, or NaN"
            what += " or null if it is missing; fix it, or leave this column out with targets="
            raise self.error(what, column=name, row=first_row + place)
        return values


@contextmanager
def open_sources(sources: Any) -> Iterator[list[Source]]:
    """Open the Parquet files of one path, or of several, and close them at the end.

    If one of them causes an error and has changed meanwhile, the error says that it has changed.
    """
    given = [sources] if isinstance(sources, (str, os.PathLike)) else list(sources)
    paths = find_files(map(Path, given))
    if not paths:
        raise ValueError("sources: found none, expected at least one Parquet file")
    company = Company()
    with ExitStack() as stack:
        opened = [stack.enter_context(closing(Source(path, company))) for path in paths]
        try:
            yield opened
        except SourceError:
            for source in opened:
                source.file.check_unchanged()
            raise


def _as_float32(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(pa.float32(), safe=False).fill_null(float("nan"))


def _starting(names: Sequence[str], prefix: str) -> tuple[str, ...]:
    return tuple(name for name in names if name.startswith(prefix))


def _repeated(value: str | None, rows: int) -> pa.ChunkedArray:
    return pa.chunked_array([pa.repeat(pa.scalar(value, pa.string()), rows)])


def _spelled(number: float | None) -> str | None:
    """Return an era that is a number as text; None if it is not a whole number."""
    if number is None or not math.isfinite(number) or number < 0 or number != int(number):
        return None
    return spell_era(int(number))


def _first_broken(strings: pa.ChunkedArray) -> int:
    """Return the row of the first string that is not UTF-8."""
    for row, value in enumerate(strings.cast(pa.binary())):
        try:
            (value.as_py() or b"").decode()
        except UnicodeDecodeError:
            return row
    return 0
