"""Whole pictures: the pixels as they are in the file, at their depth, and what else the file says."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from invertible_rescaling.errors import DtypeError, ShapeError

__all__ = ["Picture"]

_DTYPES = {8: torch.uint8, 16: torch.uint16}


@dataclass(frozen=True)
class Picture:
    """A picture, upright, and what its file carries beside the pixels.

    Attributes:
        colour: ``(C, H, W)``, C = 1 for greyscale and 3 for RGB; uint8, or uint16 for 16 bits.
        alpha: ``(1, H, W)`` of the same dtype, or ``None``. Not multiplied into the colours.
        icc: the ICC profile, if any.
        exif: EXIF from its TIFF header on, if any, without an orientation or a thumbnail.
        xmp: the XMP packet, if any: rights, ratings, edits.
        text: by keyword; in PNG files text chunks.
        dpi: pixels an inch, across and down, to a tenth, if the file says.
        colour_chunks: the chunks of a PNG file that say how its numbers are colours where no profile does, by
            name: cICP, mDCV, cLLI, sRGB, gAMA, cHRM. No other format has a place for them.
        notes: what reading changed (a palette became RGB), to be told to whoever asked.

    Raises:
        ShapeError, DtypeError: the planes are not as above.

    Example:
        >>> import torch
        >>> from invertible_rescaling.images import Picture
        >>> picture = Picture(torch.zeros(3, 4, 5, dtype=torch.uint8))
        >>> picture.bits, picture.size, picture.kind
        (8, (4, 5), 'RGB, 8 bits')
    """

    colour: Tensor
    alpha: Tensor | None = None
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    text: dict[str, str] = field(default_factory=dict)
    dpi: tuple[float, float] | None = None
    colour_chunks: dict[str, bytes] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.colour.dim() != 3 or self.colour.shape[0] not in (1, 3) or self.colour.numel() == 0:
            raise ShapeError(f"a picture's colour is (1 or 3, H, W), got {tuple(self.colour.shape)}")
        if self.colour.dtype not in _DTYPES.values():
            raise DtypeError(f"a picture's colour is uint8 or uint16, got {self.colour.dtype}")
        if self.alpha is None:
            return
        if self.alpha.shape != (1, *self.colour.shape[1:]) or self.alpha.dtype != self.colour.dtype:
            raise ShapeError(
                f"a picture's alpha goes with its colour, {tuple(self.colour.shape)} {self.colour.dtype}, "
                f"got {tuple(self.alpha.shape)} {self.alpha.dtype}"
            )

    @property
    def bits(self) -> int:
        """8 or 16."""
        return 8 if self.colour.dtype == torch.uint8 else 16

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.colour.shape[1], self.colour.shape[2]

    @property
    def kind(self) -> str:
        """In words."""
        colour = "greyscale" if self.colour.shape[0] == 1 else "RGB"
        return f"{colour}{'' if self.alpha is None else ' with alpha'}, {self.bits} bits"

    @classmethod
    def from_array(cls, array: Any) -> "Picture":
        """Make a picture of pixels as NumPy and Pillow have them.

        Args:
            array: ``(H, W)``, or ``(H, W, C)`` of 1, 2, 3 or 4 channels, the second or fourth alpha; uint8 or
                uint16. Of a Pillow image of mode L, LA, RGB or RGBA it is ``numpy.asarray(image)``; convert
                others first, above all those with a palette, whose pixels are no colours.

        Raises:
            ShapeError, DtypeError: other shapes or dtypes.

        Example:
            >>> import numpy as np
            >>> from invertible_rescaling.images import Picture
            >>> Picture.from_array(np.zeros((4, 5, 4), np.uint8)).kind
            'RGB with alpha, 8 bits'
        """
        pixels = np.asarray(array)
        pixels = pixels[..., None] if pixels.ndim == 2 else pixels
        if pixels.ndim != 3 or pixels.shape[2] not in (1, 2, 3, 4):
            raise ShapeError(f"a picture's pixels are (H, W) or (H, W, 1 to 4), got {np.shape(array)}")
        if pixels.dtype not in (np.uint8, np.uint16):
            raise DtypeError(f"a picture's pixels are uint8 or uint16, got {pixels.dtype}")
        planes = torch.from_numpy(np.array(pixels.transpose(2, 0, 1), order="C"))
        colours = 1 if len(planes) < 3 else 3
        return cls(planes[:colours], planes[colours:] if len(planes) > colours else None)

    def to_array(self) -> "np.ndarray[Any, Any]":
        """Return the pixels, ``(H, W)`` or ``(H, W, C)`` with alpha last, as :meth:`from_array` takes them.

        ``PIL.Image.fromarray`` takes those of 8 bits.
        """
        planes = self.colour if self.alpha is None else torch.cat((self.colour, self.alpha))
        pixels: np.ndarray[Any, Any] = planes.numpy().transpose(1, 2, 0)
        return pixels[..., 0] if len(planes) == 1 else pixels

    def noting(self, *notes: str) -> "Picture":
        """The same with more notes."""
        return replace(self, notes=(*self.notes, *notes))

    def bare(self) -> "Picture":
        """The same without what tells of people and places: EXIF, XMP and text; colours stay as they look."""
        return replace(self, exif=None, xmp=None, text={})
