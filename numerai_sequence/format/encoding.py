"""Encoding: feature values 0..4 become the bytes of a row, and come back as a batch.

``int8``
    One byte a feature, in the order of the features.
``packed``
    Three features a byte, in base 5. A row of F features has ``K = ceil(F / 3)`` bytes::

        byte[j] = f[j] + 5 * f[j + K] + 25 * f[j + 2 * K]        (a feature past the end counts 0)

    The thirds are contiguous, so decoding is a few vectorised operations over whole thirds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..system.buffers import borrow

ENCODINGS = ("packed", "int8")
DTYPES = ("float32", "float16", "int8")
#: Of a batch that holds the rows as they are in the file, for a model that unpacks them.
PACKED = "packed"
LARGEST = 4
SCALE = 0.25  # 0..4 to Numerai's own 0..1
MIDDLE = 2  # of 0..4: what Numerai writes for a feature that is missing in an era


Bytes = npt.NDArray[np.uint8]

# Decoded at a time: what one step writes is still in the cache when the next one reads it.
_BLOCK_VALUES = 1 << 19

_FIVE = np.uint8(5)
_TWENTY_FIVE = np.uint8(25)
# NumPy's conversions to float16 are slow; a table of the five values is four times as fast.
_FLOAT16 = (np.arange(LARGEST + 1) * SCALE).astype(np.float16)


def row_bytes(encoding: str, features: int) -> int:
    """Return the bytes of one encoded row of `features` features."""
    return -(-features // 3) if encoding == "packed" else features


def value_dtype(encoding: str) -> str:
    """Return the dtype of the values of an encoded row: packed bytes are unsigned."""
    return "uint8" if encoding == "packed" else "int8"


def to_digits(values: npt.NDArray[Any], *, is_scaled: bool = True) -> tuple[Bytes, int | None]:
    """Turn one column of feature values, as Numerai has written them, into digits.

    Parameters
    ----------
    values : array, shape (rows,)
        Integers 0..4, or floats in {0, .25, .5, .75, 1}.
    is_scaled : bool
        False: floats are 0..4 too.

    Returns
    -------
    digits : uint8 array, shape (rows,)
        0..4; a view of `values` where that is possible.
    invalid : int or None
        The first row whose value is none of these. The digits are of no use then.
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
    """Some neighbouring bytes of every row, and the features that they are made of.

    Attributes
    ----------
    start, stop : int
        The bytes of the row.
    thirds : tuple of range
        Feature numbers: one range for ``int8``; for ``packed`` those of the low, the middle and
        the high digit, of which the later ones may be shorter.
    """

    start: int
    stop: int
    thirds: tuple[range, ...]

    @property
    def width(self) -> int:
        return self.stop - self.start

    @property
    def features(self) -> list[int]:
        return [feature for third in self.thirds for feature in third]


