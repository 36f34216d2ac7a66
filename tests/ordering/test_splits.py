"""Splits: who trains and who validates, and that a purge is between them."""

from __future__ import annotations

import random
import subprocess
import sys
from itertools import chain

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import numerai_sequence
from numerai_sequence import EraError, Split, split_eras, walk_forward
from numerai_sequence.ordering.eras import era_number
from numerai_sequence.ordering.splits import purge_of


def weekly(first, last, step=1):
    return [f"{number:04d}" for number in range(first, last + 1, step)]


def some_eras(rng, *, most=60):
    """Some weeks with gaps between them, spelled in one of Numerai's ways."""
    spelling = rng.choice(["{:04d}", "era{}", "{}"])
    numbers = sorted(rng.sample(range(most), rng.randint(2, most)))
    return [spelling.format(number) for number in numbers]


def test_split_is_a_pair_of_training_and_validation():
    train, validation = split = split_eras(weekly(1, 20), validation=5, purge=3)
    assert split == Split(train=weekly(1, 12), validation=weekly(16, 20))
    assert (train, validation) == (split.train, split.validation)


@pytest.mark.parametrize(
    ("validation", "expected"),
    [
        (1, weekly(20, 20)),
        (4, weekly(17, 20)),
        (np.uint8(4), weekly(17, 20)),
        (0.2, weekly(17, 20)),
        (np.float32(0.25), weekly(16, 20)),
        (0.24, weekly(16, 20)),
        (0.26, weekly(16, 20)),
        (0.0001, weekly(20, 20)),
        ("0017-", weekly(17, 20)),
        ("17,19", ["0017", "0019"]),
        ([17, "era19"], ["0017", "0019"]),
        (range(10, 12), weekly(10, 11)),
        (slice(-2, None), weekly(19, 20)),
        (lambda era: era > "0018", weekly(19, 20)),
    ],
)
def test_validation_is_a_number_a_share_or_a_choice(validation, expected):
    assert split_eras(weekly(1, 20)[::-1], validation=validation, purge=0).validation == expected


@pytest.mark.parametrize(
    ("validation", "purge", "train"),
    [
        ("9-10", 3, weekly(1, 5) + weekly(14, 20)),
        ("5,11", 2, [*weekly(1, 2), "0008", *weekly(14, 20)]),
        ("0010", 0, weekly(1, 9) + weekly(11, 20)),
        ("1-10", 9, ["0020"]),
    ],
)
def test_purge_is_on_both_sides_of_every_validation_era(validation, purge, train):
    assert split_eras(weekly(1, 20), validation=validation, purge=purge).train == train


@pytest.mark.parametrize(("purge", "last", "first"), [(8, 25, 49), (7, 29, 45), (3, 33, 41)])
def test_purge_is_counted_in_weeks_and_not_in_places_of_the_list(purge, last, first):
    split = split_eras(weekly(1, 77, 4), validation="0037", purge=purge)
    assert split.train == weekly(1, last, 4) + weekly(first, 77, 4)


def test_split_is_what_brute_force_splits():
    rng = random.Random(3)
    splits = 0
    for _ in range(1000):
        eras, purge = some_eras(rng), rng.randrange(10)
        count = rng.randint(1, len(eras))
        some = rng.sample(eras, count)
        places = slice(rng.randrange(len(eras)), None, rng.randint(1, 9))
        validation, chosen = rng.choice(
            [
                (count, eras[-count:]),
                (some, [era for era in eras if era in some]),
                (places, eras[places]),
            ]
        )
        weeks = [era_number(era) for era in chosen]
        far = [era for era in eras if min(abs(era_number(era) - week) for week in weeks) > purge]
        shuffled = rng.sample(eras, len(eras))
        if far:
            assert split_eras(shuffled, validation=validation, purge=purge) == (far, chosen)
            splits += 1
        else:
            with pytest.raises(EraError, match="no era is left to train on"):
                split_eras(shuffled, validation=validation, purge=purge)
    assert 300 < splits < 1000


