"""Train Keras models on all of the Numerai data, on a machine that can hold a fraction of it::

    from . import NumeraiSequence, write_shards

    shards = write_shards("train.parquet", "shards/")
    model.fit(NumeraiSequence(shards, batch_size=1000), workers=4)

`write_shards` is called once for a file; README shows all that there is.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any

from .checks import file_path, file_paths, is_of, true_or_false
from .errors import (
    CorruptShardError,
    EraError,
    FeatureError,
    ManifestError,
    NumeraiSequenceError,
    OutOfMemoryError,
    OutputError,
    OutputExistsError,
    ResumeError,
    SourceError,
    WorkerError,
)
from .ordering.splits import Split, split_eras, walk_forward
from .reading.set_opener import open_shards
from .reading.shard_set import PathLike, ShardSet
from .refreshing.refresh import Refresh, refresh_set
from .refreshing.sync import sync
from .version import __version__
from .writing.write_arguments import FOLDER, PARQUET, writer_arguments
from .writing.writer import write

if TYPE_CHECKING:
    from .batching.residual import Residual
    from .feeding.ray_ranks import connect_ranks
    from .feeding.sequence import NumeraiSequence
    from .feeding.unpack import Unpack
    from .predicting.ensembles import ensemble
    from .predicting.export import export_predict
    from .predicting.neutralizing import neutralize
    from .predicting.predictions import predict
    from .predicting.submission import write_predictions
    from .resuming.resume import Resume
    from .scoring.era_scores import EraScores
    from .scoring.losses import PearsonLoss, RankCorrelationLoss
    from .scoring.score_table import score
    from .scoring.scores import summarize
    from .system.tasks import RayTasks
    from .training.fit_runs import fit_runs
    from .training.run_folder import Run, read_run


__all__ = [
    "CorruptShardError",
    "EraError",
    "EraScores",
    "FeatureError",
    "ManifestError",
    "NumeraiSequence",
    "NumeraiSequenceError",
    "OutOfMemoryError",
    "OutputError",
    "OutputExistsError",
    "PearsonLoss",
    "RankCorrelationLoss",
    "RayTasks",
    "Refresh",
    "Residual",
    "Resume",
    "ResumeError",
    "Run",
    "ShardSet",
    "SourceError",
    "Split",
    "Unpack",
    "WorkerError",
    "__version__",
    "append_shards",
    "connect_ranks",
    "ensemble",
    "export_predict",
    "fit_runs",
    "neutralize",
    "open_shards",
    "predict",
    "read_run",
    "score",
    "split_eras",
    "summarize",
    "sync_shards",
    "walk_forward",
    "write_predictions",
    "write_shards",
]

# Keras, and pandas, take seconds to import: only who asks for one of these pays.
_LAZY = {
    "EraScores": "scoring.era_scores",
    "NumeraiSequence": "feeding.sequence",
    "PearsonLoss": "scoring.losses",
    "RankCorrelationLoss": "scoring.losses",
    "RayTasks": "system.tasks",
    "Residual": "batching.residual",
    "Resume": "resuming.resume",
    "Run": "training.run_folder",
    "Unpack": "feeding.unpack",
    "connect_ranks": "feeding.ray_ranks",
    "ensemble": "predicting.ensembles",
    "export_predict": "predicting.export",
    "fit_runs": "training.fit_runs",
    "neutralize": "predicting.neutralizing",
    "predict": "predicting.predictions",
    "read_run": "training.run_folder",
    "score": "scoring.score_table",
    "summarize": "scoring.scores",
    "write_predictions": "predicting.submission",
}


def write_shards(
    sources: PathLike | Iterable[PathLike],
    out: PathLike,
    *,
    num_shards: int = 16,
    encoding: str = "packed",
    mix_eras: int | None = None,
    features: str | Iterable[str] | None = None,
    targets: Iterable[str] | None = None,
    features_json: PathLike | None = None,
    seed: int = 0,
    missing_feature: str = "error",
    overwrite: bool = False,
    progress: bool = True,
    executor: Executor | None = None,
) -> ShardSet:
    """Write Parquet files as one shard set, and open it.

    A set that was written from the same files with the same options is opened as it is; where only
    the feature sets differ, those it tells of are brought up to date.

    Parameters
    ----------
    sources : path or iterable of paths
        Parquet files as Numerai gives them out: v5's int8 features, v4.1's nullable Int8, v3's
        float32; several become one set and need the same features and targets, in any order. A
        folder, or a pattern such as ``data/*.parquet``, stands for its Parquet files in the order
        of their names, where part-2 comes before part-10. The folders may be partitioned, as
        ``era=0001/part-0.parquet``.
    out : path
        The folder of the set.
    num_shards : int
        Era e goes to shard ``e mod num_shards``; eras that are no number to shard 0.
    encoding : {"packed", "int8"}
        Three features a byte, or one.
    mix_eras : int, optional
        Neighbouring eras of a shard whose rows are mixed once for all, so that reading runs of rows
        still shuffles well. None: as many as fit into 256 MB. 1 keeps each era together.
    features : str or iterable of str, optional
        The columns to write, in this order, or the name of a feature set ("medium"); None for all
        named ``feature...``.
    targets : iterable of str, optional
        The columns to write, in this order: any of numbers, such as weights of the rows; None for
        all named ``target...``.
    features_json : path, optional
        Numerai's features.json, whose feature sets the set shall know. None: ``features.json``
        beside the first source; where there is none, a set that is there keeps those it has.
    seed : int
        Of the mixing.
    missing_feature : {"error", "middle"}
        Refuse a feature value that is null or NaN, or write it as the middle: 2 of 0 to 4, as
        Numerai does. The manifest counts these values.
    overwrite : bool
        Replace what is in `out`. The old set stays whole until the new one is.
    progress : bool
        Show progress bars on stderr.
    executor : concurrent.futures.Executor, optional
        Reads the sources, and then writes the shard files, as tasks, many at a time, each with the
        memory that one needs: `RayTasks` on many machines that share the folders, or a
        ``ProcessPoolExecutor`` on this one. The set is the same, bit for bit.

    Returns
    -------
    ShardSet

    Raises
    ------
    SourceError
        A source cannot be read, lacks a column, or holds a value that cannot be kept, with the
        file, the column and the row; it is damaged, or has changed meanwhile; a row is in two
        sources, or twice in one; an era is spelled in two ways; or features.json is not what it
        should be.
    FeatureError
        A feature, feature set or target asked for is unknown.
    OutputExistsError
        `out` holds something else, or another process writes to it.
    OutputError
        The system does not let `out` be written: its disk is full, for example. What was there is
        as it was.
    OutOfMemoryError
        Memory has run out; the same call goes on from there. What was there is as it was.
    WorkerError
        Ray has lost a task too often. What was there is as it was.
    TypeError
        An argument is of another type, such as a frame for a path, or a set, which has no order.

    Notes
    -----
    Every row of the sources is written, once and as it is, or nothing is:

    - Ids are in a string column ``id``, or in the one pandas index. They may be empty, but not
      null. An id may come again in another era, but not in the same one: each row is known by its
      era and id. (`predict` wants each id once.)
    - Eras are strings, too, of any text, and also not null. Whole numbers are read as Numerai
      spells them: 1 is ``"0001"``. An era that is a number has one spelling: ``"1"`` and
      ``"0001"`` are never both there. An era may be in several sources, which then have different
      rows of it.
    - A data type may be null, or that column missing.
    - A feature is exactly 0, 1, 2, 3 or 4 in integers, or 0, .25, .5, .75 or 1 in floats. In a
      file that also has a feature of integers, or a float that is 2, 3 or 4, all floats are 0 to 4:
      pandas makes floats of integers where some are missing.
    - A target is rounded to float32, whose integers are exact up to 2**24; null becomes NaN. A
      number that is infinite, in the source or as float32, is refused.
    """
    arguments = writer_arguments(
        sources,
        out,
        num_shards=num_shards,
        encoding=encoding,
        mix_eras=mix_eras,
        features=features,
        targets=targets,
        features_json=features_json,
        seed=seed,
        missing_feature=missing_feature,
        overwrite=overwrite,
    )
    return open_shards(write(**arguments, progress=progress, executor=executor))


def sync_shards(
    sources: PathLike | Iterable[PathLike],
    out: PathLike,
    *,
    num_shards: int = 16,
    encoding: str = "packed",
    mix_eras: int | None = None,
    features: str | Iterable[str] | None = None,
    targets: Iterable[str] | None = None,
    features_json: PathLike | None = None,
    seed: int = 0,
    missing_feature: str = "error",
    overwrite: bool = False,
    progress: bool = True,
    executor: Executor | None = None,
) -> ShardSet:
    """Write a shard set from Parquet files, or bring it up to date with them, and open it.

    The same call does either, whichever is due: `write_shards` where there is no set, and
    `append_shards` where there is one. With `progress`, a line on stderr says what was done, such
    as "created", "added 2 eras, filled 3 targets" or "is up to date". A call that was killed goes
    on when it is made again.

    Parameters
    ----------
    sources : path or iterable of paths
        As of `write_shards`. Files whose eras do not change, such as train.parquet, may be left out
        once the set has their rows.
    out : path
        The folder of the set.
    num_shards, encoding, mix_eras, features, targets, seed
        As of `write_shards`. A set that is there has the same.
    missing_feature : {"error", "middle"}
        As of `write_shards`, of the rows that are written or added.
    features_json : path, optional
        As of `write_shards`.
    overwrite : bool
        Write the set again, whatever is in `out`. The old set stays whole until the new one is.
    progress : bool
        Show progress bars, and what was done, on stderr.
    executor : concurrent.futures.Executor, optional
        As of `write_shards`, where the set is written.

    Returns
    -------
    ShardSet

    Raises
    ------
    OutputExistsError
        The set that is there has other options, which the message names; `out` holds something
        else; or another process writes to it.
    SourceError
        As of `write_shards` and `append_shards`.
    FeatureError, OutputError, OutOfMemoryError, WorkerError, TypeError
        As of `write_shards`.
    ManifestError, CorruptShardError
        The set that is there is damaged.
    """
    arguments = writer_arguments(
        sources,
        out,
        num_shards=num_shards,
        encoding=encoding,
        mix_eras=mix_eras,
        features=features,
        targets=targets,
        features_json=features_json,
        seed=seed,
        missing_feature=missing_feature,
        overwrite=overwrite,
    )
    done = sync(**arguments, progress=progress, executor=executor)
    if progress:
        print(done, file=sys.stderr)
    return open_shards(arguments["out"])


def append_shards(
    shards: ShardSet | PathLike,
    sources: PathLike | Iterable[PathLike],
    *,
    missing_feature: str | None = None,
    dry_run: bool = False,
    progress: bool = True,
) -> Refresh:
    """Bring a shard set up to date with newer Parquet files, without writing it again.

    Rows of eras that the set lacks are added. Of rows that it has, targets that have come since are
    filled in, and those that have changed corrected, as are data types. Features of these rows are
    not read: Numerai does not change them. What is written are shard files of the new eras, and the
    targets that differ of each record batch that has such a row. A set that was opened before stays
    as it was then.

    Parameters
    ----------
    shards : ShardSet or path
        The set, all of it. It does not change; `open_shards` opens what is there afterwards.
    sources : path or iterable of paths
        Newer files, such as this week's validation.parquet. They have all rows of each of their
        eras, once, and spell the eras as the set does. Eras of the set that are in none of them
        stay as they are.
    missing_feature : {"error", "middle"}, optional
        As of `write_shards`, for the rows that are added. None: as the set was written.
    dry_run : bool
        Write nothing, and only return what would be done.
    progress : bool
        Show progress bars on stderr.

    Returns
    -------
    Refresh
        What was done, or would be; printed, it is the plan.

    Raises
    ------
    SourceError
        A source has features or targets that the set lacks, other rows of an era that the set has,
        or no target or data type where the set has one; the set has to be written again, and the
        message says why. A row is there twice, or an era is spelled in two ways. Or a source cannot
        be read, or holds a value that cannot be kept.
    ManifestError, CorruptShardError
        There is no set, or it is damaged.
    OutputExistsError
        Another process writes to the folder.
    OutputError, OutOfMemoryError
        As of `write_shards`. The set is as it was.
    """
    if is_of(shards, ShardSet):
        folder = shards.folder
    else:
        folder = file_path("shards", shards, f"a ShardSet, or {FOLDER}", ManifestError)
    return refresh_set(
        folder,
        file_paths("sources", sources, PARQUET, SourceError),
        missing_feature=missing_feature,
        dry_run=true_or_false("dry_run", dry_run),
        progress=progress,
    )


if sys.modules.get("keras") or sys.modules.get("tf_keras"):
    # A model may be loaded before `predict` is asked for, and shall know what it was fed.
    importlib.import_module(".feeding.keras_compat", __name__).carry_inputs()

if not TYPE_CHECKING:  # to which any name would be one of ours

    def __getattr__(name: str) -> Any:
        if name in _LAZY:
            return getattr(importlib.import_module(f".{_LAZY[name]}", __name__), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
