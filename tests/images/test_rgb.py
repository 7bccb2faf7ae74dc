"""Image files of every kind in, lossless ones out."""

import io
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from PIL import Image

from invertible_rescaling.errors import DtypeError, ImageError, MissingDependencyError, ShapeError
from invertible_rescaling.images import find_images, from_uint8, read_image, rgb, to_uint8, write_image
from tests.shared import SHARED
from tests.strategies import seeds, uint8_image, uniform

LOSSLESS = (".png", ".webp", ".bmp")


def _hwc(image: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray(image.permute(1, 2, 0).numpy())


def _pillow(path: Path, array: np.ndarray, mode: str | None = None, **options: object) -> Path:
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


# Reading and writing


@given(suffix=st.sampled_from(LOSSLESS), height=st.integers(1, 20), width=st.integers(1, 20), seed=seeds)
def test_what_is_written_is_read_back(tmp_path_factory, suffix, height, width, seed) -> None:
    path, image = tmp_path_factory.mktemp("images") / f"a{suffix}", uint8_image(3, height, width, seed=seed)
    write_image(path, image)
    assert torch.equal(read_image(path), image)
    write_image(str(path.with_suffix(suffix.upper())), from_uint8(image))
    assert torch.equal(read_image(str(path.with_suffix(suffix.upper()))), image)


def test_reading_gives_contiguous_8_bit_rgb(tmp_path) -> None:
    write_image(tmp_path / "a.png", uint8_image(3, 4, 5))
    image = read_image(tmp_path / "a.png")
    assert (image.dtype, tuple(image.shape), image.is_contiguous()) == (torch.uint8, (3, 4, 5), True)


def test_writing_replaces_and_leaves_nothing_else(tmp_path) -> None:
    for seed in (1, 2):
        write_image(tmp_path / "a.png", uint8_image(3, 4, 5, seed=seed))
    assert torch.equal(read_image(tmp_path / "a.png"), uint8_image(3, 4, 5, seed=2))
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("name", ["a.jpg", "a.JPEG", "a.gif", "a.tif", "a", "a.png.txt"])
def test_what_would_lose_is_not_written(tmp_path, name: str) -> None:
    with pytest.raises(ImageError, match=rf"{name}' without loss; use one of .bmp, .png, .webp"):
        write_image(tmp_path / name, uint8_image(3, 4, 5))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (torch.zeros(1, 3, 4, 5), ShapeError, r"\(3, H, W\), got \(1, 3, 4, 5\)"),
        (torch.zeros(1, 4, 5), ShapeError, r"got \(1, 4, 5\)"),
        (torch.zeros(3, 4, 5, dtype=torch.int64), DtypeError, "int64"),
    ],
)
def test_what_is_no_image_is_not_written(tmp_path, bad, error, message: str) -> None:
    with pytest.raises(error, match=message):
        write_image(tmp_path / "a.png", bad)
    assert list(tmp_path.iterdir()) == []


def test_8_bits_to_floats_and_back_is_exact() -> None:
    every = torch.arange(256, dtype=torch.uint8)
    for dtype in (torch.float32, torch.float64):
        assert torch.equal(to_uint8(from_uint8(every, dtype)), every)
        assert from_uint8(every, dtype).dtype == dtype
    assert to_uint8(torch.tensor([-1.0, 0.0019, 0.002, 0.999, 2.0])).tolist() == [0, 0, 1, 255, 255]
    assert to_uint8(every) is every
    with pytest.raises(DtypeError, match="float32"):
        from_uint8(uniform(3))
    for call in (from_uint8, to_uint8):
        with pytest.raises(DtypeError, match=r"takes a tensor .*, got ndarray; Picture.from_array"):
            call(every.numpy())
    with pytest.raises(DtypeError, match="int64"):
        to_uint8(torch.zeros(3, dtype=torch.int64))


# Every kind of image

GREY = np.array([[0, 100], [200, 255]], dtype=np.uint8)


def _as_rgb(grey: np.ndarray) -> list:
    return [grey.tolist()] * 3


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff", ".ppm"])
def test_greyscale_becomes_rgb(tmp_path, suffix: str) -> None:
    assert read_image(_pillow(tmp_path / f"a{suffix}", GREY)).tolist() == _as_rgb(GREY)


def test_one_bit_becomes_rgb(tmp_path) -> None:
    path = _pillow(tmp_path / "a.png", GREY > 150)
    assert read_image(path).tolist() == _as_rgb(np.array([[0, 0], [255, 255]]))


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_16_bit_greyscale_is_scaled_not_clipped(tmp_path, suffix: str) -> None:
    deep = np.array([[0, 257 * 100], [257 * 200 + 100, 65535]], dtype=np.uint16)
    assert read_image(_pillow(tmp_path / f"a{suffix}", deep)).tolist() == _as_rgb(GREY)


