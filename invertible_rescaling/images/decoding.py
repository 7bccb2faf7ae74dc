"""From a file's content to a picture: by Pillow, or at 16 bits by imagecodecs and tifffile."""

import io
import re
from typing import Any

import numpy as np
import torch
from torch import Tensor

from invertible_rescaling.errors import ImageError, first_line
from invertible_rescaling.images.backends import deep, pillow, without_pillows_limit
from invertible_rescaling.images.metadata import carried_by
from invertible_rescaling.images.picture import Picture
from invertible_rescaling.images.png16 import decode_deep, is_deep

__all__: list[str] = []  # for pictures alone

Array = np.ndarray[Any, np.dtype[Any]]

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_NO_RANGE = {"I": "32-bit integer", "F": "floating point"}


def decode(content: bytes, max_pixels: int) -> Picture:
    """The picture in a file's content, with what the file carries.

    Raises:
        Exception: what decoders raise on corrupt data; ImageError where this module refuses.
    """
    if content.startswith(_TIFF):
        found = _deep_tiff(content, max_pixels)
        if found is not None:
            return found
    with without_pillows_limit():
        return _by_pillow(content, max_pixels)


def said_by(error: Exception) -> str:
    """Return a decoder's complaint about a file, without the name of the buffer it read from."""
    message = first_line(error)
    if message.startswith("cannot identify image file"):
        return "it is corrupt, or no image in a format that is known here"
    message = re.sub(r"<[^<>]* at 0x[0-9a-f]+>|<bytes>", "the file", message)
    plain = isinstance(error, OSError | SyntaxError | ValueError)
    return message if plain else f"it is corrupt ({type(error).__name__}: {message})"


def _by_pillow(content: bytes, max_pixels: int) -> Picture:
    library, ops = pillow("Image"), pillow("ImageOps")
    with library.open(io.BytesIO(content)) as image:
        _check_size(image.width, image.height, max_pixels)
        _check_single(image)
        if image.format == "PNG":
            image.verify()  # checks every chunk's checksum, which decoding alone does not
    with library.open(io.BytesIO(content)) as image:
        image.load()
        orientation, upright = _orientation(image), ops.exif_transpose(image)
        carried, notes = carried_by(image)
        if image.mode.startswith("I;16"):
            array = np.asarray(upright).astype(np.uint16)
            transparent = image.info.get("transparency")
            if transparent is not None:
                array = np.stack((array, np.where(array == transparent, 0, 65535).astype(np.uint16)), axis=2)
        elif is_deep(content):  # which Pillow cuts to 8 bits; it has checked the file all the same
            array = _turned(decode_deep(content), orientation)
        else:
            converted, new = _to_8_bits(upright, carried)
            notes += new
            array = np.array(converted)
        colour, alpha = _planes(array)
        if image.format == "MPO":
            notes.append("further pictures in the file (MPO) are left out")
    return Picture(colour, alpha, notes=tuple(notes), **carried)


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise ImageError(
            f"{width}x{height} is {width * height:,} pixels, over the limit of {max_pixels:,} that guards "
            "against decompression bombs; raise max_pixels if the file is trusted"
        )
    if width < 1 or height < 1:
        raise ImageError(f"{width} by {height} pixels are no image")


def _check_single(image: Any) -> None:
    frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    if frames > 1:
        what = "holds {} pages" if image.format == "TIFF" else "is animated ({} frames)"
        raise ImageError(f"the file {what.format(frames)}; take single pictures out of it first")


def _orientation(image: Any) -> int:
    """EXIF's, 1 to 8; what cannot be read turns nothing."""
    try:
        found = image.getexif().get(0x0112, 1)
    except Exception:  # carried_by has noted it
        return 1
    return found if found in range(1, 9) else 1


def _turned(array: Array, orientation: int) -> Array:
    """Stored pixels (H, W, ...) as they are to be seen."""
    if orientation >= 5:
        array = np.swapaxes(array, 0, 1)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return array


