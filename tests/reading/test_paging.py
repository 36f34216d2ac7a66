"""Paging: what is needed is read ahead, and mapped pages stay within their budget."""

from __future__ import annotations

import mmap
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from page_cache import cached, drop, is_linux
from shard_sets import write_set

from numerai_sequence import NumeraiSequence, open_shards
from numerai_sequence.reading import paging as paging_module
from numerai_sequence.reading.paging import Pager

MB = 1_000_000


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A set of about 120 MB, in long rows."""
    path = tmp_path_factory.mktemp("large")
    table = {"rows": 30_000, "features": 4000, "eras": 60}
    folder = write_set(path, num_shards=4, encoding="int8", **table)
    (path / "train.parquet").unlink()
    return folder


def measure(large, paging, run_rows, limit):
    """What was mapped at most during a pass, and what the budget had for it."""
    options = {"paging": paging, "run_rows": run_rows, "memory_budget": limit, "dtype": "int8"}
    sequence = NumeraiSequence(large, 100, **options)
    before = peak = paging_module._shared_bytes()
    one_pass = sequence.one_pass()
    for number in range(len(one_pass)):
        one_pass[number]
        peak = max(peak, paging_module._shared_bytes())
    return peak - before, sequence._plan.pager.budget_bytes


@pytest.mark.slow
@is_linux
@pytest.mark.parametrize("paging", ["resident", "streaming"])
def test_mapped_pages_stay_within_their_budget(large, paging):
    mapped, budget = measure(large, paging, 1, 60 * MB)
    assert budget < 60 * MB
    assert mapped < budget + 8 * MB  # besides, code that is loaded on the way
    mapped, _ = measure(large, paging, 1, 10**9)
    assert mapped > 100 * MB  # the budget is what holds it


@is_linux
def test_runs_of_rows_are_read_and_not_mapped(large):
    mapped, _ = measure(large, "streaming", 16, 10**9)
    assert mapped < 10 * MB


@is_linux
def test_threads_together_stay_within_the_budget(large):
    """Each has a piece of the map at work; what is let go meanwhile does not count them out."""
    shards = open_shards(large)
    files, budget = shards.files, 40 * MB
    pager = Pager(files, mode="resident", budget_bytes=budget)
    before, peaks = paging_module._shared_bytes(), []

    def touch(seed):
        rng = np.random.default_rng(seed)
        for _ in range(30):
            rows = np.sort(rng.choice(shards.rows, 100, replace=False))
            shards.row_reader.gather(rows, ["target"], pager=pager)
            peaks.append(paging_module._shared_bytes() - before)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(touch, range(4)))
    assert max(peaks) < budget + 8 * MB
    assert pager._in_use == 0


def test_what_is_in_use_counts_when_the_rest_is_let_go(monkeypatch, large):
    monkeypatch.setattr(paging_module, "_shared_bytes", lambda: None)
    with open_shards(large) as shards:
        pager = Pager(shards.files, mode="streaming", budget_bytes=10 * MB)
        gone = []
        monkeypatch.setattr(paging_module, "advise", lambda map_, advice: gone.append(advice))
        with pager.room(6 * MB):
            with pager.room(3 * MB):
                assert not gone
            with pager.room(5 * MB):
                assert gone == ["MADV_DONTNEED"] * len(shards.files)
                assert pager._mapped == 11 * MB
        assert pager._in_use == 0


def test_a_set_that_is_resident_is_announced_once(large):
    sequence = NumeraiSequence(large, 100, paging="resident", run_rows=16)
    assert sequence._plan.pager.reads_ahead
    for number in range(len(sequence)):
        sequence[number]
    assert not sequence._plan.pager.reads_ahead
    sequence = NumeraiSequence(large, 100, paging="streaming", run_rows=16)
    for number in range(len(sequence)):
        sequence[number]
    assert sequence._plan.pager.reads_ahead


@is_linux
def test_read_ahead_brings_in_what_is_needed_and_little_else(large):
    sequence = NumeraiSequence(large, 100, paging="streaming", run_rows=16)
    paths = sequence.shards.paths
    drop(paths)
    rows = np.array([5, 6, 7, 4000, 20_000])
    sequence._plan.pager.read_ahead(sequence.shards.row_reader.extents(rows, ["target"]))
    wanted = [np.zeros(len(cached(path)), bool) for path in paths]
    for number, ranges in sequence.shards.row_reader.extents(rows, ["target"]):
        for start, stop in ranges:
            wanted[number][start // mmap.PAGESIZE : -(-stop // mmap.PAGESIZE)] = True
    assert sum(pages.sum() for pages in wanted) > 5
    for _ in range(100):  # the disk takes its time
        found = [cached(path) for path in paths]
        if all((have >= want).all() for have, want in zip(found, wanted, strict=True)):
            break
    assert all((have >= want).all() for have, want in zip(found, wanted, strict=True))
    assert sum(pages.sum() for pages in found) < 200


@is_linux
def test_resident_set_is_read_into_the_page_cache(large):
    sequence = NumeraiSequence(large, 100, paging="resident", run_rows=1)
    drop(sequence.shards.paths)
    for number in range(10):
        sequence[number]
    assert not sequence._plan.pager.reads_ahead
    assert all(cached(path).mean() > 0.99 for path in sequence.shards.paths)


def test_pages_that_were_let_go_come_back(large):
    sequence = NumeraiSequence(large, 100, shuffle=False)
    expected, _ = sequence[3]
    expected = expected.copy()
    sequence._plan.pager.let_go()
    np.testing.assert_array_equal(sequence[3][0], expected)


@pytest.mark.parametrize("paging", ["resident", "streaming"])
def test_platform_without_advice_reads_the_same(monkeypatch, large, paging):
    options = {"paging": paging, "run_rows": 4, "memory_budget": "60MB"}
    expected = [NumeraiSequence(large, 100, **options)[i][0].copy() for i in (0, 7)]
    for name in ("RANDOM", "NORMAL", "WILLNEED", "DONTNEED"):
        monkeypatch.delattr(mmap, f"MADV_{name}", raising=False)
        monkeypatch.delattr(os, f"POSIX_FADV_{name}", raising=False)
    monkeypatch.setattr("numerai_sequence.reading.row_reader._CAN_READ", False)
    monkeypatch.setattr(paging_module, "_shared_bytes", lambda: None)
    sequence = NumeraiSequence(large, 100, **options)
    for number, x in zip((0, 7), expected, strict=True):
        np.testing.assert_array_equal(sequence[number][0], x)


def test_sequence_says_how_it_pages_and_why(large):
    text = repr(NumeraiSequence(large, 100, run_rows=8))
    assert "resident (1" in text
    assert "of memory available), run_rows=8" in text
    assert "streaming (as asked for)" in repr(NumeraiSequence(large, 100, paging="streaming"))


def test_exact_order_is_chosen_where_few_rows_take_part_whatever_the_memory(large):
    for paging in ("resident", "streaming"):
        for budget in ("100MB", "1GB"):
            options = {"memory_budget": budget, "paging": paging}
            assert NumeraiSequence(large, 100, **options).run_rows == 32
            assert NumeraiSequence(large, 100, eras="0001-0002", **options).run_rows == 1
    assert NumeraiSequence(large, 100, memory_budget="100MB", shuffle=False).run_rows == 1
    assert NumeraiSequence(large, 100, memory_budget="100MB", run_rows=1).run_rows == 1


def test_wrong_budget_and_paging_are_refused(large):
    with pytest.raises(ValueError, match="memory_budget: found 'much'"):
        NumeraiSequence(large, 100, memory_budget="much")
    with pytest.raises(ValueError, match="memory_budget: found 1000, expected at least"):
        NumeraiSequence(large, 100, memory_budget=1000)
    with pytest.raises(ValueError, match="paging: found 'mapped'"):
        NumeraiSequence(large, 100, paging="mapped")


def test_pager_of_a_set_within_its_budget_never_lets_go(large):
    with open_shards(large) as shards:
        size = sum(len(file.map) for file in shards.files)
        assert Pager(shards.files, mode="streaming", budget_bytes=size).fits
        assert not Pager(shards.files, mode="streaming", budget_bytes=size - 1).fits
