"""Scratch: what was put in piece by piece comes out whole, in the order asked for."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest

from numerai_sequence.format.encodings import ENCODINGS
from numerai_sequence.writing import scratch as scratch_module
from numerai_sequence.writing.scratch import Scratch

WINDOW_ROWS = [211, 1, 96]
WIDTH = 20

each_block_width = pytest.mark.parametrize("block_width", [1, 7, 19, 20, 100])


def make(folder, block_width=7):
    blocks = ENCODINGS["int8"].cut_blocks(WIDTH, features_per_block=block_width)
    return Scratch(folder, WINDOW_ROWS, blocks), blocks


def random_rows(window):
    """The encoded rows of a window, every byte of which may be anything."""
    rng = np.random.default_rng([5, window])
    return rng.integers(0, 256, (WINDOW_ROWS[window], WIDTH), dtype=np.uint8)


def read_features(scratch, window, places):
    out = np.full((WINDOW_ROWS[window], WIDTH), 7, np.uint8)
    scratch.read_features(window, places, out)
    return out


def meta_rows(window):
    rows = WINDOW_ROWS[window]
    values = np.arange(rows, dtype=np.float32)
    values[::5] = np.nan
    return pa.table(
        {
            "id": [f"é{window}-{row}" for row in range(rows)],
            "era": [f"{row // 9:04d}" for row in range(rows)],
            "data_type": pa.array([None if row % 3 else "train" for row in range(rows)]),
            "target": values,
        }
    )


def pieces(rows, size):
    return [(start, min(start + size, rows)) for start in range(0, rows, size)]


def add_all(scratch, blocks, *, piece, meta_piece=30):
    """Add all rows as the writer does: window after window, a piece of each in turn."""
    parts = [
        (start, stop, window)
        for window, rows in enumerate(WINDOW_ROWS)
        for start, stop in pieces(rows, piece)
    ]
    for start, stop, window in sorted(parts):
        for block in blocks:
            encoded = random_rows(window)[start:stop, block.start : block.stop]
            scratch.add_features(window, start, block, np.ascontiguousarray(encoded))
    for window, rows in enumerate(WINDOW_ROWS):
        for start, stop in pieces(rows, meta_piece):
            scratch.add_meta(window, meta_rows(window)[start:stop])


@each_block_width
@pytest.mark.parametrize("piece", [1, 10, 96, 500])
def test_features_come_back_in_the_order_asked_for(tmp_path, block_width, piece):
    scratch, blocks = make(tmp_path, block_width)
    add_all(scratch, blocks, piece=piece)
    for window, rows in enumerate(WINDOW_ROWS):
        places = np.random.default_rng(window).permutation(rows)
        found = read_features(scratch, window, places)
        np.testing.assert_array_equal(found[places], random_rows(window))


@each_block_width
@pytest.mark.parametrize("piece_bytes", [1, 33, 500])
def test_features_are_read_in_small_pieces(tmp_path, monkeypatch, block_width, piece_bytes):
    scratch, blocks = make(tmp_path, block_width)
    add_all(scratch, blocks, piece=50)
    monkeypatch.setattr(scratch_module, "_PIECE_BYTES", piece_bytes)
    for window, rows in enumerate(WINDOW_ROWS):
        places = np.arange(rows)[::-1]
        np.testing.assert_array_equal(
            read_features(scratch, window, places), random_rows(window)[::-1]
        )


def test_features_may_be_added_in_any_order(tmp_path):
    scratch, blocks = make(tmp_path)
    parts = [
        (window, block, start, stop)
        for window, rows in enumerate(WINDOW_ROWS)
        for block in blocks
        for start, stop in pieces(rows, 30)
    ]
    for part in np.random.default_rng(8).permutation(len(parts)):
        window, block, start, stop = parts[part]
        encoded = random_rows(window)[start:stop, block.start : block.stop]
        scratch.add_features(window, start, block, np.ascontiguousarray(encoded))
    for window, rows in enumerate(WINDOW_ROWS):
        found = read_features(scratch, window, np.arange(rows))
        np.testing.assert_array_equal(found, random_rows(window))


@pytest.mark.parametrize("piece", [1, 30, 500])
def test_other_columns_come_back_in_the_order_of_the_source(tmp_path, piece):
    scratch, blocks = make(tmp_path)
    add_all(scratch, blocks, piece=100, meta_piece=piece)
    for window, rows in enumerate(WINDOW_ROWS):
        found, expected = scratch.read_meta(window), meta_rows(window)
        assert found.schema == expected.schema
        for name in ("id", "era", "data_type"):
            assert found[name].to_pylist() == expected[name].to_pylist()
        np.testing.assert_array_equal(found["target"].to_numpy(), expected["target"].to_numpy())
        assert found.num_rows == rows


def test_rows_made_of_several_chunks_are_added_whole(tmp_path):
    scratch, _ = make(tmp_path)
    rows = meta_rows(0)
    scratch.add_meta(0, pa.concat_tables([rows[100:], rows[:100]]))
    found = scratch.read_meta(0)["id"].to_pylist()
    assert found == rows["id"].to_pylist()[100:] + rows["id"].to_pylist()[:100]


def test_one_thread_adds_features_while_another_adds_the_rest(tmp_path):
    scratch, blocks = make(tmp_path, 1)

    def add_features():
        for row in range(WINDOW_ROWS[0]):
            for block in blocks:
                encoded = random_rows(0)[row : row + 1, block.start : block.stop]
                scratch.add_features(0, row, block, np.ascontiguousarray(encoded))

    with ThreadPoolExecutor(1) as pool:
        adding = pool.submit(add_features)
        for row in range(WINDOW_ROWS[0]):
            scratch.add_meta(0, meta_rows(0)[row : row + 1])
        adding.result()
    places = np.arange(WINDOW_ROWS[0])
    np.testing.assert_array_equal(read_features(scratch, 0, places), random_rows(0))
    assert scratch.read_meta(0)["id"].to_pylist() == meta_rows(0)["id"].to_pylist()


def test_a_window_that_is_dropped_leaves_the_others(tmp_path):
    scratch, blocks = make(tmp_path)
    add_all(scratch, blocks, piece=100)
    before = set(os.listdir(tmp_path))
    assert len(before) == 2 * len(WINDOW_ROWS)
    scratch.drop([1])
    assert len(os.listdir(tmp_path)) == len(before) - 2
    for window in (0, 2):
        found = read_features(scratch, window, np.arange(WINDOW_ROWS[window]))
        np.testing.assert_array_equal(found, random_rows(window))
        assert scratch.read_meta(window)["id"].to_pylist() == meta_rows(window)["id"].to_pylist()
    scratch.drop([0])
    scratch.drop([2])
    assert os.listdir(tmp_path) == []


def test_what_was_appended_later_is_cut_off(tmp_path):
    scratch, _ = make(tmp_path)
    rows = meta_rows(0)
    sizes = {0: scratch.add_meta(0, rows[:50])}
    scratch.add_meta(0, rows[50:90])
    scratch.add_meta(2, meta_rows(2)[:20])
    scratch.cut_meta(sizes)
    scratch.add_meta(0, rows[50:])
    scratch.add_meta(2, meta_rows(2))
    for window in (0, 2):
        assert scratch.read_meta(window)["id"].to_pylist() == meta_rows(window)["id"].to_pylist()


@pytest.mark.parametrize("more", [-1, 1, 211])
def test_rows_that_were_lost_or_added_twice_are_noticed(tmp_path, more):
    scratch, _ = make(tmp_path)
    scratch.add_meta(0, pa.concat_tables([meta_rows(0)] * 2)[: WINDOW_ROWS[0] + more])
    with pytest.raises(OSError, match="does not hold the rows that were written") as caught:
        scratch.read_meta(0)
    assert caught.value.filename == str(tmp_path / "window-00000.meta")


def test_scratch_takes_the_bytes_of_the_rows(tmp_path):
    scratch, blocks = make(tmp_path)
    add_all(scratch, blocks, piece=100)
    files = sorted(tmp_path.glob("*.features"))
    assert [file.stat().st_size for file in files] == [rows * WIDTH for rows in WINDOW_ROWS]


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="counts open files in /proc")
def test_no_file_stays_open(tmp_path):
    scratch, blocks = make(tmp_path)
    before = len(os.listdir("/proc/self/fd"))
    add_all(scratch, blocks, piece=10)
    for window, rows in enumerate(WINDOW_ROWS):
        read_features(scratch, window, np.arange(rows))
        scratch.read_meta(window)
    assert len(os.listdir("/proc/self/fd")) == before
