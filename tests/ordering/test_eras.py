"""Eras: their numbers, their order in time, their shards, and which are chosen."""

from __future__ import annotations

import itertools
import pickle
import random

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from numerai_sequence.errors import EraError
from numerai_sequence.ordering.eras import (
    choose_eras,
    era_codes,
    era_number,
    shard_of_era,
    sort_eras,
)

# Every other week of 20, and live; a legacy file's eras; two spellings of one number.
KNOWN = ["0001", "0003", "0005", "0007", "0009", "0011", "0013", "0015", "0017", "0019", "X"]
LEGACY = [f"era{number}" for number in range(1, 121)]
DOUBLE = ["0001", "era1", "0002"]


@pytest.mark.parametrize(
    ("era", "number"),
    [("0001", 1), ("1", 1), ("1231", 1231), ("12345", 12345), ("0000", 0), ("era0574", 574)],
)
def test_numbered_era_has_its_number(era, number):
    assert era_number(era) == number


NO_NUMBERS = [
    *("X", "eraX", "", "era", "-1", "+1", "1.0", "1a", " 1", "1 ", "1\n", "Era1", "era-1", "era 1"),
    *("1_000", "٣", "²", "eraera1", "0x1", "9" * 101, "0" * 5000, "era" + "1" * 5000),
]


def test_numbers_of_up_to_a_hundred_digits_are_read():
    assert era_number("9" * 100) == 10**100 - 1
    for wanted in ("9" * 5000 + "-", ":" + "9" * 5000):
        with pytest.raises(EraError, match="cannot read"):
            choose_eras(wanted, KNOWN)


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


def refused(kind, wanted, known=KNOWN):
    with pytest.raises(kind) as caught:
        choose_eras(wanted, known)
    return caught.value


def test_none_chooses_all_in_the_order_of_time():
    assert choose_eras(None, reversed(KNOWN)) == KNOWN
    assert choose_eras(None, []) == []


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("0005", ["0005"]),
        ("5", ["0005"]),
        ("era5", ["0005"]),
        ("X", ["X"]),
        (" 0005 ,X", ["0005", "X"]),
        ("X,0005", ["0005", "X"]),
        ("0003-0007", ["0003", "0005", "0007"]),
        ("2-8", ["0003", "0005", "0007"]),
        ("era2 - era8", ["0003", "0005", "0007"]),
        ("7-7", ["0007"]),
        ("16-", ["0017", "0019"]),
        ("-4", ["0001", "0003"]),
        ("0-99999", KNOWN[:-1]),
        ("::4", ["0001", "0009", "0017"]),
        ("1::4", ["0003", "0011", "0019"]),
        ("-2:", ["0019", "X"]),
        ("1:3", ["0003", "0005"]),
        ("::-5", ["0001", "0011", "X"]),
        (":", KNOWN),
        ("-3,X,9,2-4", ["0001", "0003", "0009", "X"]),
        ("1-5,3-7", ["0001", "0003", "0005", "0007"]),
        ("1-5,3", ["0001", "0003", "0005"]),
        (np.str_("2-4"), ["0003"]),
    ],
)
def test_str_chooses(wanted, expected):
    assert choose_eras(wanted, KNOWN) == expected
    assert choose_eras(wanted, KNOWN[::-1]) == expected


@pytest.mark.parametrize("wanted", ["1-120", "era1-era120", "0001-0120", "-120", "1-", "0-1000"])
def test_range_compares_numbers_whatever_the_spelling(wanted):
    assert choose_eras(wanted, LEGACY) == LEGACY
    assert choose_eras("9-11", LEGACY) == ["era9", "era10", "era11"]
    assert choose_eras("1231-", ["0999", "1231", "12345"]) == ["1231", "12345"]


def test_name_that_is_there_as_it_is_spelled_is_taken_before_a_range_or_a_slice():
    assert choose_eras("2-4", [*KNOWN, "2-4"]) == ["2-4"]
    assert choose_eras("a:b,0003", [*KNOWN, "a:b"]) == ["0003", "a:b"]
    assert choose_eras("", ["", "0001"]) == [""]


