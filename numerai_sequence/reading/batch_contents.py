"""Batch contents: compare the values in a record batch with their counts in the manifest.

Opening a set checks only where its columns are. The checks here read the columns: texts must be
valid, and the counts of eras, data types and missing targets must equal those in the manifest.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..checks import short
from ..format.layout import FEATURES, META_COLUMNS, BatchInfo
from .mapped_file import MappedFile
from .open_file import corrupt
from .paging import advise

#: Columns whose values the manifest counts, and the names of the counts.
COUNTED = {"era": "eras", "data_type": "data_types"}


def check_columns(
    batches: Sequence[pa.RecordBatch], expected: Sequence[BatchInfo], file: MappedFile
) -> None:
    """Check all columns of a shard file except the features, for which any byte is valid.

    Raises
    ------
    CorruptShardError
    """
    for batch, counts in zip(batches, expected, strict=True):
        for name in batch.schema.names:
            if name != FEATURES:
                check_column(batch, name, counts, file.path)
        advise(file.map, "MADV_DONTNEED")


def check_column(batch: pa.RecordBatch, name: str, expected: BatchInfo, path: Path) -> None:
    """Check ids, eras, data types or a target of one record batch.

    Raises
    ------
    CorruptShardError
    """
    if name in COUNTED:
        encode_texts(batch, name, expected, path)
    elif name == "id":
        _check_texts(batch.column(name), name, path)
    else:
        find_missing(batch, name, expected, path)


def check_values(values: pa.Array, name: str, expected: BatchInfo, path: Path) -> None:
    """Check some neighbouring values of a column of a record batch, as far as possible.

    Raises
    ------
    CorruptShardError
    """
    if name not in META_COLUMNS:
        return  # a target: any number is valid
    _check_texts(values, name, path)
    if name in COUNTED:
        known = getattr(expected, COUNTED[name])
        for text in values.unique().to_pylist():
            if text is not None and text not in known:
                raise corrupt(path, name, short(text), f"one of {short([*known])}")


def encode_texts(
    batch: pa.RecordBatch, name: str, expected: BatchInfo, path: Path
) -> tuple[list[str], npt.NDArray[np.int32]]:
    """Return the distinct eras or data types, and for each row its index among them.

    The index of a row without one is the number of distinct values.

    Raises
    ------
    CorruptShardError
    """
    column = batch.column(name)
    _check_texts(column, name, path)
    encoded = column.dictionary_encode()
    texts = encoded.dictionary.to_pylist()
    places: npt.NDArray[np.int32] = encoded.indices.fill_null(len(texts)).to_numpy()
    rows = np.bincount(places, minlength=len(texts)).tolist()
    counts = dict(zip(texts, rows, strict=False))
    _check_same(counts, getattr(expected, COUNTED[name]), f"rows of each {name}", path)
    return texts, places


def find_missing(
    batch: pa.RecordBatch, target: str, expected: BatchInfo, path: Path
) -> npt.NDArray[np.bool_]:
    """Return which rows have no value of a target.

    Raises
    ------
    CorruptShardError
    """
    missing: npt.NDArray[np.bool_] = np.isnan(batch.column(target).to_numpy())
    counted = expected.missing.get(target, 0)
    _check_same(int(missing.sum()), counted, f"rows without {short(target)}", path)
    return missing


def read_targets(
    batch: pa.RecordBatch,
    targets: Sequence[str],
    expected: BatchInfo,
    path: Path,
    *,
    except_eras: Collection[str],
) -> dict[str, npt.NDArray[np.float32]]:
    """Return targets of one record batch, without the rows of some eras.

    Raises
    ------
    CorruptShardError
    """
    for name in targets:
        check_column(batch, name, expected, path)
    columns = {name: batch.column(name).to_numpy() for name in targets}
    if expected.eras.keys().isdisjoint(except_eras):
        return columns
    eras, places = encode_texts(batch, "era", expected, path)
    rows = np.array([era not in except_eras for era in eras])[places]
    return {name: column[rows] for name, column in columns.items()}


def _check_texts(column: pa.Array, name: str, path: Path) -> None:
    try:
        column.validate(full=True)  # a wrong offset would crash the process
    except pa.ArrowException as error:
        raise corrupt(path, f"column {name!r}", short(str(error)), "an intact one") from error


def _check_same(found: Any, expected: Any, what: str, path: Path) -> None:
    if found != expected:
        raise corrupt(path, what, short(found), short(expected))
