"""Command verify: compare the files of a shard set with their checksums."""

from __future__ import annotations

import click

from ..reading.set_opener import open_shards
from . import shared_options as shared


@click.command()
@click.argument("folder", metavar="DIR")
@shared.quiet
def command(folder: str, quiet: bool) -> None:
    """Compare every byte of a shard set with its checksums.

    Reads all files of the set in the folder DIR. If a file has changed, the error names it.

    \b
    Example:
      numerai-sequence verify shards/
    """
    with open_shards(folder) as shards:
        shards.verify(progress=not quiet)
        click.echo(f"{folder}: {len(shards)} shard files match their checksums")
