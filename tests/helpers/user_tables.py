"""User tables: Parquet as a user may bring it, drawn by hypothesis, and what is in it."""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import pairwise

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import HealthCheck, Phase, configuration, settings
from hypothesis import strategies as st

# It keeps tables of characters in a folder, which shall not be the checkout.
_HOME = tempfile.TemporaryDirectory(prefix="hypothesis-")
configuration.set_hypothesis_home_dir(_HOME.name)

#: How many examples, and, where that is given, as many at random: see tests/campaigns/inputs.py.
EXAMPLES = os.environ.get("NUMERAI_SEQUENCE_EXAMPLES")
OUTCOMES = os.environ.get("NUMERAI_SEQUENCE_OUTCOMES")

INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
FLOATS = ("float16", "float32", "float64")
STRING_TYPES = [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())]
if hasattr(pa, "string_view"):
    STRING_TYPES.append(pa.string_view())
CODECS = ["none", *filter(pa.Codec.is_available, ["snappy", "gzip", "zstd", "lz4", "brotli"])]

META = ("id", "era", "data_type")
ODD_TEXTS = [
    *("", " ", "\n", "\0", "a", "a\0", ".", "a.b", "s", "'", '"', "/", "\\", "é", "e\u0301"),
    *(
        "\u202eabc",
        "שלום",
        "مرحبا",
        "数据",
        "👩‍👩‍👧",
        "\ufeff",
        "null",
        "nan",
        "x" * 3000,
        "{",
        "%s",
    ),
]
ODD_ERAS = [
    *("0001", "1", "era1", "era0001", "X", "eraX", "-1", "+1", "1.5", " 0001", "0001\n", "٣", "²"),
    *("0", "0000", "99999999999999999999", "9" * 5000, "0" * 200 + "1", "era", "1_0", "0001-0574"),
]
texts = st.sampled_from(ODD_TEXTS) | st.text(max_size=6)
era_names = st.integers(0, 1300).map("{:04d}".format) | st.sampled_from(ODD_ERAS) | texts


def examples(count):
    """How the properties are tried: so many times, or as often as the environment says."""
    return settings(
        max_examples=int(EXAMPLES or count),
        derandomize=EXAMPLES is None,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )


def count_outcome(outcome):
    """Write down how an example ended, where a campaign wants to know."""
    if OUTCOMES:
        with open(OUTCOMES, "a") as file:
            file.write(f"{outcome}\n")


@dataclass(frozen=True)
class Shape:
    """Which columns a table has, besides the era; `index` are the pandas indexes that it names."""

    features: tuple[str, ...]
    targets: tuple[str, ...]
    weights: tuple[str, ...]
    id: str
    index: tuple[str, ...]


@dataclass(frozen=True)
class Brought:
    """A table, and the rows that it was made from."""

    shape: Shape
    table: pa.Table = field(repr=False)
    ids: list[str]
    eras: list[str]
    data_types: list[str | None]
    digits: np.ndarray = field(repr=False)  # int8 (rows, features)
    numbers: dict[str, np.ndarray] = field(repr=False)  # float32 (rows,) a target and weight

    @property
    def rows(self):
        return len(self.ids)

    def rows_with(self, features, targets):
        """The rows as a multiset: what they are known by, and the chosen columns' values."""
        places = [self.shape.features.index(name) for name in features]
        numbers = columns(self.rows, [self.numbers[name] for name in targets])
        return multiset(self.ids, self.eras, self.data_types, numbers, self.digits[:, places])


def columns(rows, arrays):
    """Some float32 columns as one array, shape (rows, columns)."""
    return np.array(arrays, np.float32).T.reshape(rows, len(arrays))


def multiset(*parts):
    """How often each row is there; of arrays, a row is its bytes, and all NaNs are one."""
    keys = [_row_bytes(part) if isinstance(part, np.ndarray) else part for part in parts]
    return Counter(zip(*keys, strict=True))


def _row_bytes(rows):
    if rows.dtype.kind == "f":
        rows = np.where(np.isnan(rows), rows.dtype.type("nan"), rows)
    return [row.tobytes() for row in np.ascontiguousarray(rows)]


def number_of(era):
    """The number of an era; None where it has none."""
    digits = era.removeprefix("era")
    is_number = digits.isascii() and digits.isdigit() and len(digits) <= 100
    return int(digits) if is_number else None


def spelled_number(era):
    """The number that an era spells in any way, as 1.0, Era 1 or +1; None where it has none."""
    text = era.strip()
    if text[:3].lower() == "era":
        text = text[3:]
        while text and (text[0].isspace() or text[0] in "_-"):
            text = text[1:]
    whole, _, rest = text.removeprefix("+").partition(".")
    is_number = whole.isdecimal() and len(whole) <= 100 and not rest.strip("0")
    return int(whole) if is_number else None


