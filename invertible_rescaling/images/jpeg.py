"""JPEG files by segments: what they carry, and the rest, which is all that a decoder is handed."""

import struct
from collections.abc import Iterator

from invertible_rescaling.images.metadata import Carried

__all__: list[str] = []  # for this package alone

_EXIF, _XMP, _MORE_XMP = (
    b"Exif\0\0",
    b"http://ns.adobe.com/xap/1.0/\0",
    b"http://ns.adobe.com/xmp/extension/\0",
)
_ICC, _PHOTOSHOP, _PAGES = b"ICC_PROFILE\0", b"Photoshop 3.0\0", b"MPF\0"
_IPTC = b"8BIM\x04\x04"

# ITU-T T.81, tables K.1 and K.2, row by row.
LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMA = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)


def split(content: bytes) -> tuple[bytes, Carried]:
    """A file's content without its metadata, and the metadata."""
    carried, kept, profile = Carried(), [content[:2]], dict[int, bytes]()
    at, pieces = 2, 0
    for marker, start, end in _segments(content):
        body = content[start + 4 : end]
        if marker in (0xE0, 0xEE) or marker not in (*range(0xE0, 0xF0), 0xFE):
            kept.append(content[start:end])  # tables, and what says how numbers are colours
        if marker == 0xE0 and body.startswith(b"JFIF\0") and len(body) >= 12:
            carried.dpi = _density(body)
        elif marker == 0xE1 and body.startswith(_EXIF):
            carried.exif = carried.exif or body.removeprefix(_EXIF)
        elif marker == 0xE1 and body.startswith(_XMP):
            carried.xmp = body.removeprefix(_XMP)
        elif marker == 0xE1 and body.startswith(_MORE_XMP):
            carried.note("extended XMP is left out")
        elif marker == 0xE2 and body.startswith(_ICC) and len(body) > 14:
            pieces = max(pieces, body[13])
            profile[body[12]] = body[14:]
        elif marker == 0xE2 and body.startswith(_PAGES):
            carried.note("further pictures in the file (MPO) are left out")
        elif marker == 0xED and body.startswith(_PHOTOSHOP) and _IPTC in body:
            carried.note("IPTC data are left out")
        elif marker == 0xEB:
            carried.note("JUMBF data (content credentials) are left out")
        elif marker == 0xFE:
            carried.text["Comment"] = _text(body.rstrip(b"\0"))
        at = end
    if pieces and sorted(profile) == list(range(1, pieces + 1)):
        carried.icc = b"".join(profile[number] for number in sorted(profile))
    elif pieces:
        carried.note("parts of its ICC profile are missing, and it is left out")
    return b"".join(kept) + content[at:], carried


def quality_of(content: bytes) -> int | None:
    """The quality that a file's table of luma is nearest to, as libjpeg counts it, 1 to 100."""
    for marker, start, end in _segments(content):
        body = content[start + 4 : end]
        while marker == 0xDB and body:  # tables of 8 or 16 bits, each with a byte before it
            size = 128 if body[0] >> 4 else 64
            steps = struct.unpack_from(">64H" if size == 128 else ">64B", body.ljust(1 + size, b"\0"), 1)
            if body[0] & 15 == 0:
                return min(range(1, 101), key=lambda quality: abs(_total(quality) - sum(steps)))
            body = body[1 + size :]
    return None


def _total(quality: int) -> int:
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    return sum(min(255, max(1, (step * percent + 50) // 100)) for row in LUMA for step in row)


def _segments(content: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, beginning and end of each part before the pixels."""
    at = 2
    while at + 4 <= len(content) and content[at] == 0xFF:
        marker = content[at + 1]
        if marker == 0xFF:  # filling
            at += 1
            continue
        if marker in (0xD9, 0xDA):  # the end, or pixels
            return
        if marker == 0x01 or marker in range(0xD0, 0xD8):  # which stand alone
            at += 2
            continue
        end = at + 2 + struct.unpack_from(">H", content, at + 2)[0]
        yield marker, at, end
        at = end


def _text(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _density(body: bytes) -> tuple[float, float] | None:
    unit, across, down = struct.unpack_from(">BHH", body, 7)
    factor = {1: 1.0, 2: 2.54}.get(unit, 0)
    return (round(across * factor, 1), round(down * factor, 1)) if factor and across and down else None
