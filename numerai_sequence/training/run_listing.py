"""Run listing: list the runs in folders, newest first, and draw their scores in one picture."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import NumeraiSequenceError
from ..scoring.score_picture import draw_scores
from ..system.optional_packages import load_extra
from .one_run import SCORES
from .planned_runs import best_epochs
from .printed_report import describe_eras
from .run_folder import CHECKPOINT, MODEL, RUN, Run, is_unfinished, read_run
from .run_options import TrainOptions, options_of

_DEEPEST = 3  # below a folder that is named: target, fold and seed


@dataclass(frozen=True)
class ListedRun:
    """A run in its folder.

    Attributes
    ----------
    folder : path
    seconds : float
        Time at which it was finished, in seconds since 1970.
    run : Run
    options : TrainOptions
    """

    folder: Path
    seconds: float
    run: Run
    options: TrainOptions


def list_runs(folders: Iterable[Path], *, by: str | None = None) -> list[ListedRun]:
    """Return the finished runs in some folders, newest first.

    Parameters
    ----------
    folders : iterable of path
        Folders of runs, or folders with runs up to three levels below.
    by : {"mean", "sharpe"}, optional
        Statistic of the correlation to sort by, the best first. Runs without it are last. None
        sorts by time.

    Raises
    ------
    NumeraiSequenceError
        A folder has no run.
    ManifestError
        A run is damaged.
    """
    found: dict[Path, ListedRun] = {}
    for folder in folders:
        paths = list(_files(folder, RUN))
        if not paths:
            raise NumeraiSequenceError(
                f"{folder}: no finished run; expected a folder that 'numerai-sequence train' wrote"
            )
        for path in paths:
            run = read_run(path.parent)
            options = options_of(run.asked["options"])
            listed = ListedRun(path.parent, path.stat().st_mtime, run, options)
            found[path.parent.resolve()] = listed
    runs = sorted(found.values(), key=lambda listed: (-listed.seconds, str(listed.folder)))
    if by is not None:
        name = f"val_corr_{by}"
        runs.sort(key=lambda listed: -listed.run.scores.get(name, float("-inf")))
    return runs


def unfinished_runs(folders: Iterable[Path]) -> list[Path]:
    """Return the folders of unfinished runs."""
    paths = [path for one in folders for name in (CHECKPOINT, MODEL) for path in _files(one, name)]
    return sorted({path.parent for path in paths if is_unfinished(path.parent)})


def _files(folder: Path, name: str) -> Iterable[Path]:
    for depth in range(_DEEPEST + 1):
        yield from folder.glob("/".join([*["*"] * depth, name]))


def describe_runs(runs: Iterable[ListedRun]) -> list[str]:
    """Return a header and a line for each run: its folder, scores, time and options."""
    rows: list[tuple[str, ...]] = [
        ("run", "mean", "Sharpe", "finished", "target", "features", "epochs", "validation", "seed")
    ]
    rows += [_row(listed) for listed in runs]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _row(listed: ListedRun) -> tuple[str, ...]:
    run, options = listed.run, listed.options
    mean, sharpe = (run.scores.get(f"val_corr_{name}") for name in ("mean", "sharpe"))
    marks = ["final"] * options.is_final + ["warm start"] * (options.start is not None)
    features = options.features if isinstance(options.features, str) else "all"
    if isinstance(options.features, tuple):
        features = "list"
    return (
        str(listed.folder),
        "-" if mean is None else f"{mean:.4f}",
        "-" if sharpe is None else f"{sharpe:.2f}",
        time.strftime("%Y-%m-%d %H:%M", time.localtime(listed.seconds)),
        ",".join(options.targets),
        f"{features} ({len(run.features):,})",
        f"{best_epochs(run)} of {len(next(iter(run.history.values()), ()))}",
        ", ".join([describe_eras(run.validation)] * bool(run.validation) + marks) or "-",
        str(options.seed),
    )


def draw_runs(runs: Iterable[ListedRun], path: str | os.PathLike[str]) -> None:
    """Draw the scores of several runs by era into one picture, with a line for each run.

    Raises
    ------
    NumeraiSequenceError
        No run has scores, or matplotlib is not installed.
    OutputError
        The file cannot be written.
    """
    pandas: Any = load_extra("pandas", "pandas", "scores")
    tables = {
        str(listed.folder): pandas.read_csv(
            listed.folder / SCORES, index_col="era", dtype={"era": str}
        )
        for listed in runs
        if (listed.folder / SCORES).is_file()
    }
    if not tables:
        raise NumeraiSequenceError(
            "found no run with scores, expected at least one; final runs are not scored"
        )
    table = pandas.concat(tables, axis=1, names=["model", "score"]).sort_index()
    draw_scores(table, path, title="Validation")
