"""Images through lossy codecs, as other programs store them."""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from invertible_rescaling.errors import ConfigError, ImageError
from invertible_rescaling.images.backends import deep, pillow
from invertible_rescaling.images.encoding import SAMPLINGS
from invertible_rescaling.images.rgb import from_uint8, to_uint8

__all__: list[str] = []  # for training and for what measures


@dataclass(frozen=True)
class Lossy:
    """A codec, and how it stores.

    Attributes:
        kind: ``"jpg"``, ``"webp"``, ``"avif"`` or ``"jxl"``.
        quality: 1 to 100, as that codec's programs count it.
        subsampling: of colour, for JPEG and AVIF.
    """

    kind: str
    quality: int
    subsampling: str = "4:2:0"

    @classmethod
    def parse(cls, text: str) -> "Lossy":
        """Read ``jpg:85``, ``jpg444:95``, ``webp:80``, ``avif:70`` or ``jxl:90``.

        Raises:
            ConfigError: it is none of these.

        Example:
            >>> from invertible_rescaling.images.lossy import Lossy
            >>> Lossy.parse("jpg444:95")
            Lossy(kind='jpg', quality=95, subsampling='4:4:4')
        """
        found = re.fullmatch(r"(jpg|webp|avif|jxl)(444)?:(100|[1-9]\d?)", text.replace("jpeg", "jpg"))
        if found is None or (found[2] and found[1] in ("webp", "jxl")):
            raise ConfigError(
                f"{text!r} is no codec with a quality; known: jpg:85 (4:2:0), jpg444:95, webp:80, avif:70, "
                "avif444:70, jxl:90"
            )
        return cls(found[1], int(found[3]), "4:4:4" if found[2] else "4:2:0")

    def encode(self, image: Tensor) -> bytes:
        """Store ``(1 or 3, H, W)``, uint8."""
        return compress(image.expand(3, -1, -1), self.kind, self.quality, self.subsampling)

    def decode(self, content: bytes) -> Tensor:
        """Read it again, ``(3, H, W)``."""
        return decompress(content, self.kind)

    def through(self, lr: Tensor) -> Tensor:
        """An image ``(1, 1 or 3, H, W)`` in [0, 1] as it comes out of a file, grey where it was grey."""
        colour = to_uint8(lr[0])
        return from_uint8(self.decode(self.encode(colour))[: colour.shape[0]])[None]


def within(kind: str, size: int, encode: Callable[[Lossy], bytes]) -> Lossy | None:
    """A codec at the best quality that takes so many bytes; ``None`` where the lowest takes more.

    JPEG and AVIF are at 4:2:0, as most programs write them.

    Args:
        kind: as of :class:`Lossy`.
        size: bytes.
        encode: what is stored, such as ``lambda codec: codec.encode(image)``.

    Raises:
        MissingDependencyError, ImageError: as :func:`recompress`.

    Example:
        >>> import torch
        >>> from invertible_rescaling.images.lossy import within
        >>> image = torch.zeros(3, 64, 64, dtype=torch.uint8)
        >>> within("jpg", 2000, lambda codec: codec.encode(image))
        Lossy(kind='jpg', quality=100, subsampling='4:2:0')
    """
    low, high, best = 1, 100, None
    while low <= high:
        codec = Lossy(kind, (low + high) // 2)
        if len(encode(codec)) <= size:
            low, best = codec.quality + 1, codec
        else:
            high = codec.quality - 1
    return best


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
        options["subsampling"] = SAMPLINGS[subsampling]
    if kind == "avif":
        options |= {"subsampling": subsampling, "max_threads": 1}  # the bytes depend on their number
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
