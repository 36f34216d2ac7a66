"""Resumed fit: a training that goes on where it had stopped, and may kill itself at a batch.

When it has come to its end, it writes its weights to ``end.npz`` beside the state.
"""

import os
import signal
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from numerai_sequence import NumeraiSequence, Resume

EPOCHS, BATCH_ROWS, EVERY = 3, 50, 7


class Kill(keras.callbacks.Callback):
    """Kills the process after so many batches, with no chance to tidy up."""

    def __init__(self, batches: int) -> None:
        super().__init__()
        self.left = batches

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if not self.left:
            os.kill(os.getpid(), signal.SIGKILL)


def main(shards: Path, state: Path, workers: int, batches: int) -> None:
    """Train, and kill this process after so many batches, 0 for never."""
    keras.utils.set_random_seed(1)
    tf.config.experimental.enable_op_determinism()
    sequence = NumeraiSequence(shards, BATCH_ROWS, seed=2)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((len(sequence.features),)),
            layers.Dense(16, activation="relu"),
            layers.Dropout(0.3),
            layers.Dense(1),
        ]
    )
    model.compile("adam", "mse")
    callbacks = [Resume(state, every=EVERY), Kill(batches)]
    model.fit(sequence, epochs=EPOCHS, workers=workers, verbose=0, callbacks=callbacks)
    np.savez(state / "end.npz", *model.get_weights())
