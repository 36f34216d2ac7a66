"""Command info: show the content of a shard set."""

from __future__ import annotations

import click

from .printed_set import show_set


@click.command()
@click.argument("folder", metavar="DIR")
def command(folder: str) -> None:
    """Show the content of a shard set.

    Reads the set in the folder DIR, and prints its rows, features, targets, eras and files.

    \b
    Example:
      numerai-sequence info shards/
    """
    show_set(folder)
