"""Progress: a bar on stderr that counts rows or other units."""

from __future__ import annotations

from typing import Any

from tqdm import tqdm


def progress_bar(
    total: int, description: str, progress: bool, done: int = 0, *, unit: str = "row"
) -> Any:
    """Return a bar that counts from `done` to `total`; without `progress` it is not shown."""
    return tqdm(
        total=total,
        initial=done,
        desc=description,
        unit=unit,
        unit_scale=True,
        disable=not progress,
        leave=True,
    )
