"""Fit runs: the public function that trains models and writes them as a folder of runs."""

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
    """Train a model for each target, fold and seed, and score the models by era.

    Each run is a folder with ``model.keras``, ``run.json``, and the scores as a table and a
    picture. `predict`, `export_predict` and the command take the folder of all runs as several
    models. Finished runs are skipped: make an interrupted call again to continue it. Each run
    depends only on its own seed.

    A validated run stops if its score has not improved for `patience` epochs, and keeps the weights
    of the best epoch. Several runs are also scored as one ensemble of ranks.

    Parameters
    ----------
    build_model : function
        Function of the number of features that returns a new, compiled Keras model. Keras's random
        seed is set before each call.
    shards : ShardSet or path
        Shard set, or its folder.
    out : path
        Folder of the runs. A single run is in `out` itself. Several runs are folders in it, named
        by the options that differ, such as ``ender_60-seed-1`` (``main`` for ``target``) or
        ``seed-0-fold-02``.
    target : str, list of str, or mapping, optional
        Target of the model. A list trains one model for each target. A mapping trains one model
        with several outputs; each output must have the name of its target, and the first is scored.
        None for ``"target"``.
    features : str or list of str, optional
        Name of a feature set, or list of features. None for all.
    seeds : int or list of int, optional
        Number of seeds, counted from 0, or a list of seeds. None for 1.
    eras : str, optional
        Eras to use. None for all eras that have a number. See `NumeraiSequence`.
    validation : int, float or str, optional
        Validation eras: the number or the share of the newest eras, or a choice of eras such as
        ``"0800-"``. None for 0.2.
    purge : int, optional
        Number of eras to leave out between training and validation. None means 8 if each target is
        a 20-day target, or is ``target`` and equals one; otherwise 16.
    step, window : int, optional
        Options of a walk forward: it validates on `step` eras at a time, and trains on the `window`
        eras before them. None for `window` trains on all eras before them.
    final : path, optional
        A validated run, or a folder of several. Each is trained again with its options, on all eras
        that have the target, for its best number of epochs. For the folds of a walk forward, this
        is the median. Final runs are not scored.
    start : path, optional
        A run whose weights the new runs start from, or a folder of several: each new run then
        starts from the run with its name. Without `final`, options that are not given are those of
        that run.
    epochs : int, optional
        Largest number of epochs. None for 10; with `final`, for the best number.
    patience : int, optional
        Number of epochs without a better score after which training stops. None for 3.
    monitor : str, optional
        Score to watch: a log of `EraScores` that is better if it is higher. None for
        ``"val_corr_mean"``.
    batch_size, batch_by, missing_target : optional
        See `NumeraiSequence`. None for `missing_target` is "drop".
    dtype : {"float32", "float16", "int8", "packed"}, optional
        Type of the features that the model takes. With "packed", it takes float32, and the device
        unpacks the rows. None: "packed" if Keras has an accelerator, otherwise "float32". Both give
        the same weights, bit for bit.
    resident : bool, optional
        Whether to keep packed rows in the memory of the device. None: True if they fit into the
        memory of an accelerator.
    callbacks : function, optional
        Function of the folder of a run that returns more Keras callbacks, such as ``TensorBoard``.
    workers : int
        Number of threads that read batches.
    memory_budget : int or str
        Memory for batches. See `NumeraiSequence`.
    overwrite : bool
        Replace other runs.
    progress : bool
        Show progress bars.
    executor : Executor, optional
        Executor that trains several runs at a time, such as `RayTasks`.

    Returns
    -------
    list of path
        Folder of each run.

    Raises
    ------
    EraError, FeatureError
        The set lacks an era, target or feature, or has too few eras; or the features of a run to
        start from differ.
    OutputExistsError
        A folder holds another run.
    ValueError
        An option is given together with `final`, whose runs decide it; or an argument has a wrong
        value.
    TypeError
        `build_model` does not return a compiled model; or an argument has a wrong type.
    NumeraiSequenceError
        `final` or `start` has no run, or a run of another network; or numerai-tools is not
        installed.
    OutputError
        The system refuses to write a folder.
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
        raise ValueError(f"window: found {window} without step=, expected both; add step=")
    for name, value in {**of_run, "epochs": epochs}.items():
        if name in _COUNTS and value is not None:
            whole_number(name, value, least=_COUNTS[name])
    changes: dict[str, Any] = {"eras": eras, "epochs": epochs}
    changes = {name: value for name, value in changes.items() if value is not None}
    changes |= {"workers": workers, "memory_budget": memory_budget}
    if final is not None and (of_run or seeds is not None):
        name = {"targets": "target"}.get(next(iter(of_run), "seeds"), next(iter(of_run), "seeds"))
        raise ValueError(f"{name}: found it with final=, whose runs decide it; leave it out")
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
            f"target: found {short(target)}, expected each output to have the name of its target"
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
