"""Resume: training that was stopped goes on at the batch that it had come to."""

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
    """Saves how far ``fit`` has come, and lets the same call in a new process go on from there.

    ``model.fit(sequence, epochs=10, callbacks=[Resume("state/")])``, run again after it was killed,
    trains the batches that were not trained, in the order in which they would have come. With
    deterministic operations the weights are then those of a run that was never stopped, bit for
    bit. A run that has finished trains nothing more, unless `epochs` is larger: a `UserWarning`
    says so each time.

    The weights are saved with those of the optimizer, its learning rate, the seeds of the layers,
    and the sequence's `sample_weight`, which callbacks may have changed. The state of an epoch is
    saved after all callbacks have ended it. Metrics of the epoch that was stopped are of its last
    batches only. What other callbacks have in mind, such as the patience of `EarlyStopping`, begins
    anew.

    A folder is for one training. The state holds what the training is of: the sequence, the layers
    of the model, its losses and its optimizer, as they were when ``fit`` began. A function of the
    user's is known by its name, its code and the values that it encloses, not by what it calls; a
    layer or a model without a configuration by its class and the shapes of its weights.

    Parameters
    ----------
    folder : path
        Is made. It holds ``state.json`` and a file of weights.
    every : int
        After so many batches the state is saved, and at each end of an epoch.

    Raises
    ------
    ResumeError
        From ``fit``: the folder is of another training, which differs in what the message names; it
        is damaged; another process or thread trains with it; the weights cannot be loaded; or a
        callback has set `sample_weight` to a function, which cannot be saved.
    ValueError
        From ``fit``: it has `steps_per_epoch`, two such callbacks, or no `NumeraiSequence`.
    """

    def __init__(self, folder: str | os.PathLike[str], *, every: int = 1000) -> None:
        super().__init__()
        self._folder = Path(folder)
        self._every = whole_number("every", every, least=1)
        # While `fit` is at work.
        self._checkpoints: Checkpoints | None = None
        self._batches = 0
        # Of the present epoch: which it is, its first batch, and how many were saved as trained.
        self._epoch = self._left_out = self._saved = 0

    @contextmanager
    def resumed(self, fit: Fit) -> Iterator[tuple[Position, int, Any]]:
        """Let a call of ``fit`` begin where training has stopped; see `following.follow`."""
        steps = fit.arguments.get("steps_per_epoch")
        if steps is not None:
            raise ValueError(
                f"steps_per_epoch: found {steps}, expected None: Resume counts the batches of "
                "whole epochs"
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
            f"{self._folder}: nothing is left to train: {trained} epochs are trained, and fit has "
            f"epochs={epochs}; for more, make epochs larger; to begin anew, choose another folder, "
            "or remove this one"
        )
        # Each time: warn() tells the same but once.
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
        # After the last one it is saved at the end of the epoch, when it has been validated.
        if trained - self._saved >= self._every and trained < self._batches:
            self._checkpoints.save(Position(self._epoch, trained))
            self._saved = trained

    def _settle_beginning(self) -> None:
        """Set the learning rate of a resumed epoch: a callback may have changed it once more."""
        if self._checkpoints is not None and self._left_out:
            self._checkpoints.restore_learning_rate()

    def _settle_batch(self, batch: int) -> None:
        """Save again what was saved with this batch, if a callback changed something after it."""
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
    """Refuse a callback that puts other weights into the model at the end of an epoch."""
    for callback in listed(callbacks):
        if getattr(callback, "swap_on_epoch", False):
            raise ValueError(
                f"callbacks: found {type(callback).__name__}(swap_on_epoch=True) beside Resume, "
                "which would save the averaged weights and train on from them; leave swap_on_epoch "
                "out, or train without Resume"
            )


class _Settling(*_BASES):  # type: ignore[misc]
    """Comes after all other callbacks, and lets a `Resume` save what they have changed."""

    def __init__(self, resume: Resume) -> None:
        super().__init__()
        self._resume = resume

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._resume._settle_beginning()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._resume._settle_batch(batch)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._resume._settle_epoch(epoch)
