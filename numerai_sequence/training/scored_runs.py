"""Scored runs: train planned runs, and write one table of all their scores."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import NumeraiSequenceError
from ..predicting.ensembles import ensemble
from ..predicting.predictions import predict
from ..reading.shard_set import ShardSet
from ..scoring.score_kinds import load_scorer
from ..scoring.score_table import score
from ..system.executor_tasks import run_all
from ..system.optional_packages import load_extra
from ..system.progress import progress_bar
from ..writing.parquet_folders import natural
from .one_run import Fitter, write_scores
from .planned_runs import PlannedRun, plan_runs
from .printed_report import show_purge, show_scores
from .run_options import TrainOptions

if TYPE_CHECKING:
    import pandas as pd

_ENSEMBLE = "ensemble"


def train(
    shards: ShardSet,
    out: Path,
    options: TrainOptions,
    *,
    overwrite: bool,
    progress: bool,
    executor: Executor | None = None,
) -> pd.DataFrame | None:
    """Train the network of the options, or one for each fold. See `train_runs`.

    For `overwrite`, `progress` and `executor`, see `fit_runs`.
    """
    fitter = Fitter(shards, overwrite, progress)
    return train_runs(fitter, plan_runs(shards, out, [("", options)]), out, executor=executor)


def train_runs(
    fitter: Fitter, planned: Sequence[PlannedRun], out: Path, *, executor: Executor | None = None
) -> pd.DataFrame | None:
    """Train each planned run that is not finished, and print the scores of all.

    Parameters
    ----------
    fitter : Fitter
    planned : sequence of PlannedRun
        From `plan_runs`.
    out : path
        Folder of the run, or of all runs.
    executor : Executor, optional
        Executor that trains several runs at a time.

    Returns
    -------
    pandas.DataFrame or None
        Scores by validation era. See `score_eras`. For several models, the table of `score`, with
        their ensemble. None for final runs.
    """
    load_scorer()  # fail now rather than after the training
    tables = _run_all(fitter, planned, executor)
    if len(planned) == 1 or not tables:
        return tables.get(0)
    table = _join(fitter, planned, tables)
    models, folds = (len({getattr(run, what) for run in planned}) for what in ("name", "fold"))
    what = " of ".join([f"{folds} folds"] * (folds > 1) + [f"{models} models"] * (models > 1))
    click.echo(f"\nAll {what}")
    write_scores(table, out, f"Validation, all {what}")
    show_scores(table)
    return table


def _run_all(
    fitter: Fitter, planned: Sequence[PlannedRun], executor: Executor | None
) -> dict[int, pd.DataFrame]:
    """Return the scores of each scored run, by its number."""
    tables: dict[int, pd.DataFrame | None] = {}
    if executor is not None:
        if not planned[0].options.is_final:
            show_purge(planned[0].purge, planned[0].why)
        quiet = replace(fitter, progress=False)
        with progress_bar(len(planned), "runs", fitter.progress, unit="run") as shown:

            def note(number: int, table: pd.DataFrame | None) -> None:
                tables[number] = table
                shown.update(1)

            run_all(executor, quiet.run, [(run,) for run in planned], note)
    else:
        for number, run in enumerate(planned):
            if len(planned) > 1:
                click.echo(f"\nRun {number + 1} of {len(planned)}: {run.folder.name}")
            tables[number] = fitter.run(run)
    return {number: table for number, table in tables.items() if table is not None}


def _join(
    fitter: Fitter, planned: Sequence[PlannedRun], tables: dict[int, pd.DataFrame]
) -> pd.DataFrame:
    """Return the scores of all folds: of a single model, or of several and their ensemble."""
    pandas = load_extra("pandas", "pandas", "scores")
    by_fold: dict[int | None, dict[str, int]] = {}
    for number, run in enumerate(planned):
        by_fold.setdefault(run.fold, {})[run.name] = number
    found = []
    for models in by_fold.values():
        of_fold = {name: tables[number] for name, number in models.items()}
        if len(models) > 1:
            of_fold[_ENSEMBLE] = _score_ensemble(
                fitter, {name: planned[number] for name, number in models.items()}
            )
        is_one = len(of_fold) == 1
        found.append(
            next(iter(of_fold.values()))
            if is_one
            else pandas.concat(of_fold, axis=1, names=["model", "score"])
        )
    return pandas.concat(found)


def _score_ensemble(fitter: Fitter, models: dict[str, PlannedRun]) -> pd.DataFrame:
    """Score the mean of the models' ranks, against the target of the first model."""
    first = next(iter(models.values()))
    validation = first.split.validation
    if any(run.split.validation != validation for run in models.values()):
        raise NumeraiSequenceError(
            f"{first.folder}: found runs beside it with other validation eras; write them into "
            "another folder"
        )
    # In the order in which `predict` reads the folder, because the order of a sum changes ties.
    in_order = sorted(models.items(), key=lambda model: natural(model[1].folder))
    predictions = predict(
        {name: run.folder for name, run in in_order},
        fitter.shards,
        eras=validation,
        with_era=True,
        progress=fitter.progress,
    )
    return score(
        ensemble(predictions),
        fitter.shards,
        target=first.options.targets[0],
        eras=validation,
        progress=False,
    )
