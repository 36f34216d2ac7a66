"""Command demo: write a Parquet file as a shard set, train on it, and show the scores."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path

import click

from ..ordering.target_horizon import TARGET
from ..system.files import explained
from ..training.run_options import TrainOptions
from ..writing.write_shards import write_shards
from .quiet_command import KerasCommand

_LAYERS = (32,)
# A 20-day target: the purge of a 60-day one leaves little of a small file's eras to train on.
_TARGET = "target_cyrusd_20"


@click.command(cls=KerasCommand)
@click.option(
    "--train",
    metavar="FILE",
    help="Numerai Parquet file to train on.  [default: a made-up file]",
)
@click.option(
    "--rows",
    type=click.IntRange(min=100),
    default=100_000,
    show_default=True,
    help="Number of rows of the made-up file.",
)
@click.option(
    "--features",
    type=click.IntRange(min=1, max=100_000),
    default=3_555,
    show_default=True,
    help="Number of features of the made-up file.",
)
@click.option(
    "--epochs",
    type=click.IntRange(min=1),
    default=2,
    show_default=True,
    help="Number of training epochs.",
)
@click.option(
    "--out",
    metavar="DIR",
    help="Folder that keeps the shard set, the run and the made-up file.  [default: a temporary "
    "folder]",
)
def command(train: str | None, out: str | None, rows: int, features: int, epochs: int) -> None:
    """Try sharding, training and scoring on one Parquet file.

    Writes the file as a shard set, trains a small network on it, and prints its scores. Without
    --train, the command makes up a file with the columns and era sizes of v5.3, and with a weak
    signal to learn.

    \b
    Example:
      numerai-sequence demo --rows 10000 --features 100
    """
    with ExitStack() as stack:
        with explained(out or tempfile.gettempdir()):
            # After an error its files may be open. Windows cannot delete open files.
            made = out or stack.enter_context(
                tempfile.TemporaryDirectory(prefix="numerai-", ignore_cleanup_errors=True)
            )
            folder = Path(made)
            folder.mkdir(parents=True, exist_ok=True)
        source = Path(train) if train else None
        _run_demo(source, folder, rows=rows, features=features, epochs=epochs)
    click.echo(
        f"\nThe files are in {out}" if out else "\nThe files are deleted; --out DIR keeps them"
    )


def _run_demo(source: Path | None, folder: Path, *, rows: int, features: int, epochs: int) -> None:
    """Shard a Parquet file, train a small network from the shards, and show its scores.

    The network learns ``target_cyrusd_20``, or ``target`` if the file has no such column.

    Parameters
    ----------
    source : path or None
        A Numerai Parquet file; None makes one with `rows` rows and `features` features.
    folder : path
        Folder for the made-up file, the shard set and the run.
    epochs : int
        Number of training epochs.
    """
    from ..scoring.score_kinds import load_scorer
    from ..synthetic import write_parquet
    from ..training.scored_runs import train

    load_scorer()  # fail now if it is missing, and not after the sharding
    if source is None:
        source = folder / f"synthetic-{rows}x{features}.parquet"
        if not source.exists():
            click.echo(f"Making {rows:,} rows x {features:,} features like Numerai's v5.3")
            write_parquet(source, rows=rows, features=features, progress=True)
    with write_shards(source, folder / "shards") as shards:
        click.echo(f"{shards!r}")
        target = _TARGET if _TARGET in shards.targets else TARGET
        options = TrainOptions(targets=(target,), epochs=epochs, layers=_LAYERS)
        table = train(shards, folder / "run", options, overwrite=True, progress=True)
    assert table is not None  # it is validated
    for era, score in table["corr"].items():
        click.echo(f"  {era:>6} {score:8.4f}")
