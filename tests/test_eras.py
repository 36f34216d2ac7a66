"""Eras: their numbers, their order in time, and their shards."""

from __future__ import annotations

import itertools

import pytest

from numerai_sequence.eras import era_number, shard_of_era, sort_eras


@pytest.mark.parametrize(
    ("era", "number"),
    [("0001", 1), ("1", 1), ("1231", 1231), ("12345", 12345), ("0000", 0), ("era0574", 574)],
)
def test_numbered_era_has_its_number(era, number):
    assert era_number(era) == number


NO_NUMBERS = [
    *("X", "eraX", "", "era", "-1", "+1", "1.0", "1a", " 1", "1 ", "1\n", "Era1", "era-1", "era 1"),
    *("1_000", "٣", "²", "eraera1", "0x1"),
]


@pytest.mark.parametrize("era", NO_NUMBERS)
def test_other_era_has_no_number(era):
    assert era_number(era) is None


def test_eras_are_sorted_by_number_and_the_rest_comes_last():
    expected = ["era1", "0002", "era9", "10", "0099", "0100", "era1000", "X", "Y"]
    for seen in itertools.islice(itertools.permutations(expected), 0, None, 1009):
        assert sort_eras(seen) == expected


def test_spellings_of_one_number_are_sorted_the_same_way_every_time():
    for seen in itertools.permutations(["01", "1", "era1"]):
        assert sort_eras(seen) == ["01", "1", "era1"]


def test_sorting_takes_any_iterable_and_leaves_it_as_it_is():
    eras = {"0002": 5, "0001": 6}
    assert sort_eras(eras) == sort_eras(iter(eras)) == ["0001", "0002"]
    assert list(eras) == ["0002", "0001"]
    assert sort_eras([]) == []


@pytest.mark.parametrize("num_shards", [1, 2, 3, 16, 1000])
def test_shard_of_an_era_is_its_number_mod_the_shards(num_shards):
    for number in range(0, 1300, 7):
        for name in (f"{number:04d}", str(number), f"era{number}"):
            assert shard_of_era(name, num_shards) == number % num_shards


def test_eras_without_a_number_are_in_shard_0():
    assert [shard_of_era(era, 16) for era in ("X", "", "eraX")] == [0, 0, 0]
