"""Metadata of picture files: ICC profile, EXIF and text, XMP where a format has no text."""

import html
import re
from typing import Any

from invertible_rescaling.errors import first_line

__all__: list[str] = []  # for this package alone

# Tags of a TIFF file that say how its pixels lie, which are another file's as soon as it is written anew:
# sizes, strips, tiles, compression, the profile and packets that are carried on their own.
_OF_THE_FILE = frozenset(
    {*range(254, 267), 269, *range(273, 282), 284, 285, *range(288, 293), 297, 301, *range(317, 348)}
    | {*range(512, 522), 529, 530, 531, 532, 700, 33723, 34377, 34675}
)
_ORIENTATION = 0x0112
_ELEMENT = "ir:record"
_PACKET = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:ir="https://invertible-rescaling.invalid/ns/">{}</rdf:Description>'
    '</rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
)


def carried_by(image: Any) -> tuple[dict[str, Any], list[str]]:
    """Arguments of a picture, ``icc``, ``exif`` and ``text``, and notes on what could not be kept."""
    notes: list[str] = []
    icc = image.info.get("icc_profile") or None
    exif = None
    try:
        exif = _exif_less_orientation(image.getexif())
    except Exception as error:  # the pixels do not depend on it
        notes.append(f"EXIF could not be read and is left out ({first_line(error)})")
    text = {
        str(key): str(value)
        for key, value in (getattr(image, "text", None) or {}).items()
        if key != "XML:com.adobe.xmp" and not key.startswith("Raw profile type ")
    }
    if image.format != "PNG":
        text |= text_in_packet(image.info.get("xmp"))
    return {"icc": icc, "exif": exif, "text": text}, notes


def _exif_less_orientation(exif: Any) -> bytes | None:
    for tag in list(exif):
        if tag == _ORIENTATION or tag in _OF_THE_FILE:
            del exif[tag]
    if not len(exif):
        return None
    content: bytes = exif.tobytes()
    return content.removeprefix(b"Exif\0\0")


def packet_of(text: dict[str, str]) -> bytes | None:
    """An XMP packet that holds text by keyword; ``None`` for none."""
    if not text:
        return None
    records = "".join(
        f'<{_ELEMENT} key="{html.escape(key)}">{html.escape(value)}</{_ELEMENT}>'
        for key, value in text.items()
    )
    return _PACKET.format(records).encode()


def text_in_packet(packet: Any) -> dict[str, str]:
    """Return the text in a packet of :func:`packet_of`; nothing for other packets."""
    if isinstance(packet, bytes):
        packet = packet.decode("utf-8", "replace")
    if not isinstance(packet, str):
        return {}
    found = re.findall(rf'<{_ELEMENT} key="([^"]*)">([^<]*)</{_ELEMENT}>', packet)
    return {html.unescape(key): html.unescape(value) for key, value in found}
