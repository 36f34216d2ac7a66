"""Arrows: shard files that Arrow wrote, or could have written, and that are not what ours are."""

import functools
import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from campaigns.mutations.bits import footer, headers, messages
from campaigns.mutations.changed_copy import Draft

BOMB_BYTES = 100 << 20
EXTENSION = {b"ARROW:extension:name": b"arrow.fixed_shape_tensor"}
JUNK = (
    *(b"", b"5", b"[]", b"{}", b"null", b'{"shape": 5}', b'{"shape": ["a"]}', b'{"shape": [-1]}'),
    *(b'{"shape": [4], "permutation": 5}', b'{"shape": [4], "permutation": [9]}', b"not json"),
    *(b'{"shape": [4], "dim_names": [1]}', b'{"shape": [1e400]}', b"[" * 100_000, b'{"a":' * 5_000),
    *(b'{"shape": [2147483647, 2147483647]}', b'{"shape": [' + b"1," * 1000 + b"4]}", b"\xff\0"),
)

Columns = dict[str, pa.Array]


def opened(content: bytes) -> tuple[pa.Schema, list[pa.RecordBatch]]:
    reader = pa.ipc.open_file(pa.py_buffer(content))
    return reader.schema, [reader.get_batch(i) for i in range(reader.num_record_batches)]


def file_of(
    schema: pa.Schema, batches: Sequence[Sequence[pa.Array]], compression: str | None = None
) -> bytes:
    """Return the Arrow file of record batches with such columns."""
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression, unify_dictionaries=True)
    with pa.ipc.new_file(sink, schema, options=options) as writer:
        for columns in batches:
            writer.write_batch(pa.RecordBatch.from_arrays(list(columns), schema=schema))
    return sink.getvalue().to_pybytes()


def storage(column: pa.Array) -> pa.Array:
    return column.storage if isinstance(column, pa.ExtensionArray) else column


def rewrite(
    draft: Draft, name: str, change: Callable[[pa.Field, pa.Array], tuple[Any, Any]]
) -> None:
    """Write a file with one column changed in its type: of ids, eras, a target, or features."""
    schema, batches = opened(draft.files[name])
    place = schema.names.index(draft.pick(schema.names))
    columns = [list(batch.columns) for batch in batches]
    field = schema.field(place)
    for batch in columns:
        try:
            field, batch[place] = change(schema.field(place), batch[place])
        except (pa.ArrowException, NotImplementedError):  # a type that this one cannot become
            field = schema.field(place).with_nullable(False)
    draft.files[name] = file_of(schema.set(place, field), columns)


def set_type(draft: Draft) -> None:
    """A column of another type, or another kind of the same type, and the same name."""
    kinds = [
        pa.large_string(), pa.string_view(), pa.binary(), pa.float64(), pa.float16(), pa.int32(),
        pa.null(), pa.list_(pa.int8()), pa.large_list(pa.int8()), pa.uint8(), pa.bool_(),
        *[pa.dictionary(pa.int32(), pa.string())] * 3, pa.run_end_encoded(pa.int32(), pa.string()),
    ]  # fmt: skip
    kind = draft.pick(kinds)

    def change(field: pa.Field, column: pa.Array) -> tuple[pa.Field, pa.Array]:
        plain = storage(column)
        if pa.types.is_null(kind):
            return field.with_type(kind), pa.nulls(len(column))
        if pa.types.is_dictionary(kind):
            places = pa.array(np.zeros(len(plain), np.int32))
            encoded = pa.DictionaryArray.from_arrays(places, pa.array(["0001"]))
            return field.with_type(encoded.type), encoded
        if pa.types.is_run_end_encoded(kind):
            encoded = pc.run_end_encode(plain)
            return field.with_type(encoded.type), encoded
        return field.with_type(kind), plain.cast(kind, safe=False)

    rewrite(draft, draft.pick_file(), change)


