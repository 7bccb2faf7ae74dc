"""The machine that a figure was measured on, in words."""

import platform
from pathlib import Path

import torch


def machine(device: str) -> str:
    """What a figure was measured on, in words."""
    where = torch.cuda.get_device_name() if device.startswith("cuda") else _processor()
    return f"{where}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
