"""Set difference: how a set differs from the one that sources and options would make."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from ..checks import short
from ..errors import SourceError
from ..format.layout import Manifest, SourceFile, WriteOptions
from .newer_sources import check_newer
from .source_columns import Source

_REPLACE = "choose another folder, or pass overwrite=True to replace it"


def find_difference(
    manifest: Manifest, folder: Path, sources: Sequence[Source], options: WriteOptions
) -> str | None:
    """Return the difference and what to do, or None if there is no difference.

    If the sources are newer, their eras are read, and the ids of eras that are in several sources.

    Raises
    ------
    SourceError
        A source can no longer be read.
    """
    others = find_other_options(manifest.options, options)
    if others:
        return f"{others}; {_REPLACE}"
    if has_same_sources(manifest, sources):
        return None
    for one, other in combinations(sources, 2):
        if _is_copy(one, other):
            what = f"{other.path} is a copy of {one.path}; leave one of them out"
            return f"{_describe_other(manifest, sources)}; {what}"
    newer = [source for source in sources if not _is_recorded(manifest, source)]
    if not newer:
        return _describe_known(manifest, folder, sources)
    if not _is_related(manifest, sources):
        return f"{_describe_other(manifest, sources)}; {_REPLACE}"
    return _describe_newer(manifest, folder, sources, newer)


def find_other_options(found: WriteOptions, wanted: WriteOptions) -> str | None:
    """Return the options that differ, and how; None if none does."""
    pairs = [
        (name, getattr(found, name), getattr(wanted, name))
        for name in WriteOptions.__dataclass_fields__
    ]
    others = [_unlike(*pair) for pair in pairs if pair[1] != pair[2]]
    return ", and ".join(others) or None


def has_same_sources(manifest: Manifest, sources: Sequence[Source]) -> bool:
    """Say whether a set was written from exactly these files, and not refreshed since."""
    recorded = manifest.sources
    return (
        manifest.version == 1
        and len(recorded) == len(sources)
        and all(map(_is_same_file, recorded, sources))
    )


def _describe_known(manifest: Manifest, folder: Path, sources: Sequence[Source]) -> str:
    """Describe a set that was written from all of these files, and from others or newer ones."""
    if manifest.version > 1:
        last = manifest.sources[-1].path
        what = f"rows that were refreshed since, from {last}; open it with open_shards"
        return f"{what}({str(folder)!r}), or call sync_shards instead of write_shards"
    what = f"{_describe_other(manifest, sources)}, and has all rows of these"
    return f"{what}; open it with open_shards({str(folder)!r}), {_REPLACE}"


def _describe_newer(
    manifest: Manifest, folder: Path, sources: Sequence[Source], newer: Sequence[Source]
) -> str:
    """Describe a set that the sources are a newer state of, or say why they are not."""
    try:
        counts = check_newer(manifest, folder, sources, progress=False)
    except SourceError as error:
        return f"{_describe_other(manifest, sources)}, and these cannot update it: {error}"
    new = set().union(*counts) - manifest.era_rows.keys()
    paths = [str(source.path) for source in newer]
    given = repr(paths[0] if len(paths) == 1 else paths)
    some = "1 era" if len(new) == 1 else f"{len(new):,} eras"
    what = f"and lacks {some} of these" if new else "and has the same eras"
    return (
        f"{_describe_other(manifest, sources)}, {what}; update it with "
        f"append_shards({str(folder)!r}, {given}), or call sync_shards instead of write_shards "
        "('numerai-sequence sync' instead of 'shard')"
    )


def _describe_other(manifest: Manifest, sources: Sequence[Source]) -> str:
    if len(manifest.sources) != len(sources):
        return f"{len(manifest.sources)} sources, not {len(sources)}"
    for recorded, source in zip(manifest.sources, sources, strict=True):
        if not _is_same_file(recorded, source):
            return f"another source than {source.path} ({recorded.path}, or an older state of it)"
    return "the same sources in another order"


def _is_related(manifest: Manifest, sources: Sequence[Source]) -> bool:
    """Say whether the set has any of the sources, by its content or by its name."""
    names = {Path(recorded.path).name for recorded in manifest.sources}
    return any(source.path.name in names or _is_recorded(manifest, source) for source in sources)


def _is_recorded(manifest: Manifest, source: Source) -> bool:
    return any(_is_same_file(recorded, source) for recorded in manifest.sources)


def _is_copy(one: Source, other: Source) -> bool:
    """Say whether two files have the same size and footer, and begin with the same ids."""
    first, second = one.file, other.file
    if os.path.samestat(first.status, second.status):
        return True
    if first.status.st_size != second.status.st_size or not first.metadata.equals(second.metadata):
        return False
    groups = range(min(1, first.metadata.num_row_groups))
    ids = (source.file.read(groups, [source.id_name])[source.id_name] for source in (one, other))
    return bool(next(ids).equals(next(ids)))


def _unlike(name: str, found: object, wanted: object) -> str:
    is_shown = short(found) != short(wanted)
    if is_shown or not (isinstance(found, tuple) and isinstance(wanted, tuple)):
        return f"{name}={short(found)}, not {short(wanted)}"
    # Two long lists with the same beginning, such as the features of a feature set.
    names = set(found).symmetric_difference(wanted)
    return f"other {name}, such as {min(names)!r}" if names else f"the same {name} in another order"


def _is_same_file(recorded: SourceFile, source: Source) -> bool:
    status = source.file.status
    if status.st_size != recorded.bytes:
        return False
    return status.st_mtime_ns == recorded.mtime_ns or source.file.checksum() == recorded.checksum
