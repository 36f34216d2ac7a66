"""Batch units: the table of the units of batches. To add a unit, add a class and a line here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from .distributed_ranks import Share
from .era_order import EraOrder
from .row_order import Rows, WholeOrder, epoch_order

#: Units of the batches of `predict`: some rows, or one whole era.
PREDICT_BY = ("rows", "era")


class Selected(Protocol):
    """The part of `Selection` that a batching needs."""

    @property
    def rows(self) -> int: ...

    @property
    def eras(self) -> Sequence[str]: ...

    @property
    def by_era(self) -> tuple[npt.NDArray[Any], Rows]:
        """Rows in order of their eras' time, and the number of rows in each era."""
        ...

    def spans(self) -> list[tuple[int, int]]:
        """Return the rows of each record batch as (start, stop)."""
        ...


class Batching(ABC):
    """The base class of the batchings in `BATCH_BY`: ways to divide selected rows into batches.

    A batch has `batch_size` units, such as rows or eras. Batchings have no state.

    Attributes
    ----------
    unit : str
        Name of the units, for errors.
    default_size : int
        Units in a batch if `batch_size` is not given.
    has_equal_batches : bool
        Whether all batches but the last have the same number of rows. Only then are rows shuffled
        in runs, and fetched in groups of batches.
    predict_by : {"rows", "era"}
        Unit of the batches of `predict` for a model that was trained on such batches.
    """

    unit: ClassVar[str]
    default_size: ClassVar[int]
    has_equal_batches: ClassVar[bool]
    predict_by: ClassVar[str]

    @abstractmethod
    def units(self, selected: Selected) -> int:
        """Return the number of units in an epoch."""

    @abstractmethod
    def most_rows(self, selected: Selected, batch_size: int) -> int:
        """Return an upper bound of the rows in the largest batch."""

    @abstractmethod
    def order(
        self,
        selected: Selected,
        *,
        seed: int | None,
        epoch: int,
        batch_size: int,
        run_rows: int,
        group_rows: int,
    ) -> WholeOrder:
        """Return the order of an epoch, of all ranks; see `epoch_order`."""

    @abstractmethod
    def sizes(self, selected: Selected, share: Share, batch: int | None) -> list[int]:
        """Return all numbers of rows that a batch can have. None for any batch of an epoch."""


class ByRows(Batching):
    """Batches of `batch_size` rows."""

    unit, default_size, has_equal_batches, predict_by = "rows", 1000, True, "rows"

    def units(self, selected: Selected) -> int:
        return selected.rows

    def most_rows(self, selected: Selected, batch_size: int) -> int:
        return batch_size

    def order(
        self,
        selected: Selected,
        *,
        seed: int | None,
        epoch: int,
        batch_size: int,
        run_rows: int,
        group_rows: int,
    ) -> WholeOrder:
        return epoch_order(
            selected.spans(),
            seed=seed,
            epoch=epoch,
            run_rows=run_rows,
            batch_size=batch_size,
            group_rows=group_rows,
        )

    def sizes(self, selected: Selected, share: Share, batch: int | None) -> list[int]:
        batches = range(share.steps)
        ends = [*batches[:1], *batches[-1:]] if batch is None else [batch]
        return [share.size(number) for number in ends]


class ByEra(Batching):
    """Batches of `batch_size` whole eras."""

    unit, default_size, has_equal_batches, predict_by = "eras", 1, False, "era"

    def units(self, selected: Selected) -> int:
        return len(selected.eras)

    def most_rows(self, selected: Selected, batch_size: int) -> int:
        return int(np.sort(selected.by_era[1])[-batch_size:].sum())

    def order(
        self,
        selected: Selected,
        *,
        seed: int | None,
        epoch: int,
        batch_size: int,
        run_rows: int,
        group_rows: int,
    ) -> WholeOrder:
        rows, sizes = selected.by_era
        return EraOrder(rows, sizes, seed=seed, epoch=epoch, batch_size=batch_size)

    def sizes(self, selected: Selected, share: Share, batch: int | None) -> list[int]:
        # Eras come in any order, and each of them has to be divisible.
        sizes: list[int] = selected.by_era[1].tolist()
        return sizes


#: Batchings by the value of `batch_by`. The first is the default.
BATCH_BY: dict[str, Batching] = {"rows": ByRows(), "era": ByEra()}
