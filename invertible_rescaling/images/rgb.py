"""Image files in and out, as 8-bit RGB tensors; needs the extra ``[images]``."""

import io
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from invertible_rescaling.errors import DtypeError, ImageError, MissingDependencyError, ShapeError
from invertible_rescaling.files import write_atomically
from invertible_rescaling.images.backends import pillow
from invertible_rescaling.images.decoding import decode, said_by
from invertible_rescaling.images.formats import PICTURE_SUFFIXES
from invertible_rescaling.images.io import MAX_PIXELS
from invertible_rescaling.images.picture import Picture

__all__ = ["find_images", "from_uint8", "read_image", "to_uint8", "write_image"]

_LOSSLESS: dict[str, dict[str, Any]] = {
    ".png": {"format": "PNG"},
    ".webp": {"format": "WEBP", "lossless": True},
    ".bmp": {"format": "BMP"},
}


def find_images(folder: str | os.PathLike[str]) -> list[Path]:
    """List the image files in a folder and its subfolders, by suffix, sorted; hidden ones are left out.

    Raises:
        ImageError: there is no such folder, or no image file in it.

    Example:
        >>> from invertible_rescaling.images import find_images
        >>> find_images("/no/such/folder")
        Traceback (most recent call last):
            ...
        invertible_rescaling.errors.ImageError: there is no folder at '/no/such/folder'
    """
    root = Path(folder)
    if not root.is_dir():
        raise ImageError(f"there is no folder at {os.fspath(folder)!r}")
    found = sorted(
        path
        for path in root.rglob("*")
        if path.suffix.lower() in PICTURE_SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(root).parts)
        and path.is_file()
    )
    if not found:
        known = ", ".join(sorted(PICTURE_SUFFIXES))
        raise ImageError(f"no image in {os.fspath(folder)!r}; known suffixes: {known}")
    return found


def read_image(path: str | os.PathLike[str]) -> Tensor:
    """Read an image as RGB, ``(3, H, W)`` uint8.

    It is what :func:`read_picture` reads, made plain: greyscale and palettes become RGB, 16 bits are scaled
    to 8, alpha is laid on white, and of an animation the first frame is taken.

    Raises:
        ImageError: missing, unreadable, corrupt or larger than :data:`MAX_PIXELS`.
        MissingDependencyError: a package that reads it is not installed.
        MemoryError: there is too little memory for its pixels.

    Example:
        >>> import tempfile, pathlib, torch
        >>> from invertible_rescaling.images import read_image, write_image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_image(pathlib.Path(folder, "a.png"), torch.zeros(3, 4, 5, dtype=torch.uint8))
        ...     read_image(pathlib.Path(folder, "a.png")).shape
        torch.Size([3, 4, 5])
    """
    try:
        return _rgb(decode(Path(path).read_bytes(), MAX_PIXELS, first_frame=True))
    except (MissingDependencyError, MemoryError):
        raise
    except Exception as error:  # decoders raise nearly anything on corrupt data
        raise ImageError(f"cannot read {os.fspath(path)!r} as an image: {said_by(error)}") from error


def write_image(path: str | os.PathLike[str], image: Tensor) -> None:
    """Write an RGB image without loss, atomically; the suffix says how (.png, .webp, .bmp).

    Args:
        path: where to; an existing file is replaced.
        image: ``(3, H, W)``, uint8, or floating point in [0, 1], which is clamped and rounded to 8 bits.

    Raises:
        ImageError: another suffix, among them .jpg, which would lose what an LR image carries.
        ShapeError, DtypeError: not an RGB image of those dtypes.
        MissingDependencyError: Pillow is not installed.
        OSError: the file cannot be written.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in _LOSSLESS:
        raise ImageError(
            f"cannot write {os.fspath(path)!r} without loss; use one of {', '.join(sorted(_LOSSLESS))} "
            "(write_picture writes .jpg, which is enough for what is restored)"
        )
    if image.dim() != 3 or image.shape[0] != 3:
        raise ShapeError(f"write_image takes an RGB image (3, H, W), got {tuple(image.shape)}")
    pixels = to_uint8(image).permute(1, 2, 0).contiguous().cpu().numpy()
    buffer = io.BytesIO()
    pillow("Image").fromarray(pixels).save(buffer, **_LOSSLESS[suffix])
    write_atomically(path, buffer.getvalue())


def from_uint8(image: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Map 0..255 to [0, 1].

    Raises:
        DtypeError: the image is not uint8.

    Example:
        >>> import torch
        >>> from invertible_rescaling.images import from_uint8
        >>> from_uint8(torch.tensor([0, 255], dtype=torch.uint8))
        tensor([0., 1.])
    """
    _check_tensor("from_uint8", image)
    if image.dtype != torch.uint8:
        raise DtypeError(f"from_uint8 takes uint8, got {image.dtype}")
    return image.to(dtype) / 255


def to_uint8(image: Tensor) -> Tensor:
    """Clamp [0, 1] and round to 0..255; uint8 passes through.

    Raises:
        DtypeError: other integers.

    Example:
        >>> import torch
        >>> from invertible_rescaling.images import to_uint8
        >>> to_uint8(torch.tensor([-1.0, 0.5, 1.0]))
        tensor([  0, 128, 255], dtype=torch.uint8)
    """
    _check_tensor("to_uint8", image)
    if image.dtype == torch.uint8:
        return image
    if not image.is_floating_point():
        raise DtypeError(f"to_uint8 takes floating point in [0, 1], or uint8, got {image.dtype}")
    return (image.detach().clamp(0, 1) * 255).round().to(torch.uint8)


def _check_tensor(who: str, image: Tensor) -> None:
    if not isinstance(image, Tensor):
        raise DtypeError(
            f"{who} takes a tensor (C, H, W), got {type(image).__name__}; "
            "Picture.from_array(numpy.asarray(image)).colour is one"
        )


def _rgb(picture: Picture) -> Tensor:
    colour = _8_bits(picture.colour).expand(3, -1, -1)
    if picture.alpha is None:
        return colour.contiguous()
    alpha = _8_bits(picture.alpha).to(torch.int32)
    laid = colour.to(torch.int32).mul_(alpha).add_(255 * (255 - alpha) + 127)
    return laid.div_(255, rounding_mode="floor").to(torch.uint8)


def _8_bits(plane: Tensor) -> Tensor:
    return plane if plane.dtype == torch.uint8 else ((plane.to(torch.int32) + 128) // 257).to(torch.uint8)
