"""Ipc: values are where Arrow finds them, and whatever a file says, nothing outside of it is."""

from __future__ import annotations

import struct

import numpy as np
import pyarrow as pa
import pytest

from numerai_sequence.format.arrow_file import find_values
from numerai_sequence.format.layout import shard_schema

FEATURES = tuple(f"feature_{number:03d}" for number in range(14))
TARGETS = ("target", "target_b")
SCHEMA = shard_schema("packed", FEATURES, TARGETS)
WIDTH = 5
ROWS = [7, 3, 11]


def record_batch(rows, schema=SCHEMA):
    """Rows that have no data type where their number is 2."""
    texts = [[f"{name}{row}" for row in range(rows)] for name in ("n", "era")]
    types = [None if row == 2 else "train" for row in range(rows)]
    columns = [pa.array(column, pa.string()) for column in (*texts, types)]
    columns += [pa.array(np.arange(rows, dtype=np.float32)) for _ in TARGETS]
    values = pa.array(np.arange(rows * WIDTH).astype(np.uint8))
    lists = pa.FixedSizeListArray.from_arrays(values, WIDTH)
    columns.append(pa.ExtensionArray.from_storage(SCHEMA.field("features").type, lists))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def file_of(batches, schema=SCHEMA, *, metadata=None, custom=None, **options):
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(**options)
    with pa.ipc.new_file(sink, schema, options=options, metadata=metadata) as writer:
        for batch in batches:
            writer.write_batch(batch, custom_metadata=custom)
    return sink.getvalue().to_pybytes()


WHOLE = file_of(map(record_batch, ROWS))


def found(content, schema=SCHEMA, rows=ROWS):
    values = find_values(lambda start, stop: content[start:stop], len(content), schema, rows)
    return {name: places.tolist() for name, places in values.items()}


def messages(content):
    """Where the messages of a whole file are: offset, bytes of the header, bytes of the body."""
    file = pa.BufferReader(content)
    file.seek(8)
    places = []
    while struct.unpack_from("<I", content, file.tell() + 4)[0]:
        offset = file.tell()
        header = 8 + struct.unpack_from("<I", content, offset + 4)[0]
        pa.ipc.read_message(file)
        places.append((offset, header, file.tell() - offset - header))
    return places[1:]


def footer_start(content):
    return len(content) - 10 - struct.unpack_from("<i", content, len(content) - 10)[0]


def put(content, place, kind, *values):
    changed = bytearray(content)
    struct.pack_into(kind, changed, place, *values)
    return bytes(changed)


def block_place(content, number):
    """Where the footer says where a record batch is."""
    block = struct.pack("<qi4xq", *messages(content)[number])
    return content.index(block, footer_start(content))


def buffer_place(content, number, buffer):
    """Where the header of a record batch says where a buffer is."""
    offset, header, _ = messages(content)[number]
    sizes = sized_buffers(content, number)
    start = content.index(struct.pack("<4q", 0, 0, 0, sizes[1]), offset, offset + header)
    return start + 16 * buffer


def sized_buffers(content, number):
    batch = pa.ipc.open_file(pa.py_buffer(content)).get_batch(number)
    storage = [getattr(column, "storage", column) for column in batch.columns]
    return [buffer.size if buffer else 0 for column in storage for buffer in column.buffers()]


@pytest.mark.parametrize("encoding", ["packed", "int8"])
def test_values_are_where_arrow_finds_them(encoding):
    if encoding == "packed":
        content, schema = WHOLE, SCHEMA
    else:
        schema = shard_schema("int8", FEATURES[:WIDTH], TARGETS)
        kind = schema.field("features").type
        batches = [
            pa.RecordBatch.from_arrays(
                [
                    *record_batch(rows).columns[:-1],
                    pa.ExtensionArray.from_storage(
                        kind,
                        record_batch(rows)["features"].storage.cast(kind.storage_type),
                    ),
                ],
                schema=schema,
            )
            for rows in ROWS
        ]
        content = file_of(batches, schema)
    buffer = pa.py_buffer(content)
    reader = pa.ipc.open_file(buffer)
    expected = {name: [] for name in (*TARGETS, "features")}
    for number in range(reader.num_record_batches):
        batch = reader.get_batch(number)
        for name in TARGETS:
            expected[name].append(batch[name].buffers()[1].address - buffer.address)
        values = batch["features"].storage.values
        expected["features"].append(values.buffers()[1].address - buffer.address)
    assert found(content, schema) == expected


