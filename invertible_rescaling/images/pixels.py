"""Arrays of pixels on the way from a file to a picture."""

from typing import Any

import numpy as np

from invertible_rescaling.errors import ImageError

__all__: list[str] = []  # for this package alone

Array = np.ndarray[Any, np.dtype[Any]]


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Refuse what has no pixels, or too many.

    Raises:
        ImageError: it is refused.
    """
    if width * height > max_pixels:
        raise ImageError(
            f"{width}x{height} is {width * height:,} pixels, over the limit of {max_pixels:,} that guards "
            "against decompression bombs; raise max_pixels if the file is trusted"
        )
    if width < 1 or height < 1:
        raise ImageError(f"{width} by {height} pixels are no image")


def to_16_bits(array: Array, maximum: int) -> Array:
    """Spread 0 to ``maximum`` over 0 to 65535.

    Raises:
        ImageError: a pixel is over the maximum.
    """
    if array.size and int(array.max()) > maximum:
        raise ImageError(f"it is corrupt: a pixel of {int(array.max())} where {maximum} is the largest")
    if maximum == 65535:
        return array.astype(np.uint16, copy=False)
    table = (np.arange(maximum + 1, dtype=np.uint64) * 65535 + maximum // 2) // maximum
    spread: Array = table.astype(np.uint16)[array]  # no wider array of all pixels on the way
    return spread


def turned(array: Array, orientation: int) -> Array:
    """Stored pixels (H, W, ...) as they are to be seen, by EXIF's number, 1 to 8."""
    if orientation >= 5:
        array = np.swapaxes(array, 0, 1)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return array
