"""Validation on a folder: what a user of the model would get, measured, beside bicubic."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from invertible_rescaling.errors import ImageError
from invertible_rescaling.evaluation import METRICS, Rescale, measure, smallest_side
from invertible_rescaling.images import find_images, from_uint8, read_image

CEILING = 100.0  # dB: what equals to the last bit has an infinite PSNR, and an average needs a number


@dataclass(frozen=True)
class ValidationImage:
    """An HR image ``(1, 3, H, W)`` in uint8 under its file's name."""

    name: str
    hr: Tensor


def load_validation(
    folder: Path, scale: int, limit: int | None, skipped: Callable[[str], None]
) -> list[ValidationImage]:
    """Read the images of a folder, in order of their names, leaving out what cannot be measured.

    Raises:
        ImageError: no image is left.
    """
    images = []
    for path in find_images(folder)[:limit]:
        try:
            hr = read_image(path)
            if min(hr.shape[1:]) < smallest_side(scale):
                least = smallest_side(scale)
                raise ImageError(
                    f"{str(path)!r} of {hr.shape[2]}x{hr.shape[1]} is too small to measure at x{scale}; the "
                    f"least is {least}x{least}"
                )
        except ImageError as error:
            skipped(str(error))
            continue
        images.append(ValidationImage(path.stem, hr.unsqueeze(0)))
    if not images:
        raise ImageError(f"no image in {str(folder)!r} can be used for validation")
    return images


@torch.no_grad()
def measure_images(
    images: Sequence[ValidationImage], device: torch.device, rescale: Rescale, scale: int
) -> tuple[dict[str, float], list[tuple[Tensor, Tensor]]]:
    """Sum the metrics of images, and keep the first three pairs of LR and SR."""
    sums = dict.fromkeys(METRICS, 0.0)
    pictures: list[tuple[Tensor, Tensor]] = []
    for image in images:
        figures, lr, sr = measure(rescale, from_uint8(image.hr.to(device)), scale)
        for name, figure in figures.items():
            sums[name] += min(figure, CEILING)
        if len(pictures) < 3:
            pictures.append((lr.cpu(), sr.cpu()))
    return sums, pictures
