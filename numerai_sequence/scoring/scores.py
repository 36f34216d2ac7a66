"""Scores: a table of Numerai's own scores by era, and a summary of it.

The scores are computed by numerai-tools.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..errors import NumeraiSequenceError
from ..ordering.eras import era_codes, sort_eras
from ..system.files import replaced
from ..system.optional_packages import load_extra
from .score_kinds import SCORES, Floats, Score, is_summed, load_scorer, score_era, varies

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Summary:
    """Statistics of one score over the eras.

    Attributes
    ----------
    mean : float
        Mean of the scores.
    std : float
        Standard deviation of a population (``ddof=0``), as Numerai computes it.
    sharpe : float
        Mean divided by the standard deviation.
    max_drawdown : float
        Largest fall of the cumulative sum below its highest earlier point, 0 or more.
    """

    mean: float
    std: float
    sharpe: float
    max_drawdown: float


def score_eras(
    eras: Any,
    predictions: Floats,
    target: Floats,
    *,
    meta_model: Floats | None = None,
    benchmarks: Mapping[str, Floats] | None = None,
) -> pd.DataFrame:
    """Score each era by Numerai's correlation, and by the contribution to other models.

    Parameters
    ----------
    eras : sequence of str, array of str, or pyarrow array, length rows
        Era of each row, in any order.
    predictions : float array, shape (rows,)
    target : float array, shape (rows,), in 0..1
        Targets. Rows without a target (NaN) are left out.
    meta_model : float array, shape (rows,), optional
        Values of Numerai's meta model. Rows without a value (NaN) are left out of ``mmc``.
    benchmarks : mapping of str to float array of shape (rows,), optional
        Values of other models by name, such as Numerai's benchmark models. Rows without a value
        (NaN) are left out of their score.

    Returns
    -------
    pandas.DataFrame
        Scores, float64, indexed by ``era``, oldest first. Columns: ``corr`` (`numerai_corr`);
        ``mmc`` if there is a meta model, and ``bmc_<name>`` for each benchmark
        (`correlation_contribution`). NaN marks eras without rows to score, or with constant
        predictions, targets or values of the other model.

    Raises
    ------
    NumeraiSequenceError
        A prediction is NaN or infinite, or numerai-tools is not installed.
    EraError
        A row has no era.
    ValueError
        An array has another shape.
    """
    load_scorer()  # fail now if it is missing
    pandas = load_extra("pandas", "pandas", "scores")
    names, codes = era_codes(eras)
    predictions = one_a_row("predictions", predictions, len(codes))
    target = one_a_row("target", target, len(codes))
    columns = _columns(meta_model, benchmarks, len(codes))
    check_finite(predictions, codes, names)
    scores = np.empty((len(names), len(columns)))
    for era, rows in enumerate(_rows_of_eras(codes, len(names))):
        rows = rows[~np.isnan(target[rows])]
        ours, truth = predictions[rows].astype(np.float64), target[rows].astype(np.float64)
        for place, (score, model) in enumerate(columns.values()):
            theirs = None if model is None else model[rows].astype(np.float64)
            scores[era, place] = score_era(score, ours, truth, theirs)
    index = pandas.Index(names, name="era")
    return pandas.DataFrame(scores, index=index, columns=list(columns))


def summarize(table: pd.DataFrame | pd.Series) -> pd.DataFrame:
    """Summarize scores over the eras, as Numerai does.

    Parameters
    ----------
    table : pandas.DataFrame
        Table of `score` or `EraScores`, or one of its columns. It is indexed by ``era``, in any
        order.

    Returns
    -------
    pandas.DataFrame
        Statistics, float64, with one row for each score, or for each model and score. The columns
        are ``mean``, ``std``, ``sharpe`` and ``max_drawdown``. ``std`` is the standard deviation of
        a population (``ddof=0``). ``sharpe`` is the mean divided by ``std``. ``max_drawdown`` is
        the largest fall of the cumulative sum below its highest earlier point, 0 or more. Eras with
        a NaN score are left out. ``exposure`` has only ``mean`` and ``std``; the rest is NaN.
    """
    pandas = load_extra("pandas", "pandas", "scores")
    if not hasattr(table, "columns"):
        table = table.to_frame(name=table.name or "score")
    rows = [vars(summarize_score(table[name])) for name in table.columns]
    found = pandas.DataFrame(rows, index=table.columns, dtype=np.float64)
    if table.columns.nlevels == 1:
        found.index.name = "score"
    no_sum = [not is_summed(name) for name in found.index.get_level_values(-1)]
    found.loc[no_sum, ["sharpe", "max_drawdown"]] = np.nan
    return found


def summarize_score(scores: Mapping[str, float] | pd.Series) -> Summary:
    """Summarize one score over the eras. Eras with a NaN score are left out.

    Parameters
    ----------
    scores : mapping, or pandas.Series indexed by era, of era to float
        Scores in any order. The drawdown uses the order of time.

    Returns
    -------
    Summary
        NaN if no era has a score. The Sharpe ratio is also NaN if all scores are equal.
    """
    by_era = dict(scores.items())
    values = np.array([by_era[era] for era in sort_eras(by_era)], np.float64)
    values = values[~np.isnan(values)]
    if not len(values):
        return Summary(*[float("nan")] * 4)
    mean, std = float(values.mean()), float(values.std())
    cumulative = np.cumsum(values)
    drawdown = float((np.maximum.accumulate(cumulative) - cumulative).max())
    return Summary(mean, std, mean / std if varies(values) else float("nan"), drawdown)


def logged_statistics(name: str, scores: pd.Series) -> dict[str, float]:
    """Return the logs of a column of scores, by ``<name>_<statistic>``."""
    statistics = vars(summarize_score(scores))
    if not is_summed(name):
        statistics = {"mean": float(scores.mean()), "max": float(scores.max())}
    return {f"{name}_{statistic}": value for statistic, value in statistics.items()}


def shown_summary(table: pd.DataFrame) -> str:
    """Return the summary of a table as text: a line about the eras, and a line for each score."""
    names = list(table.index)
    eras = f"{len(names):,} eras, {names[0]} to {names[-1]}" if names[1:] else f"1 era, {names[0]}"
    shown = summarize(table)
    text: str = shown.to_string(float_format="{:.4f}".format, na_rep="-", sparsify=False)
    return f"{eras}\n{text}"


def flat_names(table: pd.DataFrame) -> list[str]:
    """Return the names of a table's columns, as ``model/score`` for several models."""
    names = table.columns
    return ["/".join(map(str, n)) if isinstance(n, tuple) else str(n) for n in names]


