"""Refresh: rows of new eras, and targets that have come since, from sources into a shard set.

The eras that a set lacks become shard files beside those that are there. Of the others the data
types and targets are compared, and what differs becomes patches. No feature that is there is
written again, or read. The manifest that tells of all this is replaced at one instant: who has
opened the set before keeps what was there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import OutputExistsError
from ..format.encoding import row_bytes
from ..format.layout import Manifest, WriteOptions
from ..format.manifest import read_manifest
from ..ordering.eras import sort_eras
from ..ordering.target_horizon import describe_alias
from ..reading.set_opener import open_shards
from ..reading.shard_set import ShardSet
from ..system.progress import progress_bar
from ..writing.journal import Steps
from ..writing.newer_sources import check_newer
from ..writing.output_folder import Output
from ..writing.portions import InTurn, Work, fill_all, seal_all
from ..writing.source_columns import Source, open_sources
from ..writing.write_plan import OTHER_BYTES, Plan, make_plan, name_run
from ..writing.writer import BLOCK_BYTES, say_filled, short_of_memory
from .changed_aliases import find_alias
from .changed_values import Comparison, with_patches
from .repeated_rows import check_again


@dataclass(frozen=True)
class Refresh:
    """What a refresh does, or would do; printed, it is the plan.

    Attributes
    ----------
    folder : path
        Of the set.
    eras : tuple of str
        Those that the set lacks, in the order of time.
    rows : int
        Of these eras.
    filled, corrected : dict of str to int
        By target, how many rows that the set has get a value, or another one.
    data_types : int
        How many of them get another data type.
    bytes : int
        That are written, about: of shard files and of patches.
    set_bytes : int
        Of the files of the set before.
    target_alias : tuple of str or None
        The targets that ``target`` equals from now on; None where these stay the same.
    without_data_type : int
        Rows of new eras that have no data type, where the set has some: ``data_type="train"``
        leaves them out.
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
        """Whether there is anything to do."""
        return self._has_values or self.target_alias is not None

    @property
    def _has_values(self) -> bool:
        """Whether there are new rows, or new values in rows that the set has."""
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
        for what, counts in (("filled", self.filled), ("corrected", self.corrected)):
            if counts:
                most = max(counts, key=lambda name: counts[name])
                lines.append(
                    f"  {sum(counts.values()):,} values of {len(counts)} targets are {what}, "
                    f"{counts[most]:,} of {most}"
                )
        if self.data_types:
            lines.append(f"  {self.data_types:,} rows get another data type")
        if self.target_alias is not None:
            lines.append(f"  {describe_alias(self.target_alias)}")
        share = f"{self.bytes / self.set_bytes:.2%}" if self.set_bytes else "all"
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
        Of the set.
    sources : path or sequence of paths
        Each row is in one of them.
    missing_feature : {"error", "middle"}, optional
        Of the rows that are added; None: as the set was written.
    dry_run : bool
        Only find out what is to be done.
    progress : bool
        Show progress bars on stderr.
    show : function, optional
        Is called with what is to be done, before it is.

    Returns
    -------
    Refresh

    Raises
    ------
    ManifestError, CorruptShardError
        There is no set, or it is damaged.
    SourceError
        A source cannot be read, or does not fit the set; the message says why it is to be written
        again.
    OutputExistsError, OutputError, OutOfMemoryError
        As of `write`. The set is as it was.
    """
    read_manifest(folder)  # or nothing is touched
    output = Output(folder)
    if not dry_run:
        output.tidy(keeps=True)
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
                        f"{folder}: another process has written it meanwhile; run again",
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
            output.tidy(keeps=False)
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
    """Return the options of the rows that are added."""
    if missing_feature is None:
        return manifest.options
    return replace(manifest.options, missing_feature=missing_feature)


def _noted(manifest: Manifest, options: WriteOptions, plan: Plan | None) -> WriteOptions:
    """Return the options of the set: once some rows may have been filled in, it says so."""
    return options if plan and plan.fills_missing else manifest.options


def _plan_new(
    shards: ShardSet,
    sources: Sequence[Source],
    counts: Sequence[Counter[str]],
    options: WriteOptions,
) -> Plan | None:
    """Plan the shard files of the eras that the set lacks; None: it lacks none."""
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
    width = row_bytes(manifest.encoding, len(manifest.features))
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
    """Write the shard files of the new eras; return the manifest that tells of them too."""
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
        with Steps(writing, run, len(names)) as steps:
            portions = InTurn(work, progress=progress)
            files = list(fill_all(portions, sources, steps))
            shards = *manifest.shards, *seal_all(portions, work, steps)
        rows = [sum(source_rows) for source_rows in plan.source_rows]
    added = [replace(file, rows=count) for file, count in zip(files, rows, strict=True)]
    return replace(manifest, sources=(*manifest.sources, *added), shards=shards)


def _name_shards(plan: Plan, generation: int) -> tuple[Plan, tuple[str, ...]]:
    """Return the plan with its shards numbered without gaps, and their names."""
    shards = sorted({window.shard for window in plan.windows})
    windows = tuple(replace(window, shard=shards.index(window.shard)) for window in plan.windows)
    names = tuple(f"shard-{shard:02d}-{generation}.arrow" for shard in shards)
    return replace(plan, windows=windows), names
