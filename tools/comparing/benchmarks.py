"""What trained models, and bicubic, come to on benchmarks."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from evaluation.measuring import Figures, figures_of, read_hr
from invertible_rescaling.evaluation import Rescale
from invertible_rescaling.images import find_images


def measure_benchmarks(
    rescale: Rescale, scale: int, folders: Sequence[Path], known: dict[str, dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Measure on each folder that is not known by its name yet; return all that is known then.

    Raises:
        ImageError: an image cannot be read, or is too small.
    """
    found = dict(known)
    for folder in folders:
        if folder.name not in found:
            with torch.inference_mode():
                figures = [figures_of(read_hr(path, scale), rescale, scale) for path in find_images(folder)]
            mean = asdict(Figures.mean(figures))
            found[folder.name] = {"images": len(figures), **{name: finite(mean[name]) for name in mean}}
    return found


def finite(value: float) -> float | None:
    """Rounded; ``None`` for the PSNR of equal pictures, such as LR that is bicubic's."""
    return round(value, 5) if math.isfinite(value) else None
