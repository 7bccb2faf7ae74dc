"""What happens to LR: against the codecs themselves, and its gradients against what they are said to be."""

import io
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from PIL import Image
from torch import Tensor

from invertible_rescaling import RescalingLoss, linear_x2
from invertible_rescaling.errors import ConfigError, ImageError, ShapeError, ValueRangeError
from invertible_rescaling.evaluation import bicubic_rescale, measure, model_rescale
from invertible_rescaling.images import from_uint8, lossy
from invertible_rescaling.testing import randomize
from invertible_rescaling.training.config import OptionError, TrainingConfig
from invertible_rescaling.training.degradations import (
    AVIF,
    JPEG,
    Brightness,
    Clean,
    Codec,
    Crop,
    Degradation,
    Each,
    OneOf,
    WebP,
    degradation_of,
    jpeg,
)
from invertible_rescaling.training.device import graph_obstacle
from tests.shell import photograph
from tests.strategies import seeds, uniform

SAMPLINGS = {"4:2:0": 2, "4:4:4": 0}


def image_of(height: int, width: int, seed: int = 0) -> Tensor:
    """A batch of one, in steps of 8 bits."""
    array = photograph(height, width, seed=seed)
    return from_uint8(torch.from_numpy(array).permute(2, 0, 1)[None])


def by_pillow(image: Tensor, quality: int, subsampling: str) -> np.ndarray:
    array = (image[0] * 255).round().byte().permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "JPEG", quality=quality, subsampling=SAMPLINGS[subsampling])
    with Image.open(buffer) as found:
        return np.array(found)


def bytes_of(image: Tensor) -> np.ndarray:
    return (image[0] * 255).round().byte().permute(1, 2, 0).numpy()


# JPEG


@settings(max_examples=60)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    quality=st.integers(1, 100),
    subsampling=st.sampled_from(list(SAMPLINGS)),
    noisy=st.booleans(),
    seed=seeds,
)
def test_jpeg_is_pillows_to_the_last_bit(height, width, quality, subsampling, noisy, seed) -> None:
    image = uniform(1, 3, height, width, seed=seed) if noisy else image_of(height, width, seed)
    image = (image.float() * 255).round() / 255
    found = jpeg(image, quality, subsampling)
    assert np.array_equal(bytes_of(found), by_pillow(image, quality, subsampling))
    assert torch.equal(found, (found * 255).round() / 255)


def test_jpeg_of_a_photograph_is_pillows(benchmarks) -> None:
    with Image.open(benchmarks / "Set5" / "bird.png") as file:
        image = from_uint8(torch.from_numpy(np.array(file.convert("RGB"))).permute(2, 0, 1)[None])
    for quality in (30, 75, 90, 95):
        assert np.array_equal(bytes_of(jpeg(image, quality)), by_pillow(image, quality, "4:2:0"))


def test_each_image_has_a_quality_of_its_own() -> None:
    images = torch.cat([image_of(20, 24, seed) for seed in range(3)])
    together = jpeg(images, torch.tensor([30, 75, 95]))
    for index, quality in enumerate((30, 75, 95)):
        assert torch.equal(together[index : index + 1], jpeg(images[index : index + 1], quality))


def gradient_of(image: Tensor, weight: Tensor, **options) -> Tensor:
    image = image.clone().requires_grad_()
    (jpeg(image, 90, **options) * weight).sum().backward()
    return image.grad


def test_gradients_pass_what_jpeg_passes() -> None:
    image, weight = image_of(32, 32).double(), uniform(1, 3, 32, 32, seed=1, dtype=torch.float64)
    assert torch.allclose(gradient_of(image, weight, subsampling="4:4:4"), weight, atol=1e-4)
    # A checkerboard of blue against yellow, equally bright, is lost with 4:2:0, and so has no gradient.
    board = ((torch.arange(32)[:, None] + torch.arange(32)) % 2 * 2 - 1).double()
    colour = torch.tensor([0.0, -0.114 / 0.587, 1.0], dtype=torch.float64).view(1, 3, 1, 1) * board
    halved = gradient_of(image, weight, subsampling="4:2:0")
    assert abs(float((halved * colour).sum())) < 1e-3
    assert abs(float((weight * colour).sum())) > 1
    grey = torch.ones(1, 3, 1, 1, dtype=torch.float64) * board
    assert float((halved * grey).sum()) == pytest.approx(float((weight * grey).sum()), abs=1e-2)


