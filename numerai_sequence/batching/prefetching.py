"""Prefetching: the options of the workers that prepare batches."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..checks import true_or_false, whole_number


class Prefetching(NamedTuple):
    """The options of the workers that prepare batches, with Keras's names.

    Attributes
    ----------
    workers : int
        Largest number of workers. 0 prepares each batch in the thread that reads it. 1 does so,
        too, if that thread does nothing else, such as with TensorFlow.
    use_multiprocessing : bool
        Whether workers are processes.
    max_queue_size : int
        Largest number of prepared batches.
    """

    workers: int
    use_multiprocessing: bool
    max_queue_size: int

    @property
    def processes(self) -> int:
        """Number of worker processes; 0 if the workers are threads."""
        return self.workers if self.use_multiprocessing else 0


def check_options(**options: Any) -> dict[str, Any]:
    """Return checked fields of `Prefetching`.

    Raises
    ------
    TypeError, ValueError
        A field has a wrong type or value.
    """
    least = {"workers": 0, "max_queue_size": 1}
    return {
        name: whole_number(name, value, least=least[name])
        if name in least
        else true_or_false(name, value)
        for name, value in options.items()
    }
