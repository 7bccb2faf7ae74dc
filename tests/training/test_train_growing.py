"""Deeper networks from trained ones."""

import pytest
import torch

from invertible_rescaling import InvertibleRescaler, iirn_x2, iirn_x4, small_x4
from invertible_rescaling.testing import randomize
from invertible_rescaling.training.build import build_model
from invertible_rescaling.training.config import OptionError, TrainingConfig
from invertible_rescaling.training.grow import grow


@pytest.mark.parametrize("blocks", [3, (1, 4), (2, 2)])
def test_a_grown_network_computes_what_the_small_one_does(blocks) -> None:
    small = randomize(iirn_x4(blocks=(1, 2)), 0.5).eval()
    large = grow(small, blocks).eval()
    assert large.blocks == ((3, 3) if blocks == 3 else blocks)
    hr = torch.rand(1, 3, 24, 20)
    lr, z = small(hr)
    for ours, theirs in zip(large(hr), (lr, z), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    torch.testing.assert_close(large.inverse(lr, z), small.inverse(lr, z), rtol=0, atol=0)


def test_what_is_added_is_trained_on() -> None:
    large = grow(randomize(InvertibleRescaler(2, blocks=1), 0.5), 2)
    lr, z = large(torch.rand(1, 3, 16, 16))
    (lr.square().sum() + z.square().sum()).backward()
    added = list(large.flow)[2]
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in added.parameters())


def test_as_many_couplings_are_the_model_itself() -> None:
    model = iirn_x2(blocks=2)
    assert grow(model, 2) is model


def test_the_latent_is_kept() -> None:
    model = iirn_x2(blocks=1, latent={"name": "wavelet", "correction": "none"})
    assert grow(model, 2).config["latent"] == model.config["latent"]


def test_couplings_are_not_left_out() -> None:
    with pytest.raises(OptionError, match=r"--blocks 1 3: the weights have 2 2 couplings a stage"):
        grow(iirn_x4(blocks=2), (1, 3))


def test_shipped_weights_are_grown_by_the_training_program() -> None:
    model = build_model(TrainingConfig(model="small_x4", weights="DEFAULT", blocks=(8,)))
    small = small_x4(weights="DEFAULT")
    assert model.blocks == (8, 8)
    hr = torch.rand(1, 3, 16, 16)
    torch.testing.assert_close(model.downscale(hr), small.downscale(hr), rtol=0, atol=0)
