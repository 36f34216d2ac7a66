"""Command: `numerai-sequence`, the package from a shell."""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from . import ShardSet, __version__, open_shards, write_shards
from .encoding import ENCODINGS
from .errors import NumeraiSequenceError
from .memory import decide


class _Commands(click.Group):
    """Turns our errors, and no others, into one line on stderr and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except NumeraiSequenceError as error:
            raise click.ClickException(" ".join(str(error).split())) from error


@click.group(cls=_Commands)
@click.version_option(__version__)
def main() -> None:
    """Train Keras models on all of the Numerai data.

    Parquet files are turned once into a folder of memory-mapped shard files, which
    numerai_sequence.NumeraiSequence feeds to model.fit.
    """


@main.command()
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True)
@click.option("--out", required=True, metavar="DIR", help="The folder to write the set to.")
@click.option(
    "--num-shards",
    type=click.IntRange(min=1),
    default=16,
    show_default=True,
    help="Shard files; era e goes to shard e mod this.",
)
@click.option(
    "--encoding",
    type=click.Choice(ENCODINGS),
    default="packed",
    show_default=True,
    help="Three features a byte, or one.",
)
@click.option(
    "--mix-eras",
    type=click.IntRange(min=1),
    default=None,
    help="Eras whose rows are mixed with each other.  [default: as many as fit into 256 MB]",
)
@click.option("--feature", "features", multiple=True, help="Write this feature only; repeatable.")
@click.option("--features", "feature_set", metavar="NAME", help="Write this feature set only.")
@click.option(
    "--features-json",
    metavar="FILE",
    help="Numerai's feature sets.  [default: features.json beside the first source]",
)
@click.option(
    "--target",
    "targets",
    multiple=True,
    help="Write this target, or column of other numbers, only; repeatable.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the mixing."
)
@click.option("--overwrite", is_flag=True, help="Replace what is in the folder.")
@click.option("--quiet", is_flag=True, help="Show no progress bars.")
def shard(
    sources: tuple[str, ...],
    out: str,
    features: tuple[str, ...],
    feature_set: str | None,
    targets: tuple[str, ...],
    quiet: bool,
    **options: Any,
) -> None:
    """Write one shard set from one or more Parquet files.

    A set that was written from the same files with the same options is left as it is, but that it
    learns of feature sets that are new.
    """
    if features and feature_set is not None:
        raise click.UsageError("--feature and --features: choose one of them")
    shards = write_shards(
        sources,
        out,
        features=feature_set if feature_set is not None else features or None,
        targets=targets or None,
        progress=not quiet,
        **options,
    )
    click.echo(_describe(shards))


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
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow is loaded
    from .demo import run_demo

    with ExitStack() as stack:
        folder = Path(out or stack.enter_context(tempfile.TemporaryDirectory(prefix="numerai-")))
        folder.mkdir(parents=True, exist_ok=True)
        run_demo(Path(train) if train else None, folder, **options)


def _describe(shards: ShardSet) -> str:
    eras, files = shards.eras, shards.manifest.shards
    size = sum(file.bytes for file in files)
    paging = decide(size)
    batches = sum(len(file.batches) for file in files)
    missing = ", ".join(f"{target} {rows:,}" for target, rows in shards.missing.items())
    lines = {
        "folder": str(shards.folder),
        "rows": f"{shards.rows:,}",
        "features": f"{len(shards.features):,}, {shards.encoding}",
        "feature sets": _describe_feature_sets(shards) or "none",
        "targets": f"{len(shards.targets)}: {', '.join(shards.targets)}",
        **({"missing": f"rows without {missing}"} if missing else {}),
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