def test_a_palette_becomes_its_colours(tmp_path) -> None:
    image = Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8))
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    image.save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").flatten(1).T.tolist() == [[10, 20, 30], [40, 50, 60], [70, 80, 90]]


def test_alpha_is_laid_on_white(tmp_path) -> None:
    rgba = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 100, 200, 51]]], dtype=np.uint8)
    image = read_image(_pillow(tmp_path / "a.png", rgba)).flatten(1).T.tolist()
    assert image[:2] == [[10, 20, 30], [255, 255, 255]]
    expected = [round(0.2 * value + 0.8 * 255) for value in (0, 100, 200)]
    assert image[2] == pytest.approx(expected, abs=1)


def test_grey_with_alpha_is_laid_on_white(tmp_path) -> None:
    la = np.array([[[10, 255], [10, 0]]], dtype=np.uint8)
    path = tmp_path / "a.png"
    Image.fromarray(la).save(path)
    assert read_image(path).tolist() == _as_rgb(np.array([[10, 255]]))


@pytest.mark.parametrize(
    ("pixels", "transparent"),
    [
        (np.array([[10, 20]], dtype=np.uint8), 20),
        (np.array([[[10, 10, 10], [20, 20, 20]]], dtype=np.uint8), (20, 20, 20)),
        (np.array([[2570, 5140]], dtype=np.uint16), 5140),
    ],
    ids=["grey", "rgb", "16-bit grey"],
)
def test_a_transparent_colour_is_laid_on_white(tmp_path, pixels, transparent) -> None:
    path = _pillow(tmp_path / "a.png", pixels, transparency=transparent)
    assert read_image(path).tolist() == _as_rgb(np.array([[10, 255]]))


def test_cmyk_becomes_rgb(tmp_path) -> None:
    rgb = np.array([[[255, 0, 0], [0, 0, 255]], [[0, 0, 0], [255, 255, 255]]], dtype=np.uint8)
    path = _pillow(tmp_path / "a.tiff", rgb, mode="CMYK")
    assert read_image(path).permute(1, 2, 0).tolist() == rgb.tolist()
    with Image.open(path) as image:
        assert image.mode == "CMYK"


def test_floating_point_is_refused_not_turned_black(tmp_path) -> None:
    path = _pillow(tmp_path / "a.tiff", np.array([[0.0, 0.5, 1.0]], dtype=np.float32))
    with pytest.raises(ImageError, match=r"a.tiff"):
        read_image(path)


# What each orientation does to the stored pixels, from the EXIF standard.
UPRIGHT = {
    1: lambda x: x,
    2: lambda x: x.flip(2),
    3: lambda x: x.flip(1, 2),
    4: lambda x: x.flip(1),
    5: lambda x: x.transpose(1, 2),
    6: lambda x: x.transpose(1, 2).flip(2),
    7: lambda x: x.flip(1, 2).transpose(1, 2),
    8: lambda x: x.transpose(1, 2).flip(1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_the_exif_orientation_is_applied(tmp_path, orientation: int) -> None:
    stored, exif = uint8_image(3, 2, 3), Image.Exif()
    exif[0x0112] = orientation
    path = _pillow(tmp_path / "a.png", _hwc(stored), exif=exif)
    assert torch.equal(read_image(path), UPRIGHT[orientation](stored))


def test_of_an_animation_the_first_frame_is_taken(tmp_path) -> None:
    frames = [Image.fromarray(_hwc(uint8_image(3, 4, 4, seed=seed))) for seed in (1, 2)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    assert torch.equal(read_image(tmp_path / "a.png"), uint8_image(3, 4, 4, seed=1))


def test_a_jpeg_is_read(tmp_path) -> None:
    path = _pillow(tmp_path / "a.jpg", np.full((9, 7, 3), 128, dtype=np.uint8), quality=95)
    assert read_image(path).unique().tolist() == [128]


# What cannot be read


@pytest.mark.parametrize(
    "content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0" + b"\0" * 50]
)
def test_what_is_no_image_is_named(tmp_path, content: bytes) -> None:
    path = tmp_path / "bad.png"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r"cannot read '.*bad.png' as an image: \S"):
        read_image(path)


def test_missing_files_and_folders_are_named(tmp_path) -> None:
    for path in (tmp_path / "nothing.png", tmp_path):
        with pytest.raises(ImageError, match=path.name):
            read_image(path)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".tiff"])
