"""Int8: one byte a feature, in the order of the features."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..encoding import Bytes, Decoder, Encoding, take_columns


class Int8(Encoding):
    """One byte a feature, in the order of the features."""

    name = "int8"
    value_dtype = "int8"

    def decoder(
        self,
        features: int,
        *,
        columns: npt.NDArray[np.int64] | None = None,
        dtype: str = "float32",
    ) -> Decoder:
        return _Int8Decoder(self, features, columns=columns, dtype=dtype)

    def unpack(self, ops: Any, x: Any, features: int, columns: npt.NDArray[np.int32] | None) -> Any:
        return x if columns is None else ops.take(x, columns, axis=1)


class _Int8Decoder(Decoder):
    holds_digits = True

    def _fill(self, digits: npt.NDArray[Any], encoded: Bytes) -> None:
        [(chosen, places)] = self._parts
        digits[:, places] = take_columns(encoded, chosen)
