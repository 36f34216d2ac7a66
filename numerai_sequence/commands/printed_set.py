"""Printed set: lines of text about a shard set."""

from __future__ import annotations

import click

from ..ordering.target_horizon import TARGET, describe_alias
from ..reading.memory_budget import decide
from ..reading.set_opener import open_shards
from ..reading.shard_set import ShardSet


def show_set(folder: str) -> None:
    """Print the content of the shard set in a folder."""
    with open_shards(folder) as shards:
        click.echo(describe_set(shards))


def describe_set(shards: ShardSet) -> str:
    """Return a text with one line for each property of a shard set."""
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
