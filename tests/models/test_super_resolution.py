"""The networks for comparison: printed sizes, any image, checkpoints, and the two calls of a rescaler."""

import pytest
import torch
from hypothesis import given, strategies as st
from strategies import uniform
from tolerances import ROUND_TRIP, SAME
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate, leaky_relu, pixel_shuffle, relu

from invertible_rescaling import (
    RRDB,
    AffineCoupling,
    DenseBlock,
    InvertibleRescaler,
    create_model,
    iirn_x2,
    list_models,
    load_checkpoint,
    save_checkpoint,
)
from invertible_rescaling.errors import (
    CheckpointError,
    ConfigError,
    DtypeError,
    ShapeError,
    UnknownNameError,
    ValueRangeError,
)
from invertible_rescaling.functional import bicubic_resize, quantize
from invertible_rescaling.models.super_resolution import EDSR, SRCNN, SRResNet, SuperResolver
from invertible_rescaling.testing import randomize

SMALL = {
    "srcnn_x4": {"width": 4},
    "srresnet_x4": {"width": 4, "blocks": 2},
    "srgan_x4": {"width": 4, "blocks": 1},
    "edsr_x4": {"width": 4, "blocks": 2},
    "esrgan_x4": {"width": 4, "blocks": 1, "growth": 2},
}


def small(name: str, seed: int = 0, **options: int) -> SuperResolver:
    torch.manual_seed(seed)
    return randomize(create_model(name, **(SMALL[name] | options)), 0.5, seed).eval()


@pytest.mark.parametrize(
    ("name", "printed", "digits"),
    [
        ("srcnn_x4", 20.1e3, 100),
        ("srresnet_x4", 1.52e6, 1e4),
        ("srgan_x4", 1.52e6, 1e4),
        ("edsr_x4", 1.52e6, 1e4),
        ("esrgan_x4", 16.7e6, 1e5),
    ],
)
def test_parameters_are_as_many_as_printed(name: str, printed: float, digits: float) -> None:
    with torch.device("meta"):
        model = create_model(name)
    assert round(sum(p.numel() for p in model.parameters()) / digits) == round(printed / digits)


