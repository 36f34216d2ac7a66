"""Shared options: the options that several commands have, and the checks of their values."""

from __future__ import annotations

from concurrent.futures import Executor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import click

from ..ordering.batch_units import PREDICT_BY
from ..system.executor_tasks import ray_at

# The same as in `ensemble`, whose module needs pandas.
_ENSEMBLES = ("rank", "gaussian")
_ALL = 1.0

quiet = click.option("--quiet", is_flag=True, help="Show no progress bars.")
dry_run = click.option(
    "--dry-run", is_flag=True, help="Show what the command would do, and write nothing."
)
ray = click.option(
    "--ray",
    "ray_address",
    metavar="ADDRESS",
    help="Address of the Ray cluster that does the work; 'auto' for the cluster that this machine "
    "belongs to, or 'local' to start one here.  [default: no cluster]",
)
batch_by = click.option(
    "--batch-by",
    type=click.Choice(PREDICT_BY),
    help="Unit of a batch: single rows, or whole eras.  [default: 'era' if predictions depend on "
    "the other rows of a batch, otherwise as in training]",
)
output = click.option(
    "--output",
    metavar="NAME",
    help="Name of the output that predicts, for a model of several outputs.  [default: the output "
    "that the run was scored by]",
)
ensemble = click.option(
    "--ensemble",
    "by",
    type=click.Choice(_ENSEMBLES),
    help="Method that combines several runs: the mean of their ranks within each era ('rank'), or "
    "the mean of the normal values of these ranks ('gaussian'). The mean is ranked again.",
)
weights = click.option(
    "--weights",
    metavar="NUMBER,...",
    help="Weights of the runs in the ensemble, in the order of the folders' names; needs "
    "--ensemble.  [default: equal weights]",
)
proportion = click.option(
    "--proportion",
    type=click.FloatRange(0, 1),
    default=_ALL,
    show_default=True,
    help="Share of the linear fit of the features to subtract; needs --neutralize.",
)


def tasks_at(address: str | None) -> AbstractContextManager[Executor | None]:
    """Return a context with the executor of ``--ray``."""
    return nullcontext() if address is None else ray_at(address)


def check_proportion(proportion: float, neutralize: str | None) -> None:
    """Raise a usage error for ``--proportion`` without ``--neutralize``."""
    if proportion != _ALL and neutralize is None:
        raise click.UsageError("--proportion: found it without --neutralize; add --neutralize")


def read_weights(text: str | None, by: str | None) -> list[float] | None:
    """Return the numbers of ``--weights``, which need ``--ensemble``."""
    if text is None:
        return None
    if by is None:
        raise click.UsageError("--weights: found it without --ensemble; add --ensemble")
    try:
        return [float(number) for number in text.split(",")]
    except ValueError:
        raise click.UsageError(
            f"--weights: found {text!r}, expected numbers such as 1,0.5"
        ) from None


def check_file(out: str, *suffixes: str, option: str = "--out") -> None:
    """Check the path of a file before the work starts."""
    path = Path(out)
    if path.suffix not in suffixes:
        raise click.UsageError(
            f"{option}: found {out!r}, expected a file name that ends in {' or '.join(suffixes)}"
        )
    if not path.parent.is_dir():
        raise click.UsageError(f"{option}: found {out!r}, expected a file in an existing folder")
