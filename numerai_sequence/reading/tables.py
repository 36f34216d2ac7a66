"""Tables: read the ids and columns of a table of any package, or of its file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from ..checks import file_path, kind_of
from ..errors import PredictionError, SourceError

SUFFIXES = (".parquet", ".csv")

# Names of the id column. The last two are pandas's for an index without a name, in Parquet and CSV.
_ID_COLUMNS = ("id", "__index_level_0__", "")


@dataclass(frozen=True)
class Frame:
    """A table whose rows have ids. Columns are read on demand.

    Attributes
    ----------
    where : str
        Path of the file; empty for a table in memory.
    id_name : str or None
        Name of the column or index with the ids.
    ids : pyarrow array of large_string, or of another type if the ids are not text
        The ids; empty if the table has none.
    types : dict of str to pyarrow type
        Types of the columns by name, without the ids.
    column : function of a name
        Function that returns a column as a pyarrow array.
    """

    where: str
    id_name: str | None
    ids: pa.ChunkedArray = field(repr=False)
    types: Mapping[str, pa.DataType] = field(repr=False)
    column: Callable[[str], Any] = field(repr=False)

    @property
    def has_ids(self) -> bool:
        return bool(pa.types.is_large_string(self.ids.type))

    def numbers(self, name: str) -> npt.NDArray[np.floating[Any]]:
        """Return a column of numbers as float32 or float64, with NaN for missing values."""
        column = self.column(name)
        if not pa.types.is_floating(column.type):
            column = column.cast(pa.float64())
        if pa.types.is_float16(column.type):
            return np.asarray(column.to_numpy(zero_copy_only=False), np.float32)
        chunks = column if isinstance(column, pa.ChunkedArray) else pa.chunked_array([column])
        values: npt.NDArray[np.floating[Any]] = chunks.to_numpy()
        return values


def read_frame(option: str, given: Any, expected: str, *, unnamed: str) -> Frame:
    """Return the frame of an argument that is a table or the path of a file.

    Parameters
    ----------
    option : str
        Name of the argument, for errors.
    given : path, pandas.DataFrame, pandas.Series, polars.DataFrame, pyarrow.Table
        Table with ids in its index or in a column ``id``, or path of a ``.parquet`` or ``.csv``
        file.
    expected : str
        Description of valid arguments, for errors.
    unnamed : str
        Column name for a Series without a name.

    Raises
    ------
    SourceError
        The file is missing, or cannot be read.
    TypeError
        The argument is something else.
    """
    if isinstance(given, (str, os.PathLike)):
        return _read_file(option, given)
    if _is_series(given):
        given = given.to_frame(unnamed if given.name is None else given.name)
    if hasattr(given, "iloc") and hasattr(given, "columns"):
        return _read_pandas(option, given)
    if is_table(given):
        try:
            return _read_arrow(pa.table(given))
        except (pa.ArrowException, TypeError) as error:
            raise TypeError(f"{option}: found {kind_of(given)} without ids, {expected}") from error
    raise TypeError(f"{option}: found {kind_of(given)}, {expected}")


def is_table(given: Any) -> bool:
    """Return whether an argument is a frame, Series or table of any package."""
    is_frame = hasattr(given, "iloc") and hasattr(given, "columns")
    is_arrow = hasattr(given, "__arrow_c_stream__") or isinstance(given, pa.RecordBatch)
    return is_frame or is_arrow or _is_series(given)


def _is_series(given: Any) -> bool:
    return hasattr(given, "to_frame") and hasattr(given, "index")  # as that of pandas


def is_number(kind: pa.DataType) -> bool:
    """Return whether columns of a type hold numbers. Booleans do not count."""
    types = pa.types
    return bool(types.is_floating(kind) or types.is_integer(kind) or types.is_decimal(kind))


def _read_file(option: str, given: Any) -> Frame:
    path = file_path(option, given, "the path of a .parquet or .csv file", SourceError)
    if path.suffix.lower() not in SUFFIXES:
        raise SourceError(f"{path}: expected a path that ends in .parquet or .csv", path=path)
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no such file"
        raise SourceError(f"{path}: {found}, expected a .parquet or .csv file", path=path)
    return _read_parquet(path) if path.suffix.lower() == ".parquet" else _read_csv(path)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        why = str(error).splitlines()[0]
        raise SourceError(
            f"{path}: cannot be read ({why}); download it again", path=path
        ) from error


def _read_parquet(path: Path) -> Frame:
    with _explained(path):
        metadata = pq.read_metadata(path)

    def column(name: str) -> pa.ChunkedArray:
        # One column at a time: the file of all benchmark models may be larger than memory.
        with _explained(path), pq.ParquetFile(path, metadata=metadata) as file:
            return file.read(columns=[name]).column(name)

    return _framed(str(path), metadata.schema.to_arrow_schema(), column)


def _read_csv(path: Path) -> Frame:
    text = dict.fromkeys([*_ID_COLUMNS, "era"], pa.string())
    options = pa.csv.ConvertOptions(column_types=text)
    with _explained(path):
        return _read_arrow(pa.csv.read_csv(path, convert_options=options), str(path))


def _read_arrow(table: pa.Table, where: str = "") -> Frame:
    return _framed(where, table.schema, table.column)


def _framed(where: str, schema: pa.Schema, column: Callable[[str], Any]) -> Frame:
    _check_names(where or "table", schema.names)
    types = dict(zip(schema.names, schema.types, strict=True))
    id_name = next((name for name in _ID_COLUMNS if name in types), None)
    ids = pa.chunked_array([], pa.null()) if id_name is None else _as_text(column(id_name))
    others = {name: kind for name, kind in types.items() if name not in _ID_COLUMNS}
    return Frame(where, id_name, ids, others, column)


def _read_pandas(option: str, frame: Any) -> Frame:
    names = [str(name) for name in frame.columns]
    _check_names(option, names)
    places = {name: place for place, name in enumerate(names)}

    def column(name: str) -> Any:
        return pa.array(frame.iloc[:, places[name]], from_pandas=True)

    id_name: Any = "id"
    if "id" in frame.index.names:
        ids = frame.index.get_level_values("id")
    elif "id" in places:
        ids = frame.iloc[:, places["id"]]
    else:
        ids, id_name = frame.index, frame.index.name
    types = {name: _type_of(frame.iloc[:, place]) for name, place in places.items()}
    types.pop("id", None)
    return Frame("", id_name, _as_text(_converted(ids)), types, column)


def _type_of(series: Any) -> pa.DataType:
    # Do not convert columns just to learn their type: a frame may have thousands of features.
    is_plain = isinstance(series.dtype, np.dtype) and series.dtype.kind in "fiu"
    return pa.from_numpy_dtype(series.dtype) if is_plain else _converted(series).type


def _converted(values: Any) -> Any:
    try:
        return pa.array(values, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError):
        return pa.nulls(len(values))  # such as objects of several kinds


def _as_text(ids: Any) -> pa.ChunkedArray:
    """Return ids of any text type as large_string, and other ids unchanged."""
    ids = ids if isinstance(ids, pa.ChunkedArray) else pa.chunked_array([ids])
    if pa.types.is_dictionary(ids.type):
        ids = ids.cast(ids.type.value_type)
    is_view = getattr(pa.types, "is_string_view", lambda _: False)
    is_text = pa.types.is_string(ids.type) or pa.types.is_large_string(ids.type)
    return ids.cast(pa.large_string()) if is_text or is_view(ids.type) else ids


def _check_names(where: str, names: list[str]) -> None:
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise PredictionError(f"{where}: found column {twice!r} twice; expected each once")
