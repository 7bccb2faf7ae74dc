"""XMP packets: those of others as they are, with a place of their own for text where a format has none."""

import html
import re

__all__: list[str] = []  # for this package alone

_NAMESPACE = "https://invertible-rescaling.invalid/ns/"
_ELEMENT = "ir:record"
_OPEN = (
    '<rdf:Description rdf:about="" xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" '
    f'xmlns:ir="{_NAMESPACE}">'
)
_CLOSE = "</rdf:Description>"
_EMPTY = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"></rdf:RDF></x:xmpmeta>'
    '<?xpacket end="r"?>'
)
_END = re.compile(r"</(?:[A-Za-z_][\w.-]*:)?RDF\s*>")


def packet_of(xmp: bytes | None, text: dict[str, str]) -> bytes | None:
    """A packet that holds text by keyword beside what ``xmp`` holds; ``None`` if there is neither.

    Raises:
        ValueError: ``xmp`` has no place for text: it is no RDF in UTF-8.
    """
    if not text:
        return xmp
    packet = _EMPTY if xmp is None else xmp.decode()
    *_, end = [None, *_END.finditer(packet)]
    if end is None:
        raise ValueError("it holds no RDF")
    records = "".join(
        f'<{_ELEMENT} key="{html.escape(key)}">{html.escape(value)}</{_ELEMENT}>'
        for key, value in text.items()
    )
    return (packet[: end.start()] + _OPEN + records + _CLOSE + packet[end.start() :]).encode()


def parts_of(packet: bytes) -> tuple[bytes | None, dict[str, str]]:
    """Take a packet of :func:`packet_of` apart; those of others come back as they are."""
    start = packet.find(_OPEN.encode())
    end = packet.find(_CLOSE.encode(), start)
    if start < 0 or end < 0:
        return packet, {}
    ours = packet[start:end].decode("utf-8", "replace")
    found = re.findall(rf'<{_ELEMENT} key="([^"]*)">([^<]*)</{_ELEMENT}>', ours)
    others = packet[:start] + packet[end + len(_CLOSE) :]
    text = {html.unescape(key): html.unescape(value) for key, value in found}
    return (None if others == _EMPTY.encode() else others), text
