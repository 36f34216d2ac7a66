"""Arrays: the rows as int8, opened in memory, with np.memmap, or as a Hugging Face data set."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from harness.input_files import feature_names, row_major


def prepare_memmap(parquet: Path, folder: Path) -> None:
    """Write one row-major int8 array of all features, and one of targets."""
    folder.mkdir()
    features = feature_names(parquet)
    shape = (pq.read_metadata(parquet).num_rows, len(features))
    x = np.lib.format.open_memmap(folder / "x.npy", mode="w+", dtype=np.int8, shape=shape)
    targets, start = [], 0
    for rows, y in row_major(parquet):
        x[start : start + len(y)] = rows
        start += len(y)
        targets.append(y)
    np.save(folder / "y.npy", np.concatenate(targets))


def prepare_dataset(parquet: Path, folder: Path) -> None:
    """Write one Arrow file, a row's features in one list, as `datasets` stores vectors."""
    from datasets import Features, List, Value
    from datasets.arrow_writer import ArrowWriter

    folder.mkdir()
    features = len(feature_names(parquet))
    schema = Features({"x": List(Value("int8"), length=features)})
    targets = []
    with ArrowWriter(path=str(folder / "rows.arrow"), features=schema) as writer:
        for rows, y in row_major(parquet):
            lists = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), features)
            writer.write_table(pa.table({"x": lists}))
            targets.append(y)
        writer.finalize()
    np.save(folder / "y.npy", np.concatenate(targets))


def open_array(mmap_mode: str | None, folder: Path) -> tuple[Any, Any]:
    """Return x, int8 and mapped or in memory, and y."""
    return np.load(folder / "x.npy", mmap_mode=mmap_mode), np.load(folder / "y.npy")


def open_dataset(folder: Path) -> tuple[Any, Any]:
    """Return x, indexed like an array, and y; the file is mapped."""
    from datasets import Dataset

    rows = Dataset.from_file(str(folder / "rows.arrow"))

    class Columns:
        """The features of rows; without its dtype the format would be int64."""

        x = rows.with_format("numpy", columns=["x"], dtype=np.int8)

        def __getitem__(self, numbers: np.ndarray) -> np.ndarray:
            return self.x[numbers]["x"]

    return Columns(), np.load(folder / "y.npy")