def in_time(eras):
    """The eras that there are, by number; those that have none come last."""
    numbers = {era: number_of(era) for era in eras}
    return sorted(numbers, key=lambda era: (numbers[era] is None, numbers[era] or 0, era))


def fault_of_rows(*brought):
    """Why tables cannot be one set: "era" for one number in two spellings, "id" for a row twice."""
    eras = {era for one in brought for era in one.eras}
    numbers = [number for number in map(spelled_number, eras) if number is not None]
    if len(set(numbers)) < len(numbers):
        return "era"
    rows = [row for one in brought for row in zip(one.eras, one.ids, strict=True)]
    return "id" if len(set(rows)) < len(rows) else None


def _names(prefix, least, most):
    names = st.lists(texts, min_size=least, max_size=most, unique=True)
    return names.map(lambda names: tuple(prefix + name for name in names))


@st.composite
def shapes(draw, most_features=9):
    """Any names of columns, and any way to hold the ids."""
    features = draw(_names("feature", 1, most_features))
    targets = draw(_names("target", 0, 3))
    is_free = st.just("weight") | texts.filter(lambda name: name not in META)
    weights = draw(st.lists(is_free, max_size=2, unique=True))
    name, index = draw(
        st.sampled_from(
            [
                ("id", ()),
                ("id", ("id",)),
                ("id", ("era", "id")),
                ("__index_level_0__", ("__index_level_0__",)),
                ("feature of rows", ("feature of rows",)),
                ("target_row", ("target_row",)),
                ("", ("",)),
            ]
        )
    )
    taken = {*features, *targets, name}
    weights = tuple(name for name in weights if name not in taken and _is_plain(name))
    features = tuple(feature for feature in features if feature != name)
    targets = tuple(target for target in targets if target != name)
    return Shape(features or ("feature",), targets, weights, name, index)


def _is_plain(name):
    return not name.startswith(("feature", "target"))


@st.composite
def tables(draw, shape, *, least_rows=1):
    """A table of this shape, with any ids, eras, values and types that are read."""
    names = draw(st.lists(era_names, min_size=least_rows, max_size=6, unique_by=_known_by))
    scale = draw(st.sampled_from([1, 1, 1, 1, 30]))
    sizes = [scale * draw(st.integers(1, 9)) for _ in names]
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    eras = np.repeat(np.arange(len(names)), sizes)
    if draw(st.booleans()):
        rng.shuffle(eras)
    eras = [names[place] for place in eras]
    rows = len(eras)
    ids = draw(_ids(eras, rng))
    data_types = draw(_data_types(rows, rng))
    made = {
        shape.id: draw(_text_column(ids)),
        "era": draw(_text_column(eras)),
        **({} if data_types is None else {"data_type": draw(_text_column(data_types))}),
    }
    digits = rng.integers(0, 5, (rows, len(shape.features))).astype(np.int8)
    kinds = draw(st.sampled_from([INTEGERS, FLOATS]))  # a file has one scale
    for name, values in zip(shape.features, digits.T, strict=True):
        made[name] = feature_column(values, draw(st.sampled_from(kinds)), rng)
    numbers = {}
    for name in (*shape.targets, *shape.weights):
        kind = draw(st.sampled_from(FLOATS + INTEGERS))
        absent = draw(st.sampled_from([0, 0, 0.2, 1]))
        made[name], numbers[name] = number_column(rows, kind, absent, rng)
    if draw(st.booleans()):
        made |= {name: column for name, column in _others(rows).items() if name not in made}
    order = list(made)
    if draw(st.booleans()):
        rng.shuffle(order)
    table = pa.table({name: made[name] for name in order})
    if shape.index:
        metadata = {"pandas": json.dumps({"index_columns": shape.index})}
        table = table.replace_schema_metadata(metadata)
    return Brought(shape, table, ids, eras, data_types or [None] * rows, digits, numbers)


def _known_by(era):
    number = spelled_number(era)
    return era if number is None else number


@st.composite
def _ids(draw, eras, rng):
    """Each id once, or once in each era."""
    rows = len(eras)
    kind = draw(st.sampled_from(["numbers", "texts", "shared"]))
    if kind == "numbers":
        return [f"n{number:015x}" for number in rng.permutation(rows)]
    some = draw(st.lists(texts, min_size=1, max_size=5, unique=True))
    if kind == "texts":
        return _once([some[place] for place in rng.integers(0, len(some), rows)])
    return _once_in_each([some[place] for place in rng.integers(0, len(some), rows)], eras)


def _once(names):
    """The names, of which those that were there before get a number."""
    return _once_in_each(names, [""] * len(names))


def _once_in_each(names, eras):
    taken, made = set(), []
    for row, (name, era) in enumerate(zip(names, eras, strict=True)):
        made.append(name if (name, era) not in taken else f"{name}{row}")
        while (made[-1], era) in taken:
            made[-1] += "'"
        taken.add((made[-1], era))
    return made


