"""Large images in tiles, and what an import costs."""

import statistics
import subprocess
import sys
from typing import Any

import torch

from benchmarking.options import Options
from benchmarking.timing import PeakMemory, once
from invertible_rescaling import InvertibleRescaler, create_model
from invertible_rescaling.testing import randomize


def tiles(options: Options) -> list[dict[str, Any]]:
    """Memory and seconds of a large image, down and up, in tiles: on their own, and without losses.

    Memory is what the process takes beyond the image going in and the one coming out.
    """
    device = torch.device(options.device)
    model: InvertibleRescaler = randomize(create_model(options.models[0], blocks=options.blocks), 0.3).eval()
    model.to(device)
    hr = torch.rand(1, 3, options.side, options.side, device=device)
    images: list[torch.Tensor] = []
    calls = {
        "down": lambda: images.append(model.downscale(hr, tile=options.tile, overlap=64)),
        "up": lambda: images.append(model.upscale(images[0], tile=options.tile, overlap=64)),
        "down, exact": lambda: images.append(model.downscale(hr, tile=options.tile)),
        "up, exact": lambda: images.append(model.upscale(images[0], tile=options.tile)),
    }
    rows = []
    for direction, call in calls.items():
        with PeakMemory(device) as used:
            seconds = once(call, device)
        rows.append(
            {"direction": direction, "s": seconds, "extra MB": (used.bytes - images[-1].nbytes) / 1e6}
        )
    return rows


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
