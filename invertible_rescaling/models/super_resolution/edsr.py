"""EDSR, the baseline of its paper."""

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn

from invertible_rescaling.models.super_resolution.base import (
    ResidualBlock,
    SuperResolver,
    conv,
    pixel_shuffles,
)

__all__ = ["EDSR"]

_MEAN = (0.4488, 0.4371, 0.4040)  # of DIV2K's photographs, RGB in [0, 1], as the paper subtracts it


class EDSR(SuperResolver, architecture="edsr"):
    """EDSR's baseline: residual blocks without batch norm, a skip over all of them, pixel shuffles.

    References:
        Lim et al. 2017, *Enhanced Deep Residual Networks for Single Image Super-Resolution*, section 3.

    Shapes:
        ``(B, channels, h, w) -> (B, channels, scale*h, scale*w)``.

    Args:
        scale, channels: as for every super-resolver.
        width: filters of the convolutions.
        blocks: residual blocks.

    Example:
        >>> from invertible_rescaling.models.super_resolution import EDSR
        >>> sum(p.numel() for p in EDSR().parameters())
        1517571
    """

    mean: Tensor

    def __init__(self, scale: int = 4, channels: int = 3, width: int = 64, blocks: int = 16) -> None:
        super().__init__(scale, channels, width=width, blocks=blocks)
        values = _MEAN if channels == 3 else (sum(_MEAN) / 3,) * channels
        self._values = values
        self.register_buffer("mean", torch.tensor(values).view(1, -1, 1, 1), persistent=False)
        self.first = conv(channels, width)
        self.body = nn.Sequential(*(ResidualBlock(width) for _ in range(blocks)), conv(width, width))
        self.enlarge = pixel_shuffles(width, scale)
        self.last = conv(width, channels)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if not self.mean.is_meta:  # to_empty has left what the memory held
            self.mean.copy_(torch.tensor(self._values).view(1, -1, 1, 1))
        return self

    def forward(self, lr: Tensor) -> Tensor:
        features = self.first(lr - self.mean)
        out: Tensor = self.last(self.enlarge(features + self.body(features))) + self.mean
        return out
