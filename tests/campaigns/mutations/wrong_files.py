"""Wrong files: at the place of a file is something that is none, or leads elsewhere."""

import os
import socket
from pathlib import Path

from campaigns.mutations.base_sets import MANIFEST
from campaigns.mutations.changed_copy import Draft


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_folder(path: Path) -> None:
    path.mkdir()


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        # The address of a socket has a hundred bytes at most.
        folder = os.open(path.parent, os.O_RDONLY)
        made.bind(f"/proc/self/fd/{folder}/{path.name}")
        os.close(folder)


def make_hole(path: Path) -> None:
    """A terabyte of zeros, of which none is on the disk."""
    with path.open("wb") as file:
        file.truncate(1 << 40)


def link_to(target: str) -> object:
    return lambda path: path.symlink_to(target)


def replace(draft: Draft) -> None:
    """A pipe, a folder, a socket, a device, a hole, or a link that leads to one, or to nothing."""
    name = draft.pick((*draft.files, MANIFEST))
    devices = ("/dev/zero", "/dev/full", "/dev/random", "/dev/stdin", "/dev/tty", "/proc/self/mem")
    others = (".", "..", "nowhere", name, "/", "/etc/passwd", "/proc/self/environ")
    make = (
        *(make_fifo, make_fifo, make_folder, make_socket, make_hole),
        *(link_to(target) for target in (*devices, *others)),
    )
    draft.others[name] = draft.pick(make)
    for shard in draft.document["shards"]:
        if shard["file"] == name and draft.rng.random() < 0.5:
            shard["bytes"] = draft.pick((0, 1 << 40, 4096))
    draft.fixes = draft.pick(("nothing", "checksums"))


def link(draft: Draft) -> None:
    """A link to the same file elsewhere: its owner has put it on another disk."""
    name = draft.pick((*draft.files, MANIFEST))
    draft.others[name] = link_to(str(draft.base.folder / name))
    draft.fixes = "nothing"
