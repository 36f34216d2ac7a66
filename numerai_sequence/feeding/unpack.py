"""Unpack: a Keras layer that turns packed rows into features 0 to 1, on the model's device."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..checks import digest
from ..errors import FeatureError, NumeraiSequenceError
from ..format.encoding import PACKED, SCALE, Bytes
from ..format.encodings import COMPACT, ENCODINGS
from ..system.progress import progress_bar
from . import keras_compat
from .device import DeviceRows, check_room, compiled, find_device, materialized
from .distribution import check_one_place

_keras: Any = keras_compat.active_keras()
_CHUNK_BYTES = 64 << 20

_ENCODED = "dtype='packed'"
# Types that hold each value of a packed byte.
_BYTES = ("uint8", "int8", "int16", "uint16", "int32", "uint32", "int64")


class Unpack(_keras.layers.Layer):  # type: ignore[misc]
    """A Keras layer that turns packed rows into features 0 to 1, as the first layer of a model.

    Its input is x of a sequence with ``dtype="packed"``, uint8 (batch, row bytes). Its output is
    floats (batch, features), with the same values as ``dtype="float32"``. The float type is the
    compute type of the layer. Put the layer before a model whose input is floats, such as ``core``
    here. Save, export and predict with ``core``::

        train = NumeraiSequence(shards, dtype="packed")
        model = keras.Sequential([Unpack.of(train), core])
        model.compile("adam", "mse")
        model.fit(train, workers=4)
        core.save("model.keras")

    For sequences with ``resident=True``, the layer keeps the rows in the memory of the accelerator,
    and its input is row numbers, int32 (batch,). The rows are not weights, and are not saved.

    The layer needs Keras 3. Make it with `Unpack.of`.

    Parameters
    ----------
    encoding : {"packed", "int8"}
        Encoding of the rows.
    features : int
        Number of features in a row.
    columns : sequence of int, optional
        Numbers of the features to return, in this order. None means all.
    resident : bool
        Whether the input is row numbers instead of rows.

    Attributes
    ----------
    row_bytes : int
        Bytes of an encoded row.
    """

    # For `models_behind_unpack`, which also finds the layer of another import of this package.
    unpacks_rows = True

    def __init__(
        self,
        encoding: str,
        features: int,
        columns: Sequence[int] | None = None,
        resident: bool = False,
        **options: Any,
    ) -> None:
        if not hasattr(_keras, "ops"):
            raise NumeraiSequenceError(
                f"Unpack: found Keras {_keras.__version__}, expected Keras 3; use dtype='float32' "
                "or dtype='int8' without this layer"
            )
        super().__init__(autocast=False, **options)
        self.encoding, self.features, self.resident = encoding, features, resident
        self.columns = None if columns is None else list(map(int, columns))
        self.row_bytes = ENCODINGS[encoding].row_bytes(features)
        self._rows: DeviceRows | None = None
        self._values: Any = None

    @classmethod
    def of(cls, sequence: Any, *others: Any, name: str | None = None) -> Unpack:
        """Return the layer for a sequence, and for other sequences of the same model.

        Parameters
        ----------
        sequence, others : NumeraiSequence
            Sequences with ``dtype="packed"`` and the same features, such as the training and the
            validation sequence. With ``resident=True``, their rows are copied to the accelerator,
            each row once. Rows that an earlier layer has copied are used again.
        name : str, optional
            Name of the layer.

        Raises
        ------
        FeatureError
            The sequences differ in their features or in the encoding of their rows.
        ValueError
            A sequence has another `dtype`, or only some sequences are resident.
        NumeraiSequenceError
            The rows do not fit into the memory of the accelerator, or Keras is older than 3.
        """
        layout, is_resident = _layout_of(sequence), bool(sequence.resident)
        options: dict[str, Any] = {} if name is None else {"name": name}
        layer = cls(**layout, resident=is_resident, **options)
        for other in others:
            layer.check(other, is_held=False)
        if is_resident:
            layer.hold(sequence, *others)
        return layer

    def hold(self, *sequences: Any) -> None:
        """Copy the rows of sequences to the accelerator.

        Call it after you load or clone a model. `Unpack.of` already copies the rows.

        Parameters
        ----------
        *sequences : NumeraiSequence
            Sequences with ``resident=True``.
        """
        for sequence in sequences:
            self.check(sequence, is_held=False)
        rows = _place(sequences)
        if self._rows not in (None, rows):
            raise NumeraiSequenceError(
                "Unpack: the layer already holds other rows, and a compiled model keeps reading "
                "those; begin a new model with Unpack.of(...): the model behind it keeps its "
                "weights"
            )
        self._rows = rows

    def check(self, sequence: Any, *, is_held: bool = True) -> None:
        """Raise an error if the layer cannot read the batches of a sequence.

        Parameters
        ----------
        sequence : NumeraiSequence
        is_held : bool
            Whether the rows of a resident sequence must be on the accelerator.
        """
        layout = _layout_of(sequence)
        if bool(sequence.resident) is not self.resident:
            raise ValueError(
                f"resident: found {sequence.resident}, expected {self.resident}, as in the model's "
                "Unpack layer; make all sequences of a model with the same resident="
            )
        known = {"encoding": self.encoding, "features": self.features, "columns": self.columns}
        if layout != known:
            raise FeatureError(
                f"{sequence.shards.folder}: found rows of {_shown(layout)}, expected "
                f"{_shown(known)}, as in the model's Unpack layer, in the same order; use "
                "sequences of one shard set, or dtype='float32' and the model behind the layer"
            )
        if is_held and self.resident and sequence._device_rows is not self._rows:
            raise NumeraiSequenceError(
                f"{sequence.shards.folder}: the rows of this sequence are not on the device of the "
                "model, expected one of the sequences in Unpack.of(train, validation), not a copy, "
                "and not given to another model since; make sequences for each model, or for a "
                "loaded model, call hold(train, validation) of its layer"
            )

    @property
    def compute_dtype(self) -> str:
        """The type of x: a model that begins with this layer must not cast x to floats."""
        return "int32" if self.resident else "uint8"

    @property
    def variable_dtype(self) -> str:
        """The type of x, too, because the layer has no weights."""
        return self.compute_dtype

    @property
    def variables(self) -> list[Any]:
        """The layer's variables. On JAX, they include the rows on the device."""
        held = [] if self._rows is None else self._rows.variables
        return [*super().variables, *held]

    def call(self, x: Any) -> Any:
        """Return the features of rows, floats (batch, features)."""
        self._check_x(x)
        if self.resident:
            x = self._take(x)
        if self._values is None:
            self._values = compiled(_keras, self._values_of)
        return materialized(_keras, self._values(x))

    def _values_of(self, x: Any) -> Any:
        # Of bytes: a quarter of the memory, and exact in every type of floats.
        ops = _keras.ops
        columns = None if self.columns is None else np.array(self.columns, np.int32)
        encoding = ENCODINGS[self.encoding]
        digits = encoding.unpack(ops, ops.cast(x, "uint8"), self.features, columns)
        return ops.cast(digits, self._made_dtype) * SCALE

    @property
    def _made_dtype(self) -> str:
        return str(self.dtype_policy.compute_dtype)

    def _take(self, numbers: Any) -> Any:
        if self._rows is None:
            raise NumeraiSequenceError(
                "Unpack: the rows are not on the device, because a saved model has none; call "
                "hold() of this layer with the sequences, or make a new layer with Unpack.of"
            )
        return self._rows.take(numbers)

    def _check_x(self, x: Any) -> None:
        """Check x, which Keras has already cast to the type of the model's Input."""
        kind, shape = _keras.backend.standardize_dtype(x.dtype), tuple(x.shape)[1:]
        if self.resident:
            is_right = kind in ("int32", "int64") and not shape
            wanted = "numbers of rows, as keras.Input((), dtype='int32')"
        else:
            is_right = kind in _BYTES and shape == (self.row_bytes,)
            wanted = f"packed rows, as keras.Input(({self.row_bytes},), dtype='uint8')"
        if not is_right:
            raise FeatureError(
                f"Unpack: found x of {kind} and shape {(None, *shape)}, expected {wanted}; give "
                "floats to the model behind this layer"
            )

    def compute_output_spec(self, x: Any) -> Any:
        """Return the shape and type of the output; it needs no rows on the device."""
        self._check_x(x)
        return _keras.KerasTensor(self.compute_output_shape(x.shape), self._made_dtype)

    def compute_output_shape(self, input_shape: Any) -> tuple[Any, int]:
        """Return the shape of the output."""
        return input_shape[0], self.features if self.columns is None else len(self.columns)

    def get_config(self) -> dict[str, Any]:
        """Return the configuration of the layer, without rows."""
        known = {"encoding": self.encoding, "features": self.features, "columns": self.columns}
        return {**super().get_config(), **known, "resident": self.resident}


