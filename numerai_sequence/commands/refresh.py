"""Command refresh: bring a shard set up to date with newer Parquet files."""

from __future__ import annotations

import click

from ..checks import file_path, file_paths
from ..format.layout import MISSING_FEATURE
from ..refreshing.refresh import refresh_set
from . import shared_options as shared


@click.command()
@click.argument("folder", metavar="SET")
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True)
@click.option(
    "--missing-feature",
    type=click.Choice(MISSING_FEATURE),
    help="Treatment of missing feature values in new rows: 'error' refuses the file, 'middle' "
    "writes 2, the middle of 0 to 4.  [default: as the set was written]",
)
@shared.dry_run
@shared.quiet
def command(
    folder: str,
    sources: tuple[str, ...],
    missing_feature: str | None,
    dry_run: bool,
    quiet: bool,
) -> None:
    """Bring a shard set up to date with newer Parquet files.

    Reads each SOURCE, and changes the folder SET. The command adds new eras, fills in new targets
    and corrects changed ones. It does not write existing features again. A set that is already
    open does not change.

    \b
    Example:
      numerai-sequence refresh shards/ validation.parquet
    """
    refresh_set(
        file_path("SET", folder, "a shard set's folder"),
        file_paths("SOURCE", sources, "the path of a Parquet file"),
        missing_feature=missing_feature,
        dry_run=dry_run,
        progress=not quiet,
        show=click.echo,
    )
    if dry_run:
        click.echo("nothing is written (--dry-run)")
