"""Data argument: an open shard set, from a shard set, its path, or a Parquet file."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any

from ..checks import file_paths, is_of
from ..errors import NumeraiSequenceError, OutOfMemoryError, OutputError
from ..feeding.sequence import NumeraiSequence
from ..format.layout import WriteOptions
from ..reading.set_opener import open_shards
from ..reading.shard_set import ShardSet
from ..system.files import explained
from ..writing.chosen_columns import choose_columns
from ..writing.missing_features import find_missing
from ..writing.source_columns import Source
from ..writing.writer import write
from .model_features import callers_level

_MAGIC = b"PAR1"
_DATA = (
    "a shard set or the path of a Parquet file; save a table as Parquet first, and give its path"
)


@contextmanager
def opened_data(
    data: Any, *, features: Any, targets: tuple[str, ...] | None, progress: bool
) -> Iterator[ShardSet]:
    """Open the data of `score` and `neutralize`, and close it at the end.

    A Parquet file becomes a temporary shard set.

    Parameters
    ----------
    data : ShardSet, path, sequence of paths
    features : str, sequence of str, or None
        Features that are needed from a Parquet file: a feature set of the features.json beside it,
        a list, or None for all. For an empty list, the first feature is taken.
    targets : tuple of str, optional
        Targets that are needed from a Parquet file; None for all.
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


def check_data(data: Any) -> Any:
    """Return a shard set, a path, or several."""
    if is_of(data, NumeraiSequence):
        raise TypeError(
            "data: found a NumeraiSequence, expected a shard set or the path of a Parquet file; "
            "call predict(model, sequence.shards, like=sequence, eras=sequence.eras)"
        )
    if is_of(data, ShardSet):
        return data
    paths = file_paths("data", data, _DATA, NumeraiSequenceError)
    return paths[0] if isinstance(data, (str, os.PathLike)) else paths


def is_parquet(data: Any) -> bool:
    """Return whether data are a Parquet file."""
    if is_of(data, ShardSet) or not isinstance(data, (str, os.PathLike)):
        return False
    path = Path(data)
    if path.is_dir():
        return False
    if path.suffix.lower() == ".parquet":
        return True
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


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
    with (
        written_for_now(path, by_name or chosen, targets, progress=progress) as folder,
        open_shards(folder) as shards,
    ):
        warn_missing(shards, path)
        yield shards


@contextmanager
def written_for_now(
    path: Path, features: str | tuple[str, ...], targets: tuple[str, ...], *, progress: bool
) -> Iterator[Path]:
    """Write a temporary shard set of a Parquet file, yield its folder, and remove it at the end.

    The eras are in the order of time. The rows of an era are in the order of the file.

    Parameters
    ----------
    path : path
    features : str or tuple of str
        A feature set of the features.json beside the file, or a list.
    targets : tuple of str
    progress : bool
        Show progress bars on stderr.
    """
    by_name = features if isinstance(features, str) else None
    # One era in each window needs the least memory, and whole eras are read at once.
    options = WriteOptions(
        num_shards=1,
        mix_eras=1,
        features=None if isinstance(features, str) else features,
        targets=targets,
        missing_feature="middle",
    )
    with _temporary_folder(path) as folder:
        yield write(
            path,
            Path(folder, "shards"),
            options,
            overwrite=False,
            progress=progress,
            says_filled=False,  # one warning names the file instead
            mixes=False,  # so that batches equal those of an exported function
            feature_set=by_name,
            features_json=None,
        )


@contextmanager
def _temporary_folder(path: Path) -> Iterator[str]:
    """Make a folder for the shard set of a Parquet file; its errors name the file."""
    with ExitStack() as stack:
        try:
            with explained(gettempdir()):
                # After an error its files may be open, and Windows would refuse.
                made = TemporaryDirectory(prefix="numerai-sequence-", ignore_cleanup_errors=True)
                folder = stack.enter_context(made)
            yield folder
        except (OutputError, OutOfMemoryError) as error:
            raise type(error)(
                f"{path}: its temporary shard set cannot be written to {gettempdir()} "
                f"({error.__cause__}); free some space, or set TMPDIR to a folder on another disk",
                **{name: getattr(error, name) for name in error.fields},
            ) from error


def warn_missing(shards: ShardSet, path: Path) -> None:
    """Warn how many missing values of a Parquet file were filled in for its shard set."""
    if sum(source.filled for source in shards.manifest.sources):
        with closing(Source(path)) as source:
            missing = find_missing(source, shards.features)
        warnings.warn(f"{path}: {missing}, replaced with the middle", stacklevel=callers_level())
