"""Tiles of an image, and the windows they are computed from."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

__all__: list[str] = []  # for tiles alone

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Window:
    """A tile ``[top, bottom) x [left, right)`` and the window ``seen`` around it that it is computed from.

    Images are ``(..., H, W)``, with ``scale`` of their pixels to one of the window's on each side.
    """

    tile: Box
    seen: Box

    @property
    def pixels(self) -> int:
        """Of the tile."""
        top, bottom, left, right = self.tile
        return (bottom - top) * (right - left)

    def crop(self, image: Tensor, scale: int = 1) -> Tensor:
        """Return the part of an image that is seen."""
        return _part(image, self.seen, scale)

    def inner(self, found: Tensor, scale: int = 1) -> Tensor:
        """The tile's part of ``found``, which covers what is seen."""
        above, left = self.seen[0], self.seen[2]
        top, bottom, start, end = self.tile
        return _part(found, (top - above, bottom - above, start - left, end - left), scale)

    def view(self, image: Tensor, scale: int = 1) -> Tensor:
        """The tile's place in an image; smaller than the tile where the image ends."""
        return _part(image, self.tile, scale)

    def paste(self, found: Tensor, image: Tensor, scale: int = 1) -> None:
        """Write the tile's part of ``found``, which covers what is seen, to its place in an image."""
        target = self.view(image, scale)
        target.copy_(self.inner(found, scale)[..., : target.shape[-2], : target.shape[-1]])

    def around(self, margin: int, height: int, width: int) -> "Window":
        """Return the seen part as a tile, itself seen with ``margin`` around within ``height x width``."""
        return Window(self.seen, _grown(self.seen, margin, height, width))


def windows(height: int, width: int, side: int, overlap: int) -> Iterator[Window]:
    """Tiles of at most ``side`` that cover ``height x width``, each seen with ``overlap`` on all sides.

    Example:
        >>> from invertible_rescaling.tiling.window import windows
        >>> [window.seen for window in windows(4, 10, side=6, overlap=1)]
        [(0, 4, 0, 7), (0, 4, 5, 10)]
    """
    for top in range(0, height, side):
        for left in range(0, width, side):
            tile = (top, min(top + side, height), left, min(left + side, width))
            yield Window(tile, _grown(tile, overlap, height, width))


def _part(image: Tensor, box: Box, scale: int) -> Tensor:
    top, bottom, left, right = (edge * scale for edge in box)
    return image[..., top:bottom, left:right]


def _grown(box: Box, margin: int, height: int, width: int) -> Box:
    top, bottom, left, right = box
    return (
        max(0, top - margin),
        min(height, bottom + margin),
        max(0, left - margin),
        min(width, right + margin),
    )
