"""Writer: turn Parquet files into a folder of shard files, in bounded memory.

The eras are counted first, so that each row's shard and window are known before it is read. Then
each source is read once, a block of columns at a time: each block is packed, turned into rows and
put into scratch files, while the next one is being decoded. At the end each window is read back,
permuted and written as one record batch. Memory holds two blocks of columns, or one window; never
a whole row group. What is done is noted, and a run goes on from where one like it was killed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..errors import OutOfMemoryError, is_out_of_memory
from ..format.feature_sets import (
    FeatureSets,
    choose_set,
    find_feature_sets,
    with_feature_sets,
)
from ..format.layout import Manifest, SourceFile, WriteOptions
from .chosen_columns import choose_columns
from .journal import Steps
from .newer_sources import count_eras
from .output_folder import Output
from .portions import AtOnce, InTurn, Portions, Work, fill_all, seal_all
from .row_ids import check_eras
from .source_columns import Source, open_sources
from .target_alias import compare_sources
from .write_plan import make_plan, name_run

BLOCK_BYTES = 96 << 20  # of decoded values


def write(
    sources: Any,
    out: Path,
    options: WriteOptions,
    *,
    feature_set: str | None,
    features_json: Path | None,
    overwrite: bool,
    progress: bool,
    executor: Executor | None = None,
    says_filled: bool = True,
    mixes: bool = True,
) -> Path:
    """Write a shard set, or find that it is already there.

    A run that was killed or interrupted is gone on with, where it had the same sources and options.
    Of a set that is there, the feature sets are brought up to date.

    Parameters
    ----------
    sources : path or sequence of paths
    out : path
        The folder; made if it is not there.
    options : WriteOptions
    feature_set : str, optional
        Its features, and no others, are written, whatever `options` say.
    features_json : path, optional
        Where the feature sets are; or features.json beside the first source.
    overwrite : bool
        Replace what is in the folder. The old set stays whole until the new one is.
    progress : bool
        Show a progress bar on stderr.
    executor : Executor, optional
        Does the sources, and then the shard files, many at a time.
    says_filled : bool
        With `progress`, say how many missing feature values were filled in.
    mixes : bool
        Permute the rows of each window; otherwise they stay in the order of the sources.

    Returns
    -------
    path
        `out`.

    Raises
    ------
    SourceError, FeatureError, OutputExistsError, OutputError, OutOfMemoryError
    """
    output = Output(out)
    with short_of_memory(output), open_sources(sources) as opened:
        first = opened[0]
        sets = find_sets(features_json, sources, first)
        if feature_set is not None:
            features = choose_set(feature_set, sets, first.features, str(first.path))
            options = replace(options, features=features)
        if output.prepare(opened, options, overwrite=overwrite) or not _write_set(
            opened, output, options, sets, overwrite, progress, executor, says_filled, mixes
        ):
            output.update(sets)
    return out


def find_sets(features_json: Path | None, sources: Any, opened: Source) -> FeatureSets | None:
    """Read the feature sets of sources, of which the first is open.

    Their features.json is the one given, or beside the first file; of a folder of files also in
    the folder, or beside it.
    """
    given = [sources] if isinstance(sources, (str, os.PathLike)) else list(sources)
    first = Path(given[0])
    folders = [first, first.parent] if first.is_dir() else []
    return find_feature_sets(features_json, opened.path.parent, *folders)


@contextmanager
def short_of_memory(output: Output) -> Iterator[None]:
    """Say so where memory runs out, and what is left."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        found = f" ({error})" if str(error) else ""
        raise OutOfMemoryError(
            f"{output.folder}: memory has run out while it was written{found}; "
            f"{output.what_is_left()}; end other programs, or go where more memory is free",
            path=output.folder,
        ) from error


def _write_set(
    sources: Sequence[Source],
    output: Output,
    options: WriteOptions,
    feature_sets: FeatureSets | None,
    overwrite: bool,
    progress: bool,
    executor: Executor | None,
    says_filled: bool,
    mixes: bool,
) -> bool:
    """Write a set; return False if another process has just written it."""
    features, targets = choose_columns(sources, options.features, options.targets)
    counts = [count_eras(source, progress) for source in sources]
    check_eras(sources, counts)
    plan = make_plan(sources, counts, features, targets, options, block_bytes=BLOCK_BYTES)
    needed_bytes = plan.disk_bytes(options, at_once=executor is not None)
    alias = compare_sources(sources, targets).found
    with output.writing(needed_bytes) as folder:
        if output.holds_set_of(sources, options, overwrite=overwrite):
            return False
        names = output.new_names(options.num_shards)
        run = name_run(sources, options, plan, names)
        paths = tuple(source.path for source in sources)
        work = Work(folder.absolute(), run, tuple(names), paths, plan, options, mixes)
        portions: Portions = InTurn(work, progress=progress)
        if executor is not None:
            portions = AtOnce(work, executor, progress=progress)
        with Steps(folder, run, len(names)) as steps:
            if progress and steps.goes_on:
                again = "going on with a run that was interrupted"
                tqdm.write(f"{output.folder}: {again}", file=sys.stderr)
            files = fill_all(portions, sources, steps)
            shards = seal_all(portions, work, steps)
        manifest = Manifest(
            options.encoding, features, targets, options, files, shards, target_alias=alias
        )
        output.commit(with_feature_sets(manifest, feature_sets))
    if progress and says_filled:
        say_filled(output, files)
    return True


def say_filled(output: Output, files: Iterable[SourceFile]) -> None:
    """Say on stderr how many missing feature values of these files were filled in, if any."""
    filled = sum(file.filled for file in files)
    if filled:
        what = f"{filled:,} missing feature values are written as the middle"
        tqdm.write(f"{output.folder}: {what}", file=sys.stderr)