def test_two_spellings_of_one_week_do_not_train_and_validate():
    split = split_eras(["0001", "0002", "era2"], validation=["era2"], purge=0)
    assert split == (["0001"], ["era2"])
    assert walk_forward(["0001", "0002", "era2"], window=1, step=1, purge=0) == [
        (["0001"], ["0002"]),
        (["0001"], ["era2"]),
    ]


@pytest.mark.parametrize(
    "eras",
    [
        range(1, 21),
        np.arange(20, 0, -1),
        pd.Series(range(1, 21)),
        pa.array([str(number) for number in range(1, 21)]),
    ],
    ids=lambda eras: type(eras).__name__,
)
def test_eras_are_any_iterable_of_names_or_numbers(eras):
    names = [str(number) for number in range(1, 21)]
    expected = Split(names[:12], names[15:])
    for found in (
        split_eras(eras, validation=5, purge=3),
        walk_forward(eras, window=12, step=5, purge=3)[0],
    ):
        assert found == expected
        assert {type(era) for part in found for era in part} == {str}


NUMERAI = [(148, 157, 312), (304, 313, 468), (460, 469, 624), (616, 625, 780)]


@pytest.mark.parametrize("spelling", ["{:04d}", "era{}"])
def test_folds_are_those_of_numerais_benchmark_models(spelling):
    names = [spelling.format(number) for number in range(1, 781)]
    folds = walk_forward(names[::-1], window=None, step=156, purge=8)
    assert folds == [(names[:end], names[first - 1 : last]) for end, first, last in NUMERAI]


def test_folds_for_60_day_targets_purge_16():
    folds = walk_forward(weekly(1, 780), window=None, step=156, purge=16)
    assert [fold.train for fold in folds] == [weekly(1, end - 8) for end, _, _ in NUMERAI]
    assert [fold.validation for fold in folds] == [weekly(*part) for _, *part in NUMERAI]


def test_last_fold_validates_on_what_is_left():
    *_, last = walk_forward(weekly(1, 1231), window=None, step=156, purge=8)
    assert last == (weekly(1, 1084), weekly(1093, 1231))


def test_window_is_how_many_eras_train():
    folds = walk_forward(weekly(1, 20), window=5, step=4, purge=3)
    assert folds == [
        (weekly(1, 5), weekly(9, 12)),
        (weekly(5, 9), weekly(13, 16)),
        (weekly(9, 13), weekly(17, 20)),
    ]


def test_purge_of_folds_is_counted_in_weeks():
    folds = walk_forward(weekly(1, 41, 4), window=3, step=5, purge=8)
    assert folds == [(weekly(1, 9, 4), weekly(21, 37, 4)), (weekly(21, 29, 4), ["0041"])]
    folds = walk_forward(weekly(1, 41, 4), window=3, step=5, purge=7)
    assert folds[0] == (weekly(1, 9, 4), weekly(17, 33, 4))


def test_steps_shorter_than_the_purge_start_with_the_first_that_leaves_an_era_to_train_on():
    folds = walk_forward(weekly(1, 20), window=None, step=4, purge=8)
    assert folds == [(weekly(1, 4), weekly(13, 16)), (weekly(1, 8), weekly(17, 20))]


def test_folds_are_what_brute_force_folds():
    rng = random.Random(5)
    found = 0
    for _ in range(1000):
        eras = some_eras(rng)
        window, step = rng.choice([None, rng.randint(1, 20)]), rng.randint(1, 20)
        purge = rng.randrange(10)

        def before(start, eras=eras, purge=purge):
            week = era_number(eras[start])
            return [era for era in eras[:start] if week - era_number(era) > purge]

        starts = range(step, len(eras), step) if window is None else range(len(eras))
        first = next((at for at in starts if len(before(at)) >= (window or 1)), None)
        shuffled = rng.sample(eras, len(eras))
        if first is None:
            with pytest.raises(EraError, match="too few eras for one fold"):
                walk_forward(shuffled, window=window, step=step, purge=purge)
            continue
        folds = walk_forward(shuffled, window=window, step=step, purge=purge)
        # Every era from the first on is validated once, in the order of time, in whole steps.
        assert list(chain.from_iterable(fold.validation for fold in folds)) == eras[first:]
        assert {len(fold.validation) for fold in folds[:-1]} <= {step}
        assert 1 <= len(folds[-1].validation) <= step
        for fold in folds:
            past = before(eras.index(fold.validation[0]))
            assert fold.train == (past if window is None else past[-window:])
            newest, oldest = era_number(fold.train[-1]), era_number(fold.validation[0])
            assert oldest - newest > purge
        found += 1
    assert found > 300


