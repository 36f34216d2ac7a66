"""Run length: choose the longest useful run of rows that still mixes the eras of a batch well.

Long runs are cheap to read, but the rows of a run come from one window of eras. The mixing of a
batch is the entropy of the eras of its rows, as a share of the entropy in an exact shuffle.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

# A run of about this size is read from a disk nearly as fast per byte as a longer one.
_RUN_BYTES = 64 << 10
_LEAST_MIXING = 0.97
_DRAWS = 16


def choose_run_rows(
    windows: Sequence[dict[str, int]],
    *,
    row_bytes: int,
    batch_size: int,
    group_rows: int,
) -> int:
    """Return the shortest run that reads fast, or a shorter one if that would mix badly.

    Parameters
    ----------
    windows : sequence of dict
        Number of rows of each era, for each record batch. The rows of a record batch are mixed.
    row_bytes : int
        Bytes of an encoded row.
    batch_size, group_rows : int
        Rows in a batch, and rows in the group that is shuffled and cut into batches.

    Returns
    -------
    int
        A power of 2.
    """
    run_rows = 1
    while run_rows * row_bytes < _RUN_BYTES:
        run_rows *= 2
    while run_rows > 1:
        sizes = {"batch_size": batch_size, "group_rows": group_rows, "run_rows": run_rows}
        if era_mixing(windows, **sizes) >= _LEAST_MIXING:
            break
        run_rows //= 2
    return run_rows


def era_mixing(
    windows: Sequence[dict[str, int]], *, batch_size: int, group_rows: int, run_rows: int
) -> float:
    """Return the entropy of a batch's eras, as a share of that of an exact shuffle.

    It is the mean over batches that are drawn at random with a fixed seed.
    """
    names = {era: number for number, era in enumerate({e: 0 for w in windows for e in w})}
    eras = np.array([names[era] for window in windows for era in window], np.int64)
    # As if the rows of each window lay era by era: a permuted window's row is any of them.
    bounds = np.cumsum([n for window in windows for n in window.values()], dtype=np.int64)
    sizes = np.array([sum(window.values()) for window in windows], np.int64)
    rows = int(sizes.sum())
    batch_size = min(batch_size, rows)
    rng = np.random.default_rng(0)

    def entropy(drawn: npt.NDArray[np.int64]) -> float:
        counts = np.bincount(eras[np.searchsorted(bounds, drawn, side="right")])
        shares = counts[counts > 0] / len(drawn)
        return float(-(shares * np.log(shares)).sum())

    def draw_batch() -> npt.NDArray[np.int64]:
        runs = -(-min(group_rows, rows) // run_rows)
        window = rng.choice(len(sizes), runs, p=sizes / rows)
        of_run = rng.choice(runs * run_rows, batch_size, replace=False) // run_rows
        chosen: Any = window[of_run]
        before = np.cumsum(sizes) - sizes
        result: npt.NDArray[np.int64] = before[chosen] + rng.integers(0, sizes[chosen])
        return result

    exact = np.mean([entropy(rng.integers(0, rows, batch_size)) for _ in range(_DRAWS)])
    mixed = np.mean([entropy(draw_batch()) for _ in range(_DRAWS)])
    return float(mixed / exact) if exact > 0 else 1.0
