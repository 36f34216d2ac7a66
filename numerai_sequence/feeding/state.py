"""State: how far training has come, kept in a folder with the weights that it had come to.

The folder holds ``state.json``, written last, and the file of weights that it names: a kill at any
instant leaves the old state or the new one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..batching.passes import Place
from ..checks import as_count, as_dict, as_text, short
from ..errors import ResumeError
from ..files import explained, replaced

FILE = "state.json"
WEIGHTS = ".weights.h5"
FORMAT = "numerai_sequence.state"
VERSION = 1

_ANEW = "to begin anew, choose another folder, or remove this one"


@dataclass(frozen=True)
class State:
    """How far training has come.

    Attributes
    ----------
    identity : dict
        Of the sequence that it was trained on; see `identity.identity`.
    order : str
        The SHA-256 of the rows of the next batch: the same numbers in another version of NumPy may
        make another order.
    place : Place
        The epoch, as ``fit`` counts them, and how many of its batches have been trained.
    before : int
        Epochs that the sequence had been through before: it counts on.
    seeds : list of list of int
        Of the model's random layers, which are not among its weights.
    """

    identity: dict[str, Any]
    order: str
    place: Place
    before: int
    seeds: list[list[int]]

    @property
    def weights(self) -> str:
        """The name of the file of the weights."""
        return f"epoch-{self.place.epoch}-batch-{self.place.batch}{WEIGHTS}"


def write_state(folder: Path, state: State, save: Callable[[str], object]) -> None:
    """Write the weights and the state, and remove the weights of before.

    Parameters
    ----------
    folder : path
        Is made.
    state : State
    save : function of a path
        Saves the weights.

    Raises
    ------
    OutputError
        The system does not let them be written; what was there is as it was.
    """
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with replaced(folder / state.weights) as path:
        save(str(path))
    document = {"format": FORMAT, "version": VERSION, **asdict(state)}
    with replaced(folder / FILE) as path:
        path.write_text(json.dumps(document, indent=1) + "\n")
    for old in folder.glob(f"*{WEIGHTS}"):
        if old.name != state.weights:
            old.unlink(missing_ok=True)


def read_state(folder: Path) -> State | None:
    """Read the state; None where there is none.

    Raises
    ------
    ResumeError
        It is damaged, or written by a later version of the package; or its weights are not there.
    """
    path = folder / FILE
    try:
        document = as_dict(json.loads(path.read_bytes()))
        _check_version(path, document["format"], document["version"])
        state = State(
            as_dict(document["identity"]),
            as_text(document["order"]),
            Place(*map(as_count, document["place"])),
            as_count(document["before"]),
            [list(map(as_count, seed)) for seed in document["seeds"]],
        )
    except FileNotFoundError:
        return None
    except ResumeError:  # a ValueError too
        raise
    except OSError as error:
        raise ResumeError(f"{path}: {error.strerror}; {_ANEW}", path=path) from error
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ResumeError(
            f"{path}: damaged: {type(error).__name__}: {error}; {_ANEW}", path=path
        ) from error
    if not (folder / state.weights).is_file():
        raise ResumeError(f"{folder / state.weights}: no such file; {_ANEW}", path=path)
    return state


def _check_version(path: Path, format_: Any, version: Any) -> None:
    if format_ == FORMAT and type(version) is int and version > VERSION:
        raise ResumeError(
            f"{path}: version {short(version)}, expected {VERSION}; upgrade numerai_sequence; or, "
            f"{_ANEW}",
            path=path,
            found=short(version),
            expected=VERSION,
        )
    if (format_, version) != (FORMAT, VERSION):
        found = short((format_, version))
        raise ValueError(f"found format and version {found}, expected {(FORMAT, VERSION)}")


def check_same(folder: Path, state: State, identity: dict[str, Any], order: str) -> None:
    """Check that a sequence is what a state was trained on.

    Raises
    ------
    ResumeError
        Naming the first thing that differs.
    """
    now, then = {**identity, "order": order}, {**state.identity, "order": state.order}
    for name in [*now, *(name for name in then if name not in now)]:
        if now.get(name) != then.get(name):
            raise ResumeError(
                f"{folder / FILE}: {name}: found {now.get(name)!r}, but it was {then.get(name)!r} "
                f"when training stopped; make the sequence as it was; or, {_ANEW}",
                path=folder / FILE,
                found=now.get(name),
                expected=then.get(name),
            )
