"""Planned runs: turn options and a shard set into the runs to train, each with its own folder."""

from __future__ import annotations

import hashlib
import math
import statistics
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from ..errors import NumeraiSequenceError, OutputExistsError
from ..feeding.sequence import NumeraiSequence
from ..ordering.eras import choose_eras, era_number
from ..ordering.splits import Split, purge_of, split_eras, walk_forward
from ..ordering.target_horizon import TARGET, describe_horizon
from ..reading.shard_set import ShardSet
from .run_folder import Run, find_run, read_run, runs_in
from .run_options import TrainOptions, options_of


@dataclass(frozen=True)
class PlannedRun:
    """A run to train.

    Attributes
    ----------
    folder : path
    name : str
        Name of the model among several; empty for a single model.
    fold : int, optional
        Number of the fold of a walk forward.
    options : TrainOptions
    split : Split
        Training and validation eras. A final run has no validation eras.
    purge : int
        Number of purged eras.
    why : str
        Reason for the purge.
    start : path, optional
        File of the model whose weights it starts from.
    """

    folder: Path
    name: str
    fold: int | None
    options: TrainOptions
    split: Split
    purge: int
    why: str
    start: Path | None = None


Variant = tuple[str, TrainOptions]


def variants_of(options: TrainOptions, seeds: Sequence[int], *, each_target: bool) -> list[Variant]:
    """Return the name and the options of each model: one for each seed, and maybe each target."""
    targets = [(name,) for name in options.targets] if each_target else [options.targets]
    found = []
    for names, seed in product(targets, seeds):
        parts = (_model_name(names[0]),) if len(targets) > 1 else ()
        parts = (*parts, f"seed-{seed}") if len(seeds) > 1 else parts
        found.append(("-".join(parts), replace(options, targets=names, seed=seed)))
    return found


def _model_name(target: str) -> str:
    """Return a name that is not a column of the data, because `score` ignores those."""
    return "main" if target == TARGET else target.removeprefix("target_")


def variants_in(runs: Path, *, is_final: bool, **changes: Any) -> list[Variant]:
    """Return the names and options of earlier runs, for new runs that follow them.

    Parameters
    ----------
    runs : path
        Folder of a run, or of several. The folds of a walk forward are one model.
    is_final : bool
        Whether the new runs are final: they train for the best number of epochs of the earlier
        runs, or its median over the folds.
    **changes
        Options that differ.

    Raises
    ------
    NumeraiSequenceError
        There is no run.
    """
    found: dict[str, list[Run]] = {}
    for folder in runs_in(runs) or [runs]:
        name = "" if folder == runs else _without_fold(folder.name)
        found.setdefault(name, []).append(read_run(folder))
    variants = []
    for name, of_name in found.items():
        options = replace(options_of(of_name[0].asked["options"]), is_final=False, start=None)
        if is_final:
            options = replace(options, is_final=True, step=None, window=None)
            if "epochs" not in changes:
                found_best = [_all_epochs(runs, run) for run in of_name]
                options = replace(options, epochs=statistics.median_high(found_best))
        variants.append((name, replace(options, **changes)))
    return variants


def _without_fold(name: str) -> str:
    parts = name.split("-")
    if "fold" in parts:
        place = parts.index("fold")
        del parts[place : place + 2]
    return "-".join(parts)


def _all_epochs(where: Path, run: Run) -> int:
    """Return the number of epochs from a network's first weights to its best ones."""
    if options_of(run.asked["options"]).start is not None:
        raise NumeraiSequenceError(
            f"{where}: started from the weights of another run, so its number of epochs is "
            "unknown; set epochs= (--epochs)"
        )
    if run.validation and not _scores(run):
        raise NumeraiSequenceError(
            f"{where}: no epoch of a run has a score, so the best number of epochs is unknown; set "
            "epochs= (--epochs)"
        )
    return best_epochs(run)


def _scores(run: Run) -> list[tuple[float, int]]:
    """Return each score of a run's monitored log, with its number of epochs."""
    scores = run.history.get(options_of(run.asked["options"]).monitor, ())
    return [(score, epoch) for epoch, score in enumerate(scores, 1) if not math.isnan(score)]


def best_epochs(run: Run) -> int:
    """Return the number of epochs to a run's best score; for a final run, of all epochs."""
    scores = _scores(run)
    if not scores:
        return len(next(iter(run.history.values()), ())) or 1
    return max(scores, key=lambda scored: scored[0])[1]


def plan_runs(
    shards: ShardSet, out: Path, variants: Sequence[Variant], start: Path | None = None
) -> list[PlannedRun]:
    """Return a run for each model, or one for each of its folds.

    Raises
    ------
    EraError, FeatureError
        The set lacks an era, target or feature, or has too few eras.
    NumeraiSequenceError
        There is no model to start a run from.
    OutputExistsError
        The new runs would replace the runs that they start from.
    """
    planned = [run for variant in variants for run in _plan_variant(shards, out, *variant)]
    planned.sort(key=lambda run: -1 if run.fold is None else run.fold)
    if start is None:
        return planned
    if start.resolve() == out.resolve():
        raise OutputExistsError(
            f"{out}: found the run to start from in it; choose another folder", path=out
        )
    return [_starting(run, start) for run in planned]


def _plan_variant(
    shards: ShardSet, out: Path, name: str, options: TrainOptions
) -> Iterator[PlannedRun]:
    purge, why = choose_purge(shards, options)
    splits = make_splits(shards, options, purge)
    for number, split in enumerate(splits):
        fold = number if options.step is not None else None
        parts = [name, "" if fold is None else f"fold-{fold:02d}"]
        folder = "-".join(part for part in parts if part)
        yield PlannedRun(out / folder, name, fold, options, split, purge, why)


def _starting(run: PlannedRun, start: Path) -> PlannedRun:
    """Return a run with the model that it starts from: the only one, or the one with its name."""
    several = runs_in(start)
    if several and start / run.folder.name not in several:
        raise NumeraiSequenceError(
            f"{start}: no run named {run.folder.name!r} to start from; found "
            f"{', '.join(folder.name for folder in several[:5])}"
        )
    path, earlier = find_run(start / run.folder.name if several else start)
    seen = set(run.split.validation) & set(() if earlier is None else earlier.train)
    if seen:
        warnings.warn(
            f"{path}: was trained on {len(seen)} of the {len(run.split.validation)} validation "
            "eras of the new run, whose scores will be too good; start from a run that did not "
            "train on them, or train a final run",
            stacklevel=4,
        )
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return replace(run, start=path, options=replace(run.options, start=digest))


def choose_purge(shards: ShardSet, options: TrainOptions) -> tuple[int, str]:
    """Return how many eras to purge, and why."""
    if options.is_final:
        return 0, "a final run is not validated"
    if options.purge is not None:
        return options.purge, "as asked for"
    alias = shards.target_alias if TARGET in options.targets else ()
    return purge_of(options.targets, alias=alias), describe_horizon(options.targets, alias=alias)


def make_splits(shards: ShardSet, options: TrainOptions, purge: int) -> list[Split]:
    """Return the training and validation eras: one split, or one for each fold."""
    eras = choose_eras(options.eras, shards.eras)
    if options.eras is None:
        eras = [era for era in eras if era_number(era) is not None]
    if options.is_final:
        known = NumeraiSequence(shards, target=options.targets[0], eras=eras, missing_target="drop")
        return [Split(list(known.eras), [])]
    if options.step is None:
        return [split_eras(eras, validation=options.validation, purge=purge)]
    return walk_forward(eras, window=options.window, step=options.step, purge=purge)
