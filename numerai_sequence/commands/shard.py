"""Command shard: write Parquet files as a new shard set."""

from __future__ import annotations

from typing import Any

import click

from ..writing.writer import write
from .printed_set import show_set
from .shared_options import tasks_at
from .writing_options import read_writing, writing_options


@click.command()
@writing_options
def command(out: str, ray_address: str | None, quiet: bool, **options: Any) -> None:
    """Write Parquet files as a new shard set.

    Reads each SOURCE, a Parquet file or a folder of them, and writes the folder --out. If that
    folder has a set of the same files and options, the command only updates its feature sets.

    \b
    Example:
      numerai-sequence shard train.parquet validation.parquet --out shards/
    """
    arguments = read_writing(out=out, **options)
    with tasks_at(ray_address) as executor:
        write(**arguments, progress=not quiet, executor=executor)
    show_set(out)
