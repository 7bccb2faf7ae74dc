"""From a picture to a file's content."""

import io
import os
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from invertible_rescaling.errors import ImageError, MetadataWarning
from invertible_rescaling.images import png
from invertible_rescaling.images.backends import pillow
from invertible_rescaling.images.fitting import fit_metadata
from invertible_rescaling.images.picture import Picture
from invertible_rescaling.images.tiff import exif_tags
from invertible_rescaling.images.xmp import packet_of

__all__ = ["LOSSLESS", "SUFFIXES", "encode_picture"]

SUFFIXES = {"png": ".png", "tiff": ".tif", "webp": ".webp", "jpg": ".jpg"}
LOSSLESS = ("png", "tiff", "webp")
_FORMATS = {".png": "png", ".tif": "tiff", ".tiff": "tiff", ".webp": "webp", ".jpg": "jpg", ".jpeg": "jpg"}
SAMPLINGS = {"4:4:4": 0, "4:2:0": 2}  # of the colour of JPEG, by Pillow's numbers
_HASTE = 2**22  # pixels, above which PNG is packed in less than half the time, and a little larger
_SIDES = {"webp": 16383, "jpg": 65500}  # what libwebp and libjpeg go up to


def format_of(path: str | os.PathLike[str]) -> str:
    """The format that a file's suffix stands for.

    Raises:
        ImageError: none does.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in _FORMATS:
        raise ImageError(f"cannot write {os.fspath(path)!r}; known suffixes: {', '.join(_FORMATS)}")
    return _FORMATS[suffix]


def encode_picture(
    picture: Picture, kind: str, *, quality: int | None = None, subsampling: str = "4:4:4"
) -> bytes:
    """Make a file's content of a picture, the same for the same picture.

    Args:
        picture: what to store, with its metadata; what of it the format cannot hold is left out, with a
            warning (:func:`fit_metadata` says it in a note).
        kind: ``"png"``, ``"tiff"``, ``"webp"`` or ``"jpg"``. The first two hold any picture; WebP has 8 bits
            and stores greyscale as RGB; JPEG has 8 bits and no alpha. Sides are up to 16383 in WebP and 65500
            in JPEG.
        quality: 1 to 100, for JPEG (95 by default) and WebP, which is lossless without.
        subsampling: of the colour of JPEG: ``"4:4:4"``, none, or ``"4:2:0"``, as most programs write.

    Warns:
        MetadataWarning: not all metadata fit.

    Raises:
        ImageError: the format cannot hold the picture, or is not known.
        MissingDependencyError: a package that writes it is not installed.

    Example:
        >>> import torch
        >>> from invertible_rescaling.images import Picture, decode_picture, encode_picture
        >>> content = encode_picture(Picture(torch.zeros(1, 4, 5, dtype=torch.uint8)), "png")
        >>> decode_picture(content).size
        (4, 5)
    """
    if kind not in SUFFIXES:
        raise ImageError(f"no format is named {kind!r}; known: {', '.join(SUFFIXES)}")
    if kind in ("webp", "jpg"):
        if picture.bits != 8:
            raise ImageError(f"{kind} has no 16 bits; use png or tiff")
        if max(picture.size) > _SIDES[kind]:
            raise ImageError(f"{kind} has at most {_SIDES[kind]} pixels a side; use png or tiff")
    if kind == "jpg" and picture.alpha is not None:
        raise ImageError("jpg has no alpha; use png, tiff or webp")
    fitting = fit_metadata(picture, kind)
    for note in fitting.notes[len(picture.notes) :]:
        warnings.warn(note, MetadataWarning, stacklevel=2)
    if kind == "jpg":
        if subsampling not in SAMPLINGS:
            raise ImageError(f"jpg has the subsamplings {' and '.join(SAMPLINGS)}, got {subsampling!r}")
        return _jpg(fitting, quality, subsampling)
    return {"png": _png, "tiff": _tiff, "webp": _webp}[kind](fitting, quality)


def _pixels(picture: Picture) -> "np.ndarray[Any, np.dtype[Any]]":
    """As (H, W) or (H, W, 2 to 4)."""
    planes = [picture.colour] if picture.alpha is None else [picture.colour, picture.alpha]
    array = np.concatenate([plane.cpu().numpy() for plane in planes]).transpose(1, 2, 0)
    return np.ascontiguousarray(array[..., 0] if array.shape[2] == 1 else array)


def _save(array: "np.ndarray[Any, np.dtype[Any]]", **options: Any) -> bytes:
    buffer = io.BytesIO()
    pillow("Image").fromarray(array).save(
        buffer, **{key: value for key, value in options.items() if value is not None}
    )
    return buffer.getvalue()


def _png(picture: Picture, quality: int | None) -> bytes:
    array = _pixels(picture)
    if picture.bits == 8 or array.ndim == 2:
        effort = 6 if array.shape[0] * array.shape[1] <= _HASTE else 3
        content = _save(array, format="PNG", compress_level=effort)
    else:
        content = png.encode_deep(array)
    chunks = [png.chunk(name.encode(), body) for name, body in picture.colour_chunks.items()]
    if picture.icc:
        chunks.append(png.chunk(b"iCCP", b"icc\0\0" + zlib.compress(picture.icc)))
    if picture.dpi:
        across, down = (round(value / 0.0254) for value in picture.dpi)
        chunks.append(png.chunk(b"pHYs", struct.pack(">IIB", across, down, 1)))
    if picture.exif:
        chunks.append(png.chunk(b"eXIf", picture.exif))
    if picture.xmp:
        chunks.append(png.text_chunk(png.XMP_KEY, picture.xmp.decode()))
    chunks += [png.text_chunk(key, value) for key, value in picture.text.items()]
    return content[: png.HEADER_END] + b"".join(chunks) + content[png.HEADER_END :]


def _webp(picture: Picture, quality: int | None) -> bytes:
    how = {"lossless": True} if quality is None else {"quality": quality}
    array = _pixels(picture)
    if picture.colour.shape[0] == 1:
        grey = array if array.ndim == 3 else array[..., None]
        array = np.concatenate([grey[..., :1]] * 3 + [grey[..., 1:]], axis=2)
    # exact: else colours where alpha is zero would be lost, and LR has them from everywhere around
    return _save(
        array,
        format="WEBP",
        exact=True,
        icc_profile=picture.icc,
        exif=_headed(picture),
        xmp=packet_of(picture.xmp, picture.text),
        **how,
    )


def _jpg(picture: Picture, quality: int | None, subsampling: str) -> bytes:
    return _save(
        _pixels(picture),
        format="JPEG",
        quality=95 if quality is None else quality,
        subsampling=SAMPLINGS[subsampling],
        dpi=None if picture.dpi is None else tuple(round(value) for value in picture.dpi),
        icc_profile=picture.icc,
        exif=_headed(picture),
        xmp=packet_of(picture.xmp, picture.text),
    )


def _headed(picture: Picture) -> bytes | None:
    return b"Exif\0\0" + picture.exif if picture.exif else None


def _tiff(picture: Picture, quality: int | None) -> bytes:
    """One strip, deflated; laid out here, since Pillow writes no 16-bit RGB, and no EXIF with compression."""
    array, (height, width) = _pixels(picture), picture.size
    array = array.reshape(height, width, -1)
    channels = array.shape[2]
    rows = array.copy()
    rows[:, 1:] -= array[:, :-1]  # predictor 2: what is left of a smooth picture deflates well
    strip = zlib.compress(rows.astype(rows.dtype.newbyteorder("<")).tobytes())
    plugin = pillow("TiffImagePlugin")
    directory = plugin.ImageFileDirectory_v2(prefix=b"II")
    if picture.exif:
        for tag, value in exif_tags(picture.exif).items():
            directory[tag] = value
    if picture.dpi:
        directory[282], directory[283], directory[296] = *picture.dpi, 2
    directory[256], directory[257], directory[258] = width, height, (picture.bits,) * channels
    directory[259], directory[317] = 8, 2  # deflate, by rows
    directory[262], directory[277] = (2 if picture.colour.shape[0] == 3 else 1), channels
    directory[273], directory[278], directory[279] = 0, height, len(strip)
    if picture.alpha is not None:
        directory[338] = 2  # not multiplied into the colours
    packet = packet_of(picture.xmp, picture.text)
    for tag, content in ((700, packet), (34675, picture.icc)):
        if content:
            directory.tagtype[tag] = 1 if tag == 700 else 7
            directory[tag] = content
    buffer = io.BytesIO()
    directory.save(buffer)
    return buffer.getvalue() + strip
