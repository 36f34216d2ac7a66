"""Flatbuffer: a table says what is in it, and never what lies beside it."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from numerai_sequence.format.flatbuffer import Table

# A vtable of three slots, a table of a number and a text, and the text.
VTABLE = struct.pack("<HHHHH2x", 10, 12, 4, 8, 0)
TEXT = struct.pack("<I3sx", 3, b"abc")
WHOLE = struct.pack("<I", 16) + VTABLE + struct.pack("<iiI", 12, -7, 4) + TEXT


def changed(place, kind, value):
    content = bytearray(WHOLE)
    struct.pack_into(kind, content, place, value)
    return bytes(content)


def test_table_says_what_is_in_it():
    table = Table.root(WHOLE)
    assert table.number(0, "<i") == -7
    assert table.text(1) == b"abc"
    assert table.array(1, np.dtype(np.uint8)).tolist() == list(b"abc")
    assert table.count(1) == 3


@pytest.mark.parametrize("slot", [2, 3, 100])
def test_slot_without_a_value_is_empty(slot):
    table = Table.root(WHOLE)
    assert not table.has(slot)
    assert table.number(slot, "<q") == 0
    assert (table.text(slot), table.count(slot), list(table.tables(slot))) == (b"", 0, [])
    with pytest.raises(ValueError, match="without one of its parts"):
        table.table(slot)


@pytest.mark.parametrize(
    "content",
    [
        *(b"", WHOLE[:3], changed(0, "<I", 2**32 - 1), changed(0, "<I", len(WHOLE))),
        *(changed(16, "<i", 20), changed(16, "<i", 2**31 - 1), changed(16, "<i", -(2**31))),
    ],
)
def test_table_outside_is_refused(content):
    with pytest.raises((ValueError, struct.error)):
        Table.root(content)


@pytest.mark.parametrize("slot", [0, 1])
def test_value_outside_is_refused(slot):
    table = Table.root(changed(8 + 2 * slot, "<H", 2**16 - 1))
    with pytest.raises(struct.error):
        table.number(slot, "<i")
    with pytest.raises(struct.error):
        table.text(slot)


@pytest.mark.parametrize("length", [5, 2**31, 2**32 - 1])
def test_vector_that_leads_out_is_refused(length):
    table = Table.root(changed(28, "<I", length))
    for read in (table.text, table.tables, lambda slot: table.array(slot, np.dtype(np.uint8))):
        with pytest.raises(ValueError, match="ends outside"):
            read(1)