def write_table(table: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Write a table of `score_eras` as CSV, with the eras as its first column.

    An existing file is replaced only when the new one is complete. With several models, columns are
    named ``model/score``. Numbers have all digits that are needed to read the same value back. NaN
    is an empty field. Read the file with
    ``pandas.read_csv(path, index_col="era", dtype={"era": str})``.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    with replaced(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        table.to_csv(file, index_label="era", header=flat_names(table), lineterminator="\n")


def one_a_row(name: str, values: Any, rows: int) -> npt.NDArray[Any]:
    """Return an array with one value for each row. Another shape is a `ValueError`."""
    array = np.asarray(values)
    if array.shape != (rows,):
        raise ValueError(f"{name}: found shape {array.shape}, expected ({rows},)")
    return array


def check_finite(
    predictions: npt.NDArray[Any], codes: npt.NDArray[np.integer[Any]], names: Sequence[str]
) -> None:
    """Raise a `NumeraiSequenceError` if a prediction is NaN or infinite.

    Parameters
    ----------
    predictions : float array, shape (rows,)
    codes : int array, shape (rows,)
        Index of each row's era in `names`. See `era_codes`.
    names : sequence of str
        Names of the eras, oldest first.
    """
    wrong = ~np.isfinite(predictions)
    if wrong.any():
        raise NumeraiSequenceError(
            f"predictions: found {wrong.sum():,} of {len(wrong):,} that are NaN or infinite, the "
            f"first in era {names[codes[wrong].min()]}, expected a number in every row; check "
            "whether the loss became NaN"
        )


def _columns(
    meta_model: Floats | None, benchmarks: Mapping[str, Floats] | None, rows: int
) -> dict[str, tuple[Score, npt.NDArray[Any] | None]]:
    """Return the kind of score of each column, and its other model."""
    columns: dict[str, tuple[Score, npt.NDArray[Any] | None]] = {}
    for name, score in SCORES.items():
        if score.needs == "benchmarks":
            for model, values in (benchmarks or {}).items():
                columns[f"{name}_{model}"] = score, one_a_row(f"benchmark {model!r}", values, rows)
        elif score.needs == "meta_model":
            if meta_model is not None:
                columns[name] = score, one_a_row("meta_model", meta_model, rows)
        elif score.of_era is not None:
            columns[name] = score, None
    return columns


def _rows_of_eras(codes: npt.NDArray[np.int32], eras: int) -> Iterator[npt.NDArray[np.intp]]:
    """Yield the rows of each era, from one sort of all rows."""
    keys = codes.astype(np.uint16) if eras < 1 << 16 else codes
    order = np.argsort(keys, kind="stable")
    ends = np.cumsum(np.bincount(codes, minlength=eras))
    yield from np.split(order, ends)[:-1]
