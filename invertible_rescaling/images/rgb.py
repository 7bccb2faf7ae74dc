"""Image files in and out, as 8-bit RGB tensors; needs the extra ``[images]``."""

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from invertible_rescaling.errors import DtypeError, ImageError, ShapeError, first_line
from invertible_rescaling.files import write_atomically
from invertible_rescaling.images.backends import pillow

__all__ = ["PICTURE_SUFFIXES", "find_images", "from_uint8", "read_image", "to_uint8", "write_image"]

PICTURE_SUFFIXES = frozenset(
    {".apng", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pgm", ".png", ".pnm", ".ppm", ".tif"}
    | {".tiff", ".webp"}
)
"""In folders, the files that are taken for pictures: by every program and command."""
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

    Greyscale and palette images become RGB, 16-bit greyscale is scaled to 8 bits, alpha is laid on white,
    the EXIF orientation is applied, and of an animation the first frame is taken.

    Raises:
        ImageError: missing, unreadable, corrupt or too large (Pillow's limit against decompression bombs).
        MissingDependencyError: Pillow is not installed.

    Example:
        >>> import tempfile, pathlib, torch
        >>> from invertible_rescaling.images import read_image, write_image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_image(pathlib.Path(folder, "a.png"), torch.zeros(3, 4, 5, dtype=torch.uint8))
        ...     read_image(pathlib.Path(folder, "a.png")).shape
        torch.Size([3, 4, 5])
    """
    library, ops = pillow("Image"), pillow("ImageOps")
    try:
        with library.open(path) as image:
            if image.format == "PNG":
                image.verify()  # checks every chunk's checksum, which decoding alone does not
        with library.open(path) as image:
            image.load()
            upright = ops.exif_transpose(image)
            array = np.array(_to_rgb(upright, library))
    except Exception as error:  # decoders raise nearly anything on corrupt data
        raise ImageError(f"cannot read {os.fspath(path)!r} as an image: {first_line(error)}") from error
    return torch.from_numpy(array).permute(2, 0, 1).contiguous()


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
            f"cannot write {os.fspath(path)!r} without loss; use one of {', '.join(sorted(_LOSSLESS))}"
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
    if image.dtype == torch.uint8:
        return image
    if not image.is_floating_point():
        raise DtypeError(f"to_uint8 takes floating point in [0, 1], or uint8, got {image.dtype}")
    return (image.detach().clamp(0, 1) * 255).round().to(torch.uint8)


def _to_rgb(image: Any, library: Any) -> Any:
    if image.mode == "F" or image.mode == "I":
        raise ImageError(
            f"{image.mode!r} pixels ({'floating point' if image.mode == 'F' else '32-bit integers'}) have no "
            "agreed range; convert the file to 8 or 16 bits"
        )
    if image.mode.startswith("I;16"):  # 16 bits of grey, which Pillow's own conversion would clip
        grey = np.asarray(image).astype(np.float64)
        transparent = image.info.get("transparency")
        if transparent is not None:
            grey = np.where(grey == transparent, 65535.0, grey)
        return library.fromarray(np.rint(grey / 257).astype(np.uint8)).convert("RGB")
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        colour = image.convert("RGBA")
        white = library.new("RGBA", colour.size, (255, 255, 255, 255))
        return library.alpha_composite(white, colour).convert("RGB")
    return image.convert("RGB")
