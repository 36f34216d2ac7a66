"""Difference: say in what a set differs from the one that sources and options would make."""

from __future__ import annotations

from collections.abc import Sequence

from ..checks import short
from ..format.layout import Manifest, SourceFile, WriteOptions
from .source import Source


def find_difference(
    manifest: Manifest, sources: Sequence[Source], options: WriteOptions
) -> str | None:
    """Return a few words on the first difference; None: there is none.

    Raises
    ------
    SourceError
        A source cannot be read any more.
    """
    for name in WriteOptions.__dataclass_fields__:
        found, wanted = getattr(manifest.options, name), getattr(options, name)
        if found != wanted:
            return _unlike(name, found, wanted)
    if manifest.version > 1:
        last = manifest.sources[-1].path
        return f"sources that was refreshed since, from {last}: open it with open_shards"
    if len(manifest.sources) != len(sources):
        return f"{len(manifest.sources)} sources, not {len(sources)}"
    for recorded, source in zip(manifest.sources, sources, strict=True):
        if not _is_same_file(recorded, source):
            return f"another source than {source.path} ({recorded.path}, or an older state of it)"
    return None


def _unlike(name: str, found: object, wanted: object) -> str:
    is_shown = short(found) != short(wanted)
    if is_shown or not (isinstance(found, tuple) and isinstance(wanted, tuple)):
        return f"{name}={short(found)}, not {short(wanted)}"
    # Two long lists, such as a feature set's features, that begin alike.
    names = set(found).symmetric_difference(wanted)
    return f"other {name}, such as {min(names)!r}" if names else f"the same {name} in another order"


def _is_same_file(recorded: SourceFile, source: Source) -> bool:
    status = source.file.status
    if status.st_size != recorded.bytes:
        return False
    return status.st_mtime_ns == recorded.mtime_ns or source.file.checksum() == recorded.checksum
