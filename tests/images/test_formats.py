"""Every format that people have: read at its depth, or named where it is not read; and no door left open."""

import io
import struct
import threading
import time
import tracemalloc
import warnings
from concurrent.futures import ThreadPoolExecutor

import imagecodecs
import numpy as np
import pillow_heif
import pytest
import tifffile
import torch
from hypothesis import given, strategies as st
from PIL import Image

from invertible_rescaling import small_x2
from invertible_rescaling.errors import ImageError, MissingDependencyError
from invertible_rescaling.images import (
    PICTURE_SUFFIXES,
    Picture,
    decode_picture,
    encode_picture,
    find_images,
    formats,
    high_depth,
    read_image,
)
from invertible_rescaling.training.dataset import load_images
from tests.images.test_metadata import chunk, exif_of, orientation_of, png_with
from tests.shell import photograph
from tests.strategies import seeds, uint8_image


def spread(array: np.ndarray, top: int) -> np.ndarray:
    """What a picture of 16 bits is to hold of one whose white is ``top``, in exact arithmetic."""
    return ((array.astype(object) * 65535 * 2 + top) // (2 * top)).astype(np.int64)


def pixels_of(picture: Picture) -> np.ndarray:
    return picture.to_array().astype(np.int64)


def values(shape: tuple[int, ...], bits: int, seed: int = 0) -> np.ndarray:
    array = np.random.default_rng(seed).integers(0, 2**bits, shape, dtype=np.uint16)
    array.flat[:2] = 0, 2**bits - 1
    return array


# Depth, channels and range


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("maximum", [1, 100, 255, 256, 1000, 1023, 4095, 65535])
@pytest.mark.parametrize("comment", ["", "# by a camera\n"])
def test_pnm_files_of_any_maximum(channels: int, maximum: int, comment: str) -> None:
    array = (
        np.random.default_rng(0)
        .integers(0, maximum + 1, (4, 5, channels))
        .squeeze(2 if channels == 1 else ())
    )
    array.flat[0] = maximum
    kind = "P5" if channels == 1 else "P6"
    body = array.astype(">u2" if maximum > 255 else "u1").tobytes()
    found = decode_picture(f"{kind}\n{comment}5 4\n{maximum}\n".encode() + body)
    if maximum > 255:
        assert np.array_equal(pixels_of(found), spread(array, maximum))
    else:
        assert np.abs(pixels_of(found) - array * (255 / maximum)).max() <= 1
    assert found.bits == (16 if maximum > 255 else 8)
    with pytest.raises(ImageError):
        decode_picture(f"{kind}\n{comment}5 4\n{maximum}\n".encode() + body[:-1])


def test_pnm_files_are_looked_at_before_they_are_unpacked() -> None:
    with pytest.raises(ImageError, match="over the limit"):
        decode_picture(b"P5 99999 99999 65535\n")
    with pytest.raises(ImageError):
        decode_picture(b"P5 2 2 65536\n" + bytes(8))
    with pytest.raises(ImageError):
        decode_picture(b"P5 2 2 1023\n" + b"\xff\xff" * 4)  # over its own maximum


@pytest.mark.parametrize("bits", [9, 10, 12, 14, 16])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("order", ["<", ">"])
def test_tiff_files_of_every_depth(bits: int, channels: int, order: str) -> None:
    array = values((5, 7, channels), bits).squeeze(2 if channels == 1 else ())
    found = decode_picture(tiff(array, bits=bits, order=order))
    assert np.array_equal(pixels_of(found), spread(array, 2**bits - 1))
    assert found.notes == (() if bits == 16 else (f"{bits} bits became 16",))


def tiff(
    array: np.ndarray, *, bits: int, extra: tuple[int, ...] = (), form: int = 1, order: str = "<"
) -> bytes:
    """One strip, without compression, samples packed to their bits."""
    height, width, *rest = array.shape
    channels = rest[0] if rest else 1
    rows = array.reshape(height, -1)
    if bits in (8, 16):
        body = rows.astype(f"{order}u{bits // 8}").tobytes()
    else:
        places = np.arange(bits - 1, -1, -1)
        body = np.packbits(
            (rows[..., None] >> places & 1).astype(np.uint8).reshape(height, -1), axis=1
        ).tobytes()
    entries = [(256, width), (257, height), (258, (bits,) * channels), (259, 1)]
    entries += [(262, 2 if channels - len(extra) == 3 else 1), (273, 0), (277, channels), (278, height)]
    entries += [(279, len(body))] + ([(338, extra)] if extra else []) + [(339, (form,) * channels)]
    at, after = 8 + 2 + 12 * len(entries) + 4, b""
    directory = struct.pack(order + "H", len(entries))
    length = sum(2 * len(value) for _, value in entries if isinstance(value, tuple) and len(value) > 2)
    for tag, value in entries:
        if isinstance(value, tuple):
            packed = struct.pack(order + f"{len(value)}H", *value)
            directory += struct.pack(order + "HHI", tag, 3, len(value))
            directory += (
                packed.ljust(4, b"\0") if len(packed) <= 4 else struct.pack(order + "I", at + len(after))
            )
            after += packed if len(packed) > 4 else b""
        else:
            directory += struct.pack(order + "HHII", tag, 4, 1, at + length if tag == 273 else value)
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "I", 8)
    return head + directory + bytes(4) + after + body


