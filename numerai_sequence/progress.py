"""Progress: a bar on stderr that counts rows."""

from __future__ import annotations

from typing import Any

from tqdm import tqdm


def row_bar(rows: int, description: str, progress: bool, done: int = 0) -> Any:
    """Return a bar that counts to `rows`, and has `done` of them behind it."""
    return tqdm(
        total=rows,
        initial=done,
        desc=description,
        unit="row",
        unit_scale=True,
        disable=not progress,
        leave=True,
    )
