"""Whole pictures in and out: every kind of pixel, and what files carry beside them."""

import io
import struct
import sys
import warnings
import zlib

import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, strategies as st
from PIL import Image, ImageCms

from invertible_rescaling.errors import DtypeError, ImageError, MissingDependencyError, ShapeError
from invertible_rescaling.images import (
    LOSSLESS,
    Picture,
    decode_picture,
    encode_picture,
    read_picture,
    write_picture,
)
from tests.images.test_rgb import UPRIGHT
from tests.shared import SHARED
from tests.shell import photograph
from tests.strategies import seeds

PNGSUITE = SHARED / "fixtures" / "pngsuite"
VALID = sorted(path.name for path in PNGSUITE.glob("[!x]*.png"))
CORRUPT = sorted(path.name for path in PNGSUITE.glob("x*.png"))


def _planes(channels: int, height: int, width: int, bits: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(2**bits, (channels, height, width), generator=generator, dtype=torch.int32)
    return values.to(torch.uint8 if bits == 8 else torch.uint16)


def _equal(a: torch.Tensor | None, b: torch.Tensor | None) -> bool:
    if a is None or b is None:
        return a is b
    return a.dtype == b.dtype and np.array_equal(a.numpy(), b.numpy())


def _encoded(array: np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format=kind, **options)
    return buffer.getvalue()


def _tiff(array: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def _exif(orientation: int | None = None) -> Image.Exif:
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    exif.get_ifd(0x8769)[0x9003] = "2020:01:02 03:04:05"
    if orientation:
        exif[0x0112] = orientation
    return exif


# What is written is read back


@given(
    kind=st.sampled_from(LOSSLESS),
    channels=st.sampled_from([1, 3]),
    alpha=st.booleans(),
    bits=st.sampled_from([8, 16]),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    seed=seeds,
)
def test_lossless_formats_keep_all(kind, channels, alpha, bits, height, width, seed) -> None:
    colour = _planes(channels, height, width, bits, seed)
    mask = _planes(1, height, width, bits, seed + 1) if alpha else None
    text = {"invertible_rescaling": '{"a": "<é&\\">"}'}
    exif = _exif().tobytes().removeprefix(b"Exif\0\0")
    picture = Picture(colour, mask, icc=PROFILE, exif=exif, text=text)
    if kind == "webp" and bits == 16:
        with pytest.raises(ImageError, match="webp has no 16 bits; use png or tiff"):
            encode_picture(picture, kind)
        return
    content = encode_picture(picture, kind)
    assert content == encode_picture(picture, kind)
    found = decode_picture(content)
    if kind == "webp":  # which has no greyscale, and leaves out alpha that is opaque everywhere
        colour = colour if channels == 3 else torch.cat([colour] * 3)
        mask = None if mask is not None and bool((mask == 255).all()) else mask
    assert _equal(found.colour, colour)
    assert _equal(found.alpha, mask)
    assert (found.icc, found.text, found.notes) == (PROFILE, text, ())
    loaded = Image.Exif()
    loaded.load(found.exif)
    assert loaded[0x010F] == "a camera"
    assert loaded.get_ifd(0x8769)[0x9003] == "2020:01:02 03:04:05"


def test_others_read_what_is_written() -> None:
    deep = Picture(_planes(3, 5, 7, 16), _planes(1, 5, 7, 16, 1), icc=PROFILE)
    wanted = torch.cat([deep.colour.to(torch.int32), deep.alpha.to(torch.int32)]).permute(1, 2, 0).numpy()
    assert np.array_equal(tifffile.imread(io.BytesIO(encode_picture(deep, "tiff"))), wanted)
    assert np.array_equal(imagecodecs.png_decode(encode_picture(deep, "png")), wanted)
    for kind in LOSSLESS:
        plain = Picture(_planes(3, 5, 7, 8), icc=PROFILE)
        with Image.open(io.BytesIO(encode_picture(plain, kind))) as image:
            assert np.array_equal(np.asarray(image), plain.colour.permute(1, 2, 0).numpy())
            assert image.info["icc_profile"] == PROFILE


def test_jpeg_keeps_what_it_can() -> None:
    picture = Picture(torch.full((1, 9, 9), 77, dtype=torch.uint8), icc=PROFILE, text={"a": "b"})
    found = decode_picture(encode_picture(picture, "jpg"))
    assert (found.kind, found.icc, found.text) == ("greyscale, 8 bits", PROFILE, {"a": "b"})
    for other, message in ((_planes(1, 2, 2, 16), "no 16 bits"), (None, "no alpha")):
        bad = Picture(other) if other is not None else Picture(picture.colour, alpha=picture.colour)
        with pytest.raises(ImageError, match=message):
            encode_picture(bad, "jpg")


def test_files_are_named_where_they_cannot_be(tmp_path) -> None:
    with pytest.raises(ImageError, match=r"cannot write '.*a.gif'; known suffixes: .png"):
        write_picture(tmp_path / "a.gif", Picture(_planes(1, 2, 2, 8)))
    with pytest.raises(ImageError, match="no format is named 'gif'"):
        encode_picture(Picture(_planes(1, 2, 2, 8)), "gif")
    with pytest.raises(ImageError, match=r"cannot read '.*nothing.png': No such file"):
        read_picture(tmp_path / "nothing.png")
    (tmp_path / "empty.png").touch()
    with pytest.raises(ImageError, match=r"empty.png' as an image: the file is empty"):
        read_picture(tmp_path / "empty.png")


def test_a_picture_is_checked() -> None:
    with pytest.raises(ShapeError, match=r"\(1 or 3, H, W\), got \(2, 3, 3\)"):
        Picture(_planes(2, 3, 3, 8))
    with pytest.raises(DtypeError, match="float32"):
        Picture(torch.zeros(1, 3, 3))
    with pytest.raises(ShapeError, match="alpha goes with its colour"):
        Picture(_planes(3, 3, 3, 8), _planes(1, 3, 3, 16))


# Every kind of file


@pytest.mark.parametrize("name", VALID)
def test_every_valid_png_is_what_pillow_reads(shared_fixtures, name: str) -> None:
    path = shared_fixtures / "pngsuite" / name
    picture = read_picture(path)
    content = path.read_bytes()
    depth, kind = content[24], content[25]
    assert picture.bits == (16 if depth == 16 else 8)
    assert picture.colour.shape[0] == (1 if kind in (0, 4) else 3)
    assert (picture.alpha is not None) == (kind in (4, 6) or b"tRNS" in content)
    steps = 257 if picture.bits == 16 else 1
    with Image.open(path) as image:
        if image.mode.startswith("I;16"):
            wanted = np.asarray(image)[..., None].repeat(3, axis=2) / 257
            opaque = np.full(wanted.shape[:2], 255)
            if "transparency" in image.info:
                opaque = np.where(np.asarray(image) == image.info["transparency"], 0, 255)
        else:
            rgba = np.asarray(image.convert("RGBA")).astype(float)
            wanted, opaque = rgba[..., :3], rgba[..., 3]
    colour = picture.colour.to(torch.float64).expand(3, -1, -1).permute(1, 2, 0).numpy() / steps
    alpha = (
        np.full(picture.size, 255.0) if picture.alpha is None else picture.alpha[0].double().numpy() / steps
    )
    assert np.abs(colour - wanted).max() <= (1 if picture.bits == 16 else 0)  # Pillow's 8 bits are cut off
    assert np.abs(alpha - opaque).max() <= (1 if picture.bits == 16 else 0)


@pytest.mark.parametrize("name", CORRUPT)
def test_every_corrupt_png_is_refused_in_a_line(shared_fixtures, name: str) -> None:
    with pytest.raises(ImageError, match=name) as refused:
        read_picture(shared_fixtures / "pngsuite" / name)
    assert "\n" not in str(refused.value)
    assert "0x" not in str(refused.value)


@pytest.mark.parametrize("interlaced", [name for name in VALID if name.startswith("basi")])
def test_interlacing_does_not_matter(shared_fixtures, interlaced: str) -> None:
    folder = shared_fixtures / "pngsuite"
    a, b = read_picture(folder / interlaced), read_picture(folder / interlaced.replace("basi", "basn"))
    assert _equal(a.colour, b.colour)
    assert _equal(a.alpha, b.alpha)


@pytest.mark.parametrize("side", [1, 2, 3, 5, 8, 9])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_deep_interlaced_png_of_any_size(side: int, channels: int) -> None:
    array = _planes(channels, side, 7, 16).permute(1, 2, 0).numpy()
    rows = b""
    for left, top, across, down in (
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    ):
        for row in array[top::down, left::across]:
            rows += b"\0" + row.astype(">u2").tobytes() if row.size else b""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    content = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", struct.pack(">IIBBBBB", 7, side, 16, colour, 0, 0, 1))
    picture = decode_picture(content + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b""))
    planes = [picture.colour] if picture.alpha is None else [picture.colour, picture.alpha]
    assert np.array_equal(np.concatenate([plane.numpy() for plane in planes]), array.transpose(2, 0, 1))


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
def test_deep_tiff_files(planar: str, order: str, compression: str | None) -> None:
    array = photograph(9, 7, 3, deep=True)
    given_ = array if planar == "contig" else array.transpose(2, 0, 1)
    content = _tiff(given_, photometric="rgb", planarconfig=planar, byteorder=order, compression=compression)
    picture = decode_picture(content)
    assert np.array_equal(picture.colour.numpy(), array.transpose(2, 0, 1))
    assert picture.kind == "RGB, 16 bits"


def test_deep_tiff_files_of_grey_and_alpha() -> None:
    array = photograph(5, 7, 4, deep=True)
    grey = decode_picture(_tiff(array[..., 0], photometric="minisblack"))
    assert np.array_equal(grey.colour[0].numpy(), array[..., 0])
    inverted = decode_picture(_tiff(array[..., 0], photometric="miniswhite"))
    assert np.array_equal(inverted.colour[0].numpy(), 65535 - array[..., 0])
    pair = decode_picture(_tiff(array[..., :2], photometric="minisblack", extrasamples=["unassalpha"]))
    assert np.array_equal(pair.alpha[0].numpy(), array[..., 1])
    whole = decode_picture(_tiff(array, photometric="rgb", extrasamples=["assocalpha"]))
    share = np.maximum(array[..., 3:], 1) / 65535
    assert np.array_equal(
        whole.colour.permute(1, 2, 0).numpy(), np.clip(np.rint(array[..., :3] / share), 0, 65535)
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (_tiff(np.zeros((2, 5, 5), np.uint16), photometric="minisblack"), "2 pages"),
        (_tiff(np.zeros((5, 5, 3), np.int16), photometric="rgb"), "signed"),
        (_tiff(np.zeros((5, 5), np.float32), photometric="minisblack"), "floating point"),
        (_tiff(np.zeros((5, 5, 4), np.uint16), photometric="separated"), "photometric kind 5"),
        (_encoded(np.zeros((5, 5), np.int32), "TIFF"), "signed pixels of 32 bits"),
    ],
    ids=["pages", "signed", "floats", "CMYK of 16 bits", "32 bits"],
)
def test_what_has_no_place_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        decode_picture(content)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "TIFF"])
def test_animations_are_refused_by_name(tmp_path, kind: str) -> None:
    frames = [Image.fromarray(photograph(8, 8, seed=seed)) for seed in range(3)]
    frames[0].save(tmp_path / "moving", format=kind, save_all=True, append_images=frames[1:])
    with pytest.raises(ImageError, match=r"moving.*(animated \(3 frames\)|3 pages)"):
        read_picture(tmp_path / "moving")


