"""Writer: turns Parquet files into a folder of shard files, in bounded memory.

The eras are counted first, so that each row's shard and window are known before it is read. Then
each source is read once, a block of columns at a time. A block is packed, turned into rows and put
into scratch files while the next one is decoded. At the end each window is read back, permuted and
written as one record batch. Memory holds two blocks of columns, or one window, but never a whole
row group. Finished steps are noted, so that the same run continues after a kill.
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
from .journal import Journal
from .newer_sources import count_eras
from .output_folder import Output
from .part_runners import ParallelRunner, Runner, SerialRunner, Work, fill_all, seal_all
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
    """Write a shard set, unless it already exists.

    An interrupted run with the same sources and options is continued. If the set already exists,
    only its feature sets are updated.

    Parameters
    ----------
    sources : path or sequence of paths
    out : path
        Folder of the set. It is created if needed.
    options : WriteOptions
    feature_set : str, optional
        Feature set to write, in place of the features of `options`.
    features_json : path, optional
        File with the feature sets; None for features.json beside the first source.
    overwrite : bool
        Replace the set in the folder. The old set stays valid until the new one is complete.
    progress : bool
        Show a progress bar on stderr.
    executor : Executor, optional
        Executor that reads the sources, and then writes the shard files, many at a time.
    says_filled : bool
        With `progress`, say how many missing feature values were filled in.
    mixes : bool
        Permute the rows of each window; otherwise they keep the order of the sources.

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

    They are in `features_json`, or in a features.json beside the first file. If the first source is
    a folder of files, features.json may also be in the folder or beside it.
    """
    given = [sources] if isinstance(sources, (str, os.PathLike)) else list(sources)
    first = Path(given[0])
    folders = [first, first.parent] if first.is_dir() else []
    return find_feature_sets(features_json, opened.path.parent, *folders)


@contextmanager
def short_of_memory(output: Output) -> Iterator[None]:
    """Turn an error of lacking memory into one that describes the state of the folder."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        found = f" ({error})" if str(error) else ""
        raise OutOfMemoryError(
            f"{output.folder}: out of memory while writing{found}; {output.what_is_left()}; "
            "close other programs, or use a machine with more free memory",
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
    """Write a set; return False if another process has written it meanwhile."""
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
        runner: Runner = SerialRunner(work, progress=progress)
        if executor is not None:
            runner = ParallelRunner(work, executor, progress=progress)
        with Journal(folder, run, len(names)) as journal:
            if progress and journal.goes_on:
                again = "continuing an interrupted run"
                tqdm.write(f"{output.folder}: {again}", file=sys.stderr)
            files = fill_all(runner, sources, journal)
            shards = seal_all(runner, work, journal)
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
