"""Memory: what is available is found out, and a budget is divided."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from numerai_sequence.reading import memory_budget as memory_module
from numerai_sequence.reading.memory_budget import (
    _groups_available,
    _machine_available,
    available_memory,
    decide,
    divide_budget,
    parse_bytes,
)

MB = 1_000_000
is_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux's own")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (5, 5),
        (np.int64(7), 7),
        ("512MB", 512 * MB),
        ("1.5 GiB", 3 << 29),
        ("13g", 13_000 * MB),
        ("64kB", 64_000),
        ("100", 100),
        ("2TiB", 2 << 40),
    ],
)
def test_sizes_are_read(text, expected):
    assert parse_bytes(text) == expected


@pytest.mark.parametrize("size", ["", "MB", "-5MB", "five", "5 apples", None, 1.5, True, "1.2.3G"])
def test_what_is_no_size_is_refused(size):
    with pytest.raises(ValueError, match=r"memory_budget: found .*512MB"):
        parse_bytes(size)


NEEDS = {"order_bytes": 10 * MB, "group_bytes": 40 * MB, "batch_bytes": 4 * MB, "buffers": 16}


@pytest.mark.parametrize("budget", [35 * MB, 60 * MB, 80 * MB, 200 * MB, 1000 * MB])
def test_parts_add_up_to_the_budget(budget):
    parts = divide_budget(budget, **NEEDS)
    groups = 40 * MB if parts.holds_groups else 0
    total = 10 * MB + groups + parts.buffers * 4 * MB + parts.mapped
    assert budget - 1 <= total <= budget
    assert parts.mapped >= 16 << 20
    assert 2 <= parts.buffers <= 16


def test_what_is_large_enough_has_all_of_it():
    parts = divide_budget("1GB", **NEEDS)
    assert (parts.buffers, parts.holds_groups) == (16, True)
    assert parts.mapped == 1000 * MB - 10 * MB - 40 * MB - 64 * MB


def test_small_budget_goes_without_groups():
    assert not divide_budget("60MB", **NEEDS).holds_groups


def test_too_small_a_budget_is_refused_with_the_least():
    with pytest.raises(ValueError, match=r"found '30MB', expected at least 35 MB: 10 MB for"):
        divide_budget("30MB", **NEEDS)


def test_auto_takes_less_where_memory_is_short(monkeypatch):
    ample = divide_budget("auto", **NEEDS)
    assert (ample.mapped, ample.buffers, ample.holds_groups) == (96 << 20, 16, True)
    monkeypatch.setattr(memory_module, "available_memory", lambda: 100 * MB)
    assert divide_budget("auto", **NEEDS) == divide_budget(50 * MB, **NEEDS)
    monkeypatch.setattr(memory_module, "available_memory", lambda: 1 * MB)
    assert divide_budget("auto", **NEEDS).mapped >= 16 << 20  # whatever comes of it


def test_set_is_resident_where_it_fits_with_room_to_spare(monkeypatch):
    monkeypatch.setattr(memory_module, "available_memory", lambda: 1000 * MB)
    fits, larger = decide(750 * MB), decide(751 * MB)
    assert (fits.mode, larger.mode) == ("resident", "streaming")
    assert fits.reason == "750 MB of files, 1,000 MB of memory available"
    assert decide(1, "streaming").mode == "streaming"
    assert decide(10**15, "resident").mode == "resident"
    with pytest.raises(ValueError, match="paging: found 'fast', expected 'auto' or one of"):
        decide(1, "fast")


def fake(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_machine_tells_what_is_available(tmp_path):
    path = fake(tmp_path, {"meminfo": "MemTotal: 9000 kB\nMemAvailable:   5000 kB\n"}) / "meminfo"
    assert list(_machine_available(path)) == [5000 << 10]


V1 = {
    "proc/self/cgroup": "5:cpu:/a\n4:memory:/a/b\n0::/\n",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
    "sys/fs/cgroup/memory/memory.usage_in_bytes": "700\n",
    "sys/fs/cgroup/memory/memory.stat": "total_active_file 0\n",
    "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "1000\n",
    "sys/fs/cgroup/memory/a/memory.usage_in_bytes": "900\n",
    "sys/fs/cgroup/memory/a/memory.stat": "active_file 1\ntotal_inactive_file 200\n"
    "total_active_file 30\ntotal_inactive_anon 5\n",
    "sys/fs/cgroup/memory/a/b/memory.limit_in_bytes": "5000\n",
    "sys/fs/cgroup/memory/a/b/memory.usage_in_bytes": "100\n",
    "sys/fs/cgroup/memory/a/b/memory.stat": "total_active_file 0\n",
}
V2 = {
    "proc/self/cgroup": "0::/x/y\n",
    "sys/fs/cgroup/x/memory.max": "3000\n",
    "sys/fs/cgroup/x/memory.current": "2900\n",
    "sys/fs/cgroup/x/memory.stat": "anon 5\ninactive_file 400\nactive_file 50\n",
    "sys/fs/cgroup/x/y/memory.max": "max\n",
    "sys/fs/cgroup/x/y/memory.current": "10\n",
    "sys/fs/cgroup/x/y/memory.stat": "inactive_file 1\n",
}


def test_every_group_around_counts_and_file_pages_are_available(tmp_path):
    found = list(_groups_available(fake(tmp_path, V1)))
    assert found[:2] == [4900, 1000 - 900 + 230]
    assert found[2] > 2**62


def test_second_version_counts_too(tmp_path):
    assert list(_groups_available(fake(tmp_path, V2))) == [3000 - 2900 + 450]


def test_in_a_container_the_groups_files_are_at_the_top(tmp_path):
    files = {
        "proc/self/cgroup": "0::/docker/1234\n",
        "sys/fs/cgroup/memory.max": "800\n",
        "sys/fs/cgroup/memory.current": "300\n",
        "sys/fs/cgroup/memory.stat": "active_file 0\n",
    }
    assert list(_groups_available(fake(tmp_path, files))) == [500]


def test_where_nothing_is_said_nothing_is_known(tmp_path):
    assert list(_groups_available(tmp_path)) == []


@is_linux
def test_real_memory_group_limits_what_is_available(tmp_path):
    parent = Path("/sys/fs/cgroup/memory")
    if not os.access(parent / "memory.limit_in_bytes", os.W_OK):
        pytest.skip("no memory group can be made here")
    group = parent / f"numerai_sequence_{os.getpid()}"
    group.mkdir()
    try:
        (group / "memory.limit_in_bytes").write_text(str(512 << 20))
        code = (
            "import os, sys; open(sys.argv[1], 'w').write(str(os.getpid()))\n"
            "from numerai_sequence.reading.memory_budget import available_memory, decide\n"
            "print(available_memory(), decide(10**9).mode, decide(10**8).mode)"
        )
        command = [sys.executable, "-c", code, str(group / "cgroup.procs")]
        found = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        assert 256 << 20 < int(found[0]) <= 512 << 20
        assert found[1:] == ["streaming", "resident"]
    finally:
        group.rmdir()
    assert available_memory() > 0
