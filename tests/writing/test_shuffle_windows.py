"""Windows: every era has one, none is too large, and every row finds its place."""

from __future__ import annotations

from itertools import groupby

import numpy as np
import pyarrow as pa
import pytest

from numerai_sequence.format.layout import WriteOptions
from numerai_sequence.ordering.eras import shard_of_era, sort_eras
from numerai_sequence.writing.shuffle_windows import Placement, plan_windows

WINDOW_BYTES = 256 << 20


def ragged(eras, rows=5000):
    """Eras by name, out of order, each of another size."""
    numbers = np.random.default_rng(eras).permutation(eras) + 1
    return {f"{number:04d}": int(rows // 2 + number * 7919 % rows) for number in numbers}


def make(era_rows, features=1050, **options):
    return list(plan_windows(era_rows, features, WriteOptions(**options)))


def by_shard(windows):
    return {
        shard: list(group) for shard, group in groupby(windows, key=lambda window: window.shard)
    }


@pytest.mark.parametrize("mix_eras", [None, 1, 2, 36])
@pytest.mark.parametrize("num_shards", [1, 3, 16])
@pytest.mark.parametrize("eras", [0, 1, 2, 50, 574])
def test_each_era_is_in_one_window_of_its_shard_in_the_order_of_time(eras, num_shards, mix_eras):
    era_rows = ragged(eras) | {"X": 7000}
    windows = make(era_rows, 3555, num_shards=num_shards, mix_eras=mix_eras, encoding="int8")
    shards = by_shard(windows)
    assert list(shards) == sorted({shard_of_era(era, num_shards) for era in era_rows})
    for shard, inside in shards.items():
        expected = [era for era in sort_eras(era_rows) if shard_of_era(era, num_shards) == shard]
        assert [era for window in inside for era in window.eras] == expected
        assert [window.number for window in inside] == list(range(len(inside)))
        for window in inside:
            assert window.eras
            assert window.rows == sum(era_rows[era] for era in window.eras)


@pytest.mark.parametrize("mix_eras", [1, 2, 5, 36, 1000])
@pytest.mark.parametrize("num_shards", [1, 3, 16])
def test_windows_are_the_fewest_of_mix_eras_and_alike(mix_eras, num_shards):
    for inside in by_shard(make(ragged(101), num_shards=num_shards, mix_eras=mix_eras)).values():
        sizes = [len(window.eras) for window in inside]
        assert max(sizes) <= mix_eras
        assert len(sizes) == (sum(sizes) + mix_eras - 1) // mix_eras
        assert max(sizes) - min(sizes) <= 1


def test_mix_of_one_keeps_each_era_together():
    windows = make(ragged(20), num_shards=3, mix_eras=1)
    assert sorted(window.eras for window in windows) == [(f"{era:04d}",) for era in range(1, 21)]


@pytest.mark.parametrize(
    ("features", "encoding", "eras_of_windows"),
    [
        (1050, "packed", [36]),  # 350 bytes a row: 160 eras would fit
        (3555, "packed", [36]),  # 1,185 bytes: 47 eras
        (3555, "int8", [12, 12, 12]),  # 3,555 bytes: 15 eras
        (20_000, "int8", [2] * 18),  # 20,000 bytes: 2.8 eras
        (100_000, "int8", [1] * 36),  # 100,000 bytes: not one era
    ],
)
def test_windows_hold_as_much_as_256_mb_unless_told(features, encoding, eras_of_windows):
    era_rows = {f"{era:04d}": 4784 for era in range(36)}
    windows = make(era_rows, features, encoding=encoding, num_shards=1)
    assert [len(window.eras) for window in windows] == eras_of_windows


def test_window_of_exactly_256_mb_is_not_too_large():
    era_rows = {f"{era:04d}": 4096 for era in range(8)}  # of 16 kB each: 64 MB an era
    for features, eras_of_windows in ((16384, [4, 4]), (16385, [2, 3, 3])):
        windows = make(era_rows, features, encoding="int8", num_shards=1)
        assert [len(window.eras) for window in windows] == eras_of_windows


@pytest.mark.parametrize("num_shards", [1, 4])
@pytest.mark.parametrize("features", [1050, 3555, 9000, 30_000, 10**9])
def test_window_of_several_eras_fits_into_256_mb(features, num_shards):
    windows = make(ragged(300), features, encoding="int8", num_shards=num_shards)
    for window in windows:
        assert len(window.eras) == 1 or window.rows * features <= WINDOW_BYTES
    for inside in by_shard(windows).values():
        sizes = [len(window.eras) for window in inside]
        assert max(sizes) - min(sizes) <= 1


def place(eras, window_of, chunk_rows, *, pieces=1, as_table=False):
    """Write rows 0.. where `Placement` says; return each window's rows and the number of parts."""
    windows = [window_of[era] for era in eras]
    sizes = np.bincount(windows)
    written = [np.full(size, -1) for size in sizes]
    filled = np.zeros(len(sizes), np.int64)
    parts = 0
    for first in range(0, len(eras), chunk_rows):
        rows = np.arange(first, min(first + chunk_rows, len(eras)))
        cut = np.array_split(np.array(eras[first : first + chunk_rows], object), pieces)
        chunked = pa.chunked_array([pa.array(piece, pa.string()) for piece in cut])
        placement = Placement(chunked, window_of, filled)
        if as_table:
            rows = placement.arrange(pa.table({"row": rows}))["row"].to_numpy()
        else:
            rows = placement.arrange(rows)
        for part in placement.parts:
            target = written[part.window][part.row : part.row + part.stop - part.start]
            assert (target == -1).all(), "two rows at one place"
            target[:] = rows[part.start : part.stop]
        parts += len(placement.parts)
    assert filled.tolist() == sizes.tolist()
    return written, parts


EIGHT = [f"{era:04d}" for era in range(8)]
WINDOW_OF = {era: number * 3 % 8 // 2 for number, era in enumerate(EIGHT)}  # two eras each
ERAS = {
    "one after another": [era for era in EIGHT for _ in range(700)],
    "backwards": [era for era in reversed(EIGHT) for _ in range(700)],
    "in turn": EIGHT * 700,
    "at random": np.random.default_rng(0).choice(EIGHT, 5000).tolist() + EIGHT,
    "few rows": EIGHT,
}


@pytest.mark.parametrize("as_table", [False, True], ids=["array", "table"])
@pytest.mark.parametrize("pieces", [1, 3])
@pytest.mark.parametrize("chunk_rows", [1, 100, 777, 5000, 10**6])
@pytest.mark.parametrize("eras", ERAS.values(), ids=ERAS)
def test_rows_of_a_window_keep_the_order_of_the_source(eras, chunk_rows, pieces, as_table):
    if chunk_rows == 1:
        eras = eras[::97] + EIGHT
    written, _ = place(eras, WINDOW_OF, chunk_rows, pieces=pieces, as_table=as_table)
    for window, rows in enumerate(written):
        expected = [row for row, era in enumerate(eras) if WINDOW_OF[era] == window]
        assert rows.tolist() == expected


def test_rows_go_in_few_parts_however_eras_are_interleaved():
    for eras in ERAS.values():
        _, parts = place(eras, WINDOW_OF, 10**6)
        assert parts <= len(EIGHT)
