"""PNG files by chunks: what they carry, and the rest, which is all that a decoder is handed.

Decoders have limits of their own for what a file carries (1 MB in Pillow), and libpng prints what it thinks.
"""

import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from invertible_rescaling.errors import ImageError
from invertible_rescaling.images.backends import deep
from invertible_rescaling.images.metadata import Carried

__all__: list[str] = []  # for this package alone

SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEADER_END = len(SIGNATURE) + 12 + 13  # after it, all chunks that are not pixels may stand
COLOUR_CHUNKS = ("cICP", "mDCV", "cLLI", "sRGB", "gAMA", "cHRM")
XMP_KEY = "XML:com.adobe.xmp"
_CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}
# First column and row of each of Adam7's passes, and the steps between those that follow.
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))

Chunks = Sequence[tuple[bytes, bytes]]
Array = np.ndarray[Any, np.dtype[Any]]


def chunk(kind: bytes, content: bytes) -> bytes:
    """As it stands in the file."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def chunks_of(content: bytes, carried: Carried) -> Chunks:
    """Read all chunks, from IHDR to IEND; one of metadata that is damaged is left out with a note.

    Raises:
        ImageError: the file is damaged or cut off.
    """
    found, at = list[tuple[bytes, bytes]](), len(SIGNATURE)
    while True:
        if at + 12 > len(content):
            raise ImageError("it is truncated: chunks are missing at its end")
        (length,) = struct.unpack_from(">I", content, at)
        name, end = content[at + 4 : at + 8], at + 8 + length
        if not name.isalpha() or (not found and (name != b"IHDR" or length != 13)):
            raise ImageError("it is corrupt: its chunks are no PNG file's")
        if end + 4 > len(content):
            raise ImageError(f"it is truncated: the chunk {name.decode()} is not whole")
        body = content[at + 8 : end]
        if zlib.crc32(name + body) == int.from_bytes(content[end : end + 4], "big"):
            found.append((name, body))
        elif name[:1].isupper():
            raise ImageError(f"it is corrupt: the checksum of the chunk {name.decode()} is wrong")
        else:
            carried.note(f"the chunk {name.decode()} is damaged and left out")
        if name == b"IEND":
            return found
        at = end + 4


def size_of(chunks: Chunks) -> tuple[int, int]:
    """(H, W)."""
    width, height = struct.unpack_from(">II", chunks[0][1])
    return height, width


def is_deep(chunks: Chunks) -> bool:
    """Return whether it has 16 bits a channel."""
    return chunks[0][1][8] == 16


def plain(chunks: Chunks) -> bytes:
    """A file of the pixels alone."""
    wanted = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
    return SIGNATURE + b"".join(chunk(name, body) for name, body in chunks if name in wanted)


def read_metadata(chunks: Chunks, carried: Carried) -> None:
    """Add what the chunks carry."""
    raw: dict[str, str] = {}
    for name, body in chunks:
        kind = name.decode()
        try:
            if name == b"iCCP":
                carried.icc = carried.inflate(body[body.index(b"\0") + 2 :])
            elif name == b"eXIf":
                carried.exif = body
            elif name == b"pHYs" and len(body) == 9 and body[8] == 1:
                across, down = struct.unpack_from(">II", body)
                carried.dpi = (
                    (round(across * 0.0254, 1), round(down * 0.0254, 1)) if across and down else None
                )
            elif kind in COLOUR_CHUNKS:
                carried.colour_chunks[kind] = body
            elif name in (b"tEXt", b"zTXt", b"iTXt"):
                key, value = _text(name, body, carried)
                if key == XMP_KEY:
                    carried.xmp = value.encode()
                else:
                    (raw if key.startswith("Raw profile type ") else carried.text)[key] = value
        except ValueError as error:
            carried.note(f"the chunk {kind} could not be read and is left out ({error})")
    for key in ("exif", "APP1"):
        packed = raw.get(f"Raw profile type {key}", "").split(None, 2)  # its kind, its length, hexadecimal
        if carried.exif is None and len(packed) == 3:
            try:
                carried.exif = bytes.fromhex(packed[2])
            except ValueError:
                carried.note("EXIF could not be read and is left out (it is damaged)")


def _text(name: bytes, body: bytes, carried: Carried) -> tuple[str, str]:
    keyword, marked, rest = body.partition(b"\0")
    if not marked:
        raise ValueError("it is damaged")
    key = keyword.decode("latin-1")
    if name == b"tEXt":
        return key, rest.decode("latin-1")
    if name == b"zTXt":
        return key, carried.inflate(rest[1:]).decode("latin-1")
    packed, (_, _, value) = rest[:1], rest[2:].split(b"\0", 2)
    return key, (carried.inflate(value) if packed == b"\1" else value).decode()


def text_chunk(key: str, value: str) -> bytes:
    """A text chunk, packed where it is long."""
    content = value.encode()
    packed = len(content) > 1024
    flags = b"\1\0" if packed else b"\0\0"
    body = zlib.compress(content) if packed else content
    return chunk(b"iTXt", key.encode("latin-1") + b"\0" + flags + b"\0\0" + body)


def decode_deep(chunks: Chunks) -> Array:
    """Pixels (H, W) or (H, W, 2 to 4), uint16, a transparent colour as alpha.

    Raises:
        ImageError: pixels are missing.
        Exception: what libpng raises.
    """
    width, height, _, kind, _, _, interlaced = struct.unpack(">IIBBBBB", chunks[0][1])
    names = [name for name, _ in chunks]
    # Of a transparent colour that stands after the pixels nothing is to be made, by the standard.
    before = names.index(b"IDAT") if b"IDAT" in names else 0
    colour_key = b"".join(chunk(name, value) for name, value in chunks[:before] if name == b"tRNS")
    pixels = b"".join(value for name, value in chunks if name == b"IDAT")
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


def encode_deep(array: Array) -> bytes:
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


def _decode(width: int, height: int, kind: int, colour_key: bytes, pixels: bytes) -> Array:
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    content = SIGNATURE + chunk(b"IHDR", header) + colour_key + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    found: Array = deep("imagecodecs").png_decode(content)
    return found
