"""Measurements in processes of their own: memory that one has freed, the next would not ask for."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarking.options import Options

_PROGRAM = Path(__file__).parent.parent / "benchmark.py"


def in_a_process(part: str, child: str, options: Options) -> Any:
    """What ``benchmark.py PART --child CHILD`` prints; None, with the reason on stderr, where it fails."""
    command = [sys.executable, str(_PROGRAM), part, "--child", child, "--blocks", str(options.blocks)]
    command += ["--batch", str(options.batch), "--patch", str(options.patch), "--device", options.device]
    command += ["--side", str(options.side), "--tile", str(options.tile)]
    command += ["--models", options.models[0], "--precision", options.precision]
    command += ["--threads", str(torch.get_num_threads())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        what = f"{part} {child}, {options.blocks} couplings a stage"
        print(f"{what}: ended with {done.returncode}: {done.stderr[-200:]}", file=sys.stderr)
        return None
    return json.loads(done.stdout)