def test_file_without_record_batches_has_no_values():
    assert found(file_of([]), rows=[]) == {"target": [], "target_b": [], "features": []}


def other_schema(**fields):
    """The schema with some fields replaced, and all that is not of them as it was."""
    return pa.schema([fields.get(field.name, field) for field in SCHEMA], SCHEMA.metadata)


def with_nulls(name):
    """Record batches whose first row has no value in a column."""
    batch = record_batch(7)
    plain = getattr(batch[name], "storage", batch[name])
    column = pa.concat_arrays([pa.nulls(1, plain.type), plain[1:]])
    if name == "features":
        column = pa.ExtensionArray.from_storage(batch[name].type, column)
    columns = [column if field == name else batch[field] for field in SCHEMA.names]
    return file_of([pa.RecordBatch.from_arrays(columns, schema=SCHEMA)])


WRONG_FILES = {
    "nothing": (b"", "another kind of file"),
    "zeros": (bytes(4096), "another kind of file"),
    "no footer": (put(WHOLE, len(WHOLE) - 10, "<i", 0), "footer that lies outside"),
    "a footer of more than all": (put(WHOLE, len(WHOLE) - 10, "<i", len(WHOLE)), "lies outside"),
    "a footer of less than nothing": (put(WHOLE, len(WHOLE) - 10, "<i", -8), "lies outside"),
    "fewer batches": (file_of(map(record_batch, ROWS[:2])), "2 record batches, expected 3"),
    "more batches": (file_of(map(record_batch, [*ROWS, 4])), "4 record batches, expected 3"),
    "other rows": (file_of(map(record_batch, [7, 4, 11])), "record batch 1: 4 rows, expected 3"),
    "compressed by lz4": (file_of(map(record_batch, ROWS), compression="lz4"), "0: compressed"),
    "compressed by zstd": (file_of(map(record_batch, ROWS), compression="zstd"), "0: compressed"),
    "metadata of batches": (file_of(map(record_batch, ROWS), custom={"a": "b"}), "0: metadata in"),
    "metadata of the footer": (file_of(map(record_batch, ROWS), metadata={"a": "b"}), "footer"),
}


@pytest.mark.parametrize("name", WRONG_FILES)
def test_wrong_file_is_refused(name):
    content, message = WRONG_FILES[name]
    with pytest.raises(ValueError, match=message):
        found(content)


@pytest.mark.parametrize("name", ["id", "era", "target", "features"])
def test_null_where_none_may_be_is_refused(name):
    assert found(file_of([record_batch(7)]), rows=[7])
    with pytest.raises(ValueError, match="a null in a column without nulls"):
        found(with_nulls(name), rows=[7])


WRONG_SCHEMAS = {
    "name": other_schema(target=pa.field("target_c", pa.float32())),
    "type": other_schema(target=pa.field("target", pa.int32())),
    "precision": other_schema(target=pa.field("target", pa.float64())),
    "text": other_schema(id=pa.field("id", pa.large_string())),
    "dictionary": other_schema(era=pa.field("era", pa.dictionary(pa.int32(), pa.string()))),
    "no nulls": other_schema(era=pa.field("era", pa.string(), nullable=False)),
    "metadata of a field": other_schema(era=pa.field("era", pa.string(), metadata={"a": "b"})),
    "width": other_schema(features=pa.field("features", pa.fixed_shape_tensor(pa.uint8(), (6,)))),
    "sign": other_schema(features=pa.field("features", pa.fixed_shape_tensor(pa.int8(), (5,)))),
    "shape": other_schema(features=pa.field("features", pa.fixed_shape_tensor(pa.uint8(), (5, 1)))),
    "order": pa.schema([SCHEMA.field(i) for i in (1, 0, 2, 3, 4, 5)], SCHEMA.metadata),
    "fewer": pa.schema(list(SCHEMA)[:3] + list(SCHEMA)[4:], SCHEMA.metadata),
    "metadata": SCHEMA.with_metadata({**SCHEMA.metadata, b"numerai_sequence.version": b"2"}),
    "more metadata": SCHEMA.with_metadata({**SCHEMA.metadata, b"more": b""}),
    "no metadata": SCHEMA.remove_metadata(),
}


@pytest.mark.parametrize("name", WRONG_SCHEMAS)
def test_another_schema_is_refused(name):
    assert found(file_of([], SCHEMA), rows=[])
    with pytest.raises(ValueError, match="schema that differs"):
        found(file_of([], WRONG_SCHEMAS[name]), rows=[])


