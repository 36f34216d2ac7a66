"""Encoding: the base class of all encodings of feature values. Their table is in `encodings`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ..system.buffers import scratch_array

DTYPES = ("float32", "float16", "int8")
#: Dtype of a batch of rows as they are in the file. The model unpacks them.
PACKED = "packed"
LARGEST = 4
SCALE = 0.25  # 0..4 to Numerai's own 0..1
MIDDLE = 2  # of 0..4: Numerai writes it for a feature that is missing in an era


Bytes = npt.NDArray[np.uint8]

# Values to decode at a time: the CPU cache still holds them for the next step.
_BLOCK_VALUES = 1 << 19

# NumPy's conversions to float16 are slow; a table of the five values is four times as fast.
_FLOAT16 = (np.arange(LARGEST + 1) * SCALE).astype(np.float16)


def to_digits(values: npt.NDArray[Any], *, is_scaled: bool = True) -> tuple[Bytes, int | None]:
    """Turn one column of Numerai's feature values into digits.

    Parameters
    ----------
    values : array, shape (rows,)
        Integers 0..4, or floats in {0, .25, .5, .75, 1}.
    is_scaled : bool
        Whether floats are 0..1. If False, they are 0..4.

    Returns
    -------
    digits : uint8 array, shape (rows,)
        0..4; a view of `values` if possible.
    invalid : int or None
        First row with another value. The digits are then invalid.
    """
    if values.dtype == np.int8 or values.dtype == np.uint8:
        digits = values.view(np.uint8)
        wrong = digits > LARGEST if digits.max(initial=0) > LARGEST else None
    else:
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = values / SCALE if is_scaled and values.dtype.kind == "f" else values
        wrong = ~((scaled >= 0) & (scaled <= LARGEST) & (scaled == np.floor(scaled)))
        digits = np.where(wrong, 0, scaled).astype(np.uint8)
    if wrong is None or not wrong.any():
        return digits, None
    return digits, int(np.argmax(wrong))


@dataclass(frozen=True)
class Block:
    """Some neighbouring bytes of every row, and the features that they hold.

    Attributes
    ----------
    start, stop : int
        The bytes of the row.
    parts : tuple of range
        Feature numbers: one range for each digit of a byte, the lowest digit first. Later ranges
        may be shorter.
    """

    start: int
    stop: int
    parts: tuple[range, ...]

    @property
    def width(self) -> int:
        return self.stop - self.start

    @property
    def features(self) -> list[int]:
        return [feature for part in self.parts for feature in part]


class Encoding(ABC):
    """A way to write the features of a row as bytes: the base class of those in `ENCODINGS`.

    A byte holds the digits of one or more features: with ``powers = (1, 5, 25)`` and K bytes a row,
    byte j is ``f[j] + 5 * f[j + K] + 25 * f[j + 2 * K]``. An encoding of another form overrides
    more methods. Encodings have no state.

    Attributes
    ----------
    name : str
        Name in manifests and in ``write_shards(encoding=)``.
    value_dtype : {"uint8", "int8"}
        Type of the values of an encoded row in the Arrow files.
    powers : tuple of int
        Factor of each digit of a byte, the lowest digit first.
    """

    name: ClassVar[str]
    value_dtype: ClassVar[str] = "uint8"
    powers: ClassVar[tuple[int, ...]] = (1,)

    def row_bytes(self, features: int) -> int:
        """Return the bytes of one encoded row of `features` features."""
        return -(-features // len(self.powers))

    def cut_blocks(self, features: int, *, features_per_block: int) -> list[Block]:
        """Cut an encoded row into blocks made of about `features_per_block` features each."""
        total, digits = self.row_bytes(features), len(self.powers)
        width = max(1, features_per_block // digits)
        blocks = []
        for start in range(0, total, width):
            stop = min(start + width, total)
            parts = tuple(
                range(min(start + digit * total, features), min(stop + digit * total, features))
                for digit in range(digits)
            )
            blocks.append(Block(start, stop, parts))
        return blocks

    def encode_block(self, columns: Sequence[Bytes], block: Block) -> Bytes:
        """Encode the digits of a block's features.

        Parameters
        ----------
        columns : sequence of uint8 arrays, each of shape (rows,)
            Digits 0..4 of ``block.features``, in that order.

        Returns
        -------
        uint8 array, shape (rows, block.width), C order
        """
        rows = len(columns[0])
        columnar = np.empty((block.width, rows), np.uint8)
        first = len(block.parts[0])
        for byte, column in zip(columnar, columns[:first], strict=True):
            byte[:] = column
        for part, power in zip(block.parts[1:], self.powers[1:], strict=True):
            for byte, column in zip(columnar, columns[first : first + len(part)], strict=False):
                byte += column * np.uint8(power)
            first += len(part)
        return np.ascontiguousarray(columnar.T)

    def encode(self, digits: Bytes) -> Bytes:
        """Encode whole rows.

        Parameters
        ----------
        digits : uint8 array, shape (rows, features)
            0..4.

        Returns
        -------
        uint8 array, shape (rows, row bytes)
            `digits` itself if each byte holds one digit.
        """
        if len(self.powers) == 1:
            return digits
        width = self.row_bytes(digits.shape[1])
        encoded = digits[:, :width].copy()
        for place, power in enumerate(self.powers[1:], 1):
            part = digits[:, place * width : (place + 1) * width]
            encoded[:, : part.shape[1]] += part * np.uint8(power)
        return encoded

    @abstractmethod
    def decoder(
        self,
        features: int,
        *,
        columns: npt.NDArray[np.int64] | None = None,
        dtype: str = "float32",
    ) -> Decoder:
        """Return a decoder for rows of `features` features. See `Decoder`."""

    @abstractmethod
    def unpack(self, ops: Any, x: Any, features: int, columns: npt.NDArray[np.int32] | None) -> Any:
        """Decode rows with the operations of Keras, on the device.

        Parameters
        ----------
        ops : module
            ``keras.ops``.
        x : uint8 tensor, shape (batch, row bytes)
        features : int
            Features of an encoded row.
        columns : int array, shape (chosen,), or None
            Numbers of the features wanted, in the order wanted; None for all.

        Returns
        -------
        uint8 tensor, shape (batch, chosen)
            Digits 0..4.
        """


class Decoder(ABC):
    """A converter from encoded rows to a batch of the chosen features and dtype.

    Each encoding has a subclass with the method `_fill`. Make one with `Encoding.decoder`.

    Parameters
    ----------
    encoding : Encoding
    features : int
        Features of an encoded row.
    columns : int array, shape (chosen,), optional
        Numbers of the features wanted, in the order wanted; None for all.
    dtype : {"float32", "float16", "int8", "packed"}
        Type of the batch. Floats are 0..1, int8 is 0..4. "packed" rows stay encoded, with all
        features.

    Attributes
    ----------
    array_dtype : str
        The NumPy dtype of the batch.
    width : int
        Number of columns of the batch.
    keeps_rows : bool
        Whether the batch is the encoded rows themselves.
    """

    # Whether each value of a row is a digit. Then it is copied and cast in one step.
    holds_digits: ClassVar[bool] = False

    def __init__(
        self,
        encoding: Encoding,
        features: int,
        *,
        columns: npt.NDArray[np.int64] | None = None,
        dtype: str = "float32",
    ) -> None:
        self.dtype = dtype
        self.array_dtype = "uint8" if dtype == PACKED else dtype
        self.keeps_rows = dtype == PACKED or (
            self.holds_digits and columns is None and dtype == "int8"
        )
        self.width = features if columns is None else len(columns)
        width = encoding.row_bytes(features)
        if dtype == PACKED:
            self.width = width
        # Chosen features are decoded in file order, and then put into the requested order.
        self._places = None if columns is None or _ascends(columns) else _ranks(columns)
        # Decode digits first: casting and scaling then run over one long array.
        is_computed = not self.holds_digits and dtype != "int8"
        self._has_digits = is_computed or dtype == "float16" or self._places is not None
        # For each digit: the bytes of the row, and the columns of their values in the batch.
        self._parts: list[tuple[Any, slice]] = []
        for digit in range(len(encoding.powers)):
            if columns is None:
                start, stop = (min(i * width, features) for i in (digit, digit + 1))
                self._parts.append((slice(stop - start), slice(start, stop)))
            else:
                ordered = np.sort(columns)
                start, stop = np.searchsorted(ordered, [digit * width, (digit + 1) * width])
                chosen = ordered[start:stop] - digit * width
                self._parts.append((chosen, slice(int(start), int(stop))))

    def __call__(
        self,
        encoded: Bytes,
        batch: npt.NDArray[Any],
        rows: npt.NDArray[np.int64] | None = None,
    ) -> None:
        """Decode rows into a batch.

        Parameters
        ----------
        encoded : uint8 array, shape (n, row bytes)
        batch : array of `dtype`, shape (rows, width)
        rows : int64 array, shape (rows,), optional
            Numbers of the encoded rows to decode; None for all.
        """
        if self.keeps_rows and rows is not None:
            encoded.take(rows, axis=0, out=batch.view(np.uint8), mode="clip")
            return
        blocks = -(-batch.size // _BLOCK_VALUES)
        step = max(1, -(-len(batch) // max(1, blocks)))
        for start in range(0, len(batch), step):
            block = batch[start : start + step]
            if rows is None:
                chosen = encoded[start : start + step]
            else:
                chosen = scratch_array("chosen", len(block), encoded.shape[1])
                encoded.take(rows[start : start + step], axis=0, out=chosen, mode="clip")
            self._decode(chosen, block)

    def _decode(self, encoded: Bytes, batch: npt.NDArray[Any]) -> None:
        # Digits have the same bytes as int8: so they are copied, and not cast.
        values: Any = batch.view(np.uint8) if self.dtype == "int8" else batch
        digits: Any = scratch_array("digits", *batch.shape) if self._has_digits else values
        self._fill(digits, encoded)
        if self._places is not None:
            ordered = scratch_array("ordered", *batch.shape)
            digits = digits.take(self._places, axis=1, out=ordered, mode="clip")
        if self.dtype == "float16":
            np.take(_FLOAT16, digits, out=batch, mode="clip")
            return
        if self._has_digits:
            values[:] = digits
        if self.dtype == "float32":
            # Cast, then scale in place: a third faster than one multiplication that casts.
            np.multiply(batch, np.float32(SCALE), out=batch)

    @abstractmethod
    def _fill(self, digits: npt.NDArray[Any], encoded: Bytes) -> None:
        """Decode rows into digits 0..4.

        Parameters
        ----------
        digits : array, shape (rows, chosen)
            uint8; or the batch itself if each value of a row is a digit.
        encoded : uint8 array, shape (rows, row bytes)
        """


def _ascends(columns: npt.NDArray[np.int64]) -> bool:
    return bool((np.diff(columns) > 0).all())


def _ranks(columns: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the place of each column among the columns in ascending order."""
    ranks = np.empty(len(columns), np.int64)
    ranks[np.argsort(columns, kind="stable")] = np.arange(len(columns))
    return ranks


def take_columns(encoded: Bytes, chosen: Any) -> Bytes:
    """Return some bytes of every row: a view of a slice, or a copy of chosen ones."""
    if isinstance(chosen, slice):
        return encoded[:, chosen]
    out = scratch_array("columns", len(encoded), len(chosen))
    return encoded.take(chosen, axis=1, out=out, mode="clip")
