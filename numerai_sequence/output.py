"""Output: a folder becomes a shard set at one instant, or stays what it was.

Everything is written into the hidden folder ``.writing`` inside. Then a journal of the shard files'
names, old and new, is left there, the new shards are moved next to the old ones under names of
their own, and replacing the manifest is the one step that counts. What a killed run leaves behind,
the next run removes: the journal says which files are no user's.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import ManifestError, OutputExistsError
from .layout import (
    MANIFEST,
    Manifest,
    SourceFile,
    WriteOptions,
    file_checksum,
    is_shard_name,
    read_manifest,
    write_manifest,
)

_WRITING = ".writing"
_JOURNAL = "journal.json"


class Output:
    """The folder that a shard set is written to.

    Parameters
    ----------
    folder : path
        It need not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._writing = folder / _WRITING

    def holds_set_of(
        self, sources: Sequence[Path], options: WriteOptions, *, overwrite: bool
    ) -> bool:
        """Say whether the folder already holds the set that these would make.

        Raises
        ------
        OutputExistsError
            It holds anything else, and `overwrite` is False.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise OutputExistsError(
                f"{self.folder}: a file; expected a folder; choose another", path=self.folder
            )
        self._clear_interrupted()
        if overwrite or not self._entries():
            return False
        try:
            manifest = read_manifest(self.folder)
        except ManifestError as error:
            raise self._exists(f"holds other things ({error})") from error
        difference = _difference(manifest, sources, options)
        if difference:
            raise self._exists(f"holds a set of {difference}")
        return True

    def new_names(self, count: int) -> list[str]:
        """Return names for `count` new shard files, none of them taken."""
        digits = len(str(count - 1))
        taken = self._entries()
        generation = 0
        while True:
            suffix = f"-{generation}" if generation else ""
            names = [f"shard-{shard:0{max(2, digits)}d}{suffix}.arrow" for shard in range(count)]
            if taken.isdisjoint(names):
                return names
            generation += 1

    @contextmanager
    def writing(self) -> Iterator[Path]:
        """Make the hidden folder to write into; remove it at the end, whatever happens."""
        made = [path for path in (self.folder, *self.folder.parents) if not path.exists()]
        self._writing.mkdir(parents=True)
        try:
            yield self._writing
        finally:
            self._clear_interrupted()
            with suppress(OSError):  # of a folder that is not empty: something was committed
                for path in made:
                    path.rmdir()

    def commit(self, manifest: Manifest) -> None:
        """Move the new shard files and the manifest into place, and remove the old set's."""
        new = {shard.file for shard in manifest.shards}
        old: set[str] = set()
        with suppress(ManifestError):  # none; or damaged, and then its files are anyone's guess
            old = {shard.file for shard in read_manifest(self.folder).shards}
        write_manifest(manifest, self._writing / MANIFEST)
        journal = {"new": sorted(new), "old": sorted(old)}
        (self._writing / _JOURNAL).write_text(json.dumps(journal))
        _sync_folder(self._writing)
        for name in sorted(new):
            os.replace(self._writing / name, self.folder / name)
        _sync_folder(self.folder)
        os.replace(self._writing / MANIFEST, self.folder / MANIFEST)
        _sync_folder(self.folder)  # and the journal has `writing` remove the old files

    def _clear_interrupted(self) -> None:
        if not self._writing.exists():
            return
        # No journal, or a torn one: no shard file has been moved yet.
        with suppress(OSError, ValueError, KeyError, TypeError):
            journal = json.loads((self._writing / _JOURNAL).read_text())
            is_committed = not (self._writing / MANIFEST).exists()
            self._remove(journal["old" if is_committed else "new"])
        # The journal goes first: without the manifest beside it, it would tell another story.
        (self._writing / _JOURNAL).unlink(missing_ok=True)
        shutil.rmtree(self._writing)

    def _remove(self, names: Iterable[str]) -> None:
        for name in filter(is_shard_name, names):
            (self.folder / name).unlink(missing_ok=True)

    def _entries(self) -> set[str]:
        return set(os.listdir(self.folder)) if self.folder.exists() else set()

    def _exists(self, what: str) -> OutputExistsError:
        return OutputExistsError(
            f"{self.folder}: {what}; choose another folder, or pass overwrite=True to replace it",
            path=self.folder,
        )


def _difference(manifest: Manifest, sources: Sequence[Path], options: WriteOptions) -> str | None:
    """Say in what a set differs from the one that these would make; None: in nothing."""
    for name in WriteOptions.__dataclass_fields__:
        found, wanted = getattr(manifest.options, name), getattr(options, name)
        if found != wanted:
            return f"{name}={_short(found)}, not {_short(wanted)}"
    if len(manifest.sources) != len(sources):
        return f"{len(manifest.sources)} sources, not {len(sources)}"
    for recorded, path in zip(manifest.sources, sources, strict=True):
        if not _is_same_file(recorded, path):
            return f"another source than {path} ({recorded.path}, or an older state of it)"
    return None


def _is_same_file(recorded: SourceFile, path: Path) -> bool:
    status = os.stat(path)
    if status.st_size != recorded.bytes:
        return False
    return status.st_mtime_ns == recorded.mtime_ns or file_checksum(path) == recorded.checksum


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):  # a folder cannot be opened on every platform
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