TENSOR = '{"shape":[5]}'


@pytest.mark.parametrize(
    ("text", "is_right"),
    [
        *((TENSOR, True), ('{"shape": [5], "permutation": [], "dim_names": []}', True)),
        *(("", False), ("5", False), ("[]", False), ('{"shape": 5}', False), ("[" * 199, False)),
        *(('{"shape":[5],"permutation":5}', False), (TENSOR + " " * 200, False), ("\xff", False)),
    ],
)
def test_what_describes_the_tensor_is_read_before_arrow_reads_it(text, is_right):
    names = {"ARROW:extension:name": "arrow.fixed_shape_tensor", "ARROW:extension:metadata": text}
    storage = SCHEMA.field("features").type.storage_type
    schema = other_schema(features=pa.field("features", storage, metadata=names))
    if is_right:
        assert found(file_of([], schema), rows=[])
    else:
        with pytest.raises(
            ValueError, match=r"schema that differs|Expecting value|decode|Extra data"
        ):
            found(file_of([], schema), rows=[])


def test_big_endian_values_are_refused():
    """Arrow would copy them all, turned round; the flag is a number of the footer's schema."""
    start, stop = footer_start(WHOLE), len(WHOLE) - 10
    footer = start + struct.unpack_from("<I", WHOLE, start)[0]
    slot = footer + struct.unpack_from("<H", WHOLE, footer - vtable(WHOLE, footer) + 6)[0]
    schema = slot + struct.unpack_from("<I", WHOLE, slot)[0]
    place = schema - vtable(WHOLE, schema) + 4
    ones = [at for at in range(schema, stop, 2) if WHOLE[at : at + 2] == b"\1\0"]
    content = put(WHOLE, place, "<H", ones[0] - schema)
    with pytest.raises(ValueError, match="schema that differs"):
        found(content)


def vtable(content, table):
    return struct.unpack_from("<i", content, table)[0]


