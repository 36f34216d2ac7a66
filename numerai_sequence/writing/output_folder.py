"""Output folder: a folder that becomes a shard set at one instant, or stays as it was.

All files are first written into its hidden folder ``.writing``. Then a journal there lists the
names of the old and new shard files, and the new shards are moved beside the old ones, under names
of their own. Replacing the manifest is the one step that makes them the set. If a run is killed in
between, the next run moves the new shards back, or removes the old ones. The journal tells them
from the user's files. The hidden folder of a killed run stays: the next run continues from it, or
removes it.

Windows cannot delete a file that is open or mapped. There, the old shards of a set in use stay.
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
        """Say whether the folder already holds the set that these sources and options would make.

        The commit of a killed run is undone or finished. If the folder holds the set, the other
        files of that run are removed.

        Raises
        ------
        OutputExistsError
            The folder holds something else, and `overwrite` is False; or another process writes to
            it.
        OutputError
        """
        with self._explained():
            if self.folder.exists() and not self.folder.is_dir():
                raise OutputExistsError(
                    f"{self.folder}: found a file, expected a folder; choose another path",
                    path=self.folder,
                )
            self.recover(keeps=True)
            if not self.holds_set_of(sources, options, overwrite=overwrite):
                return False
            self.recover(keeps=False)
            return True

    def recover(self, *, keeps: bool) -> None:
        """Undo, or finish, the commit of a run that was killed.

        With `keeps`, the other files of that run stay, so that the same run can continue.

        Raises
        ------
        OutputExistsError
            Another process writes to the folder.
        OutputError
        """
        has_left = not keeps and (self.folder / _LEFT).exists()
        with self._explained(), claimed(self._writing, make=has_left) as is_there:
            if is_there:
                self._clean_up(keeps=keeps)

    def holds_set_of(
        self, sources: Sequence[Source], options: WriteOptions, *, overwrite: bool
    ) -> bool:
        """Say the same as `prepare`, but change nothing; also within `writing`."""
        if overwrite or not self._entries():
            return False
        try:
            manifest = read_manifest(self.folder)
        except ManifestError as error:
            raise self._exists(
                f"found other files, expected a shard set or an empty folder ({error}); choose "
                "another folder, or pass overwrite=True to write the set there"
            ) from error
        difference = find_difference(manifest, self.folder, sources, options)
        if difference:
            raise self._exists(f"holds a set with {difference}")
        return True

    def update(self, sets: FeatureSets | None) -> None:
        """Store feature sets in the manifest of the existing set. Its shards are not touched.

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
        """Return names for `count` new shard files, newer than those of the existing set.

        As long as the folder holds a set, no name is used twice. So a reader with an old manifest
        finds the files of that manifest or none, and never those of a later set.
        """
        digits = max(2, len(str(count - 1)))
        generation = self.generation()
        suffix = f"-{generation}" if generation else ""
        return [f"shard-{shard:0{digits}d}{suffix}.arrow" for shard in range(count)]

    def generation(self) -> int:
        """Return a number for new files, larger than the number of every existing file."""
        taken = map(_NUMBERED.fullmatch, self._entries())
        return max((1 + int(name[1] or 0) for name in taken if name), default=0)

    @contextmanager
    def writing(self, needed_bytes: int = 0) -> Iterator[Path]:
        """Yield the hidden folder to write into: a new one, or the one of a killed run.

        It is removed at the end, also after an error, so that a full disk does not stay full. After
        a `KeyboardInterrupt`, or when memory has run out, it stays, and the next run continues.

        Parameters
        ----------
        needed_bytes : int
            The most bytes that the run needs on the disk, for the error.

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
                with suppress(OSError):  # of a folder that is not empty: its files stay
                    for path in made:
                        path.rmdir()

    @contextmanager
    def _ending(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            is_kill = not isinstance(error, Exception) or is_out_of_memory(error)
            is_shared = isinstance(error, BlockingIOError)  # a task of a killed run still uses it
            self._clean_up(keeps=is_kill or is_shared)
            raise
        self._clean_up(keeps=False)

    def _clean_up(self, *, keeps: bool) -> None:
        if self._roll_back_or_finish() and not keeps:
            self._discard()
        if (self.folder / _LEFT).exists():
            self._remove(())

    def what_is_left(self) -> str:
        """Describe the state of the folder, for an error."""
        if self._is_new:
            return "the new set is complete, and the next run removes old files that are left"
        if os.path.exists(self._writing):
            return (
                f"the folder is unchanged, except that {self._writing} keeps the finished part: "
                "run the same again to continue"
            )
        return "the folder is unchanged"

    @contextmanager
    def _explained(self, needed_bytes: int = 0) -> Iterator[None]:
        """Turn the system's errors into errors that name the folder and describe its state.

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
                f"{self.folder}: another process is writing to this folder; wait until it ends, "
                "or choose another folder",
                path=self.folder,
            ) from error
        except OSError as error:
            if is_out_of_memory(error):
                raise
            left = self.what_is_left()
            raise unwritten(self.folder, error, left=left, needed_bytes=needed_bytes) from error

    def commit(self, manifest: Manifest) -> None:
        """Move the new files and the manifest into place, and remove the files of the old set.

        Files of the old set that the new manifest lists stay where they are.
        """
        now = {file.file for file in manifest.files}
        old: set[str] = set()
        with suppress(ManifestError):  # none; or a damaged one, whose files are not known
            old = {file.file for file in read_manifest(self.folder).files}
        # The name of an old file that was missing was free.
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

    def _roll_back_or_finish(self) -> bool:
        """Undo an interrupted commit, or finish it if only old files are left to remove.

        Say whether the hidden folder is still this process's. Once it has been removed, a folder of
        that name belongs to another process.
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
            # The manifest stays: a journal without it means that the commit has happened.
            (self._writing / _JOURNAL).unlink()
            return True
        self._remove(old)
        self._discard()
        return False

    def _read_journal(self) -> tuple[list[str], list[str]] | None:
        """Return the names of new and old shard files; None if the journal is missing or torn."""
        try:
            journal = json.loads((self._writing / _JOURNAL).read_text(encoding="utf-8"))
            new, old = (list(filter(is_shard_name, journal[key])) for key in ("new", "old"))
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None
        return new, old

    def _discard(self) -> None:
        """Remove the hidden folder. The files that say that it is whole go first."""
        if self._writing.exists():
            forget(self._writing)
            (self._writing / _JOURNAL).unlink(missing_ok=True)
            patiently(shutil.rmtree, self._writing)

    def _remove(self, names: Iterable[str]) -> None:
        """Delete files, and those that were in use before; note those that are in use now."""
        wanted = sorted({*names, *self._read_left()})
        left = [name for name in wanted if not delete(self.folder / name)]
        if left:
            (self.folder / _LEFT).write_text(json.dumps(left), encoding="utf-8")
        else:
            (self.folder / _LEFT).unlink(missing_ok=True)

    def _read_left(self) -> set[str]:
        """Return the names of files that a run could not delete, and that no set uses."""
        try:
            left = json.loads((self.folder / _LEFT).read_text(encoding="utf-8"))
            used = {file.file for file in read_manifest(self.folder).files}
            return set(filter(is_shard_name, left)) - used
        except (FileNotFoundError, ValueError, TypeError, ManifestError):
            return set()

    def _entries(self) -> set[str]:
        """Return the names in the folder, except those that a killed run may have left."""
        return set(os.listdir(self.folder)) - _OURS if self.folder.exists() else set()

    def _exists(self, what: str) -> OutputExistsError:
        return OutputExistsError(f"{self.folder}: {what}", path=self.folder)
