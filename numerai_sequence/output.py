"""Output: a folder becomes a shard set at one instant, or stays what it was.

Everything is written into the hidden folder ``.writing`` inside. Then a journal of the shard files'
names, old and new, is left there, the new shards are moved next to the old ones under names of
their own, and replacing the manifest is the one step that counts. Where a run was killed in
between, the next one moves the new shards back, or removes the old ones: the journal says which
files are no user's. The hidden folder of a killed run stays, for the next one to go on with or to
remove.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from .checks import short
from .errors import ManifestError, OutputExistsError
from .feature_sets import FeatureSets, with_feature_sets
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
from .steps import forget

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

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
        with self._alone():
            self._mend()
        if overwrite or not self._entries():
            return False
        try:
            manifest = read_manifest(self.folder)
        except ManifestError as error:
            raise self._exists(f"holds other things ({error})") from error
        difference = _difference(manifest, sources, options)
        if difference:
            raise self._exists(f"holds a set of {difference}")
        with self._alone():
            self._discard()
        return True

    def update(self, sets: FeatureSets | None) -> None:
        """Have the set that is there tell of these feature sets; its shards are not touched.

        Raises
        ------
        OutputExistsError
            Another process writes to the folder.
        """
        manifest = read_manifest(self.folder)
        if with_feature_sets(manifest, sets) == manifest:
            return
        with self.writing():
            # Read again: until here another process may have replaced the set.
            manifest = with_feature_sets(read_manifest(self.folder), sets)
            self._replace(manifest, new=set(), old=set())

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
        """Make the hidden folder to write into, or find the one of a run that was killed.

        It is gone at the end, but for a `KeyboardInterrupt`, which is a kill.
        """
        made = [path for path in (self.folder, *self.folder.parents) if not path.exists()]
        self._writing.mkdir(parents=True, exist_ok=True)
        with self._alone():
            try:
                yield self._writing
            except Exception:
                self._mend()
                self._discard()
                raise
            finally:
                self._mend()
                with suppress(OSError):  # of a folder that is not empty: something is there to stay
                    for path in made:
                        path.rmdir()

    def commit(self, manifest: Manifest) -> None:
        """Move the new shard files and the manifest into place, and remove the old set's."""
        new = {shard.file for shard in manifest.shards}
        old: set[str] = set()
        with suppress(ManifestError):  # none; or damaged, and then its files are anyone's guess
            old = {shard.file for shard in read_manifest(self.folder).shards}
        self._replace(manifest, new, old - new)  # the name of an old one that had gone was free

    def _replace(self, manifest: Manifest, new: set[str], old: set[str]) -> None:
        write_manifest(manifest, self._writing / MANIFEST)
        journal = {"new": sorted(new), "old": sorted(old)}
        (self._writing / _JOURNAL).write_text(json.dumps(journal))
        _sync_folder(self._writing)
        for name in sorted(new):
            os.replace(self._writing / name, self.folder / name)
        _sync_folder(self.folder)
        os.replace(self._writing / MANIFEST, self.folder / MANIFEST)
        _sync_folder(self.folder)  # and the journal has `writing` remove the old files

    def _mend(self) -> None:
        """Undo a commit that was interrupted, or finish it where only the old files are left."""
        journal = self._read_journal()
        if journal is None:  # no shard file has been moved yet
            return
        new, old = journal
        if (self._writing / MANIFEST).exists():
            moved = [name for name in new if not (self._writing / name).exists()]
            try:
                for name in filter(self._entries().__contains__, moved):
                    os.replace(self.folder / name, self._writing / name)
            except OSError:
                self._remove(moved)
                self._discard()
                raise
            # The manifest stays: without it beside, the journal would tell another story.
            (self._writing / _JOURNAL).unlink()
        else:
            self._remove(old)
            self._discard()

    def _read_journal(self) -> tuple[list[str], list[str]] | None:
        """Return the names of new and old shard files; None where there is none, or a torn one."""
        try:
            journal = json.loads((self._writing / _JOURNAL).read_text())
            new, old = (list(filter(is_shard_name, journal[key])) for key in ("new", "old"))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return new, old

    def _discard(self) -> None:
        """Remove the hidden folder; first of all, what says that it is whole."""
        if self._writing.exists():
            forget(self._writing)
            (self._writing / _JOURNAL).unlink(missing_ok=True)
            shutil.rmtree(self._writing)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other processes out of the hidden folder, if there is one.

        Raises
        ------
        OutputExistsError
            Another one is at it.
        """
        if fcntl is None or not self._writing.exists():
            yield
            return
        descriptor = os.open(self._writing, os.O_RDONLY)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise OutputExistsError(
                    f"{self.folder}: another process is writing to it; wait for its end, "
                    "or choose another folder",
                    path=self.folder,
                ) from error
            except OSError:
                pass  # not every file system has locks
            yield
        finally:
            os.close(descriptor)  # and the lock goes

    def _remove(self, names: Iterable[str]) -> None:
        for name in names:
            (self.folder / name).unlink(missing_ok=True)

    def _entries(self) -> set[str]:
        """Return what is in the folder, but for what a killed run may have left."""
        return set(os.listdir(self.folder)) - {_WRITING} if self.folder.exists() else set()

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
            return _unlike(name, found, wanted)
    if len(manifest.sources) != len(sources):
        return f"{len(manifest.sources)} sources, not {len(sources)}"
    for recorded, path in zip(manifest.sources, sources, strict=True):
        if not _is_same_file(recorded, path):
            return f"another source than {path} ({recorded.path}, or an older state of it)"
    return None


def _unlike(name: str, found: object, wanted: object) -> str:
    is_shown = short(found) != short(wanted)
    if is_shown or not (isinstance(found, tuple) and isinstance(wanted, tuple)):
        return f"{name}={short(found)}, not {short(wanted)}"
    # Two long lists, such as a feature set's features, that begin alike.
    names = set(found).symmetric_difference(wanted)
    return f"other {name}, such as {min(names)!r}" if names else f"the same {name} in another order"


def _is_same_file(recorded: SourceFile, path: Path) -> bool:
    status = os.stat(path)
    if status.st_size != recorded.bytes:
        return False
    return status.st_mtime_ns == recorded.mtime_ns or file_checksum(path) == recorded.checksum


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):  # a folder cannot be opened on every platform
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
