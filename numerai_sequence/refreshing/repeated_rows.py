"""Again: refuse rows of a new era that a set has already, in an era without a number, or has now.

Live rows have the era "X" until they are validation rows with the era's number. Where both are
added, the rows would be in the set twice. Ids that come in several numbered eras, such as tickers,
say nothing of this.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..ordering.eras import era_number
from ..reading.batch_contents import check_column
from ..reading.shard_set import ShardSet
from ..writing.source_columns import Source

_CHUNK_ROWS = 1 << 20


def check_again(
    shards: ShardSet, sources: Sequence[Source], counts: Sequence[Counter[str]]
) -> None:
    """Check that no row has one era without a number and another one with it.

    Memory holds the ids of the eras without a number; the others are streamed, and only read where
    there may be such rows.

    Parameters
    ----------
    shards : ShardSet
    sources : sequence of Source
    counts : sequence of Counter
        The rows of each era, for each source.

    Raises
    ------
    SourceError
        Naming the id and both eras.
    """
    known = shards.eras
    new = set().union(*counts).difference(known)
    (named, numbered), (new_named, new_numbered) = _by_number(known), _by_number(new)
    if not (named and new_numbered) and not (new_named and (numbered or new_numbered)):
        return
    held = pa.concat_tables([*_of_set(shards, named), *_of_sources(sources, new_named)])
    found = [rows for rows in _of_sources(sources, new_numbered, among=held["id"]) if len(rows)]
    if new_named or found:
        found += [rows for rows in _of_set(shards, numbered, among=held["id"]) if len(rows)]
    if not found:
        return
    rows = pa.concat_tables(found)
    if len(pc.unique(rows["id"])) < len(rows):  # ids that come in several eras
        return
    pairs = rows.join(held, "id", right_suffix="_named", join_type="inner")
    is_new = pc.is_in(pairs["era"], value_set=pa.array(new_numbered, pa.string()))
    is_new = pc.or_(is_new, pc.is_in(pairs["era_named"], pa.array(new_named, pa.string())))
    for pair in pairs.filter(is_new).slice(0, 1).to_pylist():
        source = next(s for s, eras in zip(sources, counts, strict=True) if _has(eras, pair))
        raise source.error(_message(shards, new_named, **pair), column=source.id_name)


def _message(
    shards: ShardSet, new_named: Collection[str], id: str, era: str, era_named: str
) -> str:
    what = f"id {id!r} has era {era!r} and era {era_named!r}, so its row would be there twice"
    if era_named in new_named:
        return f"{what}; leave out the rows of era {era_named!r}"
    return (
        f"{what}: {shards.folder} has era {era_named!r}; leave its file out of the sources, and "
        "write the set again with 'numerai-sequence shard --overwrite'"
    )


def _has(eras: Counter[str], pair: dict[str, str]) -> bool:
    return pair["era"] in eras or pair["era_named"] in eras


def _by_number(eras: Collection[str]) -> tuple[list[str], list[str]]:
    """Return the eras that are no number, and those that are."""
    named = [era for era in eras if era_number(era) is None]
    return named, [era for era in eras if era not in named]


def _of_set(
    shards: ShardSet, eras: Collection[str], among: pa.ChunkedArray | None = None
) -> Iterator[pa.Table]:
    """Yield the ids and eras of the rows of some eras in a set."""
    wanted = frozenset(eras)
    for place, shard in enumerate(shards.manifest.shards):
        for number, batch in enumerate(shard.batches):
            if wanted.intersection(batch.eras):
                rows = shards.batches(place)[number].select(["id", "era"])
                for name in ("id", "era"):  # texts may lead astray
                    check_column(rows, name, batch, shards.paths[place])
                yield _choose(pa.Table.from_batches([rows]), eras, among)


def _of_sources(
    sources: Sequence[Source], eras: Collection[str], among: pa.ChunkedArray | None = None
) -> Iterator[pa.Table]:
    """Yield the same of sources."""
    yield pa.table({"id": pa.array([], pa.string()), "era": pa.array([], pa.string())})
    for source in sources if eras else ():
        for chunk in source.chunks(rows=_CHUNK_ROWS):
            for rows in source.iter_meta(chunk, ()):
                yield _choose(rows.select(["id", "era"]), eras, among)


def _choose(rows: pa.Table, eras: Collection[str], among: pa.ChunkedArray | None) -> pa.Table:
    chosen = pc.is_in(rows["era"], value_set=pa.array(eras, pa.string()))
    if among is not None:
        chosen = pc.and_(chosen, pc.is_in(rows["id"], value_set=among.combine_chunks()))
    return rows.take(pa.array(np.flatnonzero(chosen)))  # copied, so that no map is held
