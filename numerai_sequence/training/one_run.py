"""One run: fit a planned run, and write its folder with the model, the scores and run.json."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import NumeraiSequenceError, OutputExistsError
from ..feeding.keras_compat import active_keras
from ..feeding.sequence import NumeraiSequence
from ..format.encoding import PACKED
from ..format.feature_sets import resolve_features
from ..reading.shard_set import ShardSet
from ..scoring.era_scores import EraScores, log_scores
from ..scoring.score_picture import draw_scores
from ..scoring.scores import write_table
from ..system.files import explained
from ..system.optional_packages import load_extra
from ..version import __version__
from .device_feed import Feed, behind_unpack, choose_feed
from .network import build_network
from .planned_runs import PlannedRun
from .printed_report import show_cost, show_purge, show_scores, show_split
from .run_folder import CHECKPOINT, RUN, Run, read_run, save_model, write_run
from .run_options import TrainOptions, find_differences, with_defaults
from .starting_weights import start_from
from .user_network import checked_network, network_digest

if TYPE_CHECKING:
    import pandas as pd

SCORES, PICTURE = "scores.csv", "scores.png"

Build = Callable[[int], Any]
MakeCallbacks = Callable[[Path], Iterable[Any]]


@dataclass(frozen=True)
class Fitter:
    """The trainer of planned runs.

    Attributes
    ----------
    shards : ShardSet
    overwrite : bool
        Replace another run.
    progress : bool
        Show progress bars.
    build : function, optional
        Function of the number of features that returns a compiled model. None for the network of
        the options.
    callbacks : function, optional
        Function of a run's folder that returns more callbacks for ``fit``.
    feed : Feed
        Choice of how rows reach the device. It does not change the weights, so it is not an option
        of the run.
    """

    shards: ShardSet
    overwrite: bool
    progress: bool
    build: Build | None = None
    callbacks: MakeCallbacks | None = None
    feed: Feed = field(default_factory=Feed)

    def run(self, planned: PlannedRun) -> pd.DataFrame | None:
        """Fit, score and save a network, unless the run is finished; return its scores."""
        planned = self._described(planned)
        asked = self._asked(planned)
        if (planned.folder / RUN).exists() and not self.overwrite:
            return _read(planned, asked)
        with explained(
            planned.folder, left="the run is not finished; run the same command again to repeat it"
        ):
            return self._run(planned, asked)

    def _described(self, planned: PlannedRun) -> PlannedRun:
        """Return the run with the digest of the network that the user builds."""
        if self.build is None:
            if planned.options.network is not None:
                raise NumeraiSequenceError(
                    f"{planned.folder}: the earlier run has a network of build_model; call "
                    "fit_runs with the same function"
                )
            return planned
        model = self._make(planned.options, self._width(planned.options))
        options = replace(planned.options, network=network_digest(model))
        if planned.options.network not in (None, options.network):
            raise NumeraiSequenceError(
                f"{planned.folder}: build_model returns another network than that of the earlier "
                "run; use the same function"
            )
        return replace(planned, options=options)

    def _width(self, options: TrainOptions) -> int:
        where = str(self.shards.folder)
        return len(resolve_features(options.features, self.shards.manifest, where))

    def _asked(self, planned: PlannedRun) -> dict[str, Any]:
        manifest = self.shards.manifest
        asked = {
            "sources": [source.checksum for source in manifest.sources],
            "options": planned.options.as_json(),
            "purge": planned.purge,
            "eras": planned.split._asdict(),
        }
        described: dict[str, Any] = json.loads(json.dumps(asked))
        return described

    def _run(self, planned: PlannedRun, asked: dict[str, Any]) -> pd.DataFrame | None:
        folder, options = planned.folder, planned.options
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RUN).unlink(missing_ok=True)  # unfinished from now on
        training, scores, why = self._open(planned)
        validation = None if scores is None else scores.validation
        if planned.options.is_final:
            click.echo(f"epochs {options.epochs}: the best number of the earlier run, or as given")
        else:
            show_purge(planned.purge, planned.why)
        show_split(planned.split, training, validation, planned.purge)
        click.echo(f"Rows are {why}")
        model, fed, history = self._fit(planned, training, scores)
        table = None if scores is None else scores.score(fed)
        if table is not None:
            write_scores(table, folder, "Validation")
        save_model(model, folder)
        (folder / CHECKPOINT).unlink(missing_ok=True)
        run = Run(
            asked,
            training.features,
            options.dtype,
            options.targets[0] if len(options.targets) > 1 else None,
            training.eras,
            () if validation is None else validation.eras,
            {} if table is None else log_scores(table),
            history,
            _versions(),
            training.batch_by,
        )
        write_run(run, folder)
        if table is not None:
            show_scores(table)
        return table

    def _open(self, planned: PlannedRun) -> tuple[NumeraiSequence, EraScores | None, str]:
        """Return the sequences to train and to validate on, and how rows reach the device."""
        dtype, targets = planned.options.dtype, planned.options.targets
        training, validation = self._sequences(planned, dtype=dtype)
        rows = training.rows + (0 if validation is None else validation.rows)
        feeding = choose_feed(self.feed, dtype, rows, len(training.features))
        if feeding.dtype != dtype:
            training, validation = self._sequences(planned, **feeding.options)
        if validation is None:
            return training, None, feeding.why
        scores = EraScores(validation, output=targets[0] if targets[1:] else None)
        return training, scores, feeding.why

    def _sequences(
        self, planned: PlannedRun, **fed: Any
    ) -> tuple[NumeraiSequence, NumeraiSequence | None]:
        options, split = planned.options, planned.split
        shared: dict[str, Any] = {
            "features": options.features,
            "memory_budget": options.memory_budget,
            "verify": options.verify,
            **fed,
        }
        targets = options.targets
        training = NumeraiSequence(
            self.shards,
            options.batch_size,
            target={name: name for name in targets} if targets[1:] else targets[0],
            eras=split.train,
            missing_target=options.missing_target,
            batch_by=options.batches,
            seed=options.seed,
            **shared,
        )
        if options.is_final:
            return training, None
        validation = NumeraiSequence(
            self.shards, target=targets[0], eras=split.validation, missing_target="drop", **shared
        )
        return training, validation

    def _make(self, options: TrainOptions, features: int) -> Any:
        active_keras().utils.set_random_seed(options.seed)
        if self.build is not None:
            return checked_network(self.build(features), features)
        return build_network(
            features,
            options.targets,
            layers=options.layers,
            dropout=options.dropout,
            learning_rate=options.learning_rate,
            loss=options.loss,
            dtype=options.dtype,
        )

    def _fit(
        self, planned: PlannedRun, training: NumeraiSequence, scores: EraScores | None
    ) -> tuple[Any, Any, dict[str, list[float]]]:
        """Return the network, the model that was fitted (it may begin with `Unpack`), and logs."""
        options = planned.options
        model = self._make(options, len(training.features))
        if planned.start is not None:
            start_from(model, planned.start, training)
        fed = model
        if training.dtype == PACKED:
            validation = [] if scores is None else [scores.validation]
            fed = behind_unpack(model, training, *validation)
        start = time.perf_counter()
        checkpoint = planned.folder / CHECKPOINT
        try:
            history = fed.fit(
                training,
                epochs=options.epochs,
                workers=options.workers,
                verbose="auto" if self.progress else 0,
                callbacks=self._callbacks(planned, scores),
            )
        except OSError:  # the disk is full, and has only a part of the checkpoint
            checkpoint.unlink(missing_ok=True)
            raise
        epochs = len(history.epoch)
        show_cost(training.rows * epochs, time.perf_counter() - start)
        logs = {name: [float(v) for v in values] for name, values in history.history.items()}
        return model, fed, logs

    def _callbacks(self, planned: PlannedRun, scores: EraScores | None) -> list[Any]:
        options, callbacks = planned.options, active_keras().callbacks
        given = [] if self.callbacks is None else list(self.callbacks(planned.folder))
        if scores is None:
            return given
        best = {"monitor": options.monitor, "mode": "max"}
        checkpoint = str(planned.folder / CHECKPOINT)
        return [
            scores,
            *given,
            callbacks.EarlyStopping(patience=options.patience, restore_best_weights=True, **best),
            callbacks.ModelCheckpoint(checkpoint, save_best_only=True, **best),
        ]


def _read(planned: PlannedRun, asked: dict[str, Any]) -> pd.DataFrame | None:
    """Return the scores of a finished run, if it has the same set and options."""
    folder = planned.folder
    found = with_defaults(read_run(folder).asked, asked)
    if found != asked:
        raise OutputExistsError(
            f"{folder}: found a run of another set, or with other options "
            f"({find_differences(found, asked)}); choose another folder, or overwrite it with "
            "overwrite=True (--overwrite)",
            path=folder,
        )
    click.echo(f"{folder}: is already trained")
    if planned.options.is_final:
        return None
    pandas = load_extra("pandas", "pandas", "scores")
    table: pd.DataFrame = pandas.read_csv(folder / SCORES, index_col="era", dtype={"era": str})
    show_scores(table)
    return table


def write_scores(table: pd.DataFrame, folder: Path, title: str) -> None:
    """Write a table of scores, and its picture, into a folder."""
    write_table(table, folder / SCORES)
    draw_scores(table, folder / PICTURE, title=title)


def _versions() -> dict[str, str]:
    keras = active_keras()
    # Keras 2 knows one backend only.
    backend = keras.backend.backend() if hasattr(keras, "ops") else "tensorflow"
    return {"numerai_sequence": __version__, "keras": keras.__version__, "backend": backend}
