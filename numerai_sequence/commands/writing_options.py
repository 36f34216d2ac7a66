"""Writing options: the arguments of `write_shards`, as options of shard and sync."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from ..format.encodings import ENCODINGS
from ..format.layout import MISSING_FEATURE, WriteOptions
from ..writing.write_arguments import writer_arguments
from . import shared_options as shared

# In this order.
_OPTIONS = (
    click.argument("sources", metavar="SOURCE...", nargs=-1, required=True),
    click.option("--out", required=True, metavar="DIR", help="Folder of the shard set."),
    click.option(
        "--num-shards",
        type=click.IntRange(min=1),
        default=WriteOptions.num_shards,
        show_default=True,
        help="Number of shard files. Era e goes to shard e mod this number.",
    ),
    click.option(
        "--encoding",
        type=click.Choice(list(ENCODINGS)),
        default=WriteOptions.encoding,
        show_default=True,
        help="Storage of features: three in each byte ('packed'), or one ('int8').",
    ),
    click.option(
        "--mix-eras",
        type=click.IntRange(min=1),
        default=WriteOptions.mix_eras,
        help="Number of neighbouring eras in a record batch, whose rows are mixed.  "
        "[default: as many as fit into 256 MB]",
    ),
    click.option(
        "--feature",
        "features",
        multiple=True,
        help="Name of a feature to write; repeatable.  [default: all features]",
    ),
    click.option(
        "--features",
        "feature_set",
        metavar="NAME",
        help="Name of a feature set to write.  [default: all features]",
    ),
    click.option(
        "--features-json",
        metavar="FILE",
        help="File with Numerai's feature sets.  [default: features.json beside the first source]",
    ),
    click.option(
        "--target",
        "targets",
        multiple=True,
        help="Name of a target, or of another column of numbers, to write; repeatable.  [default: "
        "all targets]",
    ),
    click.option(
        "--seed",
        type=click.IntRange(min=0),
        default=WriteOptions.seed,
        show_default=True,
        help="Seed for mixing rows within a window.",
    ),
    click.option(
        "--missing-feature",
        type=click.Choice(MISSING_FEATURE),
        default=WriteOptions.missing_feature,
        show_default=True,
        help="Treatment of missing feature values: 'error' refuses the file, 'middle' writes 2, "
        "the middle of 0 to 4.",
    ),
    click.option(
        "--overwrite",
        is_flag=True,
        help="Replace a set in the folder, or write beside other files.",
    ),
    shared.ray,
    shared.quiet,
)


def writing_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the arguments of `write_shards`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def read_writing(
    *, features: tuple[str, ...], feature_set: str | None, targets: tuple[str, ...], **options: Any
) -> dict[str, Any]:
    """Return the arguments of `write` for these options."""
    if features and feature_set is not None:
        raise click.UsageError("--feature, --features: found both, expected one of them")
    chosen = feature_set if feature_set is not None else features or None
    return writer_arguments(features=chosen, targets=targets or None, **options)
