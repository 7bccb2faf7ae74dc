"""Formats other than PNG and TIFF where they hold more than the 8 bits that Pillow makes of them."""

import io
import struct
from typing import Any

import numpy as np

from invertible_rescaling.errors import ImageError, MissingDependencyError
from invertible_rescaling.images.backends import deep
from invertible_rescaling.images.metadata import Carried
from invertible_rescaling.images.pixels import Array, check_size, to_16_bits

__all__: list[str] = []  # for this package alone

_SIZE_MARKER = b"\xff\x4f\xff\x51"  # the beginning of a JPEG 2000 codestream, where its sizes stand


def avif_bits(content: bytes) -> int:
    """Bits a channel of an AVIF file."""
    at = content.find(b"av1C")
    flags = content[at + 6] if 0 <= at < len(content) - 6 else 0
    return (12 if flags & 0x20 else 10) if flags & 0x40 else 8


def read_avif(content: bytes) -> Array:
    """Pixels of an AVIF file of 10 or 12 bits, not turned; Pillow has looked at its size."""
    return _spread(deep("imagecodecs").avif_decode(content), avif_bits(content))


def jpeg_2000_bits(content: bytes) -> int:
    """Bits a channel of a JPEG 2000 file.

    Raises:
        ImageError: they are signed, or differ.
    """
    at = content.find(_SIZE_MARKER)
    if at < 0 or at + 42 > len(content):
        raise ImageError("it is truncated")
    (channels,) = struct.unpack_from(">H", content, at + 40)
    depths = set(content[at + 42 : at + 42 + 3 * channels : 3])
    if any(depth & 0x80 for depth in depths):
        raise ImageError("signed pixels; convert the file to unsigned ones")
    if len(depths) != 1:
        raise ImageError("channels of different depths; convert the file to 8 or 16 bits")
    bits = depths.pop() + 1
    if bits > 16:
        raise ImageError(f"{bits}-bit integer pixels have no agreed range; convert the file to 8 or 16 bits")
    return bits


def read_jpeg_2000(content: bytes) -> Array:
    """Pixels of a JPEG 2000 file of 9 to 16 bits; Pillow has looked at its size."""
    return _spread(deep("imagecodecs").jpeg2k_decode(content), jpeg_2000_bits(content))


def pnm_maximum(content: bytes) -> int:
    """The value of white in a PNM file; 1 for bitmaps."""
    if content[1:2] in b"14":
        return 1
    words, at = list[bytes](), 2
    while len(words) < 3 and at < len(content):
        line, _, _ = content[at : at + 4096].partition(b"\n")
        words += line.split(b"#")[0].split()
        at += len(line) + 1
    try:
        return int(words[2])
    except (IndexError, ValueError):
        return 255  # Pillow says what is wrong with it


def read_pnm(content: bytes, max_pixels: int) -> Array:
    """Pixels of a PGM or PPM file of more than 8 bits.

    Raises:
        ImageError: it is too large, or pixels are missing.
        Exception: what netpbmfile raises.
    """
    with deep("netpbmfile").NetpbmFile(io.BytesIO(content)) as file:
        check_size(file.width, file.height, max_pixels)
        if file.frames > 1:
            raise ImageError(f"the file holds {file.frames} pictures; take single ones out of it first")
        if not 255 < file.maxval < 65536:
            raise ImageError(f"a maximum of {file.maxval}, where 65535 is the largest")
        return to_16_bits(np.asarray(file.asarray()), file.maxval)


def read_heic(content: bytes, max_pixels: int, carried: Carried) -> Array:
    """Pixels of a HEIC file, upright.

    Raises:
        ImageError: it is too large.
        MissingDependencyError: pillow-heif is not installed.
        Exception: what pillow-heif raises.
    """
    try:
        from pillow_heif import open_heif
    except ImportError as error:
        raise MissingDependencyError(
            "HEIC pictures, as phones write them, need pillow-heif: pip install 'invertible_rescaling[heic]'"
        ) from error
    file: Any = open_heif(io.BytesIO(content), convert_hdr_to_8bit=False)
    image = file[file.primary_index]
    width, height = image.size
    check_size(width, height, max_pixels)
    carried.orientation = 1  # libheif has turned it
    carried.icc, carried.exif, carried.xmp = (
        image.info.get(name) or None for name in ("icc_profile", "exif", "xmp")
    )
    if len(file) > 1:
        carried.note("further pictures in the file (HEIC) are left out")
    array = np.array(image)  # a copy: what it shows is freed with the file
    bits = int(image.info.get("bit_depth", 8))
    if array.dtype == np.uint8:
        return array
    carried.note(f"{bits} bits became 16")
    return to_16_bits(array >> (16 - bits), 2**bits - 1)  # it has moved them to the top of 16


def _spread(array: Array, bits: int) -> Array:
    return to_16_bits(array.astype(np.uint16), 2**bits - 1)