def set_nulls(draft: Draft) -> None:
    """Nulls where there were none, or a column that cannot have any, or is not the extension."""
    kind = draft.pick(("nulls", "not null", "plain", "metadata"))

    def change(field: pa.Field, column: pa.Array) -> tuple[pa.Field, pa.Array]:
        plain = storage(column)
        if kind == "nulls":
            taken = [None if i % 3 == 0 else i for i in range(len(plain))]
            nulled = plain.take(pa.array(taken, pa.int64()))
            if plain is not column:
                nulled = pa.ExtensionArray.from_storage(field.type, nulled)
            return field, nulled
        if kind == "not null":
            return field.with_nullable(False), column
        if kind == "plain":
            return field.with_type(plain.type), plain
        return field.with_metadata({"a": "b"}), column

    rewrite(draft, draft.pick_file(), change)


def set_extension(draft: Draft) -> None:
    """The features' type as text that is no type, or another one."""
    name = draft.pick_file()
    schema, batches = opened(draft.files[name])
    field = schema.field("features")
    extension = EXTENSION | {b"ARROW:extension:metadata": draft.pick(JUNK)}
    if draft.rng.random() < 0.2:
        names = (b"arrow.json", b"arrow.uuid", b"arrow.py_extension_type", b"arrow.opaque", b"")
        extension[b"ARROW:extension:name"] = draft.pick(names)
    plain = pa.field("features", field.type.storage_type, metadata=extension)
    columns = [[storage(column) for column in batch.columns] for batch in batches]
    draft.files[name] = file_of(schema.set(len(schema) - 1, plain), columns)


def set_width(draft: Draft) -> None:
    """Features of another width, or of another sign."""
    name = draft.pick_file()
    schema, batches = opened(draft.files[name])
    kind = schema.field("features").type
    width = max(1, kind.shape[0] + draft.pick((-1, 0, 1, 1000)))
    values = draft.pick((pa.int8(), pa.uint8(), pa.int16()))
    other = pa.fixed_shape_tensor(values, draft.pick(((width,), (width, 1), (1, width))))
    if other == kind:  # and with its checksum it would be one of this set
        draft.fixes = "nothing"
    columns = []
    for batch in batches:
        flat = pa.array(np.zeros(batch.num_rows * width, values.to_pandas_dtype()))
        lists = pa.FixedSizeListArray.from_arrays(flat, width)
        columns.append([*batch.columns[:-1], pa.ExtensionArray.from_storage(other, lists)])
    draft.files[name] = file_of(
        schema.set(len(schema) - 1, schema.field(-1).with_type(other)), columns
    )


def set_columns(draft: Draft) -> None:
    """Columns that are more, fewer, in another order, or there twice."""
    name = draft.pick_file()
    schema, batches = opened(draft.files[name])
    order = list(range(len(schema)))
    one, two = draft.pick(order), draft.pick(order)
    what = draft.pick(("lose", "twice", "exchange", "rename"))
    if what == "lose":
        order.remove(one)
    elif what == "twice":
        order.insert(two, one)
    else:
        order[one], order[two] = order[two], order[one]
    fields = [schema.field(place) for place in order]
    if what == "rename":
        fields = [field.with_name(schema.names[place]) for place, field in enumerate(fields)]
    columns = [[batch.column(place) for place in order] for batch in batches]
    draft.files[name] = file_of(pa.schema(fields, schema.metadata), columns)


def set_metadata(draft: Draft) -> None:
    """Another version, encoding or order of the features, more than is ours, or nothing."""
    name = draft.pick_file()
    schema, batches = opened(draft.files[name])
    metadata = dict(schema.metadata)
    key = draft.pick(metadata)
    changes = (
        lambda: metadata.pop(key),
        lambda: metadata.update({key: draft.pick((b"", b"2", b"int8", b"[]", b"\xff"))}),
        lambda: metadata.update({b"more": b"x" * draft.pick((1, 1 << 20))}),
        metadata.clear,
        lambda: metadata.update({b"%d" % number: b"" for number in range(20_000)}),
    )
    draft.pick(changes)()
    columns = [batch.columns for batch in batches]
    draft.files[name] = file_of(schema.with_metadata(metadata), columns)


