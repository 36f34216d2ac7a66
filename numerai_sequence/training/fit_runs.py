"""Training: from a shard set and options to runs: models, their scores, and what made them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..checks import file_path, is_of, short, whole_number
from ..errors import NumeraiSequenceError
from ..format.encoding import PACKED
from ..predicting.ensembles import ensemble
from ..predicting.predictions import predict
from ..reading.set_opener import open_shards
from ..reading.shard_set import PathLike, ShardSet
from ..scoring.score_table import score
from ..scoring.scores import load_scorer
from ..system.extras import load_extra
from ..system.progress import progress_bar
from ..system.tasks import run_all
from ..writing.parquet_folders import natural
from .device_feed import Feed
from .one_run import Build, Fitter, MakeCallbacks, write_scores
from .planned_runs import PlannedRun, plan_runs, variants_in, variants_of
from .printed_report import show_purge, show_scores
from .run_options import TrainOptions

if TYPE_CHECKING:
    import pandas as pd

_ENSEMBLE = "ensemble"
# The least of each number that `fit_runs` is given.
_COUNTS = {"purge": 0, "step": 1, "window": 1, "epochs": 1, "patience": 1, "batch_size": 1}


def fit_runs(
    build_model: Build,
    shards: ShardSet | PathLike,
    out: PathLike,
    *,
    target: str | Sequence[str] | Mapping[str, str] | None = None,
    features: str | Sequence[str] | None = None,
    seeds: int | Sequence[int] | None = None,
    eras: str | None = None,
    validation: float | str | None = None,
    purge: int | None = None,
    step: int | None = None,
    window: int | None = None,
    final: PathLike | None = None,
    start: PathLike | None = None,
    epochs: int | None = None,
    patience: int | None = None,
    monitor: str | None = None,
    batch_size: int | None = None,
    batch_by: str | None = None,
    missing_target: str | None = None,
    dtype: str | None = None,
    resident: bool | None = None,
    callbacks: MakeCallbacks | None = None,
    workers: int = 1,
    memory_budget: int | str = "auto",
    overwrite: bool = False,
    progress: bool = True,
    executor: Executor | None = None,
) -> list[Path]:
    """Train a model for each target and seed, into one folder, and score them by era.

    Each run is a folder with ``model.keras``, ``run.json``, and the scores as a table and a
    picture. `predict`, `export_predict` and the command take the folder of all runs as several
    models. Finished runs are skipped, so an interrupted call continues when it is made again. Each
    run depends on its own seed alone.

    A validated run stops when its score has not improved for `patience` epochs, and keeps the
    weights of the best epoch. Several runs are also scored as one ensemble of ranks.

    Parameters
    ----------
    build_model : function
        Takes the number of features and returns a new, compiled Keras model. Keras's random seed is
        set before each call.
    shards : ShardSet or path
    out : path
        The folder of the runs. A single run is in `out` itself; several are folders in it, named by
        what differs, such as ``ender_60-seed-1`` (``main`` for ``target``) or ``seed-0-fold-02``.
    target : str, list of str, or mapping, optional
        The target; a list makes one model for each. A mapping makes one model of several outputs,
        which have the names of their targets; the first is scored. None for ``"target"``.
    features : str or list of str, optional
        A feature set, or features; None for all.
    seeds : int or list of int, optional
        How many seeds, from 0, or which. None for 1.
    eras : str, optional
        As of `NumeraiSequence`; None for all that have a number.
    validation : int, float or str, optional
        How many of the newest eras, which share of them, or which eras. None for 0.2.
    purge : int, optional
        Eras between training and validation; None for 8 with 20-day targets, and 16 otherwise.
    step, window : int, optional
        Walk forward: validate on `step` eras at a time, and train on the `window` eras before them;
        None for all before.
    final : path, optional
        A run that was validated, or a folder of several. Each is trained again, with what it was
        asked, on all eras that have the target, for as many epochs as were best. Of the folds of a
        walk forward it takes the median. Final runs are not scored.
    start : path, optional
        A run, or a folder of several, whose weights the new runs start from, each from the one of
        its name. Without `final`, other options are those of that run unless they are given.
    epochs : int, optional
        At most. None for 10; with `final`, for as many as were best.
    patience : int, optional
        Epochs without a better score; None for 3.
    monitor : str, optional
        ``"val_corr_mean"``, which is the default, or another log of `EraScores`; higher is better.
    batch_size, batch_by, missing_target : optional
        As of `NumeraiSequence`; ``missing_target`` is "drop" if it is None.
    dtype : {"float32", "float16", "int8", "packed"}, optional
        The type of the features that the network takes. "packed": the network takes float32, and
        the device unpacks the rows. None: float32, packed where Keras has an accelerator. The
        weights are the same bits.
    resident : bool, optional
        Whether packed rows are kept in the memory of the device. None: where they fit into an
        accelerator's memory.
    callbacks : function, optional
        Takes the folder of a run and returns more Keras callbacks, such as ``TensorBoard``.
    workers : int
        Threads that read batches.
    memory_budget : int or str
        As of `NumeraiSequence`.
    overwrite : bool
        Replace other runs.
    progress : bool
        Show progress bars.
    executor : Executor, optional
        Trains several runs at a time, such as `RayTasks`.

    Returns
    -------
    list of path
        The folder of each run.

    Raises
    ------
    EraError, FeatureError
        The set lacks what was asked for, or has too little of it; or a run to start from had other
        features.
    OutputExistsError
        A folder holds another run.
    ValueError
        With `final`, an option is given that the earlier run decides.
    TypeError
        `build_model` returns something else than a compiled model; or an argument is of another
        type.
    NumeraiSequenceError
        There is no run to follow, or it has another network; or numerai-tools is not installed.
    OutputError
        The system does not let a folder be written.
    """
    if not callable(build_model):
        raise TypeError(f"build_model: found {short(build_model)}, expected a function")
    of_run: dict[str, Any] = {
        "targets": None if target is None else _targets(target),
        "features": tuple(features) if isinstance(features, (list, tuple)) else features,
        "validation": validation,
        "purge": purge,
        "step": step,
        "window": window,
        "patience": patience,
        "monitor": monitor,
        "batch_size": batch_size,
        "batch_by": batch_by,
        "missing_target": missing_target,
        "dtype": None if dtype == PACKED else dtype,
    }
    feed = Feed.of(dtype, resident)
    of_run = {name: value for name, value in of_run.items() if value is not None}
    if window is not None and step is None:
        raise ValueError(f"window: found {window}, expected step= with it")
    for name, value in {**of_run, "epochs": epochs}.items():
        if name in _COUNTS and value is not None:
            whole_number(name, value, least=_COUNTS[name])
    changes: dict[str, Any] = {"eras": eras, "epochs": epochs}
    changes = {name: value for name, value in changes.items() if value is not None}
    changes |= {"workers": workers, "memory_budget": memory_budget}
    if final is not None and (of_run or seeds is not None):
        name = {"targets": "target"}.get(next(iter(of_run), "seeds"), next(iter(of_run), "seeds"))
        raise ValueError(f"{name}: found one with final=, whose runs decide it; leave it out")
    if final is not None or (start is not None and seeds is None and "targets" not in of_run):
        followed = _folder("final", final) if final is not None else _folder("start", start)
        variants = variants_in(followed, is_final=final is not None, **of_run, **changes)
    else:
        options = TrainOptions(**of_run, **changes)
        is_one = isinstance(target, Mapping)
        variants = variants_of(options, _seeds(seeds), each_target=not is_one)
    begin = None if start is None else _folder("start", start)
    out = _folder("out", out)
    given: Any = shards
    with nullcontext(given) if is_of(given, ShardSet) else open_shards(given) as opened:
        planned = plan_runs(opened, out, variants, begin)
        fitter = Fitter(opened, overwrite, progress, build_model, callbacks, feed)
        train_runs(fitter, planned, out, executor=executor)
    return [run.folder for run in planned]


def _targets(target: Any) -> tuple[str, ...]:
    if isinstance(target, Mapping) and any(name != output for output, name in target.items()):
        raise ValueError(
            f"target: found {short(target)}, expected outputs that have the names of their targets"
        )
    names = (target,) if isinstance(target, str) else tuple(target)
    if not names or not all(isinstance(name, str) for name in names):
        raise TypeError(f"target: found {short(target)}, expected a target or a list of targets")
    if len(set(names)) < len(names):
        raise ValueError(f"target: found {short(target)}, expected each target once")
    return names


def _seeds(seeds: Any) -> list[int]:
    if seeds is None or isinstance(seeds, int):
        return list(range(whole_number("seeds", 1 if seeds is None else seeds, least=1)))
    found = [whole_number("seeds", seed, least=0) for seed in seeds]
    if not found or len(set(found)) < len(found):
        raise ValueError(f"seeds: found {short(seeds)}, expected each seed once")
    return found


def _folder(option: str, path: Any) -> Path:
    return Path(file_path(option, path, "the path of a folder"))


def train(
    shards: ShardSet,
    out: Path,
    options: TrainOptions,
    *,
    overwrite: bool,
    progress: bool,
    executor: Executor | None = None,
) -> pd.DataFrame | None:
    """Train the network of the options, or one for each fold; see `train_runs`.

    `overwrite`, `progress` and `executor` are as of `fit_runs`.
    """
    fitter = Fitter(shards, overwrite, progress)
    return train_runs(fitter, plan_runs(shards, out, [("", options)]), out, executor=executor)


def train_runs(
    fitter: Fitter, planned: Sequence[PlannedRun], out: Path, *, executor: Executor | None = None
) -> pd.DataFrame | None:
    """Make each planned run, unless that has been done, and show the scores of all.

    Parameters
    ----------
    fitter : Fitter
    planned : sequence of PlannedRun
        From `plan_runs`.
    out : path
        The folder of the run, or of them all.
    executor : Executor, optional
        Trains the runs as tasks, many at a time.

    Returns
    -------
    pandas.DataFrame or None
        The scores of each validation era; see `score_eras`. Of several models, as of `score`, with
        their ensemble. None for final runs.
    """
    load_scorer()  # rather miss it now than after the training
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
    """Return the scores of each run that is scored, by its number."""
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
    """Return the scores of all folds, of the only model or of several and their ensemble."""
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
            f"{first.folder}: the runs beside it are validated on other eras; train them apart"
        )
    # In the order of `predict` of the folder: sums of another order break ties in another way.
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
