"""Neutralizing: the part of predictions that a linear model of the features does not explain."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..checks import names_in_order, share
from ..errors import PredictionError
from ..feeding.sequence import NumeraiSequence
from ..format.feature_sets import resolve_features
from ..reading.join_by_id import Lookup, models_of
from ..reading.shard_set import PathLike, ShardSet
from ..reading.tables import Frame, is_table, read_frame
from ..scoring.neutral_correlation import era_digits
from ..system.optional_packages import load_extra
from .data_argument import opened_data
from .residuals import neutralized, why_nothing_is_left

if TYPE_CHECKING:
    import pandas as pd

Values = npt.NDArray[np.float64]

_EXPECTED = "expected a frame or Series of predictions with ids as its index or in a column 'id'"


def neutralize(
    frame: pd.DataFrame | pd.Series | PathLike,
    data: ShardSet | PathLike | Iterable[PathLike],
    *,
    features: str | Sequence[str] | None = None,
    proportion: float = 1.0,
    progress: bool = True,
) -> pd.DataFrame:
    """Neutralize predictions to features, era by era, as numerai-tools' ``neutralize`` does.

    A linear model of the features, with an intercept, is fitted to each column by least squares,
    and `proportion` of the fit is subtracted. The results lie around 0; `ensemble` ranks them
    again. Memory holds the features of one era and their products with each other: 400 MB for 7,000
    rows of 3,555 features. Features of a Parquet file are first written as a temporary shard set.
    See `predict`.

    Parameters
    ----------
    frame : pandas.DataFrame or pandas.Series
        Predictions by id, such as `predict` returns, with all rows of an era or some of them. Or
        the path of a ``.parquet`` or ``.csv`` file of predictions.
    data : ShardSet, path, or sequence of paths
        Data with the features of these ids: a shard set, or one Parquet file such as
        ``live.parquet``. A missing feature value counts as the middle.
    features : str or sequence of str, optional
        Features to neutralize to: the name of a feature set, or a list; None for all. The feature
        sets of a Parquet file are in the ``features.json`` beside it.
    proportion : float
        Proportion of the fit to subtract, such as 0.5.
    progress : bool
        Whether to show progress bars on stderr.

    Returns
    -------
    pandas.DataFrame
        float64, with the same ids and columns in the same order. A column ``era`` does not change.

    Raises
    ------
    ValueError
        A prediction is missing or infinite; an id appears twice, or is not in the data; or, with a
        proportion of 1, the features explain all predictions of an era. They always do if an era
        has no more rows than features.
    FeatureError
        A feature or feature set is unknown.
    SourceError
        The Parquet file cannot be used.
    TypeError
        An argument is of another type.
    """
    proportion = share("proportion", proportion)
    if features is not None and not isinstance(features, str):
        features = names_in_order("features", features)
    given = _read(frame)
    columns = models_of("frame", given)
    values = _values(given, columns)
    with opened_data(data, features=features, targets=(), progress=progress) as shards:
        features = resolve_features(features, shards.manifest, str(shards.folder))
        for places, digits, era in _by_era(given, columns[0], shards, features, progress):
            left = neutralized(values[places], digits, proportion)
            if proportion == 1:
                _check_left(left, values[places], columns, era, digits.shape[1])
            values[places] = left
    return _as_frame(frame, given, columns, values)


def _read(frame: Any) -> Frame:
    given = read_frame("frame", frame, _EXPECTED, unnamed="prediction")
    if not given.has_ids:
        raise PredictionError(f"{given.where or 'frame'}: found no ids of text; {_EXPECTED}")
    if given.ids.null_count:
        raise PredictionError(
            f"frame: {given.ids.null_count:,} of {len(given.ids):,} ids are null, expected an id "
            "in each row"
        )
    return given


def _values(given: Frame, columns: Sequence[str]) -> Values:
    """Return the predictions, float64, shape (rows, columns)."""
    values = np.stack([given.numbers(name).astype(np.float64) for name in columns], axis=1)
    wrong = np.argwhere(~np.isfinite(values))
    if len(wrong):
        row, column = wrong[0]
        raise PredictionError(
            f"frame: {len(wrong):,} predictions are NaN or infinite, the first for id "
            f"{given.ids[int(row)].as_py()!r} in column {columns[column]!r}; expected a number in "
            "every row"
        )
    return values


def _by_era(
    given: Frame, name: str, shards: ShardSet, features: tuple[str, ...], progress: bool
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int8], str]]:
    """Yield for each era the places of its rows in the frame, their features, and the era."""
    sequence = NumeraiSequence(shards, target=None, features=features, shuffle=False)
    places = Lookup(sequence).places(given, name)
    _check_all_found(given, places)
    codes, eras = sequence.era_codes, sequence.all_eras
    wanted = np.unique(codes[places >= 0])
    places = places[np.isin(codes, wanted)]
    chosen = NumeraiSequence(
        shards,
        target=None,
        features=features,
        shuffle=False,
        eras=[eras[code] for code in wanted],
    )
    parts = era_digits(chosen, features, doing="neutralizing", progress=progress)
    for rows, digits in parts:
        # In the frame's order, because sums in another order differ in their last bits.
        order = np.argsort(places[rows], kind="stable")
        order = order[places[rows][order] >= 0]
        era = eras[int(chosen.era_codes[rows[0]])]
        is_as_it_is = len(order) == len(rows) and bool((np.diff(order) == 1).all())
        yield places[rows][order], digits if is_as_it_is else digits[order], era


def _check_all_found(given: Frame, places: npt.NDArray[np.int64]) -> None:
    times = np.bincount(places[places >= 0], minlength=len(given.ids))
    if not (times == 1).all():
        row = int(np.argmax(times != 1))
        found = "is not in the data" if not times[row] else f"is in the data {times[row]} times"
        raise PredictionError(
            f"frame: id {given.ids[row].as_py()!r} {found}; it is the first of "
            f"{np.sum(times != 1):,} such ids of {len(times):,}; expected data that has each id "
            "once"
        )


def _check_left(
    left: Values, values: Values, columns: Sequence[str], era: str, features: int
) -> None:
    wrong = why_nothing_is_left(left, values, columns, era, features)
    if wrong:
        raise PredictionError(wrong)


def _as_frame(frame: Any, given: Frame, columns: Sequence[str], values: Values) -> pd.DataFrame:
    pandas = load_extra("pandas", "pandas", "predictions")
    index = pandas.Index(given.ids.to_pandas(), name="id")
    found: pd.DataFrame = pandas.DataFrame(values, index=index, columns=list(columns))
    if "era" in given.types:
        eras = given.column("era")
        found.insert(0, "era", eras.to_pandas().to_numpy())
    if is_table(frame) and getattr(frame, "attrs", None):
        found.attrs = dict(frame.attrs)
    return found
