"""Writer: turn Parquet files into a folder of shard files, in bounded memory.

The eras are counted first, so that each row's shard and window are known before it is read. Then
the sources are read once, a block of columns at a time: each block is packed, turned into rows and
put into scratch files, while the next one is being decoded. At the end each window is read back,
permuted and written as one record batch. Memory holds two blocks of columns, or one window; never
a whole row group. What is done is noted, and a run goes on from where one like it was killed.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from .batches import Mixer, count_values, seal
from .columns import choose_columns
from .errors import OutOfMemoryError, SourceError, is_out_of_memory
from .feature_sets import FeatureSets, choose_set, find_feature_sets, with_feature_sets
from .filler import fill_scratch
from .layout import Batch, Manifest, Shard, SourceFile, WriteOptions, shard_schema
from .output import Output
from .plan import Plan, make_plan, name_run
from .progress import row_bar
from .scratch import Scratch
from .source import Source, open_sources
from .steps import Steps

_BLOCK_BYTES = 96 << 20  # of decoded values


def write(
    sources: Any,
    out: Path,
    options: WriteOptions,
    *,
    feature_set: str | None,
    features_json: Path | None,
    overwrite: bool,
    progress: bool,
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

    Returns
    -------
    path
        `out`.

    Raises
    ------
    SourceError, FeatureError, OutputExistsError, OutputError, OutOfMemoryError
    """
    output = Output(out)
    with _short_of_memory(output), ExitStack() as stack:
        opened = open_sources(sources)
        for source in opened:
            stack.callback(source.close)
        stack.enter_context(_watched(opened))
        first = opened[0]
        sets = find_feature_sets(features_json, first.path)
        if feature_set is not None:
            features = choose_set(feature_set, sets, first.features, str(first.path))
            options = replace(options, features=features)
        if output.prepare(opened, options, overwrite=overwrite) or not _write_set(
            opened, output, options, sets, overwrite=overwrite, progress=progress
        ):
            output.update(sets)
    return out


@contextmanager
def _short_of_memory(output: Output) -> Iterator[None]:
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


@contextmanager
def _watched(sources: Sequence[Source]) -> Iterator[None]:
    """Where a source is found wrong, say so if it was changed meanwhile."""
    try:
        yield
    except SourceError:
        for source in sources:
            source.file.check_unchanged()
        raise


def _write_set(
    sources: Sequence[Source],
    output: Output,
    options: WriteOptions,
    feature_sets: FeatureSets | None,
    *,
    overwrite: bool,
    progress: bool,
) -> bool:
    """Write a set; return False if another process has just written it."""
    features, targets = choose_columns(sources, options.features, options.targets)
    counts = _count_eras(sources, progress)
    plan = make_plan(sources, counts, features, targets, options, block_bytes=_BLOCK_BYTES)
    with ExitStack() as stack:
        folder = stack.enter_context(output.writing(plan.disk_bytes(options)))
        if output.holds_set_of(sources, options, overwrite=overwrite):
            return False
        names = output.new_names(options.num_shards)
        run = name_run(sources, options, plan, names)
        steps = stack.enter_context(Steps(folder, run, len(names)))
        if progress and steps.done.meta:
            again = "going on with a run that was interrupted"
            tqdm.write(f"{output.folder}: {again}", file=sys.stderr)
        # In the background, and first: it also brings the files into the page cache.
        background = stack.enter_context(ThreadPoolExecutor(1))
        stop = threading.Event()
        stack.callback(stop.set)  # an error does not wait for it
        checksums = [background.submit(source.file.checksum, stop) for source in sources]
        scratch = Scratch(folder, [window.rows for window in plan.windows], plan.blocks)
        scratch.cut_meta(steps.done.meta_bytes)
        fill_scratch(sources, plan, scratch, steps, progress)
        shards = _write_shards(folder, names, plan, scratch, options, steps, progress)
        pairs = zip(sources, checksums, strict=True)
        files = tuple(_source_file(source, checksum.result()) for source, checksum in pairs)
        manifest = Manifest(options.encoding, features, targets, options, files, shards)
        output.commit(with_feature_sets(manifest, feature_sets))
    return True


def _source_file(source: Source, checksum: str) -> SourceFile:
    source.file.check_unchanged()
    status = source.file.status
    return SourceFile(str(source.path), status.st_size, status.st_mtime_ns, source.rows, checksum)


def _count_eras(sources: Sequence[Source], progress: bool) -> Counter[str]:
    counts: Counter[str] = Counter()
    for source in sources:
        with row_bar(source.rows, f"eras of {source.path.name}", progress) as bar:
            for chunk in source.chunks(rows=1 << 20):
                counts.update(count_values(source.read_eras(chunk)))
                bar.update(chunk.rows)
    return counts


def _write_shards(
    folder: Path,
    names: Sequence[str],
    plan: Plan,
    scratch: Scratch,
    options: WriteOptions,
    steps: Steps,
    progress: bool,
) -> tuple[Shard, ...]:
    schema = shard_schema(options.encoding, plan.features, plan.targets)
    rows = sum(window.rows for window in plan.windows)
    sealed = dict(steps.done.shards)
    done = sum(shard.rows for shard in sealed.values())
    sealing = {}
    mixer = Mixer(scratch, plan.windows, schema, len(plan.features), options)
    with ThreadPoolExecutor(1) as sealer, row_bar(rows, "writing shards", progress, done) as bar:
        for number, name in enumerate(names):
            windows = [i for i, window in enumerate(plan.windows) if window.shard == number]
            if number in sealed:
                scratch.drop(windows)  # the kill may have come before this
                continue
            path = folder / name
            batches = mixer.write(path, windows, bar.update)
            sealing[number] = sealer.submit(_seal, number, path, batches, windows, scratch, steps)
            if number - 1 in sealing:  # or scratch would wait to be dropped, and fill the disk
                sealing[number - 1].result()
    sealed |= {number: shard.result() for number, shard in sealing.items()}
    return tuple(sealed[number] for number in range(len(names)))


def _seal(
    number: int,
    path: Path,
    batches: tuple[Batch, ...],
    windows: Sequence[int],
    scratch: Scratch,
    steps: Steps,
) -> Shard:
    shard = seal(path, batches)
    steps.add_shard(number, shard)
    scratch.drop(windows)  # no sooner: a shard that is not noted is written again
    return shard