@given(
    bits=st.sampled_from([8, 10, 12, 16]),
    colours=st.sampled_from([1, 3]),
    extra=st.sampled_from([(), (0,), (2,), (0, 0), (2, 0)]),
    form=st.sampled_from([1, 2, 3, 4]),
    seed=seeds,
)
def test_tiff_files_are_read_whole_or_told_of_or_refused(bits, colours, extra, form, seed) -> None:
    array = values((3, 5, colours + len(extra)), bits, seed)
    content = tiff(array.squeeze(2) if array.shape[2] == 1 else array, bits=bits, extra=extra, form=form)
    if form in (2, 3):
        with pytest.raises(ImageError, match=r"signed pixels of|floating point"):
            decode_picture(content)
        return
    found = decode_picture(content)
    second = tifffile.imread(io.BytesIO(content)).reshape(array.shape)  # another decoder
    assert np.array_equal(second, array)
    kept = colours + (2 in extra)
    wanted = array[..., :kept] if bits == 8 else spread(array[..., :kept], 2**bits - 1)
    assert np.array_equal(pixels_of(found).reshape(3, 5, -1), wanted)
    assert any("beside the colours" in note for note in found.notes) == (0 in extra)
    assert any("bits became 16" in note for note in found.notes) == (bits in (10, 12))


