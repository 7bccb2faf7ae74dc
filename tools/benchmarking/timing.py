"""Times, rates and memory, so that two of one run can be compared."""

import gc
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch


def medians(
    calls: Mapping[str, Callable[[], object]], repeats: int, device: torch.device
) -> dict[str, float]:
    """Seconds each call takes: the median of several rounds, in which the calls take turns."""
    for _ in range(2 if device.type == "cuda" else 1):  # a CUDA graph is captured by the second call
        for call in calls.values():
            call()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            seconds[name].append(once(call, device))
    return {name: statistics.median(times) for name, times in seconds.items()}


def once(call: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call, a GPU's work included."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def product(device: torch.device, dtype: torch.dtype) -> tuple[Callable[[], object], int]:
    """A large matrix product to take turns with what is measured, and its multiply-adds."""
    side = 8192 if device.type != "cpu" else 2048 if dtype == torch.float32 else 512  # CPUs may emulate bf16
    a, b = (torch.rand(side, side, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    return lambda: torch.mm(a, b, out=out), side**3


def copy(device: torch.device) -> tuple[Callable[[], object], int]:
    """A large copy, and the bytes it reads and writes."""
    a = torch.rand(2**25 if device.type == "cpu" else 2**28, device=device)
    b = torch.empty_like(a)
    return lambda: b.copy_(a), 2 * a.numel() * a.element_size()


class PeakMemory:
    """How far memory rises within a block, in bytes: of the process on CPU (Linux), of tensors on a GPU."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.bytes = 0

    def __enter__(self) -> "PeakMemory":
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            self._before = torch.cuda.memory_allocated(self.device)
        else:
            Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts from here
            self._before = _resident("VmRSS")
        return self

    def __exit__(self, *error: object) -> None:
        if self.device.type == "cuda":
            self.bytes = torch.cuda.max_memory_allocated(self.device) - self._before
        else:
            self.bytes = _resident("VmHWM") - self._before


def limit_memory() -> None:
    """Let this process have nine tenths of the memory that is free now, and no more (Linux)."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    free = 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + int(0.9 * free),) * 2)


def _resident(which: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(which))
