"""What a file carries beside its pixels, as it is found and as a picture takes it."""

import re
import zlib
from dataclasses import dataclass, field
from typing import Any

from invertible_rescaling.images.exif import upright
from invertible_rescaling.images.xmp import parts_of

__all__: list[str] = []  # for this package alone

MAX_METADATA = 2**26  # bytes of each part; the longest that is known of is a profile of some MB
_XMP_ORIENTATION = re.compile(rb"""(tiff:Orientation(?:\s*=\s*["']|>\s*))[2-8]""")
_CHANNELS = {b"GRAY": 1, b"RGB ": 3}


@dataclass
class Carried:
    """What was found in a file; the attributes are those of a picture.

    Attributes:
        orientation: 1 to 8, where it is known otherwise than from EXIF.
        notes: on what is not kept.
        room: bytes that may still be unpacked.
    """

    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    text: dict[str, str] = field(default_factory=dict)
    dpi: tuple[float, float] | None = None
    colour_chunks: dict[str, bytes] = field(default_factory=dict)
    orientation: int | None = None
    notes: list[str] = field(default_factory=list)
    room: int = field(default_factory=lambda: 4 * MAX_METADATA)

    def inflate(self, content: bytes) -> bytes:
        """Unpack what zlib packed, if it is not too much, in this part or in all parts together.

        Raises:
            ValueError: it is damaged, or too much.
        """
        stream, most = zlib.decompressobj(), min(MAX_METADATA, self.room)
        try:
            found = stream.decompress(content, most + 1)
        except zlib.error as error:
            raise ValueError("it is damaged") from error
        if len(found) > most:
            raise ValueError(
                f"it has over {most:,} bytes" if most == MAX_METADATA else "others have its room"
            )
        if not stream.eof:
            raise ValueError("it is damaged")
        self.room -= len(found)
        return found

    def note(self, text: str) -> None:
        """Note it once."""
        if text not in self.notes:
            self.notes.append(text)

    def stand_upright(self) -> int:
        """Take the orientation out of EXIF and XMP, and text out of XMP; return it, for the pixels.

        Whatever is wrong with metadata is noted, and decides nothing.
        """
        found = 1
        if self.exif is not None:
            try:
                self.exif, found = upright(self.exif)
            except ValueError as error:
                self.exif = None
                self.note(f"EXIF could not be read and is left out ({error})")
        if self.xmp is not None:
            self.xmp, text = parts_of(self.xmp)
            self.text = text | self.text
        if self.xmp is not None:
            self.xmp = _XMP_ORIENTATION.sub(rb"\g<1>1", self.xmp)
        return found if self.orientation is None else self.orientation

    def for_channels(self, channels: int) -> dict[str, Any]:
        """Return what goes into a picture of 1 or 3 channels of colour, which not every profile fits."""
        space = (self.icc or b"")[16:20]
        if self.icc and _CHANNELS.get(space, channels) != channels and channels == 3:
            self.note("a profile of greyscale does not fit colours and is left out")
            self.icc = None
        elif space == b"CMYK":
            self.note("a profile of CMYK does not fit and is left out")
            self.icc = None
        for name in ("icc", "exif", "xmp"):
            if len(getattr(self, name) or b"") > MAX_METADATA:
                self.note(f"{name.upper()} of over {MAX_METADATA:,} bytes is left out")
                setattr(self, name, None)
        names = ("icc", "exif", "xmp", "text", "dpi", "colour_chunks")
        return {name: getattr(self, name) for name in names}