@given(
    name=st.sampled_from(sorted(SMALL)),
    scale=st.sampled_from([2, 4, 8]),
    channels=st.integers(1, 4),
    batch=st.integers(1, 2),
    size=st.tuples(st.integers(1, 21), st.integers(1, 21)),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_images_of_any_size_come_back_at_their_size(name, scale, channels, batch, size, dtype) -> None:
    architecture = type(small(name))
    model = architecture(scale, channels, **SMALL[name]).to(dtype).eval()
    hr = uniform(batch, channels, *size, dtype=dtype)
    before = hr.clone()
    lr = model.downscale(hr)
    assert lr.shape == (batch, channels, *(-(-side // scale) for side in size))
    assert torch.equal(quantize(lr), lr)
    sr = model.upscale(lr, size)
    assert sr.shape == hr.shape
    assert sr.dtype == dtype
    assert 0 <= sr.min() <= sr.max() <= 1
    assert torch.equal(hr, before)
    assert model(lr).shape[-2:] == tuple(scale * side for side in lr.shape[-2:])


def test_lr_is_bicubic_at_8_bits() -> None:
    hr = uniform(1, 3, 24, 32)
    assert torch.equal(small("edsr_x4").downscale(hr), quantize(bicubic_resize(hr, (6, 8))))


def test_untrained_esrgan_enlarges_what_its_first_convolution_sees() -> None:
    """Its blocks start as near identities: the trunk's last convolution alone changes the features."""
    model = create_model("esrgan_x4", **SMALL["esrgan_x4"])
    features = uniform(1, 4, 5, 5)
    torch.testing.assert_close(model.body[0](features), 1.2 * features)


# ---- what each computes, written down once more from its paper


def run(layer: nn.Module, x: Tensor) -> Tensor:
    """A convolution of odd size over zero padding."""
    return conv2d(x, layer.weight, layer.bias, padding=layer.weight.shape[-1] // 2)


def residual(block: nn.Module, x: Tensor) -> Tensor:
    """Lim et al. 2017, Fig. 2c."""
    return x + run(block.second, relu(run(block.first, x)))


def dense(block: nn.Module, x: Tensor) -> Tensor:
    """Wang et al. 2018, Fig. 4: five convolutions, each of all features before it; the last is linear."""
    features = [x]
    for layer in block.features.convs:
        features.append(leaky_relu(run(layer, torch.cat(features, 1)), 0.2))
    return run(block.last, torch.cat(features, 1))


def srcnn(model: SuperResolver, lr: Tensor) -> Tensor:
    """Dong et al. 2014, section 3.1: patches, non-linear mapping, reconstruction."""
    y = bicubic_resize(lr, (4 * lr.shape[2], 4 * lr.shape[3]))
    return run(model.reconstruction, relu(run(model.mapping, relu(run(model.patches, y)))))


def edsr(model: SuperResolver, lr: Tensor) -> Tensor:
    """Lim et al. 2017, Fig. 3, and section 4.1: DIV2K's mean is subtracted."""
    mean = torch.tensor((0.4488, 0.4371, 0.4040)).view(1, 3, 1, 1)
    head = run(model.first, lr - mean)
    y = head
    for block in model.body[:-1]:
        y = residual(block, y)
    y = head + run(model.body[-1], y)
    for layer in (model.enlarge[0], model.enlarge[2]):
        y = pixel_shuffle(run(layer, y), 2)
    return run(model.last, y) + mean


def srresnet(model: SuperResolver, lr: Tensor) -> Tensor:
    """Without batch norm, and with the bilinear base that fits Mo & Chen's Table 2."""
    y = leaky_relu(run(model.first, lr), 0.1)
    for block in model.body:
        y = residual(block, y)
    for layer in (model.enlarge[0], model.enlarge[3]):
        y = leaky_relu(pixel_shuffle(run(layer, y), 2), 0.1)
    y = run(model.last, leaky_relu(run(model.full_size, y), 0.1))
    return y + interpolate(lr, scale_factor=4, mode="bilinear")


def esrgan(model: SuperResolver, lr: Tensor) -> Tensor:
    """Wang et al. 2018, section 3.1: residual scaling by 0.2 twice, a skip over the trunk."""
    head = run(model.first, lr)
    trunk = head
    for group in model.body[:-1]:
        y = trunk
        for block in group.blocks:
            y = y + 0.2 * dense(block, y)
        trunk = trunk + 0.2 * y
    y = head + run(model.body[-1], trunk)
    for layer in model.enlarge:
        y = leaky_relu(run(layer, y.repeat_interleave(2, 2).repeat_interleave(2, 3)), 0.2)
    return run(model.last, leaky_relu(run(model.full_size, y), 0.2))


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "written"),
    [
        *(("srcnn_x4", srcnn), ("srresnet_x4", srresnet), ("srgan_x4", srresnet)),
        *(("edsr_x4", edsr), ("esrgan_x4", esrgan)),
    ],
)
def test_each_computes_what_its_paper_says(name: str, written) -> None:
    model = create_model(name, **(SMALL[name] | ({} if name == "srcnn_x4" else {"blocks": 2})))
    model = randomize(model.double(), 1.0).eval()
    lr = uniform(2, 3, 5, 6, dtype=torch.float64)
    out = model(lr)
    assert out.std() > 0.01
    torch.testing.assert_close(out, written(model, lr), atol=SAME[torch.float64], rtol=0)


@pytest.mark.parametrize("name", sorted(SMALL))
def test_checkpoints_bring_them_back(name: str, tmp_path) -> None:
    model, lr = small(name), uniform(1, 3, 5, 6)
    path = tmp_path / "model.safetensors"
    save_checkpoint(model, path)
    twin = load_checkpoint(path, kind=SuperResolver)
    assert type(twin) is type(model)
    assert twin.config == model.config
    filled = create_model(name, weights=path, **SMALL[name])
    for other in (twin, filled):
        assert torch.equal(other.eval().upscale(lr), model.upscale(lr))
    with pytest.raises(CheckpointError, match="not InvertibleRescaler"):
        load_checkpoint(path)


def test_checkpoints_of_other_models_are_refused(tmp_path) -> None:
    edsr, iirn = tmp_path / "edsr.safetensors", tmp_path / "iirn.safetensors"
    save_checkpoint(small("edsr_x4"), edsr)
    save_checkpoint(iirn_x2(blocks=1), iirn)
    with pytest.raises(CheckpointError, match="architecture: file 'edsr', model 'srresnet'"):
        create_model("srresnet_x4", weights=edsr, **SMALL["srresnet_x4"])
    with pytest.raises(CheckpointError, match="another model's"):
        create_model("iirn_x4", weights=edsr)
    with pytest.raises(CheckpointError, match="another model's"):
        create_model("srcnn_x4", weights=iirn)
    with pytest.raises(CheckpointError, match="not SRCNN"):
        load_checkpoint(edsr, kind=SRCNN)
    assert isinstance(load_checkpoint(iirn, kind=nn.Module), InvertibleRescaler)
    assert isinstance(load_checkpoint(edsr, kind=nn.Module), EDSR)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: SRCNN(3), "power of two"),
        (lambda: SRCNN(4, 0), "channels must be an integer of at least 1, got 0"),
        (lambda: SRResNet(blocks=True), "blocks must be an integer"),
        (lambda: create_model("edsr_x4", depth=3), "edsr_x4 does not take"),
        (lambda: create_model("edsr_x4", scale=2), "scale of a named model is fixed"),
        (
            lambda: SuperResolver.from_config({"architecture": "nothing"}),
            "has the architecture 'nothing'; known: edsr",
        ),
        (lambda: SuperResolver.from_config({"architecture": "srcnn", "depth": 3}), "does not take"),
        (lambda: SuperResolver.from_config({}), "has the architecture None"),
    ],
)
def test_what_cannot_be_made_is_said(call, says: str) -> None:
    with pytest.raises((ConfigError, UnknownNameError), match=says):
        call()