def test_a_truncated_image_is_refused(tmp_path, suffix: str) -> None:
    path = _pillow(tmp_path / f"cut{suffix}", _hwc(uint8_image(3, 40, 40)))
    content = path.read_bytes()
    for share in (0.02, 0.3, 0.5, 0.8, 0.95):
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(ImageError, match=f"cut{suffix}"):
            read_image(path)


def test_a_decompression_bomb_is_refused(tmp_path, monkeypatch) -> None:
    path = _pillow(tmp_path / "bomb.png", np.zeros((30, 30), dtype=np.uint8))
    monkeypatch.setattr(rgb, "MAX_PIXELS", 100)
    with pytest.raises(ImageError, match=r"bomb.png.*30x30 is 900 pixels, over the limit of 100"):
        read_image(path)


PNGSUITE = SHARED / "fixtures" / "pngsuite"
VALID = sorted(path.name for path in PNGSUITE.glob("[!x]*.png"))
CORRUPT = sorted(path.name for path in PNGSUITE.glob("x*.png"))


def test_the_png_suite_is_all_there(shared_fixtures) -> None:
    assert (len(VALID), len(CORRUPT)) == (162, 14)


@pytest.mark.parametrize("name", VALID)
def test_every_valid_png_is_read_in_its_size(shared_fixtures, name: str) -> None:
    path = shared_fixtures / "pngsuite" / name
    width, height = struct.unpack(">II", path.read_bytes()[16:24])
    image = read_image(path)
    assert (image.dtype, tuple(image.shape)) == (torch.uint8, (3, height, width))


@pytest.mark.parametrize("name", CORRUPT)
def test_every_corrupt_png_is_refused(shared_fixtures, name: str) -> None:
    with pytest.raises(ImageError, match=name):
        read_image(shared_fixtures / "pngsuite" / name)


@pytest.mark.parametrize("interlaced", [name for name in VALID if name.startswith("basi")])
def test_interlacing_does_not_matter(shared_fixtures, interlaced: str) -> None:
    folder, plain = shared_fixtures / "pngsuite", interlaced.replace("basi", "basn")
    assert torch.equal(read_image(folder / interlaced), read_image(folder / plain))


# Folders


def test_images_are_found_in_subfolders_sorted_and_hidden_ones_left_out(tmp_path) -> None:
    names = ("b.png", "a.JPG", "sub/c.webp", "sub/deep/d.tiff", "e.jpeg")
    for name in (*names, "notes.txt", ".hidden.png", ".cache/f.png", "sub/.g.png", "h.png.part"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    expected = sorted(tmp_path / name for name in names)
    assert find_images(tmp_path) == find_images(str(tmp_path)) == expected


def test_a_hidden_folder_above_does_not_matter(tmp_path) -> None:
    (tmp_path / ".data").mkdir()
    (tmp_path / ".data" / "a.png").touch()
    assert find_images(tmp_path / ".data") == [tmp_path / ".data" / "a.png"]


def test_missing_and_empty_folders_are_named(tmp_path) -> None:
    with pytest.raises(ImageError, match=r"there is no folder at '.*nowhere'"):
        find_images(tmp_path / "nowhere")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ImageError, match=r"there is no folder at '.*notes.txt'"):
        find_images(tmp_path / "notes.txt")
    with pytest.raises(ImageError, match=r"no image in .*; known suffixes: .*\.png"):
        find_images(tmp_path)


def test_a_missing_pillow_is_named(tmp_path, monkeypatch) -> None:
    write_image(tmp_path / "a.png", uint8_image(3, 2, 2))
    for module in [name for name in sys.modules if name.split(".")[0] == "PIL"]:
        monkeypatch.setitem(sys.modules, module, None)
    for call in (
        lambda: read_image(tmp_path / "a.png"),
        lambda: write_image(tmp_path / "b.png", uint8_image(3, 2, 2)),
    ):
        with pytest.raises(MissingDependencyError, match=r"pip install 'invertible_rescaling\[images\]'"):
            call()


def test_a_failing_write_keeps_the_old_image(tmp_path, monkeypatch) -> None:
    path, old = tmp_path / "a.png", uint8_image(3, 4, 4, seed=1)
    write_image(path, old)

    def full(_descriptor: int) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_image(path, uint8_image(3, 4, 4, seed=2))
    assert torch.equal(read_image(path), old)
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


def test_a_png_holds_what_pillow_would_read(tmp_path) -> None:
    image = uint8_image(3, 5, 6)
    write_image(tmp_path / "a.png", image)
    content = (tmp_path / "a.png").read_bytes()
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(content))), _hwc(image))
