"""Options: what one run is asked for, and in what two runs differ."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from ..scoring.score_kinds import monitored_logs


@dataclass(frozen=True)
class TrainOptions:
    """What the user asked of a run; the same options and set make the same run.

    Attributes
    ----------
    features : str or tuple of str, optional
        A feature set, or a list; None for all features.
    targets : tuple of str
        The first one is scored; each is an output of the model.
    eras : str, optional
        As `choose_eras` takes it; None for all that have a number.
    validation : int, float or str
        How many of the newest eras, which share of them, or which eras; ignored with `step`.
    purge : int, optional
        Eras; None for what the targets need, see `purge_of`.
    step, window : int, optional
        Walk forward by `step` eras at a time, each time trained on `window` eras, or on all before.
    missing_target : {"drop", "mask", "error"}
    batch_size : int, optional
        Rows; eras, where batches are whole eras.
    batch_by : {"rows", "era"}, optional
        None: as the loss wants it.
    network : str, optional
        The digest of a network that the user builds; None for one of `layers`, `dropout`, `loss`.
    is_final : bool
        Trained on all eras that have the target, for `epochs`, and not scored.
    start : str, optional
        The digest of the model whose weights it started from.
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
        """What a batch is made of."""
        return self.batch_by or ("rows" if self.loss == "mse" else "era")

    def as_json(self) -> dict[str, Any]:
        """Return the options as they are written into run.json."""
        written: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return written


def options_of(asked: dict[str, Any]) -> TrainOptions:
    """Return the options that are written in run.json; those that it lacks have their defaults."""
    known = {name: asked[name] for name in asked if name in TrainOptions.__dataclass_fields__}
    found: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in known.items()
    }
    return TrainOptions(**found)


def with_defaults(found: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
    """Return what a run was asked, with what was not asked yet when it was made.

    An option that it lacks has its default. A purge that it lacks shows in its eras.
    """
    options = {**TrainOptions().as_json(), **found["options"]}
    return {"purge": asked["purge"], **found, "options": options}


def find_differences(found: dict[str, Any], asked: dict[str, Any]) -> str:
    """Return in what the run that is there differs from the one that is asked for."""
    was, now = found["options"], asked["options"]
    names = [name for name in {**was, **now} if was.get(name) != now.get(name)]
    shown = [_difference(name, was.get(name), now.get(name)) for name in names if name != "purge"]
    if found["purge"] != asked["purge"]:
        shown.append(_difference("purge", found["purge"], asked["purge"]))
    if found["sources"] != asked["sources"]:
        shown.append("another set, or one that was refreshed since")
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
