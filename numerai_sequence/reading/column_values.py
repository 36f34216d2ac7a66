"""Column values: copy a column's values for some rows from the record batches that hold them.

Only these values are read and checked. The rows of one batch are spread over all record batches of
the set, so reading whole columns would be slow.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..checks import short
from ..errors import FeatureError, close_matches
from ..format.layout import BatchInfo
from .batch_contents import check_values
from .mapped_file import MappedFile


class Part(NamedTuple):
    """Some rows of a record batch.

    Attributes
    ----------
    file : MappedFile
        A shard file, or a patch.
    number : int
        Number of the record batch in the file.
    rows : int64 array, shape (n,)
        Numbers of rows in the record batch, ascending.
    expected : BatchInfo
        Description of the record batch in the manifest.
    """

    file: MappedFile
    number: int
    rows: npt.NDArray[np.int64]
    expected: BatchInfo


def check_column_name(name: Any, known: Sequence[str], where: str) -> None:
    """Raise an error unless the set has this column; features do not count."""
    if not isinstance(name, str):
        raise TypeError(f"name: found {short(name)}, expected the name of a column, such as 'id'")
    if name not in known:
        expected = f"expected one of {', '.join(known)}{close_matches(name, known)}"
        raise FeatureError(f"{where}: unknown column {short(name)}, {expected}", names=[name])


def copy_values(name: str, parts: Sequence[Part]) -> list[pa.Array]:
    """Return a column's values for the rows of some parts as one array; no arrays for no rows.

    Raises
    ------
    CorruptShardError
        A text is invalid, or the manifest lists no such era or data type for the record batch.
    """
    numbers: dict[MappedFile, list[int]] = {}
    for part in parts:
        numbers.setdefault(part.file, []).append(part.number)
    opened = {file: iter(file.batches(numbers[file])) for file in numbers}
    copied = [_copy(next(opened[part.file]).column(name), name, part) for part in parts]
    for file in numbers:
        file.check_whole()
    return [pa.concat_arrays(copied)] if copied else []


def _copy(column: pa.Array, name: str, part: Part) -> pa.Array:
    cuts = [0, *(np.flatnonzero(np.diff(part.rows) != 1) + 1).tolist(), len(part.rows)]
    runs = [column.slice(int(part.rows[first]), last - first) for first, last in pairwise(cuts)]
    for run in runs:
        check_values(run, name, part.expected, part.file.path)
    return pa.concat_arrays(runs)
