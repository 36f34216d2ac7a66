"""Append shards: the public function that updates a shard set from newer Parquet files."""

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
    """Update a shard set from newer Parquet files, without writing it again.

    Rows of new eras are added. In existing rows, new target values are filled in, and changed
    targets and data types are corrected. Features of existing rows are not read, because Numerai
    does not change them. Only the shard files of new eras and the changed columns are written. A
    set that is already open does not change.

    Parameters
    ----------
    shards : ShardSet or path
        The whole set, or its path. An open `ShardSet` does not change. Open the updated set with
        `open_shards`.
    sources : path or iterable of paths
        Newer files, such as this week's validation.parquet. They must have all rows of each era in
        them, each row once, with the spelling of eras that the set has. Other eras of the set do
        not change.
    missing_feature : {"error", "middle"}, optional
        Treatment of missing features in added rows. None means the option with which the set was
        written. See `write_shards`.
    dry_run : bool
        Write nothing; only return the changes that would be made.
    progress : bool
        Show progress bars on stderr.

    Returns
    -------
    Refresh
        The changes. Print it to see them.

    Raises
    ------
    SourceError
        A row appears twice. An era has two spellings. A source cannot be read. A value cannot be
        stored. In three other cases, write the set again: a source has features or targets that the
        set lacks; an existing era has other rows in a source; a row has a target or a data type in
        the set, but not in a source.
    ManifestError, CorruptShardError
        There is no set, or it is damaged.
    OutputExistsError
        Another process writes to the folder.
    OutputError, OutOfMemoryError
        See `write_shards`. The set is unchanged.
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
