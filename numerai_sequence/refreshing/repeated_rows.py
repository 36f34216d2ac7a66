"""Repeated rows: a check that no row is in a set twice, in an era without a number and in one with.

Live rows have the era "X". Later they are validation rows, with the number of the era. If both were
added, the set would have these rows twice. Ids that are in several numbered eras, such as tickers,
are no sign of this.
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
    """Check that no row is both in an era without a number and in an era with one.

    Memory holds the ids of the eras without a number. The other ids are streamed, and are only read
    if there may be such rows.

    Parameters
    ----------
    shards : ShardSet
    sources : sequence of Source
    counts : sequence of Counter
        The rows of each era, for each source.

    Raises
    ------
    SourceError
        There is such a row. The message names the id and both eras.
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
    what = f"id {id!r} has era {era!r} and era {era_named!r}, so the set would have its row twice"
    if era_named in new_named:
        return f"{what}; leave out the rows of era {era_named!r}"
    return (
        f"{what}: {shards.folder} has era {era_named!r}; write the set again with "
        "'numerai-sequence shard --overwrite', without the file of that era"
    )


def _has(eras: Counter[str], pair: dict[str, str]) -> bool:
    return pair["era"] in eras or pair["era_named"] in eras


def _by_number(eras: Collection[str]) -> tuple[list[str], list[str]]:
    """Return the eras without a number, and those with one."""
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
                for name in ("id", "era"):  # damaged texts may point outside of the file
                    check_column(rows, name, batch, shards.paths[place])
                yield _choose(pa.Table.from_batches([rows]), eras, among)


def _of_sources(
    sources: Sequence[Source], eras: Collection[str], among: pa.ChunkedArray | None = None
) -> Iterator[pa.Table]:
    """Yield the same for sources."""
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