def _to_8_bits(image: Any, carried: dict[str, Any]) -> tuple[Any, list[str]]:
    """An image in L, LA, RGB or RGBA, and notes; a profile that no longer fits is taken away."""
    mode = image.mode
    notes: list[str] = []
    if mode in _NO_RANGE:
        raise ImageError(f"{_NO_RANGE[mode]} pixels have no agreed range; convert the file to 8 or 16 bits")
    transparent = "transparency" in image.info
    if mode == "1":
        return image.convert("LA" if transparent else "L"), ["1 bit a pixel became 8 bits of grey"]
    if mode == "L" and transparent:
        return image.convert("RGBA").convert("LA"), notes
    if mode in ("L", "LA", "RGB", "RGBA") and not (mode == "RGB" and transparent):
        return image, notes
    if mode in ("RGB", "RGBa", "RGBX"):
        return image.convert("RGB" if mode == "RGBX" else "RGBA"), notes
    if mode == "La":
        return image.convert("LA"), notes
    if mode in ("P", "PA"):
        return image.convert("RGBA" if transparent or mode == "PA" else "RGB"), ["the palette became RGB"]
    profile = carried.pop("icc", None)
    if mode == "CMYK" and profile is not None:
        try:
            return _through_profile(image, profile), ["CMYK became sRGB by its ICC profile"]
        except Exception as error:  # whatever is wrong with the profile, the pixels are there
            notes = [f"its ICC profile could not be used ({first_line(error)})"]
    return image.convert("RGB"), [f"{mode} became RGB", *notes]


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


def _deep_tiff(content: bytes, max_pixels: int) -> Picture | None:
    """The picture in a TIFF file of 16 bits; ``None`` where Pillow should see to it."""
    directory = _tiff_directory(content)
    bits = directory.get(258, ())
    if 16 not in bits:
        return None
    if set(bits) != {16}:
        raise ImageError(f"channels of {', '.join(map(str, bits))} bits; convert the file to 8 or 16 bits")
    if set(directory.get(339, (1,))) != {1}:
        raise ImageError("16-bit pixels that are signed or floating point; convert the file to unsigned ones")
    photometric = directory.get(262)
    if photometric not in (0, 1, 2):
        raise ImageError(f"16-bit pixels of the photometric kind {photometric}; convert the file to RGB")
    with deep("tifffile").TiffFile(io.BytesIO(content)) as file:
        if len(file.pages) > 1:
            raise ImageError(f"the file holds {len(file.pages)} pages; take single pictures out of it first")
        page = file.pages[0]
        _check_size(page.imagewidth, page.imagelength, max_pixels)
        array = page.asarray()
        if page.axes == "SYX":
            array = np.moveaxis(array, 0, 2)
        elif page.axes not in ("YX", "YXS"):
            raise ImageError(f"a TIFF file of the axes {page.axes}, not of height, width and channels")
        extra = [int(value) for value in np.atleast_1d(page.extrasamples or ())]
    wanted = 3 if photometric == 2 else 1
    array = np.atleast_3d(array).astype(np.uint16)
    if array.shape[2] != wanted + len(extra) or len(extra) > 1:
        raise ImageError(f"{array.shape[2]} channels, where {wanted} of colour and one of alpha are known")
    if photometric == 0:  # white is zero
        array[..., 0] ^= 0xFFFF
    carried, notes = _carried_by_tiff(content, directory)
    colour, alpha = _planes(_turned(array, directory.get(274, 1)))
    if alpha is not None and extra == [1]:
        colour = _unmultiplied(colour, alpha)
    return Picture(colour, alpha, notes=tuple(notes), **carried)


def _tiff_directory(content: bytes) -> Any:
    """The tags of the first page, as Pillow reads them whatever the kind of pixels."""
    header = content[: 16 if content[2:4] in (b"+\0", b"\0+") else 8]
    directory = pillow("TiffImagePlugin").ImageFileDirectory_v2(header)
    stream = io.BytesIO(content)
    stream.seek(directory.next)
    directory.load(stream)
    return directory


def _carried_by_tiff(content: bytes, directory: Any) -> tuple[dict[str, Any], list[str]]:
    exif = pillow("Image").Exif()
    exif.load(content)
    return carried_by(_Carrier({"icc_profile": directory.get(34675), "xmp": directory.get(700)}, exif))


def _unmultiplied(colour: Tensor, alpha: Tensor) -> Tensor:
    """Colours that alpha was multiplied into, without it."""
    share = alpha.to(torch.float64).clamp(min=1) / 65535
    return (colour.to(torch.float64) / share).round().clamp(0, 65535).to(torch.int32).to(torch.uint16)


class _Carrier:
    """The parts of an image that :func:`carried_by` reads."""

    format = "TIFF"

    def __init__(self, info: dict[str, Any], exif: Any) -> None:
        self.info, self._exif = info, exif

    def getexif(self) -> Any:
        return self._exif
