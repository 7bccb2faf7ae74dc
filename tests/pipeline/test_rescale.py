"""Whole pictures of any kind by one call each way."""

import numpy as np
import pytest
import torch
from PIL import Image

from invertible_rescaling import InvertibleRescaler, create_model
from invertible_rescaling.errors import ConfigError, DtypeError, ShapeError
from invertible_rescaling.images import Picture
from invertible_rescaling.pipeline import PictureRescaler
from invertible_rescaling.testing import randomize
from tests.shell import photograph


@pytest.fixture(scope="module")
def rescaler() -> PictureRescaler:
    return PictureRescaler(randomize(create_model("iirn_x4", blocks=1), 0.2).eval())


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("deep", [False, True])
def test_every_kind_of_picture_stays_what_it_is(rescaler, channels: int, deep: bool) -> None:
    picture = Picture.from_array(photograph(30, 41, channels, deep=deep))
    lr = rescaler.downscale(picture)
    restored = rescaler.upscale(lr, picture.size)
    assert (lr.kind, lr.size) == (picture.kind, (8, 11))
    assert (restored.kind, restored.size) == (picture.kind, (30, 41))
    assert rescaler.upscale(lr).size == (32, 44)


def test_colours_are_those_of_the_models_own_calls(rescaler) -> None:
    picture = Picture.from_array(photograph(32, 40))
    hr = picture.colour[None] / 255
    lr = rescaler.model.downscale(hr)
    assert torch.equal(rescaler.downscale(picture).colour, (lr[0] * 255).round().to(torch.uint8))
    sr = rescaler.model.upscale(lr)
    restored = rescaler.upscale(rescaler.downscale(picture)).colour
    assert torch.equal(restored, (sr[0].clamp(0, 1) * 255).round().to(torch.uint8))


def test_latents_that_draw_leave_the_generator_as_it_is() -> None:
    random = PictureRescaler(randomize(create_model("irn_x4", blocks=1), 0.2).eval())
    lr = random.downscale(Picture.from_array(photograph(32, 32)))
    before = torch.get_rng_state()
    first, second = (random.upscale(lr).colour for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_model_without_parameters_will_do() -> None:
    picture = Picture.from_array(photograph(12, 16))
    assert PictureRescaler(create_model("iirn_x4", blocks=0)).downscale(picture).size == (3, 4)


def test_what_cannot_be_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match=r"^tile must be a multiple of the scale 4, got 30"):
        PictureRescaler(create_model("iirn_x4", blocks=0), tile=30)
    with pytest.raises(ConfigError, match="3 channels, got one of 1"):
        PictureRescaler(InvertibleRescaler(2, channels=1, blocks=1))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_arrays_go_in_and_come_out(channels: int) -> None:
    array = photograph(5, 7, channels)
    assert np.array_equal(Picture.from_array(array).to_array(), array)
    if channels != 2:
        mode = {1: "L", 3: "RGB", 4: "RGBA"}[channels]
        image = Image.fromarray(array)
        assert image.mode == mode
        assert np.array_equal(Picture.from_array(np.asarray(image)).to_array(), array)


def test_arrays_of_other_kinds_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"got \(4, 5, 5\)"):
        Picture.from_array(np.zeros((4, 5, 5), np.uint8))
    with pytest.raises(DtypeError, match="float64"):
        Picture.from_array(np.zeros((4, 5)))
