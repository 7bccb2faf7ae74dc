"""PSNR and SSIM of rescaling: the one way in which training, tables and ``roundtrip`` measure.

HR is cropped at the bottom and right to multiples of the scale. SR, clamped to [0, 1], is compared with it
inside a border of ``scale`` pixels, and the stored LR with the stored bicubic LR, whole. Papers on
super-resolution do the same.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from invertible_rescaling.errors import ShapeError
from invertible_rescaling.functional import bicubic_resize, quantize
from invertible_rescaling.metrics import SSIM_WINDOW, Space, psnr, ssim

__all__ = [
    "METRICS",
    "Measurement",
    "Rescale",
    "bicubic_lr",
    "bicubic_rescale",
    "compare",
    "crop_to_multiple",
    "measure",
    "model_rescale",
    "smallest_side",
]

METRICS = ("psnr_rgb", "psnr_y", "ssim_rgb", "ssim_y", "lr_psnr_rgb", "lr_psnr_y")
_SPACES: tuple[Space, ...] = ("rgb", "y")
_GREY: tuple[Space, ...] = ("rgb",)

Rescale = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Shrinks HR ``(1, C, H, W)`` to a stored LR and restores it: ``rescale(hr) -> (lr, sr)``."""


class _Model(Protocol):
    @property
    def downscale(self) -> Callable[..., Tensor]: ...
    @property
    def upscale(self) -> Callable[..., Tensor]: ...


class Measurement(NamedTuple):
    """The measurements of one image.

    Attributes:
        figures: those of :data:`METRICS`, PSNR in dB; infinite where two images are equal.
        lr: the stored LR, ``(1, C, h, w)``.
        sr: the restored image, ``(1, C, H, W)``, clamped to [0, 1].
    """

    figures: dict[str, float]
    lr: Tensor
    sr: Tensor


def measure(rescale: Rescale, hr: Tensor, scale: int) -> Measurement:
    """Take one RGB image down and up, and compare.

    Args:
        rescale: of a model, :func:`model_rescale`, of bicubic, :func:`bicubic_rescale`, or your own.
        hr: ``(1, 3, H, W)`` in [0, 1]; cropped by :func:`crop_to_multiple` first.
        scale: of ``rescale``; at least 2.

    Raises:
        ShapeError: the cropped image, less a border of ``scale``, is smaller than SSIM's window of 11x11.

    Example:
        >>> import torch
        >>> from invertible_rescaling import linear_x2
        >>> from invertible_rescaling.evaluation import measure, model_rescale
        >>> found = measure(model_rescale(linear_x2()), torch.rand(1, 3, 33, 32), scale=2)
        >>> found.sr.shape, sorted(found.figures)[:2]
        (torch.Size([1, 3, 32, 32]), ['lr_psnr_rgb', 'lr_psnr_y'])
    """
    hr, least = crop_to_multiple(hr, scale), smallest_side(scale)
    if min(hr.shape[2:]) < least:
        raise ShapeError(
            f"{hr.shape[3]}x{hr.shape[2]} is too small to be measured at scale {scale}: the border and the "
            f"window of SSIM take at least {least}x{least}"
        )
    lr, sr = rescale(hr)
    sr = sr.clamp(0, 1)
    figures = compare(sr, hr, border=scale)
    reference = bicubic_lr(hr, scale)
    for space in _SPACES:
        figures[f"lr_psnr_{space}"] = float(psnr(lr, reference, space=space))
    return Measurement(figures, lr, sr)


def compare(
    image: Tensor, reference: Tensor, *, border: int, spaces: Sequence[Space] = ("rgb", "y")
) -> dict[str, float]:
    """Compute PSNR and SSIM of one image, ``(1, C, H, W)``, on RGB (or grey) and, of three channels, on Y.

    An image that has no 11x11 pixels inside the border is compared whole, and one below 11x11 has no SSIM.

    Raises:
        ShapeError, DtypeError: as :func:`~invertible_rescaling.psnr` raises them.

    Example:
        >>> import torch
        >>> from invertible_rescaling.evaluation import compare
        >>> compare(torch.full((1, 1, 8, 8), 0.5), torch.full((1, 1, 8, 8), 0.75), border=2)
        {'psnr_rgb': 12.041...}
    """
    smaller = min(image.shape[2:])
    border = border if smaller - 2 * border >= SSIM_WINDOW else 0
    figures = {}
    for space in spaces if image.shape[1] == 3 else _GREY:
        figures[f"psnr_{space}"] = float(psnr(image, reference, space=space, border=border))
        if smaller >= SSIM_WINDOW:
            figures[f"ssim_{space}"] = float(ssim(image, reference, space=space, border=border))
    return figures


