"""Command predict: write a file of predictions of a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from . import shared_options as shared
from .quiet_command import KerasCommand


@click.command(cls=KerasCommand)
@click.argument("model", metavar="MODEL")
@click.argument("data", metavar="DATA")
@click.option(
    "--out",
    required=True,
    metavar="FILE",
    help="File of the predictions, with the suffix .csv or .parquet.",
)
@click.option(
    "--rank",
    "ranked",
    is_flag=True,
    help="Rank the predictions within each era, from 0 to 1. Numerai refuses values outside.",
)
@click.option(
    "--features",
    metavar="NAME",
    help="Name of the feature set of DATA that the model receives.  [default: the features that "
    "MODEL was trained on; all features if it does not say]",
)
@click.option("--eras", metavar="ERAS", help="Eras of a shard set to predict.  [default: all eras]")
@shared.ensemble
@shared.weights
@click.option(
    "--neutralize",
    metavar="NAME",
    help="Features to neutralize the predictions to: 'all', or the name of a feature set of DATA. "
    "A Parquet file takes its feature sets from the features.json beside it. The predictions are "
    "ranked again.",
)
@shared.proportion
@shared.output
@shared.batch_by
@shared.quiet
def command(
    model: str,
    data: str,
    out: str,
    ranked: bool,
    by: str | None,
    weights: str | None,
    proportion: float,
    quiet: bool,
    **options: Any,
) -> None:
    """Predict each row of a shard set or a Parquet file.

    Reads MODEL: the folder of one or several runs, or a file that Keras saved. Both hold the names
    of the training features. Reads the rows of DATA, such as live.parquet. Writes the file --out,
    which you can upload with numerapi.

    \b
    Example:
      numerai-sequence predict run/ live.parquet --rank --out predictions.csv
    """
    shared.check_file(out, ".csv", ".parquet")
    shares = shared.read_weights(weights, by)
    shared.check_proportion(proportion, options["neutralize"])
    from ..training.run_predictions import predict_file

    rows = predict_file(
        Path(model),
        data,
        Path(out),
        ranked=ranked,
        by=by,
        weights=shares,
        proportion=proportion,
        progress=not quiet,
        **options,
    )
    click.echo(f"{out}: {rows:,} rows")
