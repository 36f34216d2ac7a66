"""Order: every row once, the same for the same numbers, and a fair shuffle."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest

from numerai_sequence.order import batch_count, epoch_order

SPANS = [
    [],
    [(0, 0)],
    [(0, 1)],
    [(0, 40)],
    [(7, 8)],
    [(5, 9), (20, 53)],
    [(0, 7), (7, 7), (7, 20), (20, 21)],
    [(3, 3), (100, 116), (50, 77), (0, 2)],
    [(start, start + 3) for start in range(0, 60, 3)],
    [(2**32 - 9, 2**32 - 2), (2**32 - 2, 2**32 + 7)],
]
RUNS = [1, 2, 3, 8, 1000]
SEEDS = [None, 0, 5]
everywhere = pytest.mark.parametrize("spans", SPANS, ids=str)
each_run = pytest.mark.parametrize("run_rows", RUNS)
each_seed = pytest.mark.parametrize("seed", SEEDS)


def rows_of(spans):
    return [row for start, stop in spans for row in range(start, stop)]


def one_by_one(order, count):
    """The rows of an epoch in its order: batches of one row."""
    return [int(row) for place in range(count) for row in order.rows(place, place + 1)]


def make(spans, *, seed=0, epoch=0, run_rows=1):
    return one_by_one(
        epoch_order(spans, seed=seed, epoch=epoch, run_rows=run_rows), len(rows_of(spans))
    )


@everywhere
@each_run
@each_seed
def test_each_row_comes_once(spans, run_rows, seed):
    count = len(rows_of(spans))
    for epoch, batch_size in itertools.product((0, 1), (1, 2, 7, 10, 1000)):
        order = epoch_order(spans, seed=seed, epoch=epoch, run_rows=run_rows)
        seen = []
        for start in range(0, count, batch_size):
            stop = min(start + batch_size, count)
            rows = order.rows(start, stop)
            assert rows.shape == (stop - start,)
            seen += rows.tolist()
        assert sorted(seen) == sorted(rows_of(spans))


@everywhere
@each_run
@each_seed
def test_any_cut_of_the_epoch_is_its_rows_ascending(spans, run_rows, seed):
    order = epoch_order(spans, seed=seed, epoch=3, run_rows=run_rows)
    sequence = one_by_one(order, len(rows_of(spans)))
    for start, stop in itertools.combinations_with_replacement(range(len(sequence) + 1), 2):
        rows = order.rows(start, stop)
        assert rows.dtype == np.int64
        assert rows.tolist() == sorted(sequence[start:stop])


@everywhere
@each_run
def test_runs_are_whole_and_never_cross_a_span(spans, run_rows):
    expected = {
        start: list(range(start, min(start + run_rows, stop)))
        for first, stop in spans
        for start in range(first, stop, run_rows)
    }
    sequence = make(spans, seed=4, run_rows=run_rows)
    seen = []
    while sequence:
        run = expected[sequence[0]]
        assert sequence[: len(run)] == run
        seen.append(run[0])
        del sequence[: len(run)]
    assert sorted(seen) == sorted(expected)


@each_run
def test_rows_are_no_view_of_the_order(run_rows):
    order = epoch_order([(0, 50)], seed=0, run_rows=run_rows)
    order.rows(10, 30)[:] = -1
    assert sorted(one_by_one(order, 50)) == list(range(50))


@each_run
def test_order_is_the_same_every_time(run_rows):
    spans = [(0, 100), (200, 250)]
    np.random.seed(1)  # what other code does with it must not matter
    first = make(spans, seed=3, epoch=5, run_rows=run_rows)
    np.random.seed(2)
    make(spans, seed=3, epoch=6, run_rows=run_rows)
    assert make(spans, seed=3, epoch=5, run_rows=run_rows) == first


def test_numpys_global_generator_is_left_alone():
    np.random.seed(1)
    expected = np.random.random(3)
    np.random.seed(1)
    make([(0, 100)], run_rows=4)
    np.testing.assert_array_equal(np.random.random(3), expected)


@pytest.mark.parametrize("run_rows", [1, 4])
def test_every_seed_and_every_epoch_has_an_order_of_its_own(run_rows):
    pairs = list(itertools.product(range(5), range(5)))
    orders = {
        tuple(make([(0, 200)], seed=seed, epoch=epoch, run_rows=run_rows)) for seed, epoch in pairs
    }
    assert len(orders) == len(pairs)


@pytest.mark.parametrize("run_rows", [1, 4])
def test_epoch_is_0_unless_given(run_rows):
    order = epoch_order([(0, 60)], seed=9, run_rows=run_rows)
    assert one_by_one(order, 60) == make([(0, 60)], seed=9, epoch=0, run_rows=run_rows)


@everywhere
@each_run
def test_without_a_seed_the_rows_come_as_they_are(spans, run_rows):
    for epoch in (0, 7):
        assert make(spans, seed=None, epoch=epoch, run_rows=run_rows) == rows_of(spans)


def assert_uniform(counts, cells, draws):
    expected = draws / cells
    chi_square = sum((counts[cell] - expected) ** 2 / expected for cell in counts)
    chi_square += expected * (cells - len(counts))
    freedom = cells - 1
    assert abs(chi_square - freedom) < 4 * np.sqrt(2 * freedom)


@pytest.mark.parametrize("by", ["epoch", "seed"])
@pytest.mark.parametrize("spans", [[(0, 4)], [(0, 1), (5, 8)]], ids=str)
def test_run_of_one_row_is_a_uniform_shuffle(by, spans):
    draws = 2400
    options = ({"seed": 0, "epoch": 0} | {by: number} for number in range(draws))
    counts = Counter(tuple(make(spans, **option)) for option in options)
    assert set(counts) == set(itertools.permutations(rows_of(spans)))
    assert_uniform(counts, 24, draws)


def test_runs_are_shuffled_uniformly_over_all_spans():
    draws = 2400
    counts = Counter(
        tuple(make([(0, 5), (7, 10)], epoch=epoch, run_rows=2)) for epoch in range(draws)
    )
    runs = [(0, 1), (2, 3), (4,), (7, 8), (9,)]
    orders = {sum(order, ()) for order in itertools.permutations(runs)}
    assert set(counts) == orders
    assert_uniform(counts, len(orders), draws)


def test_each_row_is_as_often_in_each_batch():
    draws, rows, batch = 500, 60, 6
    counts = Counter()
    for epoch in range(draws):
        order = epoch_order([(0, 20), (30, 70)], seed=1, epoch=epoch)
        for number in range(rows // batch):
            counts.update(
                (number, int(row)) for row in order.rows(number * batch, (number + 1) * batch)
            )
    assert_uniform(counts, rows * rows // batch, draws * rows)


def test_single_rows_take_4_bytes_each_until_they_need_8():
    assert epoch_order([(0, 1000)], seed=0).starts.nbytes == 4000
    assert epoch_order([(2**32 - 11, 2**32 - 1)], seed=0).starts.nbytes == 40
    assert epoch_order([(2**32 - 9, 2**32 + 1)], seed=0).starts.nbytes == 80


def test_run_costs_one_number_and_no_row_does():
    order = epoch_order([(0, 10**6)], seed=0, run_rows=1000)
    assert order.starts.shape == order.ends.shape == (1000,)
    assert order.ends[-1] == 10**6


@pytest.mark.parametrize("rows", [0, 1, 6, 7, 8, 13, 14, 15])
@pytest.mark.parametrize("batch_size", [1, 2, 7, 8, 100])
def test_last_batch_is_counted_unless_dropped(rows, batch_size):
    batches = [range(rows)[i : i + batch_size] for i in range(0, rows, batch_size)]
    assert batch_count(rows, batch_size) == len(batches)
    whole = sum(len(batch) == batch_size for batch in batches)
    assert batch_count(rows, batch_size, drop_remainder=True) == whole
