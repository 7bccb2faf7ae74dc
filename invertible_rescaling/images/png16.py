"""16-bit PNG files by chunks: libpng is handed pixels alone, since it prints what it thinks of the others."""

import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from invertible_rescaling.errors import ImageError
from invertible_rescaling.images.backends import deep

__all__: list[str] = []  # for this package alone

SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEADER_END = len(SIGNATURE) + 12 + 13  # after it, all chunks that are not pixels may stand
_CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}
# First column and row of each of Adam7's passes, and the steps between those that follow.
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def is_deep(content: bytes) -> bool:
    """Return whether it is a PNG file of 16 bits a channel."""
    return content.startswith(SIGNATURE) and content[24:25] == b"\x10"


def chunk(kind: bytes, content: bytes) -> bytes:
    """As it stands in the file."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def decode_deep(content: bytes) -> "np.ndarray[Any, np.dtype[Any]]":
    """Pixels (H, W) or (H, W, 2 to 4), uint16, a transparent colour as alpha; the file's checksums are good.

    Raises:
        ImageError: pixels are missing.
        Exception: what libpng raises.
    """
    parts = list(_chunks(content))
    header = dict(parts)[b"IHDR"]
    width, height, _, kind, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    # Of a transparent colour that stands after the pixels nothing is to be made, by the standard.
    before = next(index for index, (name, _) in enumerate(parts) if name == b"IDAT")
    colour_key = b"".join(chunk(name, value) for name, value in parts[:before] if name == b"tRNS")
    pixels = b"".join(value for name, value in parts if name == b"IDAT")
    if not interlaced:
        return _decode(width, height, kind, colour_key, pixels)
    stored = zlib.decompressobj()
    channels = _CHANNELS[kind] + (1 if colour_key else 0)
    whole = np.empty((height, width, channels), dtype=np.uint16)
    for left, top, across, down in _PASSES:
        columns, rows = -(-max(0, width - left) // across), -(-max(0, height - top) // down)
        if not (columns and rows):
            continue
        wanted = rows * (1 + 2 * _CHANNELS[kind] * columns)
        lines = stored.decompress(pixels, wanted)
        pixels = stored.unconsumed_tail
        if len(lines) < wanted:
            raise ImageError("pixels are missing at its end")
        part = _decode(columns, rows, kind, colour_key, zlib.compress(lines, 1))
        whole[top::down, left::across] = part.reshape(rows, columns, channels)
    return whole[..., 0] if channels == 1 else whole


def encode_deep(array: "np.ndarray[Any, np.dtype[Any]]") -> bytes:
    """A PNG file of pixels (H, W, 2 to 4), uint16.

    Written out here, since imagecodecs guesses from the shape what is what, and refuses some small pictures.
    """
    height, width, channels = array.shape
    kind = next(kind for kind, count in _CHANNELS.items() if count == channels)
    stored = array.astype(">u2").reshape(height, -1).view(np.uint8)
    rows = np.ones((height, 1 + stored.shape[1]), dtype=np.uint8)  # filter 1: less the pixel to the left
    rows[:, 1:] = stored
    rows[:, 1 + 2 * channels :] -= stored[:, : -2 * channels]
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    pixels = zlib.compress(rows.tobytes())
    return SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(SIGNATURE)
    while at + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, at)
        yield content[at + 4 : at + 8], content[at + 8 : at + 8 + length]
        at += 12 + length


def _decode(
    width: int, height: int, kind: int, colour_key: bytes, pixels: bytes
) -> "np.ndarray[Any, np.dtype[Any]]":
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    plain = SIGNATURE + chunk(b"IHDR", header) + colour_key + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    found: np.ndarray[Any, np.dtype[Any]] = deep("imagecodecs").png_decode(plain)
    return found
