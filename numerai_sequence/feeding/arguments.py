"""Arguments: what batches were planned with stays as it is; what may be set later is checked."""

from __future__ import annotations

from typing import Any

from ..batching.passes import Prefetching, check_options
from ..checks import short, whole_number

# Another value would change what is said of a sequence, and its copies, but none of its batches.
_FIXED = frozenset(
    """shards batch_size target features eras data_type missing_target batch_by shuffle seed run_rows
    dtype drop_remainder rank world_size memory_budget paging paging_reason rows verify""".split()
)


class Arguments:
    """Keeps the arguments that a sequence was made with, and lets nobody set them anew.

    ``epoch``, ``workers``, ``use_multiprocessing`` and ``max_queue_size`` may be set at any time.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _FIXED:
            raise AttributeError(
                f"{name}: found {short(value)} for a sequence that has been made, expected no "
                "change: its batches were planned already; make a new NumeraiSequence"
            )
        super().__setattr__(name, _checked(name, value))

    def _keep(self, **arguments: Any) -> None:
        vars(self).update(arguments)


def _checked(name: str, value: Any) -> Any:
    if name == "epoch":
        return whole_number(name, value, least=0)
    return check_options(**{name: value})[name] if name in Prefetching._fields else value
