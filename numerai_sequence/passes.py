"""Passes: the batches of one epoch of a sequence, whatever happens to it meanwhile."""

from __future__ import annotations

import random
from contextvars import ContextVar
from typing import Any

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.int32]

#: The sequence that is asked for a batch of a pass, and the reader and the targets of that pass.
READING: ContextVar[tuple[Any, Any, Any] | None] = ContextVar("READING", default=None)


class OnePass:
    """The batches of one epoch, in the order in which they are asked for.

    What the sequence is set to later, its next epoch or other sample weights, is of no matter.

    Parameters
    ----------
    sequence : NumeraiSequence
    epoch : int
    numbers : int32 array, shape (batches,)
    processes : int
        How many processes ask, or 0 for threads of this one.
    """

    def __init__(self, sequence: Any, epoch: int, numbers: Numbers, processes: int) -> None:
        self._sequence, self._epoch, self._numbers = sequence, epoch, numbers
        self._processes = processes
        self._reader, self._targets = sequence._make_reader(epoch, numbers, processes)

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, place: int) -> Any:
        # Of the sequence's own class, which may add to what a batch is.
        token = READING.set((self._sequence, self._reader, self._targets))
        try:
            return self._sequence[int(self._numbers[place])]
        finally:
            READING.reset(token)

    def empty(self, shape: tuple[int, ...], dtype: Any) -> npt.NDArray[Any]:
        """Return an array with anything in it, for a batch that a worker process has made."""
        array: npt.NDArray[Any] = self._sequence._buffers.empty(shape, dtype)
        return array

    def __reduce__(self) -> Any:
        return OnePass, (self._sequence, self._epoch, self._numbers, self._processes)


def shuffle_batches(numbers: Numbers, per_group: int) -> Numbers:
    """Permute batches with Python's global generator, but keep those of a group together."""
    groups = list(range(-(-len(numbers) // per_group)))
    random.shuffle(groups)
    shuffled = np.empty_like(numbers)
    start = 0
    for group in groups:
        batches = numbers[group * per_group : (group + 1) * per_group].tolist()
        random.shuffle(batches)
        shuffled[start : start + len(batches)] = batches
        start += len(batches)
    return shuffled
