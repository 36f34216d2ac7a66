"""Score table: score predictions of any models by era, against a shard set or Parquet file."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..checks import names_in_order
from ..errors import FeatureError
from ..feeding.sequence import NumeraiSequence
from ..ordering.eras import sort_eras
from ..predicting.data_argument import opened_data
from ..reading.shard_set import PathLike, ShardSet
from ..system.optional_packages import load_extra
from .feature_exposure import Exposure
from .given_predictions import read_predictions
from .neutral_correlation import era_digits, neutral_correlations, read_neutral
from .score_kinds import EXPOSURE, FNC, load_scorer
from .score_picture import draw_scores
from .scored_rows import ScoredRows
from .scores import score_eras, write_table

if TYPE_CHECKING:
    import pandas as pd


_TARGET = "target"
Values = npt.NDArray[np.float64]


def score(
    predictions: pd.DataFrame | pd.Series | PathLike | Iterable[Any] | Mapping[str, Any],
    data: ShardSet | PathLike | Iterable[PathLike],
    *,
    target: str | None = None,
    eras: Any = None,
    data_type: str | Iterable[str] | None = None,
    meta_model: PathLike | pd.DataFrame | pd.Series | None = None,
    benchmarks: PathLike | Iterable[Any] | pd.DataFrame | None = None,
    exposure: bool = False,
    neutral: str | Sequence[str] | bool | None = None,
    csv: PathLike | None = None,
    png: PathLike | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Score predictions by era with Numerai's own scores, in bounded memory.

    Give a prediction for every row of an era, or for none. Eras without predictions are left out.
    Features are read only for `exposure` and `neutral`, one era at a time. Features of a Parquet
    file are first written as a temporary shard set. See `predict`.

    Parameters
    ----------
    predictions : pandas.DataFrame, pandas.Series, path, or a list or dict of these
        Predictions by id, such as `predict` returns, or the path of a ``.parquet`` or ``.csv``
        file. The ids are the index or a column ``id``. Each column of numbers is a model. The keys
        of a dict name its models. In a list, the model of a file with one column is named after the
        file.
    data : ShardSet, path, or sequence of paths
        A shard set, in any form that `open_shards` takes, or one Parquet file with the targets.
    target : str, optional
        Target column to score with. None for ``target``, or for the only target. Rows without this
        target are not scored.
    eras, data_type : optional
        Eras and data types to score. See `NumeraiSequence`. None for all.
    meta_model, benchmarks : optional
        Other models to compare with. See `EraScores`.
    exposure : bool
        Whether to score the largest correlation with a single feature too.
    neutral : str, list of str, or bool, optional
        Features for the feature-neutral correlation: the name of a feature set, a list, or True for
        all. None leaves this score out.
    csv, png : path, optional
        Files for the table and for a picture of it.
    progress : bool
        Whether to show progress bars on stderr.

    Returns
    -------
    pandas.DataFrame
        Scores, float64, indexed by ``era``, oldest first. The column ``corr`` is always there.
        ``mmc``, ``bmc_<name>``, ``exposure`` and ``fnc`` need `meta_model`, `benchmarks`,
        `exposure` and `neutral`. With several models the columns have two levels, ``model`` and
        ``score``. `summarize` gives statistics over the eras.

    Raises
    ------
    ValueError
        A model has predictions for only some rows of an era, or for no row, or has an id twice; or
        two models have the same name.
    FeatureError, EraError
        A target, feature, era or data type is unknown, or no chosen row has a target.
    SourceError
        A file cannot be read.
    TypeError
        `predictions` or `data` is something else.
    NumeraiSequenceError
        numerai-tools is not installed.
    """
    load_scorer()  # fail now if it is missing, and not after reading
    needed = None if exposure else _needed(neutral)
    with opened_data(data, features=needed, targets=None, progress=progress) as shards:
        validation = NumeraiSequence(
            shards,
            target=_target_of(shards, target),
            eras=eras,
            data_type=data_type,
            missing_target="drop",
            shuffle=False,
        )
        rows = ScoredRows(
            validation,
            batch_by="rows",
            target=str(validation.target),
            meta_model=meta_model,
            benchmarks=benchmarks,
        )
        models = read_predictions(predictions, rows.sequence)
        scored = ~np.all([np.isnan(values) for values in models.values()], axis=0)
        if lacking := rows.without_values(scored):
            warnings.warn(lacking, stacklevel=2)
        tables = _tables(rows, models)
        if exposure:
            _add_exposure(tables, rows, models, progress)
        if features := read_neutral(neutral, shards):
            _add_neutral(tables, rows, models, features, progress)
    table = _joined(tables)
    if csv is not None:
        write_table(table, csv)
    if png is not None:
        draw_scores(table, png, title="Scores by era")
    return table


def _needed(neutral: Any) -> Any:
    """Return the features to read from a Parquet file; None for all."""
    if neutral is None or isinstance(neutral, (bool, np.bool_)):
        return None if neutral else ()
    return neutral if isinstance(neutral, str) else names_in_order("neutral", neutral)


def _target_of(shards: ShardSet, target: str | None) -> str:
    """Return the target to score with: the given one, ``target``, or the only one."""
    if target is not None:
        return target
    if _TARGET in shards.targets:
        return _TARGET
    if len(shards.targets) != 1:
        raise FeatureError(
            f"{shards.folder}: found targets {', '.join(shards.targets) or 'none'}, expected one "
            "to score with; choose it with target=",
            names=(),
        )
    return shards.targets[0]


def _tables(rows: ScoredRows, models: dict[str, Values]) -> dict[str, pd.DataFrame]:
    """Return the table of each model, with the eras that it has predictions for."""
    return {name: _table(rows, values) for name, values in models.items()}


def _table(rows: ScoredRows, values: Values) -> pd.DataFrame:
    there = ~np.isnan(values)
    pick = slice(None) if there.all() else there
    return score_eras(
        rows.eras if there.all() else rows.eras.filter(there),
        values[pick],
        rows.target[pick],
        meta_model=None if rows.meta_model is None else rows.meta_model[pick],
        benchmarks={name: model[pick] for name, model in rows.benchmarks.items()},
    )


def _add_exposure(
    tables: dict[str, pd.DataFrame], rows: ScoredRows, models: dict[str, Values], progress: bool
) -> None:
    sequence = rows.sequence
    features, eras = sequence.shards.features, sequence.all_eras
    found = {name: Exposure(len(features), eras) for name in models}
    for numbers, digits in era_digits(sequence, features, doing="exposure", progress=progress):
        for name, values in models.items():
            if not np.isnan(values[numbers]).any():
                found[name].add(sequence.era_codes[numbers], digits, values[numbers])
    for name, table in tables.items():
        largest = found[name].max()
        table[EXPOSURE.name] = [largest[era] for era in table.index]


def _add_neutral(
    tables: dict[str, pd.DataFrame],
    rows: ScoredRows,
    models: dict[str, Values],
    features: Sequence[str],
    progress: bool,
) -> None:
    columns = np.stack(list(models.values()), axis=1)
    found = neutral_correlations(
        rows.sequence, columns, rows.target, features=features, progress=progress
    )
    for place, table in enumerate(tables.values()):
        table[FNC.name] = found[place]


def _joined(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Return the only table, or the tables of several models side by side."""
    if len(tables) == 1:
        return next(iter(tables.values()))
    pandas = load_extra("pandas", "pandas", "scores")
    table = pandas.concat(tables, axis=1, names=["model", "score"])
    return table.loc[sort_eras(table.index)].rename_axis(index="era")
