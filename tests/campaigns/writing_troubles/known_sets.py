"""Known sets: small sources, the sets that are written from them, and which set a folder holds."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from numerai_sequence import ManifestError, NumeraiSequenceError, open_shards
from numerai_sequence.format.encodings import ENCODINGS
from numerai_sequence.synthetic import write_parquet
from numerai_sequence.writing import writer

OPTIONS = {"num_shards": 3, "mix_eras": 2, "progress": False}
NOTHING = "nothing"

Rows = dict[str, np.ndarray]


class BrokenPromise(AssertionError):
    """A folder holds what it must not."""


def small_pieces() -> None:
    """Have the writer read several blocks of columns of several chunks, though files are small."""
    writer.BLOCK_BYTES = 12_000


def write_source(path: Path, *, rows: int, first_era: int, **options: Any) -> Path:
    """Write a source of several row groups, and eras of several windows and shards."""
    shape: Any = {"features": 60, "targets": 3, "min_eras": 18, "row_group_rows": 300}
    return write_parquet(path, rows=rows, first_era=first_era, **shape, **options)


def add_checksums(source: Path, path: Path) -> Path:
    """Write a source again, with a checksum for each of its pages."""
    pq.write_table(pq.read_table(source), path, row_group_size=300, write_page_checksum=True)
    return path


def rows_of_source(path: Path) -> Rows:
    """Return a source's values, sorted by id and the others."""
    table = pq.read_table(path, use_threads=False)
    names = table.schema.names
    features = [name for name in names if name.startswith("feature")]
    targets = [name for name in names if name.startswith("target")]
    return _sorted(
        table,
        np.stack([table[name].to_numpy() for name in features], axis=1),
        np.stack([table[name].to_numpy() for name in targets], axis=1),
    )


def rows_of_set(folder: Path, *, verify: bool = True) -> Rows:
    """Return a set's values, sorted as those of a source, after all of its bytes were verified."""
    with open_shards(folder) as shards:
        if verify:
            shards.verify()
        encoded, targets = shards.row_reader.gather(np.arange(shards.rows), shards.targets)
        digits = np.empty((shards.rows, len(shards.features)), np.int8)
        ENCODINGS[shards.encoding].decoder(len(shards.features), dtype="int8")(encoded, digits)
        columns = {name: shards.column(name) for name in ("id", "era", "data_type")}
        return _sorted(pa.table(columns), digits, targets)


def _sorted(table: pa.Table, digits: np.ndarray, targets: np.ndarray) -> Rows:
    texts = {name: np.array(table[name].to_pylist()) for name in ("id", "era", "data_type")}
    # By the other values too: damage that no one can see may make two ids one.
    order = np.lexsort((*digits.T, *targets.T, texts["id"]))
    values = {**texts, "digits": digits, "targets": targets.astype(np.float32)}
    return {name: column[order] for name, column in values.items()}


def same_rows(a: Rows, b: Rows) -> bool:
    return all(
        a[name].shape == b[name].shape
        and np.array_equal(a[name], b[name], equal_nan=name == "targets")
        for name in a
    )


def held(folder: Path, known: Mapping[str, Rows], *, verify: bool = True) -> str:
    """Return the name of the rows that the set in a folder holds, or `NOTHING`.

    Raises
    ------
    BrokenPromise
        It is damaged, or holds other rows.
    """
    if not (folder / "manifest.json").exists():
        try:
            open_shards(folder)
        except ManifestError:
            return NOTHING
        raise BrokenPromise("a set is opened without a manifest")
    try:
        found = rows_of_set(folder, verify=verify)
    except NumeraiSequenceError as error:
        raise BrokenPromise(f"{type(error).__name__}: {error}") from error
    for name, rows in known.items():
        if same_rows(found, rows):
            return name
    raise BrokenPromise(f"a set of {len(found['id'])} rows that are those of no source")


def check_tidy(folder: Path) -> None:
    """Raise a `BrokenPromise` where a folder holds more than its set, or less."""
    there = set(os.listdir(folder)) if folder.exists() else set()
    expected = set()
    if "manifest.json" in there:
        with open_shards(folder) as shards:
            expected = {"manifest.json", *(path.name for path in shards.paths)}
    if there != expected:
        raise BrokenPromise(f"left over: {sorted(there ^ expected)}")


def contents(folder: Path) -> dict[str, bytes | None]:
    """Return every file of a folder with its bytes, and every folder in it."""
    found = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*"))}
    return {name: path.read_bytes() if path.is_file() else None for name, path in found.items()}
