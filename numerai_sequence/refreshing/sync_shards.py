"""Sync shards: from Parquet files and a folder to an open shard set that has their rows."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from concurrent.futures import Executor

from ..format.layout import WriteOptions
from ..reading.set_opener import open_shards
from ..reading.shard_set import PathLike, ShardSet
from ..writing.write_arguments import writer_arguments
from .sync import sync


def sync_shards(
    sources: PathLike | Iterable[PathLike],
    out: PathLike,
    *,
    num_shards: int = WriteOptions.num_shards,
    encoding: str = WriteOptions.encoding,
    mix_eras: int | None = None,
    features: str | Iterable[str] | None = None,
    targets: Iterable[str] | None = None,
    features_json: PathLike | None = None,
    seed: int = WriteOptions.seed,
    missing_feature: str = WriteOptions.missing_feature,
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
