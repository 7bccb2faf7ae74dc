"""LR that is stored with loss: by weights that were trained for it, and what is told of it."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from invertible_rescaling.images import read_picture
from invertible_rescaling.images.jpeg import quality_of
from invertible_rescaling.images.lossy import Lossy, within
from invertible_rescaling.metrics import psnr
from invertible_rescaling.pipeline.networks import JPEG_MODEL, ModelChoice, jpeg_choice
from invertible_rescaling.pipeline.record import record_of
from invertible_rescaling.weights import weights_of
from tests.shell import contents, photograph, run, save


@pytest.fixture
def photo(tmp_path):
    return save(tmp_path / "photo.png", photograph(61, 83))


def psnr_of(first, second) -> float:
    a, b = (read_picture(path).colour[None].float() / 255 for path in (first, second))
    return float(psnr(a, b))


def test_jpg_takes_weights_that_were_trained_for_it(tmp_path, capsys, photo) -> None:
    found = run(capsys, "downscale", photo, tmp_path / "lr.jpg", "--jobs", 1)
    assert found.code == 0
    assert f"note: LR is stored with loss, by {JPEG_MODEL} JPEG90, which was trained for" in found.err
    lr = tmp_path / "lr.jpg"
    with Image.open(lr) as image:
        assert image.layer[0][1:3] == (2, 2)  # 4:2:0
    assert quality_of(lr.read_bytes()) == 90
    record = record_of(read_picture(lr))
    assert (record.model, record.quality) == (JPEG_MODEL, 90)
    assert record.weights_sha256 == weights_of(JPEG_MODEL).JPEG90.sha256
    up = run(capsys, "upscale", lr, tmp_path / "back.png", "--jobs", 1)
    assert (up.code, up.err) == (0, "")  # it was made for that: nothing is to be said
    assert read_picture(tmp_path / "back.png").size == (61, 83)


def test_more_comes_back_than_by_weights_that_were_not(tmp_path, capsys) -> None:
    source = save(tmp_path / "cat.png", data.chelsea()[80:240, 100:300])
    for name, more in (("robust", ()), ("plain", ("--weights", "DEFAULT", "--allow-lossy"))):
        stored = ("--model", JPEG_MODEL, "--quality", 90, "--jobs", 1, *more)
        assert run(capsys, "downscale", source, tmp_path / f"{name}.jpg", *stored).code == 0
        with Image.open(tmp_path / f"{name}.jpg") as image:
            image.save(tmp_path / f"{name}_sent.jpg", quality=90, subsampling=2, xmp=image.info["xmp"])
        assert run(capsys, "upscale", tmp_path / f"{name}_sent.jpg", tmp_path / f"{name}.png").code == 0
    assert psnr_of(source, tmp_path / "robust.png") > psnr_of(source, tmp_path / "plain.png") + 0.5


def test_a_model_without_such_weights_names_one_that_has_them(tmp_path, capsys, photo) -> None:
    refused = run(capsys, "downscale", photo, tmp_path / "lr.jpg", "--model", "iirn_x4", "--jobs", 1)
    assert refused.code == 2
    assert f"--format jpg with --model {JPEG_MODEL}, which has weights for it" in refused.err
    assert not (tmp_path / "lr.jpg").exists()


def test_a_lower_quality_than_trained_for_is_told(tmp_path, capsys, photo) -> None:
    low = run(capsys, "downscale", photo, tmp_path / "low.jpg", "--quality", 40, "--jobs", 1)
    assert low.code == 0
    assert "note: quality 40 is below" in low.err
    up = run(capsys, "upscale", tmp_path / "low.jpg", tmp_path / "back.png", "--jobs", 1)
    assert "it is a JPEG of quality 40, below" in up.err


def test_what_a_messenger_saves_again_is_brought_back_by_two_options(tmp_path, capsys, photo) -> None:
    run(capsys, "downscale", photo, tmp_path / "lr.jpg", "--jobs", 1)
    with Image.open(tmp_path / "lr.jpg") as image:
        image.convert("RGB").save(tmp_path / "sent.jpg", quality=70)  # and its metadata are gone
    lost = run(capsys, "upscale", tmp_path / "sent.jpg", tmp_path / "back.png", "--jobs", 1)
    assert lost.code == 1
    assert f"as of a JPEG by downscale: --model {JPEG_MODEL} --weights JPEG90" in lost.err
    again = ("--model", JPEG_MODEL, "--weights", "JPEG90", "--size", "83x61", "--jobs", 1)
    found = run(capsys, "upscale", tmp_path / "sent.jpg", tmp_path / "back.png", *again)
    assert found.code == 0
    assert "it is a JPEG of quality 70, below 85, the lowest that the weights were trained for" in found.err
    assert read_picture(tmp_path / "back.png").size == (61, 83)


def test_the_weights_go_by_the_quality() -> None:
    given = ModelChoice(JPEG_MODEL)
    qualities = sorted(m.through["quality"] for m in weights_of(JPEG_MODEL) if m.through is not None)
    assert jpeg_choice(given, None).quality == qualities[-1]
    assert qualities == [75, 90]
    for quality, trained in ((1, 75), (75, 75), (80, 75), (85, 90), (90, 90), (100, 90)):
        found = jpeg_choice(given, quality)
        assert (found.quality, found.choice.weights) == (quality, f"JPEG{trained}")
        assert found.lowest == {75: 70, 90: 85}[trained]
    assert jpeg_choice(ModelChoice(JPEG_MODEL, "DEFAULT"), 90) is None
    assert jpeg_choice(ModelChoice("irn_x4"), 90) is None
    assert jpeg_choice(ModelChoice(JPEG_MODEL, "JPEG75"), 100).choice.weights == "JPEG75"


@pytest.mark.parametrize("codec", ["jpg:85", "jpg444:95", "webp:80", "avif:70", "jxl:90"])
def test_roundtrip_shows_the_whole_way(tmp_path, capsys, photo, codec: str) -> None:
    grey = save(tmp_path / "grey.png", photograph(40, 44, channels=1))
    arguments = (photo, grey, "--through", codec, "--picture", tmp_path / "rt.png", "--model", "linear_x4")
    found = run(capsys, "roundtrip", *arguments)
    assert (found.code, found.err) == (0, "")
    heads, rows = found.out.splitlines()[:2], found.out.splitlines()[2:4]
    assert codec in heads[1]
    assert all(path.name in row for path, row in zip((photo, grey), rows, strict=True))
    pixels = (read_picture(photo).colour[:, :60, :80][:, ::4, ::4]).contiguous()
    assert 0 < len(Lossy.parse(codec).encode(pixels)) < 5000
    assert "rt.png" in contents(tmp_path)


def test_roundtrip_compares_with_codecs_in_as_many_bytes(tmp_path, capsys, photo) -> None:
    grey = save(tmp_path / "grey.png", photograph(40, 44, channels=1))
    arguments = (photo, grey, "--codecs", "--rows", 0, "--model", "linear_x4", "--through", "jpg444:100")
    found = run(capsys, "roundtrip", *arguments)
    assert found.code == 0
    rows = found.out.splitlines()[2:]
    told = [row for row in rows if "the original itself in as many bytes" in row]
    assert len(told) == 2
    assert all(kind in row for row in told for kind in ("jpg", "webp", "avif", "jxl"))


@pytest.mark.parametrize("kind", ["jpg", "webp", "avif", "jxl"])
def test_as_many_bytes_are_no_more(kind: str) -> None:
    image = torch.from_numpy(photograph(48, 64)).permute(2, 0, 1)

    def size_of(codec: Lossy) -> int:
        return len(codec.encode(image))

    half = size_of(Lossy(kind, 50))
    best = within(kind, half, lambda codec: codec.encode(image))
    assert best is not None
    assert (best.quality >= 50, size_of(best)) == (True, pytest.approx(half, rel=0.2))
    assert size_of(best) <= half < size_of(Lossy(kind, best.quality + 1))
    assert within(kind, size_of(Lossy(kind, 1)) - 1, lambda codec: codec.encode(image)) is None


def test_avif_is_the_same_on_any_number_of_cores() -> None:
    """Pillow takes a thread for each, and the bytes depend on it, and the pixels."""
    image = data.astronaut()
    one = io.BytesIO()
    Image.fromarray(image).save(one, "AVIF", quality=70, subsampling="4:2:0", max_threads=1)
    assert Lossy("avif", 70).encode(torch.from_numpy(image).permute(2, 0, 1)) == one.getvalue()


def test_a_codec_may_be_spelt_as_training_does() -> None:
    assert Lossy.parse("jpeg444:95") == Lossy.parse("jpg444:95") == Lossy("jpg", 95, "4:4:4")


def test_roundtrip_refuses_other_codecs_and_deep_pictures(tmp_path, capsys, photo) -> None:
    for codec in ("gif:80", "jpg", "jpg:0", "webp444:80", "jpg:101"):
        refused = run(capsys, "roundtrip", photo, "--rows", 0, "--through", codec)
        assert (refused.code, "known: jpg:85" in refused.err) == (2, True)
    deep = save(tmp_path / "deep.png", photograph(40, 44, channels=1, deep=True))
    found = run(capsys, "roundtrip", deep, "--rows", 0, "--through", "jpg:90", "--model", "linear_x4")
    assert (found.code, "takes 8 bits, and it has 16" in found.err) == (1, True)


@pytest.mark.parametrize("quality", [1, 30, 49, 50, 51, 75, 90, 100])
def test_the_quality_of_a_file_is_read_from_its_tables(quality: int) -> None:
    for subsampling in (0, 2):
        buffer = io.BytesIO()
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(
            buffer, "JPEG", quality=quality, subsampling=subsampling
        )
        assert quality_of(buffer.getvalue()) == quality
    assert quality_of(b"\xff\xd8\xff\xda") is None
    assert quality_of(b"\xff\xd8\xff\xdb\0\x05\0\1\1") in range(1, 101)
