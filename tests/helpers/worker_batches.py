"""Worker batches: batches for worker processes, some of which raise, hang or end their process."""

from __future__ import annotations

import os
import signal
import sys
import time

import numpy as np


class TwoArguments(Exception):
    """Does not unpickle."""

    def __init__(self, what, why):
        super().__init__(f"{what} {why}")


def raise_two():
    raise TwoArguments("a", "b")


TROUBLES = {
    100: lambda: sys.exit(3),
    101: lambda: 1 / 0,
    102: raise_two,
    103: lambda: os.kill(os.getpid(), signal.SIGKILL),
    104: lambda: os._exit(7),
    105: lambda: time.sleep(60),
}


class Squares:
    """Batches of squares, each with the process that has made it; some places have troubles."""

    def __getitem__(self, place):
        if place in TROUBLES:
            TROUBLES[place]()
        return np.full((300, 1000), place * place, np.float32), os.getpid()

    def empty(self, shape, dtype):
        return np.empty(shape, dtype)
