"""Splits: divide eras into training and validation eras, and purge the eras between them.

A purge counts era numbers, which are weeks. It does not count places in the list of eras, because
the list may hold only every fourth era.
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
    """A split of eras into training eras and validation eras, each in order of time.

    Attributes
    ----------
    train : list of str
        Eras to train on.
    validation : list of str
        Eras to validate on.
    """

    train: list[str]
    validation: list[str]


def split_eras(eras: Iterable[str | int], *, validation: float | Wanted, purge: int) -> Split:
    """Split eras into training and validation eras, with a purge between them.

    Use ``purge=8`` for 20-day targets, such as ``target_cyrusd_20``, and ``purge=16`` for 60-day
    targets, such as ``target_ender_60``. ``target`` needs 16, unless `ShardSet.target_alias` shows
    that it equals a 20-day target.

    A target looks 20 or 60 trading days ahead, which is 4 or 12 eras. So the targets of
    neighbouring eras overlap. If a model is trained on eras near its validation eras, its
    validation scores are better than its scores on new eras. The purge leaves out the training
    eras near the validation eras.
    Numerai uses 8 and 16 (https://docs.numer.ai/numerai-tournament/models). For purging, see Lopez
    de Prado 2018, Advances in Financial Machine Learning, chapter 7.

    Parameters
    ----------
    eras : iterable of str or int
        Eras to split, in any order. Each needs a number.
    validation : int, float, str, list, slice or function
        Validation eras. An int n selects the newest n eras. A float between 0 and 1 selects this
        share of the eras, the newest ones, and at least one era. A str, list, slice or function
        selects among `eras`, like ``eras=`` of `NumeraiSequence`. A str of one to three digits
        raises an error: use 20 for the newest 20 eras, and "0020" for era 20.
    purge : int
        Number of eras (weeks) to leave out on each side of the validation eras. An era is left out
        of training if its number is within `purge` of the number of a validation era.

    Returns
    -------
    Split
        Training and validation eras.

    Raises
    ------
    EraError
        An era has no number, appears twice or is unknown. No era is left for training or
        validation.
    ValueError
        The share is not between 0 and 1. `validation` is a str such as "20". `purge` is negative.
    TypeError
        `purge` is not a whole number, or `validation` has another type.
    """
    numbers = _numbers(eras)
    purge = whole_number("purge", purge, least=0)
    validated = _validation(validation, list(numbers))
    weeks = [numbers[era] for era in validated]
    train = [era for era, number in numbers.items() if _distance(number, weeks) > purge]
    if not train:
        raise EraError(
            f"no era is left to train on: of {era_span(list(numbers))}, {len(validated):,} are for "
            f"validation, and the other {len(numbers) - len(validated):,} are within the purge of "
            f"{purge}; use fewer validation eras, or a smaller purge",
            eras=validated,
        )
    return Split(train, validated)


def walk_forward(
    eras: Iterable[str | int], *, window: int | None, step: int, purge: int
) -> list[Split]:
    """Split eras into the folds of a walk forward, which train only on eras before validation.

    Use ``purge=8`` for 20-day targets and ``purge=16`` for 60-day targets. ``target`` needs 16,
    unless `ShardSet.target_alias` shows that it equals a 20-day target. See `split_eras` for the
    reason.

    Numerai makes its benchmark models with ``window=None, step=156``
    (https://docs.numer.ai/numerai-tournament/models). With ``purge=8``, the first fold trains on
    eras 1 to 148 and validates on 157 to 312, the second trains on 1 to 304 and validates on 313 to
    468, and so on.

    Parameters
    ----------
    eras : iterable of str or int
        Eras to split, in any order. Each needs a number.
    window : int or None
        Number of training eras in each fold. None means all eras before the purge.
    step : int
        Number of validation eras in each fold. The last fold may have fewer.
    purge : int
        Number of eras (weeks) to leave out between the training and validation eras of a fold.

    Returns
    -------
    list of Split
        Folds in order of time. Each era is a validation era of at most one fold. With a `window`,
        the first validation era is the earliest era with `window` training eras and the purge
        before it. With ``window=None``, the first validation era comes after a whole number of
        steps. This number is the smallest one that leaves at least one training era.

    Raises
    ------
    EraError
        An era has no number or appears twice, or there are too few eras for one fold.
    ValueError
        `window` or `step` is below 1, or `purge` is below 0.
    TypeError
        `window`, `step` or `purge` is not a whole number.
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
    """Return the number of eras that Numerai purges for targets.

    It is 8 if all are 20-day targets. It is 16 if any is a 60-day target, or if a name does not say
    (https://docs.numer.ai/numerai-tournament/models).

    Parameters
    ----------
    targets : iterable of str
        Names of the targets.
    alias : sequence of str
        Targets that ``target`` equals, from `ShardSet.target_alias`. The name ``target`` alone does
        not say, because Numerai has moved it from 20-day targets to a 60-day target.
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
            "eras: found none, expected eras to train on and eras to validate on", eras=[]
        )
    twice = [era for era, count in Counter(names).items() if count > 1]
    if twice:
        raise EraError(f"eras: {twice[0]!r} appears twice; give each era once", eras=twice)
    numbers = {era: number for era in names if (number := era_number(era)) is not None}
    if len(numbers) < len(names):
        others = [era for era in names if era not in numbers]
        raise EraError(
            f"eras: {others[0]!r} has no number, and so no place in time; leave it out",
            eras=others,
        )
    return numbers


def is_ambiguous(text: str) -> bool:
    """Return whether a text of one to three digits may mean a number of eras, or one era."""
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
    """Return the distance from a number to the nearest of some others."""
    place = bisect_left(ascending, number)
    return min(abs(number - other) for other in ascending[max(0, place - 1) : place + 1])


def _first_start(stops: list[int], window: int | None, step: int) -> int | None:
    """Return the start of the first fold's validation, from the ends of training for each start."""
    starts = range(0, len(stops), step if window is None else 1)
    return next((start for start in starts if stops[start] >= (window or 1)), None)


def _newest(eras: list[str], count: int | None) -> list[str]:
    return eras if count is None else eras[-count:]


def _no_fold(eras: Sequence[str], window: int | None, step: int, purge: int) -> EraError:
    before = (window or 1) + purge
    steps = "" if window is not None else f", the first two rounded up to steps of {step}"
    takes = 1 + (before if window is not None else -(-before // step) * step)
    return EraError(
        f"too few eras for one fold: found {era_span(eras)}, expected at least {takes:,} weekly "
        f"eras: {window or 1} to train on, a purge of {purge}{steps}, and one to validate on; give "
        "more eras, or a smaller window, step or purge",
        eras=list(eras),
    )
