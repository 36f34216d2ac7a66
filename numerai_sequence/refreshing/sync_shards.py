"""Sync shards: the public function that writes or updates a shard set, and opens it."""

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
    """Write a shard set from Parquet files, or update it from them, and open it.

    If `out` has no set, `sync_shards` calls `write_shards`. Otherwise it calls `append_shards`.
    With `progress`, a line on stderr shows the result, such as "created", "added 2 eras, filled 3
    targets" or "is up to date". To continue an interrupted call, make it again.

    Parameters
    ----------
    sources : path or iterable of paths
        Numerai's Parquet files. See `write_shards`. When you update a set, you may leave out files
        whose eras do not change, such as train.parquet.
    out : path
        Folder of the set. It is created if needed.
    num_shards, encoding, mix_eras, features, targets, seed
        Options of the set. See `write_shards`. They must equal the options of an existing set.
    missing_feature : {"error", "middle"}
        Treatment of missing features in rows that are written or added. See `write_shards`.
    features_json : path, optional
        Numerai's features.json. See `write_shards`.
    overwrite : bool
        Write the set again, even if it exists. The old set stays valid until the new one is
        complete.
    progress : bool
        Show progress bars and a line about the result on stderr.
    executor : concurrent.futures.Executor, optional
        Executor for writing the set. See `write_shards`. Updates do not use it.

    Returns
    -------
    ShardSet
        The set, open.

    Raises
    ------
    OutputExistsError
        The existing set has other options, which the message names. `out` holds other files.
        Another process writes to `out`.
    SourceError
        See `write_shards` and `append_shards`.
    FeatureError, OutputError, OutOfMemoryError, WorkerError, TypeError
        See `write_shards`.
    ManifestError, CorruptShardError
        The existing set is damaged.
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
