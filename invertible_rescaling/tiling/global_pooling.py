"""A network evaluated tile by tile, whose global pooling goes by the whole image."""

import torch
from torch import Tensor, nn

from invertible_rescaling.errors import ConfigError
from invertible_rescaling.layers.coupling_step import run_subnet
from invertible_rescaling.layers.pooling import pooling
from invertible_rescaling.tiling.window import Window

__all__: list[str] = []  # for layerwise alone


class TiledEvaluation:
    """One evaluation of a network on one image, in passes over the image's tiles.

    Each pass stops at the first global pooling whose statistics are unknown, and records the tile's sum and
    maximum. After a pass over all tiles :meth:`finish_pass` makes the statistics of the image of them, which
    the next pass uses. Poolings are told apart by the order of calls, as one module may be used in several
    places.

    Args:
        network: computes the same each time; what it reads is the same in all passes.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._known: list[tuple[Tensor, Tensor]] = []
        self._shares: list[tuple[Tensor, Tensor]] = []
        self._pixels = 0

    def __call__(self, read: Tensor, like: Tensor, window: Window) -> Tensor | None:
        """The network's output for a window of the image; None where a pass ends before it.

        Args:
            read: what is seen, ``(1, C, h, w)``.
            like: of the output's shape and dtype.
            window: which part of the image that is.
        """
        try:
            with pooling(_Rule(self._known, window)):
                return run_subnet(self._network, read, like)
        except _UnknownStatisticsError as end:
            self._shares.append(end.share)
            self._pixels += window.pixels
            return None

    def finish_pass(self) -> bool:
        """End a pass; return whether it has found anything new, so that another is due."""
        if not self._shares:
            return False
        sums, peaks = (torch.stack(found) for found in zip(*self._shares, strict=True))
        peak = peaks.amax(0)
        self._known.append(((sums.sum(0) / self._pixels).to(peak.dtype), peak))
        self._shares, self._pixels = [], 0
        return True


class _UnknownStatisticsError(Exception):
    """Ends the evaluation of a tile, with its share of sum and maximum."""

    def __init__(self, share: tuple[Tensor, Tensor]) -> None:
        super().__init__()
        self.share = share


class _Rule:
    """The :class:`~invertible_rescaling.layers.pooling.Pooling` of one tile."""

    def __init__(self, settled: list[tuple[Tensor, Tensor]], window: Window) -> None:
        self._remaining = iter(settled)
        self._window = window

    def __call__(self, x: Tensor, /) -> tuple[Tensor, Tensor]:
        known = next(self._remaining, None)
        if known is not None:
            return known
        top, bottom, left, right = self._window.seen
        if x.shape[0] != 1 or x.shape[2:] != (bottom - top, right - left):
            raise ConfigError(
                "in tiles, a sub-network can only pool maps as large as its input, here "
                f"(1, C, {bottom - top}, {right - left}), got {tuple(x.shape)}; pass overlap= to go by "
                "independent tiles"
            )
        raise _UnknownStatisticsError(_sum_and_peak(self._window.inner(x)))


def _sum_and_peak(x: Tensor) -> tuple[Tensor, Tensor]:
    """Sum, in float32 at least, and maximum of ``(1, C, h, w)``, each ``(1, C, 1, 1)``."""
    precise = torch.promote_types(x.dtype, torch.float32)
    if x.stride(1) != 1:
        return x.sum((2, 3), keepdim=True, dtype=precise), x.amax((2, 3), keepdim=True)
    # Pixel by pixel in memory: over whole rows first, ten times as fast as over both sides at once.
    rows = x[0].permute(1, 2, 0).flatten(1)
    shape = (x.shape[3], x.shape[1])
    total, peak = rows.sum(0, dtype=precise).view(shape).sum(0), rows.amax(0).view(shape).amax(0)
    return total.view(1, -1, 1, 1), peak.view(1, -1, 1, 1)
