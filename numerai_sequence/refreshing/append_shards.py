"""Append shards: from a shard set and newer Parquet files to the set brought up to date."""

from __future__ import annotations

from collections.abc import Iterable

from ..checks import file_path, file_paths, is_of, true_or_false
from ..errors import ManifestError, SourceError
from ..reading.shard_set import PathLike, ShardSet
from ..writing.write_arguments import FOLDER, PARQUET
from .refresh import Refresh, refresh_set


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
