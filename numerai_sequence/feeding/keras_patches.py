"""Keras patches: replace attributes of Keras, and restore them if this package is reimported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Changes:
    """The changes of one import of this package in a Keras package.

    A notebook may import the package again. The newest import then replaces the changes.

    Parameters
    ----------
    made_by
        Object that identifies the import.
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
        """Set the value of a closure's cell."""
        before = cell.cell_contents
        cell.cell_contents = value
        self._backwards.append(lambda: setattr(cell, "cell_contents", before))

    def undo(self) -> None:
        """Restore the former values."""
        while self._backwards:
            self._backwards.pop()()
