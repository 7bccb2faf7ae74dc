"""The formats of image files: told by their first bytes, and named where they are not read."""

from invertible_rescaling.errors import ImageError

__all__ = ["PICTURE_SUFFIXES"]

_READ = {
    "PNG": (".apng", ".png"),
    "JPEG": (".jfif", ".jpe", ".jpeg", ".jpg"),
    "WebP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
    "PNM": (".pbm", ".pgm", ".pnm", ".ppm"),
    "AVIF": (".avif",),
    "HEIC": (".heic", ".heif", ".hif"),
    "JPEG 2000": (".j2k", ".jp2"),
    "ICO": (".ico",),
}
PICTURE_SUFFIXES = frozenset(suffix for suffixes in _READ.values() for suffix in suffixes)
"""In folders, the files that are taken for pictures: by every program and command."""

UNREAD_SUFFIXES = frozenset(
    {".jxl", ".psd", ".psb", ".xcf", ".kra", ".eps", ".ps", ".svg", ".exr", ".hdr", ".tga", ".dds", ".qoi"}
    | {".fits", ".icns", ".jpf", ".jpx", ".jls", ".mng", ".pam", ".pfm", ".pcx", ".sgi", ".cur"}
    | {".dng", ".cr2", ".cr3", ".nef", ".nrw", ".arw", ".sr2", ".raf", ".orf", ".rw2", ".pef", ".srw", ".x3f"}
    | {".raw", ".3fr", ".iiq", ".erf"}
)
"""In folders, the files that are pictures as well, and are not read: they are named, not passed over."""

_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff\xf7", "JPEG-LS"),
    (b"\xff\xd8", "JPEG"),
    (b"II*\0\x10\0\0\0CR", "a raw photograph (CR2)"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"GIF8", "GIF"),
    (b"BM", "BMP"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\0\0\1\0", "ICO"),
    (b"\0\0\2\0", "CUR"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"8BPS", "Photoshop (PSD)"),
    (b"gimp xcf", "GIMP (XCF)"),
    (b"%!PS", "PostScript"),
    (b"\xc5\xd0\xd3\xc6", "PostScript"),
    (b"%PDF", "PDF"),
    (b"v/1\1", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"SIMPLE  =", "FITS"),
    (b"DDS ", "DDS"),
    (b"qoif", "QOI"),
    (b"icns", "ICNS"),
    (b"\x8aMNG", "MNG"),
    (b"FUJIFILMCCD-RAW", "a raw photograph (RAF)"),
    (b"IIU\0", "a raw photograph (RW2)"),
    (b"IIRO", "a raw photograph (ORF)"),
    (b"MMOR", "a raw photograph (ORF)"),
    (b"FOVb", "a raw photograph (X3F)"),
)
_PNM = frozenset(b"123456")
_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx")


def format_in(content: bytes) -> str:
    """Name the format of a file's content, one of those that are read.

    Raises:
        ImageError: another, which it names where it is known.
    """
    found = _named(content)
    if found in _READ:
        return found
    if found:
        raise ImageError(f"it is {found}, which is not read here; convert it to PNG or TIFF first")
    raise ImageError("it is corrupt, or no image in a format that is known here")


def _named(content: bytes) -> str:
    for signature, name in _SIGNATURES:
        if content.startswith(signature):
            return name
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "WebP"
    if content[:1] == b"P" and content[1:2] in (b"F", b"f", b"7") and content[2:3] in b"\n\r ":
        return "PAM" if content[1:2] == b"7" else "PFM, of floating point"
    if content[:1] == b"P" and content[1:2] and content[1] in _PNM:
        return "PNM"
    if content[4:8] == b"ftyp":
        return _of_brands(content)
    return "SVG" if b"<svg" in content[:1024] else ""


def _of_brands(content: bytes) -> str:
    """Of the files that are made of boxes, as films are."""
    length = min(int.from_bytes(content[:4], "big"), 256)
    brands = [content[8:12], *(content[at : at + 4] for at in range(16, length, 4))]
    for names, found in (
        ((b"avif", b"avis"), "AVIF"),
        (_HEIC, "HEIC"),
        ((b"crx ",), "a raw photograph (CR3)"),
        ((b"mif1", b"msf1"), "HEIC"),
    ):
        if any(brand in names for brand in brands):
            return found
    return "a film"
