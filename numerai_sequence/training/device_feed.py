"""Device feed: choose how rows reach the device, and put an `Unpack` layer before a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from ..errors import NumeraiSequenceError
from ..feeding.device import Device, find_device, gigabytes
from ..feeding.keras_compat import active_keras
from ..feeding.unpack import Unpack
from ..format.encoding import PACKED
from ..format.encodings import COMPACT

# Largest share of a device's free memory for rows. The network needs the rest.
_SHARE = 0.8
_FIRST = "train with dtype='float32' (--dtype float32)"


@dataclass(frozen=True)
class Feed:
    """The user's choice of how rows reach the device. None for the best way.

    Attributes
    ----------
    packed : bool, optional
        Whether the device unpacks the rows.
    resident : bool, optional
        Whether the rows are kept in its memory.
    """

    packed: bool | None = None
    resident: bool | None = None

    @classmethod
    def of(cls, dtype: str | None, resident: bool | None) -> Feed:
        """Return the choice of `dtype` and `resident`. See `fit_runs`."""
        return cls(None if dtype is None else dtype == PACKED, resident)


class ChosenFeed(NamedTuple):
    """The chosen way in which rows reach the device.

    Attributes
    ----------
    dtype : str
        See `NumeraiSequence`.
    resident : bool
        See `NumeraiSequence`.
    why : str
        The way and its reason, in one line.
    """

    dtype: str
    resident: bool
    why: str

    @property
    def options(self) -> dict[str, Any]:
        """The options of `NumeraiSequence`."""
        return {"dtype": self.dtype, "resident": self.resident}


def choose_feed(feed: Feed, dtype: str, rows: int, features: int) -> ChosenFeed:
    """Choose how rows reach the device.

    With an accelerator, rows are resident if they fit into its memory beside the network, and
    packed otherwise. On a CPU, they have the type `dtype`.

    Parameters
    ----------
    feed : Feed
    dtype : str
        Type that the network takes. The device unpacks rows only for float32.
    rows, features : int
        Number of all rows for the network, and of their features.

    Raises
    ------
    ValueError
        Packed or resident rows are asked for, but the network takes another type.
    """
    device = find_device(active_keras())
    is_asked = bool(feed.packed or feed.resident)
    reason = _why_not(dtype)
    if reason is not None and is_asked:
        raise ValueError(
            f"dtype, resident: found packed rows, but {reason}; leave 'packed' and resident out"
        )
    if feed.packed is False and feed.resident:
        raise ValueError(
            "resident: found True with another dtype, expected dtype='packed'; use that, or leave "
            "resident out"
        )
    if reason is not None or feed.packed is False or not (is_asked or device.is_accelerator):
        why = f"fed as {dtype} from the host: {_why_host(reason, feed, device)}"
        return ChosenFeed(dtype, False, why)
    needed = rows * COMPACT.row_bytes(features)
    sizes = f"{gigabytes(needed)} of packed rows, {_free(device)} on {device.name}"
    if feed.resident is not None:
        place = f"resident on {device.name}" if feed.resident else "packed from the host"
        return ChosenFeed(PACKED, feed.resident, f"{place}: as asked for ({sizes})")
    fits = device.free_bytes is not None and needed <= _SHARE * device.free_bytes
    if fits and device.is_accelerator:
        return ChosenFeed(PACKED, True, f"resident on {device.name}: {sizes}")
    return ChosenFeed(PACKED, False, f"packed from the host: {sizes}")


def _why_not(dtype: str) -> str | None:
    if dtype != "float32":
        return f"the network takes {dtype}"
    if not hasattr(active_keras(), "ops"):
        return "Keras is older than 3"
    return None


def _why_host(reason: str | None, feed: Feed, device: Device) -> str:
    if feed.packed is False:
        return "as asked for"
    return "no accelerator" if not device.is_accelerator else str(reason)


def _free(device: Device) -> str:
    if device.free_bytes is None:
        return "unknown free memory"
    return f"{gigabytes(device.free_bytes)} free"


def behind_unpack(core: Any, *sequences: Any) -> Any:
    """Return a network that takes packed rows: an `Unpack` layer and a core, compiled as the core.

    Parameters
    ----------
    core : Keras model
        Compiled model that takes float32.
    sequences : NumeraiSequence
        Sequences of the network. See `Unpack.of`.

    Raises
    ------
    NumeraiSequenceError
        The model's class is not one of Keras's: it may train in its own way, which would be lost.
    """
    keras = active_keras()
    if type(core).__module__.partition(".")[0] != "keras":
        raise NumeraiSequenceError(
            f"build_model: found a {type(core).__name__}, which may train differently behind an "
            f"Unpack layer, expected one of Keras's own models; {_FIRST}"
        )
    layer = Unpack.of(*sequences)
    is_resident = sequences[0].resident
    shape, kind = ((), "int32") if is_resident else ((layer.row_bytes,), "uint8")
    inputs = keras.Input(shape, dtype=kind, name="rows")
    model = keras.Model(inputs, _named(keras, core, core(layer(inputs))))
    model.compile(**core._compile_config.config)
    return model


def _named(keras: Any, core: Any, outputs: Any) -> Any:
    """Return outputs, which have their names of the core if they are several."""
    if not isinstance(outputs, (list, tuple)):
        return outputs
    return [
        keras.layers.Identity(name=name, dtype=one.dtype)(one)
        for name, one in zip(core.output_names, outputs, strict=True)
    ]
