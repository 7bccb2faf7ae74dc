"""Large images in tiles, and what an import costs."""

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch

from benchmarking.children import in_a_process
from benchmarking.failure import MeasurementError
from benchmarking.options import Options
from benchmarking.timing import PeakMemory, once
from invertible_rescaling import InvertibleRescaler, create_model
from invertible_rescaling.testing import randomize

TILED: dict[str, tuple[str, dict[str, int]]] = {
    "down": ("downscale", {"overlap": 64}),
    "up": ("upscale", {"overlap": 64}),
    "down, exact": ("downscale", {}),
    "up, exact": ("upscale", {}),
}

IMPORTS = ("import invertible_rescaling", "from invertible_rescaling import iirn_x4")


def tiles(options: Options) -> list[dict[str, Any]]:
    """Memory and seconds of a large image, down and up, in tiles: on their own, and without losses.

    Memory is what a process takes beyond the image going in and the one coming out.
    """
    rows = []
    for child in TILED:
        found = in_a_process("tiles", child, options) or {"s": None, "extra MB": None}  # out of memory
        rows.append({"direction": child} | found)
    return rows


def tiled(child: str, options: Options) -> dict[str, float]:
    """One of :data:`TILED`, measured in this process."""
    device = torch.device(options.device)
    model: InvertibleRescaler = randomize(create_model(options.models[0], blocks=options.blocks), 0.3).eval()
    model.to(device)
    method, extra = TILED[child]
    call = partial(getattr(model, method), tile=options.tile, **extra)
    side = options.side if method == "downscale" else options.side // model.scale
    call(
        torch.rand(1, 3, 8 * model.scale, 8 * model.scale, device=device)
    )  # what is set up once does not count
    image = torch.rand(1, 3, side, side, device=device)
    results: list[torch.Tensor] = []
    with PeakMemory(device) as used:
        seconds = once(lambda: results.append(call(image)), device)
    return {"s": seconds, "extra MB": (used.bytes - results[0].nbytes) / 1e6}


def import_time(options: Options) -> list[dict[str, Any]]:
    """Milliseconds that imports take after ``import torch``, with their bytecode compiled before."""
    with tempfile.TemporaryDirectory() as bytecode:  # of torch, too: whatever the installation holds
        settings = os.environ | {"PYTHONPYCACHEPREFIX": bytecode}
        settings.pop("PYTHONDONTWRITEBYTECODE", None)
        return [_import_time(statement, options.repeats, settings) for statement in IMPORTS]


def _import_time(statement: str, repeats: int, settings: Mapping[str, str]) -> dict[str, Any]:
    program = (
        f"import time, torch; start = time.perf_counter(); {statement}; print(time.perf_counter() - start)"
    )
    first, *times = [_run(program, settings) for _ in range(1 + repeats)]
    return {
        "statement": statement,
        "import adds ms": 1e3 * statistics.median(times),
        "while compiling ms": 1e3 * first,
    }


def _run(program: str, settings: Mapping[str, str]) -> float:
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, env=settings
    )
    if done.returncode:
        raise MeasurementError(f"a fresh Python failed: {(done.stderr.strip().splitlines() or [''])[-1]}")
    return float(done.stdout)
