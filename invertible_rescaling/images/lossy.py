"""Images through lossy codecs, as other programs store them."""

import io
from typing import Any

import numpy as np
import torch
from torch import Tensor

from invertible_rescaling.errors import ImageError
from invertible_rescaling.images.backends import deep, pillow

__all__: list[str] = []  # for training and for what measures

_SAMPLINGS = {"4:4:4": 0, "4:2:0": 2}


def recompress(image: Tensor, kind: str, quality: int, subsampling: str = "4:2:0") -> Tensor:
    """Store an image by a lossy codec and read it again.

    Args:
        image: ``(3, H, W)``, uint8.
        kind: ``"jpg"``, ``"webp"``, ``"avif"`` or ``"jxl"``.
        quality: 1 to 100, as that codec's programs count it.
        subsampling: of colour, ``"4:2:0"`` or ``"4:4:4"``; WebP has the former, JPEG XL the latter alone.

    Returns:
        ``(3, H, W)``, uint8.

    Raises:
        MissingDependencyError: Pillow, or for JPEG XL imagecodecs, is not installed.
        ImageError: the codec is not built into it.

    Example:
        >>> import torch
        >>> from invertible_rescaling.images.lossy import recompress
        >>> recompress(torch.zeros(3, 8, 9, dtype=torch.uint8), "jpg", 90).shape
        torch.Size([3, 8, 9])
    """
    return decompress(compress(image, kind, quality, subsampling), kind)


def compress(image: Tensor, kind: str, quality: int, subsampling: str = "4:2:0") -> bytes:
    """The bytes of :func:`recompress`."""
    array = image.permute(1, 2, 0).contiguous().numpy()
    if kind == "jxl":
        return bytes(deep("imagecodecs").jpegxl_encode(array, level=quality))
    options: dict[str, Any] = {"quality": quality}
    if kind == "jpg":
        options["subsampling"] = _SAMPLINGS[subsampling]
    if kind == "avif":
        options["subsampling"] = subsampling
    buffer = io.BytesIO()
    try:
        pillow("Image").fromarray(array).save(buffer, {"jpg": "JPEG"}.get(kind, kind.upper()), **options)
    except (KeyError, OSError) as error:
        raise ImageError(f"this Pillow writes no {kind}") from error
    return buffer.getvalue()


def decompress(content: bytes, kind: str) -> Tensor:
    """An image of :func:`compress`."""
    if kind == "jxl":
        array = deep("imagecodecs").jpegxl_decode(content)
    else:
        with pillow("Image").open(io.BytesIO(content)) as image:
            array = np.array(image.convert("RGB"))
    return torch.from_numpy(array).permute(2, 0, 1).contiguous()
