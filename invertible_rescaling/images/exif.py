"""EXIF as the block of bytes that cameras write: kept as it is, but for the orientation and the thumbnail.

Writing it anew would move what maker notes point to, and lose what is not understood.
"""

import struct

__all__: list[str] = []  # for this package alone

_ORIENTATION, _GPS = 0x0112, 0x8825
_THUMBNAIL, _ITS_LENGTH = 0x0201, 0x0202
_HEADERS = {b"II*\0": "<", b"MM\0*": ">"}
_PREFIX = b"Exif\0\0"


def upright(block: bytes) -> tuple[bytes | None, int]:
    """Take the orientation and the thumbnail out of EXIF.

    Returns:
        The rest, ``None`` if nothing is left, and the orientation, 1 to 8; what is none counts as 1.

    Raises:
        ValueError: it is no EXIF, or its first directory is cut off.
    """
    block = block.removeprefix(_PREFIX)
    order, start, entries, following = _directory(block)
    orientation, kept = 1, []
    for entry in entries:
        tag, kind = struct.unpack_from(order + "HH", entry)
        if tag != _ORIENTATION:
            kept.append(entry)
        elif kind in (3, 4):
            (found,) = struct.unpack_from(order + ("H" if kind == 3 else "I"), entry, 8)
            orientation = found if found in range(1, 9) else 1
    end = start + 2 + 12 * len(entries) + 4
    directory = struct.pack(order + "H", len(kept)) + b"".join(kept) + bytes(4)
    rest = block[:start] + directory.ljust(end - start, b"\0") + block[end:]
    if following:
        rest = _less_thumbnail(rest, order, following)
    return (rest if kept else None), orientation


def holds_place(block: bytes | None) -> bool:
    """Return whether EXIF says where a picture was taken."""
    try:
        order, _, entries, _ = _directory(block or b"")
    except ValueError:
        return False
    return any(struct.unpack_from(order + "H", entry)[0] == _GPS for entry in entries)


def _directory(block: bytes, at: int | None = None) -> tuple[str, int, list[bytes], int]:
    """Byte order, place, entries and the place of the directory that follows."""
    order = _HEADERS.get(block[:4])
    if order is None:
        raise ValueError("it does not begin as EXIF does")
    start = struct.unpack_from(order + "I", block.ljust(8, b"\0"), 4)[0] if at is None else at
    if start < 8 or start + 2 > len(block):
        raise ValueError("its directory is missing")
    (count,) = struct.unpack_from(order + "H", block, start)
    end = start + 2 + 12 * count
    if end > len(block):
        raise ValueError("its directory is cut off")
    entries = [block[at : at + 12] for at in range(start + 2, end, 12)]
    following = struct.unpack(order + "I", block[end : end + 4])[0] if end + 4 <= len(block) else 0
    return order, start, entries, following


def _less_thumbnail(block: bytes, order: str, at: int) -> bytes:
    """Cut the thumbnail off where it is what the block ends with, as it mostly is."""
    try:
        _, _, entries, _ = _directory(block, at)
    except ValueError:
        return block
    values = {}
    for entry in entries:
        tag, kind = struct.unpack_from(order + "HH", entry)
        values[tag] = struct.unpack_from(order + ("H" if kind == 3 else "I"), entry, 8)[0]
    place, length = values.get(_THUMBNAIL, 0), values.get(_ITS_LENGTH, 0)
    return block[:place] if place > 8 and length and place + length + 1 >= len(block) else block
