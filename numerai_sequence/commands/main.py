"""Command: `numerai-sequence`, the package from a shell."""

from __future__ import annotations

import io
import sys
import tempfile
import traceback
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import Any

import click

from .. import ShardSet, __version__, open_shards
from ..batching.read_plan import BATCH_BY
from ..batching.targets import POLICIES
from ..checks import file_path, file_paths
from ..errors import NumeraiSequenceError
from ..format.encoding import DTYPES, ENCODINGS, PACKED
from ..format.layout import MISSING_FEATURE
from ..ordering.splits import is_ambiguous
from ..ordering.target_horizon import TARGET, describe_alias
from ..reading.memory_budget import decide, parse_bytes
from ..refreshing.refresh import refresh_set
from ..refreshing.sync import sync
from ..system.files import explained
from ..system.log_lines import without_logs
from ..system.tasks import ray_at
from ..training.network import LOSSES
from ..writing.write_arguments import writer_arguments
from ..writing.writer import write

_QUIET = click.option("--quiet", is_flag=True, help="Show no progress bars.")
_RAY = click.option(
    "--ray",
    "ray_address",
    metavar="ADDRESS",
    help="Do it on the machines of a Ray cluster: its address, auto, or local to start one here.",
)
_BATCH_BY = click.option(
    "--batch-by",
    type=click.Choice(BATCH_BY),
    help="Run the model on batches of rows, or on whole eras.  [default: as it was trained; era "
    "where its predictions depend on the other rows of a batch]",
)


# The options of shard and sync, in this order.
_WRITING = (
    click.argument("sources", metavar="SOURCE...", nargs=-1, required=True),
    click.option("--out", required=True, metavar="DIR", help="The folder to write the set to."),
    click.option(
        "--num-shards",
        type=click.IntRange(min=1),
        default=16,
        show_default=True,
        help="Shard files; era e goes to shard e mod this.",
    ),
    click.option(
        "--encoding",
        type=click.Choice(ENCODINGS),
        default="packed",
        show_default=True,
        help="Three features a byte, or one.",
    ),
    click.option(
        "--mix-eras",
        type=click.IntRange(min=1),
        default=None,
        help="Eras whose rows are mixed with each other.  [default: as many as fit into 256 MB]",
    ),
    click.option(
        "--feature", "features", multiple=True, help="Write this feature only; repeatable."
    ),
    click.option("--features", "feature_set", metavar="NAME", help="Write this feature set only."),
    click.option(
        "--features-json",
        metavar="FILE",
        help="Numerai's feature sets.  [default: features.json beside the first source]",
    ),
    click.option(
        "--target",
        "targets",
        multiple=True,
        help="Write this target, or column of other numbers, only; repeatable.",
    ),
    click.option(
        "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the mixing."
    ),
    click.option(
        "--missing-feature",
        type=click.Choice(MISSING_FEATURE),
        default="error",
        show_default=True,
        help="A feature value that is missing: refuse the file, or write the middle, 2 of 0 to 4.",
    ),
    click.option("--overwrite", is_flag=True, help="Replace what is in the folder."),
    _RAY,
    _QUIET,
)