BLOCKS = {
    "before the file": lambda offset, header, body: (-8, header, body),
    "at its magic": lambda offset, header, body: (0, header, body),
    "beyond it": lambda offset, header, body: (len(WHOLE), header, body),
    "far beyond it": lambda offset, header, body: (2**62, header, body),
    "unaligned": lambda offset, header, body: (offset + 4, header, body),
    "a header of nothing": lambda offset, header, body: (offset, 0, body),
    "a negative header": lambda offset, header, body: (offset, -8, body),
    "a header of more": lambda offset, header, body: (offset, header + 8, body - 8),
    "a negative body": lambda offset, header, body: (offset, header, -8),
    "a body of less": lambda offset, header, body: (offset, header, body - 8),
    "a body of more": lambda offset, header, body: (offset, header, body + 8),
    "an endless body": lambda offset, header, body: (offset, header, 2**63 - 1),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_record_batch_elsewhere_is_refused(name):
    for number in range(3):
        place = block_place(WHOLE, number)
        content = put(WHOLE, place, "<qi4xq", *BLOCKS[name](*messages(WHOLE)[number]))
        with pytest.raises(ValueError, match=r"outside|overlap|differs from the footer"):
            found(content)


def test_record_batches_in_another_order_or_twice_are_refused():
    content = file_of(map(record_batch, [5, 5]))
    blocks = messages(content)
    places = [block_place(content, number) for number in range(2)]
    assert found(content, rows=[5, 5])
    for order in ((1, 0), (0, 0), (1, 1)):
        changed = content
        for place, number in zip(places, order, strict=True):
            changed = put(changed, place, "<qi4xq", *blocks[number])
        with pytest.raises(ValueError, match="overlap"):
            found(changed, rows=[5, 5])


@pytest.mark.parametrize("number", [0, 2])
@pytest.mark.parametrize("buffer", range(16))
def test_buffer_elsewhere_is_refused(number, buffer):
    place = buffer_place(WHOLE, number, buffer)
    offset, length = struct.unpack_from("<qq", WHOLE, place)
    body = messages(WHOLE)[number][2]
    wrong = [(-8, length), (body + 8, length), (offset, body + 8), (2**62, 2**62), (offset, -1)]
    wrong += [(offset, 2**63 - 1), (2**63 - 8, length), (offset + 4, length)]
    if length:
        wrong += [(offset - 8, length)] if offset else []
        wrong += [(offset, length - 1)] if buffer not in (2, 5, 8) else []  # letters may be fewer
    for pair in wrong:
        with pytest.raises(ValueError, match=r"too short, or ends outside|overlap"):
            found(put(WHOLE, place, "<qq", *pair))


def lengthened(place, count):
    """The file with zeros put in, and the footer told of where record batches are since."""
    moved = WHOLE[:place] + bytes(count) + WHOLE[place:]
    for number, (offset, header, body) in enumerate(messages(WHOLE)):
        at = block_place(WHOLE, number) + count
        moved = put(moved, at, "<qi4xq", offset + count * (offset >= place), header, body)
    return moved


def test_record_batches_that_are_not_aligned_are_refused():
    """Arrow would read numbers where no number may be."""
    offset, _, _ = messages(WHOLE)[0]
    assert found(lengthened(offset, 8))["target"][0] == found(WHOLE)["target"][0] + 8
    with pytest.raises(ValueError, match="lies outside"):
        found(lengthened(offset, 4))


@pytest.mark.parametrize(("count", "is_right"), [(8, True), (4096, False)])
def test_header_is_read_as_far_as_it_can_be_one(count, is_right):
    offset, header, body = messages(WHOLE)[0]
    content = put(lengthened(offset + header, count), offset + 4, "<i", header - 8 + count)
    place = block_place(WHOLE, 0) + count
    content = put(content, place, "<qi4xq", offset, header + count, body)
    if is_right:
        assert found(content)["target"][0] == found(WHOLE)["target"][0] + count
    else:
        with pytest.raises(ValueError, match="too long a header"):
            found(content)


@pytest.mark.parametrize(("count", "is_right"), [(8, True), (8192, False)])
def test_footer_is_read_as_far_as_it_can_be_one(count, is_right):
    stop = len(WHOLE) - 10
    content = WHOLE[:stop] + bytes(count) + WHOLE[stop:]
    content = put(content, stop + count, "<i", stop - footer_start(WHOLE) + count)
    if is_right:
        assert found(content) == found(WHOLE)
    else:
        with pytest.raises(ValueError, match="too long"):
            found(content)


@pytest.mark.parametrize("node", range(7))
@pytest.mark.parametrize("length", [-1, 0, 6, 8, 2**62])
def test_column_of_another_length_is_refused(node, length):
    offset, header, _ = messages(WHOLE)[0]
    start = WHOLE.index(struct.pack("<4q", 7, 0, 7, 0), offset, offset + header)
    with pytest.raises(ValueError, match="a column of another length"):
        found(put(WHOLE, start + 16 * node, "<q", length))


def test_rows_whose_bytes_overflow_are_refused():
    """Of 2 ** 62 rows of four bytes the bytes are none, in 64 bits."""
    schema = shard_schema("packed", FEATURES[:12], TARGETS)
    kind = schema.field("features").type
    values = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(4 * 77, np.uint8)), 4)
    columns = [*record_batch(77).columns[:-1], pa.ExtensionArray.from_storage(kind, values)]
    columns[2] = columns[0]
    content = file_of([pa.RecordBatch.from_arrays(columns, schema=schema)], schema)
    offset, header, _ = messages(content)[0]
    changed = content[offset : offset + header].replace(
        struct.pack("<q", 77), struct.pack("<q", 2**62)
    )
    changed = changed.replace(struct.pack("<qq", 4 * 77, 0), struct.pack("<qq", 0, 0))
    assert found(content, schema, [77])
    with pytest.raises(ValueError, match="more rows than fit"):
        found(content[:offset] + changed + content[offset + header :], schema, [2**62])


@pytest.mark.parametrize("value", [0, 8, 2**31 - 1, 2**32 - 8])
def test_no_number_in_footer_or_headers_leads_out_of_the_file(value):
    """Each is replaced; where that goes through, all values are still inside."""
    offset, header, _ = messages(WHOLE)[1]
    spans = [(offset, offset + header), (footer_start(WHOLE), len(WHOLE) - 4)]
    refused = 0
    for place in (place for span in spans for place in range(*span, 4)):
        try:
            places = found(put(WHOLE, place, "<I", value))
        except ValueError:
            refused += 1
            continue
        widths = {name: WIDTH if name == "features" else 4 for name in places}
        for name, starts in places.items():
            for start, rows in zip(starts, ROWS, strict=True):
                assert 0 <= start <= len(WHOLE) - rows * widths[name]
    assert refused > 100
