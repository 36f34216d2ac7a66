"""Small disk: a file system in memory that is as small as one likes, where it can be mounted."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LARGE_BYTES, FILES = 256 << 20, 100_000


class SmallDisk:
    """A tmpfs; `resize` it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def used_bytes(self) -> int:
        pages = subprocess.check_output(["df", "-B1", "--output=used", self.folder], text=True)
        return int(pages.split()[-1])

    @property
    def used_files(self) -> int:
        files = subprocess.check_output(["df", "--output=iused", self.folder], text=True)
        return int(files.split()[-1])

    def resize(self, size_bytes: int = LARGE_BYTES, files: int = FILES) -> None:
        """Change its size, and how many files it may hold."""
        options = f"remount,size={max(size_bytes, 4096)},nr_inodes={files}"  # 0: no limit
        subprocess.run(["mount", "-o", options, str(self.folder)], check=True)


@contextmanager
def small_disk(folder: Path) -> Iterator[SmallDisk | None]:
    """Mount one; None where that is not allowed."""
    folder.mkdir()
    # Always with a number of files: a limit cannot be set where there was none.
    options = f"size={LARGE_BYTES},nr_inodes={FILES}"
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
        is_there = not subprocess.run(command, capture_output=True).returncode
    except OSError:
        is_there = False
    try:
        yield SmallDisk(folder) if is_there else None
    finally:
        if is_there:
            subprocess.run(["umount", "-l", str(folder)], check=True)
