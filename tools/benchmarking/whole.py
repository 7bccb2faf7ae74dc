"""Large images in tiles, and what an import costs."""

import statistics
import subprocess
import sys
from functools import partial
from typing import Any

import torch

from benchmarking.children import in_a_process
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


def tiles(options: Options) -> list[dict[str, Any]]:
    """Memory and seconds of a large image, down and up, in tiles: on their own, and without losses.

    Memory is what a process takes beyond the image going in and the one coming out.
    """
    rows = []
    for child in TILED:
        found = in_a_process("tiles", child, options) or {"s": None, "extra MB": None}
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
    """Milliseconds ``import invertible_rescaling`` takes after ``import torch``."""
    program = (
        "import time, torch; start = time.perf_counter(); import invertible_rescaling; "
        "print(time.perf_counter() - start)"
    )
    times = [
        float(subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout)
        for _ in range(options.repeats)
    ]
    return [{"import adds ms": 1e3 * statistics.median(times)}]
