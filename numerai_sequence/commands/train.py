"""Command train: train networks on a shard set, and score them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..format.encoding import PACKED
from ..reading.set_opener import open_shards
from ..training.run_options import TrainOptions
from . import shared_options as shared
from .quiet_command import KerasCommand
from .training_options import check_training, read_training, training_options


@click.command(cls=KerasCommand)
@click.argument("folder", metavar="SHARDS")
@click.option(
    "--out",
    default="run",
    show_default=True,
    metavar="DIR",
    help="Folder of the run.",
)
@training_options
@click.option("--overwrite", is_flag=True, help="Replace an existing run in the folder.")
@shared.ray
@shared.quiet
@click.pass_context
def command(
    context: click.Context,
    /,
    folder: str,
    out: str,
    overwrite: bool,
    ray_address: str | None,
    quiet: bool,
    each_target: bool,
    final: str | None,
    start: str | None,
    seeds: int | None,
    resident: bool | None,
    **options: Any,
) -> None:
    """Train a network on a shard set, and score it era by era.

    Reads the folder SHARDS. Writes the folder --out: the model (model.keras), its scores
    (scores.csv, scores.png) and the options of the run (run.json).

    Several models (--seeds, --each-target, --step) get a folder each in --out, and are also scored
    as an ensemble of ranks. Finished runs are skipped: run an interrupted command again to
    continue.

    \b
    Example:
      numerai-sequence train shards/ --features medium --out run/
    """
    dtype = options["dtype"]
    options = read_training(options)
    given = {name for name in context.params if _is_given(context, name)}
    if dtype == PACKED:
        given.discard("dtype")
    check_training(options, given, final=final, start=start)
    from ..training.device_feed import Feed
    from ..training.one_run import Fitter
    from ..training.planned_runs import plan_runs, variants_in, variants_of
    from ..training.scored_runs import train_runs

    followed = final or (start if not given & {"targets", "seed", "seeds", "each_target"} else None)
    if followed is not None:
        changes = {name: options[name] for name in options if name in given}
        variants = variants_in(Path(followed), is_final=final is not None, **changes)
    else:
        numbers = range(options["seed"], options["seed"] + (seeds or 1))
        variants = variants_of(TrainOptions(**options), numbers, each_target=each_target)
    with open_shards(folder) as shards, shared.tasks_at(ray_address) as executor:
        path = Path(out) if executor is None else Path(out).absolute()
        planned = plan_runs(shards, path, variants, None if start is None else Path(start))
        if ray_address is not None and len(planned) == 1:
            raise click.UsageError(
                "--ray: found only one run, expected several; add --step, --seeds or --each-target"
            )
        feed = Feed.of(dtype, resident)
        fitter = Fitter(shards, overwrite, progress=not quiet, feed=feed)
        train_runs(fitter, planned, path, executor=executor)
    click.echo(f"Files in {out}: {', '.join(sorted(path.name for path in Path(out).iterdir()))}")


def _is_given(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT
