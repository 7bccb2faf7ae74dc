"""What files carry beside their pixels: it is kept, or what is left out is told, and it decides nothing."""

import io
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from PIL import Image, ImageCms

from invertible_rescaling.errors import MetadataWarning
from invertible_rescaling.images import (
    LOSSLESS,
    Picture,
    decode_picture,
    encode_picture,
    encoding,
    fit_metadata,
    metadata,
    read_image,
)
from tests.images.test_rgb import UPRIGHT
from tests.strategies import uint8_image

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
KINDS = (*LOSSLESS, "jpg")
FIELDS = ("icc", "exif", "xmp", "text", "dpi", "colour_chunks")
RIGHTS = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" dc:rights="©{}"/>'
    "</rdf:RDF></x:xmpmeta>"
)


def exif_of(*entries: tuple[int, int, bytes], order: str = "<", thumbnail: bytes = b"") -> bytes:
    """A block of entries (tag, type, value); a thumbnail follows in a directory of its own."""
    at = 8 + 2 + 12 * len(entries) + 4
    directory, values = struct.pack(order + "H", len(entries)), b""
    for tag, kind, value in entries:
        count = len(value) // {3: 2, 4: 4, 5: 8}.get(kind, 1)
        stored = value.ljust(4, b"\0") if len(value) <= 4 else struct.pack(order + "I", at + len(values))
        directory += struct.pack(order + "HHI", tag, kind, count) + stored
        values += value if len(value) > 4 else b""
    following = at + len(values) if thumbnail else 0
    block = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "I", 8)
    block += directory + struct.pack(order + "I", following) + values
    if thumbnail:
        place = following + 2 + 24 + 4
        block += struct.pack(order + "H", 2)
        block += struct.pack(order + "HHII", 0x0201, 4, 1, place)
        block += struct.pack(order + "HHII", 0x0202, 4, 1, len(thumbnail)) + bytes(4) + thumbnail
    return block


def orientation_of(value: int, order: str = "<") -> tuple[int, int, bytes]:
    return 0x0112, 3, struct.pack(order + "H", value)


MAKER = (0x010F, 2, b"a maker\0")


def same(a: torch.Tensor | None, b: torch.Tensor | None) -> bool:
    return a is b if a is None or b is None else np.array_equal(a.numpy(), b.numpy())


def tags_of(exif: bytes | None) -> dict:
    found = Image.Exif()
    if exif:
        found.load(exif)
    return dict(found) | {tag: dict(found.get_ifd(tag)) for tag in (0x8769, 0x8825)}


# What is written is read back

numbers = st.integers(0, 2**32 - 1).map(np.random.default_rng)
lengths = st.one_of(st.integers(0, 400), st.sampled_from([70_000, 1_100_000, 8_000_000]))
letters = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@st.composite
def pictures(draw: st.DrawFn) -> Picture:
    generator, channels = draw(numbers), draw(st.sampled_from([1, 3]))
    bits = draw(st.sampled_from([8, 8, 16]))
    pixels = generator.integers(0, 2**bits, (channels + draw(st.booleans()), 3, 5)).astype(f"u{bits // 8}")
    colour = torch.from_numpy(pixels[:channels])
    alpha = torch.from_numpy(pixels[channels:]) if len(pixels) > channels else None
    bulk = [generator.integers(97, 123, draw(lengths), dtype=np.uint8).tobytes() for _ in range(4)]
    text = {draw(letters): draw(letters) for _ in range(draw(st.integers(0, 2)))}
    return Picture(
        colour,
        alpha,
        icc=draw(st.sampled_from([None, PROFILE + bulk[0]])),
        exif=draw(st.sampled_from([None, exif_of(MAKER, (0x9286, 7, bulk[1] + b"12345"))])),
        xmp=draw(st.sampled_from([None, RIGHTS.format(bulk[2].decode()).encode(), b"none", b"\xff"])),
        text=draw(st.sampled_from([{}, text, text | {"workflow": bulk[3].decode()}])),
        dpi=draw(st.sampled_from([None, (300.0, 300.0), (72.0, 96.5)])),
        colour_chunks=draw(st.sampled_from([{}, {"sRGB": b"\0"}, {"cICP": bytes([9, 16, 0, 1])}])),
    )


@given(picture=pictures(), kind=st.sampled_from(KINDS))
def test_whatever_is_accepted_is_read_back(picture: Picture, kind: str) -> None:
    check_it_is_read_back(picture, kind)


