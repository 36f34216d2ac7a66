"""Packed: three features a byte, in base 5.

A row of F features has ``K = ceil(F / 3)`` bytes::

    byte[j] = f[j] + 5 * f[j + K] + 25 * f[j + 2 * K]        (a feature past the end counts 0)

The thirds are contiguous, so decoding is a few vectorised operations over whole thirds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ...system.buffers import scratch_array
from ..encoding import Bytes, Decoder, Encoding, take_columns

_FIVE = np.uint8(5)
_TWENTY_FIVE = np.uint8(25)


class Packed(Encoding):
    """Three features a byte, in base 5."""

    name = "packed"
    powers = (1, 5, 25)

    def decoder(
        self,
        features: int,
        *,
        columns: npt.NDArray[np.int64] | None = None,
        dtype: str = "float32",
    ) -> Decoder:
        return _PackedDecoder(self, features, columns=columns, dtype=dtype)

    def unpack(self, ops: Any, x: Any, features: int, columns: npt.NDArray[np.int32] | None) -> Any:
        third = self.row_bytes(features)
        if columns is not None:
            x = ops.take(x, columns % third, axis=1)
            powers = np.array(self.powers, np.uint8)[columns // third]
            return _divide(ops, _divide(ops, x, powers)[0], 5)[1]
        high, rest = _divide(ops, x, 25)
        thirds = [*reversed(_divide(ops, rest, 5)), high]
        widths = [max(0, min(third, features - place * third)) for place in range(3)]
        parts = [part[:, :width] for part, width in zip(thirds, widths, strict=True) if width]
        return ops.concatenate(parts, axis=1)


class _PackedDecoder(Decoder):
    def _fill(self, digits: npt.NDArray[Any], encoded: Bytes) -> None:
        if isinstance(self._parts[0][0], slice):  # all features: three digits of every byte
            for (chosen, places), values in zip(self._parts, _split(encoded), strict=True):
                digits[:, places] = values[:, chosen]
            return
        for digit, (chosen, places) in enumerate(self._parts):
            if len(chosen):
                digits[:, places] = _DIGITS[digit](take_columns(encoded, chosen))


def _divide(ops: Any, x: Any, divisor: Any) -> tuple[Any, Any]:
    """Return the quotient and the remainder of a division of bytes, on the device."""
    divisor = ops.cast(divisor, "uint8")
    quotient = ops.floor_divide(x, divisor)
    return quotient, x - quotient * divisor


def _split(encoded: Bytes) -> tuple[Bytes, Bytes, Bytes]:
    """Split packed bytes into their low, middle and high digits, in borrowed arrays."""
    low, middle, high, product = (
        scratch_array(name, *encoded.shape) for name in ("low", "middle", "high", "product")
    )
    # NumPy's uint8 division by a scalar is vectorised, its remainder is not.
    np.floor_divide(encoded, _TWENTY_FIVE, out=high)
    np.subtract(encoded, np.multiply(high, _TWENTY_FIVE, out=product), out=low)
    np.floor_divide(low, _FIVE, out=middle)
    np.subtract(low, np.multiply(middle, _FIVE, out=product), out=low)
    return low, middle, high


def _remainder(values: Bytes) -> Bytes:
    """Return the remainder of a division by 5, in the place of the values."""
    product = np.floor_divide(values, _FIVE, out=scratch_array("product", *values.shape))
    np.multiply(product, _FIVE, out=product)
    return np.subtract(values, product, out=values)


def _low(values: Bytes) -> Bytes:
    return _remainder(values)


def _middle(values: Bytes) -> Bytes:
    return _remainder(np.floor_divide(values, _FIVE, out=values))


def _high(values: Bytes) -> Bytes:
    return np.floor_divide(values, _TWENTY_FIVE, out=values)


_DIGITS = (_low, _middle, _high)