def cut_blocks(encoding: str, features: int, *, features_per_block: int) -> list[Block]:
    """Cut an encoded row into blocks made of about `features_per_block` features each."""
    total = row_bytes(encoding, features)
    digits = 3 if encoding == "packed" else 1
    width = max(1, features_per_block // digits)
    blocks = []
    for start in range(0, total, width):
        stop = min(start + width, total)
        thirds = tuple(
            range(min(start + digit * total, features), min(stop + digit * total, features))
            for digit in range(digits)
        )
        blocks.append(Block(start, stop, thirds))
    return blocks


def encode_block(columns: Sequence[Bytes], block: Block) -> Bytes:
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
    low = len(block.thirds[0])
    for byte, column in zip(columnar, columns[:low], strict=True):
        byte[:] = column
    first, power = low, _FIVE
    for third in block.thirds[1:]:
        for byte, column in zip(columnar, columns[first : first + len(third)], strict=False):
            byte += column * power
        first, power = first + len(third), _TWENTY_FIVE
    return np.ascontiguousarray(columnar.T)


def pack(digits: Bytes) -> Bytes:
    """Encode rows of digits as ``packed``.

    Parameters
    ----------
    digits : uint8 array, shape (rows, features)
        0..4.

    Returns
    -------
    uint8 array, shape (rows, row bytes)
    """
    third = row_bytes("packed", digits.shape[1])
    packed = digits[:, :third].copy()
    for start, power in ((third, _FIVE), (2 * third, _TWENTY_FIVE)):
        part = digits[:, start : start + third]
        packed[:, : part.shape[1]] += part * power
    return packed


class Decoder:
    """Turns encoded rows into one batch: chosen features, in the dtype asked for.

    Parameters
    ----------
    encoding : {"packed", "int8"}
    features : int
        Features of an encoded row.
    columns : int array, shape (chosen,), optional
        Numbers of the features wanted, in the order wanted; None for all.
    dtype : {"float32", "float16", "int8", "packed"}
        Floats are scaled to 0..1, int8 is 0..4. Packed rows are left as they are, with all
        features.

    Attributes
    ----------
    array_dtype : str
        The NumPy dtype of the batch.
    width : int
        Its columns.
    keeps_rows : bool
        Whether the batch is the encoded rows themselves.
    """

    def __init__(
        self,
        encoding: str,
        features: int,
        *,
        columns: npt.NDArray[np.int64] | None = None,
        dtype: str = "float32",
    ) -> None:
        self.dtype = dtype
        self.array_dtype = "uint8" if dtype == PACKED else dtype
        self.keeps_rows = dtype == PACKED or (
            encoding == "int8" and columns is None and dtype == "int8"
        )
        self.width = features if columns is None else len(columns)
        if dtype == PACKED:
            self.width = row_bytes(encoding, features)
        self._packed = encoding == "packed"
        third = row_bytes(encoding, features)
        # Chosen features are decoded in their own order, and then put into the one asked for.
        self._places = None if columns is None or _ascends(columns) else _ranks(columns)
        # Digits first: what else has to be done to them is then done in one long piece.
        is_packed_float = self._packed and dtype != "int8"
        self._has_digits = is_packed_float or dtype == "float16" or self._places is not None
        # For each digit: which bytes of the row, and where their values go in the batch.
        self._parts: list[tuple[Any, slice]] = []
        for digit in range(3 if self._packed else 1):
            if columns is None:
                start, stop = (min(i * third, features) for i in (digit, digit + 1))
                self._parts.append((slice(stop - start), slice(start, stop)))
            else:
                ordered = np.sort(columns)
                start, stop = np.searchsorted(ordered, [digit * third, (digit + 1) * third])
                chosen = ordered[start:stop] - digit * third
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
            Which of the encoded rows; None for all of them.
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
                chosen = borrow("chosen", len(block), encoded.shape[1])
                encoded.take(rows[start : start + step], axis=0, out=chosen, mode="clip")
            self._decode(chosen, block)

    def _decode(self, encoded: Bytes, batch: npt.NDArray[Any]) -> None:
        # Digits have the same bytes as int8: so they are copied, and not cast.
        values: Any = batch.view(np.uint8) if self.dtype == "int8" else batch
        digits: Any = borrow("digits", *batch.shape) if self._has_digits else values
        self._fill(digits, encoded)
        if self._places is not None:
            ordered = borrow("ordered", *batch.shape)
            digits = digits.take(self._places, axis=1, out=ordered, mode="clip")
        if self.dtype == "float16":
            np.take(_FLOAT16, digits, out=batch, mode="clip")
            return
        if self._has_digits:
            values[:] = digits
        if self.dtype == "float32":
            # Cast, then scale in place: a third faster than one multiplication that casts.
            np.multiply(batch, np.float32(SCALE), out=batch)

    def _fill(self, digits: npt.NDArray[Any], encoded: Bytes) -> None:
        if not self._packed:
            [(chosen, places)] = self._parts
            digits[:, places] = _columns(encoded, chosen)
            return
        if isinstance(self._parts[0][0], slice):  # all features: three digits of every byte
            for (chosen, places), values in zip(self._parts, _split(encoded), strict=True):
                digits[:, places] = values[:, chosen]
            return
        for digit, (chosen, places) in enumerate(self._parts):
            if len(chosen):
                digits[:, places] = _DIGITS[digit](_columns(encoded, chosen))


def _ascends(columns: npt.NDArray[np.int64]) -> bool:
    return bool((np.diff(columns) > 0).all())


def _ranks(columns: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the place of each column among the columns in ascending order."""
    ranks = np.empty(len(columns), np.int64)
    ranks[np.argsort(columns, kind="stable")] = np.arange(len(columns))
    return ranks


def _columns(encoded: Bytes, chosen: Any) -> Bytes:
    """Return some bytes of every row: a view of a slice of them, or a copy of chosen ones."""
    if isinstance(chosen, slice):
        return encoded[:, chosen]
    out = borrow("columns", len(encoded), len(chosen))
    return encoded.take(chosen, axis=1, out=out, mode="clip")


def _split(encoded: Bytes) -> tuple[Bytes, Bytes, Bytes]:
    """Split packed bytes into their low, middle and high digits, in borrowed arrays."""
    low, middle, high, product = (
        borrow(name, *encoded.shape) for name in ("low", "middle", "high", "product")
    )
    # NumPy's uint8 division by a scalar is vectorised, its remainder is not.
    np.floor_divide(encoded, _TWENTY_FIVE, out=high)
    np.subtract(encoded, np.multiply(high, _TWENTY_FIVE, out=product), out=low)
    np.floor_divide(low, _FIVE, out=middle)
    np.subtract(low, np.multiply(middle, _FIVE, out=product), out=low)
    return low, middle, high


def _remainder(values: Bytes) -> Bytes:
    """Return the remainder of a division by 5, in the place of the values."""
    product = np.floor_divide(values, _FIVE, out=borrow("product", *values.shape))
    np.multiply(product, _FIVE, out=product)
    return np.subtract(values, product, out=values)


def _low(values: Bytes) -> Bytes:
    return _remainder(values)


def _middle(values: Bytes) -> Bytes:
    return _remainder(np.floor_divide(values, _FIVE, out=values))


def _high(values: Bytes) -> Bytes:
    return np.floor_divide(values, _TWENTY_FIVE, out=values)


_DIGITS = (_low, _middle, _high)
