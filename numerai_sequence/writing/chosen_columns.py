"""Columns: from sources and what is asked for to the features and targets that are written."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import FeatureError, check_known
from .source_columns import FEATURE_PREFIX, Source


def choose_columns(
    sources: Sequence[Source],
    features: Sequence[str] | None,
    targets: Sequence[str] | None,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the feature and target columns to write, and see that every source has them.

    None stands for all of the first source's, in its order. Any other column of numbers may be
    written as a target, but only when it is named: weights of the rows, for example.

    Raises
    ------
    FeatureError
        A name asked for is not in the first source, or no feature is asked for.
    SourceError
        A source has no features, lacks one of the columns, or has one of a type of no use.
    """
    first = sources[0]
    chosen = tuple(features) if features is not None else first.features
    wanted = tuple(targets) if targets is not None else first.targets
    if features is not None and not chosen:
        raise FeatureError(f"{first.path}: no features asked for; name some", names=())
    if not chosen:
        what = f"no feature; expected columns named '{FEATURE_PREFIX}...'"
        raise first.error(f"{what}; download the file again")
    check_known("feature", chosen, first.features, str(first.path))
    check_known("target", wanted, first.others, str(first.path))
    for source in sources:
        source.check_columns(chosen, wanted)
        if features is None:
            _check_same(source, set(source.features) - set(chosen), first)
        if targets is None:
            _check_same(source, set(source.targets) - set(wanted), first)
    return chosen, wanted


def _check_same(source: Source, extra: set[str], first: Source) -> None:
    if extra:
        name = min(extra)
        what = f"found a column that {first.path} has not, expected the same in all"
        remedy = "name the columns to write with features= and targets="
        raise source.error(f"{what}; {remedy}", column=name)
