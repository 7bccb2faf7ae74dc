"""The table of PSNR at equal bytes."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

import rate_distortion
from invertible_rescaling import linear_x2
from invertible_rescaling.evaluation import compare, measure, model_rescale
from invertible_rescaling.images import find_images, from_uint8, read_image
from invertible_rescaling.training.degradations import jpeg
from rate_distortion import Cost, Way, table
from tests.pictures import pictures
from tests.shell import cells_of


@pytest.fixture
def folder(tmp_path):
    return pictures(tmp_path / "Two", 2)


def test_the_table_has_what_is_measured_by_hand(folder, capsys) -> None:
    assert rate_distortion.main([str(folder), "--way", "linear_x2:DEFAULT@jpeg:80", "bicubic:2"]) == 0
    head, _, ours, bicubic = cells_of(capsys.readouterr().out)
    assert head == ["way", "bits a pixel", "PSNR", "JPEG", "WebP", "AVIF", "JPEG XL"]
    assert (ours[0], bicubic[0]) == ("linear_x2:DEFAULT@jpeg:80", "bicubic:2")
    rescale = model_rescale(linear_x2(weights="DEFAULT").eval(), through=lambda lr: jpeg(lr, 80))
    bits, psnr, as_jpeg = [], [], []
    for path in find_images(folder):
        hr = read_image(path)
        with torch.no_grad():
            found = measure(rescale, from_uint8(hr)[None], 2)
        small = (found.lr[0] * 255).round().byte()
        size = len(pillow_jpeg(small, 80))
        bits.append(8 * size / hr[0].numel())
        psnr.append(found.figures["psnr_rgb"])
        smaller = [file for file in (pillow_jpeg(hr, q) for q in range(1, 101)) if len(file) <= size]
        as_jpeg.append(psnr_of(smaller[-1], hr))
    assert ours[1:4] == [f"{sum(values) / 2:.2f}" for values in (bits, psnr, as_jpeg)]


def pillow_jpeg(image: torch.Tensor, quality: int) -> bytes:
    buffer = io.BytesIO()
    picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
    picture.save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
    return buffer.getvalue()


def psnr_of(file: bytes, hr: torch.Tensor) -> float:
    with Image.open(io.BytesIO(file)) as picture:
        back = to_tensor(picture)
    return compare(back[None], from_uint8(hr)[None], border=2)["psnr_rgb"]


def to_tensor(picture: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 255


def test_a_codec_that_takes_more_for_one_image_has_no_mean() -> None:
    cost = Cost(1.0, 30.0, {"jpg": 25.0})
    assert table({"mine": cost})[2].split("|")[4:6] == [" 25.00 ", "    - "]


def test_the_picture_is_drawn(folder, tmp_path) -> None:
    out = tmp_path / "new" / "rate.png"
    assert rate_distortion.main([str(folder), "--way", "bicubic:4", "--limit", "1", "--draw", str(out)]) == 0
    with Image.open(out) as image:
        assert image.format == "PNG"
        assert min(image.size) > 400


@pytest.mark.parametrize(
    ("way", "message"),
    [
        ("bicubic:3", "'bicubic:3' is no way; known: bicubic:2"),
        ("bicubic", "'bicubic' is no way"),
        ("linear_x2:V9", "V9"),
        ("linear_x2:DEFAULT@gif:5", "'gif:5' is no codec with a quality"),
        ("linear_x2:DEFAULT@crop:0.5", "'crop:0.5' is no codec with a quality"),
    ],
)
def test_a_way_that_is_none_is_named(folder, capsys, way: str, message: str) -> None:
    assert rate_distortion.main([str(folder), "--way", way]) == 2
    said = capsys.readouterr().err
    assert said.startswith("rate_distortion.py: ")
    assert message in said


def test_ways_of_two_scales_are_measured_together(folder) -> None:
    assert {Way.parse(text).scale for text in ("bicubic:2", "linear_x4")} == {2, 4}
    assert rate_distortion.main([str(folder), "--way", "bicubic:2", "bicubic:4", "--limit", "1"]) == 0
