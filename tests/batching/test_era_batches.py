"""Era batches: each is whole eras, and each era is in one of them."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
from numerai_tables import row_numbers
from shard_sets import write_set

from numerai_sequence import NumeraiSequence, open_shards

ROWS, FEATURES, ERAS = 1037, 14, 23


@pytest.fixture(scope="module", params=[1, 3], ids=["eras-apart", "3-mixed"])
def folder(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("eras")
    table = {"rows": ROWS, "features": FEATURES, "eras": ERAS}
    return write_set(path, num_shards=4, mix_eras=request.param, **table)


@pytest.fixture(scope="module")
def era_of(folder):
    with open_shards(folder) as shards:
        numbers = [int(i[1:], 16) for i in shards.column("id").to_pylist()]
        eras = shards.column("era").to_pylist()
    return np.array(eras)[np.argsort(numbers)]


def eras_and_numbers(sequence, era_of):
    """Of each batch: its eras, and the numbers of its rows."""
    numbers = [row_numbers(sequence[i][0]) for i in range(len(sequence))]
    for number, (_, y) in zip(numbers, (sequence[i] for i in range(len(sequence))), strict=True):
        np.testing.assert_array_equal(y, number)
    return [(sorted(set(era_of[part])), sorted(part.tolist())) for part in numbers]


MODES = [{}, {"paging": "streaming"}, {"memory_budget": "18MB"}, {"dtype": "int8"}]


@pytest.mark.parametrize("options", MODES, ids=str)
@pytest.mark.parametrize("size", [1, 4, 23, 100])
def test_batch_is_whole_eras_and_each_era_is_in_one(folder, era_of, size, options):
    sequence = NumeraiSequence(folder, size, batch_by="era", **options)
    assert len(sequence) == -(-ERAS // size)
    for _ in range(2):
        found = eras_and_numbers(sequence, era_of)
        assert sorted(chain.from_iterable(eras for eras, _ in found)) == sorted(set(era_of))
        for eras, numbers in found[:-1]:
            assert len(eras) == min(size, ERAS)
            assert numbers == np.flatnonzero(np.isin(era_of, eras)).tolist()
        assert sum(len(numbers) for _, numbers in found) == ROWS
        sequence.on_epoch_end()


def test_eras_are_no_runs_of_rows(folder):
    assert NumeraiSequence(folder, batch_by="era", paging="streaming").run_rows == 1


def test_one_era_a_batch_is_the_default(folder):
    assert NumeraiSequence(folder, batch_by="era").batch_size == 1
    assert NumeraiSequence(folder).batch_size == 1000


def test_eras_come_in_a_new_order_every_epoch_and_the_same_for_a_seed(folder, era_of):
    orders = []
    for seed in (0, 0, 1):
        sequence = NumeraiSequence(folder, batch_by="era", seed=seed)
        for _ in range(2):
            orders.append([eras[0] for eras, _ in eras_and_numbers(sequence, era_of)])
            sequence.on_epoch_end()
    assert orders[:2] == orders[2:4]
    assert len({tuple(order) for order in orders}) == 4


def test_without_shuffle_eras_come_in_the_order_of_time(folder, era_of):
    sequence = NumeraiSequence(folder, 2, batch_by="era", shuffle=False)
    found = [eras for eras, _ in eras_and_numbers(sequence, era_of)]
    assert list(chain.from_iterable(found)) == sorted(set(era_of))


def test_last_batch_of_fewer_eras_can_be_dropped(folder):
    assert len(NumeraiSequence(folder, 4, batch_by="era", drop_remainder=True)) == 5
    assert len(NumeraiSequence(folder, 23, batch_by="era", drop_remainder=True)) == 1


def test_chosen_eras_and_rows_alone_are_in_batches(folder, era_of):
    sequence = NumeraiSequence(folder, batch_by="era", eras="0004-0009", shuffle=False)
    found = eras_and_numbers(sequence, era_of)
    assert [eras for eras, _ in found] == [[f"{era:04d}"] for era in range(4, 10)]


def test_passes_and_their_shuffles_hold_each_era_once(folder, era_of):
    sequence = NumeraiSequence(folder, batch_by="era", paging="streaming", shuffle=False)
    one_pass = sequence.one_pass(shuffle=True)
    numbers = np.concatenate([row_numbers(one_pass[i][0]) for i in range(len(one_pass))])
    assert sorted(numbers) == list(range(ROWS))


def test_repr_says_that_batches_are_eras(folder):
    assert "6 batches of 4 eras" in repr(NumeraiSequence(folder, 4, batch_by="era"))
