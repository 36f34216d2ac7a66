"""Fit runs: from a function that builds a model, and choices, to a folder of trained runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from ..checks import file_path, is_of, short, whole_number
from ..format.encoding import PACKED
from ..reading.set_opener import open_shards
from ..reading.shard_set import PathLike, ShardSet
from .device_feed import Feed
from .one_run import Build, Fitter, MakeCallbacks
from .planned_runs import plan_runs, variants_in, variants_of
from .run_options import TrainOptions
from .scored_runs import train_runs

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
    workers: int = TrainOptions.workers,
    memory_budget: int | str = TrainOptions.memory_budget,
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
