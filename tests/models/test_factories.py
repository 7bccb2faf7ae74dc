"""The published models: their sizes and what they are made of."""

from functools import partial

import pytest
import torch

from invertible_rescaling import (
    CRDB,
    DenseBlock,
    GaussianLatent,
    WaveletLatent,
    create_model,
    edsr_x4,
    iirn_x2,
    iirn_x4,
    iirn_x8,
    irn_x2,
    irn_x4,
    irn_x8,
    save_checkpoint,
    srresnet_x4,
)
from invertible_rescaling.errors import CheckpointError, ConfigError, UnknownNameError
from invertible_rescaling.images import from_uint8, to_uint8
from invertible_rescaling.models.super_resolution import EDSR
from invertible_rescaling.testing import check_invertible, randomize
from invertible_rescaling.weights.checkpoint import write_checkpoint
from tests.strategies import largest_difference, uint8_image, uniform
from tests.tolerances import ROUND_TRIP

IIRN = {2: iirn_x2, 4: iirn_x4, 8: iirn_x8}
IRN = {2: irn_x2, 4: irn_x4, 8: irn_x8}
EVERY = [*IIRN.values(), *IRN.values()]


def _parameters(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_the_parameter_counts_are_the_papers() -> None:
    assert _parameters(irn_x4()) == 4_355_136
    assert _parameters(iirn_x4()) == 2_683_360
    assert _parameters(irn_x2()) / 1e6 == pytest.approx(1.66, abs=0.01)


@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize(
    ("family", "subnet", "latent"), [(IIRN, CRDB, WaveletLatent), (IRN, DenseBlock, GaussianLatent)]
)
def test_each_model_is_what_its_paper_says(scale: int, family, subnet, latent) -> None:
    model = family[scale]()
    levels = {2: 1, 4: 2, 8: 3}[scale]
    assert (model.scale, model.channels, model.blocks) == (scale, 3, (8,) * levels)
    assert isinstance(model.latent, latent)
    couplings = [layer for layer in model.flow if hasattr(layer, "phi")]
    assert len(couplings) == 8 * levels
    for coupling in couplings:
        assert all(isinstance(net, subnet) for net in (coupling.phi, coupling.rho, coupling.eta))
        assert (coupling.split, coupling.clamp) == (3, 1.0)


@pytest.mark.parametrize("make", EVERY)
def test_an_untrained_model_is_the_plain_wavelet_chain(make) -> None:
    model = make(blocks=1)
    hr = uniform(1, 3, 16, 16)
    with torch.no_grad():
        lr, z = model(hr)
    assert largest_difference(lr, torch.nn.functional.avg_pool2d(hr, model.scale)) < 1e-6
    assert z.shape[1] == model.latent_channels


@pytest.mark.parametrize("make", [irn_x4, iirn_x4, iirn_x8])
def test_the_published_depth_is_exact(make) -> None:
    model = randomize(make()).eval()
    check_invertible(model, uniform(1, 3, 16, 24), tolerance=ROUND_TRIP[torch.float32])
    image = uint8_image(1, 3, 24, 16)
    with torch.no_grad():
        assert torch.equal(to_uint8(model.inverse(*model(from_uint8(image)))), image)


def test_arguments_can_be_overridden() -> None:
    model = iirn_x4(blocks=(2, 1), latent="zero", subnet={"name": "dense", "growth": 4}, clamp=0.5)
    assert model.config == {
        "scale": 4,
        "channels": 3,
        "blocks": [2, 1],
        "subnet": {"name": "dense", "growth": 4},
        "latent": {"name": "zero"},
        "clamp": 0.5,
    }


def test_weights_can_be_a_checkpoints_path(tmp_path) -> None:
    trained = randomize(iirn_x4(blocks=(1, 1)))
    path = tmp_path / "model.safetensors"
    save_checkpoint(trained, path)
    hr = uniform(1, 3, 8, 8)
    for given in (path, str(path)):
        model = iirn_x4(weights=given, blocks=(1, 1), latent="zero")
        assert model.config["latent"] == {"name": "zero"}
        assert torch.equal(model.downscale(hr), trained.downscale(hr))


@pytest.mark.parametrize(
    ("make", "overrides", "message"),
    [
        (iirn_x2, {"blocks": 1}, "scale: file 4, model 2"),
        (iirn_x4, {"blocks": 8}, r"blocks: file \[1, 1\], model \[8, 8\]"),
        (iirn_x4, {"channels": 1}, "channels: file 3, model 1"),
        (iirn_x4, {"subnet": "dense"}, "subnet: file .*crdb.* model .*dense"),
        (irn_x4, {}, "subnet: file .*crdb.* model 'dense'"),
        (edsr_x4, {}, "architecture: file None, model 'edsr'"),
        (irn_x4, {"blocks": (1, 1)}, "subnet: file .*crdb.* model .*dense"),
        (iirn_x4, {"blocks": (1, 1), "clamp": 0.5}, r"clamp: file 1\.0, model 0\.5"),
    ],
)
def test_another_models_weights_are_refused(tmp_path, make, overrides, message: str) -> None:
    path = tmp_path / "model.safetensors"
    save_checkpoint(iirn_x4(blocks=(1, 1)), path)
    with pytest.raises(CheckpointError, match=rf"another model's checkpoint.*{message}"):
        make(weights=path, **overrides)


@pytest.mark.parametrize("make", [iirn_x4, partial(create_model, "iirn_x4")])
def test_a_files_own_sizes_are_taken(tmp_path, make) -> None:
    sizes = {"blocks": (2, 1), "subnet": {"name": "crdb", "growth": 16}, "clamp": 0.5, "latent": "zero"}
    trained, path = randomize(iirn_x4(**sizes)), tmp_path / "model.safetensors"
    save_checkpoint(trained, path)
    model = make(weights=path)
    assert model.config == trained.config
    assert torch.equal(model.downscale(uniform(1, 3, 8, 8)), trained.downscale(uniform(1, 3, 8, 8)))
    assert make(weights=path, latent="wavelet").config["latent"] == {"name": "wavelet"}
    assert make(weights=path, **sizes).config == trained.config
    with pytest.raises(CheckpointError, match=r"subnet: file .*16.*, model \{'name': 'crdb'\}"):
        make(weights=path, subnet="crdb")


def test_other_channels_are_taken_where_they_are_asked_for(tmp_path) -> None:
    save_checkpoint(iirn_x4(blocks=1, channels=1), tmp_path / "grey.safetensors")
    with pytest.raises(CheckpointError, match="channels: file 1, model 3"):
        iirn_x4(weights=tmp_path / "grey.safetensors")
    assert iirn_x4(weights=tmp_path / "grey.safetensors", channels=1).channels == 1


def test_a_super_resolvers_sizes_are_the_files_too(tmp_path) -> None:
    trained, path = randomize(edsr_x4(width=4, blocks=2)), tmp_path / "edsr.safetensors"
    save_checkpoint(trained, path)
    assert edsr_x4(weights=path).config == trained.config
    with pytest.raises(CheckpointError, match="width: file 4, model 8"):
        edsr_x4(weights=path, width=8)
    for make, ours in ((srresnet_x4, "'srresnet'"), (iirn_x4, "None")):
        with pytest.raises(CheckpointError, match=f"architecture: file 'edsr', model {ours}"):
            make(weights=path)
    save_checkpoint(EDSR(2, width=4, blocks=2), path)
    with pytest.raises(CheckpointError, match="scale: file 2, model 4"):
        edsr_x4(weights=path)


def test_who_is_at_fault_is_told_from_a_file_that_cannot_be_built(tmp_path) -> None:
    path = tmp_path / "model.safetensors"
    save_checkpoint(iirn_x4(blocks=1), path)
    with pytest.raises(UnknownNameError, match="wavelt"):
        iirn_x4(weights=path, latent="wavelt")
    with pytest.raises(ConfigError, match=r"iirn_x4 does not take .*'block'"):
        iirn_x4(weights=path, block=1)
    model = iirn_x4(blocks=1)
    config = {**model.config, "latent": {"name": "theirs"}}
    write_checkpoint(path, dict(model.state_dict()), config, {})
    with pytest.raises(CheckpointError, match=r"describes a model that cannot be built here .*theirs"):
        iirn_x4(weights=path)


def test_missing_weights_are_named(tmp_path) -> None:
    with pytest.raises(CheckpointError, match=r"nothing.safetensors.*there is no file"):
        iirn_x4(weights=tmp_path / "nothing.safetensors")


def test_unknown_parts_are_named() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'dense'"):
        iirn_x4(subnet="dens")