@pytest.mark.parametrize("bits", [8, 10, 12])
@pytest.mark.parametrize("orientation", [1, 6])
def test_avif_and_heic_files_of_every_depth(monkeypatch, bits: int, orientation: int) -> None:
    y, x = np.mgrid[0:32, 0:48]
    array = np.stack([x * 5, y * 7, (x + y) * 3], axis=2).astype(np.uint16) << (bits - 8)
    exif = exif_of(orientation_of(orientation))
    avif = imagecodecs.avif_encode(
        array.astype(np.uint8) if bits == 8 else array, level=100, bitspersample=bits
    )
    deep = "RGB;16" if bits > 8 else "RGB"
    raw = (array << (16 - bits)).astype(np.uint16) if bits > 8 else array.astype(np.uint8)
    image = pillow_heif.from_bytes(deep, (48, 32), raw.tobytes())
    buffer = io.BytesIO()
    options = {"quality": -1, "chroma": 444, "matrix_coefficients": 0, "exif": exif}
    monkeypatch.setattr(pillow_heif.options, "SAVE_HDR_TO_12_BIT", bits == 12)
    image.save(buffer, **options)
    wanted = array if bits == 8 else spread(array, 2**bits - 1)
    for content, turned in ((avif, 1), (buffer.getvalue(), orientation)):
        found = decode_picture(content)
        upright = np.rot90(wanted, -1) if turned == 6 else wanted
        assert found.bits == (8 if bits == 8 else 16)
        assert np.abs(pixels_of(found) - upright).max() <= (1 if bits == 8 else 65535 // (2**bits - 1) + 1)
        assert found.exif is None
        assert found.notes == (() if bits == 8 else (f"{bits} bits became 16",))


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_2000_files_of_every_depth(bits: int, channels: int) -> None:
    array = values((9, 11, channels), bits).squeeze(2 if channels == 1 else ())
    stored = array.astype(np.uint8) if bits == 8 else array
    for codec in ("jp2", "j2k"):
        content = imagecodecs.jpeg2k_encode(
            stored, level=0, reversible=True, bitspersample=bits, codecformat=codec, mct=False
        )
        found = decode_picture(content)
        assert np.array_equal(pixels_of(found), array if bits == 8 else spread(array, 2**bits - 1))
    signed = content.replace(bytes([bits - 1, 1, 1]), bytes([0x80 | (bits - 1), 1, 1]), 1)
    with pytest.raises(ImageError, match="signed"):
        decode_picture(signed)


def test_pillow_heif_is_asked_for(monkeypatch) -> None:
    buffer = io.BytesIO()
    pillow_heif.from_bytes("RGB", (16, 16), bytes(768)).save(buffer)
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'invertible_rescaling\[heic\]'"):
        decode_picture(buffer.getvalue())


def test_other_pictures_in_a_file_are_told_of() -> None:
    rgb = Image.fromarray(photograph(32, 32))
    buffer = io.BytesIO()
    rgb.save(buffer, "ICO", sizes=[(16, 16), (32, 32)])
    found = decode_picture(buffer.getvalue())
    assert (found.size, found.notes) == ((32, 32), ("smaller pictures in the file (ICO) are left out",))
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as file:
        file.write(photograph(16, 16), photometric="rgb")
        file.write(photograph(4, 4), photometric="rgb", subfiletype=1)
    found = decode_picture(buffer.getvalue())
    assert (found.size, found.notes) == ((16, 16), ("thumbnails in the file are left out",))


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_tiff_files_turn_whatever_else_their_tags_say(bits: int, big: bool, orientation: int) -> None:
    array = photograph(4, 6, deep=bits == 16)
    buffer = io.BytesIO()
    tags = [(274, 3, 1, orientation, True), (282, 2, 0, "72 dpi", True)]
    tifffile.imwrite(buffer, array, photometric="rgb", bigtiff=big, extratags=tags, resolution=None)
    turned = {1: array, 3: array[::-1, ::-1], 6: np.rot90(array, -1)}[orientation]
    assert np.array_equal(decode_picture(buffer.getvalue()).to_array(), turned)


# The door


def test_a_file_is_opened_as_what_it_is_and_as_nothing_else(monkeypatch, tmp_path) -> None:
    def refuse(*_arguments, **_options):
        raise AssertionError("a program was started")

    monkeypatch.setattr("subprocess.check_call", refuse)
    monkeypatch.setattr("subprocess.Popen", refuse)
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\nshowpage\n")
    for call in (
        lambda: decode_picture((tmp_path / "a.png").read_bytes()),
        lambda: read_image(tmp_path / "a.png"),
    ):
        with pytest.raises(ImageError, match="it is PostScript, which is not read here"):
            call()
    monkeypatch.setattr(Image, "OPEN", {})  # no door that Pillow keeps for all formats is used
    assert decode_picture(png_with()).size == (8, 16)


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"\xff\x0a and more", "JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"8BPS\0\1", "Photoshop (PSD)"),
        (b"%PDF-1.7", "PDF"),
        (b"<?xml version='1.0'?><svg/>", "SVG"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1", "a raw photograph (CR3)"),
        (b"\0\0\0\x18ftypisom\0\0\0\1", "a film"),
        (b"II*\0\x10\0\0\0CR\2\0", "a raw photograph (CR2)"),
        (b"Pf\n1 1\n-1.0\n", "PFM, of floating point"),
        (b"\0\0\2\0\1\0", "CUR"),
        (b"just text", "corrupt, or no image in a format that is known here"),
    ],
)
def test_what_is_not_read_is_named(content: bytes, name: str) -> None:
    with pytest.raises(ImageError) as refused:
        decode_picture(content)
    assert name in str(refused.value)


