"""Whole pictures: the pixels as they are in the file, at their depth, and what else the file says."""

import os
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from invertible_rescaling.errors import DtypeError, ImageError, MissingDependencyError, ShapeError
from invertible_rescaling.files import write_atomically

__all__ = ["MAX_PIXELS", "Picture", "decode_picture", "read_picture", "write_picture"]

MAX_PIXELS = 2**28  # 16384 x 16384
_DTYPES = {8: torch.uint8, 16: torch.uint16}


@dataclass(frozen=True)
class Picture:
    """A picture, upright, and what its file carries beside the pixels.

    Attributes:
        colour: ``(C, H, W)``, C = 1 for greyscale and 3 for RGB; uint8, or uint16 for 16 bits.
        alpha: ``(1, H, W)`` of the same dtype, or ``None``. Not multiplied into the colours.
        icc: the ICC profile, if any.
        exif: EXIF from its TIFF header on, if any, without an orientation.
        text: by keyword; in PNG files text chunks.
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
    text: dict[str, str] = field(default_factory=dict)
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

    def noting(self, *notes: str) -> "Picture":
        """The same with more notes."""
        return replace(self, notes=(*self.notes, *notes))


def decode_picture(content: bytes, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Make a picture of a file's content.

    Palettes and CMYK become RGB, 1, 2 and 4 bits become 8, a transparent colour becomes alpha, and the EXIF
    orientation is applied; greyscale, alpha and 16 bits stay.

    Args:
        content: of a PNG, JPEG, WebP, TIFF, GIF, BMP or PNM file.
        max_pixels: refuse larger images, before they are unpacked: a small file can hold a very large one.

    Raises:
        ImageError: no image, a corrupt or truncated one, an animation, one of several pages or of 32 bits, or
            too large.
        MissingDependencyError: a package that reads it is not installed.
    """
    from invertible_rescaling.images import decoding

    if not content:
        raise ImageError("the file is empty")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            picture = decoding.decode(content, max_pixels)
    except (ImageError, MissingDependencyError):
        raise
    except MemoryError as error:
        raise ImageError("there is not enough memory for it") from error
    except Exception as error:  # decoders raise nearly anything on corrupt data
        raise ImageError(decoding.said_by(error)) from error
    of_code = (DeprecationWarning, PendingDeprecationWarning, ResourceWarning)
    told = [
        "the decoder warns: " + str(warning.message).strip()
        for warning in caught
        if not issubclass(warning.category, of_code)
    ]
    return picture.noting(*dict.fromkeys(text.splitlines()[0] for text in told if text))


def read_picture(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Read a picture file; see :func:`decode_picture`.

    Raises:
        ImageError: missing, unreadable, or for what :func:`decode_picture` raises it; it names the file.
        MissingDependencyError: a package that reads it is not installed.

    Example:
        >>> import tempfile, pathlib, torch
        >>> from invertible_rescaling.images import Picture, read_picture, write_picture
        >>> grey = Picture(torch.full((1, 4, 5), 40000).to(torch.uint16))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_picture(pathlib.Path(folder, "a.png"), grey)
        ...     read_picture(pathlib.Path(folder, "a.png")).kind
        'greyscale, 16 bits'
    """
    try:
        return decode_picture(Path(path).read_bytes(), max_pixels=max_pixels)
    except MissingDependencyError:
        raise
    except ImageError as error:
        raise ImageError(f"cannot read {os.fspath(path)!r} as an image: {error}") from error
    except OSError as error:
        raise ImageError(f"cannot read {os.fspath(path)!r}: {error.strerror or error}") from error


def write_picture(path: str | os.PathLike[str], picture: Picture, *, quality: int | None = None) -> None:
    """Write a picture, atomically; the suffix says how: .png, .tif, .tiff, .webp, .jpg or .jpeg.

    Args:
        path: where to; an existing file is replaced.
        picture: what to write, with its profile, EXIF and text.
        quality: 1 to 100, for JPEG (95 by default) and WebP, which is lossless without.

    Raises:
        ImageError: another suffix, or the format cannot hold the picture.
        MissingDependencyError: a package that writes it is not installed.
        OSError: the file cannot be written.
    """
    from invertible_rescaling.images.encoding import encode_picture, format_of

    write_atomically(path, encode_picture(picture, format_of(path), quality=quality))
