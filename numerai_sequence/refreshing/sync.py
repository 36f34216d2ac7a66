"""Sync: a shard set that is written from Parquet files, or updated if it already exists."""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import OutputExistsError
from ..format.feature_sets import choose_set
from ..format.layout import MANIFEST, WriteOptions
from ..format.manifest import read_manifest
from ..writing.output_folder import Output
from ..writing.set_difference import find_other_options, has_same_sources
from ..writing.source_columns import open_sources
from ..writing.writer import find_sets, write
from .refresh import Refresh, refresh_set


def sync(
    sources: Any,
    out: Path,
    options: WriteOptions,
    *,
    feature_set: str | None,
    features_json: Path | None,
    overwrite: bool,
    progress: bool,
    dry_run: bool = False,
    executor: Executor | None = None,
) -> str:
    """Write a shard set, or refresh the existing one; return a line that says what was done.

    Parameters
    ----------
    dry_run : bool
        Write nothing; only say what would be done.

    The other parameters are those of `write`.

    Raises
    ------
    OutputExistsError
        The existing set has other options, or the folder holds something else.
    NumeraiSequenceError
        As for `write` and `refresh_set`.
    """
    named: dict[str, Any] = {"feature_set": feature_set, "features_json": features_json}
    output = Output(out)
    if out.is_dir() and not dry_run:
        output.recover(keeps=True)
    if overwrite or not (out / MANIFEST).exists():
        if dry_run:
            return _plan_to_write(sources, out, overwrite)
        more: dict[str, Any] = {"progress": progress, "executor": executor}
        write(sources, out, options, overwrite=overwrite, **named, **more)
        return f"{out}: created"
    if _is_same(sources, out, options, **named):
        done = f"{out}: is up to date"
    else:
        asked: dict[str, Any] = {"missing_feature": options.missing_feature, "dry_run": dry_run}
        done = describe(refresh_set(out, sources, progress=progress, **asked), dry_run)
    if not dry_run:
        _update_feature_sets(sources, output, features_json)
    return done


def describe(found: Refresh, dry_run: bool = False) -> str:
    """Return a line that says what a refresh has done."""
    counts = {
        "added": (len(found.eras), "era"),
        "filled": (len(found.filled), "target"),
        "corrected": (len(found.corrected), "target"),
        "changed": (found.data_types, "data type"),
        "moved": (int(found.target_alias is not None), "alias of target"),
    }
    parts = [
        f"{what} {count:,} {name}{'' if count == 1 else 's'}"
        for what, (count, name) in counts.items()
        if count
    ]
    if found.without_data_type:
        parts.append(f"{found.without_data_type:,} rows are added without a data type")
    would = "would have " if dry_run and parts else ""
    return f"{found.folder}: {would}{', '.join(parts) or 'is up to date'}"


def _plan_to_write(sources: Any, out: Path, overwrite: bool) -> str:
    if out.exists() and not out.is_dir():
        what = "found a file, expected a folder; choose another path"
        raise OutputExistsError(f"{out}: {what}", path=out)
    what = "replaced by" if overwrite and (out / MANIFEST).exists() else "created from"
    with open_sources(sources) as opened:
        rows = sum(source.rows for source in opened)
        files = f"{len(opened)} file{'' if len(opened) == 1 else 's'}"
    return f"{out}: would be {what} {rows:,} rows of {files}"


def _is_same(
    sources: Any,
    out: Path,
    options: WriteOptions,
    *,
    feature_set: str | None,
    features_json: Path | None,
) -> bool:
    """Check that a set has these options, and say whether it was written from these files."""
    manifest = read_manifest(out)
    with open_sources(sources) as opened:
        if feature_set is not None:
            first = opened[0]
            sets = find_sets(features_json, sources, first)
            chosen = choose_set(feature_set, sets, first.features, str(first.path))
            options = replace(options, features=chosen)
        # This option is for added rows; the set notes whether values of any row were filled in.
        options = replace(options, missing_feature=manifest.options.missing_feature)
        others = find_other_options(manifest.options, options)
        if others:
            raise OutputExistsError(
                f"{out}: holds a set with {others}; use the options of the set, choose another "
                "folder, or pass overwrite=True to write it again",
                path=out,
            )
        return has_same_sources(manifest, opened)


def _update_feature_sets(sources: Any, output: Output, features_json: Path | None) -> None:
    with open_sources(sources) as opened:
        sets = find_sets(features_json, sources, opened[0])
    output.update(sets)
