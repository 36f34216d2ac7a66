"""Joining: look up the values of other models for some rows by id, in files, frames or columns.

The rows of a file or frame may have any order.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ..checks import short
from ..errors import PredictionError, check_known
from ..ordering.eras import era_number
from .shard_set import ShardSet
from .tables import SUFFIXES, Frame, is_number, is_table, read_frame

_EXPECTED = (
    "expected a column of the set, the path of a .parquet or .csv file, or a frame or Series of "
    "pandas, polars or pyarrow with ids as its index or in a column 'id'"
)
_NO_MODELS = ("id", "era", "data_type", "Unnamed: 0", "level_0", "index")
_MOST_SHOWN = 5


class RowsWithIds(Protocol):
    """Rows of a shard set, in their order: a `Selection`, or a sequence."""

    @property
    def eras(self) -> tuple[str, ...]: ...

    def column(self, name: str, /) -> pa.ChunkedArray: ...


def several(given: Any) -> Any:
    """Return a copy of several models as a list or dict; return a table or path unchanged."""
    if isinstance(given, Mapping):
        return dict(given)
    if isinstance(given, pa.RecordBatchReader):
        return given.read_all()
    is_one = isinstance(given, (str, bytes, os.PathLike)) or is_table(given)
    if is_one or hasattr(given, "read") or not isinstance(given, Iterable):
        return given
    return [one.as_py() if hasattr(one, "as_py") else one for one in given]  # pyarrow's names


# A model is a column of the set, a column of a frame, or the same column of several frames.
Source = str | tuple[Frame, str]


def models_in(option: str, given: Any, shards: ShardSet | None) -> dict[str, list[Source]]:
    if isinstance(given, Mapping):
        return {str(name): _one_in(option, name, one, shards) for name, one in given.items()}
    parts = several(given)
    models: dict[str, list[Source]] = {}
    for part in parts if isinstance(parts, list) else [parts]:
        for name, source in _read(option, part, shards).items():
            if source not in models.setdefault(name, []):
                models[name].append(source)
    return models


def lean_table(option: str, given: Any, columns: Sequence[str] | None) -> Any:
    """Return a table with only the ids and some models of a frame.

    Parameters
    ----------
    option : str
        Name of the argument, for errors.
    given : object
        The value of the argument. See `models_in`. Anything but a frame is returned unchanged.
    columns : sequence of str, optional
        Models to keep. Names that the frame lacks are skipped. None keeps all models.
    """
    if not is_table(given):
        return given
    frame = read_frame(option, given, _EXPECTED, unnamed="benchmark")
    wanted = models_of(option, frame) if columns is None else columns
    names = [name for name in ("era", *wanted) if name in frame.types]
    ids = frame.ids if frame.has_ids else pa.nulls(len(frame.ids), pa.string())
    return pa.table({"id": ids, **{name: frame.column(name) for name in names}})


def _one_in(option: str, name: Any, given: Any, shards: ShardSet | None) -> list[Source]:
    found = _read(f"{option}[{name!r}]", given, shards)
    if len(found) != 1:
        raise PredictionError(
            f"{option}[{name!r}]: found {listed(list(found))}, expected one model"
        )
    return list(found.values())


def _read(option: str, given: Any, shards: ShardSet | None) -> dict[str, Source]:
    """Return the models of one argument by name. Each is a column of the set or of a frame."""
    if isinstance(given, str) and is_column(option, given, shards):
        return {given: given}
    if not isinstance(given, (str, os.PathLike)) and not is_table(given):
        raise TypeError(f"{option}: found {short(given)}, {_EXPECTED}")
    unnamed = "meta_model" if option == "meta_model" else "benchmark"
    frame = read_frame(option, given, _EXPECTED, unnamed=unnamed)
    return {name: (frame, name) for name in models_of(option, frame)}


def is_column(option: str, name: str, shards: ShardSet | None) -> bool:
    """Return whether a name is a column of the set and not the path of a file."""
    known = () if shards is None else shards.targets
    is_path = name.lower().endswith(SUFFIXES)
    if name in known:
        if is_path and Path(name).exists():
            raise PredictionError(
                f"{option}: {name!r} is a column of the set and a file; pass "
                f"pathlib.Path({name!r}) for the file, or rename it"
            )
        return True
    if not is_path:
        where = "no shard set" if shards is None else str(shards.folder)
        check_known(f"{option} column", (name,), known, where)
    return False


def models_of(option: str, frame: Frame) -> list[str]:
    """Return the models of a frame: columns of numbers except features and targets.

    If all columns of numbers are targets, the targets are the models.
    """
    numbers = [n for n, kind in frame.types.items() if is_number(kind) and n not in _NO_MODELS]
    models = [name for name in numbers if not _is_of_data(name)]
    if not models and not any(name.startswith("feature") for name in numbers):
        models = numbers  # targets alone are meant as models
    if not models:
        raise PredictionError(
            f"{frame.where or option}: found no model among the columns "
            f"{listed(list(frame.types))}; expected a column of numbers for each model"
        )
    return models


def _is_of_data(name: str) -> bool:
    return name == "target" or name.startswith(("target_", "feature_"))


def listed(names: list[str]) -> str:
    """Return a text for an error message: the first few names, and the number of the others."""
    more = f" and {len(names) - _MOST_SHOWN} more" if names[_MOST_SHOWN:] else ""
    return ", ".join(map(repr, names[:_MOST_SHOWN])) + more


class Lookup:
    """A lookup of the values of other models for the rows of a shard set, by id.

    Parameters
    ----------
    rows : NumeraiSequence or Selection
    dtype : dtype
        Type of the values. float64 keeps values apart that float32 would round to one number.
    """

    def __init__(self, rows: RowsWithIds, dtype: Any = np.float32) -> None:
        self._rows, self._dtype = rows, np.dtype(dtype)
        self._ids: Any = None
        self._places: dict[int, npt.NDArray[np.int64]] = {}

    def fill(self, name: str, sources: list[Source]) -> Any:
        """Return a model's values for the rows, from all its sources."""
        values: Any = None
        for source in sources:
            part = self._values(source)
            if values is not None and (~np.isnan(values) & ~np.isnan(part)).any():
                raise PredictionError(
                    f"{name!r}: some rows have values in two of the {len(sources)} sources; "
                    "expected each row in one source"
                )
            values = part if values is None else np.where(np.isnan(values), part, values)
        assert values is not None
        return values

    def _values(self, source: Source) -> Any:
        if isinstance(source, str):
            return self._rows.column(source).to_numpy().astype(self._dtype, copy=False)
        frame, name = source
        places, numbers = self.places(frame, name), frame.numbers(name)
        with np.errstate(over="ignore"):
            numbers = numbers.astype(self._dtype, copy=False)
        if np.isinf(numbers).any():
            raise PredictionError(
                f"{_where(frame, name)}: {np.isinf(numbers).sum():,} of {len(numbers):,} values "
                "are infinite; expected finite numbers, or NaN for a missing value"
            )
        if not len(numbers):
            return np.full(len(places), np.nan, self._dtype)
        nothing = self._dtype.type(np.nan)
        return np.where(places < 0, nothing, numbers[places])

    def places(self, frame: Frame, name: str) -> npt.NDArray[np.int64]:
        """Return for each row the row of the frame with the same id; -1 if there is none."""
        if id(frame) not in self._places:
            self._places[id(frame)] = self._place(frame, name)
        return self._places[id(frame)]

    def _place(self, frame: Frame, name: str) -> npt.NDArray[np.int64]:
        where = _where(frame, name)
        if self._ids is None:
            self._ids = self._rows.column("id").cast(pa.large_string())
        if not frame.has_ids:
            raise PredictionError(self._no_value(where) + f"; found {_ids_found(frame)}, {_IDS}")
        _check_once(where, frame.ids)
        known = frame.ids.combine_chunks()
        found = pc.fill_null(pc.index_in(self._ids, value_set=known, skip_nulls=True), -1)
        places: npt.NDArray[np.int64] = np.asarray(found.to_numpy(), np.int64)
        if len(places) and (places < 0).all():
            self._check_apart(where, frame)
        return places

    def _check_apart(self, where: str, frame: Frame) -> None:
        """Raise an error for a frame with none of the ids, unless it holds other eras."""
        if "era" in frame.types:
            theirs = set(map(_era_number, frame.column("era").unique().to_pylist()))
            ours = {era_number(era) for era in self._rows.eras}
            is_apart = not theirs & (ours - {None})
        elif not len(frame.ids):
            is_apart = True
        else:
            # Ids do not tell their era. Ids of another form are taken for a mistake.
            is_apart = _kind_of_id(frame.ids) == _kind_of_id(self._ids)
        if not is_apart:
            found = f"; found ids such as {_first(frame.ids)!r}"
            raise PredictionError(self._no_value(where) + f"{found}, {_IDS}")

    def _no_value(self, where: str) -> str:
        example = f", such as {_first(self._ids)!r}" if len(self._ids) else ""
        return f"{where}: no values for the {len(self._ids):,} rows{example}"


