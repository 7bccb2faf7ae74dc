"""Measurements in processes of their own: memory that one has freed, the next would not ask for."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarking.failure import MeasurementError
from benchmarking.options import Options

_PROGRAM = Path(__file__).parent.parent / "benchmark.py"
OUT_OF_MEMORY = 3  # how a child ends that would need more than there is


def in_a_process(part: str, child: str, options: Options) -> Any:
    """What ``benchmark.py PART --child CHILD`` prints; None where it runs out of memory, as it may.

    Raises:
        MeasurementError: it ended otherwise.
    """
    command = [sys.executable, str(_PROGRAM), part, "--child", child, "--blocks", str(options.blocks)]
    command += ["--batch", str(options.batch), "--patch", str(options.patch), "--device", options.device]
    command += ["--side", str(options.side), "--tile", str(options.tile)]
    command += ["--models", options.models[0], "--precision", options.precision]
    command += ["--threads", str(torch.get_num_threads())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode in (OUT_OF_MEMORY, -signal.SIGKILL):
        return None
    if done.returncode:
        what = f"{part} {child}, {options.blocks} couplings a stage"
        last = (done.stderr.strip().splitlines() or ["nothing said"])[-1]
        raise MeasurementError(f"{what}: ended with {done.returncode}: {last}")
    return json.loads(done.stdout)


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an allocation failed, on any device."""
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "memory" in str(error))