@pytest.mark.parametrize(
    "wanted",
    [
        ["0003", "0017"],
        ("17", "era3"),
        {17, 3},
        range(3, 18, 14),
        iter(["era17", 3]),
        {"0003": 1, "0017": 2},
        np.array([17, 3]),
        np.array([17, 3], np.uint8),
        np.array(["0003", "0017"]),
        [np.int64(3), np.str_("17")],
        pd.Series(["0003", "0017"]),
        pd.Series([3, 17], dtype="Int16"),
        pd.Series(["0003", "0017"], dtype="category"),
        pd.Index(["0003", "0017"], dtype="string"),
        pa.array(["0003", "0017"]),
        pa.chunked_array([["era17"], ["0003"]]),
        pa.array(["0003", "0017"]).dictionary_encode(),
        pa.array([3, 17], pa.int16()),
    ],
    ids=lambda wanted: type(wanted).__name__,
)
def test_iterable_of_names_or_numbers_chooses(wanted):
    assert choose_eras(wanted, KNOWN) == ["0003", "0017"]


def test_number_means_all_its_spellings_and_a_spelling_that_is_there_itself():
    assert choose_eras([1], DOUBLE) == choose_eras("1", DOUBLE) == ["0001", "era1"]
    assert choose_eras(["01"], DOUBLE) == ["0001", "era1"]
    assert choose_eras("0001", DOUBLE) == choose_eras(["0001"], DOUBLE) == ["0001"]
    assert choose_eras(["era1"], DOUBLE) == ["era1"]
    assert choose_eras("1-1", DOUBLE) == ["0001", "era1"]


@pytest.mark.parametrize(
    "places", [slice(1, None, 4), slice(-3, None), slice(None, None, -2), slice(2), slice(None)]
)
def test_slice_is_over_the_order_of_time(places):
    assert choose_eras(places, KNOWN[::-1]) == sorted(KNOWN[places])


def test_function_is_asked_once_for_each_era():
    asked = []

    def wants(era):
        asked.append(era)
        return era > "0015"

    assert choose_eras(wants, KNOWN) == ["0017", "0019", "X"]
    assert asked == KNOWN
    assert choose_eras(lambda era: np.bool_(era == "X"), KNOWN) == ["X"]


@pytest.mark.parametrize("answer", [1, None, "True", np.int64(1)])
def test_function_that_returns_no_bool_is_refused(answer):
    assert "'0001', expected a bool" in str(refused(TypeError, lambda era: answer))


def test_choosing_is_what_brute_force_chooses():
    rng = random.Random(7)
    for _ in range(500):
        numbers = sorted(rng.sample(range(40), rng.randint(1, 20)))
        known = [rng.choice(["{:04d}", "era{}", "{}"]).format(number) for number in numbers]
        first, last = sorted((rng.choice(numbers), rng.randrange(40)))
        ranged = [era for era in known if first <= int(era.removeprefix("era")) <= last]
        some = sorted(rng.sample(range(len(known)), rng.randint(1, len(known))))
        start, step = rng.randrange(len(known)), rng.randint(1, 5)
        shuffled = rng.sample(known, len(known))
        assert choose_eras(f"{first}-{last}", shuffled) == ranged
        assert choose_eras(f"{start}::{step}", shuffled) == known[start::step]
        assert choose_eras(slice(start, None, step), shuffled) == known[start::step]
        assert choose_eras([numbers[place] for place in some], shuffled) == [known[i] for i in some]
        assert choose_eras(",".join(known[i] for i in some), shuffled) == [known[i] for i in some]


@pytest.mark.parametrize(
    ("wanted", "missing"),
    [
        ("0008", ["0008"]),
        ("1-5,8,Y", ["8", "Y"]),
        (["0008", "0001", "Y"], ["0008", "Y"]),
        (range(1, 5), [2, 4]),
        ([-1], [-1]),
        (["0001-0005"], ["0001-0005"]),
        ([""], [""]),
        (np.array([8]), [8]),
    ],
)
def test_era_that_is_not_there_is_named(wanted, missing):
    error = refused(EraError, wanted)
    assert error.eras == missing
    assert pickle.loads(pickle.dumps(error)).eras == missing
    more = f" and {len(missing) - 1} more" if missing[1:] else ""
    found = f"eras: {missing[0]!r}{more} not found among 11 eras (0001 to X)"
    assert str(error).startswith(found)


@pytest.mark.parametrize(
    ("wanted", "known", "end"),
    [
        ("0008", KNOWN, "(0001 to X); near it are 0007 and 0009"),
        ([600], KNOWN, "(0001 to X); near it are 0017 and 0019"),
        ("era0", KNOWN, "(0001 to X); near it are 0001 and 0003"),
        ("2", ["1"], "1 era (1 to 1); near it is 1"),
        (["live"], ["0001", "Live"], "; did you mean Live?"),
        ("X", ["0001"], "or several separated by commas"),
        (["1-3"], ["0005"], "or several separated by commas"),
        ("8", ["X"], "or several separated by commas"),
        ("0001", [], "among 0 eras; expected one of them, or a str such as '0001', "),
    ],
)
def test_missing_era_is_shown_with_close_ones(wanted, known, end):
    assert end in str(refused(EraError, wanted, known))


