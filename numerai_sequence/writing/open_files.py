"""Company: of many files that are read by turns, only some are open at a time.

What is kept of an open file of 3,555 columns is 10 MB, so that a thousand would take all memory.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Protocol

import pyarrow as pa

_MOST_OPEN = 16


class Member(Protocol):
    """A file that may rest: it is opened again when it is read."""

    def rest(self) -> None: ...


class Company:
    """The files that are open, and what they have in common. One thread uses it."""

    def __init__(self) -> None:
        self._open: deque[Member] = deque()
        self._common: dict[str, Any] = {}

    def enter(self, member: Member) -> None:
        """Count a file that has just been opened, and have the one before all others rest."""
        self._open.append(member)
        if len(self._open) > _MOST_OPEN:
            self._open.popleft().rest()

    def schema(self, schema: pa.Schema) -> pa.Schema:
        """Return the first file's schema where this one equals it: memory holds it once."""
        first = self._common.setdefault("schema", schema)
        return first if first.equals(schema, check_metadata=True) else schema

    def shared(self, name: str, value: Any) -> Any:
        """Return the first file's value of this name where this one equals it."""
        first = self._common.setdefault(name, value)
        return first if first == value else value
