"""Changes: what is replaced in Keras, and put back where this package is imported again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Changes:
    """What one import of this package has changed in a Keras package.

    In a notebook the package may be imported again: its newest copy takes the place of the others.

    Parameters
    ----------
    made_by
        What tells the copy.
    """

    def __init__(self, made_by: Any) -> None:
        self.made_by = made_by
        self._backwards: list[Callable[[], None]] = []

    def set(self, owner: Any, name: str, value: Any) -> None:
        """Set an attribute of a class or module."""
        before, is_own = getattr(owner, name, None), name in vars(owner)
        before = vars(owner).get(name, before)
        setattr(owner, name, value)
        self._backwards.append(
            lambda: setattr(owner, name, before) if is_own else delattr(owner, name)
        )

    def set_cell(self, cell: Any, value: Any) -> None:
        """Set what a function encloses."""
        before = cell.cell_contents
        cell.cell_contents = value
        self._backwards.append(lambda: setattr(cell, "cell_contents", before))

    def undo(self) -> None:
        """Put back what was there."""
        while self._backwards:
            self._backwards.pop()()
