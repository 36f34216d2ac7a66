"""Newer sources: checks that sources are a newer state of the files that a set was written from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..checks import short
from ..format.layout import Manifest
from ..system.progress import progress_bar
from .record_batches import count_values
from .row_ids import check_eras
from .source_columns import Source

# Remedies: for a source with columns or values that the set cannot take, or for a wrong source.
WRITE_AGAIN = "write the set again with 'numerai-sequence shard --overwrite'"
NOT_THE_SAME = f"{WRITE_AGAIN}, or refresh it from the right file"


def check_newer(
    manifest: Manifest,
    folder: Path,
    sources: Sequence[Source],
    *,
    progress: bool,
) -> list[Counter[str]]:
    """Check that sources can update a set; return the rows of each of their eras.

    Parameters
    ----------
    manifest : Manifest
    folder : path
        Folder of the set, for errors.
    sources : sequence of Source
    progress : bool
        Show progress bars on stderr.

    Raises
    ------
    SourceError
        A source lacks a column of the set, or has one that the set lacks; a row appears twice; or
        an era has more or fewer rows than in the set.
    """
    _check_columns(manifest, sources)
    counts = [count_eras(source, progress) for source in sources]
    _check_rows(manifest.era_rows, folder, sources, counts)
    return counts


def count_eras(source: Source, progress: bool) -> Counter[str]:
    """Return the rows of each era."""
    counts: Counter[str] = Counter()
    with progress_bar(source.rows, f"eras of {source.path.name}", progress) as bar:
        for chunk in source.chunks(rows=1 << 20):
            counts.update(count_values(source.read_eras(chunk)))
            bar.update(chunk.rows)
    return counts


def _check_columns(manifest: Manifest, sources: Sequence[Source]) -> None:
    """Check that sources have the columns of the set, and no others if the set takes all."""
    for source in sources:
        source.check_columns(manifest.features, manifest.targets, WRITE_AGAIN)
        for name, chosen, known, found in (
            ("features", manifest.options.features, manifest.features, source.features),
            ("targets", manifest.options.targets, manifest.targets, source.targets),
        ):
            more = [column for column in found if column not in known]
            if more and chosen is None:  # all were to be written
                raise source.error(
                    f"found {name} that the set lacks, such as {short(more[0])} ({len(more)} in "
                    f"all), expected the columns of the set; {WRITE_AGAIN}",
                    column=more[0],
                )


def _check_rows(
    known: Mapping[str, int],
    folder: Path,
    sources: Sequence[Source],
    counts: Sequence[Counter[str]],
) -> None:
    """Check that each era has as many rows in the sources as in the set, and no row twice."""
    rows = sum(counts, Counter())
    check_eras(sources, counts, known, folder)
    for source, eras in zip(sources, counts, strict=True):
        for era in eras:
            if known.get(era, rows[era]) != rows[era]:
                what = (
                    f"found {rows[era]:,} rows of era {era}, expected {known[era]:,} as in the set"
                )
                raise source.error(f"{what}; {NOT_THE_SAME}", column="era")
