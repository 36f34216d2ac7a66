"""Parquet reader: columns of one file's row groups, and errors that name the damaged column."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import SourceError, is_out_of_memory
from ..format.layout import file_checksum
from .open_files import Company

_BATCH_ROWS = 1 << 16


class Parquet:
    """An open Parquet file, which is checked for changes.

    Parameters
    ----------
    path : path
    company : Company, optional
        The open files. With too many of them, this one is closed until it is read again.

    Attributes
    ----------
    path : path
    status : os.stat_result
        State of the file when it was opened.
    group_rows : tuple of int
        Rows of each row group.
    schema : pyarrow.Schema
    names : list of str
        Names of the columns.

    Raises
    ------
    SourceError
        The file cannot be read.
    """

    def __init__(self, path: Path, company: Company | None = None) -> None:
        self.path = path
        self.company = company or Company()
        self._file: pq.ParquetFile | None = None
        remedy = "expected a Parquet file; choose another file, or download it again"
        if path.suffix.lower() in (".csv", ".gz", ".zip"):
            remedy = "expected a Parquet file; convert it with pandas: read_csv, then to_parquet"
        with self._reading("cannot be read as Parquet", remedy=remedy):
            # Before it is opened: a file that replaces it from now on is another one.
            self.status = os.stat(path)
            file = self._open()
            self.schema: pa.Schema = self.company.schema(file.schema_arrow)
            self.names: list[str] = self.company.shared("names", self.schema.names)
        groups = range(file.metadata.num_row_groups)
        self.group_rows = tuple(file.metadata.row_group(group).num_rows for group in groups)

    @property
    def metadata(self) -> Any:
        """The metadata of the file."""
        with self._reading("cannot be read"):
            return self._open().metadata

    def rest(self) -> None:
        """Close the file until it is read again. A read that has begun ends first."""
        self._file = None

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _open(self) -> Any:
        if self._file is None:
            self.check_unchanged()  # of a file that rested
            # Made absolute, as a name such as "train:v5.parquet" passes for an address.
            # Most writers give pages no checksum; where there is one, it costs 3% of the reading.
            path = os.path.abspath(self.path)
            self._file = pq.ParquetFile(path, page_checksum_verification=True)
            self.company.enter(self)
        return self._file

    def error(self, what: str, *, column: str | None = None, row: int | None = None) -> SourceError:
        """Return a `SourceError` that names the file and, if given, the column and the row."""
        where = [str(self.path)]
        where += [] if column is None else [f"column {column!r}"]
        where += [] if row is None else [f"row {row}"]
        return SourceError(f"{', '.join(where)}: {what}", path=self.path, column=column, row=row)

    def read(self, groups: Sequence[int], names: Sequence[str]) -> pa.Table:
        """Read columns of some row groups."""
        with self._locating(groups, names):
            table = self._open().read_row_groups(list(groups), columns=list(names))
            self._check_rows(table.num_rows, groups)
        return table.select(names)  # "a.b" also stands for the b of a struct a

    def iterate(self, groups: Sequence[int], names: Sequence[str]) -> Iterator[pa.Table]:
        """Read columns of some row groups, some rows at a time."""
        rows = 0
        with self._locating(groups, names):
            for batch in self._open().iter_batches(
                _BATCH_ROWS, row_groups=list(groups), columns=list(names)
            ):
                yield pa.Table.from_batches([batch])
                rows += batch.num_rows
            self._check_rows(rows, groups)

    def text(self, table: pa.Table, name: str) -> pa.ChunkedArray:
        """Return a column that was read, as strings; they may not be valid UTF-8."""
        with self._reading("cannot be read", name):
            return table[name].cast(pa.string())

    def checksum(self, stop: threading.Event | None = None) -> str:
        """Return the SHA-256 of the file's bytes.

        Raises
        ------
        CancelledError
            `stop` was set meanwhile.
        """

        def give_up(_: int) -> None:
            if stop is not None and stop.is_set():
                raise CancelledError

        with self._reading("cannot be read"):
            return file_checksum(self.path, progress=give_up)

    def check_unchanged(self) -> None:
        """Raise a `SourceError` if the file has changed since it was opened."""
        with self._reading("is gone"):
            now = os.stat(self.path)
        if (now.st_size, now.st_mtime_ns) != (self.status.st_size, self.status.st_mtime_ns):
            raise self.error("changed while it was read; wait until it is complete, and run again")

    def _check_rows(self, found: int, groups: Sequence[int]) -> None:
        # Of a column whose pages end too early, Arrow returns fewer values, and no error.
        expected = sum(self.group_rows[group] for group in groups)
        if found != expected:
            raise pa.ArrowInvalid(f"found {found} rows, expected {expected}")

    @contextmanager
    def _locating(self, groups: Sequence[int], names: Sequence[str]) -> Iterator[None]:
        """Make an error of reading several columns name the first damaged column."""
        try:
            yield
        except (OSError, pa.ArrowException) as error:
            if not is_out_of_memory(error):
                for group in groups:
                    for name in names:
                        self._try(group, name)
            with self._reading("cannot be read"):
                raise

    def _try(self, group: int, name: str) -> None:
        with self._reading(f"row group {group} cannot be read", name):
            table = self._open().read_row_group(group, columns=[name])
            self._check_rows(table.num_rows, [group])

    @contextmanager
    def _reading(
        self, what: str, column: str | None = None, remedy: str | None = None
    ) -> Iterator[None]:
        try:
            yield
        except (OSError, pa.ArrowException, ValueError) as error:  # a name may be no UTF-8
            if is_out_of_memory(error):
                raise
            what = f"{what}: {_first_line(error)}"
            if remedy is None and getattr(error, "errno", None) is None:
                remedy = "download it again"
            what += f"; {remedy}" if remedy else ""  # the system's own words may say it all
            raise self.error(what, column=column) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
