"""Batchings: what each says of batches of the same few eras."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from numerai_sequence.ordering.batch_units import BATCH_BY, PREDICT_BY
from numerai_sequence.ordering.distributed_ranks import RankOrder, Share

SIZES = np.array([3, 5, 2])
SELECTED = SimpleNamespace(
    rows=10,
    eras=("0001", "0002", "0003"),
    by_era=(np.arange(10, dtype=np.uint32), SIZES),
    spans=lambda: [(0, 4), (4, 10)],
)

each = pytest.mark.parametrize("name", BATCH_BY)


def make_order(name, size, seed=0):
    return BATCH_BY[name].order(
        SELECTED, seed=seed, epoch=1, batch_size=size, run_rows=1, group_rows=size
    )


@each
@pytest.mark.parametrize("size", [1, 2, 3])
def test_an_epoch_has_each_row_once(name, size):
    batching = BATCH_BY[name]
    share = Share(batching.units(SELECTED), size)
    order = make_order(name, size)
    batches = [order.batch(number) for number in range(share.steps)]
    assert sorted(np.concatenate(batches)) == list(range(10))
    assert [order.size(number) for number in range(share.steps)] == [len(b) for b in batches]
    assert max(map(len, batches)) <= batching.most_rows(SELECTED, size)
    if batching.has_equal_batches:
        assert len({len(batch) for batch in batches[:-1]}) <= 1


@each
def test_two_ranks_have_each_row_once(name):
    shares = [Share(BATCH_BY[name].units(SELECTED), 1, rank=rank, world_size=2) for rank in (0, 1)]
    orders = [RankOrder(make_order(name, 1), share) for share in shares]
    rows = [
        row
        for order, share in zip(orders, shares, strict=True)
        for number in range(share.steps)
        for row in order.batch(number)
    ]
    assert sorted(rows) == list(range(10))


@pytest.mark.parametrize(("name", "rows"), [("rows", 2), ("era", 8)])
def test_without_a_seed_the_order_is_that_of_the_files_or_of_time(name, rows):
    assert make_order(name, 2, seed=None).batch(0).tolist() == list(range(rows))


@each
def test_a_model_is_run_on_rows_or_on_whole_eras(name):
    assert BATCH_BY[name].predict_by in PREDICT_BY


def test_sizes_are_those_that_a_batch_can_have():
    share = Share(10, 4)
    assert BATCH_BY["rows"].sizes(SELECTED, share, None) == [4, 2]
    assert BATCH_BY["rows"].sizes(SELECTED, share, 1) == [4]
    assert BATCH_BY["era"].sizes(SELECTED, Share(3, 1), 0) == [3, 5, 2]


def test_the_default_comes_first():
    assert next(iter(BATCH_BY)) == "rows"
