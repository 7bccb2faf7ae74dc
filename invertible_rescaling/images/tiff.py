"""TIFF files: which of them Pillow reads as they are, and the others by tifffile."""

import io
import struct
from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np

from invertible_rescaling.errors import ImageError, first_line
from invertible_rescaling.images.backends import deep, pillow
from invertible_rescaling.images.metadata import Carried
from invertible_rescaling.images.pixels import Array, check_size, to_16_bits

__all__: list[str] = []  # for this package alone

# Tags of a TIFF file that say how its pixels lie, which are another file's as soon as it is written anew:
# sizes, strips, tiles, compression, the profile and packets that are carried on their own.
OF_THE_FILE = frozenset(
    {*range(254, 267), 269, *range(273, 282), 282, 283, 284, 285, *range(288, 293), 296, 297, 301}
    | {*range(317, 348), *range(512, 522), 529, 530, 531, 532, 700, 33723, 34377, 34675}
)
_ORIENTATION = 0x0112
_UNSIGNED = {1, 4}  # the fourth is unspecified, and holds unsigned numbers in practice
_ALPHA, _STRAIGHT_ALPHA = 1, 2
_MOST_PAGES = 16  # that are looked at
_MOST_CHANNELS = 16  # of which those of colour and alpha are kept, and all are unpacked
_EXIF, _GPS = 0x8769, 0x8825


def directory_of(content: bytes) -> Any:
    """The tags of the first page, as Pillow reads them whatever the kind of pixels.

    Raises:
        ImageError: the pixels are of a kind that has no place here.
    """
    header = content[: 16 if content[2:4] in (b"+\0", b"\0+") else 8]
    directory = pillow("TiffImagePlugin").ImageFileDirectory_v2(header)
    stream = io.BytesIO(content)
    stream.seek(directory.next)
    directory.load(stream)
    if 50706 in directory or directory.get(262) in (32803, 34892):
        raise ImageError("it is a raw photograph (DNG or alike), which is not read here; develop it first")
    formats = {*directory.get(339, (1,))}
    bits = directory.get(258, (1,))
    if 3 in formats or 6 in formats:
        raise ImageError("floating point pixels have no agreed range; convert the file to 8 or 16 bits")
    if not formats <= _UNSIGNED:
        raise ImageError(f"signed pixels of {max(bits)} bits; convert the file to unsigned ones")
    if len(set(bits)) > 1:
        raise ImageError(f"channels of {', '.join(map(str, bits))} bits; convert the file to 8 or 16 bits")
    if directory.get(277, 1) > _MOST_CHANNELS:
        raise ImageError(f"{directory.get(277)} channels, where {_MOST_CHANNELS} are the most")
    if max(bits) > 16:
        raise ImageError(
            f"{max(bits)}-bit integer pixels have no agreed range; convert the file to 8 or 16 bits"
        )
    return directory


def read_metadata(content: bytes, directory: Any, carried: Carried) -> None:
    """Add what the tags carry; EXIF is written anew, as a block of its own."""
    carried.orientation = _number(directory, _ORIENTATION)
    if carried.orientation not in range(1, 9):
        carried.orientation = 1
    carried.icc, packet = directory.get(34675), directory.get(700)
    carried.xmp = packet if isinstance(packet, bytes) else None
    unit = {2: 1.0, 3: 2.54}.get(_number(directory, 296, 2), 0)
    across, down = (_number(directory, tag, 0) * unit for tag in (282, 283))
    carried.dpi = (round(across, 1), round(down, 1)) if across > 0 and down > 0 else None
    if 33723 in directory or 34377 in directory:
        carried.note("IPTC data are left out")
    try:
        exif = pillow("Image").Exif()
        exif.load(content)
        for tag in list(exif):
            if tag == _ORIENTATION or tag in OF_THE_FILE:
                del exif[tag]
        carried.exif = exif.tobytes() if len(exif) else None
    except MemoryError:
        raise
    except Exception as error:  # the pixels do not depend on it
        carried.note(f"EXIF could not be read and is left out ({first_line(error)})")


def upright(content: bytes, carried: Carried) -> bytes:
    """The file without its orientation, by which Pillow would turn the pixels, and write EXIF anew."""
    if content[2:4] in (b"+\0", b"\0+"):  # BigTIFF, which has another directory
        carried.orientation = 1
        return content
    order = "<" if content.startswith(b"II") else ">"
    (start,) = struct.unpack_from(order + "I", content, 4)
    (count,) = struct.unpack_from(order + "H", content, start)
    for at in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind = struct.unpack_from(order + "HH", content, at)
        if tag == _ORIENTATION:
            value = struct.pack(order + ("H" if kind == 3 else "I"), 1)
            return content[: at + 8] + value + content[at + 8 + len(value) :]
    return content


