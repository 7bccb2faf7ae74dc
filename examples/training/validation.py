"""Validation on a folder: what a user of the model would get, measured, beside bicubic."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from invertible_rescaling import psnr, ssim
from invertible_rescaling.checkpoint import Storable as Model
from invertible_rescaling.errors import ImageError, ShapeError
from invertible_rescaling.functional import bicubic_resize, quantize
from invertible_rescaling.images import find_images, from_uint8, read_image

CEILING = 100.0  # dB: what equals to the last bit has an infinite PSNR, and an average needs a number
METRICS = ("psnr_rgb", "psnr_y", "ssim_rgb", "ssim_y")


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
    least = 11 + 2 * scale
    images = []
    for path in find_images(folder)[:limit]:
        try:
            hr = read_image(path)
            if min(hr.shape[1:]) < max(least, 12 * scale):
                raise ImageError(f"{str(path)!r} of {hr.shape[2]}x{hr.shape[1]} is too small to be measured")
        except ImageError as error:
            skipped(str(error))
            continue
        images.append(ValidationImage(path.stem, hr.unsqueeze(0)))
    if not images:
        raise ImageError(f"no image in {str(folder)!r} can be used for validation")
    return images


@torch.no_grad()
def measure(
    images: Sequence[ValidationImage],
    device: torch.device,
    rescale: Callable[[Tensor], tuple[Tensor, Tensor]],
) -> tuple[dict[str, float], list[tuple[Tensor, Tensor]]]:
    """Sum the metrics of ``rescale(hr) -> (lr, sr)`` over images, and keep the first three results.

    Metrics are those of :data:`METRICS`, of SR against HR with a border of the scale cropped, and with the
    prefix ``lr_`` of the stored LR against the stored bicubic LR, whole.
    """
    sums: dict[str, float] = {}
    pictures: list[tuple[Tensor, Tensor]] = []
    for image in images:
        hr = from_uint8(image.hr.to(device)).contiguous(memory_format=torch.channels_last)
        lr, sr = rescale(hr)
        scale = -(-hr.shape[2] // lr.shape[2])
        reference = quantize(bicubic_resize(hr, (lr.shape[2], lr.shape[3])))
        for prefix, got, wanted, border in (("", sr, hr, scale), ("lr_", lr, reference, 0)):
            for name, figure in _figures(got, wanted, border).items():
                sums[prefix + name] = sums.get(prefix + name, 0.0) + min(figure, CEILING)
        if len(pictures) < 3:
            pictures.append((lr.cpu(), sr.cpu()))
    return sums, pictures


def _figures(got: Tensor, wanted: Tensor, border: int) -> dict[str, float]:
    figures = {}
    for space in ("rgb", "y"):
        figures[f"psnr_{space}"] = float(psnr(got, wanted, space=space, border=border))
        try:
            figures[f"ssim_{space}"] = float(ssim(got, wanted, space=space, border=border))
        except ShapeError:  # an LR image smaller than the window
            figures[f"ssim_{space}"] = float("nan")
    return figures


def with_model(model: Model) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """``rescale`` for :func:`measure`: the model's own two calls."""

    def rescale(hr: Tensor) -> tuple[Tensor, Tensor]:
        lr = model.downscale(hr)
        return lr, model.upscale(lr, size=(hr.shape[2], hr.shape[3]))

    return rescale


def with_bicubic(scale: int) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """``rescale`` for :func:`measure`: bicubic down, 8 bits, and PyTorch's sharper bicubic up."""

    def rescale(hr: Tensor) -> tuple[Tensor, Tensor]:
        height, width = hr.shape[2], hr.shape[3]
        lr = quantize(bicubic_resize(hr, (-(-height // scale), -(-width // scale))))
        return lr, bicubic_resize(lr, (height, width), antialias=False).clamp(0, 1)

    return rescale