def test_the_soft_rounding_has_the_gradient_of_its_formula() -> None:
    """Along one coefficient: none where it lies on a step, twice where it is about to leave one."""
    place = torch.arange(8, dtype=torch.float64)
    wave = torch.cos((2 * place + 1) * math.pi / 16).expand(8, 8) / math.sqrt(
        32
    )  # the lowest across, of norm 1
    step = 2.0  # of the lowest luma coefficient across at quality 90: 11 * 20 / 100
    for share, gradient in ((0.0, 0.0), (0.25, 1.0), (0.5, 2.0), (1.0, 0.0)):
        grey = 128 + wave * step * share
        image = (grey / 255).expand(1, 3, 8, 8)
        found = gradient_of(image, wave.expand(1, 3, 8, 8) / 3, subsampling="4:4:4", rounding="soft")
        assert float((found * wave).sum()) == pytest.approx(gradient, abs=0.02)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: jpeg(torch.rand(3, 8, 8), 90), ShapeError, r"\(B, 3, H, W\), got \(3, 8, 8\)"),
        (lambda: jpeg(torch.rand(1, 1, 8, 8), 90), ShapeError, r"got \(1, 1, 8, 8\)"),
        (lambda: jpeg(torch.rand(2, 3, 8, 8), torch.tensor([90])), ShapeError, "2 images have as many"),
        (lambda: jpeg(torch.rand(1, 3, 8, 8), 0), ValueRangeError, "1 to 100, got 0"),
        (lambda: jpeg(torch.rand(1, 3, 8, 8), 90, "4:1:1"), ValueRangeError, "4:2:0 and 4:4:4"),
        (lambda: jpeg(torch.rand(1, 3, 8, 8), 90, rounding="hard"), ValueRangeError, "'hard'"),
    ],
)
def test_what_jpeg_has_none_of_is_refused(call, error, message: str) -> None:
    with pytest.raises(error, match=message):
        call()


# The others


@pytest.mark.parametrize("kind", ["webp", "avif", "jpg"])
def test_a_codec_is_what_it_is_and_passes_gradients_unchanged(kind: str) -> None:
    lr = torch.cat([image_of(16, 18, seed) for seed in range(2)]).requires_grad_()
    arrived, hr = Codec(kind, 70)(lr, lr.detach())
    for image, found in zip(lr, arrived, strict=True):
        content = lossy.compress((image * 255).round().byte(), kind, 70)
        with Image.open(io.BytesIO(content)) as opened:
            wanted = torch.from_numpy(np.array(opened.convert("RGB"))).permute(2, 0, 1)
        assert torch.equal((found * 255).round().byte(), wanted)
    assert not torch.equal(arrived, lr)
    arrived.sum().backward()
    assert bool((lr.grad == 1).all())
    assert torch.equal(hr, lr.detach())


def test_a_codec_that_is_not_there_is_named(monkeypatch) -> None:
    def missing(*_arguments, **_options):
        raise KeyError("AVIF")

    monkeypatch.setattr(Image.Image, "save", missing)
    with pytest.raises(ImageError, match="this Pillow writes no avif"):
        AVIF(80)(image_of(8, 8), image_of(16, 16))
    with pytest.raises(ConfigError, match="webp, avif and jpg, got 'gif'"):
        Codec("gif", 80)


def test_jpeg_xl_goes_through_imagecodecs() -> None:
    image = (image_of(24, 32)[0] * 255).byte()
    found = lossy.recompress(image, "jxl", 90)
    assert (found.float() - image.float()).abs().mean() < 6


def test_brightness_changes_both() -> None:
    lr, hr = image_of(8, 8).expand(64, -1, -1, -1), image_of(16, 16).expand(64, -1, -1, -1)
    darker, wanted = Brightness((0.5, 0.9))(lr, hr)
    factors = wanted.sum((1, 2, 3)) / hr.sum((1, 2, 3))
    assert 0.5 <= float(factors.min()) < 0.6
    assert 0.8 < float(factors.max()) <= 0.9
    assert torch.allclose(darker, lr * factors.view(-1, 1, 1, 1), atol=0.5 / 255 + 1e-6)


def test_a_crop_leaves_what_belongs_together() -> None:
    hr = torch.arange(24 * 32.0).view(1, 1, 24, 32)
    lr = hr[..., ::4, ::4]
    for _ in range(20):
        small, large = Crop((0.3, 1.0))(lr, hr)
        assert torch.equal(small, large[..., ::4, ::4])
        assert 2 <= small.shape[2] <= 6
        assert 2 <= small.shape[3] <= 8


def test_one_of_several_is_drawn_for_each_image() -> None:
    lr, hr = image_of(16, 16).expand(40, -1, -1, -1), torch.rand(40, 3, 32, 32)
    found, _ = OneOf(Clean(), JPEG(30))(lr, hr)
    clean = [bool(torch.equal(image, lr[0])) for image in found]
    assert 5 < sum(clean) < 35
    stored = jpeg(lr[:1], 30)[0]
    assert all(
        torch.equal(image, stored) for image, is_clean in zip(found, clean, strict=True) if not is_clean
    )
    with pytest.raises(ShapeError, match="put Crop before it"):
        OneOf(Clean(), Crop(0.5))(lr, hr)


