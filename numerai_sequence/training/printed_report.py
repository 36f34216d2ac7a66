"""Printed report: the lines that training prints: the purge, the eras, the speed, the scores."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from ..feeding.sequence import NumeraiSequence
from ..ordering.splits import Split
from ..scoring.score_kinds import CORR
from ..scoring.scores import shown_summary, summarize_score

if TYPE_CHECKING:
    import pandas as pd


def show_purge(purge: int, why: str) -> None:
    """Print how many eras are purged, and why."""
    click.echo(f"purge {purge}: {why}")


def show_split(
    split: Split, training: NumeraiSequence, validation: NumeraiSequence | None, purge: int
) -> None:
    """Print the training rows and the validation rows; a final run has no validation."""
    asked = [("Training", training, split.train, "")]
    if validation is not None:
        between = f", {purge} eras purged between them"
        asked.append(("Validation", validation, split.validation, between))
    for name, sequence, wanted, more in asked:
        eras = sequence.eras
        click.echo(f"{name} on {sequence.rows:,} rows of {describe_eras(eras)}{more}")
        if len(wanted) > len(eras):
            left_out = describe_eras(sorted({*wanted} - {*eras}))
            click.echo(f"{name} leaves out {left_out}: no target yet")


def show_scores(table: pd.DataFrame) -> None:
    """Print the summary of a table of scores."""
    click.echo(f"Validation correlation (numerai_corr), {describe_eras(list(table.index))}:")
    if table.columns.nlevels > 1:
        click.echo(shown_summary(table).partition("\n")[2])
        return
    summary = summarize_score(table[CORR.name])
    click.echo(
        f"  mean {summary.mean:.4f}, std {summary.std:.4f}, Sharpe {summary.sharpe:.2f}, "
        f"max drawdown {summary.max_drawdown:.4f}"
    )


def describe_eras(eras: Sequence[str]) -> str:
    """Return the number of eras, the first and the last."""
    return f"1 era, {eras[0]}" if len(eras) == 1 else f"{len(eras):,} eras, {eras[0]} to {eras[-1]}"


def show_cost(rows: int, seconds: float) -> None:
    """Print the speed of training, and the peak memory."""
    peak = _peak_rss_bytes()
    memory = "" if peak is None else f", peak memory {peak / 1e6:,.0f} MB"
    click.echo(f"Trained {rows:,} rows in {seconds:.1f} s: {rows / seconds:,.0f} rows/s{memory}")


def _peak_rss_bytes() -> int | None:
    """Return the peak resident memory of this process; None if the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