def test_every_suffix_that_is_read_is_read_in_folders(tmp_path) -> None:
    for suffix in PICTURE_SUFFIXES:
        (tmp_path / f"a{suffix}").touch()
    assert len(find_images(tmp_path)) == len(PICTURE_SUFFIXES)
    assert not PICTURE_SUFFIXES & formats.UNREAD_SUFFIXES


def test_a_header_after_the_end_is_not_read() -> None:
    deep = encode_picture(
        Picture(torch.from_numpy(photograph(4, 6, deep=True)).permute(2, 0, 1).contiguous()), "png"
    )
    later = chunk(b"IHDR", struct.pack(">IIBBBBB", 30000, 30000, 16, 2, 0, 0, 0))
    found = decode_picture(deep + later, max_pixels=24)
    assert np.array_equal(found.to_array(), photograph(4, 6, deep=True))
    with pytest.raises(ImageError, match="30000x30000 is 900,000,000 pixels"):
        decode_picture(deep[:8] + later + deep[8:])


@pytest.mark.parametrize("form", ["png", "tiff", "pgm", "jp2", "avif", "heic"])
def test_what_is_too_large_is_refused_before_it_takes_memory(form: str) -> None:
    zeros = np.zeros((3000, 3000), np.uint16)
    if form == "heic":
        buffer = io.BytesIO()
        pillow_heif.from_bytes("L", (3000, 3000), bytes(9_000_000)).save(buffer)
    content = {
        "png": lambda: imagecodecs.png_encode(zeros),
        "tiff": lambda: encode_picture(Picture(torch.zeros(1, 3000, 3000, dtype=torch.uint16)), "tiff"),
        "pgm": lambda: b"P5 3000 3000 65535\n" + zeros.tobytes(),
        "jp2": lambda: imagecodecs.jpeg2k_encode(zeros, codecformat="jp2"),
        "avif": lambda: imagecodecs.avif_encode(zeros.astype(np.uint8), speed=10),
        "heic": lambda: buffer.getvalue(),
    }[form]()
    tracemalloc.start()
    try:
        with pytest.raises(ImageError, match="3000x3000 is 9,000,000 pixels"):
            decode_picture(content, max_pixels=1000)
        assert tracemalloc.get_traced_memory()[1] < 9_000_000 + 2 * len(content)
    finally:
        tracemalloc.stop()


# Nothing outside a call is changed


def switches() -> tuple:
    return (
        list(warnings.filters),
        warnings.showwarning,
        warnings._showwarnmsg_impl,
        Image.MAX_IMAGE_PIXELS,
        np.geterr(),
        torch.initial_seed(),
        torch.get_rng_state().tolist(),
        torch.get_num_threads(),
        torch.get_default_dtype(),
    )


def watched(work) -> bool:
    """Do the work in eight threads, and return whether every switch was where it is at all times."""
    before, moved, done = switches(), [], threading.Event()

    def watch() -> None:
        while not done.is_set():
            if switches() != before:
                moved.append(1)
            time.sleep(0.0005)

    guard = threading.Thread(target=watch)
    guard.start()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(64)))
    done.set()
    guard.join()
    return not moved and switches() == before


