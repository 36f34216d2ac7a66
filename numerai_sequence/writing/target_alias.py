"""Target alias: the targets that ``target`` equals in all rows of the sources.

Targets that are not written count too, because they show how far ``target`` looks ahead. Almost all
differ within the first rows, and are not read further.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ..errors import SourceError
from ..ordering.target_horizon import TARGET, EqualTargets
from .source_columns import Chunk, Source

_ROWS_PER_CHUNK = 1 << 20


def compare_sources(sources: Sequence[Source], targets: Collection[str]) -> EqualTargets:
    """Compare ``target`` with all other targets that each of the sources has.

    Parameters
    ----------
    sources : sequence of Source
    targets : collection of str
        Columns that are written. If ``target`` is not one of them, nothing is compared.

    Raises
    ------
    SourceError
        One of `targets` cannot be read.
    """
    names = sources[0].targets if TARGET in targets else ()
    equal = EqualTargets(n for n in names if all(source.has_numbers(n) for source in sources))
    for source in sources:
        for chunk in source.chunks(rows=_ROWS_PER_CHUNK):
            while equal.names and not _compare(source, chunk, equal, targets):
                pass
    return equal


def _compare(source: Source, chunk: Chunk, equal: EqualTargets, targets: Collection[str]) -> bool:
    """Compare a chunk; return False if a column was left out, so that it is compared again."""
    try:
        for columns in source.iter_numbers(chunk, (TARGET, *equal.names)):
            equal.compare(columns)
            if not equal.names:
                break
    except SourceError as error:
        # Damage in a column that was not chosen.
        if error.column in targets or error.column not in equal.names:
            raise
        equal.leave_out(error.column)
        return False
    return True
