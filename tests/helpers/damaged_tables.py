"""Damage: one thing that is wrong with a table or its file, and what is to be said of it."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import assume
from hypothesis import strategies as st
from user_tables import FLOATS, INTEGERS, number_of, texts

from numerai_sequence import FeatureError, SourceError


@dataclass(frozen=True)
class Damage:
    """What is brought instead, and how it is refused.

    `options` are what has to be asked for, and `stands_alone` says that a second source would make
    another thing of it.
    """

    table: pa.Table = field(repr=False)
    column: str | None = None
    row: int | None = None
    kind: type = SourceError
    names: Any = None
    options: dict = field(default_factory=dict)
    stands_alone: bool = False


def put(table, name, column):
    return table.set_column(table.column_names.index(name), name, column)


def with_value(table, name, row, value, kind=None):
    """The table with another value in one place, and the column of this type."""
    values = table[name].cast(pa.string()) if kind is None else table[name].cast(kind, safe=False)
    values = values.to_pylist()
    values[row] = value
    return put(table, name, pa.array(values, kind or pa.string()))


def _row(draw, brought):
    return draw(st.integers(0, brought.rows - 1))


def a_null(draw, brought):
    name, row = draw(st.sampled_from([brought.shape.id, "era"])), _row(draw, brought)
    return Damage(with_value(brought.table, name, row, None), name, row)


def bytes_that_are_no_text(draw, brought):
    names = [brought.shape.id, "era", "data_type"]
    name = draw(st.sampled_from([name for name in names if name in brought.table.column_names]))
    row = _row(draw, brought)
    values = brought.table[name].cast(pa.string()).cast(pa.binary()).to_pylist()
    values[row] = draw(st.sampled_from([b"\xff", b"0001\xc3", b"\xed\xa0\x80", b"\xc0\x80"]))
    column = pa.array(values, pa.binary())
    column = pa.Array.from_buffers(pa.string(), len(column), column.buffers())
    return Damage(put(brought.table, name, column), name, row)


def a_value_that_is_none_of_the_five(draw, brought):
    name, row = draw(st.sampled_from(brought.shape.features)), _row(draw, brought)
    digits = brought.digits[:, brought.shape.features.index(name)]
    is_scaled = pa.types.is_floating(brought.table.schema.field(name).type)
    kind = draw(st.sampled_from(FLOATS if is_scaled else INTEGERS))
    values = (digits / 4 if kind in FLOATS else digits).astype(kind).tolist()
    if kind in FLOATS:
        wrong = [np.nan, np.inf, -np.inf, 0.3, 1.25, 5.0, -0.25, np.nextafter(0.25, 1)]
        wrong = [value for value in wrong if np.dtype(kind).type(value) != 0.25]
    else:
        limits = np.iinfo(kind)
        wrong = [5, limits.max, *([] if limits.min == 0 else [-1, limits.min])]
        wrong += [256, 260] if limits.max > 260 else []
    values[row] = draw(st.sampled_from([None, *wrong]))
    column = pa.array([value if value is None else np.dtype(kind).type(value) for value in values])
    column = pa.array(column, pa.type_for_alias(kind)) if column.null_count else column
    return Damage(put(brought.table, name, column), name, row)


def a_number_beyond_float32(draw, brought):
    name, row = draw(st.sampled_from(brought.shape.targets)), _row(draw, brought)
    value = draw(st.sampled_from([np.inf, -np.inf, 1e39, -1e300, 3.4028236e38]))
    return Damage(with_value(brought.table, name, row, value, pa.float64()), name, row)


def a_missing_column(draw, brought):
    name = draw(st.sampled_from([brought.shape.id, "era"]))
    column = "era" if name == "era" else "id"
    return Damage(brought.table.drop_columns([name]), column)


def another_index(draw, brought):
    """A pandas index that holds no ids."""
    table = brought.table.drop_columns([brought.shape.id])
    level = pa.array(["a"] * brought.rows)
    for name in ("level 1", "level 2"):
        table = table.append_column(name, level) if name not in table.column_names else table
    a_range = {"kind": "range", "name": None, "start": 0, "stop": brought.rows, "step": 1}
    kinds = [["level 1", "level 2"], ["era"], ["data_type"], [a_range], [], ["nowhere"], {}, "id"]
    told = [json.dumps({"index_columns": kind}) for kind in kinds]
    text = draw(st.sampled_from([*told, "", "{", "[" * 100_000]))
    return Damage(table.replace_schema_metadata({"pandas": text}), "id")


def another_type(draw, brought):
    shape = brought.shape
    names = [shape.id, "era", "data_type", *shape.features, *shape.targets]
    name = draw(st.sampled_from([name for name in names if name in brought.table.column_names]))
    is_text = name in (shape.id, "era", "data_type")
    others = [pa.array([value] * brought.rows) for value in (True, b"1", [1], {"x": 1})]
    others.append(pa.array([1] * brought.rows, pa.decimal128(5, 2)))
    others.append(pa.array([1] * brought.rows, pa.timestamp("us")))
    value = pa.array([1 if is_text else "1"] * brought.rows)
    others += [value, value.dictionary_encode()]
    return Damage(put(brought.table, name, draw(st.sampled_from(others))), name)


def a_column_twice(draw, brought):
    name = draw(st.sampled_from(brought.table.column_names))
    return Damage(brought.table.append_column(name, brought.table[name]), name)


def no_rows(draw, brought):
    return Damage(brought.table[:0], stands_alone=True)


def no_features(draw, brought):
    table = brought.table.drop_columns(list(brought.shape.features))
    return Damage(table, stands_alone=True)


def a_name_that_is_not_there(draw, brought):
    option = draw(st.sampled_from(["features", "targets"]))
    known = getattr(brought.shape, option)
    taken = {*known, *(brought.table.column_names if option == "targets" else ())}
    others = (
        st.sampled_from(["era", "id", "", *brought.shape.targets])
        if option == "features"
        else texts
    )
    unknown = draw(others.filter(lambda name: name not in taken))
    options = {option: [*known, unknown]}
    return Damage(brought.table, kind=FeatureError, names=[unknown], options=options)


def a_row_twice(draw, brought):
    rows = list(zip(brought.eras, range(brought.rows), strict=True))
    pairs = [(a, b) for era, a in rows for other, b in rows[a + 1 :] if era == other]
    assume(pairs)
    first, second = draw(st.sampled_from(pairs))
    name = brought.shape.id
    return Damage(with_value(brought.table, name, second, brought.ids[first]), name, second)


def an_era_in_two_spellings(draw, brought):
    counts = Counter(brought.eras)
    rows = [
        row
        for row, era in enumerate(brought.eras)
        if counts[era] > 1 and number_of(era) is not None
    ]
    assume(rows)
    row = draw(st.sampled_from(rows))
    number = number_of(brought.eras[row])
    others = {f"{number}", f"{number:07d}", f"era{number}", f"era{number:06d}"}
    others |= {f"{number}.0", f"Era {number}", f"+{number}", f" {number}"}
    other = draw(st.sampled_from(sorted(others - {brought.eras[row]})))
    return Damage(with_value(brought.table, "era", row, other), "era")


@st.composite
def damages(draw, brought):
    """Damage of any kind that there can be to a table."""
    kinds = [
        *[a_value_that_is_none_of_the_five] * 4,  # there are many
        *(a_null, bytes_that_are_no_text, a_missing_column),
        *(another_index, another_type, a_column_twice, no_rows, no_features),
        *(a_name_that_is_not_there, a_row_twice, an_era_in_two_spellings),
        *([a_number_beyond_float32] if brought.shape.targets else []),
    ]
    return draw(st.sampled_from(kinds))(draw, brought)


def cut_off(draw, path):
    os.truncate(path, draw(st.integers(0, path.stat().st_size - 1)))


def removed(draw, path):
    path.unlink()


def a_table_of_text(draw, path):
    path.write_text(draw(st.sampled_from(["id,era,feature_1\nn1,0001,0.5\n", "\n", "PAR1", "[]"])))


damages_of_files = st.sampled_from([cut_off, removed, a_table_of_text])
