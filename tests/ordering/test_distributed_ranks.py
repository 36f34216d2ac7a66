"""Ranks: together they read the epoch that one process reads, and each reads its own rows alone."""

from __future__ import annotations

import pickle
from itertools import chain, groupby

import numpy as np
import pytest
from numerai_tables import row_numbers
from page_cache import cached, drop, is_linux
from shard_sets import write_set

from numerai_sequence import NumeraiSequence
from numerai_sequence.ordering.distributed_ranks import RankOrder, Share, check_rank
from numerai_sequence.ordering.era_order import EraOrder
from numerai_sequence.ordering.row_order import epoch_order
from numerai_sequence.reading.selection import Selection

WORLD_SIZES = range(1, 65)


def whole_order(rows, batch_size, **options):
    return epoch_order([(0, rows)], batch_size=batch_size, **{"group_rows": batch_size, **options})


def sizes_of(share):
    return [share.size(step) for step in range(share.steps)]


def batches_of(order, rows, batch_size, world_size, **options):
    """Of each rank its batches."""
    shares = [
        Share(rows, batch_size, rank=rank, world_size=world_size, **options)
        for rank in range(world_size)
    ]
    orders = [RankOrder(order, share) for share in shares]
    ranks = [
        [ranked.batch(step) for step in range(share.steps)]
        for ranked, share in zip(orders, shares, strict=True)
    ]
    assert [list(map(len, batches)) for batches in ranks] == list(map(sizes_of, shares))
    return ranks


