"""Arrow file: find the positions of the values in a shard file, and refuse any other structure.

The footer of the file has the positions of the record batches, and the header of each record batch
has those of its buffers. Both are flatbuffers. The slot numbers below are those of Arrow's tables
(https://github.com/apache/arrow/tree/main/format: File.fbs, Message.fbs, Schema.fbs). Arrow itself
trusts a file: it decompresses, swaps bytes, copies a text as often as offsets point at it, and
passes type metadata to registered extensions. So the functions here check every number first, and
accept only the structure that our own writer makes. Only then is the file given to Arrow.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .flatbuffer import Table, read_number
from .layout import FEATURES, META_COLUMNS

Numbers = npt.NDArray[np.int64]
Read = Callable[[int, int], bytes]

_MAGIC = b"ARROW1"
_BLOCK = np.dtype([("offset", "<i8"), ("header", "<i4"), ("", "<i4"), ("body", "<i8")])
_PAIR_BYTES = 16  # a node (length, nulls) and a buffer (offset, length) are two int64 each
# The largest overhead of a flatbuffer: its tables, and gaps that align them.
_SLACK_BYTES = 1024
_EXTENSION = b"ARROW:extension:metadata"
_RECORD_BATCH = 3
# The parameters of each type, by its number: integers, floats, texts, lists of a fixed size.
_PARAMETERS = {2: ((0, "<i"), (1, "<B")), 3: ((0, "<h"),), 5: (), 16: ((0, "<i"),)}


def find_values(
    read: Read, size: int, schema: pa.Schema, rows: Sequence[int]
) -> dict[str, Numbers]:
    """Return the positions of the values in a shard file, after checking its structure.

    Parameters
    ----------
    read : function
        Function that returns the bytes of the file from a start to a stop.
    size : int
        Bytes of the file.
    schema : pyarrow.Schema
        Expected schema, of a shard file or of a patch.
    rows : sequence of int
        Expected rows of each record batch.

    Returns
    -------
    dict of int64 arrays, each of shape (record batches,)
        Position of the first value in the file, by target and for "features".

    Raises
    ------
    ValueError
        The file has another structure. The message describes the difference.
    """
    try:
        return _find_values(read, size, schema, rows)
    except struct.error as error:
        raise ValueError(f"an offset that points outside of the file: {error}") from error


def _find_values(
    read: Read, size: int, schema: pa.Schema, rows: Sequence[int]
) -> dict[str, Numbers]:
    wanted = schema.serialize()[8:].to_pybytes()
    # The footer repeats the schema, and has a block for each record batch.
    footer, stop = _footer(read, size, 2 * len(wanted) + len(rows) * _BLOCK.itemsize)
    if not _is_same_schema(footer.table(1), Table.root(wanted).table(2)):
        raise ValueError("a schema that differs from the manifest")
    if footer.count(2) or footer.count(4):
        raise ValueError("dictionaries or metadata in its footer")
    if footer.count(3) != len(rows):
        raise ValueError(f"{footer.count(3)} record batches, expected {len(rows)}")
    columns = _Columns(schema)
    blocks = footer.array(3, _BLOCK)
    _check_blocks(blocks, stop, columns.header_bytes)
    nodes = np.empty((len(blocks), columns.nodes, 2), np.int64)
    buffers = np.empty((len(blocks), columns.buffers, 2), np.int64)
    for number, (block, count) in enumerate(zip(blocks.tolist(), rows, strict=True)):
        try:
            header = _header(read, block)
            nodes[number], buffers[number] = _read_header(header, count, columns)
        except ValueError as error:
            raise ValueError(f"record batch {number}: {error}") from error
    columns.check(np.array(rows, np.int64), nodes, buffers, blocks["body"])
    bodies = blocks["offset"] + blocks["header"]
    return {name: bodies + buffers[:, place, 0] for name, place in columns.places.items()}


def _footer(read: Read, size: int, most: int) -> tuple[Table, int]:
    """Return the footer, and its position in the file."""
    begin, end = read(0, len(_MAGIC)), read(max(0, size - 10), size)
    if begin != _MAGIC or end[4:] != _MAGIC:
        raise ValueError("another kind of file: the first or last bytes differ")
    stop = size - len(end)
    start = stop - read_number(end, "<i", 0)
    if not len(_MAGIC) < start < stop or stop - start > most + _SLACK_BYTES:
        raise ValueError("a footer that lies outside of the file, or is too long")
    return Table.root(read(start, stop)), start


def _check_blocks(blocks: npt.NDArray[Any], stop: int, header_bytes: int) -> None:
    """Check that messages lie in the file one after the other, and are aligned."""
    offset, header, body = (blocks[name].astype(np.int64) for name in ("offset", "header", "body"))
    is_inside = (offset >= 8) & (header > 8) & (body >= 0) & (offset < stop) & (body < stop)
    if not is_inside.all() or ((offset | header) % 8).any() or (header > header_bytes).any():
        raise ValueError("a record batch that lies outside of the file, or has too long a header")
    ends = offset + header + body
    if (ends > np.append(offset[1:], stop)).any():
        raise ValueError("record batches that overlap")


def _header(read: Read, block: tuple[int, int, int, int]) -> Table:
    """Return the description of a record batch from its message."""
    offset, length, _, body = block
    data = read(offset, offset + length)
    begin, size = struct.unpack_from("<Ii", data)
    if (begin, size) != (0xFFFFFFFF, length - 8):
        raise ValueError("a header whose length differs from the footer")
    message = Table.root(data[8:])
    if message.number(1, "<B") != _RECORD_BATCH or message.number(3, "<q") != body:
        raise ValueError("a message that differs from the footer")
    if message.count(4):
        raise ValueError("metadata in its header")
    return message.table(2)


def _read_header(batch: Table, rows: int, columns: _Columns) -> tuple[Any, Any]:
    if batch.has(3):
        raise ValueError("compressed values, expected uncompressed ones")
    found = batch.number(0, "<q")
    if found != rows:
        raise ValueError(f"{found} rows, expected {rows}")
    if (batch.count(1), batch.count(2), batch.count(4)) != (columns.nodes, columns.buffers, 0):
        raise ValueError("columns that differ from the schema")
    nodes, buffers = (batch.array(slot, np.dtype("<i8"), _PAIR_BYTES) for slot in (1, 2))
    return nodes.reshape(-1, 2), buffers.reshape(-1, 2)


class _Columns:
    """The nodes and buffers of a file's columns, and their sizes.

    A text column has three buffers: null bits, offsets, letters. A target has two: null bits,
    values. The features have three: null bits of rows, null bits of values, values.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self.places: dict[str, int] = {}
        # For each buffer, its bytes for one row and its other bytes. For each node, its values.
        row_bytes: list[int] = []
        more_bytes: list[int] = []
        node_rows: list[int] = []
        self._nullable: tuple[int, int] | None = None
        for field in schema:
            if field.name == "data_type":
                self._nullable = len(node_rows), len(row_bytes)
            if field.name in META_COLUMNS:  # one offset more than texts
                row_bytes += [0, 4, 0]
                more_bytes += [0, 4, 0]
                node_rows += [1]
            elif field.name == FEATURES:
                [width] = field.type.shape
                row_bytes += [0, 0, width]
                more_bytes += [0, 0, 0]
                node_rows += [1, width]
                self.places[field.name] = len(row_bytes) - 1
            else:
                row_bytes += [0, 4]
                more_bytes += [0, 0]
                node_rows += [1]
                self.places[field.name] = len(row_bytes) - 1
        self.nodes, self.buffers = len(node_rows), len(row_bytes)
        self.header_bytes = (self.nodes + self.buffers) * _PAIR_BYTES + _SLACK_BYTES
        self._row_bytes, self._more_bytes, self._node_rows = (
            np.array(found, np.int64) for found in (row_bytes, more_bytes, node_rows)
        )

    def check(self, rows: Numbers, nodes: Numbers, buffers: Numbers, bodies: Numbers) -> None:
        """Check that buffers lie in their record batch, in order, and are long enough.

        Parameters
        ----------
        rows : int64 array, shape (record batches,)
        nodes : int64 array, shape (record batches, nodes, 2)
            Length and nulls.
        buffers : int64 array, shape (record batches, buffers, 2)
            Offset in the body and length.
        bodies : int64 array, shape (record batches,)
            Lengths.
        """
        if (rows > bodies // self._row_bytes.max()).any():  # or a product below could overflow
            raise ValueError("more rows than fit into its record batches")
        lengths = rows[:, np.newaxis] * self._node_rows
        nulls = nodes[:, :, 1].copy()
        needed = rows[:, np.newaxis] * self._row_bytes + self._more_bytes
        if self._nullable is not None:
            node, validity = self._nullable
            if not ((nulls[:, node] >= 0) & (nulls[:, node] <= rows)).all():
                raise ValueError("more nulls than rows")
            needed[:, validity] = np.where(nulls[:, node] > 0, (rows + 7) // 8, 0)
            nulls[:, node] = 0
        if (nodes[:, :, 0] != lengths).any() or nulls.any():
            raise ValueError("a column of another length, or a null in a column without nulls")
        offset, length = buffers[:, :, 0], buffers[:, :, 1]
        is_inside = (offset >= 0) & (length >= needed) & (offset <= bodies[:, np.newaxis])
        if not (is_inside & (length <= bodies[:, np.newaxis] - offset)).all():
            raise ValueError("a buffer that is too short, or ends outside of its record batch")
        if (offset % 8).any() or (offset[:, 1:] < (offset + length)[:, :-1]).any():
            raise ValueError("buffers that overlap")


def _is_same_schema(found: Table, expected: Table) -> bool:
    """Compare two schemas. Never read more of the first than the second has.

    Slot 0 is the byte order, 1 the fields, 2 the metadata.
    """
    return (
        found.number(0, "<h") == expected.number(0, "<h")
        and _is_same_metadata(found, expected, 2)
        and _are_same(found, expected, 1, _is_same_field)
    )


def _is_same_field(found: Table, expected: Table) -> bool:
    """Compare name (0), whether nulls are allowed (1), type (2, 3), children (5), metadata (6)."""
    kind = int(expected.number(2, "<B"))
    numbers = [(1, "<B"), (2, "<B")]
    return (
        all(found.number(*number) == expected.number(*number) for number in numbers)
        and found.text(0) == expected.text(0)
        and not found.has(4)  # a dictionary
        and _is_same_type(found.table(3), expected.table(3), kind)
        and _are_same(found, expected, 5, _is_same_field)
        and _is_same_metadata(found, expected, 6)
    )


def _is_same_type(found: Table, expected: Table, kind: int) -> bool:
    return all(found.number(*place) == expected.number(*place) for place in _PARAMETERS[kind])


def _are_same(
    found: Table, expected: Table, slot: int, same: Callable[[Table, Table], bool]
) -> bool:
    return found.count(slot) == expected.count(slot) and all(
        map(same, found.tables(slot), expected.tables(slot))
    )


def _is_same_metadata(found: Table, expected: Table, slot: int) -> bool:
    if found.count(slot) != expected.count(slot):
        return False
    ours, others = (
        {pair.text(0): pair.text(1) for pair in table.tables(slot)} for table in (expected, found)
    )
    return ours.keys() == others.keys() and all(
        ours[key] == others[key] or (key == _EXTENSION and _is_same_tensor(ours[key], others[key]))
        for key in ours
    )


def _is_same_tensor(one: bytes, other: bytes) -> bool:
    """Compare the metadata of two tensors, without empty lists: not every Arrow writes them."""
    if len(other) > 200:
        return False
    found, expected = json.loads(other), json.loads(one)
    return isinstance(found, dict) and expected == {
        key: value for key, value in found.items() if value != []
    }
