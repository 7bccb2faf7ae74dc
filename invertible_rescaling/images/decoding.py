"""From a file's content to a picture.

Read as they are, at the depth and with the channels of the file: PNG of 8 and 16 bits; JPEG, WebP and BMP;
TIFF of 8 to 16 bits in grey and RGB, with alpha; PGM and PPM of any maximum up to 65535; AVIF and HEIC of 8,
10 and 12 bits; JPEG 2000 of up to 16. All depths over 8 are spread over 16. What is made into something else
is noted (palettes, CMYK, bitmaps); what has no agreed range is refused by name.
"""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from invertible_rescaling.errors import ImageError, first_line
from invertible_rescaling.images import high_depth, jpeg, png, tiff
from invertible_rescaling.images.backends import pillow
from invertible_rescaling.images.formats import format_in
from invertible_rescaling.images.metadata import Carried
from invertible_rescaling.images.picture import Picture
from invertible_rescaling.images.pixels import Array, check_size, turned

__all__: list[str] = []  # for pictures alone

_NO_RANGE = {"I": "32-bit integer", "F": "floating point"}
_PLUGINS = {
    "WebP": ("WebPImagePlugin", "WebPImageFile"),
    "GIF": ("GifImagePlugin", "GifImageFile"),
    "BMP": ("BmpImagePlugin", "BmpImageFile"),
    "PNM": ("PpmImagePlugin", "PpmImageFile"),
    "AVIF": ("AvifImagePlugin", "AvifImageFile"),
    "JPEG 2000": ("Jpeg2KImagePlugin", "Jpeg2KImageFile"),
    "ICO": ("IcoImagePlugin", "IcoImageFile"),
}


@dataclass
class _File:
    """A file's content, what is asked of it, and what has been found in it beside pixels."""

    content: bytes
    form: str
    max_pixels: int
    first_frame: bool
    carried: Carried = field(default_factory=Carried)

    def open(self, module: str, name: str, content: bytes | None = None) -> Any:
        """Open it with one of Pillow's classes, which knows no other format and no limit of its own."""
        image = getattr(pillow(module), name)(io.BytesIO(self.content if content is None else content))
        check_size(image.width, image.height, self.max_pixels)
        return image


def decode(content: bytes, max_pixels: int, *, first_frame: bool = False) -> Picture:
    """The picture in a file's content, with what the file carries; of an animation the first frame if wanted.

    Raises:
        Exception: what decoders raise on corrupt data; ImageError where this module refuses.
    """
    file = _File(content, format_in(content), max_pixels, first_frame)
    array = _READERS.get(file.form, _by_plugin)(file)
    orientation = file.carried.stand_upright()
    colour, alpha = _planes(turned(array, orientation))
    found = file.carried.for_channels(colour.shape[0])
    return Picture(colour, alpha, notes=tuple(file.carried.notes), **found)


def said_by(error: Exception) -> str:
    """Return a decoder's complaint about a file, without the name of the buffer it read from."""
    message = re.sub(r"<[^<>]* at 0x[0-9a-f]+>|<bytes>", "the file", first_line(error))
    plain = isinstance(error, OSError | SyntaxError | ValueError)
    return message if plain else f"it is corrupt ({type(error).__name__}: {message})"


def _png(file: _File) -> Array:
    chunks = png.chunks_of(file.content, file.carried)
    height, width = png.size_of(chunks)
    check_size(width, height, file.max_pixels)
    frames = next((int.from_bytes(body[:4], "big") for name, body in chunks if name == b"acTL"), 1)
    _check_single(file, frames)
    png.read_metadata(chunks, file.carried)
    with file.open("PngImagePlugin", "PngImageFile", png.plain(chunks)) as image:
        if not png.is_deep(chunks):
            return _of_8_bits(image, file.carried)
        image.load()  # finds out what is damaged, though it cuts the pixels to 8 bits
    return png.decode_deep(chunks)


def _jpeg(file: _File) -> Array:
    content, file.carried = jpeg.split(file.content)
    with file.open("JpegImagePlugin", "JpegImageFile", content) as image:
        return _of_8_bits(image, file.carried)


def _tiff(file: _File) -> Array:
    directory = tiff.directory_of(file.content)
    check_size(directory.get(256, 0), directory.get(257, 0), file.max_pixels)
    tiff.read_metadata(file.content, directory, file.carried)
    alpha, others = tiff.beside_colour(directory, file.carried)
    if not tiff.is_plain(directory, others):
        return tiff.read_deep(file.content, directory, alpha, file.max_pixels, file.carried, file.first_frame)
    with file.open("TiffImagePlugin", "TiffImageFile", tiff.upright(file.content, file.carried)) as image:
        reduced = []
        for page in range(image.n_frames):
            image.seek(page)
            reduced.append(bool(image.tag_v2.get(254, 0) & 1))
        image.seek(0)
        tiff.check_pages(reduced, file.first_frame, file.carried)
        return _of_8_bits(image, file.carried)