def test_a_still_gif_and_a_palette_become_rgb_with_a_note() -> None:
    image = Image.fromarray(photograph(8, 8)).quantize(8)
    for kind in ("GIF", "PNG"):
        buffer = io.BytesIO()
        image.save(buffer, format=kind)
        picture = decode_picture(buffer.getvalue())
        assert np.array_equal(picture.colour.permute(1, 2, 0).numpy(), np.asarray(image.convert("RGB")))
        assert picture.notes == ("the palette became RGB",)


def test_cmyk_becomes_rgb_and_loses_its_profile() -> None:
    rgb = photograph(8, 8)
    buffer = io.BytesIO()
    Image.fromarray(rgb).convert("CMYK").save(buffer, format="TIFF", icc_profile=b"no profile at all")
    picture = decode_picture(buffer.getvalue())
    assert np.array_equal(picture.colour.permute(1, 2, 0).numpy(), rgb)
    assert picture.icc is None
    assert picture.notes[0] == "CMYK became RGB"
    assert "ICC profile could not be used" in picture.notes[1]


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF", "deep PNG", "deep TIFF"])
def test_the_orientation_is_applied_and_the_rest_of_exif_kept(form: str, orientation: int) -> None:
    array = np.kron(np.arange(0, 240, 40, dtype=np.uint8).reshape(2, 3), np.ones((8, 8), np.uint8))
    stored = torch.from_numpy(array)[None].repeat(3, 1, 1)
    rgb = np.ascontiguousarray(stored.permute(1, 2, 0).numpy())
    exif = _exif(orientation)
    if form == "deep PNG":
        plain = imagecodecs.png_encode(rgb.astype(np.uint16) * 257)
        body = exif.tobytes().removeprefix(b"Exif\0\0")
        content = plain[:33] + _chunk(b"eXIf", body) + plain[33:]
    elif form == "deep TIFF":
        tags = [(274, 3, 1, orientation, True), (271, 2, 0, "a camera", True)]
        content = _tiff(rgb.astype(np.uint16) * 257, photometric="rgb", extratags=tags)
    else:
        content = _encoded(rgb, form, exif=exif, **({"lossless": True} if form == "WEBP" else {}))
    picture = decode_picture(content)
    wanted = UPRIGHT[orientation](stored)
    found = picture.colour.to(torch.float64) / (257 if picture.bits == 16 else 1)
    assert found.shape == wanted.shape
    assert float((found - wanted.double()).abs().max()) <= (12 if form == "JPEG" else 0)
    kept = Image.Exif()
    kept.load(picture.exif)
    assert kept.get(0x0112) is None
    assert kept[0x010F] == "a camera"


