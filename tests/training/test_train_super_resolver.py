"""train_div2k.py on the networks for comparison: what is minimised, against an adversary and without."""

import json
import math
import sys
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn
from torch.nn.functional import l1_loss, logsigmoid, mse_loss, relu

import invertible_rescaling.training.gan
from invertible_rescaling import create_model, load_checkpoint
from invertible_rescaling.functional import bicubic_resize, quantize
from invertible_rescaling.images import from_uint8, read_image, write_image
from invertible_rescaling.models.super_resolution import SuperResolver
from invertible_rescaling.training import program
from invertible_rescaling.training.config import OptionError, TrainingConfig
from invertible_rescaling.training.gan import (
    RECIPES,
    Adversary,
    Discriminator,
    DiscriminatorStep,
    vgg_features,
)
from invertible_rescaling.training.objective import Enlarging, EnlargingAgainst, objective_for
from invertible_rescaling.weights import read_metadata
from tests.pictures import pictures
from tests.strategies import uniform


@pytest.fixture(autouse=True)
def _fresh_accelerator():
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def train(tmp_path):
    data = pictures(tmp_path / "data", 3)

    def call(*arguments, out="out", steps=4, model="edsr_x4", blocks=True):
        recipe = ["--patch", "16", "--batch-size", "2", "--warmup", "2", "--lr", "1e-3"]
        recipe += ["--blocks", "1"] if blocks else []
        rhythm = ["--log-every", "1", "--validate-every", "4", "--save-every", "2", "--quiet", "--cpu"]
        fixed = ["--data", str(data), "--out", str(tmp_path / out), "--steps", str(steps), "--model", model]
        return program.main([*fixed, *recipe, *rhythm, *map(str, arguments)])

    return call


