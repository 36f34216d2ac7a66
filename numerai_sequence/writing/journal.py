"""Journal: notes of the steps that a run has finished, so that a later run continues from them.

The shard files have a file of notes, and so has the scratch of each source. It is a file of JSON
lines: the first line names the run, and each other line notes a finished step. A line is written
when its step is complete, so a noted step is whole. An interrupted step is done again. Only sealed
shards are known to be on the disk; other files may be only in the kernel's memory. So after a
restart of the machine, only sealed shards count.
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
class Progress:
    """The finished steps of a run.

    Attributes
    ----------
    meta : set of int
        Chunks whose other columns (not features) are in scratch.
    meta_bytes : dict of int to int
        For each window, the size in bytes of the file of these columns.
    blocks : set of (int, int)
        Chunk and block of the features that are in scratch.
    sources : dict of int to SourceFile
        Sources that are completely in scratch.
    shards : dict of int to Shard
        Shards that are sealed.
    filled : int
        Number of missing values that were filled in, in these blocks.
    """

    meta: set[int] = field(default_factory=set)
    meta_bytes: dict[int, int] = field(default_factory=dict)
    blocks: set[tuple[int, int]] = field(default_factory=set)
    sources: dict[int, SourceFile] = field(default_factory=dict)
    shards: dict[int, Shard] = field(default_factory=dict)
    filled: int = 0

    def add(self, step: dict[str, Any]) -> None:
        """Add the step of a line. Raises a KeyError or TypeError if the line is not a step."""
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


class Journal:
    """The notes of the run that writes into a folder. Several threads may add to them.

    Parameters
    ----------
    folder : path
        Folder of the notes. Files of an earlier run stay if it was the same run and its finished
        steps are whole. Otherwise they are removed.
    run : str
        Name of the run, from its sources, options and plan. Runs of one name do the same steps.
    shards : int
        Number of shards in all; 0 if the folder is not for shards.

    Attributes
    ----------
    done : Progress
        Finished steps of the earlier run.
    goes_on : bool
        Whether the run continues an earlier one.
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

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def add_meta(self, chunk: int, sizes: dict[int, int]) -> None:
        """Note that a chunk's other columns are in scratch, and the sizes of the files now."""
        self._write({"done": "meta", "chunk": chunk, "bytes": sizes})

    def add_block(self, chunk: int, block: int, filled: int = 0) -> None:
        """Note that a block of a chunk's features is in scratch, with `filled` values filled in."""
        more = {"filled": filled} if filled else {}
        self._write({"done": "block", "chunk": chunk, "block": block, **more})

    def add_source(self, number: int, source: SourceFile) -> None:
        """Note that a source is completely in scratch."""
        self._write({"done": "source", "source": number, "described": asdict(source)})

    def add_shard(self, number: int, shard: Shard) -> None:
        """Note that a shard is sealed. Only then may its scratch be deleted."""
        self._write({"done": "shard", "shard": number, "described": asdict(shard)})

    def _write(self, line: dict[str, Any]) -> None:
        write_all(self._file, memoryview(json.dumps(line).encode() + b"\n"))


def forget(folder: Path) -> None:
    """Delete the notes of a folder. Call this before any file that they describe is deleted."""
    (folder / _NOTES).unlink(missing_ok=True)


def _read(path: Path, first: dict[str, Any], shards: int) -> tuple[Progress, int]:
    """Return the valid steps and the bytes of their lines, or no steps and 0."""
    begun, done, size = _parse(path.read_bytes() if path.exists() else b"")
    if begun.get("run") != first["run"]:
        return Progress(), 0
    is_same_boot = first["boot"] is not None and begun.get("boot") == first["boot"]
    is_whole = is_same_boot or 0 < len(done.shards) == shards
    for shard in done.shards.values():
        is_whole = is_whole and _is_whole(path.parent / shard.file, shard, is_same_boot)
    return (done, size) if is_whole else (Progress(), 0)


def _parse(notes: bytes) -> tuple[dict[str, Any], Progress, int]:
    """Return the first line, the steps of the others, and the bytes before any torn line."""
    begun: dict[str, Any] = {}
    done, size = Progress(), 0
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
    """Return an id of the machine's present start; None if it is not known."""
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except OSError:
        return None
