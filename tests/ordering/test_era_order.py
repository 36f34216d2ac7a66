"""Era order: each era whole in one batch, in an order of the seed and the epoch."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from numerai_sequence.ordering.era_order import EraOrder

ERA_SIZES = [[], [3], [2, 5, 1, 4], [1] * 9]


def era_rows(sizes):
    """Rows of eras that lie mixed in the files: every era's are ascending."""
    eras = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    return np.argsort(eras, kind="stable").astype(np.uint32), eras


@pytest.mark.parametrize("sizes", ERA_SIZES, ids=str)
@pytest.mark.parametrize("batch_size", [1, 2, 100])
@pytest.mark.parametrize("seed", [None, 0, 7])
def test_each_era_is_whole_in_one_batch(sizes, batch_size, seed):
    rows, eras = era_rows(sizes)
    counts = np.array(sizes, np.int64)
    for epoch in range(2):
        order = EraOrder(rows, counts, seed=seed, epoch=epoch, batch_size=batch_size)
        seen = []
        for number in range(-(-len(sizes) // batch_size)):
            batch = order.batch(number)
            assert batch.dtype == np.int64
            assert (np.diff(batch) > 0).all()
            assert order.size(number) == len(batch)
            inside = sorted(set(eras[batch]))
            assert len(inside) <= batch_size
            assert batch.tolist() == np.flatnonzero(np.isin(eras, inside)).tolist()
            group, ranks = order.group_with_positions(number)
            assert group[ranks[order.places(number)]].tolist() == batch.tolist()
            seen += inside
        assert sorted(seen) == list(range(len(sizes)))
        if seed is None:
            assert seen == list(range(len(sizes)))


def test_order_of_eras_is_of_the_seed_and_the_epoch():
    rows, _ = era_rows([1] * 40)
    orders = {}
    for seed, epoch in itertools.product((0, 1), (0, 1)):
        order = EraOrder(rows, np.ones(40, np.int64), seed=seed, epoch=epoch, batch_size=1)
        orders[seed, epoch] = tuple(int(order.batch(number)[0]) for number in range(40))
    assert len(set(orders.values())) == 4
    again = EraOrder(rows, np.ones(40, np.int64), seed=1, epoch=1, batch_size=1)
    assert orders[1, 1] == tuple(int(again.batch(number)[0]) for number in range(40))