def crop_to_multiple(hr: Tensor, scale: int) -> Tensor:
    """Crop ``(..., H, W)`` at the bottom and right to multiples of the scale; sides below it stay.

    Example:
        >>> import torch
        >>> from invertible_rescaling.evaluation import crop_to_multiple
        >>> crop_to_multiple(torch.zeros(1, 3, 103, 3), 4).shape
        torch.Size([1, 3, 100, 3])
    """
    height, width = (side - side % scale or side for side in hr.shape[-2:])
    return hr[..., :height, :width]


def smallest_side(scale: int) -> int:
    """Return the smallest side of an image that can be measured: a border and SSIM's window fit into it.

    Example:
        >>> from invertible_rescaling.evaluation import smallest_side
        >>> smallest_side(4)
        20
    """
    least = 2 * scale + SSIM_WINDOW
    return least + -least % scale


def bicubic_lr(hr: Tensor, scale: int, bits: int = 8) -> Tensor:
    """Shrink HR ``(B, C, H, W)`` by bicubic interpolation and store it at so many bits."""
    height, width = (-(-side // scale) for side in hr.shape[-2:])
    return quantize(bicubic_resize(hr, (height, width)), bits)


def bicubic_rescale(
    scale: int,
    *,
    antialias: bool = False,
    bits: int = 8,
    through: Callable[[Tensor], Tensor] | None = None,
    seed: int = 0,
) -> Rescale:
    """Return bicubic down, stored at so many bits, and bicubic up.

    Args:
        scale: at least 2.
        antialias: enlarge with MATLAB's kernel (a = -0.5) in place of PyTorch's sharper one (a = -0.75).
        bits: of the stored LR.
        through: what happens to LR before it is enlarged, as a codec; what is measured as LR is not.
        seed: of what ``through`` draws, as for :func:`model_rescale`.

    Example:
        >>> import torch
        >>> from invertible_rescaling.evaluation import bicubic_rescale
        >>> lr, sr = bicubic_rescale(4)(torch.rand(1, 3, 32, 32))
        >>> lr.shape, sr.shape
        (torch.Size([1, 3, 8, 8]), torch.Size([1, 3, 32, 32]))
    """

    def rescale(hr: Tensor) -> tuple[Tensor, Tensor]:
        lr = bicubic_lr(hr, scale, bits)
        height, width = hr.shape[-2:]
        with _seeded(hr, seed):
            arrived = lr if through is None else through(lr)
        return lr, bicubic_resize(arrived, (height, width), antialias=antialias).clamp(0, 1)

    return rescale


@contextmanager
def _seeded(image: Tensor, seed: int) -> Iterator[None]:
    """Random numbers that are the same for each image, and leave the global generator as it is."""
    with torch.random.fork_rng([image.device] if image.is_cuda else []):
        torch.manual_seed(seed)
        yield


def model_rescale(
    model: _Model, *, seed: int = 0, through: Callable[[Tensor], Tensor] | None = None, **tiles: Any
) -> Rescale:
    """Return ``downscale`` and ``upscale`` of a model, back to the size of the image.

    Args:
        model: an :class:`~invertible_rescaling.InvertibleRescaler` or a super-resolver.
        seed: of what is drawn, as by latents, for each image anew; the global generator stays as it is.
        through: what happens to LR before it is brought back, as a codec; what is measured as LR is not.
        tiles: ``tile`` and ``overlap``, for both ways.

    Example:
        >>> import torch
        >>> from invertible_rescaling import linear_x2
        >>> from invertible_rescaling.evaluation import model_rescale
        >>> lr, sr = model_rescale(linear_x2())(torch.rand(1, 3, 31, 32))
        >>> lr.shape, sr.shape
        (torch.Size([1, 3, 16, 16]), torch.Size([1, 3, 31, 32]))
    """

    def rescale(hr: Tensor) -> tuple[Tensor, Tensor]:
        hr = hr.contiguous(memory_format=torch.channels_last)
        with _seeded(hr, seed):
            lr = model.downscale(hr, **tiles)
            arrived = lr if through is None else through(lr)
            return lr, model.upscale(arrived, size=(hr.shape[2], hr.shape[3]), **tiles)

    return rescale
