"""Scratch: temporary files with the rows of one source, by window, until they are permuted.

The rows keep the order of the source. A window has two files. One holds the encoded features: a
region for each block of bytes, and each region is row-major. The other holds all other columns as
an Arrow IPC stream, which grows by one record batch at a time.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..format.encoding import Block, Bytes
from ..system.files import read_all, write_all

_PIECE_BYTES = 16 << 20


class Scratch:
    """The scratch files of one source.

    One thread may add features while another one adds the other columns.

    Parameters
    ----------
    folder : path
    rows : sequence of int
        The source's rows in each window. A window without rows has no files.
    blocks : sequence of Block
        The blocks of an encoded row, the same for all rows.

    Attributes
    ----------
    folder : path
    rows : sequence of int
    """

    def __init__(self, folder: Path, rows: Sequence[int], blocks: Sequence[Block]) -> None:
        self.folder = folder
        self.rows = rows
        self._blocks = blocks

    def add_meta(self, window: int, rows: pa.Table) -> int:
        """Append the other columns of some rows; return the bytes of the window's file."""
        with open(self._meta_path(window), "ab") as file:
            if not file.tell():
                file.write(rows.schema.serialize())
            for batch in rows.combine_chunks().to_batches():
                file.write(batch.serialize())
            return file.tell()

    def cut_meta(self, sizes: Mapping[int, int]) -> None:
        """Cut the windows' files back to these sizes in bytes."""
        for window in range(len(self.rows)):
            path = self._meta_path(window)
            if path.exists():
                os.truncate(path, sizes.get(window, 0))

    def add_features(self, window: int, row: int, block: Block, encoded: Bytes) -> None:
        """Write encoded rows, uint8 (rows, block.width), from row `row` of the window on."""
        offset = block.start * self.rows[window] + row * block.width
        binary = getattr(os, "O_BINARY", 0)
        flags = os.O_WRONLY | os.O_CREAT | binary
        descriptor = os.open(self._features_path(window), flags, 0o644)
        with open(descriptor, "wb", buffering=0) as file:
            file.seek(offset)
            write_all(file, encoded.data.cast("B"))

    def read_meta(self, window: int) -> pa.Table:
        """Read back a window's other columns, in the order of the source.

        Raises
        ------
        OSError
            The file has a wrong number of rows, or cannot be read.
        """
        path = self._meta_path(window)
        with pa.OSFile(str(path)) as file:
            rows = pa.ipc.open_stream(file).read_all()
        if rows.num_rows != self.rows[window]:
            raise OSError(errno.EIO, "does not hold the rows that were written", str(path))
        return rows

    def read_features(self, window: int, places: npt.NDArray[np.int64], out: Bytes) -> None:
        """Read back a window's encoded rows, row i to `out[places[i]]`.

        Parameters
        ----------
        places : int64 array, shape (rows,)
        out : uint8 array, shape (rows or more, row bytes)

        Raises
        ------
        OSError
            The file ends too early, or cannot be read.
        """
        rows = self.rows[window]
        with open(self._features_path(window), "rb", buffering=0) as file:
            for block in self._blocks:
                piece = max(1, _PIECE_BYTES // block.width)
                for start in range(0, rows, piece):
                    count = min(piece, rows - start)
                    values = np.empty((count, block.width), np.uint8)
                    read_all(file, values.data.cast("B"))
                    out[places[start : start + count], block.start : block.stop] = values

    def drop(self, windows: Iterable[int]) -> None:
        """Delete the files of some windows, if they exist."""
        for window in windows:
            self._meta_path(window).unlink(missing_ok=True)
            self._features_path(window).unlink(missing_ok=True)

    def _meta_path(self, window: int) -> Path:
        return self.folder / f"window-{window:05d}.meta"

    def _features_path(self, window: int) -> Path:
        return self.folder / f"window-{window:05d}.features"
