"""Open files: a limit to how many of the source files are open at a time.

An open file of 3,555 columns takes 10 MB, so a thousand of them would take all memory.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Protocol

import pyarrow as pa

_MOST_OPEN = 16


class Member(Protocol):
    """A file that can be closed for a while. Reading opens it again."""

    def rest(self) -> None: ...


class Company:
    """The open files, and the values that they share. Only one thread may use it."""

    def __init__(self) -> None:
        self._open: deque[Member] = deque()
        self._common: dict[str, Any] = {}

    def enter(self, member: Member) -> None:
        """Add a file that has just been opened. If there are too many, close the oldest one."""
        self._open.append(member)
        if len(self._open) > _MOST_OPEN:
            self._open.popleft().rest()

    def schema(self, schema: pa.Schema) -> pa.Schema:
        """Return the first file's schema if this one equals it, so that memory holds it once."""
        first = self._common.setdefault("schema", schema)
        return first if first.equals(schema, check_metadata=True) else schema

    def shared(self, name: str, value: Any) -> Any:
        """Return the first file's value of this name if this one equals it."""
        first = self._common.setdefault(name, value)
        return first if first == value else value
