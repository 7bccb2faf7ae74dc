"""Images in tiles, so that memory depends on the tile and not on the image."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from invertible_rescaling.errors import ConfigError

__all__ = ["ImageStatistics", "Window", "reach_of", "run_tiled", "windows"]


@dataclass(frozen=True)
class Window:
    """A tile ``[top, bottom) x [left, right)`` and the larger window it is computed from, in LR pixels."""

    tile: tuple[int, int, int, int]
    seen: tuple[int, int, int, int]

    def cut(self, image: Tensor, grain: int = 1) -> Tensor:
        """The window's part of an image ``(..., H, W)`` with ``grain`` pixels to one of LR on each side."""
        top, bottom, left, right = (edge * grain for edge in self.seen)
        return image[..., top:bottom, left:right]

    def place(self, found: Tensor, image: Tensor, grain: int = 1) -> None:
        """Write the tile's part of ``found``, which covers the window, to where it belongs in ``image``."""
        top, bottom, left, right = (edge * grain for edge in self.tile)
        target = image[..., top:bottom, left:right]
        up, across = top - self.seen[0] * grain, left - self.seen[2] * grain
        target.copy_(found[..., up : up + target.shape[-2], across : across + target.shape[-1]])


def windows(height: int, width: int, side: int, overlap: int) -> Iterator[Window]:
    """Tiles of at most ``side`` that cover ``height x width``, each seen with ``overlap`` on all sides.

    Example:
        >>> from invertible_rescaling.tiling import windows
        >>> [window.seen for window in windows(4, 10, side=6, overlap=1)]
        [(0, 4, 0, 7), (0, 4, 5, 10)]
    """
    for top in range(0, height, side):
        bottom = min(top + side, height)
        for left in range(0, width, side):
            right = min(left + side, width)
            seen = (
                max(0, top - overlap),
                min(height, bottom + overlap),
                max(0, left - overlap),
                min(width, right + overlap),
            )
            yield Window((top, bottom, left, right), seen)


def run_tiled(
    function: Callable[[Tensor, Window], Tensor],
    source: Tensor,
    out: Tensor,
    parts: Iterator[Window],
    grains: tuple[int, int],
) -> Tensor:
    """Fill ``out`` with ``function`` of each window of ``source``.

    Args:
        function: maps a window of ``source`` to what belongs there in ``out``.
        source: an image ``(..., H, W)``.
        out: another, to be filled.
        parts: in LR pixels.
        grains: how many pixels of ``source`` and of ``out`` one LR pixel is on each side.
    """
    for window in parts:
        window.place(function(window.cut(source, grains[0]), window), out, grains[1])
    return out


def reach_of(network: nn.Module) -> int:
    """How far to each side a network's output depends on its input, at most: its convolutions' reach, added.

    Global pooling reaches over everything and is not counted; :class:`ImageStatistics` takes care of it.

    Raises:
        ConfigError: a convolution with a stride, whose reach is no sum.

    Example:
        >>> from invertible_rescaling import CRDB, DenseBlock
        >>> from invertible_rescaling.tiling import reach_of
        >>> reach_of(CRDB(9, 3)), reach_of(DenseBlock(9, 3))
        (8, 5)
    """
    reach = 0
    for conv in network.modules():
        if not isinstance(conv, nn.Conv2d):
            continue
        if any(stride != 1 for stride in conv.stride):
            raise ConfigError(f"the reach of a network with {conv} is not known; pass overlap= in HR pixels")
        sides = zip(conv.kernel_size, conv.dilation, strict=True)
        reach += max((size - 1) * dilation - (size - 1) * dilation // 2 for size, dilation in sides)
    return reach


@dataclass
class ImageStatistics:
    """What global pooling finds in an image, gathered over its tiles and then the same for each of them.

    A rule for :func:`~invertible_rescaling.pooling.pooling`: until :meth:`settle` every tile goes by what it
    pools itself, and from then on by the mean and the maximum over all tiles.
    """

    weight: float = 1.0
    settled: bool = False
    _sums: dict[nn.Module, Tensor] = field(default_factory=dict)
    _peaks: dict[nn.Module, Tensor] = field(default_factory=dict)
    _weights: dict[nn.Module, float] = field(default_factory=dict)

    def settle(self) -> None:
        """From now on go by what was gathered."""
        self.settled = True

    def __call__(self, layer: nn.Module, mean: Tensor, peak: Tensor) -> tuple[Tensor, Tensor]:
        if self.settled:
            return self._sums[layer] / self._weights[layer], self._peaks[layer]
        known = layer in self._sums
        self._sums[layer] = self._sums[layer] + self.weight * mean if known else self.weight * mean
        self._peaks[layer] = torch.maximum(self._peaks[layer], peak) if known else peak
        self._weights[layer] = self._weights.get(layer, 0.0) + self.weight
        return mean, peak
