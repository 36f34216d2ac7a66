"""Inputs: the files that the measured processes read, written once and kept in a work folder."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from harness.process import ENVIRONMENT, child_command

SEED = 0
ROWS_PER_READ = 16_384


def feature_names(parquet: Path) -> list[str]:
    """Return the names of the feature columns, in the file's order; v5's are int8 in 0..4."""
    fields = [field for field in pq.read_schema(parquet) if field.name.startswith("feature")]
    if not fields or not all(pa.types.is_integer(field.type) for field in fields):
        raise click.ClickException(f"{parquet}: expected int8 feature columns, as in the v5 data")
    return [field.name for field in fields]


def read_batches(parquet: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """Yield the file's rows in order, a few thousand at a time, under a progress bar."""
    with (
        pq.ParquetFile(parquet) as source,
        tqdm(total=source.metadata.num_rows, unit=" rows", unit_scale=True, desc="prepare") as bar,
    ):
        for batch in source.iter_batches(ROWS_PER_READ, columns=columns):
            yield batch
            bar.update(batch.num_rows)


def row_major(parquet: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield int8 features, shape (rows, features), and float32 targets."""
    features = feature_names(parquet)
    for batch in read_batches(parquet, ["target", *features]):
        rows = np.stack([batch[name].to_numpy() for name in features], axis=1)
        yield np.ascontiguousarray(rows), batch["target"].to_numpy().astype(np.float32)


def synthetic_parquet(
    work: Path, rows: int, features: int, row_group_rows: int | None = None
) -> Path:
    """Return the synthetic input, written on first use."""
    groups = f"_groups_of_{row_group_rows}" if row_group_rows else ""
    parquet = work / f"synthetic_{rows}x{features}{groups}.parquet"
    if not parquet.exists():
        options = ["--row-group-rows", row_group_rows] if row_group_rows else []
        command = child_command("synthetic", parquet, rows, features, *options)
        subprocess.run(command, check=True, env=ENVIRONMENT)
    return parquet


def prepared(name: str, parquet: Path, work: Path) -> Path:
    """Return the folder that contender `name` wrote from the Parquet, in this or an earlier run."""
    source = f"{parquet.resolve()} {parquet.stat().st_size} {parquet.stat().st_mtime_ns}"
    command = child_command("prepare", name, parquet, work / name)
    return kept(work / name, source, lambda: subprocess.run(command, check=True, env=ENVIRONMENT))


def kept(folder: Path, source: str, write: Callable[[], object]) -> Path:
    """Return the folder, written first unless an earlier run completed it from the same source."""
    marker = folder.with_name(f"{folder.name}.complete")
    if not (marker.exists() and marker.read_text() == source):
        marker.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        click.echo(f"preparing {folder.name}", err=True)
        write()
        marker.write_text(source)
    return folder
