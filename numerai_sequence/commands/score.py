"""Command score: show the scores of files of predictions by era."""

from __future__ import annotations

from typing import Any

import click

from ..scoring.score_kinds import EXPOSURE, FNC, names_of
from . import shared_options as shared
from .quiet_command import KerasCommand


@click.command(cls=KerasCommand)
@click.argument("predictions", metavar="PREDICTIONS...", nargs=-1, required=True)
@click.argument("data", metavar="DATA")
@click.option(
    "--target", metavar="NAME", help="Name of the target to score with.  [default: target]"
)
@click.option(
    "--eras",
    metavar="ERAS",
    help="Eras to score, such as 0575-, or -20: for the newest 20.  [default: all eras]",
)
@click.option(
    "--meta-model",
    metavar="FILE",
    help="File of Numerai's meta model, meta_model.parquet, or a column of DATA. Adds "
    f"{names_of('meta_model')}.",
)
@click.option(
    "--benchmarks",
    multiple=True,
    metavar="FILE",
    help="File of benchmark models, such as validation_benchmark_models.parquet, or a column of "
    "DATA; repeatable. Adds "
    f"{names_of('benchmarks')}.",
)
@click.option(
    "--exposure",
    is_flag=True,
    help=f"Add {EXPOSURE.name}: {EXPOSURE.help}.",
)
@click.option(
    "--neutral",
    metavar="NAME",
    help="Features for the feature-neutral correlation: 'all', or the name of a feature set. Adds "
    f"{FNC.name}.",
)
@click.option("--csv", metavar="FILE", help="File for a table of the scores of each era.")
@click.option(
    "--png",
    metavar="FILE",
    help="File for a picture of the cumulative scores, with one line for each model.",
)
@shared.quiet
def command(
    predictions: tuple[str, ...],
    data: str,
    neutral: str | None,
    benchmarks: tuple[str, ...],
    csv: str | None,
    png: str | None,
    quiet: bool,
    **options: Any,
) -> None:
    """Score files of predictions by era, side by side.

    Reads PREDICTIONS: Parquet or CSV files with ids, and a column of numbers for each model, such
    as 'predict' writes. Reads the targets from DATA, a shard set or a Parquet file.

    \b
    Example:
      numerai-sequence score predictions.parquet shards/ --eras 0575- --png scores.png
    """
    for option, path, suffix in ("--csv", csv, ".csv"), ("--png", png, ".png"):
        if path is not None:
            shared.check_file(path, suffix, option=option)
    from ..scoring.score_table import score
    from ..scoring.scores import shown_summary

    table = score(
        list(predictions) if predictions[1:] else predictions[0],
        data,
        benchmarks=list(benchmarks) or None,
        neutral=True if neutral == "all" else neutral,
        csv=csv,
        png=png,
        progress=not quiet,
        **options,
    )
    click.echo(shown_summary(table))