def test_wrong_images_are_refused() -> None:
    model = small("srcnn_x4")
    with pytest.raises(ShapeError, match="cannot come from"):
        model.upscale(uniform(1, 3, 4, 4), (17, 16))
    with pytest.raises(ShapeError, match="3 channels"):
        model.downscale(uniform(1, 1, 8, 8))
    with pytest.raises(ShapeError, match="two positive integers"):
        model.upscale(uniform(1, 3, 4, 4), (16,))
    for call in (model.downscale, model.upscale):
        with pytest.raises(ValueRangeError, match="divide 8-bit values by 255"):
            call(255 * uniform(1, 3, 8, 8))
    with pytest.raises(DtypeError):
        model.upscale(torch.zeros(1, 3, 4, 4, dtype=torch.uint8))


@pytest.mark.parametrize("subnet", [RRDB, DenseBlock])
def test_their_blocks_work_in_couplings(subnet: type[nn.Module]) -> None:
    coupling = randomize(AffineCoupling(12, 3, subnet).double(), 0.5)
    x = uniform(2, 12, 6, 5, dtype=torch.float64)
    torch.testing.assert_close(coupling.inverse(coupling(x)), x, atol=ROUND_TRIP[torch.float64], rtol=0)
    assert not torch.allclose(coupling(x), x)


@pytest.mark.parametrize("name", sorted(set(list_models("*_x2")) - {"iirn_x2", "irn_x2"}))
def test_models_made_on_no_device_are_themselves_again(name: str) -> None:
    wanted = create_model(name).eval()
    with torch.device("meta"):
        made = create_model(name).eval()
    made.to_empty(device="cpu").load_state_dict(wanted.state_dict())
    lr = uniform(1, 3, 6, 7)
    outs = [model(lr) if isinstance(model, SuperResolver) else model.upscale(lr) for model in (wanted, made)]
    assert torch.equal(*outs)