@pytest.mark.parametrize(
    "part",
    ["", " ", "-", "1-2-3", "era-era", "X-", "1--2", "::0", "::-0", "::x", "1:2:3:4", "1-3:2"],
)
def test_part_that_cannot_be_read_is_shown_with_the_grammar(part):
    for wanted in (part, f"0001,{part}", f"{part},0001"):
        error = refused(EraError, wanted)
        assert str(error) == (
            f"eras: cannot read {part.strip()!r}; expected '0001', '0001-0574', '0575-', '-0574', "
            "'::4' or '1::4', or several separated by commas"
        )
        assert error.eras == [part.strip()]


@pytest.mark.parametrize(
    ("wanted", "what"),
    [
        ("20-", "'20-' chooses"),
        ("1-5,20-30", "'20-30' chooses"),
        ("5-1", "'5-1' chooses"),
        ("8-8", "'8-8' chooses"),
        ("11::", "'11::' chooses"),
        (slice(11, None), "slice(11, None, None) chooses"),
        (lambda era: False, "the function chooses"),
        ([], "an empty list chooses"),
        (range(0), "an empty list chooses"),
    ],
)
def test_choosing_nothing_is_refused(wanted, what):
    message = str(refused(EraError, wanted))
    assert message == f"eras: {what} none of 11 eras (0001 to X); choose at least one"


@pytest.mark.parametrize(
    ("wanted", "known", "twice"),
    [
        (["0003", "0005", "0003"], KNOWN, ["0003"]),
        ([3, "era3", 5, np.int8(5)], KNOWN, ["0003", "0005"]),
        ("0003,3", KNOWN, ["0003"]),
        ("X,X", KNOWN, ["X"]),
        (["0001", 1], DOUBLE, ["0001"]),
    ],
)
def test_era_named_twice_is_refused(wanted, known, twice):
    error = refused(EraError, wanted, known)
    assert error.eras == twice
    assert f"{twice[0]!r} is named twice" in str(error)


@pytest.mark.parametrize(
    "entry", [True, np.True_, 1.0, np.float32(1), None, b"0001", ["0001"], pd.NA, pa.scalar(1.0)]
)
def test_entry_that_is_no_name_and_no_number_is_refused(entry):
    assert "expected names such as '0001' or whole numbers" in str(refused(TypeError, [1, entry]))


def test_mask_is_refused():
    refused(TypeError, np.ones(len(KNOWN), bool))


@pytest.mark.parametrize("wanted", [1, True, 1.5, b"0001", np.int64(1)])
def test_what_is_no_choice_is_refused(wanted):
    message = str(refused(TypeError, wanted))
    assert message.startswith(f"eras: found {wanted!r}, expected a str, a list of names or numbers")


ROWS = ["0010", "X", "0009", "0010", "0009", "0009"]
WITH_AN_UNUSED_ERA = pa.DictionaryArray.from_arrays([1, 3, 2, 1, 2, 2], ["8", "0010", "0009", "X"])


@pytest.mark.parametrize(
    "eras",
    [
        ROWS,
        np.array(ROWS),
        np.array(ROWS, object),
        pd.Series(ROWS),
        pa.array(ROWS),
        pa.array(ROWS, pa.large_string()),
        pa.chunked_array([ROWS[:1], ROWS[1:]]),
        pa.chunked_array([pa.array(part).dictionary_encode() for part in (ROWS[:1], ROWS[1:])]),
        WITH_AN_UNUSED_ERA,
    ],
    ids=lambda eras: type(eras).__name__,
)
def test_rows_get_the_places_of_their_eras_in_time(eras):
    names, codes = era_codes(eras)
    assert names == ["0009", "0010", "X"]
    assert codes.tolist() == [1, 2, 0, 1, 0, 0]


def test_no_rows_have_no_eras():
    names, codes = era_codes([])
    assert (names, codes.shape) == ([], (0,))


def test_a_row_without_an_era_is_refused():
    with pytest.raises(EraError, match="1 of 2 rows have no era"):
        era_codes(["0001", None])