def _heic(file: _File) -> Array:
    return high_depth.read_heic(file.content, file.max_pixels, file.carried)


def _pnm(file: _File) -> Array:
    if high_depth.pnm_maximum(file.content) <= 255:
        return _by_plugin(file)
    return high_depth.read_pnm(file.content, file.max_pixels)


def _by_plugin(file: _File) -> Array:
    bits = {"AVIF": high_depth.avif_bits, "JPEG 2000": high_depth.jpeg_2000_bits}.get(file.form)
    depth = bits(file.content) if bits else 8
    with file.open(*_PLUGINS[file.form]) as image:
        _check_single(file, getattr(image, "n_frames", 1))
        for name, key in (("icc", "icc_profile"), ("exif", "exif"), ("xmp", "xmp")):
            setattr(file.carried, name, image.info.get(key) or None)
        _note_what_is_left(file, image)
        if depth <= 8:
            return _of_8_bits(image, file.carried)
    if depth < 16:
        file.carried.note(f"{depth} bits became 16")
    return (high_depth.read_avif if file.form == "AVIF" else high_depth.read_jpeg_2000)(file.content)


def _note_what_is_left(file: _File, image: Any) -> None:
    if file.form == "ICO" and len(image.ico.entry) > 1:
        file.carried.note("smaller pictures in the file (ICO) are left out")
    if file.form == "GIF" and "comment" in image.info:
        comment = image.info["comment"]
        file.carried.text["Comment"] = comment.decode("latin-1") if isinstance(comment, bytes) else comment
    if file.form == "BMP":
        header = int.from_bytes(file.content[14:18], "little")
        if header >= 108 and file.content[70:74] in (b"\0\0\0\0", b"LINK"[::-1], b"MBED"[::-1]):
            file.carried.note("the colour profile of a BMP file is left out")
        if header >= 56 and image.mode == "RGB" and any(file.content[66:70]):
            file.carried.note("the alpha of a BMP file is left out")


_READERS: dict[str, Callable[[_File], Array]] = {
    "PNG": _png,
    "JPEG": _jpeg,
    "TIFF": _tiff,
    "HEIC": _heic,
    "PNM": _pnm,
}


def _check_single(file: _File, frames: int) -> None:
    if frames > 1 and not file.first_frame:
        raise ImageError(f"the file is animated ({frames} frames); take single pictures out of it first")


def _of_8_bits(image: Any, carried: Carried) -> Array:
    image.load()
    return np.array(_to_8_bits(image, carried))


def _to_8_bits(image: Any, carried: Carried) -> Any:
    """An image in L, LA, RGB or RGBA; a profile that no longer fits is taken away."""
    mode = image.mode
    if mode in _NO_RANGE:
        raise ImageError(f"{_NO_RANGE[mode]} pixels have no agreed range; convert the file to 8 or 16 bits")
    transparent = "transparency" in image.info
    if mode == "1":
        carried.note("1 bit a pixel became 8 bits of grey")
        return image.convert("LA" if transparent else "L")
    if mode == "L" and transparent:
        return image.convert("RGBA").convert("LA")
    if mode in ("L", "LA", "RGB", "RGBA") and not (mode == "RGB" and transparent):
        return image
    if mode in ("RGB", "RGBa", "RGBX"):
        return image.convert("RGB" if mode == "RGBX" else "RGBA")
    if mode == "La":
        return image.convert("LA")
    if mode in ("P", "PA"):
        carried.note("the palette became RGB")
        return image.convert("RGBA" if transparent or mode == "PA" else "RGB")
    profile, carried.icc = carried.icc, None
    if mode == "CMYK" and profile is not None:
        try:
            converted = _through_profile(image, profile)
        except MemoryError:
            raise
        except Exception as error:  # whatever is wrong with the profile, the pixels are there
            carried.note("CMYK became RGB")
            carried.note(f"its ICC profile could not be used ({first_line(error)})")
        else:
            carried.note("CMYK became sRGB by its ICC profile")
            return converted
    carried.note(f"{mode} became RGB")
    return image.convert("RGB")


def _through_profile(image: Any, profile: bytes) -> Any:
    management = pillow("ImageCms")
    source = management.ImageCmsProfile(io.BytesIO(profile))
    return management.profileToProfile(image, source, management.createProfile("sRGB"), outputMode="RGB")


def _planes(array: Array) -> tuple[Tensor, Tensor | None]:
    """Pixels (H, W) or (H, W, 1 to 4) as colour and alpha."""
    tensor = torch.from_numpy(np.ascontiguousarray(np.atleast_3d(array).transpose(2, 0, 1)))
    channels = tensor.shape[0]
    if channels in (2, 4):
        return tensor[:-1].clone(), tensor[-1:].clone()
    return tensor, None