def test_each_follows_the_other() -> None:
    lr, hr = image_of(16, 16), torch.rand(1, 3, 32, 32)
    twice, same = Each(JPEG(80), JPEG(60))(lr, hr)
    assert torch.equal(twice, jpeg(jpeg(lr, 80), 60))
    assert same is hr


def test_qualities_are_drawn_between_their_ends() -> None:
    lr = image_of(16, 16)
    found, _ = JPEG((75, 80))(lr.expand(30, -1, -1, -1), torch.rand(30, 3, 32, 32))
    known = {quality: jpeg(lr, quality)[0] for quality in range(75, 81)}
    drawn = [min(q for q, image in known.items() if torch.equal(image, one)) for one in found]
    assert len(set(drawn)) > 2


# As words, and in training


def test_words_make_degradations() -> None:
    assert repr(degradation_of(["jpeg444:90"])) == repr(JPEG(90, "4:4:4"))
    assert repr(degradation_of(["jpg:75-95"])) == repr(JPEG((75, 95)))  # as roundtrip --through spells it
    made = degradation_of(["none", "crop:0.5-1+jpeg:75-95", "webp:80", "avif:60-90", "brightness:0.8-1.2"])
    assert isinstance(made, OneOf)
    kinds = [type(part) for part in made.parts]
    assert kinds == [Clean, Each, WebP, AVIF, Brightness]
    assert repr(made.parts[1].parts[0]) == repr(Crop((0.5, 1)))
    assert (made.on_device, made.keeps_hr) == (False, False)
    assert (JPEG().on_device, Each(JPEG()).keeps_hr) == (True, True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gif:80", "'gif:80' is no degradation; known: jpeg:A-B"),
        ("jpeg", "'jpeg' is no degradation"),
        ("jpeg:95-75", "from 1 to 100, got 95 to 75"),
        ("jpeg:0-10", "got 0 to 10"),
        ("crop:1.5", "the share of Crop"),
        ("jpeg:90+", "'' is no degradation"),
    ],
)
def test_other_words_are_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        degradation_of([text])
    with pytest.raises(OptionError, match=f"--degrade: .*{message}"):
        TrainingConfig(degrade=(text,)).check()


def test_what_is_no_degradation_is_refused() -> None:
    with pytest.raises(ConfigError, match="takes degradations"):
        Each()
    with pytest.raises(ConfigError, match="takes degradations"):
        OneOf(JPEG(), torch.nn.Identity())
    with pytest.raises(ConfigError, match="got none"):
        degradation_of([])


def test_the_loss_brings_back_what_arrived() -> None:
    model, hr = randomize(linear_x2(), 0.1), image_of(32, 32)

    def loss(degradation: Degradation | None) -> float:
        with torch.no_grad():
            return float(RescalingLoss(1, 0, 0, degradation=degradation)(model, hr).total)

    assert loss(Clean()) == loss(None)
    with torch.no_grad():
        lr = model.downscale(hr)
        sr = model.inverse(jpeg(lr, 30), model.latent(jpeg(lr, 30)))
    assert loss(JPEG(30)) == pytest.approx(float(torch.sqrt((sr - hr) ** 2 + 1e-6).mean()), abs=1e-6)
    assert loss(JPEG(30)) > loss(None)


def test_gradients_reach_the_weights_through_jpeg() -> None:
    model = randomize(linear_x2(), 0.1)
    loss = RescalingLoss(degradation=JPEG((75, 95), rounding="soft"))
    loss(model, torch.cat([image_of(32, 32, seed) for seed in range(2)])).total.backward()
    assert all(float(parameter.grad.abs().sum()) > 0 for parameter in model.parameters())


def test_what_happens_to_lr_is_measured_too() -> None:
    model, hr = linear_x2(weights="DEFAULT").eval(), image_of(64, 64)
    through = {"through": lambda lr: jpeg(lr, 50)}
    for rescale in (model_rescale, bicubic_rescale):
        first = model if rescale is model_rescale else 2
        clean, stored = measure(rescale(first), hr, 2), measure(rescale(first, **through), hr, 2)
        assert torch.equal(clean.lr, stored.lr)
        assert stored.figures["psnr_rgb"] < clean.figures["psnr_rgb"]


def test_what_the_host_computes_is_in_no_graph() -> None:
    assert graph_obstacle(TrainingConfig(degrade=("jpeg:90",)), "no") is None
    obstacle = graph_obstacle(TrainingConfig(degrade=("jpeg:90", "webp:80")), "no")
    assert obstacle == "--degrade jpeg:90 webp:80 is computed by the host"
