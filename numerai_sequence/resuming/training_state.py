"""Training state: the progress of a training, in a folder with its weights.

The folder holds a file of weights and ``state.json``, which names that file and is written last. So
a kill at any time leaves the old state or the new one.
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

# Worker processes of a killed training end a little later than the training.
_WAIT_SECONDS = 3
_TICK_SECONDS = 0.1

_ANEW = "to start again, choose another folder, or remove this one"


@dataclass(frozen=True)
class State:
    """The progress of a training.

    Attributes
    ----------
    identity : dict
        Description of the sequence, the model and the call of ``fit``; see `run_identity` and
        `model_architecture`.
    order : str
        The SHA-256 of the rows of the next batch. With the same seed, another version of NumPy may
        make another order.
    place : Position
        The epoch, in ``fit``'s count, and the number of its batches that are trained.
    before : int
        Epochs that the sequence had finished before this call of ``fit``.
    seeds : list of list of int
        Seeds of the model's random layers, which are not among its weights.
    learning_rate : float or None
        Learning rate of the optimizer; None if it is a schedule.
    sample_weight : pair
        The weights of the epoch at `place`, and those of the next epoch, which a callback may have
        set meanwhile. Each is in the form of `run_identity.describe_weights`.
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
        """The name of the file of weights."""
        return f"epoch-{self.place.epoch}-batch-{self.place.batch}{WEIGHTS}"


@contextmanager
def kept(folder: Path) -> Iterator[None]:
    """Keep a folder for one training. It is created if needed.

    Raises
    ------
    ResumeError
        Another process or thread trains with the folder.
    OutputError
        The system refuses to create the folder.
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
                f"{folder}: another training uses this folder; wait for its end, or choose another "
                "folder",
                path=folder,
            )
        time.sleep(_TICK_SECONDS)


def write_state(folder: Path, state: State, save: Callable[[str], object]) -> None:
    """Write the weights and the state, and remove the earlier weights.

    Parameters
    ----------
    folder : path
        Folder of the state. It is created if needed.
    state : State
    save : function of a path
        Function that saves the weights.

    Raises
    ------
    OutputError
        The system refuses to write the files. The earlier state is unchanged.
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
            delete(old)  # if it is in use, a later call deletes it


def read_state(folder: Path) -> State | None:
    """Read the state; None if there is none.

    Raises
    ------
    ResumeError
        The state is damaged or of an unknown version, or its weights are missing.
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
    """Check that a state belongs to a training.

    Raises
    ------
    ResumeError
        Something differs. The message names the first difference.
    """
    now, then = {**identity, "order": order}, {**state.identity, "order": state.order}
    difference = first_difference(now, then)
    if difference is not None:
        raise ResumeError(
            f"{folder / FILE}: {difference} when training stopped; change it back; or, {_ANEW}",
            path=folder / FILE,
            found=difference.found,
            expected=difference.expected,
        )
