"""Moved: from a set and the sources of a refresh to the targets that ``target`` equals afterwards.

A refresh brings new rows and new values. They may part ``target`` from the target that it has
equalled, or move it to another one.
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
        The set as it is.
    sources : sequence of Source
    eras : collection of str
        The eras of the sources; the set will have their values. Other eras stay as they are.

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