@pytest.fixture
def torchvision(monkeypatch):
    """A stand-in for VGG19, of a few layers, and what it was asked for; a narrow discriminator beside it."""
    asked = []
    monkeypatch.setattr(invertible_rescaling.training.gan, "Discriminator", partial(Discriminator, width=4))

    def vgg19(weights):
        asked.append(weights)
        torch.manual_seed(7)
        layers = [nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        return SimpleNamespace(features=nn.Sequential(*layers, *(nn.Identity() for _ in range(34))))

    models = SimpleNamespace(vgg19=vgg19, VGG19_Weights=SimpleNamespace(DEFAULT="ImageNet"))
    monkeypatch.setitem(sys.modules, "torchvision", SimpleNamespace(models=models))
    monkeypatch.setitem(sys.modules, "torchvision.models", models)
    return asked


def losses(folder):
    entries = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return {entry["step"]: entry["loss"] for entry in entries if "loss" in entry}


@pytest.mark.parametrize("model", ["srcnn_x4", "srresnet_x4", "srgan_x4", "edsr_x4", "esrgan_x4"])
def test_every_network_for_comparison_trains(train, tmp_path, model):
    val = pictures(tmp_path / "val", 1, side=48, seed=1)
    assert train("--val", val, model=model, blocks=model != "srcnn_x4") == 0
    found = losses(tmp_path / "out")
    assert sorted(found) == [1, 2, 3, 4]
    assert found[1].keys() == {"total", "pixel"}
    trained = load_checkpoint(tmp_path / "out" / "best.safetensors", kind=SuperResolver)
    assert trained.scale == 4
    val_figures = read_metadata(tmp_path / "out" / "last.safetensors")["metadata"]["val"]
    assert val_figures["lr_psnr_rgb"] == 100.0  # its LR is bicubic
    assert math.isfinite(val_figures["psnr_rgb"])


def test_training_lowers_the_loss(train, tmp_path):
    assert train(steps=60) == 0
    by_step = losses(tmp_path / "out")
    first, last = (sum(by_step[s]["total"] for s in range(a, a + 10)) for a in (1, 51))
    assert last < 0.8 * first


@torch.no_grad()
def test_what_is_minimised_is_the_distance_of_sr_to_hr():
    model, hr = create_model("edsr_x4", width=4, blocks=1), uniform(2, 3, 16, 16)
    objective = objective_for(model, TrainingConfig(), None)
    assert isinstance(objective, Enlarging)
    values, sr = objective(model, hr, None)
    wanted = model(quantize(bicubic_resize(hr, (4, 4))))
    assert torch.allclose(sr, wanted, atol=1e-6)
    by_hand = ((wanted - hr) ** 2 + 1e-6).sqrt().mean()
    assert values.tolist() == pytest.approx([float(by_hand)] * 2, rel=1e-5)


def test_the_data_sets_own_lr_is_enlarged(train, tmp_path):
    root = tmp_path / "div2k"
    hr = pictures(root / "DIV2K_train_HR", 1)
    (root / "DIV2K_train_LR_bicubic" / "X4").mkdir(parents=True)
    for path in hr.iterdir():
        small = bicubic_resize(from_uint8(read_image(path)).unsqueeze(0), (10, 10))
        write_image(root / "DIV2K_train_LR_bicubic" / "X4" / f"{path.stem}x4.png", small[0])
    assert train("--data", root, out="theirs", steps=1) == 0
    for path in (root / "DIV2K_train_LR_bicubic" / "X4").iterdir():
        write_image(path, torch.zeros(3, 10, 10, dtype=torch.uint8))
    assert train("--data", root, out="black", steps=1) == 0
    assert losses(tmp_path / "theirs") != losses(tmp_path / "black")


def test_a_run_that_is_cut_up_ends_with_the_same_weights(train, tmp_path):
    assert train(out="whole", steps=6) == 0
    for _ in range(3):
        assert train("--stop-after", "2", out="cut", steps=6) == 0
    whole, cut = (tmp_path / name / "last.safetensors" for name in ("whole", "cut"))
    assert whole.read_bytes() == cut.read_bytes()


# ---- against an adversary


def adversary(gan, **options):
    return Adversary(TrainingConfig(gan=gan, lr=1e-3, **options), Accelerator(cpu=True), 3)


@pytest.mark.parametrize("gan", ["srgan", "esrgan"])
def test_an_adversarial_run_that_is_cut_up_ends_with_the_same_weights(train, tmp_path, torchvision, gan):
    options = ("--gan", gan, "--patch", "32", "--save-every", "3")
    assert train(*options, out="whole", steps=3) == 0
    for slice_ in (["--stop-after", "1"], []):
        AcceleratorState._reset_state(reset_partial_state=True)
        assert train(*options, *slice_, out="cut", steps=3) == 0
    names = {"total", "pixel", "perceptual", "adversarial", "discriminator"}
    whole, cut = (losses(tmp_path / name) for name in ("whole", "cut"))
    assert whole == cut
    assert whole[3].keys() == names
    assert all(math.isfinite(value) and value != 0 for value in whole[3].values())
    files = [tmp_path / name / "last.safetensors" for name in ("whole", "cut")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert train(out="whole", steps=3) == 2  # that run had an adversary
    assert set(torchvision) == {"ImageNet"}


@torch.no_grad()
@pytest.mark.parametrize("gan", ["srgan", "esrgan"])
def test_the_terms_by_hand(torchvision, gan):
    model, hr = create_model("srgan_x4", width=4, blocks=1), uniform(2, 3, 32, 32)
    against = adversary(gan)
    objective = objective_for(model, TrainingConfig(), against)
    assert isinstance(objective, EnlargingAgainst)
    values, sr = objective(model, hr, None)
    features = vgg_features(RECIPES[gan].layers)
    fake, real = against.discriminator(sr), against.discriminator(hr)
    pixel = ((sr - hr) ** 2 + 1e-6).sqrt().mean()
    if gan == "srgan":
        perceptual, adversarial = mse_loss(features(sr), features(hr)), -logsigmoid(fake).mean()
        total = 0.006 * perceptual + 1e-3 * adversarial
    else:
        perceptual = l1_loss(features(sr), features(hr))
        fooled = -logsigmoid(fake - real.mean()).mean() - logsigmoid(fake.mean() - real).mean()
        adversarial = fooled / 2
        total = 1e-2 * pixel + perceptual + 5e-3 * adversarial
    assert values.tolist() == pytest.approx(
        [float(v) for v in (total, pixel, perceptual, adversarial)], rel=1e-4
    )


def test_vgg54_is_taken_before_and_after_its_activation(torchvision):
    """conv5_4 is the module 34 of VGG19, its ReLU 35."""
    assert len(vgg_features(RECIPES["esrgan"].layers).network) == 35
    assert len(vgg_features(RECIPES["srgan"].layers).network) == 36


def test_vgg54_is_where_torchvision_has_it():
    models = pytest.importorskip("torchvision").models
    with torch.device("meta"):
        features = models.vgg19(weights=None).features
    convs = [index for index, layer in enumerate(features) if isinstance(layer, nn.Conv2d)]
    assert convs[-1] == 34  # the fifth group's fourth convolution is the last
    assert isinstance(features[35], nn.ReLU)


@pytest.mark.parametrize("gan", ["srgan", "esrgan"])
def test_an_adversarial_run_with_torchvisions_own_network(train, tmp_path, monkeypatch, gan):
    models = pytest.importorskip("torchvision").models
    network = models.vgg19
    monkeypatch.setattr(models, "vgg19", lambda weights: network(weights=None))  # ImageNet's would be fetched
    assert train("--gan", gan, "--patch", "32", steps=2) == 0
    found = losses(tmp_path / "out")[2]
    assert all(math.isfinite(value) and value != 0 for value in found.values())


def test_features_are_of_normalised_images_and_are_not_trained(torchvision):
    features, hr = vgg_features(2), uniform(1, 3, 8, 8)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    assert torch.allclose(features(hr), relu(features.network[0]((hr - mean) / std)))
    assert not any(p.requires_grad for p in features.parameters())
    assert not features.network.training


def test_a_generators_step_leaves_the_discriminator_alone(torchvision):
    against, sr = adversary("esrgan"), uniform(2, 3, 32, 32).requires_grad_()
    sum(against.judge(sr, uniform(2, 3, 32, 32, seed=1))).backward()
    assert sr.grad.abs().max() > 0
    parameters = list(against.discriminator.parameters())
    assert all(p.grad is None and p.requires_grad for p in parameters)


@pytest.mark.parametrize("relativistic", [False, True])
def test_a_discriminator_learns_to_tell(torchvision, relativistic):
    against = adversary("esrgan" if relativistic else "srgan")
    real, fake = uniform(4, 3, 32, 32), 0.5 * torch.ones(4, 3, 32, 32)
    found = [float(against.train(real, fake, 1e-3)) for _ in range(12)]
    assert found[-1] < 0.5 * found[0]
    with torch.no_grad():
        assert against.discriminator(real).mean() > against.discriminator(fake).mean()
    step = DiscriminatorStep(nn.Flatten(), relativistic)
    low, high = torch.full((1, 1), -20.0), torch.full((1, 1), 20.0)
    assert float(step(high, low)) == pytest.approx(0, abs=1e-6)
    assert float(step(low, high)) > 10


def test_a_step_without_a_finite_gradient_is_left_out(torchvision):
    against = adversary("srgan")
    before = [p.clone() for p in against.discriminator.parameters()]
    assert math.isnan(against.train(torch.full((2, 3, 32, 32), math.nan), uniform(2, 3, 32, 32), 1e-3))
    assert all(map(torch.equal, before, against.discriminator.parameters()))


def test_a_discriminators_gradient_is_clipped(torchvision):
    norms = {}
    for clip in (1e-3, 1e6):
        against = adversary("srgan", clip=clip)
        against.train(uniform(2, 3, 32, 32), 0.5 * torch.ones(2, 3, 32, 32), 1e-3)
        gradients = [p.grad.norm() for p in against.discriminator.parameters()]
        norms[clip] = float(torch.stack(gradients).norm())
    assert norms[1e6] > 0.1  # as it comes
    assert norms[1e-3] == pytest.approx(1e-3, rel=1e-2)


def test_the_discriminator_is_srgans():
    sizes = [
        (c.in_channels, c.out_channels, c.stride[0])
        for c in Discriminator().features
        if isinstance(c, nn.Conv2d)
    ]
    assert sizes == [
        *((3, 64, 1), (64, 64, 2), (64, 128, 1), (128, 128, 2)),
        *((128, 256, 1), (256, 256, 2), (256, 512, 1), (512, 512, 2)),
    ]
    assert Discriminator().features(uniform(2, 3, 96, 96)).shape == (2, 512, 6, 6)
    assert Discriminator(width=2)(uniform(2, 3, 40, 33)).shape == (2, 1)


# ---- bad input


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--reversible",), "--reversible: for the two directions of a rescaler"),
        (("--loss-weights", "1", "1", "0"), "--loss-weights: for the two directions"),
        (("--latent", "zero"), "edsr_x4 does not take"),
        (("--subnet", "dense"), "edsr_x4 does not take"),
        (("--blocks", "1", "2"), "blocks must be an integer"),
        (("--gan", "esrgan"), "--patch of at least 32"),
        (("--gan", "esrgan", "--patch", "32", "--precision", "fp16"), "another --precision than fp16"),
        (("--gan", "esrgan", "--patch", "32"), "torchvision's VGG19, which cannot be imported"),
        (("--gan", "esrgan", "--patch", "32", "--model", "iirn_x4"), "iirn_x4 is a rescaler"),
    ],
)
def test_what_does_not_fit_is_one_line(train, monkeypatch, capsys, arguments, says):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    assert train(*arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line


def test_a_demo_shows_a_rescaler(tmp_path, capsys):
    assert program.main(["--demo", "--model", "edsr_x4", "--blocks", "1", "--out", str(tmp_path / "d")]) == 2
    assert "edsr_x4 is a super-resolver" in capsys.readouterr().err


def test_an_unknown_loss_is_refused_by_the_command_line(train):
    with pytest.raises(SystemExit) as caught:
        train("--gan", "wgan")
    assert caught.value.code == 2


def test_weights_that_cannot_be_fetched_are_one_line(train, torchvision, monkeypatch, capsys):
    def offline(weights):
        raise OSError("no route to host")

    monkeypatch.setattr(sys.modules["torchvision.models"], "vgg19", offline)
    assert train("--gan", "srgan", "--patch", "32") == 2
    assert "no route to host" in capsys.readouterr().err
    with pytest.raises(OSError, match="no route"):
        vgg_features(3)
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    with pytest.raises(OptionError, match="install the torchvision"):
        vgg_features(3)