def _writing(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the arguments of `write_shards`."""
    for option in reversed(_WRITING):
        command = option(command)
    return command


_OUTPUT = click.option(
    "--output",
    metavar="NAME",
    help="Output of a model of several.  [default: the one that the run was scored by]",
)


_ENSEMBLE = click.option(
    "--ensemble",
    "by",
    type=click.Choice(["rank", "gaussian"]),
    help="Of a folder of several runs: the mean of their ranks within each era, or of the normal "
    "values of these, ranked again.",
)
_PROPORTION = click.option(
    "--proportion",
    type=click.FloatRange(0, 1),
    default=1.0,
    show_default=True,
    help="With --neutralize: how much of it to take out.",
)
_WEIGHTS = click.option(
    "--weights",
    metavar="NUMBER,...",
    help="With --ensemble: one a run, in the order of the folders' names.  [default: equal]",
)


class _Commands(click.Group):
    """Turns our errors, and no others, into one line on stderr and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (NumeraiSequenceError, ValueError) as error:
            if not isinstance(error, NumeraiSequenceError) and not _is_raised_here(error):
                raise
            raise click.ClickException(" ".join(str(error).split())) from error


def _is_raised_here(error: ValueError) -> bool:
    """Say whether an error is about a value that was given, raised by this package itself."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return str(frame.f_globals.get("__name__")).partition(".")[0] == __package__


@click.group(cls=_Commands)
@click.version_option(__version__)
def main() -> None:
    """Train Keras models on all of the Numerai data.

    Parquet files are turned once into a folder of memory-mapped shard files, which
    numerai_sequence.NumeraiSequence feeds to model.fit.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # a code page of Windows lacks most letters
        sys.stdout.reconfigure(errors="backslashreplace")


@main.command()
@_writing
def shard(out: str, ray_address: str | None, quiet: bool, **options: Any) -> None:
    """Write one shard set from one or more Parquet files.

    A set that was written from the same files with the same options is left as it is, but that it
    learns of feature sets that are new.
    """
    arguments = _writer_arguments(out=out, **options)
    with _tasks_at(ray_address) as executor:
        write(**arguments, progress=not quiet, executor=executor)
    _echo_set(out)


@main.command("sync")
@_writing
@click.option("--dry-run", is_flag=True, help="Only show what would be done.")
def sync_command(
    out: str, ray_address: str | None, quiet: bool, dry_run: bool, **options: Any
) -> None:
    """Create a shard set from Parquet files, or bring it up to date.

    Give the same command every time: it writes the set where there is none, and otherwise adds new
    eras, fills in targets and corrects those that have changed. It says which. After an
    interruption, the same command continues.
    """
    arguments = _writer_arguments(out=out, **options)
    with _tasks_at(None if dry_run else ray_address) as executor:
        done = sync(**arguments, progress=not quiet, dry_run=dry_run, executor=executor)
    click.echo(done)
    if dry_run:
        click.echo("nothing is written (--dry-run)")
    else:
        _echo_set(out)


@main.command()
@click.argument("folder", metavar="SET")
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True)
@click.option(
    "--missing-feature",
    type=click.Choice(MISSING_FEATURE),
    help="As of shard, for the rows that are added.  [default: as the set was written]",
)
@click.option("--dry-run", is_flag=True, help="Only show what would be done.")
@_QUIET
def refresh(
    folder: str,
    sources: tuple[str, ...],
    missing_feature: str | None,
    dry_run: bool,
    quiet: bool,
) -> None:
    """Bring a shard set up to date with newer Parquet files.

    Nothing that is there is written again: adds the rows of eras that it lacks, fills in targets
    that have come since, and corrects those that have changed. What has opened the set before keeps
    what was there.
    """
    refresh_set(
        file_path("SET", folder, "a shard set's folder"),
        file_paths("SOURCE", sources, "the path of a Parquet file"),
        missing_feature=missing_feature,
        dry_run=dry_run,
        progress=not quiet,
        show=click.echo,
    )
    if dry_run:
        click.echo("nothing is written (--dry-run)")


@main.command()
@click.argument("folder", metavar="DIR")
def info(folder: str) -> None:
    """Show what is in a shard set."""
    with open_shards(folder) as shards:
        click.echo(_describe(shards))


@main.command()
@click.argument("folder", metavar="DIR")
@click.option("--quiet", is_flag=True, help="Show no progress bar.")
def verify(folder: str, quiet: bool) -> None:
    """Compare every byte of a shard set with its checksums."""
    with open_shards(folder) as shards:
        shards.verify(progress=not quiet)
        click.echo(f"{folder}: {len(shards)} shard files are as they were written")


