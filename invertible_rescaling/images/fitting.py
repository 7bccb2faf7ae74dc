"""What of a picture's metadata a format can hold."""

import io
from collections.abc import Callable
from dataclasses import replace

from invertible_rescaling.images.backends import pillow
from invertible_rescaling.images.exif import upright
from invertible_rescaling.images.metadata import MAX_METADATA
from invertible_rescaling.images.picture import Picture
from invertible_rescaling.images.tiff import exif_tags
from invertible_rescaling.images.xmp import packet_of

__all__ = ["fit_metadata"]

_SEGMENT = 65533  # bytes that a segment of a JPEG file holds
_JPEG_EXIF = _SEGMENT - len(b"Exif\0\0")
_JPEG_XMP = _SEGMENT - len(b"http://ns.adobe.com/xap/1.0/\0")
_JPEG_ICC = 255 * (_SEGMENT - 14)
_SRGB = {"sRGB", "gAMA", "cHRM"}


def fit_metadata(picture: Picture, kind: str) -> Picture:
    """Leave out what a format cannot hold beside the pixels, so that all that is written can be read back.

    Args:
        picture: of any kind.
        kind: the format, as in :func:`encode_picture`, which does this itself.

    Returns:
        The picture with what fits, and a note on everything else.

    Example:
        >>> import torch
        >>> from invertible_rescaling.images import Picture, fit_metadata
        >>> long = Picture(torch.zeros(3, 4, 5, dtype=torch.uint8), text={"workflow": "node " * 20000})
        >>> fit_metadata(long, "png").notes, fit_metadata(long, "jpg").notes
        ((), ('the text workflow (100,000 bytes) does not fit into jpg and is left out',))
    """
    notes: list[str] = []

    def left_out(what: str, why: str = f"does not fit into {kind}") -> None:
        notes.append(f"{what} {why} and is left out")

    icc, most = picture.icc, _JPEG_ICC if kind == "jpg" else MAX_METADATA
    if icc and len(icc) > most:
        left_out(f"the ICC profile ({len(icc):,} bytes)")
        icc = None
    if icc and kind == "webp" and picture.colour.shape[0] == 1 and icc[16:20] == b"GRAY":
        left_out("the profile of greyscale", "does not go with webp, which stores it as RGB,")
        icc = None
    exif = _fitting_exif(picture.exif, kind, left_out)
    dpi = picture.dpi
    if dpi is not None and (kind == "webp" or not 0.5 < min(dpi) <= max(dpi) < 65535):
        left_out("{:g}x{:g} dpi".format(*dpi))
        dpi = None
    if dpi is not None:
        dpi = (round(dpi[0], 1), round(dpi[1], 1))
    if dpi is not None and kind == "jpg" and dpi != (whole := (float(round(dpi[0])), float(round(dpi[1])))):
        notes.append("{:g}x{:g} dpi became {:g}x{:g} in jpg".format(*dpi, *whole))
        dpi = whole
    chunks = picture.colour_chunks
    if chunks and kind != "png":
        if (
            not ("sRGB" in chunks and chunks.keys() <= _SRGB) and icc is None
        ):  # which is what all take for granted
            left_out(", ".join(chunks), f"(how its colours are to be shown) does not fit into {kind}")
        chunks = {}
    xmp, text = _fitting_text(picture, kind, left_out)
    return replace(
        picture,
        icc=icc,
        exif=exif,
        xmp=xmp,
        text=text,
        dpi=dpi,
        colour_chunks=chunks,
        notes=(*picture.notes, *notes),
    )


def _fitting_exif(exif: bytes | None, kind: str, left_out: Callable[..., None]) -> bytes | None:
    if exif is None:
        return None
    try:
        exif, _ = upright(exif)  # as the pixels are
    except ValueError:
        left_out("EXIF", "cannot be read")
        return None
    if exif is None:
        return None
    if len(exif) > (_JPEG_EXIF if kind == "jpg" else MAX_METADATA):
        left_out(f"EXIF ({len(exif):,} bytes)")
        return None
    if kind == "tiff":  # where its tags are the file's own
        try:
            _write_tags(exif)
        except MemoryError:
            raise
        except Exception:  # Pillow raises nearly anything on ill-typed tags
            left_out("EXIF", "has values that tiff cannot hold")
            return None
    return exif


def _write_tags(exif: bytes) -> None:
    """Raise what Pillow raises where it cannot write the tags of EXIF."""
    directory = pillow("TiffImagePlugin").ImageFileDirectory_v2(prefix=b"II")
    for tag, value in exif_tags(exif).items():
        directory[tag] = value
    directory.save(io.BytesIO())


def _fitting_text(
    picture: Picture, kind: str, left_out: Callable[..., None]
) -> tuple[bytes | None, dict[str, str]]:
    """XMP and text; of text too much for a packet what comes first stays."""
    xmp, text = picture.xmp, dict[str, str]()
    most = _JPEG_XMP if kind == "jpg" else MAX_METADATA
    if xmp is not None and not _is_utf8(xmp):
        left_out("XMP", "is no UTF-8")
        xmp = None
    if xmp is not None and kind != "png" and picture.text and not _holds(xmp, {"": ""}, 2 * MAX_METADATA):
        left_out("XMP", "is no RDF")
        xmp = None
    if xmp is not None and len(xmp) > most - 2048:  # of which text is to have some
        left_out(f"XMP ({len(xmp):,} bytes)")
        xmp = None
    total = 0
    for key, value in picture.text.items():
        if not _is_keyword(key) and kind == "png":
            left_out(f"the text {key[:20]!r}", "has no keyword as png has them")
        elif not _is_text(key + value):
            left_out(f"the text {key[:20]!r}", "is no text in Unicode")
        elif total + len(value.encode()) > MAX_METADATA or (
            kind != "png" and not _holds(xmp, text | {key: value}, most)
        ):
            left_out(f"the text {key} ({len(value.encode()):,} bytes)")
        else:
            text[key] = value
            total += len(value.encode())
    return xmp, text


def _holds(xmp: bytes | None, text: dict[str, str], most: int) -> bool:
    try:
        return len(packet_of(xmp, text) or b"") <= most
    except ValueError:
        return False


def _is_keyword(key: str) -> bool:
    """By the standard of PNG: 1 to 79 printing letters of Latin-1, single spaces inside."""
    latin = all(letter in range(32, 127) or letter in range(161, 256) for letter in map(ord, key))
    return latin and 1 <= len(key) <= 79 and key == " ".join(key.split(" ")).strip() and "  " not in key


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
