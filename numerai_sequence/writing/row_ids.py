"""Row ids: checks that sources spell each era in one way, and have each row of an era once.

The era and the id identify a row. For eras that are in several sources, the ids are compared before
anything is written. Within one source, the ids of a window are compared when it is sealed.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ..checks import short
from ..errors import SourceError
from ..ordering.eras import encode_eras, sort_eras
from .source_columns import Source, open_sources

_ROWS_AT_ONCE = 1 << 20  # of eras that are in several sources
_CHUNK_ROWS = 1 << 20


def check_eras(
    sources: Sequence[Source],
    era_rows: Sequence[Counter[str]],
    known: Iterable[str] = (),
    folder: Path | None = None,
) -> None:
    """Check how sources spell their eras, and that no row is in two of them.

    Parameters
    ----------
    sources : sequence of Source
    era_rows : sequence of Counter
        The rows of each era, for each source.
    known : iterable of str
        Eras of the set that the sources are added to.
    folder : path, optional
        Folder of that set.

    Raises
    ------
    SourceError
        Two eras have the same number, such as "1" and "0001"; or a row is in two sources.
    """
    _check_spellings(sources, era_rows, known, folder)
    for eras in _groups(era_rows):
        counts = [sum(rows[era] for era in eras) for rows in era_rows]
        having = [number for number, count in enumerate(counts) if count]
        check_ids([sources[n] for n in having], eras, [counts[n] for n in having])


def check_ids(
    sources: Sequence[Source], eras: Sequence[str], counts: Sequence[int] | None = None
) -> None:
    """Check that no row of these eras appears twice in the sources. Memory holds their ids.

    Parameters
    ----------
    sources : sequence of Source
    eras : sequence of str
    counts : sequence of int, optional
        The rows of these eras in each source. Reading stops when all of them are found.

    Raises
    ------
    SourceError
        A row appears twice. The message names the files, the rows, the era and the id.
    """
    rows = pa.concat_tables(
        _read_rows(source, number, eras, counts[number] if counts else source.rows)
        for number, source in enumerate(sources)
    )
    found = find_twice(rows)
    if found is not None:
        raise _refused(sources, *(rows.slice(row, 1).to_pylist()[0] for row in found))


def check_window(rows: pa.Table, paths: Sequence[Path]) -> None:
    """Check that no row of a window appears twice.

    Parameters
    ----------
    rows : pyarrow.Table
        Columns ``id`` and ``era``, without nulls.
    paths : sequence of path
        Sources of the rows.

    Raises
    ------
    SourceError
        A row appears twice, as in `check_ids`.
    """
    found = find_twice(rows)
    if found is None:
        return
    era, id_ = (rows[name][found[1]].as_py() for name in ("era", "id"))
    with open_sources(paths) as sources:
        check_ids(sources, [era])  # whose error names the rows of the files
    what = f"found id {short(id_)} of era {_shown(era)} twice, expected it once; run again"
    raise SourceError(f"{paths[0]}: {what}", path=paths[0], column="id")


def find_twice(rows: pa.Table | pa.RecordBatch) -> tuple[int, int] | None:
    """Find the first row that has the era and the id of an earlier row.

    Parameters
    ----------
    rows : pyarrow.Table or pyarrow.RecordBatch
        Columns ``id`` and ``era``, without nulls.

    Returns
    -------
    (int, int) or None
        The earlier row and that row.
    """
    if do_differ(rows["id"]):
        return None
    # Ids that appear in several eras, such as tickers.
    (eras, of_era), (_, of_id) = encode_eras(rows["era"]), encode_eras(rows["id"])
    keys = of_id.astype(np.int64) * len(eras) + of_era
    order = np.argsort(keys, kind="stable")
    again = order[1:][np.diff(keys[order]) == 0]
    if not len(again):
        return None
    row = int(again.min())
    return int(np.argmax(keys == keys[row])), row


def do_differ(ids: pa.Array | pa.ChunkedArray) -> bool:
    """Say whether all strings of a column are different. None of them is null."""
    widths = pc.min_max(pc.binary_length(ids)).as_py()
    if widths["min"] == widths["max"] and widths["min"]:
        # As Numerai's are. Hashes that differ are ten times faster to find than texts.
        chunks = ids.chunks if isinstance(ids, pa.ChunkedArray) else [ids]
        hashes = np.concatenate([_hash(chunk, widths["min"]) for chunk in chunks if len(chunk)])
        hashes.sort()
        if (hashes[1:] != hashes[:-1]).all():
            return True
    return len(pc.unique(ids)) == len(ids)


def _hash(ids: pa.Array, width: int) -> npt.NDArray[np.uint64]:
    """Hash strings of one width, word by word, as FNV-1a does byte by byte."""
    _, offsets, texts = ids.buffers()
    start = int(np.frombuffer(offsets, np.int32)[ids.offset])
    rows = np.frombuffer(texts, np.uint8, len(ids) * width, start).reshape(-1, width)
    words = np.pad(rows, ((0, 0), (0, -width % 8))).view(np.uint64)
    hashes = np.zeros(len(ids), np.uint64)
    for word in words.T:
        hashes = (hashes ^ word) * np.uint64(0x9E3779B97F4A7C15)
        hashes ^= hashes >> np.uint64(32)  # or high bits of a word would reach no low ones
    return hashes


def _check_spellings(
    sources: Sequence[Source],
    era_rows: Sequence[Counter[str]],
    known: Iterable[str],
    folder: Path | None,
) -> None:
    spelled = {_number(era): (era, f"the set {folder}") for era in known}
    for source, rows in zip(sources, era_rows, strict=True):
        for era in sort_eras(rows):
            number = _number(era)
            if number is None:
                continue
            other, place = spelled.setdefault(number, (era, str(source.path)))
            if other != era:
                place = "this file too" if place == str(source.path) else place
                raise source.error(
                    f"found era {short(era)}, which is era {short(other)} in {place}; "
                    "expected one spelling of an era; write this file again with the other one",
                    column="era",
                )


def _number(era: str) -> int | None:
    """Return the number of an era in any spelling, such as 1.0, Era 1 or with spaces."""
    match = re.fullmatch(r"\s*(?:era[\s_-]*)?\+?(\d{1,100})(?:\.0*)?\s*", era, re.IGNORECASE)
    return int(match[1]) if match else None


def _groups(era_rows: Sequence[Counter[str]]) -> Iterator[list[str]]:
    """Yield groups of the eras that are in several sources, in the order of time."""
    sources_of = Counter(era for rows in era_rows for era in rows)
    group: list[str] = []
    held = 0
    for era in sort_eras(era for era, count in sources_of.items() if count > 1):
        count = sum(rows[era] for rows in era_rows)
        if group and held + count > _ROWS_AT_ONCE:
            yield group
            group, held = [], 0
        group.append(era)
        held += count
    if group:
        yield group


def _read_rows(source: Source, number: int, eras: Sequence[str], left: int) -> pa.Table:
    """Read `left` ids of some eras, each with the source's number and the row in it."""
    tables, wanted = [], pa.array(eras, pa.string())
    for chunk in source.chunks(rows=_CHUNK_ROWS):
        first_row = chunk.first_row
        for rows in source.iter_meta(chunk, ()):
            places = np.flatnonzero(pc.is_in(rows["era"], value_set=wanted))
            columns = [*rows.select(["id", "era"]).take(places).columns]
            columns += [pa.array(np.full(len(places), number)), pa.array(first_row + places)]
            tables.append(pa.table(columns, names=["id", "era", "source", "row"]))
            first_row += rows.num_rows
            left -= len(places)
            if not left:  # long before the end, where the eras are in order
                return pa.concat_tables(tables)
    return pa.concat_tables(tables)


def _refused(
    sources: Sequence[Source], first: dict[str, Any], second: dict[str, Any]
) -> SourceError:
    """Return the error of two rows with the same era and id."""
    one, other = (sources[int(row["source"])] for row in (first, second))
    id_, era = short(second["id"]), _shown(second["era"])
    if one is other:
        what = f"found id {id_} of era {era} again, which is in row {first['row']} too"
        what += "; expected each id once in an era; remove one of the rows"
    elif os.path.samestat(one.file.status, other.file.status):
        what = f"found id {id_} of era {era} again: the same file as {one.path}; name it once"
    else:
        what = f"found id {id_} again: era {era} is also in {one.path}, with this id in row "
        what += f"{first['row']}; expected each row in one file; leave one of the files out"
    return other.error(what, column=other.id_name, row=second["row"])


def _shown(era: str) -> str:
    return era if re.fullmatch(r"\w{1,20}", era) else short(era)
