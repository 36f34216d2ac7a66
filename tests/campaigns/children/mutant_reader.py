"""Mutant reader: open, read and verify one shard set after the other, and say how each one ended.

A process of its own: a set that ends it is found by what was asked of it last. Each line of stdin
is a folder and the folder of the whole set that it was made from; each line of stdout an answer.
"""

import contextlib
import gc
import io
import json
import os
import pickle
import sys
import time
from typing import Any

import numpy as np

from numerai_sequence import NumeraiSequence, NumeraiSequenceError, ShardSet, open_shards

MB = 1 << 20
REFUSED_WHEN_OPENED = "refused when opened"
REFUSED_WHEN_READ = "refused when read"
LEFT_TO_VERIFY = "left to verify, which refuses"
READ_RIGHT = "read right"

#: Besides the set: what says how much memory there is, and Python's own modules.
ELSEWHERE = ("/proc/", "/sys/", *map(os.path.realpath, {sys.prefix, sys.base_prefix, *sys.path}))
FORBIDDEN = (
    "subprocess.",
    "socket.",
    "os.exec",
    "os.system",
    "os.posix_spawn",
    "os.fork",
    "ctypes.",
)


class Watch:
    """Notes what is opened besides one folder, and what is unpickled or started."""

    def __init__(self) -> None:
        self.folder: str | None = None
        self.seen: list[str] = []
        self.unpickles = False
        sys.addaudithook(self._note)

    def _note(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.folder is None:
            return
        if event == "open" and isinstance(arguments[0], (str, bytes)):
            path = os.fsdecode(arguments[0])
            if not path.startswith((self.folder, *ELSEWHERE)):
                self.seen.append(f"opens {path}")
        elif event == "pickle.find_class" and not self.unpickles:
            self.seen.append(f"unpickles {arguments}")
        elif event.startswith(FORBIDDEN):
            self.seen.append(f"{event} {arguments}")

    @contextlib.contextmanager
    def over(self, folder: str) -> Any:
        self.folder, self.seen = folder, []
        try:
            yield self
        finally:
            self.folder = None


def read(shards: ShardSet, watch: Watch) -> dict[str, Any]:
    """Return all that a set holds, and go through it in several ways."""
    found: dict[str, Any] = {
        "features": list(shards.features),
        "targets": list(shards.targets),
        "eras": shards.era_rows,
        "data_types": shards.data_types,
        "missing": shards.missing,
    }
    for name in ("id", "era", "data_type"):
        found[name] = shards.column(name).to_pylist()
    for name in shards.targets:
        found[name] = shards.column(name).to_numpy()
    target = list(shards.targets) or None
    options = {"target": target, "missing_target": "mask" if target else "error"}
    in_order = NumeraiSequence(shards, 37, shuffle=False, **options)
    batches = [in_order[number] for number in range(len(in_order))]
    found["x"] = np.concatenate([batch[0] if target else batch for batch in batches])
    found["codes"] = in_order.era_codes
    go_through(NumeraiSequence(shards, 50, run_rows=8, dtype="float16", **options))
    go_through(NumeraiSequence(shards, 2, batch_by="era", dtype="int8", **options))
    part = {"eras": "::2", "data_type": shards.data_types[:1], "missing_target": "drop"}
    features = found["features"][::-1]
    go_through(NumeraiSequence(shards, 64, target=target, features=features, dtype="int8", **part))
    watch.unpickles = True
    with pickle.loads(pickle.dumps(shards)) as again:
        found["again"] = again.row_reader.gather(np.arange(again.rows), [])[0]
    go_through(pickle.loads(pickle.dumps(in_order)))
    watch.unpickles = False
    return found


def go_through(sequence: NumeraiSequence) -> None:
    for number in range(len(sequence)):
        sequence[number]


def is_same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(
        np.array_equal(one[name], other[name], equal_nan=True)
        if isinstance(one[name], np.ndarray) and one[name].dtype.kind == "f"
        else np.array_equal(one[name], other[name])
        if isinstance(one[name], np.ndarray)
        else one[name] == other[name]
        for name in one
    )


def try_set(folder: str, whole: dict[str, Any], watch: Watch) -> str:
    """Return how a set ended that may be damaged."""
    try:
        shards = open_shards(folder)
    except NumeraiSequenceError as error:
        check_error(error)
        return REFUSED_WHEN_OPENED
    with shards:
        outcome = "differs"
        try:
            outcome = READ_RIGHT if is_same(read(shards, watch), whole) else "differs"
        except NumeraiSequenceError as error:
            check_error(error)
            outcome = REFUSED_WHEN_READ
        try:
            shards.verify()
        except NumeraiSequenceError as error:
            check_error(error)
            return outcome if outcome == REFUSED_WHEN_READ else LEFT_TO_VERIFY
    if outcome == READ_RIGHT:
        return outcome
    raise AssertionError(f"{outcome}, and verify accepts it")


def check_error(error: NumeraiSequenceError) -> None:
    """See that an error can be shown, printed and sent to another process."""
    text = str(error)
    text.encode()
    if len(text) > 2000:
        raise AssertionError(f"an error of {len(text):,} letters: {text[:500]}")
    pickle.dumps(error)


def memory(name: str) -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith(name))


def forget_peak() -> None:
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def measured(function: Any, *arguments: Any) -> dict[str, Any]:
    """Return what a function returned or how it failed, and what that took."""
    forget_peak()
    before, files, started = memory("VmRSS"), len(os.listdir("/proc/self/fd")), time.monotonic()
    answer: dict[str, Any] = {}
    try:
        answer["outcome"] = function(*arguments)
    except BaseException as error:
        answer["failure"] = f"{type(error).__name__}: {error}"[:500]
    answer["seconds"] = time.monotonic() - started
    answer["grown_bytes"] = max(0, memory("VmHWM") - before)
    gc.collect()
    left = len(os.listdir("/proc/self/fd")) - files
    if left > 0:
        answer["failure"] = f"{left} files left open"
    return answer


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    watch = Watch()
    wholes: dict[str, dict[str, Any]] = {}
    gc.collect()
    gc.freeze()  # Keras's own objects are gone through but once
    for line in io.TextIOWrapper(sys.stdin.buffer):
        folder, base = json.loads(line)
        if base not in wholes:
            for _ in range(2):  # modules are loaded, and pools of memory filled
                with open_shards(base) as shards:
                    wholes[base] = read(shards, watch)
        with watch.over(folder):
            answer = measured(try_set, folder, wholes[base], watch)
        if watch.seen:
            answer["failure"] = ", ".join(watch.seen[:5])
        watch.unpickles = False
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
