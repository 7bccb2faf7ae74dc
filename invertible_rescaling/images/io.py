"""Whole pictures from files and their content, and back."""

import os
from pathlib import Path

from invertible_rescaling.errors import ImageError, MissingDependencyError
from invertible_rescaling.files import write_atomically
from invertible_rescaling.images.backends import pillow
from invertible_rescaling.images.decoding import decode, said_by
from invertible_rescaling.images.encoding import encode_picture, format_of
from invertible_rescaling.images.picture import Picture

__all__ = ["MAX_PIXELS", "decode_picture", "read_picture", "write_picture"]

MAX_PIXELS = 2**28  # 16384 x 16384


def decode_picture(content: bytes, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Make a picture of a file's content.

    Palettes and CMYK become RGB, less than 8 bits become 8, 9 to 15 bits become 16, a transparent colour
    becomes alpha, and the orientation is applied; greyscale, alpha and 16 bits stay. What is not kept is told
    in the picture's notes. Nothing outside the call is changed, so that threads may decode side by side.

    Args:
        content: of a PNG, JPEG, WebP, TIFF, GIF, BMP, PNM, AVIF, JPEG 2000, ICO or HEIC file; the last needs
            the extra ``[heic]``.
        max_pixels: refuse larger images, before they are unpacked: a small file can hold a very large one.

    Raises:
        ImageError: no image, a corrupt or truncated one, an animation, one of several pages or of 32 bits, or
            too large.
        MissingDependencyError: a package that reads it is not installed.
        MemoryError: there is too little memory for its pixels.
    """
    content = bytes(content)
    if not content:
        raise ImageError("the file is empty")
    try:
        return decode(content, max_pixels)
    except (ImageError, MissingDependencyError, MemoryError):
        raise
    except Exception as error:  # decoders raise nearly anything on corrupt data
        raise ImageError(said_by(error)) from error


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


def size_in_header(path: Path) -> tuple[int, int] | None:
    """(H, W) of an image file, without its pixels being read; ``None`` for what is not read this way."""
    try:
        with pillow("Image").open(
            path, formats=("PNG", "JPEG", "WEBP", "TIFF", "BMP", "PPM", "GIF")
        ) as image:
            return int(image.height), int(image.width)
    except (MissingDependencyError, MemoryError):
        raise
    except Exception:  # reading it will say what is wrong with it
        return None


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
    write_atomically(path, encode_picture(picture, format_of(path), quality=quality))
