"""Models behind `Unpack`: find the `Unpack` layer of a model, and the model of floats behind it."""

from __future__ import annotations

import sys
import weakref
from typing import Any

from ..errors import NumeraiSequenceError
from ..format.encoding import PACKED

#: The name of the variable with the rows on the device, if a Keras backend needs one.
ROWS = "numerai_sequence_rows"
#: The attribute of a model with the description of its input. See `model_input`.
NOTE = "_numerai_sequence_input"


def unpack_of(model: Any) -> Any:
    """Return the `Unpack` layer of a model, or None."""
    layers: Any = getattr(model, "_flatten_layers", None)
    if layers is None:
        return None
    return next((layer for layer in layers() if getattr(layer, "unpacks_rows", False)), None)


def are_rows(variable: Any) -> bool:
    """Return whether a variable of a model holds the rows on the device."""
    return str(variable.name).split("/")[-1].startswith(ROWS)


def takes_packed(model: Any, sequence: Any) -> bool:
    """Return whether a model has an `Unpack` layer that fits the batches of a sequence."""
    layer = unpack_of(model)
    if layer is None or sequence.dtype != PACKED:
        return False
    try:
        layer.check(sequence)
    except (NumeraiSequenceError, ValueError):
        return False
    return True


_cores: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()


def core_of(model: Any) -> Any:
    """Return the model of floats behind a model's `Unpack` layer, or the model without a layer.

    Raises
    ------
    NumeraiSequenceError
        The layer is not the first one of a Sequential or functional model.
    """
    layer = unpack_of(model)
    if layer is None:
        return model
    layers, (known, core) = list(model.layers), _cores.get(model, ([], None))
    # A Sequential may be changed.
    if len(known) != len(layers) or any(a is not b for a, b in zip(known, layers, strict=True)):
        try:
            core = _noted(_cut(model, layer), model)
        except (AttributeError, RuntimeError, TypeError, ValueError) as error:
            raise NumeraiSequenceError(
                f"model: found an Unpack layer in a {type(model).__name__}, expected it as the "
                "first layer of a Sequential or functional model; use the model of floats behind "
                "the layer"
            ) from error
        _cores[model] = layers, core
    return core


def _noted(core: Any, model: Any) -> Any:
    """Return a core with the model's description of its input, unless it has its own."""
    note = getattr(model, NOTE, None)
    if note is not None and getattr(core, NOTE, None) is None:
        setattr(core, NOTE, note)
    return core


def _cut(model: Any, layer: Any) -> Any:
    keras: Any = sys.modules["keras"]
    if layer not in model.layers:
        raise ValueError("the layer is in another layer")
    behind = [one for one in model.layers if one is not layer]
    if isinstance(model, keras.Sequential):
        if model.layers[0] is not layer:
            raise ValueError("the layer is not the first one")
        is_core = len(behind) == 1 and isinstance(behind[0], keras.Model)
        if is_core:
            return behind[0]
        width = layer.compute_output_shape((None,))[1]
        return keras.Sequential([keras.Input((width,)), *behind])
    # Operations, too, because computations before or after a model are not layers.
    steps = [one for one in model.operations if not isinstance(one, keras.layers.InputLayer)]
    if len(steps) == 2 and isinstance(steps[1], keras.Model) and len(model.inputs) == 1:
        [_, core] = steps
        if len(model.outputs) == len(core.outputs):
            return core
    core = keras.Model(_behind(model.input, layer), model.output)
    if len(model.inputs) == 1:
        return core
    width = layer.compute_output_shape((None,))[1]
    # Keras gives a new name to the input at the cut.
    inputs = {
        one.name: keras.Input((width,) if one is layer.input else one.shape[1:], name=one.name)
        for one in model.inputs
    }
    is_named = isinstance(model.input, dict)
    return keras.Model(inputs, core(inputs if is_named else [*inputs.values()]))


def _behind(inputs: Any, layer: Any) -> Any:
    """Return the inputs of a model, with the layer's output in place of its input."""
    if isinstance(inputs, dict):
        return {name: _behind(one, layer) for name, one in inputs.items()}
    if isinstance(inputs, (list, tuple)):
        return [_behind(one, layer) for one in inputs]
    return layer.output if inputs is layer.input else inputs