# What could do harm


def test_a_bomb_is_refused_with_the_limit_named() -> None:
    content = _encoded(np.zeros((300, 400), np.uint8))
    with pytest.raises(ImageError, match=r"400x300 is 120,000 pixels, over the limit of 100,000"):
        decode_picture(content, max_pixels=100_000)
    assert decode_picture(content, max_pixels=120_000).size == (300, 400)
    deep = _tiff(np.zeros((30, 40, 3), np.uint16), photometric="rgb")
    with pytest.raises(ImageError, match=r"40x30 is 1,200 pixels"):
        decode_picture(deep, max_pixels=1000)


def test_the_limit_is_the_callers_and_pillows_stays(monkeypatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert decode_picture(_encoded(np.zeros((30, 40), np.uint8))).size == (30, 40)
    assert Image.MAX_IMAGE_PIXELS == 100


def test_what_a_decoder_warns_of_is_noted() -> None:
    body = b"II*\0" + struct.pack("<IH", 8, 9) + b"\xff" * 20
    plain = _encoded(np.zeros((5, 5), np.uint8))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = decode_picture(plain[:33] + _chunk(b"eXIf", body) + plain[33:])
    assert picture.size == (5, 5)
    assert all(note.startswith(("the decoder warns: ", "EXIF could not")) for note in picture.notes)
    assert picture.notes


def test_a_missing_package_is_named(monkeypatch) -> None:
    content = imagecodecs.png_encode(np.zeros((3, 3, 3), np.uint16))
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with pytest.raises(MissingDependencyError, match=r"imagecodecs: pip install '.*\[images\]'"):
        decode_picture(content)