@main.command()
@click.argument("folder", metavar="SHARDS")
@click.option(
    "--out",
    default="run",
    show_default=True,
    metavar="DIR",
    help="The folder to write the run to.",
)
@click.option("--features", metavar="NAME", help="A feature set.  [default: all features]")
@click.option(
    "--target",
    "targets",
    multiple=True,
    default=("target",),
    show_default=True,
    help="What to predict; repeatable: the first one is scored.",
)
@click.option(
    "--each-target",
    is_flag=True,
    help="Train one model a target, instead of one model with an output for each.",
)
@click.option(
    "--final",
    metavar="RUN",
    help="Train what RUN was asked on all eras that have the target, for as many epochs as were "
    "best there. RUN may be a folder of several runs.",
)
@click.option(
    "--from",
    "start",
    metavar="RUN",
    help="Start from the weights of RUN, with its options unless others are given. RUN may be a "
    "folder of several runs.",
)
@click.option(
    "--eras",
    metavar="ERAS",
    help="Such as 0001-0574, 0575-, ::4, with commas between.  [default: all that have a number]",
)
@click.option(
    "--validation",
    default="0.2",
    show_default=True,
    metavar="SHARE|ERAS",
    help="Share of the newest eras to validate on, such as 0.2, or eras, such as 0575- or -20: for "
    "the newest 20.",
)
@click.option(
    "--purge",
    type=click.IntRange(min=0),
    help="Eras between training and validation.  [default: 8 where every target is a 20-day "
    "target, or is 'target' and equals one; else 16]",
)
@click.option(
    "--step",
    type=click.IntRange(min=1),
    help="Walk forward: train anew for so many eras at a time, on those before them.",
)
@click.option(
    "--window",
    type=click.IntRange(min=1),
    help="With --step: eras to train on.  [default: all before]",
)
@click.option(
    "--missing-target",
    type=click.Choice(POLICIES),
    default="drop",
    show_default=True,
    help="Rows without a target: refuse to train, leave them out, or give them no weight.",
)
@click.option(
    "--epochs", type=click.IntRange(min=1), default=10, show_default=True, help="At most."
)
@click.option(
    "--patience",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="Stop after so many epochs without a better score; the best one's weights are kept.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    help="Rows; eras with --loss pearson and rank.  [default: 1000; 1]",
)
@click.option(
    "--layers",
    default="256,64",
    show_default=True,
    metavar="UNITS,...",
    help="Units of the hidden layers.",
)
@click.option(
    "--dropout",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.1,
    show_default=True,
    help="After each hidden layer.",
)
@click.option(
    "--learning-rate",
    type=click.FloatRange(0, min_open=True),
    default=1e-3,
    show_default=True,
    help="Of Adam.",
)
@click.option(
    "--loss",
    type=click.Choice(LOSSES),
    default="mse",
    show_default=True,
    help="The latter two are 1 - the correlation of each era.",
)
@click.option(
    "--monitor",
    type=click.Choice(["val_corr_mean", "val_corr_sharpe"]),
    default="val_corr_mean",
    show_default=True,
    help="The score by which an epoch is better than another.",
)
@click.option(
    "--dtype",
    type=click.Choice([*DTYPES, PACKED]),
    help="Type of the features that the model receives. packed: float32, which the device unpacks. "
    "[default: packed with an accelerator, otherwise float32]",
)
@click.option(
    "--resident/--no-resident",
    default=None,
    help="Keep packed rows in the memory of the device. [default: where they fit into that of an "
    "accelerator]",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Seed for the weights, the order of rows and dropout.",
)
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    help="Train this many models, with seeds from --seed on.  [default: 1]",
)
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    help="Threads that read batches.",
)
@click.option(
    "--memory-budget",
    default="auto",
    show_default=True,
    metavar="SIZE",
    callback=lambda ctx, parameter, size: _size(size),
    help="What reading may keep in memory, such as 512MB.",
)
@click.option(
    "--verify",
    is_flag=True,
    help="Compare every byte of the set with its checksums during the first epoch.",
)
@click.option("--overwrite", is_flag=True, help="Replace the run that is in the folder.")
@_RAY
@_QUIET
@click.pass_context
def train(
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

    Leaves in the folder: model.keras, the scores as scores.csv and scores.png, and run.json, which
    says what they were made from. Several models (--seeds, --each-target, --step) are folders in
    it, and are also scored as an ensemble of ranks. Finished runs are skipped, so an interrupted
    command continues.
    """
    _check_once("--target", options["targets"])
    options["validation"] = _share_or_eras(options["validation"])
    options["layers"] = _whole_numbers("--layers", options["layers"])
    given = {name for name in context.params if _is_given(context, name)}
    dtype = options["dtype"]
    if dtype == PACKED:  # the network, and so the run, is that of float32
        given.discard("dtype")
    options["dtype"] = "float32" if dtype in (None, PACKED) else dtype
    _check_train(options, given, final=final, start=start)
    _before_tensorflow()
    from ..training.device_feed import Feed
    from ..training.fit_runs import train_runs
    from ..training.one_run import Fitter
    from ..training.planned_runs import plan_runs, variants_in, variants_of
    from ..training.run_options import TrainOptions

    followed = final or (start if not given & {"targets", "seed", "seeds", "each_target"} else None)
    if followed is not None:
        changes = {name: options[name] for name in options if name in given}
        variants = variants_in(Path(followed), is_final=final is not None, **changes)
    else:
        numbers = range(options["seed"], options["seed"] + (seeds or 1))
        variants = variants_of(TrainOptions(**options), numbers, each_target=each_target)
    with open_shards(folder) as shards, _tasks_at(ray_address) as executor:
        path = Path(out) if executor is None else Path(out).absolute()
        planned = plan_runs(shards, path, variants, None if start is None else Path(start))
        if ray_address is not None and len(planned) == 1:
            raise click.UsageError(
                "--ray: found one run, expected --step, --seeds or --each-target with it: it "
                "trains many runs at a time"
            )
        feed = Feed.of(dtype, resident)
        fitter = Fitter(shards, overwrite, progress=not quiet, feed=feed)
        train_runs(fitter, planned, path, executor=executor)
    click.echo(f"In {out}: {', '.join(sorted(path.name for path in Path(out).iterdir()))}")


# What may be given beside --final, whose run decides the rest.
_BESIDE_FINAL = {"epochs", "eras", "workers", "memory_budget", "verify", "resident"}


def _is_given(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT


def _check_train(
    options: dict[str, Any], given: set[str], *, final: str | None, start: str | None
) -> None:
    """Raise a usage error where options contradict each other."""
    if options["window"] is not None and options["step"] is None:
        raise click.UsageError("--window: expected --step with it")
    if final is None:
        return
    may = _BESIDE_FINAL | ({"learning_rate"} if start is not None else set())
    wrong = sorted(given & {*options, "seeds", "each_target"} - may)
    if wrong:
        name = {"targets": "target"}.get(wrong[0], wrong[0]).replace("_", "-")
        raise click.UsageError(f"--{name}: found one with --final, whose run decides it")


@main.command()
@click.argument("folders", metavar="FOLDER...", nargs=-1, required=True)
@click.option(
    "--sort",
    type=click.Choice(["mean", "sharpe"]),
    help="Show the best first, by this statistic of the correlation.  [default: newest first]",
)
@click.option("--png", metavar="FILE", help="Draw the cumulative scores, a line a run.")
def runs(folders: tuple[str, ...], sort: str | None, png: str | None) -> None:
    """List the runs in folders with their scores, newest first."""
    paths = [Path(path) for path in file_paths("FOLDER", folders, "a folder", NumeraiSequenceError)]
    if png is not None:
        _check_out(png, ".png", option="--png")
    _before_tensorflow()
    from ..training.run_listing import describe_runs, draw_runs, list_runs, unfinished_runs

    listed = list_runs(paths, by=sort)
    for line in describe_runs(listed):
        click.echo(line)
    for folder in unfinished_runs(paths):
        click.echo(f"{folder}: not finished; the same command continues")
    if png is not None:
        draw_runs(listed, png)
        click.echo(f"In {png}: the cumulative scores")


@main.command()
@click.argument("model", metavar="MODEL")
@click.argument("data", metavar="DATA")
@click.option("--out", required=True, metavar="FILE", help="predictions.csv, or .parquet.")
@click.option(
    "--rank",
    "ranked",
    is_flag=True,
    help="Rank within each era, as 0..1. Numerai refuses what is outside.",
)
@click.option(
    "--features",
    metavar="NAME",
    help="A feature set of DATA.  [default: what MODEL was trained on; all, if it does not say]",
)
@click.option("--eras", metavar="ERAS", help="Of a shard set.  [default: all]")
@_ENSEMBLE
@_WEIGHTS
@click.option(
    "--neutralize",
    metavar="NAME",
    help="Take out what these features explain, and rank again: a feature set of SHARDS, or of the "
    "features.json beside a Parquet file; or all.",
)
@_PROPORTION
@_OUTPUT
@_BATCH_BY
@_QUIET
def predict(
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
    """Predict each row of a shard set or a Parquet file, such as live.parquet.

    MODEL is the folder of a run, or of several, such as a walk forward's; or a file that Keras has
    saved. Each knows the features that its model was trained on, their order and their scale.
    numerapi uploads the file that is written.
    """
    _check_out(out, ".csv", ".parquet")
    shares = _shares(weights, by)
    _check_proportion(proportion, options["neutralize"])
    _before_tensorflow()
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


@main.command()
@click.argument("predictions", metavar="PREDICTIONS...", nargs=-1, required=True)
@click.argument("data", metavar="DATA")
@click.option("--target", metavar="NAME", help="The target to score with.  [default: target]")
@click.option("--eras", metavar="ERAS", help="Such as 0575-, or -20: for the newest 20.")
@click.option(
    "--meta-model", metavar="FILE", help="meta_model.parquet, or a column of DATA: adds mmc."
)
@click.option(
    "--benchmarks",
    multiple=True,
    metavar="FILE",
    help="validation_benchmark_models.parquet, or a column of DATA: adds bmc; repeatable.",
)
@click.option("--exposure", is_flag=True, help="Add the largest correlation with a feature.")
@click.option(
    "--neutral",
    metavar="NAME",
    help="Add fnc, the correlation without what these features explain: a feature set, or all.",
)
@click.option("--csv", metavar="FILE", help="Write the scores of each era.")
@click.option("--png", metavar="FILE", help="Draw the cumulative scores, a line a model.")
@_QUIET
def score(
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

    PREDICTIONS are Parquet or CSV files with ids and a column of numbers for each model, such as
    predict writes. DATA is a shard set, or a Parquet file with the targets.
    """
    for option, path, suffix in ("--csv", csv, ".csv"), ("--png", png, ".png"):
        if path is not None:
            _check_out(path, suffix, option=option)
    _before_tensorflow()
    from ..scoring.score_table import score as score_predictions
    from ..scoring.scores import shown_summary

    table = score_predictions(
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


@main.command()
@click.argument("model", metavar="RUN")
@click.option("--out", required=True, metavar="FILE", help="predict.pkl")
@_ENSEMBLE
@_WEIGHTS
@click.option(
    "--neutralize",
    metavar="NAME",
    help="Take out what these features explain: a feature set of --features-json. Without that "
    "file, all is all features that the models take.",
)
@_PROPORTION
@click.option("--features-json", metavar="FILE", help="Numerai's feature sets.")
@_OUTPUT
@_BATCH_BY
def export(
    model: str, out: str, by: str | None, weights: str | None, proportion: float, **options: Any
) -> None:
    """Write the predict function of one run or several, for Numerai's model upload.

    RUN is the folder of a run, or of several, which become an ensemble by rank; or a file that
    Keras has saved of a model that was trained on a NumeraiSequence.
    """
    _check_out(out, ".pkl")
    shares = _shares(weights, by)
    _check_proportion(proportion, options["neutralize"])
    _before_tensorflow()
    from ..training.run_predictions import export_run, exported_for

    said = export_run(
        Path(model), Path(out), by=by, weights=shares, proportion=proportion, **options
    )
    click.echo(said)
    click.echo(f"{out}: {exported_for()}")


@main.command()
@click.option(
    "--train", metavar="FILE", help="A Parquet file of Numerai's.  [default: a made-up one]"
)
@click.option(
    "--rows",
    type=click.IntRange(min=100),
    default=100_000,
    show_default=True,
    help="Rows to make up.",
)
@click.option(
    "--features",
    type=click.IntRange(min=1, max=100_000),
    default=3_555,
    show_default=True,
    help="Features to make up.",
)
@click.option(
    "--epochs",
    type=click.IntRange(min=1),
    default=2,
    show_default=True,
    help="Epochs to train.",
)
@click.option(
    "--out",
    metavar="DIR",
    help="Keep the shards, and what was made up, here.  [default: a temporary folder]",
)
def demo(train: str | None, out: str | None, **options: Any) -> None:
    """Shard a Parquet file, train a small network from it, show its scores.

    Without --train it makes up a file with v5.3's columns and era sizes and a weak signal to learn.
    """
    _before_tensorflow()
    from .demo import run_demo

    with ExitStack() as stack:
        with explained(out or tempfile.gettempdir()):
            # After an error its files may be open, and Windows would refuse.
            made = out or stack.enter_context(
                tempfile.TemporaryDirectory(prefix="numerai-", ignore_cleanup_errors=True)
            )
            folder = Path(made)
            folder.mkdir(parents=True, exist_ok=True)
        run_demo(Path(train) if train else None, folder, **options)
    click.echo(
        f"\nAll of it is in {out}" if out else "\nNothing is kept; --out DIR keeps all of it"
    )


def _writer_arguments(
    *, features: tuple[str, ...], feature_set: str | None, targets: tuple[str, ...], **options: Any
) -> dict[str, Any]:
    if features and feature_set is not None:
        raise click.UsageError("--feature and --features: choose one of them")
    chosen = feature_set if feature_set is not None else features or None
    return writer_arguments(features=chosen, targets=targets or None, **options)


def _echo_set(folder: str) -> None:
    with open_shards(folder) as shards:
        click.echo(_describe(shards))


def _before_tensorflow() -> None:
    """Keep what TensorFlow says of itself when it is loaded from the user."""
    click.get_current_context().with_resource(without_logs())


def _tasks_at(address: str | None) -> AbstractContextManager[Executor | None]:
    return nullcontext() if address is None else ray_at(address)


def _check_proportion(proportion: float, neutralize: str | None) -> None:
    if proportion != 1 and neutralize is None:
        raise click.UsageError("--proportion: expected --neutralize with it")


def _share_or_eras(text: str) -> float | str:
    try:
        share = float(text) if "." in text else None
    except ValueError:
        share = None
    number = int(text) if is_ambiguous(text) else None
    if number == 0 or (share is not None and not 0 < share < 1):
        raise click.UsageError(f"--validation: found {text}, expected a share between 0 and 1")
    if number is not None:
        raise click.UsageError(
            f"--validation: found {text}, which may be a count or an era; expected {-number}: for "
            f"the newest {number:,} eras, or {number:04d} for that era"
        )
    return text if share is None else share


def _check_once(option: str, names: tuple[str, ...]) -> None:
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise click.UsageError(f"{option}: {twice[0]!r} comes twice; name each target once")


def _size(text: str) -> str:
    try:
        if text != "auto":
            parse_bytes(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    return text


def _check_out(out: str, *suffixes: str, option: str = "--out") -> None:
    """Find what is wrong with a path before the work, and not after it."""
    path = Path(out)
    if path.suffix not in suffixes:
        raise click.UsageError(
            f"{option}: found {out!r}, expected a name with {' or '.join(suffixes)}"
        )
    if not path.parent.is_dir():
        raise click.UsageError(f"{option}: found {out!r}, expected a file in a folder that exists")


def _shares(weights: str | None, by: str | None) -> list[float] | None:
    if weights is not None and by is None:
        raise click.UsageError("--weights: expected --ensemble with it")
    return None if weights is None else _numbers("--weights", weights)


def _numbers(option: str, text: str) -> list[float]:
    try:
        return [float(number) for number in text.split(",")]
    except ValueError:
        raise click.UsageError(f"{option}: found {text!r}, expected such as 1,0.5") from None


def _whole_numbers(option: str, text: str) -> tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < 1:
        raise click.UsageError(f"{option}: found {text!r}, expected such as 256,64")
    return numbers


def _describe(shards: ShardSet) -> str:
    eras, files = shards.eras, shards.manifest.shards
    size = sum(file.bytes for file in files)
    paging = decide(size)
    batches = sum(len(file.batches) for file in files)
    filled = sum(source.filled for source in shards.manifest.sources)
    missing = ", ".join(f"{target} {rows:,}" for target, rows in shards.missing.items())
    lines = {
        "folder": str(shards.folder),
        "rows": f"{shards.rows:,}",
        "features": f"{len(shards.features):,}, {shards.encoding}",
        "feature sets": _describe_feature_sets(shards) or "none",
        "targets": f"{len(shards.targets)}: {', '.join(shards.targets)}",
        **({"alias": describe_alias(shards.target_alias)} if TARGET in shards.targets else {}),
        **({"missing": f"rows without {missing}"} if missing else {}),
        **({"filled": f"{filled:,} missing feature values, as the middle"} if filled else {}),
        "eras": f"{len(eras):,}: {eras[0]} to {eras[-1]}" if eras else "none",
        "data types": ", ".join(shards.data_types) or "none",
        "shards": f"{len(shards)} files, {batches} record batches, {size / 1e6:,.1f} MB",
        "paging": f"{paging.mode}: {paging.reason}",
        "sources": ", ".join(source.path for source in shards.manifest.sources),
    }
    return "\n".join(f"{name:<13}{value}" for name, value in lines.items())


def _describe_feature_sets(shards: ShardSet) -> str:
    manifest = shards.manifest
    sizes = [f"{name} {len(places):,}" for name, places in manifest.feature_sets.items()]
    parts = manifest.partial_sets.items()
    return ", ".join([*sizes, *(f"{name} {part:,} of {size:,}" for name, (part, size) in parts)])