def carry_unpack() -> None:
    """Register the layer, so that Keras can load models that begin with it."""
    _keras.saving.register_keras_serializable(package="numerai_sequence")(Unpack)


def _layout_of(sequence: Any) -> dict[str, Any]:
    """Return the layer's arguments for the rows of a sequence."""
    if getattr(sequence, "dtype", None) != PACKED:
        found = f"dtype={sequence.dtype!r}" if hasattr(sequence, "dtype") else type(sequence)
        raise ValueError(f"Unpack: found a sequence with {found}, expected {_ENCODED}")
    if sequence.resident:  # its features alone, packed, whatever the set holds
        return {"encoding": COMPACT.name, "features": len(sequence.features), "columns": None}
    shards = sequence.shards
    columns = None if sequence.feature_numbers is None else sequence.feature_numbers.tolist()
    return {"encoding": shards.encoding, "features": len(shards.features), "columns": columns}


def _shown(layout: dict[str, Any]) -> str:
    columns = layout["columns"]
    chosen = "all" if columns is None else f"{len(columns):,} chosen"
    return f"{layout['features']:,} features in encoding {layout['encoding']!r}, {chosen}"


_on_device: weakref.WeakSet[DeviceRows] = weakref.WeakSet()


def _place(sequences: Sequence[Any]) -> DeviceRows:
    """Return the rows of sequences on the device, copied there if they are not yet."""
    features = sequences[0].features
    for sequence in sequences:
        if sequence.features != features:
            raise FeatureError(
                f"{sequence.shards.folder}: found other features than in the first sequence, or "
                "another order, expected the same list; name the same features="
            )
    parts = {_key(sequence): sequence for sequence in sequences}
    there = (rows for rows in _on_device if rows.are_there and {*parts} <= {*rows.starts})
    held = next(there, None)
    if held is None:
        held = _load(parts, COMPACT.row_bytes(len(features)))
        _on_device.add(held)
    for sequence in sequences:
        sequence._hold(held, held.starts[_key(sequence)])
    return held