def add_metadata(draft: Draft) -> None:
    """Metadata of a record batch, or of the footer, of which ours have none."""
    name = draft.pick_file()
    schema, batches = opened(draft.files[name])
    more = {f"key {number}": "x" * draft.pick((1, 1000)) for number in range(draft.pick((1, 5000)))}
    sink = pa.BufferOutputStream()
    is_footers = draft.rng.random() < 0.5
    with pa.ipc.new_file(sink, schema, metadata=more if is_footers else None) as writer:
        for batch in batches:
            writer.write_batch(batch, custom_metadata=None if is_footers else more)
    draft.files[name] = sink.getvalue().to_pybytes()


def compress(draft: Draft) -> None:
    """Record batches that are compressed, with lengths that may be lies."""
    name = draft.pick_file()
    schema, batches = opened(draft.files[name])
    columns = [batch.columns for batch in batches]
    content = bytearray(file_of(schema, columns, draft.pick(("lz4", "zstd"))))
    for offset, metadata, body in list(messages(bytes(content)))[1:]:
        if body and draft.rng.random() < 0.5:
            length = draft.pick((2**20, 2**31, 2**33, 2**40, 2**62, -1, -2, 0))
            struct.pack_into("<q", content, offset + metadata, length)
    draft.files[name] = bytes(content)


@functools.cache
def _bomb(content: bytes, compression: str) -> bytes:
    schema, batches = opened(content)
    columns = [list(batch.columns) for batch in batches]
    texts = columns[0][0].to_pylist()
    columns[0][0] = pa.array(["a" * BOMB_BYTES, *texts[1:]])
    return file_of(schema, columns, compression)


def expand(draft: Draft) -> None:
    """A record batch of the right rows that is small, and 100 MB when it is decompressed."""
    name = next(shard["file"] for shard in draft.document["shards"] if shard["rows"])
    draft.files[name] = _bomb(draft.files[name], draft.pick(("lz4", "zstd")))
    draft.fixes = draft.pick(("sizes", "checksums"))


def set_offsets(draft: Draft) -> None:
    """Offsets of strings that fall, lead out of their data, or into the middle of a letter."""
    name = draft.pick_file()
    content = draft.files[name]
    buffer = pa.py_buffer(content)
    reader = pa.ipc.open_file(buffer)
    batch = reader.get_batch(int(draft.rng.integers(reader.num_record_batches)))
    column = batch.column(draft.pick(("id", "era", "data_type")))
    start = column.buffers()[1].address - buffer.address
    place = int(draft.rng.integers(len(column)))
    last = column.buffers()[2].size if column.buffers()[2] else 0
    values = (-1, -(2**31), 2**31 - 1, last + 1, last + 64, last + 10**6)
    changed = bytearray(content)
    struct.pack_into("<i", changed, start + 4 * (place + 1), draft.pick(values))
    draft.files[name] = bytes(changed)


def set_counted(draft: Draft) -> None:
    """Letters of an era or a data type, a row that has none, or a target that is missing."""
    name = draft.pick_file()
    content = bytearray(draft.files[name])
    buffer = pa.py_buffer(bytes(content))
    reader = pa.ipc.open_file(buffer)
    batch = reader.get_batch(int(draft.rng.integers(reader.num_record_batches)))
    targets = [target for target in batch.schema.names if target.startswith("target")]
    column = batch.column(draft.pick(("era", "data_type", *targets)))
    data = draft.pick(part for part in column.buffers() if part is not None and part.size)
    if pa.types.is_floating(column.type):
        place = data.address - buffer.address + 4 * int(draft.rng.integers(len(column)))
        content[place : place + 4] = draft.pick((b"\0\0\xc0\x7f", b"\xff" * 4, b"\1\0\x80\x7f"))
    else:
        place = data.address - buffer.address + int(draft.rng.integers(data.size))
        content[place] ^= draft.pick((1, 2, 0x80))
    draft.files[name] = bytes(content)


