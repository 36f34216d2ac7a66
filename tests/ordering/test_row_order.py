"""Order: every row once, the same for the same numbers, and a fair shuffle."""

from __future__ import annotations

import itertools
import pickle
from collections import Counter

import numpy as np
import pytest

from numerai_sequence.ordering import row_order as order_module
from numerai_sequence.ordering.row_order import _Feistel, epoch_order, order_bytes

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
GROUPS = [1, 6, 10, 1000]
SEEDS = [None, 0, 5]
MANY = [(0, 1000), (1000, 1003), (2000, 2777), (5000, 6001)]
everywhere = pytest.mark.parametrize("spans", SPANS, ids=str)
each_run = pytest.mark.parametrize("run_rows", RUNS)
each_group = pytest.mark.parametrize("group_rows", GROUPS)
each_seed = pytest.mark.parametrize("seed", SEEDS)


@pytest.fixture(params=["kept", "computed"])
def permutation(request, monkeypatch):
    """Orders of few rows made in both ways: as an array, and as those of many rows are."""
    if request.param == "computed":
        monkeypatch.setattr(order_module, "_ARRAY_LENGTH", 0)


def rows_of(spans):
    return [row for start, stop in spans for row in range(start, stop)]


def one_by_one(order, count):
    """The rows of an epoch in its order: batches of one row."""
    return [int(row) for place in range(count) for row in order.rows(place, place + 1)]


def make(spans, *, seed=0, **options):
    """The rows of an epoch, group by group, each in its own order."""
    order = epoch_order(spans, seed=seed, **options)
    return [int(row) for number in range(order.groups) for row in order.group(number)]


@pytest.mark.slow
@everywhere
@each_run
@each_seed
def test_each_row_comes_once(spans, run_rows, seed, permutation):
    expected = sorted(rows_of(spans))
    for epoch, batch_size, batches in itertools.product((0, 1), (1, 7, 1000), (1, 3)):
        order = epoch_order(
            spans, seed=seed, epoch=epoch, run_rows=run_rows, group_rows=batches * batch_size
        )
        assert order.count == len(expected)
        seen = []
        for start in range(0, order.count, batch_size):
            stop = min(start + batch_size, order.count)
            rows = order.rows(start, stop)
            assert rows.shape == (stop - start,)
            seen += rows.tolist()
        assert sorted(seen) == expected


@everywhere
@each_run
@each_group
def test_groups_hold_each_row_once(spans, run_rows, group_rows, permutation):
    order = epoch_order(spans, seed=5, epoch=2, run_rows=run_rows, group_rows=group_rows)
    groups = [order.group(number) for number in range(order.groups)]
    assert sorted(row for group in groups for row in group.tolist()) == sorted(rows_of(spans))
    assert {group.dtype for group in groups} <= {np.dtype(np.int64)}
    sizes = [len(group) for group in groups]
    assert all(size == group_rows for size in sizes[:-1])
    assert sum(sizes) == order.count
    assert all(1 <= size <= group_rows for size in sizes)


@everywhere
@each_run
@each_group
def test_rows_of_a_placed_group_ascend_and_ranks_say_where_they_are(spans, run_rows, group_rows):
    order = epoch_order(spans, seed=5, epoch=2, run_rows=run_rows, group_rows=group_rows)
    for number in range(order.groups):
        rows, ranks = order.group_with_positions(number)
        assert (rows.dtype, ranks.dtype) == (np.int64, np.int64)
        assert (np.diff(rows) > 0).all()
        np.testing.assert_array_equal(rows[ranks], order.group(number))


