"""Command sync: create a shard set from Parquet files, or bring it up to date."""

from __future__ import annotations

from typing import Any

import click

from ..refreshing.sync import sync
from . import shared_options as shared
from .printed_set import show_set
from .writing_options import read_writing, writing_options


@click.command()
@writing_options
@shared.dry_run
def command(out: str, ray_address: str | None, quiet: bool, dry_run: bool, **options: Any) -> None:
    """Create a shard set from Parquet files, or bring it up to date.

    Reads each SOURCE, and writes the folder --out. If there is no set, the command creates it.
    Otherwise it adds new eras, fills in new targets and corrects changed ones. After an
    interruption, run the same command again to continue.

    \b
    Example:
      numerai-sequence sync train.parquet validation.parquet --out shards/
    """
    arguments = read_writing(out=out, **options)
    with shared.tasks_at(None if dry_run else ray_address) as executor:
        done = sync(**arguments, progress=not quiet, dry_run=dry_run, executor=executor)
    click.echo(done)
    if dry_run:
        click.echo("nothing is written (--dry-run)")
    else:
        show_set(out)
