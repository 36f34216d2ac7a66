"""Passes: the batches of one epoch of a sequence, whatever happens to it meanwhile."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..checks import true_or_false, whole_number

Numbers = npt.NDArray[np.int32]

#: The sequence that is asked for a batch of a pass, and the reader and the targets of that pass.
READING: ContextVar[tuple[Any, Any, Any] | None] = ContextVar("READING", default=None)


class Place(NamedTuple):
    """Where a pass begins.

    Attributes
    ----------
    epoch : int
    batch : int
        The first one; those before it are left out.
    """

    epoch: int
    batch: int = 0


class Prefetching(NamedTuple):
    """Who asks for batches, before they are needed; as Keras names it.

    Attributes
    ----------
    workers : int
        0 without processes: the batches are made where they are asked for. So does 1 where that is
        a thread that does nothing else, as under TensorFlow.
    use_multiprocessing : bool
    max_queue_size : int
    """

    workers: int
    use_multiprocessing: bool
    max_queue_size: int

    @property
    def processes(self) -> int:
        """How many processes ask, or 0 for threads of this one."""
        return self.workers if self.use_multiprocessing else 0


def check_options(**options: Any) -> dict[str, Any]:
    """Return those of the fields of `Prefetching` that are given, if they are what they should be.

    Raises
    ------
    TypeError, ValueError
        One is not.
    """
    least = {"workers": 0, "max_queue_size": 1}
    return {
        name: whole_number(name, value, least=least[name])
        if name in least
        else true_or_false(name, value)
        for name, value in options.items()
    }


class OnePass:
    """The batches of one epoch, in the order in which they are asked for.

    What the sequence is set to later, its next epoch or other sample weights, is of no matter.

    Parameters
    ----------
    sequence : NumeraiSequence
    epoch : int
    numbers : int32 array, shape (batches,)
    prefetching : Prefetching
    """

    def __init__(
        self, sequence: Any, epoch: int, numbers: Numbers, prefetching: Prefetching
    ) -> None:
        self._sequence, self._epoch, self._numbers = sequence, epoch, numbers
        self._prefetching = prefetching
        self._reader, self._targets = sequence._make_reader(epoch, numbers, prefetching)

    @property
    def weights(self) -> Any:
        """What makes the sample weights of these batches; None if there are none."""
        return self._targets.weights

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, place: int) -> Any:
        # Of the sequence's own class, which may add to what a batch is.
        token = READING.set((self._sequence, self._reader, self._targets))
        try:
            return self._sequence[int(self._numbers[place])]
        finally:
            READING.reset(token)

    def rows(self, place: int) -> npt.NDArray[np.int64]:
        """Return which rows a batch has, by their numbers in the order of the files, ascending."""
        rows: npt.NDArray[np.int64] = self._reader.rows(int(self._numbers[place]))
        return rows

    def empty(self, shape: tuple[int, ...], dtype: Any) -> npt.NDArray[Any]:
        """Return an array with anything in it, for a batch that a worker process has made."""
        array: npt.NDArray[Any] = self._sequence._readers.buffers.empty(shape, dtype)
        return array

    def __reduce__(self) -> Any:
        return OnePass, (self._sequence, self._epoch, self._numbers, self._prefetching)


def shuffle_batches(
    numbers: Numbers, per_group: int, rng: np.random.Generator, offset: int = 0
) -> Numbers:
    """Permute batches, but keep those of a group together.

    The first group has `offset` batches fewer than the others.
    """
    firsts = range(-offset, len(numbers), per_group)
    groups = [numbers[max(0, first) : first + per_group] for first in firsts]
    return np.concatenate(
        [numbers[:0], *(rng.permutation(groups[group]) for group in rng.permutation(len(groups)))]
    )
