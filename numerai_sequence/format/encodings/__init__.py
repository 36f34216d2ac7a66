"""Encodings: the table of all ways to write a row's features. To add one, add a file and a line."""

from __future__ import annotations

from ..encoding import Encoding
from .int8 import Int8
from .packed import Packed

#: By name, the default first.
ENCODINGS: dict[str, Encoding] = {kind.name: kind() for kind in (Packed, Int8)}

#: For scratch files and for rows in the memory of a device, whatever the encoding of the set.
COMPACT = ENCODINGS[Packed.name]
