"""The images of benchmark folders, and the figures of methods on them."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from evaluation.methods import Row
from evaluation.task import Task
from evaluation.words import one_line, tell_apart
from invertible_rescaling import RescalingError
from invertible_rescaling.errors import ImageError
from invertible_rescaling.evaluation import Rescale, crop_to_multiple, measure, smallest_side
from invertible_rescaling.images import find_images, from_uint8, read_image


@dataclass(frozen=True)
class Figures:
    """Means over a benchmark's images; PSNR in dB."""

    psnr_rgb: float
    ssim_rgb: float
    psnr_y: float
    ssim_y: float
    psnr_lr: float

    @classmethod
    def mean(cls, figures: Sequence["Figures"]) -> "Figures":
        """Average, figure by figure."""
        rows = [tuple(vars(f).values()) for f in figures]
        return cls(*(sum(column) / len(column) for column in zip(*rows, strict=True)))


@dataclass
class Benchmark:
    """A folder of images, and what came of measuring on it."""

    name: str
    images: list[Path]
    found: int
    measured: int = 0
    skipped: list[tuple[Path, str]] = field(default_factory=list)
    figures: dict[str, Figures] = field(default_factory=dict)


def find_benchmarks(task: Task, problems: list[str]) -> list[Benchmark]:
    """Every folder that holds images directly, in or below the folders given."""
    groups: dict[Path, list[Path]] = {}
    for folder in task.folders:
        try:
            if folder.is_file():
                raise ImageError(f"{folder} is a file; name the folder it lies in")
            for image in find_images(folder):
                group = groups.setdefault(image.parent.resolve(), [])
                if image.name not in {other.name for other in group}:
                    group.append(image)
        except (RescalingError, OSError) as error:
            problems.append(one_line(error))
    names = tell_apart(list(groups))
    return [
        Benchmark(name, images[: task.limit], len(images))
        for name, images in zip(names, groups.values(), strict=True)
    ]


def read_hr(path: Path, scale: int) -> Tensor:
    """Read an image, cropped at the bottom and right to a multiple of the scale.

    Raises:
        ImageError: it cannot be read, or is too small for the border and the window of SSIM.
    """
    image = read_image(path)
    least = smallest_side(scale)
    if min(image.shape[1:]) < least:
        raise ImageError(
            f"{path} is too small, {image.shape[2]}x{image.shape[1]}: at scale {scale} the border and the "
            f"window of SSIM take at least {least}x{least}"
        )
    return from_uint8(crop_to_multiple(image, scale)).unsqueeze(0)


def figures_of(hr: Tensor, rescale: Rescale, scale: int) -> Figures:
    """All figures of one method on one image."""
    found = measure(rescale, hr, scale).figures
    names = ("psnr_rgb", "ssim_rgb", "psnr_y", "ssim_y", "lr_psnr_rgb")
    return Figures(*(found[name] for name in names))


def measure_benchmark(
    benchmark: Benchmark, rows: Sequence[Row], task: Task, problems: list[str], progress: "Progress"
) -> None:
    """Fill in a benchmark's figures; a row that fails on an image has none, a bad image counts for no row."""
    figures: dict[str, list[Figures]] = {row.name: [] for row in rows}
    for path in benchmark.images:
        try:
            hr = read_hr(path, task.scale).to(task.device)
        except ImageError as error:
            benchmark.skipped.append((path, one_line(error)))
            problems.append(f"{benchmark.name}: skipped: {one_line(error)}")
            progress.step(len(figures))
            continue
        benchmark.measured += 1
        for row in rows:
            if row.name not in figures:
                continue
            try:
                figures[row.name].append(figures_of(hr, row.rescale, task.scale))
            except (RescalingError, OSError, torch.OutOfMemoryError) as error:
                problems.append(f"{row.name} failed on {path}: {one_line(error)}")
                del figures[row.name]
            progress.step()
    benchmark.figures = {name: Figures.mean(values) for name, values in figures.items() if values}


class Progress:
    """A bar on stderr if that is a terminal and tqdm is there; nothing otherwise."""

    def __init__(self, total: int) -> None:
        self._bar: Any = None
        if sys.stderr.isatty():
            try:
                from tqdm import tqdm
            except ImportError:
                return
            self._bar = tqdm(total=total, unit="image", file=sys.stderr, leave=False)

    def step(self, count: int = 1) -> None:
        """So many images more are done."""
        if self._bar is not None:
            self._bar.update(count)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.close()
