"""Data: from a shard set, its path, or a Parquet file, to an open shard set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from ..checks import is_of
from ..format.layout import WriteOptions
from ..reading.shards import ShardSet, open_shards
from ..writing.columns import choose_columns
from ..writing.source import Source
from ..writing.writer import write
from .predictions import check_data, is_parquet, temporary_folder, warn_missing


@contextmanager
def opened_data(
    data: Any, *, features: Any, targets: tuple[str, ...] | None, progress: bool
) -> Iterator[ShardSet]:
    """Open what `score` and `neutralize` take as data, and close it.

    A Parquet file becomes a temporary shard set.

    Parameters
    ----------
    data : ShardSet, path, sequence of paths
    features : str, sequence of str, or None
        Which features of a Parquet file are needed: a feature set of the features.json beside it,
        a list, or None for all. Without any, its first feature is taken.
    targets : tuple of str, optional
        Which targets of a Parquet file are needed; None for all.
    progress : bool
        Show progress bars on stderr.
    """
    data = check_data(data)
    if is_of(data, ShardSet):
        yield data
    elif is_parquet(data):
        with _written(Path(data), features, targets, progress) as shards:
            yield shards
    else:
        with open_shards(data) as shards:
            yield shards


@contextmanager
def _written(
    path: Path, features: Any, targets: tuple[str, ...] | None, progress: bool
) -> Iterator[ShardSet]:
    by_name = features if isinstance(features, str) else None
    with closing(Source(path)) as source:
        wanted = None if by_name is not None else features or None
        chosen, targets = choose_columns([source], wanted, targets)
        if features is not None and not len(features):
            chosen = chosen[:1]
    options = WriteOptions(
        num_shards=1,
        mix_eras=1,
        features=None if by_name is not None else chosen,
        targets=targets,
        missing_feature="middle",
    )
    with temporary_folder(path) as folder:
        written = write(
            path,
            Path(folder, "shards"),
            options,
            overwrite=False,
            progress=progress,
            says_filled=False,  # as it is said of the file, and once
            feature_set=by_name,
            features_json=None,
        )
        with open_shards(written) as shards:
            warn_missing(shards, path, shards.features)
            yield shards
