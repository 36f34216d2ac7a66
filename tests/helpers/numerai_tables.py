"""Tables: small Numerai-shaped Parquet files whose rows say which row they are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

DIGITS = 9  # features that hold the row's number in base 5
_PRODUCTS = (np.outer(np.arange(11), np.arange(11)) % 11 % 5).astype(np.int8)


def row_digits(rows, features):
    """The features of some rows: their number's digits, then values that depend on the row."""
    digits = np.stack([rows // 5**power % 5 for power in range(DIGITS)]).astype(np.int8)
    rest = _PRODUCTS[:, rows % 11][(np.arange(DIGITS, features) + 7) % 11]
    return np.concatenate([digits, rest]).T  # of which a column is contiguous


def row_numbers(x):
    """The inverse: from a batch scaled to 0..1, or raw int8."""
    x = np.asarray(x)
    scale = 1 if x.dtype == np.int8 else 4
    return (x[:, :DIGITS].astype(np.float64) * scale @ 5 ** np.arange(DIGITS)).astype(int)


def ragged_eras(rows, eras, start=1):
    """An ascending era number for each row; the eras' sizes differ."""
    weights = 1 + np.arange(eras) * 7 % 5
    bounds = np.cumsum(weights) / weights.sum() * rows
    return start + np.searchsorted(bounds, np.arange(rows), side="right").clip(0, eras - 1)


def numerai_table(
    rows=1037,
    *,
    features=14,
    eras=23,
    era_names="{:04d}",
    first_row=0,
    values="int8",
    targets=("target", "target_b"),
    data_type="train",
    id_is="index",
    missing_target=False,
):
    """A table like Numerai's; feature j of row i is `row_digits`, target i is the row number."""
    numbers = np.arange(first_row, first_row + rows)
    digits = row_digits(numbers, features)
    era_numbers = ragged_eras(rows, eras) if isinstance(eras, int) else np.asarray(eras)
    columns = {
        "era": pa.array([era_names.format(era) for era in era_numbers]),
        "data_type": pa.array([data_type] * rows),
    }
    for feature in range(features):
        columns[f"feature_{feature:03d}"] = feature_column(digits[:, feature], values)
    for place, target in enumerate(targets):
        values_of = (numbers + place * 0.5).astype(np.float32)
        columns[target] = pa.array(values_of, mask=numbers % 7 == 3 if missing_target else None)
    ids = pa.array([f"n{number:015x}" for number in numbers])
    if id_is == "column":
        return pa.table({"id": ids, **columns})
    name = "id" if id_is == "index" else "__index_level_0__"
    table = pa.table({**columns, name: ids})
    return table.replace_schema_metadata({"pandas": json.dumps({"index_columns": [name]})})


def feature_column(digits, values):
    """One feature as v5 (int8), v4.1 (nullable Int8) or v3 (float32 and 64) wrote it."""
    if values == "Int8":
        return pa.array(digits, pa.int8(), mask=np.zeros(len(digits), bool))
    if values in ("float32", "float64", "float16"):
        return pa.array((digits / 4).astype(values))
    return pa.array(digits.astype(values))


def write_features_json(path: Path, **feature_sets):
    """Write what Numerai gives out beside its Parquet files; return the path."""
    path.write_text(json.dumps({"feature_sets": feature_sets, "targets": ["target"]}))
    return path


def write_source(path: Path, *, row_group_rows=None, **options):
    """Write `numerai_table` as Parquet; return the path."""
    pq.write_table(numerai_table(**options), path, row_group_size=row_group_rows)
    return path
