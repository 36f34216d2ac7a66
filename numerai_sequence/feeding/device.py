"""Device: find Keras's device and its free memory, and keep rows there."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from ..errors import NumeraiSequenceError
from ..format.encoding import Bytes
from ..reading.memory_budget import available_memory
from .models_behind_unpack import ROWS


class Device(NamedTuple):
    """The device on which Keras computes.

    Attributes
    ----------
    name : str
        Name of the device, such as "NVIDIA H200" or "CPU".
    is_accelerator : bool
    free_bytes : int or None
        Free memory of the device. None if it is unknown.
    """

    name: str
    is_accelerator: bool
    free_bytes: int | None


def find_device(keras: Any) -> Device:
    """Return the device on which a Keras computes."""
    backend = backend_of(keras)
    found = _FINDERS[backend]() if backend in _FINDERS else None
    return found or Device("CPU", False, available_memory())


def backend_of(keras: Any) -> str:
    """Return the name of a Keras's backend; Keras 2 has only one."""
    return str(keras.backend.backend()) if hasattr(keras, "ops") else "tensorflow"


def _find_jax() -> Device | None:
    import jax

    device = jax.local_devices()[0]
    if device.platform == "cpu":
        return None
    memory = device.memory_stats() or {}
    free = memory.get("bytes_limit", 0) - memory.get("bytes_in_use", 0)
    return Device(str(device.device_kind), True, free or None)


def _find_torch() -> Device | None:
    import torch

    if torch.cuda.is_available():
        return Device(torch.cuda.get_device_name(), True, torch.cuda.mem_get_info()[0])
    if torch.backends.mps.is_available():
        free = torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
        return Device("Apple MPS", True, free)
    return None


def _find_tensorflow() -> Device | None:
    import tensorflow as tf

    found = tf.config.list_logical_devices("GPU")
    if not found:
        return None
    name = found[0].name.removeprefix("/device:")
    [physical, *_] = tf.config.list_physical_devices("GPU")
    details = tf.config.experimental.get_device_details(physical)
    return Device(details.get("device_name", name), True, _tensorflow_free(name))


def _tensorflow_free(name: str) -> int | None:
    """Return the free part of the memory that TensorFlow has reserved."""
    import tensorflow as tf
    from tensorflow.python.client import device_lib

    limits = {one.name: one.memory_limit for one in device_lib.list_local_devices()}
    limit = limits.get(f"/device:{name}")
    if limit is None:
        return None
    return int(limit - tf.config.experimental.get_memory_info(name)["current"])


_FINDERS = {"jax": _find_jax, "torch": _find_torch, "tensorflow": _find_tensorflow}


def compiled(keras: Any, function: Any) -> Any:
    """Return a function of tensors that XLA compiles as a whole, also with TensorFlow.

    TensorFlow alone reads and writes memory in each operation, and has no kernels for bytes on a
    GPU. JAX compiles the whole step already.
    """
    if backend_of(keras) != "tensorflow":
        return function
    return sys.modules["tensorflow"].function(function, jit_compile=True)


def materialized(keras: Any, tensor: Any) -> Any:
    """Return a tensor that the compiler computes separately, as if it were an input.

    XLA would fuse it with the matrix product after it, and so add up in another order.
    """
    if backend_of(keras) != "jax":
        return tensor
    return sys.modules["jax"].lax.optimization_barrier(tensor)


class DeviceRows:
    """Rows in the memory of the device, which several models and sequences may share.

    They are not weights: they are not saved, and `get_weights` does not return them.

    Parameters
    ----------
    keras : module
        Keras 3.
    rows, width : int
        Number of rows, and bytes of each.
    chunks : iterator of uint8 array, shape (n, width)
        Rows in order. An array may be overwritten when the next one is read.
    starts : mapping of str to int
        First row of each part, by the part's key.
    """

    def __init__(
        self,
        keras: Any,
        rows: int,
        width: int,
        chunks: Iterator[Bytes],
        starts: Mapping[str, int],
    ) -> None:
        self.starts = starts
        self._backend = backend_of(keras)
        #: Variables that JAX gets with each step, or it would compile the rows as a constant.
        self.variables: list[Any] = []
        array = _PUT[self._backend]((rows, width), chunks)
        if self._backend == "jax":
            made = keras.Variable(
                lambda shape, dtype: array,
                shape=(rows, width),
                dtype="uint8",
                trainable=False,
                name=ROWS,
            )
            self.variables.append(made)
        self._array: Any = None if self.variables else array

    @property
    def are_there(self) -> bool:
        """Whether the rows can be read: on JAX an interrupted step deletes them."""
        return not any(variable.value.is_deleted() for variable in self.variables)

    def take(self, numbers: Any) -> Any:
        """Return rows by their numbers: a uint8 tensor, shape (batch, width)."""
        if self._backend == "jax":
            # Numbers are in range, so JAX need not check them.
            rows = self.variables[0].value
            return rows.at[numbers].get(mode="promise_in_bounds")
        if self._backend == "torch":
            return self._array.index_select(0, numbers.long())
        # A gather of a tensor has no kernel for bytes on a GPU; that of a variable has.
        return sys.modules["tensorflow"].gather(self._array, numbers)


def _put_jax(shape: tuple[int, int], chunks: Iterator[Bytes]) -> Any:
    from functools import partial

    import jax

    @partial(jax.jit, donate_argnums=0)
    def write(rows: Any, chunk: Any, start: Any) -> Any:
        return jax.lax.dynamic_update_slice_in_dim(rows, chunk, start, 0)

    rows = jax.numpy.zeros(shape, np.uint8)
    for start, chunk in _with_starts(chunks):
        rows = write(rows, chunk, start).block_until_ready()  # before the chunk changes
    return rows


def _put_torch(shape: tuple[int, int], chunks: Iterator[Bytes]) -> Any:
    import torch

    place = sys.modules["keras"].ops.zeros(1).device
    rows = torch.empty(shape, dtype=torch.uint8, device=place)
    for start, chunk in _with_starts(chunks):
        rows[start : start + len(chunk)] = torch.from_numpy(chunk)
    return rows


def _put_tensorflow(shape: tuple[int, int], chunks: Iterator[Bytes]) -> Any:
    import tensorflow as tf

    rows = tf.Variable(tf.zeros(shape, tf.uint8), trainable=False, name=ROWS)
    for start, chunk in _with_starts(chunks):
        # To assign to a slice of the variable would read all of it first.
        numbers = np.arange(start, start + len(chunk), dtype=np.int32)
        tf.raw_ops.ResourceScatterUpdate(resource=rows.handle, indices=numbers, updates=chunk)
    return rows


_PUT = {"jax": _put_jax, "torch": _put_torch, "tensorflow": _put_tensorflow}


def _with_starts(chunks: Iterator[Bytes]) -> Iterator[tuple[int, Bytes]]:
    start = 0
    for chunk in chunks:
        yield start, chunk
        start += len(chunk)


def check_room(device: Device, rows: int, row_bytes: int) -> None:
    """Raise a `NumeraiSequenceError` if rows do not fit into a device's free memory."""
    needed, free = rows * row_bytes, device.free_bytes
    if free is not None and needed > free:
        raise NumeraiSequenceError(
            f"resident: {rows:,} rows of {row_bytes:,} packed bytes take {gigabytes(needed)}, but "
            f"{device.name} has {gigabytes(free)} free; choose a smaller feature set with "
            "features=, fewer eras with eras=, or leave resident=True out: with dtype='packed' "
            "alone, rows come from the host"
        )


def gigabytes(size: int) -> str:
    """Return a size in bytes in the form of a message."""
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"
