"""Paging: what fits is found out, and mapped pages stay within their budget."""

from __future__ import annotations

import ctypes
import mmap
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tables import write_source

from numerai_sequence import NumeraiSequence, write_shards
from numerai_sequence import paging as paging_module
from numerai_sequence.paging import (
    Pager,
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
    monkeypatch.setattr(paging_module, "available_memory", lambda: 100 * MB)
    assert divide_budget("auto", **NEEDS) == divide_budget(50 * MB, **NEEDS)
    monkeypatch.setattr(paging_module, "available_memory", lambda: 1 * MB)
    assert divide_budget("auto", **NEEDS).mapped >= 16 << 20  # whatever comes of it


def test_set_is_resident_where_it_fits_with_room_to_spare(monkeypatch):
    monkeypatch.setattr(paging_module, "available_memory", lambda: 1000 * MB)
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
            "from numerai_sequence.paging import available_memory, decide\n"
            "print(available_memory(), decide(10**9).mode, decide(10**8).mode)"
        )
        command = [sys.executable, "-c", code, str(group / "cgroup.procs")]
        found = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        assert 256 << 20 < int(found[0]) <= 512 << 20
        assert found[1:] == ["streaming", "resident"]
    finally:
        group.rmdir()
    assert available_memory() > 0


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A set of about 120 MB, in long rows."""
    path = tmp_path_factory.mktemp("large")
    source = write_source(path / "train.parquet", rows=30_000, features=4000, eras=60)
    options = {"encoding": "int8", "num_shards": 4, "progress": False}
    write_shards(source, path / "set", **options).close()
    source.unlink()
    return path / "set"


MEASURE = """
import sys
from numerai_sequence import NumeraiSequence
from numerai_sequence.paging import _shared_bytes

folder, paging, run_rows, limit = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
sequence = NumeraiSequence(
    folder, 100, paging=paging, run_rows=run_rows, dtype="int8", memory_budget=limit
)
before = peak = _shared_bytes()
one_pass = sequence.one_pass()
for number in range(len(one_pass)):
    one_pass[number]
    peak = max(peak, _shared_bytes())
print(peak - before, sequence._pager.budget_bytes)
"""


@is_linux
@pytest.mark.parametrize("run_rows", [1, 16])
@pytest.mark.parametrize("paging", ["resident", "streaming"])
def test_mapped_pages_stay_within_their_budget(large, paging, run_rows):
    def measure(limit):
        command = [sys.executable, "-c", MEASURE, str(large), paging, str(run_rows), str(limit)]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return map(int, output.split())

    mapped, budget = measure(60 * MB)
    assert budget < 60 * MB
    assert mapped < budget + 8 * MB  # besides, code that is loaded on the way
    mapped, _ = measure(10**9)
    assert mapped > 100 * MB  # the budget is what holds it


def cached(path):
    """Which pages of a file are in the page cache."""
    with open(path, "rb") as file:
        map_ = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ | mmap.PROT_WRITE, flags=2)
    pages = -(-len(map_) // mmap.PAGESIZE)
    vector = (ctypes.c_ubyte * pages)()
    start = ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(map_)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mincore(start, ctypes.c_size_t(len(map_)), vector):
        pytest.skip("the kernel does not tell which pages are cached")
    return np.frombuffer(vector, np.uint8) & 1 == 1


def drop(paths):
    for path in paths:
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        if cached(path).mean() > 0.05:
            pytest.skip("these files cannot be dropped from the page cache")


@is_linux
def test_read_ahead_brings_in_what_is_needed_and_little_else(large):
    sequence = NumeraiSequence(large, 100, paging="streaming", run_rows=16)
    paths = sequence.shards.paths
    drop(paths)
    rows = np.array([5, 6, 7, 4000, 20_000])
    sequence._pager.read_ahead(sequence.shards.extents(rows, ["target"]))
    wanted = [np.zeros(len(cached(path)), bool) for path in paths]
    for number, ranges in sequence.shards.extents(rows, ["target"]):
        for start, stop in ranges:
            wanted[number][start // mmap.PAGESIZE : -(-stop // mmap.PAGESIZE)] = True
    assert sum(pages.sum() for pages in wanted) > 5
    for _ in range(100):  # the disk takes its time
        found = [cached(path) for path in paths]
        if all((have >= want).all() for have, want in zip(found, wanted, strict=True)):
            break
    assert all((have >= want).all() for have, want in zip(found, wanted, strict=True))
    assert sum(pages.sum() for pages in found) < 200


@is_linux
def test_resident_set_is_read_into_the_page_cache(large):
    sequence = NumeraiSequence(large, 100, paging="resident", run_rows=1)
    drop(sequence.shards.paths)
    for number in range(10):
        sequence[number]
    assert not sequence._pager.reads_ahead
    assert all(cached(path).mean() > 0.99 for path in sequence.shards.paths)


def test_pages_that_were_let_go_come_back(large):
    sequence = NumeraiSequence(large, 100, shuffle=False)
    expected, _ = sequence[3]
    expected = expected.copy()
    sequence._pager.let_go()
    np.testing.assert_array_equal(sequence[3][0], expected)


@pytest.mark.parametrize("paging", ["resident", "streaming"])
def test_platform_without_advice_reads_the_same(monkeypatch, large, paging):
    options = {"paging": paging, "run_rows": 4, "memory_budget": "60MB"}
    expected = [NumeraiSequence(large, 100, **options)[i][0].copy() for i in (0, 7)]
    for name in ("MADV_RANDOM", "MADV_NORMAL", "MADV_WILLNEED", "MADV_DONTNEED"):
        monkeypatch.delattr(mmap, name, raising=False)
    monkeypatch.setattr(paging_module, "_shared_bytes", lambda: None)
    sequence = NumeraiSequence(large, 100, **options)
    for number, x in zip((0, 7), expected, strict=True):
        np.testing.assert_array_equal(sequence[number][0], x)


def test_sequence_says_how_it_pages_and_why(large):
    text = repr(NumeraiSequence(large, 100, run_rows=8))
    assert "resident (1" in text
    assert "of memory available), run_rows=8" in text
    assert "streaming (as asked for)" in repr(NumeraiSequence(large, 100, paging="streaming"))


def test_exact_order_is_chosen_where_all_may_stay_mapped(large):
    assert NumeraiSequence(large, 100, memory_budget="1GB").run_rows == 1
    assert NumeraiSequence(large, 100, memory_budget="100MB").run_rows == 32
    assert NumeraiSequence(large, 100, memory_budget="1GB", paging="streaming").run_rows == 32
    assert NumeraiSequence(large, 100, memory_budget="100MB", shuffle=False).run_rows == 1
    assert NumeraiSequence(large, 100, memory_budget="100MB", run_rows=1).run_rows == 1


def test_wrong_budget_and_paging_are_refused(large):
    with pytest.raises(ValueError, match="memory_budget: found 'much'"):
        NumeraiSequence(large, 100, memory_budget="much")
    with pytest.raises(ValueError, match="memory_budget: found 1000, expected at least"):
        NumeraiSequence(large, 100, memory_budget=1000)
    with pytest.raises(ValueError, match="paging: found 'mapped'"):
        NumeraiSequence(large, 100, paging="mapped")


def test_pager_of_a_set_within_its_budget_never_lets_go(large):
    files = [(path, mmap.mmap(-1, 4096)) for path in ("a", "b")]
    assert Pager(files, mode="streaming", budget_bytes=8192).fits
    assert not Pager(files, mode="streaming", budget_bytes=8191).fits
