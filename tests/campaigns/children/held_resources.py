"""Held resources: what a process holds, looked at once a round, and whether it has grown."""

import gc
import multiprocessing
import os
import re
from pathlib import Path

import numpy as np

SELF = Path("/proc/self")


COUNTED = ("descriptors", "threads", "children", "maps")


def held() -> tuple[int, ...]:
    """Look at this process now.

    Returns
    -------
    tuple of int
        Descriptors, threads, child processes (those that a fork server has started for it too),
        memory maps; and the kB of its own memory: files that are mapped do not count.
    """
    started = {str(child.pid) for child in multiprocessing.active_children()}
    children = (SELF / f"task/{os.getpid()}/children").read_text().split()
    return (
        len(os.listdir(SELF / "fd")),
        len(os.listdir(SELF / "task")),
        len(started.union(children)),
        len((SELF / "maps").read_text().splitlines()),
        int(re.search(r"RssAnon:\s*(\d+) kB", (SELF / "status").read_text())[1]),
    )


class Watch:
    """Looks at this process once a round.

    Parameters
    ----------
    rounds : int
        That there will be. The first half of them is for warming up.
    """

    def __init__(self, rounds: int) -> None:
        self._half, self._round = rounds // 2, 0
        # An array: what looks shall not hold more with every look.
        self._seen = np.zeros((rounds, len(COUNTED) + 1), np.int64)
        self._tracked: list[int] = []

    def __call__(self) -> None:
        self._seen[self._round] = held()
        self._round += 1
        # A full collection moves memory: the first one belongs to the warm-up.
        if self._round in (1, self._half, len(self._seen)):
            gc.collect()
            self._tracked.append(len(gc.get_objects()))

    def grown(self) -> dict[str, int]:
        """Return by how many of each there were always more in the second half than in the first.

        What comes and goes does not count, what is lost once in a few rounds does. ``objects`` are
        those that the garbage collector tracks, from the middle to the end.
        """
        before, after = self._seen[: self._half], self._seen[self._half : self._round]
        more = (after.min(axis=0) - before.max(axis=0)).clip(0).tolist()
        objects = max(0, self._tracked[-1] - self._tracked[-2])
        return dict(zip(COUNTED, more, strict=False)) | {"objects": objects}

    def grown_mb(self) -> float:
        """Return by how much memory has grown over the second half, along a straight line."""
        sizes = self._seen[self._half : self._round, -1] / 1024
        return float(np.polyfit(np.arange(len(sizes)), sizes, 1)[0] * (len(sizes) - 1))

    def most(self) -> dict[str, int]:
        """Return the most that there were of each in the second half."""
        most = self._seen[self._half : self._round].max(axis=0).tolist()
        return dict(zip(COUNTED, most, strict=False))
