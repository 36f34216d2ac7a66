"""Prefetching: how many workers make batches before they are needed."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..checks import true_or_false, whole_number


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
