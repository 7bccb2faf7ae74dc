"""The process: when this package began to be imported, and the cores and the memory that it may use.

It is imported before all that takes long, as a time limit counts from then.
"""

import os
import platform
import time
from pathlib import Path

__all__: list[str] = []  # for the programs alone

STARTED = time.monotonic()

_CGROUP = Path("/sys/fs/cgroup")
_MEMORY = Path("/proc/meminfo")


def cores_here(cgroup: Path = _CGROUP) -> int:
    """Cores: those that the process may run on, or as many as its container is allowed, if that is less.

    Example:
        >>> from invertible_rescaling._process import cores_here
        >>> cores_here() >= 1
        True
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    version_1 = [_words(cgroup / "cpu" / f"cpu.cfs_{name}_us") for name in ("quota", "period")]
    words = _words(cgroup / "cpu.max") or [*version_1[0], *version_1[1]]
    if len(words) != 2 or not all(word.isdecimal() and int(word) for word in words):  # "max", -1, or none
        return cores
    return max(1, min(cores, round(int(words[0]) / int(words[1]))))


def memory_here(cgroup: Path = _CGROUP, machine: Path = _MEMORY) -> int:
    """Bytes: the machine's, or the container's, if that is less.

    What happens to be free does not count: the same pictures are to be done in the same way.
    """
    limits = [_words(cgroup / name)[:1] for name in ("memory.max", "memory/memory.limit_in_bytes")]
    found = [int(word) for limit in limits for word in limit if word.isdecimal()]
    _, *total = _words(machine)[:2] or ["none"]  # its first line is MemTotal: N kB
    return min([*found, *(1024 * int(word) for word in total)], default=2**63)


def processor_here() -> str:
    """The processor's name.

    Example:
        >>> from invertible_rescaling._process import processor_here
        >>> processor_here() != ""
        True
    """
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _words(path: Path) -> list[str]:
    """The words in a file; none where there is no such file."""
    try:
        return path.read_text().split()
    except OSError:
        return []
