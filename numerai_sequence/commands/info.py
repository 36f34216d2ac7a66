"""Command info: from a shard set to what is in it."""

from __future__ import annotations

import click

from .set_description import show_set


@click.command()
@click.argument("folder", metavar="DIR")
def command(folder: str) -> None:
    """Show what is in a shard set.

    Reads the set in the folder DIR, and prints its rows, features, targets, eras and files.

    \b
    Example:
      numerai-sequence info shards/
    """
    show_set(folder)