@pytest.mark.slow
@pytest.mark.parametrize("world_size", WORLD_SIZES)
@pytest.mark.parametrize("batch_size", [1, 3, 10])
def test_each_row_is_once_in_a_batch_of_one_rank(world_size, batch_size):
    """In whole batches of the single epoch, and a part of what is left."""
    together = world_size * batch_size
    lefts = {0, 1, world_size - 1, world_size, world_size + 1, together - 1}
    for rows in {times * together + left for times in (0, 1, 3) for left in lefts}:
        if rows < world_size:
            continue
        order = whole_order(rows, batch_size, seed=7)
        whole = rows // together
        left = rows - whole * together
        ranks = batches_of(order, rows, batch_size, world_size)
        seen = np.concatenate([batch for batches in ranks for batch in batches])
        assert np.array_equal(np.sort(seen), np.arange(rows))
        assert {len(batches) for batches in ranks} == {whole + (left >= world_size)}
        for rank, batches in enumerate(ranks):
            adds_one = rank < left < world_size
            for step, batch in enumerate(batches[:whole]):
                expected = order.batch(rank * whole + step)
                if adds_one and step == whole - 1:
                    one_more = rows - left + rank
                    expected = np.append(expected, order.rows(one_more, one_more + 1))
                assert np.array_equal(batch, np.sort(expected))
            sizes = [len(batch) for batch in batches[whole:]]
            assert all(left // world_size <= size <= -(-left // world_size) for size in sizes)


def test_remainder_is_divided_by_hand():
    """10 rows to a batch, 3 ranks: first what is one batch more, then what is two rows more."""

    def places(rows, **options):
        order = whole_order(rows, 10, seed=None)
        ranks = batches_of(order, rows, 10, 3, **options)
        return [[batch.tolist() for batch in batches] for batches in ranks]

    blocks = [[[*range(start, start + 10)]] for start in (0, 10, 20)]
    assert places(30) == blocks
    assert places(41) == [
        [blocks[0][0], [30, 31, 32]],
        [blocks[1][0], [33, 34, 35, 36]],
        [blocks[2][0], [37, 38, 39, 40]],
    ]
    assert places(32) == [[[*blocks[0][0], 30]], [[*blocks[1][0], 31]], blocks[2]]
    assert places(3) == [[[0]], [[1]], [[2]]]
    assert places(59, drop_remainder=True) == blocks


@pytest.mark.parametrize("rows", [0, 1, 6, 7, 8, 13, 14, 15])
@pytest.mark.parametrize("batch_size", [1, 2, 7, 8, 100])
def test_last_batch_of_a_single_process_is_counted_unless_dropped(rows, batch_size):
    batches = [range(rows)[i : i + batch_size] for i in range(0, rows, batch_size)]
    assert Share(rows, batch_size).steps == len(batches)
    whole = sum(len(batch) == batch_size for batch in batches)
    assert Share(rows, batch_size, drop_remainder=True).steps == whole
    assert sizes_of(Share(rows, batch_size)) == [len(batch) for batch in batches]
    assert sizes_of(Share(rows, batch_size, drop_remainder=True)) == [batch_size] * whole


@pytest.mark.parametrize("run_rows", [1, 4])
@pytest.mark.parametrize("world_size", [1, 2, 3, 5, 8, 16])
@pytest.mark.parametrize("rows", [1000, 999, 965, 960, 961, 143])
def test_groups_are_whole_but_at_the_ends_of_a_block(rows, world_size, run_rows):
    order = whole_order(rows, 6, seed=3, run_rows=run_rows, group_rows=24)
    for rank in range(world_size):
        share = Share(rows, 6, rank=rank, world_size=world_size)
        ranked = RankOrder(order, share)
        groups = {}
        for step in range(share.steps):
            number = (step + ranked.group_offset) // 4
            group, ranks = groups.setdefault(number, ranked.group_with_positions(number))
            batch = ranked.batch(step)
            assert (np.diff(batch) > 0).all()
            assert ranked.size(step) == len(batch)
            assert np.array_equal(np.sort(group[ranks[ranked.places(step)]]), batch)
        own = np.concatenate([rows for rows, _ in groups.values()])
        assert len(own) == len(set(own.tolist())) == sum(map(ranked.size, range(share.steps)))
        for number in list(groups)[1:-1]:
            expected, _ = order.group_with_positions(share.first // 4 + number)
            assert np.array_equal(groups[number][0], expected)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_eras_are_divided_whole(batch_size):
    sizes = 1 + np.arange(23) * 7 % 5
    eras = np.random.default_rng(0).permutation(np.repeat(np.arange(23), sizes))
    rows = np.argsort(eras, kind="stable").astype(np.uint32)
    order = EraOrder(rows, sizes, seed=1, epoch=0, batch_size=batch_size)
    for world_size in range(1, 24):
        counts = []
        for rank in range(world_size):
            share = Share(23, batch_size, rank=rank, world_size=world_size)
            ranked = RankOrder(order, share)
            for step in range(share.steps):
                batch = ranked.batch(step)
                inside = np.unique(eras[batch])
                assert 1 <= len(inside) <= batch_size + (step == share.steps - 1)
                assert np.array_equal(batch, np.flatnonzero(np.isin(eras, inside)))
                assert ranked.size(step) == len(batch)
                group, ranks = ranked.group_with_positions(step)
                assert np.array_equal(np.sort(group[ranks[ranked.places(step)]]), batch)
                counts += inside.tolist()
        assert sorted(counts) == list(range(23))


@pytest.mark.parametrize(
    ("rank", "world_size"), [(-1, 2), (2, 2), (0, 0), (0, -1), (0.0, 2), (0, 2.0), (True, 2), "02"]
)
def test_rank_that_there_is_not_is_refused(rank, world_size):
    with pytest.raises(ValueError, match=f"found {rank!r} and {world_size!r}, expected whole"):
        check_rank(rank, world_size)


def test_rank_may_be_of_numpy():
    found = check_rank(np.int64(1), np.int32(2))
    assert found == (1, 2)
    assert [type(number) for number in found] == [int, int]


def test_fewer_units_than_ranks_are_refused_by_all_ranks():
    for rank in range(4):
        options = {"rank": rank, "world_size": 4}
        with pytest.raises(ValueError, match="4 ranks for 3 eras, expected at least one for each"):
            Share(3, 10, unit="eras", **options)
        with pytest.raises(
            ValueError, match="4 ranks for 39 rows, expected at least a batch of 10"
        ):
            Share(39, 10, drop_remainder=True, **options)
        assert Share(4, 10, **options).steps == 1
        assert Share(40, 10, drop_remainder=True, **options).steps == 1
    assert Share(0, 10).steps == 0  # a single process has an epoch of nothing
    assert Share(3, 10, drop_remainder=True).steps == 0


ROWS, FEATURES, ERAS, BATCH = 1037, 14, 23, 25


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    table = {"rows": ROWS, "features": FEATURES, "eras": ERAS, "missing_target": True}
    return write_set(tmp_path_factory.mktemp("ranks"), num_shards=4, mix_eras=2, **table)


@pytest.fixture
def small_groups(monkeypatch):
    """Let even this small set have many groups."""
    monkeypatch.setattr("numerai_sequence.batching.group_reader._GROUP_ROWS", 200)
    monkeypatch.setattr("numerai_sequence.reading.memory_budget._GROUP_BYTES", 1)


def rank_of(folder, rank, world_size, batch_size=BATCH, **options):
    options = {"target": None, "paging": "streaming", "seed": 5, **options}
    return NumeraiSequence(folder, batch_size, rank=rank, world_size=world_size, **options)


def numbers_of(batches):
    """The numbers of the rows of each batch, ascending."""
    xs = [batches[i] for i in range(len(batches))]
    return [sorted(row_numbers(x[0] if isinstance(x, tuple) else x).tolist()) for x in xs]


MODES = [
    {"run_rows": 1},
    {"run_rows": 4},
    {"run_rows": 4, "paging": "resident"},
    {"run_rows": 4, "memory_budget": "17MB"},  # no group fits
    {"run_rows": 1, "paging": "resident"},
    {"shuffle": False},
    {"batch_by": "era", "batch_size": 2},
    {"drop_remainder": True},
]


@pytest.mark.parametrize("world_size", [2, 3, 8])
@pytest.mark.parametrize("options", MODES, ids=str)
def test_ranks_together_are_the_single_epoch(folder, small_groups, world_size, options):
    single = rank_of(folder, 0, 1, **options)
    sequences = [rank_of(folder, rank, world_size, **options) for rank in range(world_size)]
    steps = len(sequences[0])
    units, size = (ERAS, 2) if "batch_by" in options else (ROWS, BATCH)
    whole = units // size // world_size
    for epoch in range(2):
        expected = numbers_of(single)
        ranks = []
        for sequence in sequences:
            assert len(sequence) == steps
            assert sequence.rows == ROWS
            ranks.append(numbers_of(sequence))
            assert numbers_of(sequence.one_pass()) == ranks[-1]
            one_pass = sequence.one_pass(shuffle=True)
            assert numbers_of(one_pass) == [ranks[-1][i] for i in one_pass._batches]
            sequence.on_epoch_end()
            assert sequence.epoch == epoch + 1
        for rank, found in enumerate(ranks):
            of_single = expected[rank * whole : (rank + 1) * whole]
            assert found[: steps - 1] == of_single[: steps - 1]
            assert set(found[-1]) >= set(of_single[steps - 1 :] and of_single[-1])
        seen = [number for found in ranks for batch in found for number in batch]
        if "drop_remainder" in options:
            assert {len(batch) for found in ranks for batch in found} == {BATCH}
            assert len(seen) == len(set(seen)) == steps * world_size * BATCH
        else:
            assert sorted(seen) == list(range(ROWS))
        single.on_epoch_end()


def test_shuffled_pass_of_a_rank_keeps_groups_together(folder, small_groups):
    sequence = rank_of(folder, 1, 3, shuffle=False)
    order = sequence._plan.order(0)
    assert (order.batches_per_group, order.group_offset) == (8, 5)
    numbers = sequence.one_pass(shuffle=True)._batches.tolist()
    assert sorted(numbers) == list(range(14))
    groups = [(number + 5) // 8 for number in numbers]
    assert len(list(groupby(groups))) == len(set(groups)) == 3
    assert numbers != sorted(numbers)


class Recording(Selection):
    """Knows which rows were read."""

    def gather(self, rows, *args, **options):
        self.read.extend(rows.tolist())
        return super().gather(rows, *args, **options)


@pytest.mark.parametrize("run_rows", [1, 4])
@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_a_rank_reads_its_own_rows_once_and_no_others(folder, small_groups, run_rows, world_size):
    reads = []
    for rank in range(world_size):
        sequence = rank_of(folder, rank, world_size, run_rows=run_rows)
        sequence._selection.__class__, sequence._selection.read = Recording, []
        batches = numbers_of(sequence.one_pass(shuffle=True))
        reads += sequence._selection.read
        assert len(sequence._selection.read) == sum(map(len, batches))
    assert sorted(reads) == list(range(ROWS))


@is_linux
@pytest.mark.parametrize("options", [{"run_rows": 16}, {"shuffle": False}], ids=str)
def test_about_an_eighth_of_the_pages_is_read(wide, small_groups, options):
    sequence = rank_of(wide, 2, 8, 100, **options)
    drop(sequence.shards.paths)
    one_pass = sequence.one_pass()
    for number in range(len(one_pass)):
        one_pass[number]
    share = np.mean([cached(path).mean() for path in sequence.shards.paths])
    assert 0.12 < share < 0.25


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    path = tmp_path_factory.mktemp("wide")
    return write_set(path, rows=20_000, features=600, num_shards=4, encoding="int8")


def test_whole_set_is_read_at_once_only_where_a_rank_reads_most_of_it(folder):
    for world_size, is_most in ((1, True), (2, True), (3, False)):
        sequence = rank_of(folder, 0, world_size, run_rows=1, paging="resident")
        assert sequence._plan.pager._warms is is_most


def test_run_rows_do_not_depend_on_memory(wide):
    def chosen(world_size):
        budgets = ("1GB", "30MB")
        return {
            rank_of(wide, 0, world_size, memory_budget=b, paging=p).run_rows
            for b in budgets
            for p in ("resident", "streaming")
        }

    assert chosen(1) == chosen(2)
    assert len(chosen(2)) == 1


def test_ranks_of_rows_with_a_target(folder):
    present = [number for number in range(ROWS) if number % 7 != 3]
    for policy, rows in (("drop", present), ("mask", list(range(ROWS)))):
        seen = {}
        for rank in range(3):
            sequence = rank_of(folder, rank, 3, target="target", missing_target=policy)
            for i in range(len(sequence)):
                x, y, *weights = sequence[i]
                weight = weights[0] if weights else np.ones(len(x))
                np.testing.assert_array_equal(y[weight > 0], row_numbers(x)[weight > 0])
                seen |= dict(zip(row_numbers(x).tolist(), weight.tolist(), strict=True))
        assert sorted(seen) == rows
        assert [number for number in rows if seen[number]] == present


def test_rank_travels_to_worker_processes(folder, small_groups):
    sequence = rank_of(folder, 2, 3, run_rows=4)
    expected = numbers_of(sequence)
    assert numbers_of(pickle.loads(pickle.dumps(sequence))) == expected
    assert numbers_of(pickle.loads(pickle.dumps(sequence.one_pass()))) == expected


def test_predictions_are_of_all_rows(folder):
    sequence = rank_of(folder, 2, 3, drop_remainder=True)
    other = sequence.in_order(100)
    assert (other.rank, other.world_size, len(other)) == (0, 1, 11)
    assert sorted(chain.from_iterable(numbers_of(other))) == list(range(ROWS))
    assert (sequence.rank, sequence.world_size, len(sequence)) == (2, 3, 13)


def test_sequence_refuses_ranks_without_a_batch(folder):
    with pytest.raises(ValueError, match="found 2 and 2, expected whole"):
        rank_of(folder, 2, 2)
    with pytest.raises(ValueError, match="24 ranks for 23 eras, expected at least one for each"):
        rank_of(folder, 0, 24, batch_by="era")
    with pytest.raises(ValueError, match="1038 ranks for 1,037 rows"):
        rank_of(folder, 0, ROWS + 1)
    with pytest.raises(
        ValueError, match="2 ranks for 1,037 rows, expected at least a batch of 600"
    ):
        rank_of(folder, 0, 2, 600, drop_remainder=True)


def test_repr_says_whose_batches_they_are(folder):
    assert "13 batches of 25 for rank 1 of 3" in repr(rank_of(folder, 1, 3, drop_remainder=True))
    assert "for rank" not in repr(rank_of(folder, 0, 1))
