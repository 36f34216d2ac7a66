"""Training options: the options of the command train, and the run options that they stand for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click

from ..batching.targets import POLICIES
from ..format.encoding import DTYPES, PACKED
from ..ordering.splits import is_ambiguous
from ..reading.memory_budget import parse_bytes
from ..scoring.score_kinds import monitored_logs
from ..training.network import LOSSES
from ..training.run_options import TrainOptions


def _size(context: click.Context, option: click.Parameter, text: str) -> str:
    try:
        if text != "auto":
            parse_bytes(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    return text


# In this order; the defaults are those of a run.
_OPTIONS = (
    click.option(
        "--features",
        metavar="NAME",
        default=TrainOptions.features,
        help="Name of the feature set to train on.  [default: all features]",
    ),
    click.option(
        "--target",
        "targets",
        multiple=True,
        default=TrainOptions.targets,
        show_default=True,
        help="Name of a target to predict; repeatable. The first one is scored.",
    ),
    click.option(
        "--each-target",
        is_flag=True,
        help="Train one model for each target, instead of one model with an output for each.",
    ),
    click.option(
        "--final",
        metavar="RUN",
        help="Run, or folder of several runs, to train again on all eras that have the target. The "
        "new run has the options of that run, except --eras and --epochs if you give them.",
    ),
    click.option(
        "--from",
        "start",
        metavar="RUN",
        help="Run, or folder of several runs, whose weights the new run starts from. Options that "
        "you leave out are also taken from RUN, unless you give --target, --each-target, --seed or "
        "--seeds.",
    ),
    click.option(
        "--eras",
        metavar="ERAS",
        default=TrainOptions.eras,
        help="Eras to train and to validate on, such as 0001-0574, 0575- or ::4, or several of "
        "these, separated by commas.  [default: all eras that have a number]",
    ),
    click.option(
        "--validation",
        default=str(TrainOptions.validation),
        show_default=True,
        metavar="SHARE|ERAS",
        help="Eras to validate on: a share of the newest eras, such as 0.2, or eras, such as 0575- "
        "or -20: for the newest 20.",
    ),
    click.option(
        "--purge",
        type=click.IntRange(min=0),
        default=TrainOptions.purge,
        help="Number of eras between training and validation.  [default: 8 if each target is a "
        "20-day target, or is 'target' and equals one; otherwise 16]",
    ),
    click.option(
        "--step",
        type=click.IntRange(min=1),
        default=TrainOptions.step,
        help="Number of validation eras in each fold of a walk forward. Each fold trains a new "
        "model on the eras before them.  [default: no walk forward]",
    ),
    click.option(
        "--window",
        type=click.IntRange(min=1),
        default=TrainOptions.window,
        help="Number of training eras in each fold; needs --step.  [default: all eras before]",
    ),
    click.option(
        "--missing-target",
        type=click.Choice(POLICIES),
        default=TrainOptions.missing_target,
        show_default=True,
        help="Treatment of rows without a target: 'error' refuses to train, 'drop' leaves them "
        "out, 'mask' gives them weight 0.",
    ),
    click.option(
        "--epochs",
        type=click.IntRange(min=1),
        default=TrainOptions.epochs,
        show_default=True,
        help="Largest number of epochs; with --final, the exact number, by default the best one.",
    ),
    click.option(
        "--patience",
        type=click.IntRange(min=1),
        default=TrainOptions.patience,
        show_default=True,
        help="Number of epochs without a better score before training stops. The weights of the "
        "best epoch are kept.",
    ),
    click.option(
        "--batch-size",
        type=click.IntRange(min=1),
        default=TrainOptions.batch_size,
        help="Number of rows in a batch; with --loss pearson or rank, number of eras.  [default: "
        "1000 rows, or 1 era]",
    ),
    click.option(
        "--layers",
        default=",".join(map(str, TrainOptions.layers)),
        show_default=True,
        metavar="UNITS,...",
        help="Numbers of units of the hidden layers.",
    ),
    click.option(
        "--dropout",
        type=click.FloatRange(0, 1, max_open=True),
        default=TrainOptions.dropout,
        show_default=True,
        help="Dropout rate after each hidden layer.",
    ),
    click.option(
        "--learning-rate",
        type=click.FloatRange(0, min_open=True),
        default=TrainOptions.learning_rate,
        show_default=True,
        help="Learning rate of the Adam optimizer.",
    ),
    click.option(
        "--loss",
        type=click.Choice(LOSSES),
        default=TrainOptions.loss,
        show_default=True,
        help="Loss to minimize: the mean squared error ('mse'), or 1 minus the correlation of each "
        "era ('pearson') or the correlation of its ranks ('rank').",
    ),
    click.option(
        "--monitor",
        type=click.Choice(monitored_logs()),
        default=TrainOptions.monitor,
        show_default=True,
        help="Score that decides which epoch is the best.",
    ),
    click.option(
        "--dtype",
        type=click.Choice([*DTYPES, PACKED]),
        help="Type of the features that the model receives. 'packed' is float32, unpacked by the "
        "device.  [default: 'packed' if Keras has an accelerator, otherwise 'float32']",
    ),
    click.option(
        "--resident/--no-resident",
        default=None,
        help="Keep packed rows in the memory of the device.  [default: resident if the rows fit "
        "into the memory of an accelerator]",
    ),
    click.option(
        "--seed",
        type=click.IntRange(min=0),
        default=TrainOptions.seed,
        show_default=True,
        help="Seed for the weights, the order of rows and dropout.",
    ),
    click.option(
        "--seeds",
        type=click.IntRange(min=1),
        help="Number of models to train, with seeds from --seed on.  [default: 1]",
    ),
    click.option(
        "--workers",
        type=click.IntRange(min=0),
        default=TrainOptions.workers,
        show_default=True,
        help="Number of threads that read batches.",
    ),
    click.option(
        "--memory-budget",
        default=TrainOptions.memory_budget,
        show_default=True,
        metavar="SIZE",
        callback=_size,
        help="Memory that reading may use, such as 512MB.",
    ),
    click.option(
        "--verify",
        is_flag=True,
        default=TrainOptions.verify,
        help="Compare every byte of the set with its checksums during the first epoch.",
    ),
)

# The options that --final allows. Its run decides the others.
_BESIDE_FINAL = {"epochs", "eras", "workers", "memory_budget", "verify", "resident"}


def training_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of a run."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def read_training(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a run, parsed from the texts of the command.

    Raises
    ------
    click.UsageError
        A text cannot be parsed, or a target is named twice.
    """
    _check_once("--target", options["targets"])
    dtype = options["dtype"]
    return {
        **options,
        "validation": _share_or_eras(options["validation"]),
        "layers": _whole_numbers("--layers", options["layers"]),
        # The network of packed rows, and so the run, is the same as for float32.
        "dtype": TrainOptions.dtype if dtype in (None, PACKED) else dtype,
    }


def check_training(
    options: dict[str, Any], given: set[str], *, final: str | None, start: str | None
) -> None:
    """Raise a usage error if options contradict each other."""
    if options["window"] is not None and options["step"] is None:
        raise click.UsageError("--window: found it without --step; add --step")
    if final is None:
        return
    may = _BESIDE_FINAL | ({"learning_rate"} if start is not None else set())
    wrong = sorted(given & {*options, "seeds", "each_target"} - may)
    if wrong:
        name = {"targets": "target"}.get(wrong[0], wrong[0]).replace("_", "-")
        raise click.UsageError(
            f"--{name}: found it with --final, whose run decides it; leave it out"
        )


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
            f"--validation: found {text}, which can be a count or an era; expected {-number}: for "
            f"the newest {number:,} eras, or {number:04d} for that era"
        )
    return text if share is None else share


def _check_once(option: str, names: Sequence[str]) -> None:
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise click.UsageError(f"{option}: found {twice[0]!r} twice; name each target once")


def _whole_numbers(option: str, text: str) -> tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < 1:
        raise click.UsageError(f"{option}: found {text!r}, expected numbers such as 256,64")
    return numbers
