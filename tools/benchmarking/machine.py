"""The machine that a figure was measured on, in words."""

import platform
from pathlib import Path

import torch


def machine(device: str) -> str:
    """What a figure was measured on, in words."""
    where = torch.cuda.get_device_name() if device.startswith("cuda") else _processor()
    tf32 = f", TensorFloat32 {'on' if torch.backends.cudnn.allow_tf32 else 'off'} in convolutions"
    on = f"{torch.get_num_threads()} threads" if device == "cpu" else f"CUDA {torch.version.cuda}{tf32}"
    return f"{where}, {on}, torch {torch.__version__}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
