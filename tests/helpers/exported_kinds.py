"""Exported kinds: a small trained model of each kind that participants export, by its name.

Each is a function that returns a model of 14 features whose value is within 0 and 1, and the
options of ``export_predict`` that it needs. They are for Keras 3.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from networks import keras

FEATURES = [f"feature_{number:03d}" for number in range(14)]
KINDS = {}
L = keras.layers
ops = getattr(keras, "ops", None)


def kind(make):
    KINDS[make.__name__] = make
    return make


def live_frame(rows):
    """Return live data as Numerai gives them out."""
    digits = np.random.default_rng(9).integers(0, 5, (rows, len(FEATURES)), np.int8)
    ids = pd.Index([f"n{number:05d}" for number in range(rows)], name="id")
    return pd.DataFrame(digits, columns=FEATURES, index=ids).assign(era="X")


def predicted(model, live, options):
    """Return the values of the output that the options of ``export_predict`` name."""
    digits = live[FEATURES].to_numpy()
    x = digits if options.get("dtype") == "int8" else (digits / 4).astype(np.float32)
    found = model.predict_on_batch(x)
    if isinstance(found, dict):
        name, _, place = options.get("output", "b_0").partition("_")
        return np.asarray(found[name])[:, int(place or 0)]
    if isinstance(found, list):
        found = found[model.output_names.index(options["output"]) if found[1:] else 0]
    return np.asarray(found).reshape(-1)


def inputs(**options):
    return keras.Input((len(FEATURES),), **options)


def value(x, **options):
    return L.Dense(1, activation="sigmoid", **options)(x)


def trained(model, dtype="float32"):
    """Give each weight a value that is not its first one, statistics and all."""
    digits = np.random.default_rng(1).integers(0, 5, (256, len(FEATURES)))
    x = digits.astype(dtype) if dtype == "int8" else (digits / 4).astype(dtype)
    model(x[:8])
    rng = np.random.default_rng(2)
    for weight in model.trainable_weights:
        weight.assign(rng.normal(0, 0.5, weight.shape).astype(np.float32))
    for _ in range(3):
        model(x, training=True)
    return model


@kind
def dense():
    i = inputs()
    hidden = L.Dense(16, "relu", kernel_regularizer="l2", kernel_constraint="non_neg")(i)
    return trained(keras.Model(i, value(hidden))), {}


@kind
def sequential():
    return trained(keras.Sequential([inputs(), L.Dense(8, "gelu"), L.Dense(1, "sigmoid")])), {}


@kind
def sequential_without_an_input():
    return trained(keras.Sequential([L.Dense(8, "elu"), L.Dense(1, "sigmoid")])), {}


@kind
def batch_normalization():
    i = inputs()
    x = L.BatchNormalization()(L.Dense(8, use_bias=False)(L.BatchNormalization()(i)))
    return trained(keras.Model(i, value(L.ReLU()(x)))), {}


@kind
def dropout():
    i = inputs()
    x = L.GaussianNoise(0.1)(L.Dropout(0.5, seed=3)(L.Dense(8, "selu")(L.GaussianDropout(0.1)(i))))
    return trained(
        keras.Model(i, value(L.AlphaDropout(0.1)(L.SpatialDropout1D(0.1)(x[:, None]))[:, 0]))
    ), {}


@kind
def activation():
    i = inputs()
    x = i
    for name in ("relu", "swish", "tanh", "softplus", keras.activations.mish, "leaky_relu"):
        x = L.Activation(name)(L.Dense(8)(x))
    x = L.PReLU()(L.LeakyReLU(0.1)(L.ELU()(L.Softmax()(x))))
    return trained(keras.Model(i, value(x))), {}


@kind
def layer_normalization():
    i = inputs()
    x = L.LayerNormalization()(L.Dense(8)(i))
    x = L.GroupNormalization(2)(L.UnitNormalization()(x))
    return trained(keras.Model(i, value(L.RMSNormalization()(x)))), {}


@kind
def attention_over_an_era():
    i = inputs()
    x = ops.expand_dims(L.Dense(8, "relu")(i), axis=0)
    x = L.Add()([x, L.MultiHeadAttention(2, 4, dropout=0.1)(x, x)])
    return trained(keras.Model(i, value(ops.squeeze(L.LayerNormalization()(x), axis=0)))), {
        "batch_by": "era"
    }


@kind
def whole_era_as_one_row():
    i = inputs()
    x = ops.reshape(L.Dense(8)(i), (1, -1, 8))
    x = L.GroupQueryAttention(4, 4, 2)(x, x) if hasattr(L, "GroupQueryAttention") else x
    return trained(keras.Model(i, value(L.Attention(use_scale=True)([x, x])))), {"batch_by": "era"}


@kind
def several_outputs():
    i = inputs()
    x = L.Dense(8, "relu")(i)
    outputs = [value(x, name="target_a"), value(x, name="target_b"), L.Dense(3)(x)]
    return trained(keras.Model(i, outputs)), {"output": "target_b"}


@kind
def outputs_in_a_dict():
    i = inputs()
    x = L.Dense(8, "relu")(i)
    outputs = {"b": L.Dense(2, "sigmoid")(x), "a": value(x)}
    return trained(keras.Model(i, outputs)), {"output": "b_1"}


@kind
def a_list_of_one_output():
    i = inputs()
    return trained(keras.Model([i], [value(L.Dense(8, "relu")(i))])), {}


@kind
def int8_input():
    i = inputs(dtype="int8")
    x = L.Rescaling(0.25, offset=-0.5)(ops.cast(i, "float32"))
    return trained(keras.Model(i, value(L.Dense(8, "relu")(x))), "int8"), {"dtype": "int8"}


@kind
def embedding():
    i = inputs(dtype="int8")
    x = L.Flatten()(L.Embedding(5, 3, embeddings_regularizer="l2")(i))
    y = L.CategoryEncoding(5, output_mode="multi_hot")(ops.cast(i, "int32"))
    return trained(keras.Model(i, value(L.Concatenate()([x, y]))), "int8"), {"dtype": "int8"}


@kind
def mixed_precision():
    return _of_policy("mixed_float16")


@kind
def mixed_bfloat16():
    return _of_policy("mixed_bfloat16")


@kind
def pure_float16():
    return _of_policy("float16")


@kind
def pure_bfloat16():
    return _of_policy("bfloat16")


def _of_policy(name):
    i = inputs(dtype="float32")
    x = L.Dense(8, "relu", dtype=name)(i)
    x = L.Dropout(0.1, dtype=name)(L.BatchNormalization(dtype=name)(x))
    return trained(keras.Model(i, value(x, dtype="float32"))), {}


@kind
def normalization():
    i = inputs()
    layer = L.Normalization()
    layer.adapt(np.random.default_rng(4).random((100, len(FEATURES)), np.float32))
    given = L.Normalization(mean=0.4, variance=0.5)
    return trained(keras.Model(i, value(given(L.Dense(8)(layer(i)))))), {}


@kind
def residual():
    i = inputs()
    x = L.Dense(8)(i)
    for _ in range(3):
        y = L.Dense(8, "silu")(L.LayerNormalization(epsilon=1e-5)(x))
        x = L.Add()([x, L.Multiply()([y, L.Dense(8, "sigmoid")(y)])])
    x = L.Concatenate()([L.Subtract()([x, y]), L.Maximum()([x, y]), L.Average()([x, y])])
    return trained(keras.Model(i, value(x))), {}


@kind
def nested():
    i = inputs()
    block = keras.Sequential([L.Dense(14, "relu"), L.BatchNormalization()], name="block")
    j = keras.Input((14,))
    inner = keras.Model(j, L.Dense(14, "tanh")(L.Normalization(mean=0.1, variance=2.0)(j)))
    return trained(keras.Model(i, value(inner(block(block(inner(i))))))), {}


@kind
def subclass_with_its_own_training():
    class Own(keras.Model):
        def train_step(self, *data):
            raise NotImplementedError

    i = inputs()
    return trained(Own(i, {"b": value(L.Dense(8, "relu")(i))})), {}


@kind
def shared_layer():
    i = inputs()
    layer = L.Dense(7, "relu")
    return trained(keras.Model(i, value(layer(i[:, :7]) + layer(i[:, 7:])))), {}


@kind
def convolution():
    i = inputs()
    x = L.Conv1D(4, 3, padding="same", activation="relu")(L.Reshape((14, 1))(i))
    x = L.SeparableConv1D(4, 3)(L.MaxPooling1D(2)(x))
    x = L.Concatenate()([L.GlobalAveragePooling1D()(x), L.GlobalMaxPooling1D()(x)])
    return trained(keras.Model(i, value(x))), {}


@kind
def recurrent():
    i = inputs()
    x = L.Bidirectional(L.LSTM(3, return_sequences=True))(L.Reshape((7, 2))(i))
    x = L.GRU(3)(L.TimeDistributed(L.Dense(4))(L.SimpleRNN(3, return_sequences=True)(x)))
    return trained(keras.Model(i, value(x))), {}


@kind
def operations():
    i = inputs()
    x = L.Dense(8)(i)
    y = ops.concatenate([x[:, :4] * 2 - 1, ops.abs(x[..., 4:]) ** 0.5], axis=-1)
    y = ops.where(y > 0.1, y, ops.zeros_like(y)) + ops.mean(x, axis=1, keepdims=True)
    y = ops.stack([ops.clip(y, -1, 1), ops.softmax(y), ops.relu(y), ops.tanh(y)], axis=1)
    y = ops.transpose(y, (0, 2, 1)) / ops.max(ops.square(y) + 1.0)
    y = ops.einsum("rab,rac->rbc", y, y)
    y = ops.reshape(y, (-1, 16)) + ops.sum(ops.exp(-x), axis=1, keepdims=True)
    y = ops.matmul(y, ops.ones((16, 4))) + ops.var(y, axis=-1, keepdims=True)
    return trained(keras.Model(i, value(ops.log1p(ops.abs(ops.split(y, 2, axis=1)[1]))))), {
        "batch_by": "era"
    }


@kind
def own_start():
    """Functions and classes of the user's own that matter in training alone."""

    def start(shape, dtype=None):
        return ops.ones(shape, dtype)

    class Small(keras.constraints.Constraint):
        def __call__(self, w):
            return w * 0.9

    class Penalty(keras.regularizers.Regularizer):
        def __call__(self, w):
            return ops.sum(w)

        def get_config(self):
            return {}

    i = inputs()
    x = L.Dense(8, "relu", kernel_initializer=start, kernel_constraint=Small())(i)
    return trained(keras.Model(i, value(x, kernel_regularizer=Penalty()))), {}


@kind
def discretization():
    i = inputs()
    layer = L.Discretization(num_bins=3, output_mode="int")
    layer.adapt(np.random.default_rng(4).random((100, len(FEATURES)), np.float32))
    x = L.Flatten()(L.Embedding(4, 2)(layer(i)))
    return trained(keras.Model(i, value(x))), {}


@kind
def einsum_dense():
    i = inputs()
    x = L.EinsumDense("abc,cd->abd", output_shape=(2, 3), bias_axes="d")(L.Reshape((2, 7))(i))
    x = L.SpectralNormalization(L.Dense(4))(L.Flatten()(L.Permute((2, 1))(x)))
    return trained(keras.Model(i, value(L.Dot(1)([x, x])))), {}