def test_threads_share_no_switch() -> None:
    model = small_x2(weights="DEFAULT").eval()
    corrupt = png_with((b"iCCP", b"a"), (b"eXIf", exif_of((0x011A, 2, b"text\0"))))
    picture = Picture(uint8_image(3, 8, 16), dpi=(72.0, 72.0))
    contents = [corrupt, *(encode_picture(picture, kind) for kind in ("png", "tiff", "jpg"))]

    def work(index: int) -> None:
        found = decode_picture(contents[index % 4])
        encode_picture(found, ("png", "tiff", "jpg")[index % 3])
        with torch.no_grad():
            model.downscale(found.colour[None].float() / 255)

    assert watched(work)

    def careless(index: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            time.sleep(0.002)

    filters, shown = list(warnings.filters), (warnings.showwarning, warnings._showwarnmsg_impl)
    try:
        assert not watched(careless)  # the check itself can fail
    finally:
        warnings.filters[:] = filters
        warnings.showwarning, warnings._showwarnmsg_impl = shown


# Want of memory is no corruption


def test_want_of_memory_is_no_corruption(monkeypatch, tmp_path) -> None:
    def full(*_arguments, **_options):
        raise MemoryError

    path = tmp_path / "a.ppm"
    path.write_bytes(b"P6 2 2 65535\n" + bytes(24))
    monkeypatch.setattr(high_depth, "to_16_bits", full)
    for call in (
        lambda: decode_picture(path.read_bytes()),
        lambda: read_image(path),
        lambda: load_images([(path, None)], read_image, scale=1, patch=1, skipped=print),
    ):
        with pytest.raises(MemoryError):
            call()


@pytest.mark.parametrize("kind", ["12 bits", "16 bits", "straight alpha", "alpha multiplied in"])
def test_deep_pixels_take_no_more_memory_than_a_few_copies(kind: str) -> None:
    side, channels = 600, 4 if "alpha" in kind else 3
    bits = 12 if kind == "12 bits" else 16
    array = values((side, side, channels), bits)
    extra = {"straight alpha": (2,), "alpha multiplied in": (1,)}.get(kind, ())
    content = tiff(array, bits=bits, extra=extra)
    decode_picture(content)  # all that is imported is
    tracemalloc.start()
    decode_picture(content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5 * array.nbytes + 2_000_000


def test_a_tiff_file_of_very_many_channels_is_refused_before_they_are_unpacked() -> None:
    content = tiff(values((2, 2, 17), 8), bits=8, extra=(0,) * 14)
    with pytest.raises(ImageError, match="17 channels, where 16 are the most"):
        decode_picture(content)


def test_a_tiff_file_whose_directories_go_round_in_a_circle_ends() -> None:
    content = bytearray(tiff(values((2, 2, 3), 16), bits=16))
    (count,) = struct.unpack_from("<H", content, 8)
    struct.pack_into("<I", content, 10 + 12 * count, 8)  # the next directory is the first
    with pytest.raises(ImageError, match="pages"):
        decode_picture(bytes(content))


@pytest.mark.parametrize("bits", [8, 16])
def test_a_thumbnail_is_never_taken_for_the_picture(bits: int, tmp_path) -> None:
    def pages(*sizes_and_kinds: tuple[int, int]) -> bytes:
        buffer = io.BytesIO()
        with tifffile.TiffWriter(buffer) as file:
            for side, kind in sizes_and_kinds:
                file.write(photograph(side, side, deep=bits == 16), photometric="rgb", subfiletype=kind)
        return buffer.getvalue()

    assert decode_picture(pages((16, 0), (4, 1))).notes == ("thumbnails in the file are left out",)
    alone = decode_picture(pages((4, 1)))
    assert (alone.size, alone.notes) == ((4, 4), ())
    (tmp_path / "a.tif").write_bytes(pages((4, 1), (16, 0)))
    for call in (lambda: decode_picture(pages((4, 1), (16, 0))), lambda: read_image(tmp_path / "a.tif")):
        with pytest.raises(ImageError, match="the first page of the file is a thumbnail"):
            call()
    with pytest.raises(ImageError, match="holds 2 pages"):
        decode_picture(pages((16, 0), (16, 0)))
    (tmp_path / "a.tif").write_bytes(pages((16, 0), (8, 0)))
    assert read_image(tmp_path / "a.tif").shape == (3, 16, 16)
