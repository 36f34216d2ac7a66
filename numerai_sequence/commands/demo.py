"""Demo: the whole way once, from a Parquet file to a trained model and its validation scores."""

from __future__ import annotations

from pathlib import Path

import click

from .. import write_shards
from ..ordering.target_horizon import TARGET
from ..scoring.score_kinds import load_scorer
from ..synthetic import write_parquet
from ..training.fit_runs import train
from ..training.run_options import TrainOptions

_LAYERS = (32,)
# A 20-day target: the purge of a 60-day one leaves little of a small file's eras to train on.
_TARGET = "target_cyrusd_20"


def run_demo(source: Path | None, folder: Path, *, rows: int, features: int, epochs: int) -> None:
    """Shard a Parquet file, train a small network from the shards, and show its scores.

    The network learns ``target_cyrusd_20``, or ``target`` where the file has no such column.

    Parameters
    ----------
    source : path or None
        A Parquet file of Numerai's; None makes one of `rows` rows and `features` features.
    folder : path
        Where the made file, the shard set and the run go.
    epochs : int
    """
    load_scorer()  # rather miss it now than after the sharding
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
