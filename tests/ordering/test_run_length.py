"""Mixing: what is foretold of a batch's eras is what real batches hold."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow.parquet as pq
import pytest
from numerai_tables import numerai_table

from numerai_sequence import NumeraiSequence, write_shards
from numerai_sequence.ordering.row_order import epoch_order
from numerai_sequence.ordering.run_length import choose_run_rows, era_mixing

ERAS, BATCH, GROUP = 96, 500, 4000


def write_sets(folder, era_rows):
    """The same rows in windows of 1, 4 and all eras of a shard."""
    table = numerai_table(
        rows=sum(era_rows), features=10, eras=np.repeat(1 + np.arange(ERAS), era_rows)
    )
    pq.write_table(table, folder / "train.parquet")
    options = {"num_shards": 8, "progress": False}
    return {
        mix_eras: write_shards(
            folder / "train.parquet", folder / str(mix_eras), mix_eras=mix_eras, **options
        )
        for mix_eras in (1, 4, None)
    }


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Eras of 128 to 512 rows, of which no run up to 128 rows leaves any over."""
    made = write_sets(tmp_path_factory.mktemp("mixing"), 128 * (1 + np.arange(ERAS) % 4))
    yield made
    for shards in made.values():
        shards.close()


@pytest.fixture(scope="module")
def ragged_sets(tmp_path_factory):
    made = write_sets(tmp_path_factory.mktemp("ragged"), 60 + np.arange(ERAS) * 37 % 301)
    yield made
    for shards in made.values():
        shards.close()


def windows_of(shards):
    return [batch.eras for shard in shards.manifest.shards for batch in shard.batches]


def entropy(eras):
    shares = np.unique(eras, return_counts=True)[1] / len(eras)
    return -(shares * np.log(shares)).sum()


def real_mixing(shards, run_rows, *, batch_size=BATCH, group_rows=GROUP, epochs=3):
    """The entropy of the eras of an epoch's batches, over that of an exact shuffle's."""
    eras = np.array(shards.column("era").to_pylist())

    def mean(run_rows):
        found = []
        for epoch in range(epochs):
            order = epoch_order(
                shards.spans(), seed=1, epoch=epoch, run_rows=run_rows, group_rows=group_rows
            )
            cuts = range(0, order.count + 1, batch_size)
            found += [entropy(eras[order.rows(start, stop)]) for start, stop in pairwise(cuts)]
        return np.mean(found)

    return mean(run_rows) / mean(1)


@pytest.mark.parametrize("mix_eras", [1, 4, None])
@pytest.mark.parametrize("run_rows", [1, 8, 32, 128])
def test_mixing_is_that_of_real_batches(sets, mix_eras, run_rows):
    found = era_mixing(
        windows_of(sets[mix_eras]), batch_size=BATCH, group_rows=GROUP, run_rows=run_rows
    )
    assert found == pytest.approx(real_mixing(sets[mix_eras], run_rows), abs=0.02)


@pytest.mark.parametrize("mix_eras", [1, 4, None])
@pytest.mark.parametrize("run_rows", [8, 32, 128])
def test_rows_left_over_only_make_it_better(ragged_sets, mix_eras, run_rows):
    found = era_mixing(
        windows_of(ragged_sets[mix_eras]), batch_size=BATCH, group_rows=GROUP, run_rows=run_rows
    )
    assert found <= real_mixing(ragged_sets[mix_eras], run_rows) + 0.01


def test_a_batch_that_is_its_own_group_is_mixed_as_little_as_it_really_is(sets):
    sizes = {"batch_size": BATCH, "group_rows": BATCH}
    for run_rows in (16, 64):
        found = era_mixing(windows_of(sets[1]), **sizes, run_rows=run_rows)
        assert found < 0.8
        assert found == pytest.approx(real_mixing(sets[1], run_rows, **sizes), abs=0.03)


def test_mixing_is_the_same_every_time_and_leaves_numpys_generator_alone(sets):
    windows, sizes = windows_of(sets[4]), {"batch_size": BATCH, "group_rows": GROUP}
    np.random.seed(1)
    expected = np.random.random()
    np.random.seed(1)
    found = {era_mixing(windows, **sizes, run_rows=32) for _ in range(3)}
    assert len(found) == 1
    assert np.random.random() == expected


def test_one_era_is_mixed_whatever_the_runs(sets):
    assert era_mixing([{"0001": 5000}], batch_size=100, group_rows=400, run_rows=64) == 1
    assert era_mixing([{"0001": 3}], batch_size=100, group_rows=400, run_rows=64) == 1


@pytest.mark.parametrize("mix_eras", [1, 4, None])
@pytest.mark.parametrize("row_bytes", [4, 100, 1200, 3555, 200_000])
def test_chosen_run_mixes_and_a_longer_one_reads_no_better_or_mixes_worse(
    sets, mix_eras, row_bytes
):
    windows = windows_of(sets[mix_eras])
    sizes = {"batch_size": BATCH, "group_rows": GROUP}
    chosen = choose_run_rows(windows, row_bytes=row_bytes, **sizes)
    assert chosen in [2**power for power in range(15)]
    assert real_mixing(sets[mix_eras], chosen) >= 0.96
    assert chosen == 1 or era_mixing(windows, **sizes, run_rows=chosen) >= 0.97
    reads_well = chosen * row_bytes >= 64 << 10
    assert reads_well or era_mixing(windows, **sizes, run_rows=2 * chosen) < 0.97
    assert chosen == 1 or chosen // 2 * row_bytes < 64 << 10


def test_windows_of_one_era_take_shorter_runs(sets):
    chosen = {
        mix_eras: choose_run_rows(
            windows_of(shards), row_bytes=100, batch_size=BATCH, group_rows=GROUP
        )
        for mix_eras, shards in sets.items()
    }
    assert chosen[1] < chosen[4] < chosen[None]


def test_larger_groups_allow_longer_runs(sets):
    windows = windows_of(sets[4])
    chosen = [
        choose_run_rows(windows, row_bytes=100, batch_size=BATCH, group_rows=BATCH * batches)
        for batches in (1, 8, 32)
    ]
    assert chosen == sorted(chosen)
    assert chosen[0] < chosen[2]


def test_sequence_takes_the_chosen_run_where_the_set_is_large(sets, monkeypatch):
    assert NumeraiSequence(sets[1], BATCH, paging="streaming").run_rows == 1
    monkeypatch.setattr("numerai_sequence.batching.read_plan.MAPPED_BYTES", 1000)
    for mix_eras in (1, None):
        shards = sets[mix_eras]
        expected = choose_run_rows(
            windows_of(shards), row_bytes=4, batch_size=BATCH, group_rows=16384 // BATCH * BATCH
        )
        assert expected > 1
        for paging in ("streaming", "resident"):
            assert NumeraiSequence(shards, BATCH, paging=paging).run_rows == expected
        assert NumeraiSequence(shards, BATCH, paging="streaming", shuffle=False).run_rows == 1
        assert NumeraiSequence(shards, BATCH, paging="streaming", run_rows=2).run_rows == 2
        assert NumeraiSequence(shards, BATCH, paging="resident", run_rows=16).run_rows == 16
    assert NumeraiSequence(sets[None][8:], BATCH, paging="streaming").run_rows == 1
