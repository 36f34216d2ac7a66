"""Disks: a file system in memory that is as small as a test likes."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import contextmanager

import pytest


@contextmanager
def small_disk(folder):
    """Mount one, of a megabyte, or skip the test."""
    folder.mkdir()
    if not shutil.which("mount") or not _mount(folder, "size=1m"):
        pytest.skip("mounts a small disk, as root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def leave_free(disk, free_bytes):
    assert _mount(disk, f"remount,size={shutil.disk_usage(disk).used + free_bytes}")


def _mount(folder, options):
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True).returncode == 0
