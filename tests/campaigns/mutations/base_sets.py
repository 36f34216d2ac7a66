"""Bases: small real shard sets, in memory too, that mutants are derived from."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from numerai_sequence import write_shards

MANIFEST = "manifest.json"
SCRIPTS = ("n{:06x}", "строка{}", "番号{}", "ряд-{}-ß", "🐍{}", "स{}", "")


@dataclass
class Base:
    """A shard set as it was written: its folder, its shard files' bytes, and its manifest.

    `other` holds the shard files of a set with the same schema and other rows.
    """

    folder: Path
    files: dict[str, bytes]
    text: str
    other: dict[str, bytes]


def table(
    rows: int, first: int, *, features: int, eras: list[str], targets: int, data_type: str | None
) -> pa.Table:
    """Return rows of a few eras, with ids in several scripts and targets that are missing."""
    rng = np.random.default_rng([rows, first])
    ids = [SCRIPTS[i % len(SCRIPTS)].format(i) or f"{i}" for i in range(first, first + rows)]
    columns = {
        "id": ids,
        "era": [eras[i * len(eras) // rows] for i in range(rows)],
        "data_type": [None if data_type is None and i % 3 else "train" for i in range(rows)],
    }
    for number in range(features):
        columns[f"feature_{number}"] = rng.integers(0, 5, rows).astype(np.int8)
    for number in range(targets):
        values = rng.random(rows).astype(np.float32)
        columns[f"target_{number}"] = np.where(rng.random(rows) < 0.2 * number, np.nan, values)
    if data_type is not None:
        columns["data_type"] = [data_type] * rows
    return pa.table(columns)


def write_base(folder: Path, tables: list[pa.Table], **options: object) -> Path:
    """Write a set of some tables, with feature sets; return its folder."""
    folder.mkdir()
    names = [name for name in tables[0].column_names if name.startswith("feature")]
    sets = {"small": names[::3], "all": names, "other": [*names[:2], "feature_elsewhere"]}
    (folder / "features.json").write_text(json.dumps({"feature_sets": sets}))
    sources = []
    for number, rows in enumerate(tables):
        sources.append(folder / f"{number}.parquet")
        pq.write_table(rows, sources[-1])
    write_shards(sources, folder / "set", progress=False, **options).close()
    return folder / "set"


def read_base(folder: Path, other: Path) -> Base:
    return Base(folder, read_files(folder), (folder / MANIFEST).read_text(), read_files(other))


def read_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.arrow"))}


def make_bases(folder: Path) -> list[Base]:
    """Write the sets; the same each time."""
    return [_history(folder), _legacy(folder), _scripts(folder), _unnamed(folder)]


def _history(folder: Path) -> Base:
    """Train and validation, packed, two eras mixed, four targets."""
    folders = []
    for name, first in (("history", 0), ("history-other", 1000)):
        kinds = {"features": 40, "targets": 4}
        early = [f"{era:04}" for era in range(1, 13)]
        late = [f"{era:04}" for era in range(13, 19)]
        tables = [
            table(220, first, eras=early, data_type="train", **kinds),
            table(90, first + 500, eras=late, data_type="validation", **kinds),
        ]
        folders.append(write_base(folder / name, tables, num_shards=3, mix_eras=2))
    return read_base(*folders)


def _legacy(folder: Path) -> Base:
    """One byte a feature, eras apart, named as in the first years."""
    eras = [f"era{era}" for era in range(1, 8)]
    kinds = {"features": 7, "eras": eras, "targets": 1, "data_type": "train"}
    return _pair(folder, "legacy", 105, kinds, num_shards=2, mix_eras=1, encoding="int8")


def _scripts(folder: Path) -> Base:
    """Eras in several scripts, all in one shard but for those with a number; data types missing."""
    eras = ["0001", "0002", "0003", "0004", "X", "эра", "時代", "🕰", "युग"]
    kinds = {"features": 11, "eras": eras, "targets": 2, "data_type": None}
    return _pair(folder, "scripts", 390, kinds, num_shards=5, mix_eras=3)


def _unnamed(folder: Path) -> Base:
    """Without targets, all eras of a shard mixed."""
    eras = [f"{era:04}" for era in range(1, 25)]
    kinds = {"features": 50, "eras": eras, "targets": 0, "data_type": "live"}
    return _pair(folder, "unnamed", 240, kinds, num_shards=4, encoding="int8")


def _pair(folder: Path, name: str, rows: int, kinds: dict[str, Any], **options: Any) -> Base:
    """Return a base of one table of rows, and of another set with other rows of the same kind."""
    names = ((name, 0), (f"{name}-other", 1000))
    return read_base(
        *(write_base(folder / of, [table(rows, first, **kinds)], **options) for of, first in names)
    )
