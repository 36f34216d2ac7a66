"""Run options: the options of one run, and how two runs differ."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from ..scoring.score_kinds import monitored_logs


@dataclass(frozen=True)
class TrainOptions:
    """The options of a run. The same options and shard set make the same run.

    Attributes
    ----------
    features : str or tuple of str, optional
        Name of a feature set, or features. None for all.
    targets : tuple of str
        Targets, one for each output of the model. The first is scored.
    eras : str, optional
        Eras to use. None for all eras that have a number. See `choose_eras`.
    validation : int, float or str
        Number or share of the newest eras, or a choice of eras, to validate on. Ignored with
        `step`.
    purge : int, optional
        Number of eras to purge. None for the number that the targets need. See `purge_of`.
    step, window : int, optional
        Options of a walk forward. See `walk_forward`.
    missing_target : {"drop", "mask", "error"}
        Treatment of rows without a target. See `NumeraiSequence`.
    batch_size : int, optional
        Number of rows in a batch, or of eras.
    batch_by : {"rows", "era"}, optional
        Unit of `batch_size`. None for the unit that the loss needs.
    network : str, optional
        Digest of a user's network. None for the network of `layers`, `dropout` and `loss`.
    is_final : bool
        Whether it trains on all eras that have the target, without scores.
    start : str, optional
        Digest of the model whose weights it starts from.
    """

    features: str | tuple[str, ...] | None = None
    targets: tuple[str, ...] = ("target",)
    eras: str | None = None
    validation: float | str = 0.2
    purge: int | None = None
    step: int | None = None
    window: int | None = None
    missing_target: str = "drop"
    epochs: int = 10
    patience: int = 3
    batch_size: int | None = None
    layers: tuple[int, ...] = (256, 64)
    dropout: float = 0.1
    learning_rate: float = 1e-3
    loss: str = "mse"
    monitor: str = monitored_logs()[0]
    dtype: str = "float32"
    seed: int = 0
    workers: int = 1
    memory_budget: int | str = "auto"
    verify: bool = False
    batch_by: str | None = None
    network: str | None = None
    is_final: bool = False
    start: str | None = None

    @property
    def batches(self) -> str:
        """Unit of the batches."""
        return self.batch_by or ("rows" if self.loss == "mse" else "era")

    def as_json(self) -> dict[str, Any]:
        """Return the options in the form of run.json."""
        written: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return written


def options_of(asked: dict[str, Any]) -> TrainOptions:
    """Return the options in run.json; options that it lacks have their defaults."""
    known = {name: asked[name] for name in asked if name in TrainOptions.__dataclass_fields__}
    found: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in known.items()
    }
    return TrainOptions(**found)


def with_defaults(found: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
    """Return the set and options of a run, with those that an older version did not write.

    A missing option has its default. A missing purge is already visible in the eras.
    """
    options = {**TrainOptions().as_json(), **found["options"]}
    return {"purge": asked["purge"], **found, "options": options}


def find_differences(found: dict[str, Any], asked: dict[str, Any]) -> str:
    """Return how a finished run differs from the one that is asked for, for a message."""
    was, now = found["options"], asked["options"]
    names = [name for name in {**was, **now} if was.get(name) != now.get(name)]
    shown = [_difference(name, was.get(name), now.get(name)) for name in names if name != "purge"]
    if found["purge"] != asked["purge"]:
        shown.append(_difference("purge", found["purge"], asked["purge"]))
    if found["sources"] != asked["sources"]:
        shown.append("another shard set, or one that was updated since")
    elif not shown:
        shown.append("other eras")
    return "; ".join(shown)


_OPTIONS = {"targets": "target", "is_final": "final", "start": "from"}


def _difference(name: str, found: object, expected: object) -> str:
    if name == "network":
        return "another network"
    name = _OPTIONS.get(name, name).replace("_", "-")
    return f"--{name} {_shown(found)}, expected {_shown(expected)}"


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    if value is None or isinstance(value, bool):
        return "given" if value else "not given"
    return str(value)
