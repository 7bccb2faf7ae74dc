"""Checks of the arguments of ``downscale`` and ``upscale``: images, the original size, tiles."""

import torch
from torch import Tensor

from invertible_rescaling.errors import ConfigError, ShapeError, ValueRangeError
from invertible_rescaling.layers.base import check_state

__all__: list[str] = []  # for what has these two methods

_RANGE_TOLERANCE = 1e-3


def check_image(image: Tensor, channels: int, who: str) -> None:
    """Refuse what is no batch of images ``(B, channels, H, W)`` in [0, 1].

    Raises:
        ShapeError, DtypeError: as for any state.
        ValueRangeError: values outside of [0, 1], or NaN.
    """
    check_state(image, channels, who)
    if torch.compiler.is_compiling() or image.is_meta or image.numel() == 0:
        return
    if torch._C._functorch.is_functorch_wrapped_tensor(image):  # as of vmap, where values decide nothing
        return
    low, high = image.amin(), image.amax()  # aminmax would copy an image that is not laid out row by row
    # Written so that NaN fails it too.
    if not (low >= -_RANGE_TOLERANCE and high <= 1 + _RANGE_TOLERANCE):
        raise ValueRangeError(
            f"{who} takes values in [0, 1], got [{low.item():.4g}, {high.item():.4g}]; "
            "divide 8-bit values by 255, or clamp"
        )


def original_size(lr: Tensor, size: tuple[int, int] | None, scale: int) -> tuple[int, int]:
    """The (H, W) to bring LR back to: ``size``, or ``scale`` times LR's.

    Raises:
        ShapeError: ``size`` is not one that downscales to LR's.
    """
    small = tuple(lr.shape[-2:])
    if size is None:
        return small[0] * scale, small[1] * scale
    pair = isinstance(size, tuple | list) and len(size) == 2
    if not pair or not all(isinstance(side, int) and side >= 1 for side in size):
        raise ShapeError(f"size must be two positive integers (H, W), got {size!r}")
    expected = tuple(-(-side // scale) for side in size)
    if small != expected:
        raise ShapeError(
            f"an LR image of {small[0]}x{small[1]} cannot come from size={tuple(size)}: scale "
            f"{scale} would give {expected[0]}x{expected[1]}; pass the original (H, W)"
        )
    return size[0], size[1]


def check_tiles(tile: int | None, overlap: int | None, scale: int) -> None:
    """Refuse tiles that cannot be.

    Raises:
        ConfigError: ``tile`` is no positive multiple of the scale, ``overlap`` no number of pixels, or given
            without a tile.
    """
    if tile is not None and (isinstance(tile, bool) or not isinstance(tile, int) or tile < 1 or tile % scale):
        raise ConfigError(f"tile must be a positive multiple of the scale {scale}, got {tile!r}")
    if overlap is None:
        return
    if isinstance(overlap, bool) or not isinstance(overlap, int) or overlap < 0:
        raise ConfigError(f"overlap must be 0 or more HR pixels, got {overlap!r}")
    if tile is None:
        raise ConfigError(f"overlap={overlap} is for work in tiles; pass tile= as well, or neither")
