"""Command export: write the predict function of trained models for Numerai's model upload."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from . import shared_options as shared
from .quiet_command import KerasCommand


@click.command(cls=KerasCommand)
@click.argument("model", metavar="RUN")
@click.option(
    "--out",
    required=True,
    metavar="FILE",
    help="File of the predict function, with the suffix .pkl.",
)
@shared.ensemble
@shared.weights
@click.option(
    "--neutralize",
    metavar="NAME",
    help="Features to neutralize the predictions to: 'all', or the name of a feature set of "
    "--features-json. Without that file, 'all' means all features that the models take.",
)
@shared.proportion
@click.option(
    "--features-json", metavar="FILE", help="File with Numerai's feature sets, for --neutralize."
)
@shared.output
@shared.batch_by
def command(
    model: str, out: str, by: str | None, weights: str | None, proportion: float, **options: Any
) -> None:
    """Write the predict function of a model for Numerai's model upload.

    Reads RUN: the folder of one or several runs, or a file that Keras saved of a model trained on a
    NumeraiSequence. Several runs become an ensemble of ranks. Writes the function to the file
    --out.

    \b
    Example:
      numerai-sequence export run/ --out predict.pkl
    """
    shared.check_file(out, ".pkl")
    shares = shared.read_weights(weights, by)
    shared.check_proportion(proportion, options["neutralize"])
    from ..training.run_predictions import export_run, exported_for

    said = export_run(
        Path(model), Path(out), by=by, weights=shares, proportion=proportion, **options
    )
    click.echo(said)
    click.echo(f"{out}: {exported_for()}")
