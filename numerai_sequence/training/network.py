"""Network: from numbers of features and targets to a compiled multi-layer perceptron."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..feeding.keras_compat import active_keras

LOSSES = ("mse", "pearson", "rank")

# Mean of a target. The signal is small beside the noise, so the network begins with the mean.
_MEAN = 0.5


def build_network(
    features: int,
    targets: Sequence[str],
    *,
    layers: Sequence[int],
    dropout: float,
    learning_rate: float,
    loss: str,
    dtype: str,
) -> Any:
    """Return a compiled Keras model with an output for each target.

    Parameters
    ----------
    features : int
        Number of features.
    targets : sequence of str
        Names of the targets, and of the outputs.
    layers : sequence of int
        Units of each hidden layer.
    dropout : float
        Dropout rate after each hidden layer.
    learning_rate : float
        Learning rate of Adam.
    loss : {"mse", "pearson", "rank"}
        Loss of each output. "pearson" and "rank" need batches of one era.
    dtype : {"float32", "float16", "int8"}
        Type of x, which the model scales to -1 to 1.
    """
    keras = active_keras()
    inputs = keras.Input((features,), name="features")
    hidden = keras.layers.Rescaling(0.5 if dtype == "int8" else 2.0, offset=-1.0)(inputs)
    for units in layers:
        hidden = keras.layers.Dense(units, activation="relu")(hidden)
        hidden = keras.layers.Dropout(dropout)(hidden)
    outputs = {
        name: keras.layers.Dense(
            1,
            kernel_initializer="zeros",
            bias_initializer=keras.initializers.Constant(_MEAN),
            # Predictions are scored in float32, whatever the layers compute in.
            dtype="float32",
            name=name,
        )(hidden)
        for name in targets
    }
    model = keras.Model(inputs, outputs if len(targets) > 1 else outputs[targets[0]])
    model.compile(keras.optimizers.Adam(learning_rate), loss=_losses(loss, targets))
    return model


def _losses(loss: str, targets: Sequence[str]) -> Any:
    if loss == "mse":
        made: Any = dict.fromkeys(targets, loss)
    else:
        from ..scoring.losses import PearsonLoss, RankCorrelationLoss

        kind = PearsonLoss if loss == "pearson" else RankCorrelationLoss
        made = {name: kind() for name in targets}
    return made if len(targets) > 1 else made[targets[0]]
