"""State: how far training has come, kept in a folder with the weights that it had come to.

The folder holds ``state.json``, written last, and the file of weights that it names: a kill at any
instant leaves the old state or the new one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..batching.epoch import Position
from ..checks import as_count, as_dict, as_list, as_text, reason, short
from ..errors import ResumeError
from ..system.files import delete, explained, replaced
from ..writing.folder_claim import claimed
from .json_differences import first_difference

FILE = "state.json"
WEIGHTS = ".weights.h5"
FORMAT = "numerai_sequence.state"
VERSION = 2

# Worker processes of a training that was killed end a little later than it does.
_WAIT_SECONDS = 3
_TICK_SECONDS = 0.1

_ANEW = "to begin anew, choose another folder, or remove this one"


@dataclass(frozen=True)
class State:
    """How far training has come.

    Attributes
    ----------
    identity : dict
        Of the sequence, the model and the call of ``fit``; see `identity` and `architecture`.
    order : str
        The SHA-256 of the rows of the next batch: the same numbers in another version of NumPy may
        make another order.
    place : Position
        The epoch, as ``fit`` counts them, and how many of its batches have been trained.
    before : int
        Epochs that the sequence had been through before: it counts on.
    seeds : list of list of int
        Of the model's random layers, which are not among its weights.
    learning_rate : float or None
        Of the optimizer; None where a schedule makes it.
    sample_weight : pair
        The weights of the epoch at `place`, and those of the epoch after it, which a callback may
        have set meanwhile; each as `identity.describe_weights` returns it.
    """

    identity: dict[str, Any]
    order: str
    place: Position
    before: int
    seeds: list[list[int]]
    learning_rate: float | None = None
    sample_weight: tuple[Any, Any] = (None, None)

    @property
    def weights(self) -> str:
        """The name of the file of the weights."""
        return f"epoch-{self.place.epoch}-batch-{self.place.batch}{WEIGHTS}"


@contextmanager
def kept(folder: Path) -> Iterator[None]:
    """Keep a folder, which is made, for one training.

    Raises
    ------
    ResumeError
        Another process or thread trains with it.
    OutputError
        The system does not let it be made.
    """
    with ExitStack() as stack:
        _claim(folder, stack)
        yield


def _claim(folder: Path, stack: ExitStack) -> None:
    until = time.monotonic() + _WAIT_SECONDS
    while True:
        with explained(folder), suppress(BlockingIOError):
            stack.enter_context(claimed(folder, make=True))
            return
        if time.monotonic() > until:
            raise ResumeError(
                f"{folder}: another training is at work in this folder; wait for its end, or "
                "choose a folder for each training",
                path=folder,
            )
        time.sleep(_TICK_SECONDS)


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
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8", newline="\n")
    for old in folder.glob(f"*{WEIGHTS}"):
        if old.name != state.weights:
            delete(old)  # or it goes with the next ones


def read_state(folder: Path) -> State | None:
    """Read the state; None where there is none.

    Raises
    ------
    ResumeError
        It is damaged, or of a version that is not known; or its weights are not there.
    """
    path = folder / FILE
    try:
        document = as_dict(json.loads(path.read_bytes()))
        _check_version(path, document["format"], document["version"])
        state = State(
            as_dict(document["identity"]),
            as_text(document["order"]),
            Position(*map(as_count, document["place"])),
            as_count(document["before"]),
            [list(map(as_count, seed)) for seed in document["seeds"]],
            _as_rate(document["learning_rate"]),
            _as_pair(document["sample_weight"]),
        )
    except FileNotFoundError:
        return None
    except ResumeError:
        raise
    except OSError as error:
        raise ResumeError(f"{path}: {error.strerror}; {_ANEW}", path=path) from error
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ResumeError(f"{path}: damaged: {reason(error)}; {_ANEW}", path=path) from error
    if not (folder / state.weights).is_file():
        raise ResumeError(f"{folder / state.weights}: no such file; {_ANEW}", path=path)
    return state


def _check_version(path: Path, form: Any, version: Any) -> None:
    found, expected = (form, version), (FORMAT, VERSION)
    if found == expected:
        return
    why = ""
    if form == FORMAT and isinstance(version, int):
        why = "; upgrade numerai_sequence" if version > VERSION else "; an older version wrote it"
    raise ResumeError(
        f"{path}: found format and version {found}, expected {expected}{why}; or, {_ANEW}",
        path=path,
        found=version,
        expected=VERSION,
    )


def _as_rate(value: Any) -> float | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
        raise TypeError(f"learning_rate: found {short(value)}, expected a number or null")
    return None if value is None else float(value)


def _as_pair(value: Any) -> tuple[Any, Any]:
    first, second = as_list(value)
    for one in (first, second):
        if not (one is None or isinstance(one, (str, dict))):
            raise TypeError(f"sample_weight: found {short(one)}, expected a name or weights")
    return first, second


def check_same(folder: Path, state: State, identity: dict[str, Any], order: str) -> None:
    """Check that a training is the one that a state is of.

    Raises
    ------
    ResumeError
        Naming the first thing that differs.
    """
    now, then = {**identity, "order": order}, {**state.identity, "order": state.order}
    difference = first_difference(now, then)
    if difference is not None:
        raise ResumeError(
            f"{folder / FILE}: {difference} when training stopped; make it as it was; or, {_ANEW}",
            path=folder / FILE,
            found=difference.found,
            expected=difference.expected,
        )
