"""Output: a folder becomes a shard set at one instant, or stays what it was.

Everything is written into the hidden folder ``.writing`` inside. Then a journal of the shard files'
names, old and new, is left there, the new shards are moved next to the old ones under names of
their own, and replacing the manifest is the one step that counts. Where a run was killed in
between, the next one moves the new shards back, or removes the old ones: the journal says which
files are no user's. The hidden folder of a killed run stays, for the next one to go on with or to
remove.

Windows deletes no file that is open or mapped. There the old shards of a set that is in use stay,
``.left.json`` lists them, and a later run deletes them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import (
    ManifestError,
    NumeraiSequenceError,
    OutputExistsError,
    is_out_of_memory,
)
from ..format.feature_sets import FeatureSets, with_feature_sets
from ..format.layout import MANIFEST, Manifest, WriteOptions, is_shard_name
from ..format.manifest import read_manifest, write_manifest
from ..system.files import delete, patiently, sync_folder, unwritten
from .folder_claim import LOCK, claimed
from .journal import forget
from .set_difference import find_difference
from .source_columns import Source

_WRITING = ".writing"
_JOURNAL = "journal.json"
_LEFT = ".left.json"
_OURS = {_WRITING, _LEFT, f"{_WRITING}{LOCK}"}
_NUMBERED = re.compile(r"(?:shard|patch)-\d+(?:-(\d+))?\.arrow")


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
        self._is_new = False

    def prepare(self, sources: Sequence[Source], options: WriteOptions, *, overwrite: bool) -> bool:
        """Say whether the folder already holds the set that these would make.

        What a run that was killed has left beside it is removed, or is undone.

        Raises
        ------
        OutputExistsError
            It holds anything else, and `overwrite` is False; or another process writes to it.
        OutputError
        """
        with self._explained():
            if self.folder.exists() and not self.folder.is_dir():
                raise OutputExistsError(
                    f"{self.folder}: a file; expected a folder; choose another", path=self.folder
                )
            self.tidy(keeps=True)
            if not self.holds_set_of(sources, options, overwrite=overwrite):
                return False
            self.tidy(keeps=False)
            return True

    def tidy(self, *, keeps: bool) -> None:
        """Undo the commit of a run that was killed in it, or finish it.

        `keeps` says that what else the run has left stays, for one like it to go on with.

        Raises
        ------
        OutputExistsError
            Another process writes to the folder.
        OutputError
        """
        has_left = not keeps and (self.folder / _LEFT).exists()
        with self._explained(), claimed(self._writing, make=has_left) as is_there:
            if is_there:
                self._end(keeps=keeps)

    def holds_set_of(
        self, sources: Sequence[Source], options: WriteOptions, *, overwrite: bool
    ) -> bool:
        """Say the same of a folder that nothing is to be done to, such as within `writing`."""
        if overwrite or not self._entries():
            return False
        try:
            manifest = read_manifest(self.folder)
        except ManifestError as error:
            raise self._exists(
                f"holds other things ({error}); choose another folder, or pass overwrite=True to "
                "replace it"
            ) from error
        difference = find_difference(manifest, self.folder, sources, options)
        if difference:
            raise self._exists(f"holds a set of {difference}")
        return True

    def update(self, sets: FeatureSets | None) -> None:
        """Have the set that is there tell of these feature sets; its shards are not touched.

        Raises
        ------
        OutputExistsError
            Another process writes to the folder.
        OutputError
        """
        manifest = read_manifest(self.folder)
        if with_feature_sets(manifest, sets) == manifest:
            return
        with self.writing():
            # Read again: until here another process may have replaced the set.
            manifest = with_feature_sets(read_manifest(self.folder), sets)
            self._replace(manifest, new=set(), old=set())

    def new_names(self, count: int) -> list[str]:
        """Return names for `count` new shard files, newer than those of the set that is there.

        None comes back while there is a set: who opens one by its manifest finds its own files, or
        none, and never those of the set after the next.
        """
        digits = max(2, len(str(count - 1)))
        generation = self.generation()
        suffix = f"-{generation}" if generation else ""
        return [f"shard-{shard:0{digits}d}{suffix}.arrow" for shard in range(count)]

    def generation(self) -> int:
        """Return the number of new files, larger than that of each that is there."""
        taken = map(_NUMBERED.fullmatch, self._entries())
        return max((1 + int(name[1] or 0) for name in taken if name), default=0)

    @contextmanager
    def writing(self, needed_bytes: int = 0) -> Iterator[Path]:
        """Make the hidden folder to write into, or find the one of a run that was killed.

        It is gone at the end, also after an error: a full disk shall not stay full. It stays for
        the next run to go on with after a `KeyboardInterrupt`, which is a kill, and where memory
        has run out.

        Parameters
        ----------
        needed_bytes : int
            On the disk, at the most; for the error.

        Raises
        ------
        OutputExistsError
            Another process writes to the folder.
        OutputError
        """
        made = [path for path in (self.folder, *self.folder.parents) if not path.exists()]
        with self._explained(needed_bytes):
            try:
                with claimed(self._writing, make=True), self._ending():
                    yield self._writing
            finally:
                with suppress(OSError):  # of a folder that is not empty: something is there to stay
                    for path in made:
                        path.rmdir()

    @contextmanager
    def _ending(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            is_kill = not isinstance(error, Exception) or is_out_of_memory(error)
            is_shared = isinstance(error, BlockingIOError)  # a task of a killed run is still at it
            self._end(keeps=is_kill or is_shared)
            raise
        self._end(keeps=False)

    def _end(self, *, keeps: bool) -> None:
        if self._mend() and not keeps:
            self._discard()
        if (self.folder / _LEFT).exists():
            self._remove(())

    def what_is_left(self) -> str:
        """Say in an error what is in the folder now."""
        if self._is_new:
            return "the new set is there, and whole; what else is left there goes with the next run"
        if os.path.exists(self._writing):
            return (
                f"what was there is as it was, and what is done so far is in {self._writing}: "
                "the same again goes on with it"
            )
        return "what was there is as it was, and nothing else is left"

    @contextmanager
    def _explained(self, needed_bytes: int = 0) -> Iterator[None]:
        """Say of the system's errors where they came from, and what is left.

        Raises
        ------
        OutputExistsError
            Another process has claimed the hidden folder, or a part of it.
        OutputError
        """
        try:
            yield
        except NumeraiSequenceError:  # some are an OSError too
            raise
        except BlockingIOError as error:
            raise OutputExistsError(
                f"{self.folder}: another process is writing to it; wait for its end, "
                "or choose another folder",
                path=self.folder,
            ) from error
        except OSError as error:
            if is_out_of_memory(error):
                raise
            left = self.what_is_left()
            raise unwritten(self.folder, error, left=left, needed_bytes=needed_bytes) from error

    def commit(self, manifest: Manifest) -> None:
        """Move new files and the manifest into place, and remove what it does not tell of.

        Those of the set that is there which the manifest tells of stay where they are.
        """
        now = {file.file for file in manifest.files}
        old: set[str] = set()
        with suppress(ManifestError):  # none; or damaged, and then its files are anyone's guess
            old = {file.file for file in read_manifest(self.folder).files}
        # The name of an old one that had gone was free.
        new = {name for name in now if name not in old or (self._writing / name).exists()}
        self._replace(manifest, new, old - now)

    def _replace(self, manifest: Manifest, new: set[str], old: set[str]) -> None:
        write_manifest(manifest, self._writing / MANIFEST)
        with open(self._writing / _JOURNAL, "w", encoding="utf-8") as file:
            json.dump({"new": sorted(new), "old": sorted(old)}, file)
            file.flush()
            os.fsync(file.fileno())
        sync_folder(self._writing)
        for name in sorted(new):
            patiently(os.replace, self._writing / name, self.folder / name)
        sync_folder(self.folder)
        patiently(os.replace, self._writing / MANIFEST, self.folder / MANIFEST)
        self._is_new = True
        sync_folder(self.folder)  # and the journal has `writing` remove the old files

    def _mend(self) -> bool:
        """Undo a commit that was interrupted, or finish it where only the old files are left.

        Say whether the hidden folder is still this process's: once it has been removed, one of that
        name is another's.
        """
        journal = self._read_journal()
        if journal is None:  # no shard file has been moved yet
            return True
        new, old = journal
        if (self._writing / MANIFEST).exists():
            moved = [name for name in new if not (self._writing / name).exists()]
            try:
                for name in filter(self._entries().__contains__, moved):
                    patiently(os.replace, self.folder / name, self._writing / name)
            except OSError:
                self._remove(moved)
                self._discard()
                raise
            # The manifest stays: without it beside, the journal would tell another story.
            (self._writing / _JOURNAL).unlink()
            return True
        self._remove(old)
        self._discard()
        return False

    def _read_journal(self) -> tuple[list[str], list[str]] | None:
        """Return the names of new and old shard files; None where there is none, or a torn one."""
        try:
            journal = json.loads((self._writing / _JOURNAL).read_text(encoding="utf-8"))
            new, old = (list(filter(is_shard_name, journal[key])) for key in ("new", "old"))
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None
        return new, old

    def _discard(self) -> None:
        """Remove the hidden folder; first of all, what says that it is whole."""
        if self._writing.exists():
            forget(self._writing)
            (self._writing / _JOURNAL).unlink(missing_ok=True)
            patiently(shutil.rmtree, self._writing)

    def _remove(self, names: Iterable[str]) -> None:
        """Delete files, and those that were in use before; note the ones that are in use now."""
        wanted = sorted({*names, *self._read_left()})
        left = [name for name in wanted if not delete(self.folder / name)]
        if left:
            (self.folder / _LEFT).write_text(json.dumps(left), encoding="utf-8")
        else:
            (self.folder / _LEFT).unlink(missing_ok=True)

    def _read_left(self) -> set[str]:
        """Return the names of files that a run could not delete, and no set has."""
        try:
            left = json.loads((self.folder / _LEFT).read_text(encoding="utf-8"))
            used = {file.file for file in read_manifest(self.folder).files}
            return set(filter(is_shard_name, left)) - used
        except (FileNotFoundError, ValueError, TypeError, ManifestError):
            return set()

    def _entries(self) -> set[str]:
        """Return what is in the folder, but for what a killed run may have left."""
        return set(os.listdir(self.folder)) - _OURS if self.folder.exists() else set()

    def _exists(self, what: str) -> OutputExistsError:
        return OutputExistsError(f"{self.folder}: {what}", path=self.folder)
