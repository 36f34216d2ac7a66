"""Synthetic: Parquet files shaped like Numerai's, with a weak signal that a model can learn.

Features are independent and uniform. Every target is a latent score plus much larger noise,
ranked within the era and cut into Numerai's five bins. The score is linear in a few features. All
eras and files of one seed share these features, so a model fitted on one file scores on another.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from .system.files import explained, replaced

#: Pearson correlation, within an era, of the ideal linear model's predictions with any target.
SIGNAL_CORRELATION = 0.20

_Floats = npt.NDArray[np.float32]
_NAMES, _SIGNAL, _SIZES, _ROWS, _IDS, _MODELS = range(
    1, 7
)  # first words of the seeds: streams apart
_TARGETS = (
    "agnes alpha bravo caroline charlie claudia cyrusd delta echo ender jasper jeremy ralph rowan "
    "sam teager2b tyler victor waldo xerxes"
)
_EQUAL = "target_ender_60"  # to `target`
_UNKNOWN = {"20": 4, "60": 12}  # how many of the newest eras lack a target, by its days
_BENCHMARKS, _META_MODEL = ("v53_lgbm_ender60", "v53_lgbm_cyrusd20"), "numerai_meta_model"
# By which pandas makes `id` the index.
_ID = {"name": "id", "field_name": "id", "pandas_type": "unicode", "numpy_type": "object"}
_INDEX = {"pandas": json.dumps({"index_columns": ["id"], "column_indexes": [], "columns": [_ID]})}
# Every start has three letters, so that no two words are spelled the same.
_STARTS = "bal bri cal cor dru fen gla hal jun kra lum mar nov per sil tan"
_ENDS = "aceous adactyl agram alescent ament anoid aphone ary iate ible ical ism ite itious ous ure"


def feature_names(features: int, *, seed: int = 0) -> list[str]:
    """Return sorted, distinct names like Numerai's; the same arguments give the same names.

    Raises
    ------
    ValueError
        `features` is not 1 to 100,000, or `seed` is not 0 to 2**32 - 1.
    """
    _expect(range(1, 100_001), features=features)
    _expect(range(1 << 32), seed=seed)
    words = [start + end for start in _STARTS.split() for end in _ENDS.split()]
    rng = np.random.default_rng([_NAMES, seed, features])
    drawn = rng.choice(len(words) ** 3, size=features, replace=False)
    triples = np.transpose(np.unravel_index(drawn, (len(words),) * 3))
    return sorted(f"feature_{words[a]}_{words[b]}_{words[c]}" for a, b, c in triples)


def write_parquet(
    path: str | os.PathLike[str],
    *,
    rows: int,
    features: int = 3_555,
    targets: int = 41,
    seed: int = 0,
    first_era: int = 1,
    data_type: str = "train",
    min_eras: int = 16,
    row_group_rows: int | None = None,
    progress: bool = False,
) -> Path:
    """Write a synthetic Parquet file with the columns of v5.3, and return its path.

    An existing file is replaced only when the new one is complete.

    Parameters
    ----------
    path : path-like
        File to write.
    rows, min_eras : int
        Number of rows, and least number of eras. The file has about ``rows / 4784`` eras, and
        newer eras have more rows.
    features, targets : int
        Numbers of columns. Features are int8, 0 to 4. Targets, at most 41, are float32: 0, .25,
        .5, .75 or 1. The last one is `target`. The others have the same latent score, their own
        noise, and 2% nulls. As in v5.3, `target_ender_60` is an exception: it equals `target`.
    seed, first_era : int
        Seed, and number of the first era. `seed` and `features` determine the names and the
        signal. Another `first_era` gives other rows of the same signal.
    data_type : str
        Value of the column ``data_type``.
    row_group_rows : int, optional
        Rows of each row group; None for 20,000. Memory holds a row group, an era, and 1 kB for
        each column of each row group.
    progress : bool
        Show a progress bar that counts rows (needs tqdm).

    Raises
    ------
    ValueError
        A number is out of its range.
    OutputError
        The system refuses to write the file.
    """
    group_rows = 20_000 if row_group_rows is None else row_group_rows
    _expect(range(1, 42), targets=targets)
    _expect(range(1, 1 << 32), first_era=first_era, min_eras=min_eras, row_group_rows=group_rows)
    _expect(range(min_eras, 1 << 32), rows=rows)
    schema = _schema(feature_names(features, seed=seed), targets)
    sizes = _era_sizes(rows, min_eras, np.random.default_rng([_SIZES, seed, first_era]))
    _expect(range(1, 10_000), last_era=first_era + len(sizes) - 1)
    eras = _eras(schema, sizes, features, seed, first_era, data_type)
    return _write(path, schema, _with_bar(eras, rows) if progress else eras, group_rows)


def write_version(
    folder: str | os.PathLike[str],
    *,
    rows: int = 20_000,
    features: int = 60,
    seed: int = 0,
    week: int = 0,
    min_eras: int = 60,
    progress: bool = False,
) -> Path:
    """Write all files of a synthetic data version into a folder, and return the folder.

    The files are ``train.parquet``, ``validation.parquet``, ``live.parquet``, ``features.json``,
    the ``..._benchmark_models.parquet`` of these three, and ``meta_model.parquet``, which starts
    after the first quarter of the validation. The newest 20-day targets (4 eras) and 60-day targets
    (12 eras) are null, because they are not known yet. All targets of live are null, and its era is
    "X".

    Parameters
    ----------
    folder : path-like
        Folder for the files. It is created if needed. Files of the same names are replaced.
    rows : int
        Rows of train and validation together, in week 0. Memory holds a row group and an era.
    features : int
        Number of features, at least 20. The feature sets have Numerai's names.
    seed : int
        Seed for the names, the signal and the rows.
    week : int
        Number of the week. Each week moves last week's live rows into the validation as a new era,
        fills in targets of older eras, and has new live rows. All other rows stay the same.
    min_eras : int
        Least number of eras of train and validation together. Train has three fifths of them.
    progress : bool
        Show a progress bar that counts rows (needs tqdm).

    Raises
    ------
    ValueError
        A number is out of its range.
    OutputError
        The system refuses to write a file.
    """
    _expect(range(20, 100_001), features=features)
    _expect(range(20, 1_000), min_eras=min_eras)
    _expect(range(min_eras, 1 << 32), rows=rows)
    _expect(range(1_000), week=week)
    folder = Path(folder)
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    names = feature_names(features, seed=seed)
    schema = _schema(names, 41)
    sizes = _era_sizes(rows, min_eras, np.random.default_rng([_SIZES, seed, 1]))
    first = 1 + 3 * len(sizes) // 5  # of validation
    sizes += [sizes[-1]] * (week + 1)  # the last one is live
    eras = _eras(schema, sizes, features, seed, 1, "train")
    known = _known_targets(_with_bar(eras, sum(sizes)) if progress else eras, len(sizes) - 1)
    models: dict[str, list[pa.Table]] = {"train": [], "validation": [], "live": []}

    def noted(tables: Iterable[pa.Table], part: str) -> Iterator[pa.Table]:
        for table in tables:
            models[part].append(_models(table, features, seed))
            yield table

    train = itertools.islice(known, first - 1)
    _write(folder / "train.parquet", schema, noted(train, "train"), 20_000)
    newer = (_with_column(table, "data_type", "validation") for table in known)
    validation = itertools.islice(newer, len(sizes) - first)
    _write(folder / "validation.parquet", schema, noted(validation, "validation"), 20_000)
    live = (_with_column(_with_column(t, "data_type", "live"), "era", "X") for t in known)
    _write(folder / "live.parquet", schema, noted(live, "live"), 20_000)
    _write_models(folder, models)
    _write_feature_sets(folder / "features.json", names, schema)
    return folder


def _write(
    path: str | os.PathLike[str], schema: pa.Schema, tables: Iterable[pa.Table], group_rows: int
) -> Path:
    # Measured: the dictionary makes the file 4 times smaller; then lz4 or none gains nothing.
    options: dict[str, Any] = {"compression": "snappy", "use_dictionary": True}
    with replaced(path) as temporary, pq.ParquetWriter(temporary, schema, **options) as file:
        for group in _regrouped(tables, group_rows):
            file.write_table(group, row_group_size=group_rows)
    return Path(path)


def _known_targets(tables: Iterable[pa.Table], eras: int) -> Iterator[pa.Table]:
    """Replace the targets that are not known yet with nulls."""
    for number, table in enumerate(tables):
        for name in table.column_names:
            if name.startswith("target") and number >= eras - _UNKNOWN[_days(name)]:
                table = _with_column(table, name, None)
        yield table


def _days(target: str) -> str:
    return (_EQUAL if target == "target" else target).rpartition("_")[2]


def _with_column(table: pa.Table, name: str, value: str | None) -> pa.Table:
    """Return a table with one value in all rows of a column."""
    field = table.schema.field(name)
    values = pa.repeat(pa.scalar(value, field.type), len(table))
    return table.set_column(table.column_names.index(name), field, values)


def _models(table: pa.Table, features: int, seed: int) -> pa.Table:
    """Return the ids, eras and data types of an era's rows, and other models' predictions."""
    columns, weights = _signal(features, seed)
    latent = sum(
        float(weight) * (table.column(2 + int(column)).to_numpy().astype(np.float32) - 2)
        for column, weight in zip(columns, weights, strict=True)
    )
    kept = table.select(["id", "era", "data_type"])
    rng = np.random.default_rng([_MODELS, seed, int.from_bytes(kept["id"][0].as_py().encode())])
    for name in (*_BENCHMARKS, _META_MODEL):
        scores = latent + rng.standard_normal(len(table), dtype=np.float32)
        ranks = (scores.argsort().argsort() + 0.5) / len(scores)
        kept = kept.append_column(name, pa.array(ranks.astype(np.float32)))
    return kept


def _write_models(folder: Path, models: dict[str, list[pa.Table]]) -> None:
    for part, tables in models.items():
        table = pa.concat_tables(tables).select(["era", *_BENCHMARKS, "id"])
        _write_indexed(folder / f"{part}_benchmark_models.parquet", table)
    newest = models["validation"][len(models["validation"]) // 4 :]
    table = pa.concat_tables(newest).select(["era", "data_type", _META_MODEL, "id"])
    _write_indexed(folder / "meta_model.parquet", table)


def _write_indexed(path: Path, table: pa.Table) -> None:
    with replaced(path) as temporary:
        pq.write_table(table.replace_schema_metadata(_INDEX), temporary)


def _write_feature_sets(path: Path, names: list[str], schema: pa.Schema) -> None:
    parts = {"small": 20, "medium": 4, "all": 1, "fncv3_features": 8, "serenity": 10}
    document = {
        "feature_sets": {name: names[part // 2 :: part] for name, part in parts.items()},
        "targets": [name for name in schema.names if name.startswith("target")],
    }
    with replaced(path) as temporary:
        temporary.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8", newline="\n")


def _expect(expected: range, **numbers: int) -> None:
    for name, number in numbers.items():
        if number not in expected:
            raise ValueError(f"{name}: found {number}, expected {expected[0]} to {expected[-1]}")


def _schema(names: list[str], targets: int) -> pa.Schema:
    """The Arrow schema."""
    auxiliary = [f"target_{name}_{days}" for name in _TARGETS.split() for days in (20, 60)]
    kinds = dict.fromkeys(["era", "data_type"], "string") | dict.fromkeys(names, "int8")
    kinds |= dict.fromkeys([*auxiliary[: targets - 1], "target"], "float") | {"id": "string"}
    return pa.schema(kinds, metadata=_INDEX)


def _era_sizes(rows: int, min_eras: int, rng: np.random.Generator) -> list[int]:
    """Rows of each era: growing as v5.3's, a bit ragged, at least 1, their sum exactly `rows`."""
    eras = max(min_eras, round(rows / 4_784))
    shares = np.linspace(2_300, 7_200, eras) * rng.uniform(0.97, 1.03, eras)
    ends = np.rint(np.cumsum(shares) / shares.sum() * (rows - eras)).astype(np.int64)
    return [int(size) + 1 for size in np.diff(ends, prepend=0)]