def check_it_is_read_back(picture: Picture, kind: str) -> None:
    if (kind == "jpg" and picture.alpha is not None) or (kind in ("webp", "jpg") and picture.bits == 16):
        return  # refused by name
    fitting = fit_metadata(picture, kind)
    left_out = {name for name in FIELDS if getattr(fitting, name) != getattr(picture, name)}
    silent = {"colour_chunks"} if set(picture.colour_chunks) == {"sRGB"} or picture.icc else set()
    assert len(fitting.notes) >= len(left_out - silent)
    assert fit_metadata(fitting, kind) == fitting
    found = decode_picture(encode_picture(fitting, kind))
    for name in FIELDS:
        if name == "exif" and kind == "tiff":
            assert tags_of(found.exif) == tags_of(fitting.exif)
        else:
            assert getattr(found, name) == getattr(fitting, name), name
    assert found.notes == ()
    if kind in ("png", "tiff"):
        assert same(found.colour, picture.colour)
        assert same(found.alpha, picture.alpha)


@pytest.mark.parametrize("kind", ["jpg", "webp"])
def test_the_check_fails_where_a_writer_does_not_ask_what_fits(monkeypatch, kind: str) -> None:
    monkeypatch.setattr(encoding, "fit_metadata", lambda picture, _kind: picture)
    monkeypatch.setitem(globals(), "fit_metadata", lambda picture, _kind: picture)
    picture = Picture(uint8_image(3, 3, 5), exif=exif_of((0x9286, 7, bytes(70_000))), dpi=(300.0, 300.0))
    with pytest.raises((ValueError, AssertionError)):
        check_it_is_read_back(picture, kind)


def test_what_is_left_out_at_writing_is_warned_of() -> None:
    picture = Picture(uint8_image(3, 4, 4), text={"workflow": "x" * 10**5, "a": "b"}, dpi=(300.0, 300.0))
    with pytest.warns(MetadataWarning, match=r"the text workflow \(100,000 bytes\) does not fit into jpg"):
        content = encode_picture(picture, "jpg")
    assert decode_picture(content).text == {"a": "b"}
    with pytest.warns(MetadataWarning, match="300x300 dpi does not fit into webp"):
        encode_picture(picture, "webp")


def test_more_than_the_limit_is_left_out_with_a_note(monkeypatch) -> None:
    whole = encode_picture(
        Picture(uint8_image(3, 4, 4), icc=PROFILE + bytes(5000), text={"a": "b" * 5000}), "png"
    )
    monkeypatch.setattr(metadata, "MAX_METADATA", 4000)
    found = decode_picture(whole)
    assert (found.icc, found.text) == (None, {})
    assert found.notes == (
        "the chunk iCCP could not be read and is left out (it has over 4,000 bytes)",
        "the chunk iTXt could not be read and is left out (it has over 4,000 bytes)",
    )


def test_many_parts_are_unpacked_no_further_than_one_may_be(monkeypatch) -> None:
    monkeypatch.setattr(metadata, "MAX_METADATA", 4_000)
    packed = [
        (b"zTXt", f"key {number}".encode() + b"\0\0" + zlib.compress(bytes(4_000))) for number in range(9)
    ]
    tracemalloc.start()
    found = decode_picture(png_with(*packed))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert list(found.text) == ["key 0", "key 1", "key 2", "key 3"]
    assert found.notes == ("the chunk zTXt could not be read and is left out (others have its room)",)
    assert peak < 200_000


def test_exif_is_written_as_the_pixels_are() -> None:
    turned = exif_of(MAKER, orientation_of(6))
    for block in (turned, b"Exif\0\0" + turned):
        picture = Picture(uint8_image(3, 4, 8), exif=block)
        for kind in KINDS:
            found = decode_picture(encode_picture(picture, kind))
            assert (found.size, tags_of(found.exif)[0x010F]) == ((4, 8), "a maker")
    bad = Picture(uint8_image(3, 4, 8), exif=b"none")
    assert fit_metadata(bad, "png").notes == ("EXIF cannot be read and is left out",)


# Metadata decide nothing over pixels


def png_with(*chunks: tuple[bytes, bytes]) -> bytes:
    plain = encode_picture(Picture(uint8_image(3, 8, 16)), "png")
    return plain[:33] + b"".join(chunk(*each) for each in chunks) + plain[33:]


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def jpeg_with(*segments: tuple[int, bytes]) -> bytes:
    plain = encode_picture(Picture(uint8_image(3, 8, 16)), "jpg")
    added = (struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body for marker, body in segments)
    return plain[:2] + b"".join(added) + plain[2:]