_IDS = "expected a Series or frame that is indexed by id, or has a column 'id'"


def _where(frame: Frame, name: str) -> str:
    return frame.where or repr(name)


def _ids_found(frame: Frame) -> str:
    if frame.id_name is None and not len(frame.ids):
        return "no ids"
    named = "an index without a name" if frame.id_name is None else repr(frame.id_name)
    return f"{named} of {frame.ids.type}"


def _check_once(where: str, ids: pa.ChunkedArray) -> None:
    if pc.count_distinct(ids, mode="only_valid").as_py() == len(ids) - ids.null_count:
        return
    counts = pc.value_counts(ids.drop_null())
    twice = counts.filter(pc.greater(counts.field("counts"), 1))
    first = twice[0].as_py()
    raise PredictionError(
        f"{where}: found id {first['values']!r} {first['counts']} times ({len(twice):,} such "
        "ids); expected each id once"
    )


def _first(ids: pa.ChunkedArray) -> str | None:
    valid = ids.drop_null()
    return str(valid[0].as_py()) if len(valid) else None


def _era_number(era: Any) -> int | None:
    """Return the number of an era that is a text, an integer, or an integer stored as a float."""
    is_whole = isinstance(era, float) and era.is_integer()
    return era_number(str(int(era) if is_whole else era))


def _kind_of_id(ids: pa.ChunkedArray) -> tuple[str, int]:
    """Return the form of the ids: first letter and length. Numerai's are "n" and 15 hex digits."""
    first = _first(ids) or ""
    return first[:1], len(first)