def _eras(
    schema: pa.Schema, sizes: list[int], features: int, seed: int, first_era: int, data_type: str
) -> Iterator[pa.Table]:
    """Yield one table for each era."""
    columns, weights = _signal(features, seed)
    rng = np.random.default_rng([_ROWS, seed, first_era])
    for era, rows in enumerate(sizes, first_era):
        # A row of x is a column of the file, contiguous, so that Arrow takes it without a copy.
        x = rng.integers(0, 5, size=(features, rows), dtype=np.int8)
        y = _targets(weights @ (x[columns] - 2), len(schema) - features - 3, rng)
        if _EQUAL in schema.names:
            y[schema.names.index(_EQUAL) - features - 2] = y[-1]
        arrays = [pa.repeat(f"{era:04d}", rows), pa.repeat(data_type, rows), *map(pa.array, x)]
        # from_pandas makes NaN null, which is how pandas, and so Numerai, writes it.
        arrays += [*(pa.array(target, from_pandas=True) for target in y), _ids(era, rows, seed)]
        yield pa.Table.from_arrays(arrays, schema=schema)


def _signal(features: int, seed: int) -> tuple[npt.NDArray[np.int64], _Floats]:
    """Return the 5% of features with a signal, and weights whose weighted sum has variance 1."""
    rng = np.random.default_rng([_SIGNAL, seed, features])
    count = min(features, max(3, min(60, round(0.05 * features))))
    columns = rng.choice(features, size=count, replace=False)
    weights = rng.standard_normal(count).astype(np.float32)
    return columns, weights / np.sqrt(2 * np.square(weights).sum())  # uniform 0..4: variance 2