def set_batches(draft: Draft) -> None:
    """Record batches that are cut otherwise, many, in another order, or there twice."""
    name = draft.pick_file()
    schema, batches = opened(draft.files[name])
    what = draft.pick(("many", "empty", "order", "twice", "joined"))
    if what == "many":
        batches = [batch.slice(row, 1) for batch in batches for row in range(batch.num_rows)]
    elif what == "empty":
        batches += [batches[0].slice(0, 0)] * draft.pick((1, 5000))
    elif what == "order":
        batches = [batches[i] for i in draft.rng.permutation(len(batches))]
    elif what == "twice":
        batches[-1] = batches[0]
    else:
        batches = pa.Table.from_batches(batches).combine_chunks().to_batches()
    draft.files[name] = file_of(schema, [batch.columns for batch in batches])
    if draft.rng.random() < 0.5:
        _tell_rows(draft, name, [batch.num_rows for batch in batches])


def _tell_rows(draft: Draft, name: str, rows: list[int]) -> None:
    """Have the manifest tell of these record batches, of one era each."""
    [shard] = [shard for shard in draft.document["shards"] if shard["file"] == name]
    era = next(iter(shard["batches"][0]["eras"]))
    shard["rows"] = sum(rows)
    shard["batches"] = [
        {"rows": count, "eras": {era: count} if count else {}, "data_types": {}, "missing": {}}
        for count in rows
    ]
    draft.fixes = "checksums"


def set_blocks(draft: Draft) -> None:
    """Blocks in the footer that change places, overlap, or lead to other messages."""
    name = draft.pick_file()
    content = bytearray(draft.files[name])
    found = list(messages(bytes(content)))
    start, stop = footer(bytes(content))
    block_of = [struct.pack("<qi4xq", *message) for message in found[1:]]
    ats = [content.find(block, start, stop) for block in block_of]
    at = draft.pick(ats)
    offset, metadata, body = draft.pick(found)
    length = len(content)
    offset += draft.pick((0, 0, 0, 8, -8, length, -offset, 2**62, 4))
    metadata += draft.pick((0, 0, 0, 8, -8, 2**30, -metadata))
    body += draft.pick((0, 0, 0, 8, -8, length, 2**62, -body))
    changed = struct.pack("<qi4xq", offset, max(-(2**31), metadata), body)
    content[at : at + 24] = changed
    draft.files[name] = bytes(content)


def swap_endianness(draft: Draft) -> None:
    """A footer that says the values are big-endian: Arrow would copy them, turned round."""
    name = draft.pick_file()
    content = bytearray(draft.files[name])
    start, stop = footer(bytes(content))
    root = start + struct.unpack_from("<I", content, start)[0]
    vtable = root - struct.unpack_from("<i", content, root)[0]
    slot = root + struct.unpack_from("<H", content, vtable + 6)[0]
    schema = slot + struct.unpack_from("<I", content, slot)[0]
    table = schema - struct.unpack_from("<i", content, schema)[0]
    ones = [at for at in range(schema, stop - 2) if content[at : at + 2] == b"\1\0" and at % 2 == 0]
    if ones:
        struct.pack_into("<H", content, table + 4, draft.pick(ones) - schema)
    draft.files[name] = bytes(content)


def repeat_buffers(draft: Draft) -> None:
    """Buffers and nodes of a header that overlap, are exchanged, or are one too many."""
    name = draft.pick_file()
    content = bytearray(draft.files[name])
    start, stop = draft.pick(headers(bytes(content)))
    pairs = range(start - start % 16 + 16, stop - 16, 8)
    one, two = draft.pick(pairs), draft.pick(pairs)
    kept = bytes(content[one : one + 16])
    if draft.rng.random() < 0.5:
        content[one : one + 16] = content[two : two + 16]
    content[two : two + 16] = kept
    draft.files[name] = bytes(content)