def _number(directory: Any, tag: int, default: float = 1) -> Any:
    try:
        found = float(directory.get(tag, default))
    except (TypeError, ValueError, ZeroDivisionError):
        return default
    return found if np.isfinite(found) else default


def exif_tags(exif: bytes) -> dict[int, Any]:
    """The tags of EXIF as they stand in a TIFF file's own directory.

    Raises:
        Exception: what Pillow raises where they cannot be read.
    """
    found = pillow("Image").Exif()
    found.load(exif)
    tags = {}
    for tag in found:
        value = found.get_ifd(tag) if tag in (_EXIF, _GPS) else found[tag]
        if value and tag not in OF_THE_FILE:
            tags[tag] = dict(value) if tag in (_EXIF, _GPS) else value
    return tags


def beside_colour(directory: Any, carried: Carried) -> tuple[int | None, int]:
    """What kind of alpha follows the colours (ExtraSamples' number), and how many other channels do.

    These are noted: infrared, depth and masks have no place in a picture.
    """
    colours = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3, 8: 3}.get(directory.get(262, 1), 1)
    channels = directory.get(277, 1)
    extra = directory.get(338, ())
    extra = extra if isinstance(extra, tuple) else (extra,)
    if not extra and channels == colours + 1 and colours == 3:
        return _STRAIGHT_ALPHA, 0  # as programs write RGBA that do not know of ExtraSamples
    alpha = extra[0] if extra and extra[0] in (_ALPHA, _STRAIGHT_ALPHA) else None
    others = channels - colours - (alpha is not None)
    if others > 0:
        many = (
            f"{others} channels beside the colours are" if others > 1 else "a channel beside the colours is"
        )
        carried.note(f"{many} left out")
    return alpha, max(0, others)


def is_plain(directory: Any, others: int) -> bool:
    """Return whether Pillow reads it as it is: up to 8 bits, and nothing beside the colours but alpha."""
    bits = max(directory.get(258, (1,)))
    return bits in (1, 2, 4, 8) and not others and {*directory.get(339, (1,))} == {1}


def read_deep(
    content: bytes,
    directory: Any,
    alpha: int | None,
    max_pixels: int,
    carried: Carried,
    first_page: bool = False,
) -> Array:
    """Pixels (H, W, 1 to 4), uint8 where the file has 8 bits, else uint16 over its whole range.

    Raises:
        ImageError: as :func:`check_pages`, or pixels of another kind than grey and RGB.
        Exception: what tifffile raises on corrupt data.
    """
    photometric, bits = directory.get(262), max(directory.get(258, (1,)))
    if photometric not in (0, 1, 2):
        raise ImageError(f"{bits}-bit pixels of the photometric kind {photometric}; convert the file to RGB")
    with deep("tifffile").TiffFile(io.BytesIO(content)) as file:
        # The directories of a damaged file may go round in a circle.
        pages = list(islice(file.pages, _MOST_PAGES))
        check_pages([bool(int(page.subfiletype) & 1) for page in pages], first_page, carried)
        page = pages[0]
        check_size(page.imagewidth, page.imagelength, max_pixels)
        array = page.asarray()
        if page.axes == "SYX":
            array = np.moveaxis(array, 0, 2)
        elif page.axes not in ("YX", "YXS"):
            raise ImageError(f"a TIFF file of the axes {page.axes}, not of height, width and channels")
    colours = 3 if photometric == 2 else 1
    array = np.atleast_3d(array)
    if array.shape[2] < colours + bool(alpha):
        raise ImageError(f"{array.shape[2]} channels are too few for its kind of pixels")
    array = array[..., : colours + bool(alpha)]
    array = array.astype(np.uint8) if bits == 8 else to_16_bits(array, 2**bits - 1)
    if bits not in (8, 16):
        carried.note(f"{bits} bits became 16")
    top = 255 if bits == 8 else 65535
    if photometric == 0:  # white is zero
        array[..., :colours] = top - array[..., :colours]
    if alpha == _ALPHA:
        for row in array:  # one by one: in floating point all would take much memory
            share = np.maximum(row[:, colours:], 1) / top
            row[:, :colours] = np.clip(np.rint(row[:, :colours] / share), 0, top)
    return array


def check_pages(reduced: Sequence[bool], first_page: bool, carried: Carried) -> None:
    """Refuse what has no first page to read; note thumbnails.

    Args:
        reduced: of each page, whether it is another one made small.
        first_page: of several pages the first is wanted.
        carried: takes the note.

    Raises:
        ImageError: there are several pages, or the first is a thumbnail of another.
    """
    pages = reduced.count(False)
    if pages > 1 and not first_page:
        raise ImageError(f"the file holds {pages} pages; take single pictures out of it first")
    if pages and reduced[0]:
        raise ImageError("the first page of the file is a thumbnail; take the picture out of it first")
    if pages and pages < len(reduced):
        carried.note("thumbnails in the file are left out")
