"""Resume: a Keras callback that continues an interrupted training at the same batch."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from ..batching.epoch import Position
from ..checks import whole_number
from ..feeding import keras_compat
from ..feeding.epoch_callback import Fit, listed
from .checkpoints import Checkpoints
from .training_state import kept

_BASES: Any = keras_compat.callback_bases()


class Resume(*_BASES):  # type: ignore[misc]
    """A Keras callback that saves the progress of ``fit``, and resumes an interrupted training.

    Use it as ``model.fit(sequence, epochs=10, callbacks=[Resume("state/")])``. If the process is
    killed, run the same script again. ``fit`` continues with the batch after the last saved one,
    and trains the remaining batches in the same order. With deterministic operations, the final
    weights equal the weights of an uninterrupted training, bit for bit. With tf_keras and Keras 2,
    the seeds of dropout are not restored. If all `epochs` are already trained, ``fit`` trains
    nothing and gives a `UserWarning`. To train more, use a larger `epochs`.

    The state has the model's weights, the optimizer's weights and learning rate, the seeds of the
    layers, and the sequence's `sample_weight`. At the end of an epoch, the state is saved after all
    other callbacks have run. In the resumed epoch, metrics are computed from the remaining batches
    only. The state of other callbacks, such as the patience of `EarlyStopping`, is not saved and
    starts again.

    Use one folder for each training. The state describes the sequence, the layers of the model, its
    losses and its optimizer at the start of ``fit``. A training with another description raises an
    error. Your own functions are compared by name, code and enclosed values, but the functions that
    they call are not compared. A layer or a model without a configuration is compared by its class
    and the shapes of its weights.

    Parameters
    ----------
    folder : path
        Folder of the state. It is created if needed, and holds ``state.json`` and a file of
        weights.
    every : int
        Number of batches after which the state is saved. It is also saved at the end of each epoch.

    Raises
    ------
    ResumeError
        ``fit`` raises it. The folder belongs to another training; the message names the difference.
        The folder is damaged. Another process or thread trains with the folder. The weights cannot
        be loaded. A callback has set `sample_weight` to a function, which cannot be saved.
    ValueError
        ``fit`` raises it. ``fit`` has `steps_per_epoch`, two `Resume` callbacks, or no
        `NumeraiSequence`.
    """

    def __init__(self, folder: str | os.PathLike[str], *, every: int = 1000) -> None:
        super().__init__()
        self._folder = Path(folder)
        self._every = whole_number("every", every, least=1)
        # Set while `fit` runs.
        self._checkpoints: Checkpoints | None = None
        self._batches = 0
        # The present epoch, its first batch, and the number of its batches in the saved state.
        self._epoch = self._left_out = self._saved = 0

    @contextmanager
    def resumed(self, fit: Fit) -> Iterator[tuple[Position, int, Any]]:
        """Start ``fit`` at the saved position. For internal use."""
        steps = fit.arguments.get("steps_per_epoch")
        if steps is not None:
            raise ValueError(
                f"steps_per_epoch: found {steps}, expected None, because Resume counts the batches "
                "of whole epochs; leave it out"
            )
        _check_swaps(fit.arguments.get("callbacks"))
        with nullcontext() if fit.sequence.rank else kept(self._folder):
            checkpoints = Checkpoints(self._folder, fit)
            self._checkpoints, self._batches = checkpoints, len(fit.sequence)
            if checkpoints.is_resumed:
                self._tell_if_finished(checkpoints.first.epoch, fit.arguments.get("epochs", 1))
            try:
                yield checkpoints.first, checkpoints.before, _Settling(self)
            finally:
                self._checkpoints = None
                checkpoints.end()

    def _tell_if_finished(self, trained: int, epochs: int) -> None:
        if trained < epochs:
            return
        text = (
            f"{self._folder}: training is already finished: {trained} epochs are trained, and fit "
            f"has epochs={epochs}; to train more, use a larger epochs=; to start again, choose "
            "another folder, or remove this one"
        )
        # `warn` would show the same warning only once.
        warnings.warn_explicit(text, UserWarning, "numerai_sequence", 0)

    def on_train_begin(self, logs: Any = None) -> None:
        if self._checkpoints is None:
            raise ValueError("Resume: found a fit without a NumeraiSequence, expected one as x")
        self._checkpoints.load()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        assert self._checkpoints is not None
        first = self._checkpoints.first
        self._epoch = epoch
        self._left_out = first.batch if epoch == first.epoch else 0
        self._saved = self._left_out

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        assert self._checkpoints is not None
        self._checkpoints.begin_epoch_after()
        trained = self._left_out + batch + 1
        # After the last batch, the state is saved at the end of the epoch, after validation.
        if trained - self._saved >= self._every and trained < self._batches:
            self._checkpoints.save(Position(self._epoch, trained))
            self._saved = trained

    def _settle_beginning(self) -> None:
        """Set the learning rate of a resumed epoch: a callback may have changed it once more."""
        if self._checkpoints is not None and self._left_out:
            self._checkpoints.restore_learning_rate()

    def _settle_batch(self, batch: int) -> None:
        """Save the state of this batch again, if a callback changed something after it."""
        trained = self._left_out + batch + 1
        if self._checkpoints is None or self._saved != trained:
            return
        place = Position(self._epoch, trained)
        if self._checkpoints.has_changed(place):
            self._checkpoints.save(place)

    def _settle_epoch(self, epoch: int) -> None:
        if self._checkpoints is not None:
            self._checkpoints.save(Position(epoch + 1))


def _check_swaps(callbacks: Any) -> None:
    """Refuse callbacks that put other weights into the model at the end of an epoch."""
    for callback in listed(callbacks):
        if getattr(callback, "swap_on_epoch", False):
            raise ValueError(
                f"callbacks: found {type(callback).__name__}(swap_on_epoch=True) beside Resume, "
                "which would continue from the averaged weights; leave swap_on_epoch out, or train "
                "without Resume"
            )


class _Settling(*_BASES):  # type: ignore[misc]
    """A callback that runs after all others, so that `Resume` saves their changes."""

    def __init__(self, resume: Resume) -> None:
        super().__init__()
        self._resume = resume

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._resume._settle_beginning()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._resume._settle_batch(batch)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._resume._settle_epoch(epoch)