def webp_with(exif: bytes) -> bytes:
    buffer = io.BytesIO()
    pixels = uint8_image(3, 8, 16).permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(buffer, "WEBP", lossless=True, exif=exif)
    return buffer.getvalue()


WITH_EXIF: dict[str, Callable[[bytes], bytes]] = {
    "png": lambda exif: png_with((b"eXIf", exif)),
    "jpg": lambda exif: jpeg_with((0xE1, b"Exif\0\0" + exif)),
    "webp": webp_with,
    "raw profile": lambda exif: png_with(
        (
            b"zTXt",
            b"Raw profile type exif\0\0" + zlib.compress(f"\nexif\n{len(exif):8}\n{exif.hex()}\n".encode()),
        )
    ),
}
ODD = {
    "ill-typed": ((0x011A, 2, b"72 dpi\0"), (0x8769, 2, b"none")),
    "past the end": ((0x8769, 4, struct.pack("<I", 9999)),),
    "zero denominators": ((0x011A, 5, bytes(8)), (0x011B, 10, bytes(8))),
    "not a number": ((0xFFF0, 12, struct.pack("<d", float("nan"))),),
}


@pytest.mark.parametrize("form", WITH_EXIF)
@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("orientation", [1, 6])
def test_odd_exif_turns_as_it_says_and_is_kept(form: str, odd: str, orientation: int, tmp_path) -> None:
    make = WITH_EXIF[form]
    plain = decode_picture(make(exif_of(MAKER)))
    content = make(exif_of(MAKER, orientation_of(orientation), *ODD[odd]))
    found = decode_picture(content)
    assert torch.equal(found.colour, UPRIGHT.get(orientation, lambda image: image)(plain.colour))
    assert b"a maker" in found.exif
    assert found.notes == ()
    (tmp_path / "a").write_bytes(content)
    assert torch.equal(read_image(tmp_path / "a"), found.colour)
    for kind in KINDS:  # and is no hindrance to writing
        again = decode_picture(encode_picture(fit_metadata(found, kind), kind))
        assert again.exif == fit_metadata(found, kind).exif or kind == "tiff"


@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_keeps_its_bytes_but_for_the_orientation_and_the_thumbnail(order: str) -> None:
    note = (0x927C, 7, b"offsets inside a maker note are its own" * 3)
    block = exif_of(
        MAKER, orientation_of(8, order), note, order=order, thumbnail=b"\xff\xd8 a picture \xff\xd9"
    )
    found = decode_picture(WITH_EXIF["jpg"](block))
    assert found.size == (16, 8)
    assert len(found.exif) == len(block) - 15
    at = block.index(note[2])
    assert found.exif[at : at + len(note[2])] == note[2]
    loaded = Image.Exif()
    loaded.load(found.exif)
    assert dict(loaded) == {0x010F: "a maker", 0x927C: note[2]}
    assert decode_picture(WITH_EXIF["jpg"](exif_of(orientation_of(8)))).exif is None


@pytest.mark.parametrize("bad", [b"", b"nothing", b"II*\0\xff\xff\xff\xff", b"II*\0\x08\0\0\0\xff\xff"])
@pytest.mark.parametrize("form", ["png", "jpg"])
def test_exif_that_is_none_is_left_out_with_a_note(form: str, bad: bytes) -> None:
    found = decode_picture(WITH_EXIF[form](bad))
    assert found.exif is None
    assert [note.split(" (")[0] for note in found.notes] in (["EXIF could not be read and is left out"], [])
    assert found.notes or (form == "jpg" and not bad)


def test_damaged_chunks_of_metadata_are_left_out_with_a_note() -> None:
    damaged = bytearray(png_with((b"tEXt", b"a\0b")))
    damaged[33 + 8] ^= 1
    cases = {
        bytes(damaged): "the chunk tEXt is damaged and left out",
        png_with((b"iCCP", b"a\0\0none")): "the chunk iCCP could not be read and is left out (it is damaged)",
        png_with((b"iCCP", b"a")): "the chunk iCCP could not be read and is left out",
        png_with((b"zTXt", b"a\0\0" + zlib.compress(b"long" * 99)[:-9])): "the chunk zTXt could not be read",
        png_with((b"iTXt", b"a\0\0")): "the chunk iTXt could not be read",
        png_with((b"iTXt", b"a\0\0\0\0\0\xff")): "the chunk iTXt could not be read",
    }
    for content, note in cases.items():
        found = decode_picture(content)
        assert torch.equal(found.colour, uint8_image(3, 8, 16))
        assert [each[: len(note)] for each in found.notes] == [note]


# What is not kept is told


