"""Models: the networks that every contender trains, of Keras 3 or of tf_keras."""

from typing import Any

SEED = 0
HIDDEN = {"F-32-1": (32,), "F-512-256-1": (512, 256)}


def build(keras: Any, name: str, features: int, dtype: str = "float32") -> Any:
    """Return a compiled model; its metric ``rows`` counts trained rows.

    Parameters
    ----------
    keras : module
        ``keras`` or ``tf_keras``.
    name : str
        One of `HIDDEN`.
    features : int
    dtype : {"float32", "int8"}
        Of the batches; with int8 the model scales 0..4 to 0..1 itself.
    """
    keras.utils.set_random_seed(SEED)
    layers = keras.layers
    scaling = [layers.Rescaling(0.25)] if dtype == "int8" else []
    hidden = [layers.Dense(units, "relu") for units in HIDDEN[name]]
    inputs = keras.Input((features,), dtype=dtype)
    model = keras.Sequential([inputs, *scaling, *hidden, layers.Dense(1)])
    model.compile(optimizer="adam", loss="mse", metrics=[row_count(keras)])
    return model


def row_count(keras: Any) -> Any:
    """Return a metric that counts rows."""
    import tensorflow as tf

    class RowCount(keras.metrics.Metric):
        """Counts inside the model, where a batch that is only fetched does not arrive."""

        def __init__(self) -> None:
            super().__init__(name="rows", dtype="int64")
            self.total = self.add_weight(name="total", shape=(), initializer="zeros", dtype="int64")

        def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
            self.total.assign_add(tf.shape(y_true, out_type=tf.int64)[0])

        def result(self) -> Any:
            return tf.convert_to_tensor(self.total)

    return RowCount()
