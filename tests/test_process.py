"""How many pictures at a time: by cores, by what a container is allowed, and by memory."""

import os

import pytest

from invertible_rescaling import _process
from invertible_rescaling.pipeline import run


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 8),
        ({"cpu.max": "max 100000"}, 8),
        ({"cpu.max": "200000 100000"}, 2),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu.max": "9900000 100000"}, 8),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
        ({"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3),
        ({"cpu.max": "nonsense"}, 8),
    ],
)
def test_cores_are_what_a_container_is_allowed(
    tmp_path, monkeypatch, files: dict[str, str], cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: set(range(8)), raising=False)
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert _process.cores_here(tmp_path) == cores


def test_memory_is_the_least_that_is_said(tmp_path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:       4000 kB\nMemFree:  1 kB\n")
    assert _process.memory_here(tmp_path, tmp_path / "meminfo") == 4_096_000
    (tmp_path / "memory.max").write_text("max")
    assert _process.memory_here(tmp_path, tmp_path / "meminfo") == 4_096_000
    (tmp_path / "memory.max").write_text("3000000")
    assert _process.memory_here(tmp_path, tmp_path / "meminfo") == 3_000_000
    assert _process.memory_here(tmp_path / "none", tmp_path / "none") > 10**15


def test_there_are_no_more_workers_than_memory_holds(monkeypatch) -> None:
    monkeypatch.setattr(run, "cores_here", lambda: 64)
    for memory, workers in ((17_000_000_000, 13), (10**12, 64), (10**9, 1)):
        monkeypatch.setattr(run, "memory_here", lambda memory=memory: memory)
        assert run.share(None, 100, "cpu")[0] == workers
        assert run.share(5, 100, "cpu")[0] == 5  # as asked for
