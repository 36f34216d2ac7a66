"""Command: `numerai-sequence`, the package from a shell."""

from __future__ import annotations

import importlib
import io
import sys
import traceback
from typing import Any

import click

from ..errors import NumeraiSequenceError
from ..version import __version__

# The module of each command, in this folder; its `command` is a click command.
COMMANDS = {
    "demo": "demo",
    "export": "export",
    "info": "info",
    "predict": "predict",
    "refresh": "refresh",
    "runs": "runs",
    "score": "score",
    "shard": "shard",
    "sync": "sync",
    "train": "train",
    "verify": "verify",
}


class _Commands(click.Group):
    """A group of commands that shows errors of this package as one line, with exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (NumeraiSequenceError, ValueError) as error:
            if not isinstance(error, NumeraiSequenceError) and not _is_raised_here(error):
                raise
            raise click.ClickException(" ".join(str(error).split())) from error


def _is_raised_here(error: ValueError) -> bool:
    """Return whether this package raised the error, about a value that the user gave."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    ours = __name__.partition(".")[0]
    return str(frame.f_globals.get("__name__")).partition(".")[0] == ours


@click.group(cls=_Commands)
@click.version_option(__version__)
def main() -> None:
    """Train Keras models on all of the Numerai data.

    'shard' writes Parquet files once as a shard set: a folder of memory-mapped files. 'train' feeds
    the set to a network, and 'predict' writes what to upload.

    \b
    Example:
      numerai-sequence shard train.parquet --out shards/
      numerai-sequence train shards/ --out run/
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # a code page of Windows lacks most letters
        sys.stdout.reconfigure(errors="backslashreplace")


for _name, _module in COMMANDS.items():
    main.add_command(importlib.import_module(f".{_module}", __package__).command, _name)