def _targets(latent: _Floats, targets: int, rng: np.random.Generator) -> _Floats:
    """Return the bins of the ranked latent score plus noise: float32, shape (targets, rows)."""
    strength = SIGNAL_CORRELATION / 0.9412  # of which a normal's cut into these bins keeps .9412
    noise = rng.standard_normal((targets, len(latent)), dtype=np.float32)
    scores = strength * latent + float(np.sqrt(1 - strength**2)) * noise
    bins = np.searchsorted([0.05, 0.25, 0.75, 0.95], (np.arange(len(latent)) + 0.5) / len(latent))
    y = np.empty_like(scores)
    np.put_along_axis(y, scores.argsort(axis=1), bins[np.newaxis] * np.float32(0.25), axis=1)
    y[:-1][rng.random(y[:-1].shape) < 0.02] = np.nan
    return y


def _ids(era: int, rows: int, seed: int) -> pa.Array:
    """Return ids, the letter n and 15 hex digits, which differ for all eras and rows."""
    key = np.random.default_rng([_IDS, seed]).integers(1 << 60, dtype=np.uint64)
    # An odd factor is one to one in the low 60 bits, and this one scatters (Knuth, TAOCP 3, 6.4).
    number = np.arange(rows, dtype=np.uint64) + np.uint64(era << 32)
    mixed = number * np.uint64(0x9E3779B97F4A7C15) + key
    digits = mixed.astype(">u8").tobytes().hex()
    return pa.array(["n" + digits[at + 1 : at + 16] for at in range(0, 16 * rows, 16)])


def _regrouped(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """Yield the same rows in tables of `rows` each; the last may have fewer."""
    held: list[pa.Table] = []
    for table in tables:
        held.append(table)
        if sum(map(len, held)) >= rows:
            whole = pa.concat_tables(held)
            full = len(whole) - len(whole) % rows
            yield from (whole.slice(at, rows) for at in range(0, full, rows))
            held = [whole.slice(full)] if full < len(whole) else []
    if held:
        yield pa.concat_tables(held)


def _with_bar(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    from tqdm import tqdm

    with tqdm(total=rows, unit="row", unit_scale=True) as bar:
        for table in tables:
            yield table
            bar.update(table.num_rows)
