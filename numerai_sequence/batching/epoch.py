"""Epoch: the batches of one epoch of a sequence, which do not change with the sequence."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import NumeraiSequenceError
from .prefetching import Prefetching
from .read_plan import DECODING, Numbers
from .row_number_reader import NumberReader

Rows = npt.NDArray[np.int64]

#: The epoch whose batch a subclass's ``__getitem__`` is making.
ASKED: ContextVar[Epoch | None] = ContextVar("ASKED", default=None)


class Position(NamedTuple):
    """The epoch and batch with which training begins.

    Attributes
    ----------
    epoch : int
    batch : int
        Number of the first batch. Earlier batches of the epoch are left out.
    """

    epoch: int
    batch: int = 0


class Epoch:
    """The batches of one epoch, in the order of reading.

    ``epoch[place]`` is the batch at a place. Any number of threads may read at once. Later changes
    of the sequence, such as other sample weights, do not change these batches.

    Parameters
    ----------
    sequence : NumeraiSequence
    number : int
        Number of the epoch.
    batches : int32 array, shape (batches,)
        Numbers of the batches, in the order of reading.
    prefetching : Prefetching
    fetch : {"always", "first", "never"}
        See `GroupReader`.

    Attributes
    ----------
    sequence : NumeraiSequence
    number : int
    """

    def __init__(
        self,
        sequence: Any,
        number: int,
        batches: Numbers,
        prefetching: Prefetching,
        fetch: str = "always",
    ) -> None:
        self.sequence, self.number = sequence, number
        self._batches, self._prefetching = batches, prefetching
        self._plan, self._decode, self._targets = (
            sequence._plan,
            sequence._decode,
            sequence._targets,
        )
        self._reader = self._plan.reader(number, batches, self._targets.columns, prefetching, fetch)
        # A subclass may change a batch, or make more batches from these.
        self._is_plain = sequence.made_by is None and len(sequence) <= self._plan.share.steps

    @property
    def weights(self) -> Any:
        """The `Weights` of these batches. None if there are none."""
        return self._targets.weights

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, place: int) -> Any:
        number = int(self._batches[place])
        if self._is_plain:
            return self.batch(number)
        token = ASKED.set(self)
        try:
            return self.sequence[number]
        finally:
            ASKED.reset(token)

    def batch(self, number: int) -> Any:
        """Return a batch by its number, as `NumeraiSequence` makes it."""
        reader, plan, decode = self._reader, self._plan, self._decode
        if isinstance(reader, NumberReader):
            return self._numbers_on_device(reader, number)
        shape = reader.size(number), decode.width
        with plan.turns:
            x = plan.buffers.empty(shape, decode.array_dtype)
            out = x.view(np.uint8) if decode.keeps_rows else None
            encoded, chosen, values = reader.batch(number, out)
            if encoded is not out:
                with DECODING:
                    decode(encoded, x, chosen)
        return self._targets(values, x)

    def _numbers_on_device(self, reader: NumberReader, number: int) -> Any:
        first = self.sequence._first_device_row
        if first is None:
            raise NumeraiSequenceError(
                f"{self.sequence.shards.folder}: resident=True: the rows are not on the device "
                "yet; begin the model with Unpack.of(sequence), which copies them there"
            )
        numbers, _, values = reader.batch(number)
        return self._targets(values, (numbers + first).astype(np.int32))

    def rows(self, place: int) -> Rows:
        """Return the row numbers of the batch at a place, in the order of the files, ascending."""
        return self.rows_of_batch(int(self._batches[place]))

    def rows_of_batch(self, number: int) -> Rows:
        """Return the row numbers of a batch by the batch's number. See `rows`."""
        rows: Rows = self._reader.rows(number)
        return rows

    def empty(self, shape: tuple[int, ...], dtype: Any) -> npt.NDArray[Any]:
        """Return an uninitialized array, for a batch from a worker process."""
        array: npt.NDArray[Any] = self._plan.buffers.empty(shape, dtype)
        return array

    def __reduce__(self) -> Any:
        return Epoch, (self.sequence, self.number, self._batches, self._prefetching)


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
