"""Changed aliases: the targets that ``target`` equals after a refresh.

A refresh adds new rows and new values. With them, ``target`` may no longer equal the target that it
equalled before, or may equal another one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ..reading.shard_set import ShardSet
from ..writing.source_columns import Source
from ..writing.target_alias import compare_sources


def find_alias(
    shards: ShardSet, sources: Sequence[Source], eras: Collection[str]
) -> tuple[str, ...]:
    """Return the targets that ``target`` will equal in all rows.

    Parameters
    ----------
    shards : ShardSet
        The set before the refresh.
    sources : sequence of Source
    eras : collection of str
        The eras of the sources. The set will have their values; other eras do not change.

    Raises
    ------
    SourceError, CorruptShardError
    """
    equal = compare_sources(sources, shards.targets)
    known = frozenset(shards.manifest.target_alias)
    if known.issuperset(equal.names):
        return equal.names
    if not shards.era_rows.keys() <= set(eras):
        for name in equal.names:
            if name not in known and name not in shards.targets:
                equal.leave_out(name)
        shards.compare_targets(equal, except_eras=eras)
    return equal.found