def test_jpeg_files_tell_what_they_carry() -> None:
    pieces = [PROFILE[:100], PROFILE[100:]]
    icc = [(0xE2, b"ICC_PROFILE\0" + bytes([index + 1, 2]) + piece) for index, piece in enumerate(pieces)]
    rest = [
        (0xE1, b"http://ns.adobe.com/xap/1.0/\0" + RIGHTS.format(" me").encode()),
        (0xE1, b"http://ns.adobe.com/xmp/extension/\0more"),
        (0xE2, b"MPF\0more"),
        (0xEB, b"JP more"),
        (0xED, b"Photoshop 3.0\x008BIM\x04\x04\0\0\0\0\0\0"),
        (0xFE, "größe".encode()),
    ]
    found = decode_picture(jpeg_with(*reversed(icc), *rest))
    assert (found.icc, found.text, found.xmp) == (
        PROFILE,
        {"Comment": "größe"},
        RIGHTS.format(" me").encode(),
    )
    assert found.notes == (
        "extended XMP is left out",
        "further pictures in the file (MPO) are left out",
        "JUMBF data (content credentials) are left out",
        "IPTC data are left out",
    )
    half = decode_picture(jpeg_with(icc[1], (0xFE, "größe".encode("latin-1"))))
    assert (half.icc, half.text) == (None, {"Comment": "größe"})
    assert half.notes == ("parts of its ICC profile are missing, and it is left out",)


def test_rights_and_the_record_go_together_through_every_format() -> None:
    rights = RIGHTS.format(" me").replace("<rdf:Desc", '<rdf:Description tiff:Orientation="6"/><rdf:Desc')
    picture = Picture(
        uint8_image(3, 4, 4), xmp=rights.encode(), text={"invertible_rescaling": '{"a": "<b>"}'}
    )
    for kind in KINDS:
        found = decode_picture(encode_picture(picture, kind))
        assert found.text == picture.text
        assert found.xmp == rights.replace('"6"', '"1"').encode()
    bare = decode_picture(encode_picture(picture.bare(), "png"))
    assert (bare.text, bare.xmp, bare.exif) == ({}, None, None)


def test_a_profile_that_does_not_fit_its_pixels_is_left_out_with_a_note() -> None:
    grey = PROFILE[:16] + b"GRAY" + PROFILE[20:]
    buffer = io.BytesIO()
    Image.fromarray(uint8_image(3, 4, 4).permute(1, 2, 0).numpy()).save(buffer, "TIFF", icc_profile=grey)
    found = decode_picture(buffer.getvalue())
    assert (found.icc, found.notes) == (
        None,
        ("a profile of greyscale does not fit colours and is left out",),
    )
    picture = Picture(uint8_image(1, 4, 4), icc=grey)
    assert fit_metadata(picture, "png").icc == grey
    assert "as RGB, and is left out" in fit_metadata(picture, "webp").notes[0]


def test_how_colours_are_to_be_shown_is_kept_or_told() -> None:
    chunks = {"cICP": bytes([9, 16, 0, 1]), "gAMA": struct.pack(">I", 100000)}
    picture = Picture(uint8_image(3, 4, 4), colour_chunks=chunks)
    found = decode_picture(encode_picture(picture, "png"))
    assert (found.colour_chunks, found.notes) == (chunks, ())
    for kind in ("tiff", "webp", "jpg"):
        assert fit_metadata(picture, kind).notes == (
            f"cICP, gAMA (how its colours are to be shown) does not fit into {kind} and is left out",
        )
    plain = replace(picture, colour_chunks={"sRGB": b"\0", "gAMA": struct.pack(">I", 45455)})
    assert fit_metadata(plain, "tiff").notes == ()


def test_resolution_is_kept() -> None:
    for dpi in ((300.0, 300.0), (72.0, 96.0), (2540.0, 1.0), (25.4, 72.1)):
        for kind in ("png", "tiff", "jpg"):
            fitting = fit_metadata(Picture(uint8_image(3, 4, 4), dpi=dpi), kind)
            assert decode_picture(encode_picture(fitting, kind)).dpi == fitting.dpi
            if kind == "jpg" and dpi == (25.4, 72.1):
                assert (fitting.dpi, fitting.notes) == ((25.0, 72.0), ("25.4x72.1 dpi became 25x72 in jpg",))
            else:
                assert (fitting.dpi, fitting.notes) == (dpi, ())
    centimetres = jpeg_with((0xE0, b"JFIF\0\1\1\2" + struct.pack(">HH", 100, 200) + b"\0\0"))
    assert decode_picture(centimetres[:20] + centimetres[38:]).dpi == (254.0, 508.0)
