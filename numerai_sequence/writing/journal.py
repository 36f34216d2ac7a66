"""Steps: note what a run has done, so that the run after a kill goes on from what is whole.

The shard files have notes, and each source has some beside its scratch: a file of JSON lines, of
which the first says of which run they are, each other one that a step was done. A line is written
when its step is complete, so what is noted is whole, and what a kill has torn is done again. Only
sealed shards are known to be on the disk, not just in the kernel's memory: after a restart of the
machine nothing else counts.
"""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from ..format.layout import BatchInfo, Shard, SourceFile, file_checksum
from ..system.files import patiently, write_all

_NOTES = "steps.jsonl"

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass
class Done:
    """What a run has done.

    Attributes
    ----------
    meta : set of int
        Chunks whose other columns are in scratch.
    meta_bytes : dict of int to int
        For each window, the bytes that they have made of its file.
    blocks : set of (int, int)
        Chunk and block, for each whose features are in scratch.
    sources : dict of int to SourceFile
        Those that are wholly in scratch.
    shards : dict of int to Shard
        Those that are sealed.
    filled : int
        The missing values of the blocks that were filled in.
    """

    meta: set[int] = field(default_factory=set)
    meta_bytes: dict[int, int] = field(default_factory=dict)
    blocks: set[tuple[int, int]] = field(default_factory=set)
    sources: dict[int, SourceFile] = field(default_factory=dict)
    shards: dict[int, Shard] = field(default_factory=dict)
    filled: int = 0

    def add(self, step: dict[str, Any]) -> None:
        """Count in a line of the notes; a KeyError or TypeError says that it is none."""
        if step["done"] == "meta":
            self.meta_bytes |= {int(window): size for window, size in step["bytes"].items()}
            self.meta.add(step["chunk"])
        elif step["done"] == "block":
            self.blocks.add((step["chunk"], step["block"]))
            self.filled += int(step.get("filled", 0))
        elif step["done"] == "source":
            self.sources[step["source"]] = SourceFile(**step["described"])
        else:
            described = step["described"]
            batches = tuple(BatchInfo(**batch) for batch in described["batches"])
            self.shards[step["shard"]] = Shard(**{**described, "batches": batches})


class Steps:
    """The notes of the run that writes into a folder. Several threads may add to them.

    Parameters
    ----------
    folder : path
        What the run before it has left there stays where it was the same run and what it has noted
        is whole; otherwise it is removed.
    run : str
        Says what is written from what, and how; two runs of one name do the same steps.
    shards : int
        The number of shards in all; 0 where there are none in this folder.

    Attributes
    ----------
    done : Done
        What the run before it has done.
    goes_on : bool
        There was one.
    """

    def __init__(self, folder: Path, run: str, shards: int = 0) -> None:
        path = folder / _NOTES
        first = {"run": run, "boot": _boot()}
        self.done, size = _read(path, first, shards)
        self.goes_on = size > 0
        if not self.goes_on:
            forget(folder)
            for left in folder.iterdir():
                patiently(shutil.rmtree, left) if left.is_dir() else patiently(left.unlink)
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115
        self._file.truncate(size)  # a torn line, if there is one
        if not self.goes_on:
            self._write(first)

    def __enter__(self) -> Steps:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def add_meta(self, chunk: int, sizes: dict[int, int]) -> None:
        """Note that a chunk's other columns are in scratch, and how long its files are now."""
        self._write({"done": "meta", "chunk": chunk, "bytes": sizes})

    def add_block(self, chunk: int, block: int, filled: int = 0) -> None:
        """Note that a block of a chunk's features is in scratch, with so many values filled in."""
        more = {"filled": filled} if filled else {}
        self._write({"done": "block", "chunk": chunk, "block": block, **more})

    def add_source(self, number: int, source: SourceFile) -> None:
        """Note that a source is wholly in scratch."""
        self._write({"done": "source", "source": number, "described": asdict(source)})

    def add_shard(self, number: int, shard: Shard) -> None:
        """Note that a shard is sealed; its scratch may go only now."""
        self._write({"done": "shard", "shard": number, "described": asdict(shard)})

    def _write(self, line: dict[str, Any]) -> None:
        write_all(self._file, memoryview(json.dumps(line).encode() + b"\n"))


def forget(folder: Path) -> None:
    """Remove the notes from a folder, before a part of what they tell of is removed."""
    (folder / _NOTES).unlink(missing_ok=True)


def _read(path: Path, first: dict[str, Any], shards: int) -> tuple[Done, int]:
    """Return the steps that count and the bytes of their lines, or none and 0."""
    begun, done, size = _parse(path.read_bytes() if path.exists() else b"")
    if begun.get("run") != first["run"]:
        return Done(), 0
    is_same_boot = first["boot"] is not None and begun.get("boot") == first["boot"]
    is_whole = is_same_boot or 0 < len(done.shards) == shards
    for shard in done.shards.values():
        is_whole = is_whole and _is_whole(path.parent / shard.file, shard, is_same_boot)
    return (done, size) if is_whole else (Done(), 0)


def _parse(notes: bytes) -> tuple[dict[str, Any], Done, int]:
    """Return the first line, the steps of the others, and the bytes of all until a torn one."""
    begun: dict[str, Any] = {}
    done, size = Done(), 0
    # A kill tears the last line, a power failure maybe more.
    with suppress(ValueError, KeyError, TypeError, AttributeError):
        for line in notes.splitlines(keepends=True):
            if not line.endswith(b"\n"):
                break
            if begun:
                done.add(json.loads(line))
            else:
                begun = dict(json.loads(line))
            size += len(line)
    return begun, done, size


def _is_whole(path: Path, shard: Shard, is_same_boot: bool) -> bool:
    if not path.exists() or path.stat().st_size != shard.bytes:
        return False
    return is_same_boot or file_checksum(path) == shard.checksum


def _boot() -> str | None:
    """Return what differs after each start of the machine; None where that is not known."""
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except OSError:
        return None
