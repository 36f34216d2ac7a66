"""Demo: the whole way once, from a Parquet file to validation scores, saying what it took."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

from . import NumeraiSequence, ShardSet, write_shards
from .errors import NumeraiSequenceError
from .keras_compat import active_keras
from .scoring import load_scorer, score_eras, summarize
from .synthetic import write_parquet

_BATCH_SIZE = 1000
_VALIDATION_SHARE = 0.2
_TARGET = "target"


def run_demo(train: Path | None, folder: Path, *, rows: int, features: int, epochs: int) -> None:
    """Shard a Parquet file, train a small network from the shards, and print its scores.

    Parameters
    ----------
    train : path or None
        A Parquet file of Numerai's; None makes one of `rows` rows and `features` features.
    folder : path
        Where the made file and the shard set go.
    epochs : int
    """
    load_scorer()  # rather miss it now than after the training
    if train is None:
        train = folder / f"synthetic-{rows}x{features}.parquet"
        if not train.exists():
            click.echo(f"Making {rows:,} rows x {features:,} features like Numerai's v5.3")
            write_parquet(train, rows=rows, features=features, progress=True)
    with write_shards(train, folder / "shards") as shards:
        click.echo(f"{shards!r}")
        training, validation = split(shards)
        model, seconds = _fit(training, epochs)
        _print_scores(_score(model, validation))
    _print_cost(training.rows * epochs, seconds)


def split(shards: ShardSet) -> tuple[ShardSet, ShardSet]:
    """Cut a set into training shards and about a fifth of the rows, in the last shards.

    Shards hold whole eras, so no era is in both. Neighbouring eras are, and the targets of real
    eras overlap for weeks: without a purge the scores flatter.
    """
    rows = np.array([shard.rows for shard in shards.manifest.shards])
    after = np.cumsum(rows[::-1])[::-1]  # the rows of a shard and those behind it
    cut = int(np.flatnonzero(after >= _VALIDATION_SHARE * shards.rows)[-1])
    if not rows[:cut].sum():
        raise NumeraiSequenceError(
            f"{shards.folder}: all rows are in one shard; expected eras in at least two"
        )
    return shards[:cut], shards[cut:]


def _fit(shards: ShardSet, epochs: int) -> tuple[Any, float]:
    if np.isnan(shards.column(_TARGET).to_numpy()).any():
        raise NumeraiSequenceError(
            f"{shards.folder}: {_TARGET!r} has missing values; the demo needs a file without, such "
            "as train.parquet"
        )
    keras = active_keras()
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.layers.Input((len(shards.features),)),
            keras.layers.Rescaling(2.0, offset=-1.0),
            keras.layers.Dense(32, activation="relu"),
            # Begin with the mean of the target: what there is to learn is small beside the noise.
            keras.layers.Dense(
                1,
                kernel_initializer="zeros",
                bias_initializer=keras.initializers.Constant(0.5),
            ),
        ]
    )
    model.compile(keras.optimizers.Adam(1e-3), "mse")
    sequence = NumeraiSequence(shards, batch_size=_BATCH_SIZE, target=_TARGET)
    start = time.perf_counter()
    model.fit(sequence, workers=4, epochs=epochs)
    return model, time.perf_counter() - start


def _score(model: Any, shards: ShardSet) -> Any:
    sequence = NumeraiSequence(shards, batch_size=_BATCH_SIZE, target=None, shuffle=False)
    predictions = model.predict(sequence, workers=4).reshape(-1)
    table = score_eras(shards.column("era"), predictions, shards.column(_TARGET).to_numpy())
    return table["corr"]


def _print_scores(scores: Any) -> None:
    click.echo(f"\nValidation correlation (numerai_corr) of {len(scores)} eras")
    for era, score in scores.items():
        click.echo(f"  {era:>6} {score:8.4f}")
    summary = summarize(scores)
    click.echo(f"  mean {summary.mean:.4f}, std {summary.std:.4f}, Sharpe {summary.sharpe:.2f}")


def _print_cost(rows: int, seconds: float) -> None:
    peak = _peak_rss_bytes()
    memory = "" if peak is None else f", peak memory {peak / 1e6:,.0f} MB"
    click.echo(f"\nTrained {rows:,} rows in {seconds:.1f} s: {rows / seconds:,.0f} rows/s{memory}")


def _peak_rss_bytes() -> int | None:
    """Return the most memory that this process has had resident; None where nobody knows."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
