"""Scratch: rows in the order of the source, kept by window until they are permuted.

A window has two files: the encoded features, one region a block of bytes, each region row-major;
and everything else as an Arrow IPC stream that grows by one record batch at a time.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .encoding import Block, Bytes

_PIECE_BYTES = 16 << 20


class Scratch:
    """The scratch files of one run of the writer. One thread may add features, another the rest.

    Parameters
    ----------
    folder : path
    rows : sequence of int
        The rows of each window.
    blocks : sequence of Block
        The blocks that an encoded row is cut into; the same for all rows.
    """

    def __init__(self, folder: Path, rows: Sequence[int], blocks: Sequence[Block]) -> None:
        self._folder = folder
        self._rows = rows
        self._blocks = blocks

    def add_meta(self, window: int, rows: pa.Table) -> None:
        """Append the other columns of some rows."""
        path = self._meta_path(window)
        is_new = not path.exists()
        with open(path, "ab") as file:
            if is_new:
                file.write(rows.schema.serialize())
            for batch in rows.combine_chunks().to_batches():
                file.write(batch.serialize())

    def add_features(self, window: int, row: int, block: Block, encoded: Bytes) -> None:
        """Put encoded rows, uint8 (rows, block.width), at the place of `row` in the window."""
        offset = block.start * self._rows[window] + row * block.width
        descriptor = os.open(self._features_path(window), os.O_WRONLY | os.O_CREAT, 0o644)
        with open(descriptor, "wb", buffering=0) as file:
            file.seek(offset)
            _write_all(file, encoded.data.cast("B"))

    def read_meta(self, window: int) -> pa.Table:
        """Read back a window's other columns, in the order of the source."""
        with pa.OSFile(str(self._meta_path(window))) as file:
            return pa.ipc.open_stream(file).read_all()

    def read_features(self, window: int, places: npt.NDArray[np.int64]) -> Bytes:
        """Read back a window's encoded rows, row i at `places[i]`: uint8 (rows, row bytes)."""
        rows = self._rows[window]
        encoded = np.empty((rows, self._blocks[-1].stop), np.uint8)
        with open(self._features_path(window), "rb") as file:
            for block in self._blocks:
                piece = max(1, _PIECE_BYTES // block.width)
                for start in range(0, rows, piece):
                    count = min(piece, rows - start)
                    values = np.fromfile(file, np.uint8, count * block.width)
                    encoded[places[start : start + count], block.start : block.stop] = (
                        values.reshape(count, block.width)
                    )
        return encoded

    def drop(self, window: int) -> None:
        """Delete a window's files."""
        self._meta_path(window).unlink()
        self._features_path(window).unlink()

    def _meta_path(self, window: int) -> Path:
        return self._folder / f"window-{window:05d}.meta"

    def _features_path(self, window: int) -> Path:
        return self._folder / f"window-{window:05d}.features"


def _write_all(file: Any, data: memoryview) -> None:
    # One write call moves 2 GiB at most.
    while data:
        data = data[file.write(data) :]
