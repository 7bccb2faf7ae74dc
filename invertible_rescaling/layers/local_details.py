"""The wavelet latent on a CPU: what LR says of its own details, by one small convolution a level.

Bicubic enlargement and Haar steps are linear and local, so that each level of the enlarged LR, and LR brought
to that level's size, are convolutions of LR by 5x5 taps for each place within an LR pixel. Nothing of HR's
size is made.
"""

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad, pixel_shuffle

from invertible_rescaling.functional import bicubic_resize, haar_decompose

__all__: list[str] = []  # for the latent alone

_REACH = 2  # LR pixels to each side that bicubic interpolation reads
Correct = Callable[[Tensor, Tensor, Tensor], Tensor]


def local_details(lr: Tensor, scale: int, correct: Correct) -> Tensor:
    """The details ``(B, C * (scale**2 - 1), h, w)`` of LR enlarged, those of its own channels corrected.

    Args:
        lr: ``(B, C, h, w)``, in float32 or float64 on the CPU.
        scale: a power of two.
        correct: of LR at a level's size and that level's approximation, ``(B, 1, C, H, W)``, and its details,
            ``(B, 3, C, H, W)``.
    """
    channels, factor = lr.shape[1], scale // 2
    with torch.autocast("cpu", enabled=False):
        around = pad(lr, (_REACH,) * 4, mode="replicate").contiguous(memory_format=torch.channels_last)

        def own_details() -> Tensor:
            found = conv2d(around, _taps(scale, factor, channels).to(lr.dtype))
            found = pixel_shuffle(found, factor) if factor > 1 else found
            bands = torch.unflatten(found, 1, (5, channels))
            return correct(bands[:, 4:], bands[:, :1], bands[:, 1:4])

        details = own_details().flatten(1, 2)
        while factor > 1:
            factor //= 2
            others = torch.unflatten(haar_decompose(details), 1, (4, -1))
            bands = torch.cat((own_details(), others[:, 1:]), dim=2).flatten(1, 2)
            details = torch.cat((others[:, 0], bands), dim=1)
    return details


@lru_cache(maxsize=8)
def _taps(scale: int, factor: int, channels: int) -> Tensor:
    """What a level makes of a single bright pixel, as a kernel ``(5 * C * factor**2, C, 5, 5)`` in float64.

    The five are the four bands of the level that is ``factor`` times as large as LR, and LR at that size;
    each has its ``factor**2`` places within an LR pixel last, as ``pixel_shuffle`` wants them.
    """
    with torch.no_grad(), torch.device("cpu"):
        side, size = 4 * _REACH + 1, 2 * _REACH + 1
        bright = torch.zeros(1, 1, side, side, dtype=torch.float64)
        bright[0, 0, 2 * _REACH, 2 * _REACH] = 1
        bands = bicubic_resize(bright, (side * scale, side * scale), antialias=False)
        for _ in range((scale // factor).bit_length() - 1):
            bands = haar_decompose(bands[:, :1])
        wanted = (side * factor, side * factor)
        low = bright if factor == 1 else bicubic_resize(bright, wanted, antialias=False)
        seen = torch.cat((bands, low), dim=1).view(5, side, factor, side, factor)
        inner = slice(_REACH, _REACH + size)
        # A pixel at p sees the bright one at its own offset from p: the kernel is what is seen, turned round.
        kernel = seen.permute(0, 2, 4, 1, 3)[..., inner, inner].flip(-1, -2)
        taps = torch.einsum("kijyx,cd->kcijdyx", kernel, torch.eye(channels, dtype=torch.float64))
        return taps.reshape(5 * channels * factor**2, channels, size, size)
