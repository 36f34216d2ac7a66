"""Command runs: list the runs in folders, and draw their scores."""

from __future__ import annotations

from pathlib import Path

import click

from ..checks import file_paths
from ..errors import NumeraiSequenceError
from .quiet_command import KerasCommand
from .shared_options import check_file


@click.command(cls=KerasCommand)
@click.argument("folders", metavar="FOLDER...", nargs=-1, required=True)
@click.option(
    "--sort",
    type=click.Choice(["mean", "sharpe"]),
    help="Statistic of the correlation that orders the runs, best first.  [default: newest first]",
)
@click.option(
    "--png",
    metavar="FILE",
    help="File for a picture of the cumulative scores, with one line for each run.",
)
def command(folders: tuple[str, ...], sort: str | None, png: str | None) -> None:
    """List runs with their scores, newest first.

    Reads the runs in each FOLDER, and in the folders inside it.

    \b
    Example:
      numerai-sequence runs run/ walk/ --png runs.png
    """
    paths = [Path(path) for path in file_paths("FOLDER", folders, "a folder", NumeraiSequenceError)]
    if png is not None:
        check_file(png, ".png", option="--png")
    from ..training.run_listing import describe_runs, draw_runs, list_runs, unfinished_runs

    listed = list_runs(paths, by=sort)
    for line in describe_runs(listed):
        click.echo(line)
    for folder in unfinished_runs(paths):
        click.echo(f"{folder}: not finished; run the same command again to continue")
    if png is not None:
        draw_runs(listed, png)
        click.echo(f"Cumulative scores: {png}")