@pytest.mark.parametrize(
    ("window", "step", "purge", "takes"),
    [(12, 3, 8, 21), (1, 1, 0, 2), (None, 156, 8, 157), (None, 4, 8, 13), (None, 3, 8, 10)],
)
def test_too_few_eras_for_one_fold_are_told_how_many_it_takes(window, step, purge, takes):
    options = {"window": window, "step": step, "purge": purge}
    assert len(walk_forward(weekly(1, takes), **options)) == 1
    eras = weekly(1, takes - 1)
    with pytest.raises(EraError, match="too few eras for one fold") as caught:
        walk_forward(eras, **options)
    assert f"expected at least {takes} weekly eras: {window or 1} to train on, " in str(
        caught.value
    )
    assert f"found {len(eras)} era" in str(caught.value)
    assert caught.value.eras == eras


def test_no_era_left_to_train_on_says_why():
    with pytest.raises(EraError) as caught:
        split_eras(weekly(1, 10), validation=3, purge=8)
    assert str(caught.value) == (
        "no era is left to train on: of 10 eras (0001 to 0010), 3 are for validation, and the "
        "other 7 are within the purge of 8; use fewer validation eras, or a smaller purge"
    )
    assert caught.value.eras == weekly(8, 10)
    for everything in (10, 0.99, None, ":"):
        with pytest.raises(EraError, match="no era is left to train on: of 10 eras"):
            split_eras(weekly(1, 10), validation=everything, purge=0)


def test_validation_of_none_or_of_more_than_there_are_is_refused():
    for count in (0, -1, 11, np.int64(0)):
        with pytest.raises(EraError, match=f"^validation: found {count}, expected at least 1 and"):
            split_eras(weekly(1, 10), validation=count, purge=0)
    for nothing in ([], "11-", lambda era: False):
        with pytest.raises(EraError, match="choose"):
            split_eras(weekly(1, 10), validation=nothing, purge=0)
    with pytest.raises(EraError, match="'0011' not found among 10 eras"):
        split_eras(weekly(1, 10), validation=["0011"], purge=0)


@pytest.mark.parametrize("share", [0.0, 1.0, 1.5, -0.1, float("nan"), np.float32(1)])
def test_share_that_is_not_between_0_and_1_is_refused(share):
    with pytest.raises(ValueError, match="expected a share between 0 and 1"):
        split_eras(weekly(1, 10), validation=share, purge=0)


@pytest.mark.parametrize("validation", [True, np.True_, b"1", [1.0]])
def test_validation_that_is_no_choice_is_refused(validation):
    with pytest.raises(TypeError, match="expected"):
        split_eras(weekly(1, 10), validation=validation, purge=0)


@pytest.mark.parametrize("text", ["1", "20", "008", "575", " 7 ", "+3", np.str_("5")])
def test_a_number_that_may_be_a_count_or_an_era_is_refused(text):
    number = int(text)
    message = f"expected {number} for the newest {number} eras, or '{number:04d}' for that era"
    with pytest.raises(ValueError, match=message):
        split_eras(weekly(1, 600), validation=text, purge=0)


@pytest.mark.parametrize(
    ("validation", "expected"),
    [
        ("0001", ["0001"]),
        ("1000", ["1000"]),
        ("1,3", ["0001", "0003"]),
        ("-20:", weekly(981, 1000)),
        ("998-", weekly(998, 1000)),
        (["20"], ["0020"]),
        (20, weekly(981, 1000)),
    ],
)
def test_each_way_to_write_a_count_or_an_era_is_taken(validation, expected):
    found = split_eras(weekly(1, 1000), validation=validation, purge=0).validation
    assert found == expected


def split_by_2(eras, purge=0):
    return split_eras(eras, validation=2, purge=purge)


