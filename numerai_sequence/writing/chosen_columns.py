"""Chosen columns: the features and targets to write, from the sources and the user's choice."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import FeatureError, check_known
from .source_columns import FEATURE_PREFIX, Source


def choose_columns(
    sources: Sequence[Source],
    features: Sequence[str] | None,
    targets: Sequence[str] | None,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the feature and target columns to write, and check that every source has them.

    None means all columns of the first source, in its order. Any other column of numbers, such as
    weights of the rows, can be a target too, if it is named.

    Raises
    ------
    FeatureError
        A requested column is not in the first source, or the list of features is empty.
    SourceError
        A source has no features, lacks a column, or has a column of a wrong type.
    """
    first = sources[0]
    chosen = tuple(features) if features is not None else first.features
    wanted = tuple(targets) if targets is not None else first.targets
    if features is not None and not chosen:
        what = "found an empty list of features, expected at least one"
        raise FeatureError(f"{first.path}: {what}; name some, or leave features= out", names=())
    if not chosen:
        what = f"found no feature, expected columns named '{FEATURE_PREFIX}...'"
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
        what = f"found a column that {first.path} lacks, expected the same columns in all files"
        remedy = "choose the columns to write with features= and targets="
        raise source.error(f"{what}; {remedy}", column=name)
