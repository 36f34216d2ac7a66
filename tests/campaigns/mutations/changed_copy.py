"""Changed copy: a shard set, copied, changed in memory, and written as a folder of its own."""

import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from campaigns.mutations.base_sets import MANIFEST, Base

#: What whoever changed the set has made fit again: a disk mends nothing, an attacker the sizes of
#: files in the manifest, or their checksums too, and the manifest's own one.
FIXES = ("nothing", "sizes", "checksums")


class Draft:
    """A set that is about to be changed.

    Attributes
    ----------
    files : dict of str to bytes
        Shard files, by name.
    document : dict
        The manifest.
    text : bytes or None
        What is written instead of `document`, if anything.
    others : dict of str to function
        Makes what is at a name instead of a file; called with the path.
    fixes : str
        One of `FIXES`.
    """

    def __init__(self, base: Base, rng: np.random.Generator) -> None:
        self.base, self.rng = base, rng
        self.files = dict(base.files)
        self.document: Any = json.loads(base.text)
        self.text: bytes | None = None
        self.others: dict[str, Callable[[Path], None]] = {}
        self.fixes = FIXES[rng.integers(3)]

    def pick(self, options: Any) -> Any:
        """Return one of some options."""
        options = list(options)
        return options[self.rng.integers(len(options))]

    def pick_file(self) -> str:
        """Return the name of a shard file that has rows."""
        return self.pick(shard["file"] for shard in self.document["shards"] if shard["rows"])

    def write(self, folder: Path) -> None:
        """Write the set; files that were not changed are linked."""
        folder.mkdir()
        if self.fixes != "nothing":
            self._fix()
        for name, content in self.files.items():
            path = folder / name
            if name in self.others:
                self.others[name](path)
            elif content is self.base.files.get(name):
                os.link(self.base.folder / name, path)
            else:
                path.write_bytes(content)
        if MANIFEST in self.others:
            self.others[MANIFEST](folder / MANIFEST)
        else:
            text = manifest_text(self.document) if self.text is None else self.text
            (folder / MANIFEST).write_bytes(text)

    def _fix(self) -> None:
        for shard in self.document["shards"] if self._has_changed_files() else ():
            content = self.files.get(shard["file"], b"")
            shard["bytes"] = len(content)
            if self.fixes == "checksums":
                shard["checksum"] = hashlib.sha256(content).hexdigest()
        if isinstance(self.document, dict):
            sign(self.document)

    def _has_changed_files(self) -> bool:
        base = self.base.files
        return any(content is not base.get(name) for name, content in self.files.items())


def nested(depth: int, kind: str) -> str:
    """Return what stands in a document for lists or objects in each other, down to a depth."""
    return f"nested {depth} {kind}"


def dumps(document: Any) -> bytes:
    """Return a document's text; it may be deeper than Python's own writer goes."""

    def expand(found: re.Match[str]) -> str:
        start, stop = {"[": ("[", "]"), "{": ('{"a": ', "}")}[found[2]]
        return start * int(found[1]) + "1" + stop * int(found[1])

    return re.sub(r'"nested (\d+) (.)"', expand, json.dumps(document)).encode()


def sign(document: dict[str, Any]) -> None:
    """Give a manifest the checksum of what it says."""
    document.pop("checksum", None)
    document["checksum"] = hashlib.sha256(dumps(document)).hexdigest()


def manifest_text(document: Any) -> bytes:
    return dumps(document) + b"\n"