@st.composite
def _data_types(draw, rows, rng):
    """The data types; None where there are none, and in between."""
    some = draw(st.none() | st.lists(st.none() | texts, min_size=1, max_size=3))
    return some and [some[place] for place in rng.integers(0, len(some), rows)]


@st.composite
def _text_column(draw, values):
    if set(values) == {None} and draw(st.booleans()):
        return pa.nulls(len(values))
    kind = draw(st.sampled_from(STRING_TYPES))
    if not pa.types.is_dictionary(kind):
        return pa.array(values, pa.string()).cast(kind)
    known = list(dict.fromkeys(value for value in values if value is not None))
    place_of = {value: place for place, value in enumerate(known)}
    indices = pa.array([place_of.get(value) for value in values], pa.int32())
    return pa.DictionaryArray.from_arrays(indices, pa.array([*known, "of no row"]))


def feature_column(digits, kind, rng):
    """Digits as a column of this type; some zeros of floats are negative."""
    if kind in INTEGERS:
        return pa.array(digits.astype(kind))
    zeros = np.where(rng.random(len(digits)) < 0.5, 0.0, -0.0)
    return pa.array(np.where(digits == 0, zeros, digits / 4).astype(kind))


def number_column(rows, kind, absent, rng):
    """Any numbers of this type, and what they are as float32; so large a share is missing."""
    if kind in INTEGERS:
        limits = np.iinfo(kind)
        values = rng.integers(limits.min, limits.max, rows, kind, endpoint=True)
    else:
        size = np.zeros(rows) if kind == "float16" else rng.integers(-46, 38, rows)
        values = (rng.uniform(-1, 1, rows) * 10.0**size).astype(kind)
    is_null, is_nan = rng.random((2, rows)) < absent / 2
    is_null |= absent == 1
    if kind in FLOATS:
        values[is_nan] = np.nan
    expected = values.astype(np.float32)
    expected[is_null] = np.nan
    if absent == 1 and kind == "float64":  # as pandas writes a column of objects, all None
        return pa.nulls(rows), expected
    return pa.array(values, mask=is_null if absent else None), expected


def _others(rows):
    """Columns of no use, whose names and types may mislead."""
    return {
        "s": pa.array([{"era": "no", "feature": 9, "x": 1}] * rows),
        "era.x": pa.array([["no"]] * rows, pa.list_(pa.string())),
        "Feature": pa.array([Decimal("1.5")] * rows, pa.decimal128(5, 2)),
        "eras": pa.array([None] * rows, pa.timestamp("us")),
    }


@st.composite
def layouts(draw, rows, has_index):
    """Where row groups begin, and how pages are written."""
    cuts = draw(st.lists(st.integers(0, rows), max_size=5)) if rows else []
    options = {
        "compression": draw(st.sampled_from(CODECS)),
        "use_dictionary": draw(st.booleans()),
        "write_statistics": draw(st.booleans()),
        "version": draw(st.sampled_from(["1.0", "2.4", "2.6"])),
        "data_page_version": draw(st.sampled_from(["1.0", "2.0"])),
        "data_page_size": draw(st.sampled_from([1, 100, None])),
        "store_schema": has_index or draw(st.booleans()),  # what pandas says is with it
    }
    return [0, *sorted(cuts), rows], options


@st.composite
def writings(draw, brought, *, by_pandas=True):
    """A function that writes the table to a path, as pyarrow or pandas does."""
    is_index = brought.shape.index == (brought.shape.id,)
    if by_pandas and is_index and draw(st.booleans()):
        return lambda path: _save_frame(brought, path)
    has_index = brought.shape.id in brought.shape.index
    cuts, options = draw(layouts(brought.table.num_rows, has_index))
    return lambda path: save(brought.table, path, cuts, **options)


def save(table, path, cuts=None, **options):
    """Write a table, a row group between each two cuts; return the path."""
    cuts = cuts or [0, table.num_rows]
    with pq.ParquetWriter(path, table.schema, **options) as writer:
        for start, stop in pairwise(cuts):
            writer.write_table(table[start:stop])
    return path


def _save_frame(brought, path):
    shape, table = brought.shape, brought.table.replace_schema_metadata(None)
    known = {shape.id, *META, *shape.features, *shape.targets, *shape.weights}
    table = table.select([name for name in table.column_names if name in known])
    integers = {pa.type_for_alias(kind): _nullable(kind) for kind in INTEGERS}
    frame = table.to_pandas(types_mapper=integers.get).set_index(shape.id)
    if brought.shape.id.startswith("__"):
        frame.index.name = None
    frame.to_parquet(path)
    return path


def _nullable(kind):
    return pd.api.types.pandas_dtype(kind.replace("uint", "UInt").replace("int", "Int"))
