"""Networks: small Keras models whose output says which row they saw, on whichever Keras runs."""

from __future__ import annotations

import numpy as np
from numerai_tables import DIGITS

from numerai_sequence.feeding.keras_compat import active_keras

keras = active_keras()


def row_kernel(features, scale=4):
    """Weights that make a row's number of its digits; exact in float32."""
    kernel = np.zeros((features, 1), np.float32)
    kernel[:DIGITS, 0] = scale * 5.0 ** np.arange(DIGITS)
    return kernel


def model_of(*kernels, names=None, as_dict=False):
    """A functional model with one Dense output for each kernel."""
    names = names or [None] * len(kernels)
    inputs = keras.layers.Input((len(kernels[0]),))
    layers = [
        keras.layers.Dense(k.shape[1], use_bias=False, name=n)
        for k, n in zip(kernels, names, strict=True)
    ]
    outputs = [layer(inputs) for layer in layers]
    for layer, kernel in zip(layers, kernels, strict=True):
        layer.set_weights([kernel])
    if as_dict:
        return keras.Model(inputs, dict(zip(names, outputs, strict=True)))
    return keras.Model(inputs, outputs if len(outputs) > 1 else outputs[0])


def row_model(features=14, scale=4):
    """A model that predicts each row's number."""
    return model_of(row_kernel(features, scale))