def walk_by_2(eras, purge=0):
    return walk_forward(eras, window=2, step=2, purge=purge)


both = pytest.mark.parametrize("split", [split_by_2, walk_by_2])


@both
def test_era_without_a_number_is_refused(split):
    with pytest.raises(EraError, match="'X' has no number, and so no place in time") as caught:
        split([*weekly(1, 9), "X"])
    assert caught.value.eras == ["X"]


@both
def test_era_that_comes_twice_is_refused(split):
    with pytest.raises(EraError, match="'0002' appears twice; give each era once") as caught:
        split([*weekly(1, 9), "0002", "0003"])
    assert caught.value.eras == ["0002", "0003"]


@both
def test_no_eras_are_refused(split):
    with pytest.raises(EraError, match="eras: found none, expected eras to train on"):
        split([])


@both
@pytest.mark.parametrize("eras", ["0001", b"0001", [1.0, 2.0], [None]])
def test_what_is_no_list_of_eras_is_refused(split, eras):
    with pytest.raises(TypeError, match="eras: found "):
        split(eras)


@both
def test_purge_is_a_whole_number_of_at_least_0(split):
    for purge in (1.0, True, "8", None):
        with pytest.raises(TypeError, match=f"purge: found {purge!r}, expected a whole number"):
            split(weekly(1, 9), purge)
    with pytest.raises(ValueError, match="purge: found -1, expected at least 0"):
        split(weekly(1, 9), -1)
    assert split(weekly(1, 9), np.int64(1)) == split(weekly(1, 9), 1)


@pytest.mark.parametrize("option", ["window", "step"])
def test_window_and_step_are_whole_numbers_of_at_least_1(option):
    for value in (1.0, True, "8"):
        with pytest.raises(TypeError, match=f"{option}: found {value!r}, expected a whole number"):
            walk_forward(weekly(1, 9), **{"window": 1, "step": 1, "purge": 0, option: value})
    with pytest.raises(ValueError, match=f"{option}: found 0, expected at least 1"):
        walk_forward(weekly(1, 9), **{"window": 1, "step": 1, "purge": 0, option: 0})


def test_options_are_required():
    with pytest.raises(TypeError, match="'validation' and 'purge'"):
        split_eras(weekly(1, 9))
    with pytest.raises(TypeError, match="'window', 'step', and 'purge'"):
        walk_forward(weekly(1, 9))


@pytest.mark.parametrize(
    ("targets", "purge"),
    [
        (["target"], 16),
        (("target",), 16),
        (["target", "target_ender_20", "target_cyrusd_20"], 16),
        (["target_20", "target_ender_20", "target_cyrusd_20"], 8),
        (iter(["target_ender_20"]), 8),
        (["target_ender_60"], 16),
        (["target", "target_ender_60"], 16),
        (["target_ender_20", "target_own"], 16),
        (["target_own"], 16),
        (["target_120"], 16),
        ([], 16),
    ],
)
def test_purge_of_targets_is_numerais(targets, purge):
    assert purge_of(targets) == purge


@pytest.mark.parametrize(
    ("targets", "alias", "purge"),
    [
        (["target"], ["target_ender_20"], 8),
        (["target"], ["target_ender_20", "target_cyrusd_20"], 8),
        (["target", "target_jerome_20"], ("target_ender_20",), 8),
        (["target"], ["target_ender_60"], 16),
        (["target"], ["target_ender_20", "target_ender_60"], 16),
        (["target"], ["target_ender_20", "target_own"], 16),
        (["target"], [], 16),
        (["target", "target_ender_60"], ["target_ender_20"], 16),
        (["target_ender_20"], ["target_ender_60"], 8),
    ],
)
def test_target_is_purged_as_what_it_equals(targets, alias, purge):
    assert purge_of(targets, alias=alias) == purge


def test_splits_are_public_and_come_without_keras():
    assert {"Split", "split_eras", "walk_forward"} <= set(numerai_sequence.__all__)
    code = (
        "import sys, numerai_sequence.ordering.splits; "
        "print({'keras', 'tensorflow'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "set()\n", result.stderr
