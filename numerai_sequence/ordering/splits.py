"""Splits: turn eras into those to train on and those to validate on, purged.

What is purged is counted in era numbers, which are weeks, and not in places of a list, which may
hold every fourth era only.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..checks import whole_number
from ..errors import EraError
from .eras import (
    Wanted,
    choose_eras,
    era_name,
    era_number,
    era_span,
    sort_eras,
)
from .target_horizon import days_ahead


class Split(NamedTuple):
    """The eras to train on and those to validate on, each in the order of time."""

    train: list[str]
    validation: list[str]


def split_eras(eras: Iterable[str | int], *, validation: float | Wanted, purge: int) -> Split:
    """Split eras into those to train on and those to validate on.

    A target looks 20 or 60 trading days ahead, which are 4 or 12 weeks and so as many eras: the
    targets of neighbouring eras overlap. A model trained too near its validation has therefore
    seen a part of the answers, so Numerai leaves out, or purges, 8 eras between the two for 20-day
    targets and 16 for 60-day ones (https://docs.numer.ai/numerai-tournament/models; for purging
    see Lopez de Prado 2018, Advances in Financial Machine Learning, chapter 7). So
    ``target_cyrusd_20`` needs ``purge=8``, and ``target_ender_60`` needs ``purge=16``. ``target``
    needs 16 unless `ShardSet.target_alias` shows that it equals a 20-day target.

    Parameters
    ----------
    eras : iterable of str or int
        In any order. Each needs a number.
    validation : int, float, or what `choose_eras` takes
        An int is how many of the newest eras, a float between 0 and 1 which share of them, rounded
        and at least one era; anything else chooses among `eras`. A str of one to three digits is
        refused: write 20 for the newest 20 eras, and "0020" for that era.
    purge : int
        An era whose number is at most so far from that of any validation era, before or after it,
        is not trained on.

    Returns
    -------
    Split

    Raises
    ------
    EraError
        An era has no number, comes twice or is not there, or none is left to train on or to
        validate on.
    ValueError
        The share is not between 0 and 1, `validation` is such as "20", or `purge` is negative.
    TypeError
        `purge` is no whole number, or `validation` is none of the above.
    """
    numbers = _numbers(eras)
    purge = whole_number("purge", purge, least=0)
    validated = _validation(validation, list(numbers))
    weeks = [numbers[era] for era in validated]
    train = [era for era, number in numbers.items() if _distance(number, weeks) > purge]
    if not train:
        raise EraError(
            f"no era is left to train on: of {era_span(list(numbers))}, {len(validated):,} validate"
            f" and the other {len(numbers) - len(validated):,} are within a purge of {purge} of "
            "those; validate on fewer or purge less",
            eras=validated,
        )
    return Split(train, validated)


def walk_forward(
    eras: Iterable[str | int], *, window: int | None, step: int, purge: int
) -> list[Split]:
    """Split eras into folds, each of which trains only on what comes before its validation.

    A target looks 20 or 60 trading days ahead, which are 4 or 12 eras, so the targets of
    neighbouring eras overlap. A model trained right up to its validation has therefore seen a part
    of the answers, so Numerai purges 8 eras for 20-day targets and 16 for 60-day ones (Lopez de
    Prado 2018, Advances in Financial Machine Learning, chapter 7). ``target`` needs 16 unless
    `ShardSet.target_alias` shows that it equals a 20-day target.

    ``window=None, step=156`` is how Numerai makes its benchmark models
    (https://docs.numer.ai/numerai-tournament/models). With ``purge=8``, for 20-day targets: train
    on 1 to 148 and validate on 157 to 312, train on 1 to 304 and validate on 313 to 468, and so on.

    Parameters
    ----------
    eras : iterable of str or int
        In any order. Each needs a number.
    window : int or None
        How many eras to train on; None for all that come before.
    step : int
        How many eras to validate on. The last fold may have fewer.
    purge : int
        An era whose number is at most so far below that of the first validation era is not trained
        on.

    Returns
    -------
    list of Split
        In the order of time. Each era is validated once, from the first one before which `window`
        eras and the purge have room; with None, from the first one after a whole number of steps
        that leaves any era to train on.

    Raises
    ------
    EraError
        An era has no number or comes twice, or there are too few for one fold.
    ValueError
        `window` or `step` is below 1, or `purge` below 0.
    TypeError
        One of them is no whole number.
    """
    numbers = _numbers(eras)
    window = None if window is None else whole_number("window", window, least=1)
    step = whole_number("step", step, least=1)
    purge = whole_number("purge", purge, least=0)
    names, weeks = list(numbers), list(numbers.values())
    stops = [bisect_left(weeks, week - purge) for week in weeks]
    first = _first_start(stops, window, step)
    if first is None:
        raise _no_fold(names, window, step, purge)
    return [
        Split(_newest(names[: stops[start]], window), names[start : start + step])
        for start in range(first, len(names), step)
    ]


def purge_of(targets: Iterable[str], *, alias: Sequence[str] = ()) -> int:
    """Return how many eras Numerai purges for targets of these names.

    8 where each is a 20-day target, and 16 otherwise: some are 60-day targets, or their names do
    not tell (https://docs.numer.ai/numerai-tournament/models).

    Parameters
    ----------
    targets : iterable of str
    alias : sequence of str
        The targets that ``target`` equals, as `ShardSet.target_alias` has them. The name ``target``
        alone tells nothing: Numerai has moved it from 20-day targets to a 60-day one.
    """
    days = {days_ahead(name, alias=alias) for name in targets}
    return 8 if days == {20} else 16


def _numbers(eras: Iterable[str | int]) -> dict[str, int]:
    """Return the numbers of the eras, in the order of time."""
    if isinstance(eras, (str, bytes)):
        raise TypeError(f"eras: found {eras!r}, expected a list of eras")
    names = sort_eras(str(era_name(era)) for era in eras)
    if not names:
        raise EraError(
            "eras: found none, expected some to train on and some to validate on", eras=[]
        )
    twice = [era for era, count in Counter(names).items() if count > 1]
    if twice:
        raise EraError(f"eras: {twice[0]!r} comes twice; give each era once", eras=twice)
    numbers = {era: number for era in names if (number := era_number(era)) is not None}
    if len(numbers) < len(names):
        others = [era for era in names if era not in numbers]
        raise EraError(
            f"eras: {others[0]!r} is no number, and so has no place in time; leave it out",
            eras=others,
        )
    return numbers


def is_ambiguous(text: str) -> bool:
    """Say whether a text may be meant as a count of eras or as one: it has one to three digits."""
    return re.fullmatch(r"\s*\+?\d{1,3}\s*", text) is not None


def _validation(wanted: Any, eras: list[str]) -> list[str]:
    if isinstance(wanted, str) and is_ambiguous(wanted):
        number = int(wanted)
        raise ValueError(
            f"validation: found {wanted!r}, which may be a count or an era; expected {number} for "
            f"the newest {number:,} eras, or '{number:04d}' for that era"
        )
    if isinstance(wanted, (float, np.floating)):
        if not 0 < wanted < 1:
            raise ValueError(f"validation: found {wanted}, expected a share between 0 and 1")
        wanted = max(1, round(wanted * len(eras)))
    whole = isinstance(wanted, (int, np.integer)) and not isinstance(wanted, bool)
    if not whole:
        return choose_eras(wanted, eras)
    if not 1 <= wanted <= len(eras):
        raise EraError(
            f"validation: found {wanted}, expected at least 1 and fewer than {era_span(eras)}",
            eras=eras,
        )
    return _newest(eras, int(wanted))


def _distance(number: int, ascending: list[int]) -> int:
    """Return how far it is from a number to the nearest of some others."""
    place = bisect_left(ascending, number)
    return min(abs(number - other) for other in ascending[max(0, place - 1) : place + 1])


def _first_start(stops: list[int], window: int | None, step: int) -> int | None:
    """Return where the first fold's validation starts; `stops` are where its training would end."""
    starts = range(0, len(stops), step if window is None else 1)
    return next((start for start in starts if stops[start] >= (window or 1)), None)


def _newest(eras: list[str], count: int | None) -> list[str]:
    return eras if count is None else eras[-count:]


def _no_fold(eras: Sequence[str], window: int | None, step: int, purge: int) -> EraError:
    before = (window or 1) + purge
    steps = "" if window is not None else f", the first two rounded up to steps of {step}"
    takes = 1 + (before if window is not None else -(-before // step) * step)
    return EraError(
        f"not one fold: found {era_span(eras)}, expected at least {takes:,}, one a week: "
        f"{window or 1} to train on, a purge of {purge}{steps}, and one to validate on; give more "
        "eras or ask for fewer",
        eras=list(eras),
    )