def _key(sequence: Any) -> str:
    """Return a key of the rows of a sequence and of their features."""
    named = digest([sequence.shards.fingerprint, sequence.features])
    return f"{named} {sequence._selection.digest()}"


def _load(parts: Mapping[str, Any], width: int) -> DeviceRows:
    """Copy the rows of sequences to the device, one sequence after the other."""
    check_one_place()
    starts, rows = {}, 0
    for key, sequence in parts.items():
        starts[key], rows = rows, rows + sequence.rows
    gc.collect()  # the rows of a deleted model may still be on the device
    check_room(find_device(_keras), rows, width)
    return DeviceRows(_keras, rows, width, _chunks([*parts.values()], rows, width), starts)


def _chunks(sequences: Sequence[Any], rows: int, width: int) -> Iterator[Bytes]:
    """Yield the packed rows of sequences, one after the other."""
    step = max(1, _CHUNK_BYTES // width)
    with progress_bar(rows, "to the device", rows * width > 16 * _CHUNK_BYTES) as bar:
        for sequence in sequences:
            shards, selection = sequence.shards, sequence._selection
            encoding, columns = ENCODINGS[shards.encoding], sequence.feature_numbers
            is_plain = encoding is COMPACT and columns is None
            decode = encoding.decoder(len(shards.features), columns=columns, dtype="int8")
            for start in range(0, selection.rows, step):
                numbers = np.arange(start, min(start + step, selection.rows), dtype=np.int64)
                encoded, _ = selection.gather(numbers, ())
                if not is_plain:
                    digits = np.empty((len(numbers), decode.width), np.int8)
                    decode(encoded, digits)
                    encoded = COMPACT.encode(digits.view(np.uint8))
                yield encoded
                bar.update(len(numbers))
