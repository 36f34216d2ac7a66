"""Refresh: an update of a shard set with the new eras and new target values of sources.

Eras that the set lacks become new shard files beside the existing ones. For the other eras, the
data types and targets are compared, and the differences become patches. Features of existing rows
are neither read nor written again. The manifest is replaced at one instant. A set that is already
open does not change.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import OutputExistsError
from ..format.encodings import ENCODINGS
from ..format.layout import Manifest, WriteOptions
from ..format.manifest import read_manifest
from ..ordering.eras import sort_eras
from ..ordering.target_horizon import describe_alias
from ..reading.set_opener import open_shards
from ..reading.shard_set import ShardSet
from ..system.progress import progress_bar
from ..writing.journal import Journal
from ..writing.newer_sources import check_newer
from ..writing.output_folder import Output
from ..writing.part_runners import SerialRunner, Work, fill_all, seal_all
from ..writing.source_columns import Source, open_sources
from ..writing.write_plan import OTHER_BYTES, Plan, make_plan, name_run
from ..writing.writer import BLOCK_BYTES, say_filled, short_of_memory
from .changed_aliases import find_alias
from .changed_values import Comparison, with_patches
from .repeated_rows import check_again


@dataclass(frozen=True)
class Refresh:
    """The changes that a refresh makes, or would make. Print it to see the plan.

    Attributes
    ----------
    folder : path
        Folder of the set.
    eras : tuple of str
        Added eras, in order of time.
    rows : int
        Number of added rows, which are the rows of these eras.
    filled : dict of str to int
        For each target, the number of existing rows without a value that get one.
    corrected : dict of str to int
        For each target, the number of existing rows with a value that get another value.
    data_types : int
        Number of existing rows that get another data type.
    bytes : int
        Approximate size in bytes of the shard files and patches to write.
    set_bytes : int
        Size in bytes of the files of the set before the refresh.
    target_alias : tuple of str or None
        The targets that equal ``target`` after the refresh. None means no change.
    without_data_type : int
        Number of added rows without a data type, if other rows of the set have a data type.
        ``data_type="train"`` does not select these rows.
    """

    folder: Path
    eras: tuple[str, ...]
    rows: int
    filled: dict[str, int]
    corrected: dict[str, int]
    data_types: int
    bytes: int
    set_bytes: int
    target_alias: tuple[str, ...] | None = None
    without_data_type: int = 0

    @property
    def is_needed(self) -> bool:
        """Whether the refresh changes the set."""
        return self._has_values or self.target_alias is not None

    @property
    def _has_values(self) -> bool:
        """Whether there are new rows, or new values in existing rows."""
        return bool(self.rows or self.filled or self.corrected or self.data_types)

    def __str__(self) -> str:
        if not self.is_needed:
            return f"{self.folder}: up to date"
        lines = [f"{self.folder}:"]
        if self.rows:
            first, last = self.eras[0], self.eras[-1]
            span = f"{first}" if first == last else f"{len(self.eras):,} eras, {first} to {last}"
            lines.append(f"  {self.rows:,} rows of new eras ({span})")
        if self.without_data_type:
            lines.append(
                f"  {self.without_data_type:,} of them have no data type, so data_type='train' "
                "leaves them out"
            )
        for what, counts in (("filled in", self.filled), ("corrected", self.corrected)):
            if counts:
                most = max(counts, key=lambda name: counts[name])
                noun = "target" if len(counts) == 1 else "targets"
                lines.append(
                    f"  {sum(counts.values()):,} values of {len(counts)} {noun} are {what}, "
                    f"{counts[most]:,} of them in {most}"
                )
        if self.data_types:
            lines.append(f"  {self.data_types:,} rows get another data type")
        if self.target_alias is not None:
            lines.append(f"  {describe_alias(self.target_alias)}")
        share = f"{self.bytes / self.set_bytes:.2%}" if self.set_bytes else "100%"
        lines.append(f"  about {self.bytes / 1e6:,.1f} MB are written, {share} of the set")
        return "\n".join(lines)


def refresh_set(
    folder: Path,
    sources: Any,
    *,
    missing_feature: str | None = None,
    dry_run: bool,
    progress: bool,
    show: Callable[[Refresh], object] | None = None,
) -> Refresh:
    """Refresh a shard set.

    Parameters
    ----------
    folder : path
        Folder of the set.
    sources : path or sequence of paths
        Newer files. Each row is in one of them.
    missing_feature : {"error", "middle"}, optional
        Treatment of missing features in added rows; None for the choice with which the set was
        written.
    dry_run : bool
        Write nothing; only return the changes that a refresh would make.
    progress : bool
        Show progress bars on stderr.
    show : function, optional
        Function that is called with the planned changes before they are made.

    Returns
    -------
    Refresh

    Raises
    ------
    ManifestError, CorruptShardError
        There is no set, or it is damaged.
    SourceError
        A source cannot be read, or does not fit the set. The message says why the set has to be
        written again.
    OutputExistsError, OutputError, OutOfMemoryError
        As for `write`. The set is unchanged.
    """
    read_manifest(folder)  # an error here leaves the folder untouched
    output = Output(folder)
    if not dry_run:
        output.recover(keeps=True)
    with (
        short_of_memory(output),
        open_shards(folder) as shards,
        open_sources(sources) as opened,
    ):
        counts = check_newer(shards.manifest, folder, opened, progress=progress)
        check_again(shards, opened, counts)
        comparison = _compare(shards, opened, progress)
        options = _options(shards.manifest, missing_feature)
        plan = _plan_new(shards, opened, counts, options)
        alias = find_alias(shards, opened, set().union(*counts))
        found = _describe(shards, comparison, plan, alias)
        if show is not None:
            show(found)
        if found.is_needed and not dry_run:
            with output.writing(2 * found.bytes) as writing:
                if read_manifest(folder) != shards.manifest:
                    raise OutputExistsError(
                        f"{folder}: another process has changed the set meanwhile; run again",
                        path=folder,
                    )
                manifest = replace(shards.manifest, target_alias=alias)
                if found._has_values:
                    manifest = replace(manifest, options=_noted(manifest, options, plan))
                    manifest = _add_eras(manifest, opened, plan, output, writing, progress)
                    patches = comparison.write(writing, output.generation())
                    manifest = with_patches(manifest, *patches)
                output.commit(manifest)
                if progress:
                    say_filled(output, manifest.sources[len(shards.manifest.sources) :])
        elif not dry_run:
            output.recover(keeps=False)
    return found


def _compare(shards: ShardSet, sources: Sequence[Source], progress: bool) -> Comparison:
    comparison = Comparison(shards)
    for source in sources:
        with progress_bar(source.rows, f"comparing {source.path.name}", progress) as bar:
            for chunk in source.chunks(rows=1 << 20):
                for rows in source.iter_meta(chunk, shards.targets):
                    comparison.add(source, rows)
                    bar.update(rows.num_rows)
    return comparison


def _options(manifest: Manifest, missing_feature: str | None) -> WriteOptions:
    """Return the options for the added rows."""
    if missing_feature is None:
        return manifest.options
    return replace(manifest.options, missing_feature=missing_feature)


def _noted(manifest: Manifest, options: WriteOptions, plan: Plan | None) -> WriteOptions:
    """Return the options of the set, which note if missing values may have been filled in."""
    return options if plan and plan.fills_missing else manifest.options


def _plan_new(
    shards: ShardSet,
    sources: Sequence[Source],
    counts: Sequence[Counter[str]],
    options: WriteOptions,
) -> Plan | None:
    """Plan the shard files of the eras that the set lacks; None if it lacks none."""
    manifest, known = shards.manifest, shards.era_rows
    new = [Counter({era: eras[era] for era in eras if era not in known}) for eras in counts]
    if not any(new):
        return None
    plan = make_plan(
        sources,
        new,
        manifest.features,
        manifest.targets,
        options,
        block_bytes=BLOCK_BYTES,
    )
    skipped = tuple(sorted(set().union(*counts).intersection(known)))
    return replace(plan, skipped=skipped)


def _describe(
    shards: ShardSet, comparison: Comparison, plan: Plan | None, alias: tuple[str, ...]
) -> Refresh:
    manifest, windows = shards.manifest, plan.windows if plan else ()
    eras = sort_eras(era for window in windows for era in window.eras)
    rows = sum(window.rows for window in windows)
    width = ENCODINGS[manifest.encoding].row_bytes(len(manifest.features))
    width += OTHER_BYTES + 4 * len(manifest.targets)
    return Refresh(
        shards.folder,
        tuple(eras),
        rows,
        {name: count for name, count in comparison.filled.items() if count},
        {name: count for name, count in comparison.corrected.items() if count},
        comparison.data_types,
        rows * width + comparison.patch_bytes,
        sum(file.bytes for file in manifest.files),
        None if set(alias) == set(manifest.target_alias) else alias,
        comparison.without_data_type if shards.data_types else 0,
    )


def _add_eras(
    manifest: Manifest,
    sources: Sequence[Source],
    plan: Plan | None,
    output: Output,
    writing: Path,
    progress: bool,
) -> Manifest:
    """Write the shard files of the new eras; return the manifest that includes them."""
    if plan is None:
        files = [source.describe(source.file.checksum()) for source in sources]
        rows = [0] * len(sources)
        shards = manifest.shards
    else:
        plan, names = _name_shards(plan, output.generation())
        options = manifest.options
        run = name_run(sources, options, plan, names)
        paths = tuple(source.path for source in sources)
        work = Work(writing.absolute(), run, names, paths, plan, options)
        with Journal(writing, run, len(names)) as journal:
            runner = SerialRunner(work, progress=progress)
            files = list(fill_all(runner, sources, journal))
            shards = *manifest.shards, *seal_all(runner, work, journal)
        rows = [sum(source_rows) for source_rows in plan.source_rows]
    added = [replace(file, rows=count) for file, count in zip(files, rows, strict=True)]
    return replace(manifest, sources=(*manifest.sources, *added), shards=shards)


def _name_shards(plan: Plan, generation: int) -> tuple[Plan, tuple[str, ...]]:
    """Return the plan with its shards numbered without gaps, and their names."""
    shards = sorted({window.shard for window in plan.windows})
    windows = tuple(replace(window, shard=shards.index(window.shard)) for window in plan.windows)
    names = tuple(f"shard-{shard:02d}-{generation}.arrow" for shard in shards)
    return replace(plan, windows=windows), names
