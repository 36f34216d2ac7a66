"""Training: from a shard set and options to runs: models, their scores, and what made them."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .. import __version__
from ..errors import OutputExistsError
from ..extras import load_extra
from ..feeding.keras_compat import active_keras
from ..feeding.sequence import NumeraiSequence
from ..files import explained
from ..ordering.eras import choose_eras, era_number
from ..ordering.horizon import TARGET, describe_horizon
from ..ordering.splits import Split, purge_of, split_eras, walk_forward
from ..progress import progress_bar
from ..reading.shards import ShardSet
from ..scoring.callbacks import EraScores, log_scores
from ..scoring.picture import draw_scores
from ..scoring.scoring import load_scorer, summarize_score, write_table
from ..tasks import run_all
from .network import build_network
from .runs import RUN, Run, read_run, save_model, write_run

if TYPE_CHECKING:
    import pandas as pd

SCORES, PICTURE, CHECKPOINT = "scores.csv", "scores.png", "checkpoint.keras"


@dataclass(frozen=True)
class TrainOptions:
    """What the user asked of the training; the same options and set make the same runs.

    Attributes
    ----------
    features : str, optional
        A feature set; None for all features.
    targets : tuple of str
        The first one is scored; each is an output of the model.
    eras : str, optional
        As `choose_eras` takes it; None for all that have a number.
    validation : float or str
        The share of the newest eras, or which eras; of no matter where there is a `step`.
    purge : int, optional
        Eras; None for what the targets need, see `purge_of`.
    step, window : int, optional
        Walk forward by `step` eras at a time, each time trained on `window` eras, or on all before.
    missing_target : {"drop", "mask", "error"}
    batch_size : int, optional
        Rows; eras, where the loss is of whole eras.
    """

    features: str | None = None
    targets: tuple[str, ...] = ("target",)
    eras: str | None = None
    validation: float | str = 0.2
    purge: int | None = None
    step: int | None = None
    window: int | None = None
    missing_target: str = "drop"
    epochs: int = 10
    patience: int = 3
    batch_size: int | None = None
    layers: tuple[int, ...] = (256, 64)
    dropout: float = 0.1
    learning_rate: float = 1e-3
    loss: str = "mse"
    monitor: str = "val_corr_mean"
    dtype: str = "float32"
    seed: int = 0
    workers: int = 1
    memory_budget: int | str = "auto"
    verify: bool = False


def train(
    shards: ShardSet,
    out: Path,
    options: TrainOptions,
    *,
    overwrite: bool,
    progress: bool,
    executor: Executor | None = None,
) -> pd.DataFrame:
    """Train a network, or one for each fold, into a folder, and show its scores.

    A run that is already there, of the same set with the same options, is not done again; so a
    walk forward that was killed goes on with the fold that it was at.

    Parameters
    ----------
    shards : ShardSet
    out : path
        The folder of the run; with folds, they are folders in it.
    options : TrainOptions
    overwrite : bool
        Replace another run.
    progress : bool
        Show progress bars.
    executor : Executor, optional
        Trains the folds as tasks, many at a time.

    Returns
    -------
    pandas.DataFrame
        The scores of each validation era; see `score_eras`.

    Raises
    ------
    EraError, FeatureError
        The set has not what was asked for, or too little of it.
    OutputExistsError
        The folder holds another run.
    OutputError
        The system does not let the folder be written: its disk is full, for example.
    """
    load_scorer()  # rather miss it now than after the training
    purge, why = choose_purge(shards, options)
    splits = make_splits(shards, options, purge)
    fitter = _Fitter(shards, options, purge, why, overwrite, progress)
    if options.step is None:
        return fitter.run(out, splits[0])
    tables = _run_folds(fitter, out, splits, executor)
    table = load_extra("pandas", "pandas", "scores").concat(tables)
    click.echo(f"\nAll {len(splits)} folds")
    write_scores(table, out, "Validation, all folds")
    show_scores(table)
    return table


def _run_folds(
    fitter: _Fitter, out: Path, splits: Sequence[Split], executor: Executor | None
) -> list[pd.DataFrame]:
    """Return the scores of each fold, in the order of time."""
    folders = [out.absolute() / f"fold-{number:02d}" for number in range(len(splits))]
    tables: dict[int, pd.DataFrame] = {}
    if executor is not None:
        _show_purge(fitter.purge, fitter.why)
        quiet = replace(fitter, progress=False)
        folds = list(zip(folders, splits, strict=True))
        with progress_bar(len(folds), "folds", fitter.progress, unit="fold") as shown:

            def note(number: int, table: pd.DataFrame) -> None:
                tables[number] = table
                shown.update(1)

            run_all(executor, quiet.run, folds, note)
    else:
        for number, fold in enumerate(zip(folders, splits, strict=True)):
            click.echo(f"\nFold {number + 1} of {len(splits)}")
            tables[number] = fitter.run(*fold)
    return [tables[number] for number in range(len(splits))]


def choose_purge(shards: ShardSet, options: TrainOptions) -> tuple[int, str]:
    """Return how many eras to purge, and why."""
    if options.purge is not None:
        return options.purge, "as asked for"
    alias = shards.target_alias if TARGET in options.targets else ()
    return purge_of(options.targets, alias=alias), describe_horizon(options.targets, alias=alias)


def make_splits(shards: ShardSet, options: TrainOptions, purge: int) -> list[Split]:
    """Return the eras to train on and to validate on: one split, or one for each fold."""
    eras = choose_eras(options.eras, shards.eras)
    if options.eras is None:
        eras = [era for era in eras if era_number(era) is not None]
    if options.step is None:
        return [split_eras(eras, validation=options.validation, purge=purge)]
    return walk_forward(eras, window=options.window, step=options.step, purge=purge)


@dataclass(frozen=True)
class _Fitter:
    """Fits one network for each split."""

    shards: ShardSet
    options: TrainOptions
    purge: int
    why: str
    overwrite: bool
    progress: bool

    def run(self, folder: Path, split: Split) -> pd.DataFrame:
        """Fit, save and score a network, unless that has been done."""
        asked = self._describe(split)
        if (folder / RUN).exists() and not self.overwrite:
            return self._read(folder, asked)
        with explained(
            folder, left="the run is not finished, and is done again by the same command"
        ):
            return self._run(folder, split, asked)

    def _run(self, folder: Path, split: Split, asked: dict[str, Any]) -> pd.DataFrame:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RUN).unlink(missing_ok=True)  # unfinished from now on
        training, scores = self._open(split)
        _show_purge(self.purge, self.why)
        _show_split(split, training, scores.validation, self.purge)
        model, history = self._fit(folder, training, scores)
        table = scores.score(model)
        write_scores(table, folder, "Validation")
        save_model(model, folder)
        (folder / CHECKPOINT).unlink(missing_ok=True)
        output = self.options.targets[0] if len(self.options.targets) > 1 else None
        write_run(
            Run(
                asked,
                training.features,
                self.options.dtype,
                output,
                training.eras,
                scores.validation.eras,
                log_scores(table),
                history,
                _versions(),
                training.batch_by,
            ),
            folder,
        )
        show_scores(table)
        return table

    def _describe(self, split: Split) -> dict[str, Any]:
        manifest = self.shards.manifest
        asked = {
            "sources": [source.checksum for source in manifest.sources],
            "options": asdict(self.options),
            "purge": self.purge,
            "eras": split._asdict(),
        }
        described: dict[str, Any] = json.loads(json.dumps(asked))
        return described

    def _read(self, folder: Path, asked: dict[str, Any]) -> pd.DataFrame:
        found = _with_defaults(read_run(folder).asked, asked)
        if found != asked:
            raise OutputExistsError(
                f"{folder}: a run of another set, or with other options, is there "
                f"({_find_differences(found, asked)}); choose another folder, or --overwrite",
                path=folder,
            )
        click.echo(f"{folder}: is already trained")
        pandas = load_extra("pandas", "pandas", "scores")
        table = pandas.read_csv(folder / SCORES, index_col="era", dtype={"era": str})
        show_scores(table)
        return table

    def _open(self, split: Split) -> tuple[NumeraiSequence, EraScores]:
        options = self.options
        shared: dict[str, Any] = {
            "features": options.features,
            "dtype": options.dtype,
            "memory_budget": options.memory_budget,
            "verify": options.verify,
        }
        targets = options.targets
        training = NumeraiSequence(
            self.shards,
            options.batch_size,
            target={name: name for name in targets} if targets[1:] else targets[0],
            eras=split.train,
            missing_target=options.missing_target,
            batch_by="rows" if options.loss == "mse" else "era",
            seed=options.seed,
            **shared,
        )
        validation = NumeraiSequence(
            self.shards, target=targets[0], eras=split.validation, missing_target="drop", **shared
        )
        return training, EraScores(validation, output=targets[0] if targets[1:] else None)

    def _fit(
        self, folder: Path, training: NumeraiSequence, scores: EraScores
    ) -> tuple[Any, dict[str, list[float]]]:
        keras, options = active_keras(), self.options
        keras.utils.set_random_seed(options.seed)
        model = build_network(
            len(training.features),
            options.targets,
            layers=options.layers,
            dropout=options.dropout,
            learning_rate=options.learning_rate,
            loss=options.loss,
            dtype=options.dtype,
        )
        best = {"monitor": options.monitor, "mode": "max"}
        callbacks = keras.callbacks
        start = time.perf_counter()
        checkpoint = folder / CHECKPOINT
        try:
            history = model.fit(
                training,
                epochs=options.epochs,
                workers=options.workers,
                verbose="auto" if self.progress else 0,
                callbacks=[
                    scores,
                    callbacks.EarlyStopping(
                        patience=options.patience, restore_best_weights=True, **best
                    ),
                    callbacks.ModelCheckpoint(str(checkpoint), save_best_only=True, **best),
                ],
            )
        except OSError:  # a disk that is full, and a part of a model on it
            checkpoint.unlink(missing_ok=True)
            raise
        epochs = len(history.epoch)
        _show_cost(training.rows * epochs, time.perf_counter() - start)
        logs = {name: [float(v) for v in values] for name, values in history.history.items()}
        return model, logs


def _with_defaults(found: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
    """Return what a run was asked, with what was not asked yet when it was made.

    An option that it lacks has its default. A purge that it lacks shows in its eras.
    """
    defaults = json.loads(json.dumps(asdict(TrainOptions())))
    options = {**defaults, **found["options"]}
    return {"purge": asked["purge"], **found, "options": options}


def _find_differences(found: dict[str, Any], asked: dict[str, Any]) -> str:
    """Return in what the run that is there differs from the one that is asked for."""
    was, now = found["options"], asked["options"]
    names = [name for name in {**was, **now} if was.get(name) != now.get(name)]
    shown = [_option(name, was.get(name), now.get(name)) for name in names if name != "purge"]
    if found["purge"] != asked["purge"]:
        shown.append(_option("purge", found["purge"], asked["purge"]))
    if found["sources"] != asked["sources"]:
        shown.append("another set, or one that was refreshed since")
    elif not shown:
        shown.append("other eras")
    return "; ".join(shown)


def _option(name: str, found: object, expected: object) -> str:
    name = {"targets": "target"}.get(name, name).replace("_", "-")
    return f"--{name} {_shown(found)}, expected {_shown(expected)}"


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    return "not given" if value is None else str(value)


def write_scores(table: pd.DataFrame, folder: Path, title: str) -> None:
    """Write a table of scores, and its picture, into a folder."""
    write_table(table, folder / SCORES)
    draw_scores(table, folder / PICTURE, title=title)


def show_scores(table: pd.DataFrame) -> None:
    """Print the summary of a table of scores."""
    eras = list(table.index)
    click.echo(f"Validation correlation (numerai_corr), {_describe_eras(eras)}:")
    summary = summarize_score(table["corr"])
    click.echo(
        f"  mean {summary.mean:.4f}, std {summary.std:.4f}, Sharpe {summary.sharpe:.2f}, "
        f"max drawdown {summary.max_drawdown:.4f}"
    )


def _describe_eras(eras: Sequence[str]) -> str:
    return f"1 era, {eras[0]}" if len(eras) == 1 else f"{len(eras):,} eras, {eras[0]} to {eras[-1]}"


def _show_purge(purge: int, why: str) -> None:
    click.echo(f"purge {purge}: {why}")


def _show_split(
    split: Split, training: NumeraiSequence, validation: NumeraiSequence, purge: int
) -> None:
    asked = (("Training", training, split.train), ("Validation", validation, split.validation))
    for name, sequence, wanted in asked:
        eras = sequence.eras
        click.echo(
            f"{name} on {sequence.rows:,} rows of {_describe_eras(eras)}"
            + ("" if sequence is training else f", {purge} eras purged between them")
        )
        if len(wanted) > len(eras):
            click.echo(
                f"{name} leaves out {_describe_eras(sorted({*wanted} - {*eras}))}: no target yet"
            )


def _show_cost(rows: int, seconds: float) -> None:
    peak = _peak_rss_bytes()
    memory = "" if peak is None else f", peak memory {peak / 1e6:,.0f} MB"
    click.echo(f"Trained {rows:,} rows in {seconds:.1f} s: {rows / seconds:,.0f} rows/s{memory}")


def _peak_rss_bytes() -> int | None:
    """Return the most memory that this process has had resident; None where nobody knows."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _versions() -> dict[str, str]:
    keras = active_keras()
    # Keras 2 knows one backend only.
    backend = keras.backend.backend() if hasattr(keras, "ops") else "tensorflow"
    return {"numerai_sequence": __version__, "keras": keras.__version__, "backend": backend}