@everywhere
@each_run
@each_seed
def test_any_cut_of_the_epoch_is_its_rows_ascending(spans, run_rows, seed):
    options = {"seed": seed, "epoch": 3, "run_rows": run_rows, "group_rows": 10}
    order, sequence = epoch_order(spans, **options), make(spans, **options)
    cuts = list(itertools.combinations(range(len(sequence) + 1), 2))
    for start, stop in cuts[:: max(1, len(cuts) // 60)]:
        rows = order.rows(start, stop)
        assert rows.dtype == np.int64
        assert rows.tolist() == sorted(sequence[start:stop])


@each_run
def test_cut_without_rows_is_empty(run_rows):
    order = epoch_order([(0, 7), (20, 25)], seed=0, run_rows=run_rows, group_rows=4)
    for place in range(13):
        assert order.rows(place, place).tolist() == []


@each_run
@each_seed
def test_order_of_no_rows_gives_none(run_rows, seed):
    order = epoch_order([(3, 3)], seed=seed, run_rows=run_rows)
    assert (order.count, order.groups) == (0, 0)
    assert order.rows(0, 0).tolist() == []


def runs_of(spans, run_rows):
    """The whole runs of the spans, and the rows that are left over."""
    runs, left_over = [], []
    for start, stop in spans:
        whole = (stop - start) // run_rows * run_rows
        runs += [range(row, row + run_rows) for row in range(start, start + whole, run_rows)]
        left_over += range(start + whole, stop)
    return runs, left_over


@pytest.mark.parametrize("spans", [*SPANS, MANY], ids=str)
@pytest.mark.parametrize("run_rows", [2, 3, 8, 64])
@pytest.mark.parametrize("group_rows", [24, 100, 640])
def test_group_is_whole_runs_and_its_share_of_what_is_left_over(
    spans, run_rows, group_rows, permutation
):
    runs, left_over = runs_of(spans, run_rows)
    order = epoch_order(spans, seed=4, run_rows=run_rows, group_rows=group_rows)
    taken = Counter()
    for number in range(order.groups):
        rows = set(order.group(number).tolist())
        share = len(left_over) * len(rows) / order.count
        assert abs(len(rows & set(left_over)) - share) <= 1
        parts = [len(rows.intersection(run)) for run in runs]
        cut = [part for part in parts if 0 < part < run_rows]
        assert len(cut) <= 2  # where the group begins, and where it ends
        taken.update({run[0]: 1 for run, part in zip(runs, parts, strict=True) if part})
    assert set(taken) == {run[0] for run in runs}
    assert sum(taken.values()) <= len(runs) + max(0, order.groups - 1)


def test_batch_takes_few_rows_of_each_run_of_its_group():
    run_rows, batch_size = 64, 100
    order = epoch_order([(0, 64_000)], seed=1, run_rows=run_rows, group_rows=64 * batch_size)
    for start in range(0, 6400, batch_size):
        runs = np.unique(order.rows(start, start + batch_size) // run_rows, return_counts=True)[1]
        # 100 of 6,400 rows in 100 runs: about 63 runs, as in 100 draws of 100 runs.
        assert len(runs) > 45
        assert runs.max() <= 10
    assert len(np.unique(order.group(0) // run_rows)) <= 101


def test_rows_of_a_group_are_shuffled_uniformly():
    draws, group_rows = 600, 24
    counts = Counter()
    for epoch in range(draws):
        order = epoch_order([(0, 24)], seed=2, epoch=epoch, run_rows=4, group_rows=group_rows)
        counts.update(enumerate(order.group(0).tolist()))
    assert_uniform(counts, group_rows**2, draws * group_rows)


def test_groups_of_an_epoch_are_shuffled_differently():
    order = epoch_order([(0, 4000)], seed=0, run_rows=100, group_rows=1000)
    places = {tuple(np.argsort(order.group(number))) for number in range(4)}
    assert len(places) == 4
    order = epoch_order([(0, 4000)], seed=0, run_rows=1000, group_rows=1000)  # one run each
    shuffles = {tuple(order.group(number) % 1000) for number in range(4)}
    assert len(shuffles) == 4


def test_orders_of_single_rows_do_not_depend_on_the_groups(permutation):
    orders = {tuple(make(MANY, seed=3, group_rows=size)) for size in (1, 7, 100, 10**6)}
    assert len(orders) == 1


@each_run
def test_rows_are_no_view_of_the_order(run_rows):
    order = epoch_order([(0, 50)], seed=0, run_rows=run_rows, group_rows=20)
    order.rows(10, 30)[:] = -1
    order.group(1)[:] = -1
    assert sorted(one_by_one(order, 50)) == list(range(50))


@each_run
def test_order_is_the_same_every_time(run_rows, permutation):
    spans, options = [(0, 100), (200, 250)], {"run_rows": run_rows, "group_rows": 40}
    np.random.seed(1)  # what other code does with it must not matter
    first = make(spans, seed=3, epoch=5, **options)
    np.random.seed(2)
    make(spans, seed=3, epoch=6, **options)
    assert make(spans, seed=3, epoch=5, **options) == first


@each_run
def test_groups_come_the_same_in_any_order(run_rows, permutation):
    order = epoch_order(MANY, seed=3, run_rows=run_rows, group_rows=400)
    expected = [order.group(number).tolist() for number in range(order.groups)]
    backwards = [order.group(number).tolist() for number in reversed(range(order.groups))]
    assert backwards[::-1] == expected


def test_numpys_global_generator_is_left_alone():
    np.random.seed(1)
    expected = np.random.random(3)
    np.random.seed(1)
    make([(0, 100)], run_rows=4)
    np.testing.assert_array_equal(np.random.random(3), expected)


@pytest.mark.parametrize("run_rows", [1, 4])
def test_every_seed_and_every_epoch_has_an_order_of_its_own(run_rows, permutation):
    pairs = list(itertools.product(range(5), range(5)))
    orders, first_groups = set(), set()
    for seed, epoch in pairs:
        order = make([(0, 200)], seed=seed, epoch=epoch, run_rows=run_rows, group_rows=40)
        orders.add(tuple(order))
        first_groups.add(frozenset(order[:40]))
    assert len(orders) == len(first_groups) == len(pairs)


@pytest.mark.parametrize("run_rows", [1, 4])
def test_epoch_is_0_unless_given(run_rows):
    order = epoch_order([(0, 60)], seed=9, run_rows=run_rows)
    assert one_by_one(order, 60) == make([(0, 60)], seed=9, epoch=0, run_rows=run_rows)


@everywhere
@each_run
@each_group
def test_without_a_seed_the_rows_come_as_they_are(spans, run_rows, group_rows):
    for epoch in (0, 7):
        options = {"epoch": epoch, "run_rows": run_rows, "group_rows": group_rows}
        assert make(spans, seed=None, **options) == rows_of(spans)


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
    """Groups of one run each: their rows are those of the runs, in a uniform order."""
    draws, spans = 2400, [(0, 4), (7, 11)]
    counts = Counter()
    for epoch in range(draws):
        order = epoch_order(spans, seed=0, epoch=epoch, run_rows=2, group_rows=2)
        counts[tuple(int(min(order.group(number))) for number in range(4))] += 1
    assert set(counts) == set(itertools.permutations([0, 2, 7, 9]))
    assert_uniform(counts, 24, draws)


@pytest.mark.parametrize("run_rows", [1, 4])
def test_each_row_is_as_often_in_each_batch(run_rows):
    draws, rows, batch = 500, 60, 6
    counts = Counter()
    for epoch in range(draws):
        order = epoch_order(
            [(0, 20), (30, 70)], seed=1, epoch=epoch, run_rows=run_rows, group_rows=60
        )
        for number in range(rows // batch):
            counts.update(
                (number, int(row)) for row in order.rows(number * batch, (number + 1) * batch)
            )
    assert_uniform(counts, rows * rows // batch, draws * rows)


LENGTHS = sorted({2**power + more for power in range(1, 15) for more in (-1, 0, 1)} | {1000, 4097})


def feistel(length, *numbers):
    return _Feistel(length, np.random.default_rng(numbers))


@pytest.mark.parametrize("length", LENGTHS)
def test_computed_permutation_holds_each_number_once(length):
    for seed in range(3):
        numbers = feistel(length, seed)(0, length)
        assert numbers.dtype == np.int64
        np.testing.assert_array_equal(np.sort(numbers), np.arange(length))


def test_computed_permutation_is_the_same_in_any_pieces():
    permutation = feistel(5000, 1, 2)
    whole = permutation(0, 5000)
    rng = np.random.default_rng(0)
    for _ in range(20):
        start, stop = sorted(rng.integers(0, 5001, 2))
        np.testing.assert_array_equal(permutation(start, stop), whole[start:stop])
    np.testing.assert_array_equal(feistel(5000, 1, 2)(0, 5000), whole)


def test_computed_permutation_differs_by_its_seed():
    firsts = {tuple(feistel(10**9, *pair)(0, 20)) for pair in itertools.product(range(9), range(9))}
    assert len(firsts) == 81


@pytest.mark.parametrize("length", [1000, 4096, 4097])
def test_computed_permutation_looks_uniform(length):
    """Where each number goes, and how far its neighbours go apart, over many seeds."""
    draws, parts = 60, 20
    places, steps = Counter(), Counter()
    for seed in range(draws):
        numbers = feistel(length, seed)(0, length)
        at = np.arange(length) * parts // length
        places.update(zip(at.tolist(), (numbers * parts // length).tolist(), strict=True))
        apart = np.diff(numbers) % length
        steps.update((apart * 50 // length).tolist())
    sizes = np.bincount(np.arange(length) * parts // length)
    expected = {
        (i, j): draws * sizes[i] * sizes[j] / length for i in range(parts) for j in range(parts)
    }
    chi_square = sum((places[cell] - mean) ** 2 / mean for cell, mean in expected.items())
    freedom = (parts - 1) ** 2  # the sums of rows and columns are given
    assert abs(chi_square - freedom) < 4 * np.sqrt(2 * freedom)
    assert_uniform(steps, 50, sum(steps.values()))


def test_rows_beyond_the_kept_permutation_come_once(monkeypatch):
    monkeypatch.setattr(order_module, "_ARRAY_LENGTH", 999)
    kept = epoch_order([(0, 999)], seed=0)
    computed = epoch_order([(0, 1000)], seed=0)
    assert (order_bytes(999, 1), order_bytes(1000, 1)) == (4 * 999, 0)
    for order in (kept, computed):
        assert sorted(one_by_one(order, order.count)) == list(range(order.count))


BILLION = [(0, 400_000_001), (400_000_001, 700_000_000), (800_000_000, 1_100_000_001)]


@pytest.mark.parametrize("run_rows", [1, 4, 64])
def test_order_of_a_billion_rows_takes_next_to_no_memory(run_rows):
    order = epoch_order(BILLION, seed=0, run_rows=run_rows, group_rows=16_000)
    assert order.count == 10**9 + 1
    assert order.groups == 62_501
    assert order_bytes(order.count, run_rows) == 0
    assert len(pickle.dumps(order)) < 5000
    numbers = [0, 1, 31_000, 62_498, 62_499, 62_500]
    rows = np.concatenate([order.group(number) for number in numbers])
    assert len(rows) == len(np.unique(rows)) == 5 * 16_000 + 1
    is_valid = [(start <= rows) & (rows < stop) for start, stop in BILLION]
    assert np.sum(is_valid) == len(rows)
    # Each of the five whole groups takes its share of each span.
    shares = [part.mean() for part in is_valid]
    np.testing.assert_allclose(shares, [0.4, 0.3, 0.3], atol=0.02 * np.sqrt(run_rows))


def test_kept_order_takes_4_bytes_a_run():
    for run_rows in (1, 8):
        runs = 8000 // run_rows
        assert order_bytes(8000, run_rows) == 4 * runs
        order = epoch_order([(0, 8000)], seed=0, run_rows=run_rows, group_rows=100)
        assert 4 * runs < len(pickle.dumps(order)) < 4 * runs + 2000


@pytest.mark.parametrize("run_rows", [1, 4])
def test_batches_and_places_are_those_of_the_rows(run_rows):
    order = epoch_order([(0, 50), (60, 95)], seed=3, run_rows=run_rows, batch_size=6, group_rows=24)
    assert order.batches_per_group == 4
    for number in range(15):
        stop = min(6 * number + 6, 85)
        assert order.size(number) == stop - 6 * number
        assert order.batch(number).tolist() == order.rows(6 * number, stop).tolist()
        rows, ranks = order.group_with_positions(number // 4)
        placed = np.sort(rows[ranks[order.places(number)]])
        assert placed.tolist() == order.batch(number).tolist()
