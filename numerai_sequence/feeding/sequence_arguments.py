"""Sequence arguments: those that cannot change once batches are planned, and checks of the rest."""

from __future__ import annotations

from typing import Any

from ..batching.prefetching import Prefetching, check_options
from ..checks import short, whole_number
from ..reading.shard_set import ShardSet


class Arguments:
    """The arguments of a sequence, which cannot be changed after it is made.

    Another value would change the description of a sequence, and its copies, but not its batches.
    ``epoch``, ``workers``, ``use_multiprocessing`` and ``max_queue_size`` may be set at any time.
    """

    shards: ShardSet
    batch_size: int
    features: tuple[str, ...]
    missing_target: str
    batch_by: str
    shuffle: bool
    seed: int
    run_rows: int
    dtype: str
    resident: bool
    drop_remainder: bool
    rank: int
    world_size: int
    memory_budget: int | str
    paging: str
    paging_reason: str
    verify: bool

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _FIXED:
            raise AttributeError(
                f"{name}: found {short(value)}, expected no change, because the batches of the "
                "sequence are already planned; make a new NumeraiSequence"
            )
        super().__setattr__(name, _checked(name, value))

    def _keep(self, **arguments: Any) -> None:
        vars(self).update(arguments)


_FIXED = {*Arguments.__annotations__, "target", "inputs", "eras", "data_type", "rows"}


def _checked(name: str, value: Any) -> Any:
    if name == "epoch":
        return whole_number(name, value, least=0)
    return check_options(**{name: value})[name] if name in Prefetching._fields else value
