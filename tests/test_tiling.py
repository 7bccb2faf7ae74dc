"""Tiles against the whole, and how far the sub-networks reach."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import SUBNETS, SmallConv, uniform
from tolerances import SAME
from torch import nn

from invertible_rescaling import CRDB, RRDB, DenseBlock, InvertibleRescaler, iirn_x4
from invertible_rescaling.errors import ConfigError, ShapeError
from invertible_rescaling.pooling import pooling
from invertible_rescaling.testing import randomize
from invertible_rescaling.tiling import ImageStatistics, reach_of, windows


@given(
    height=st.integers(1, 30), width=st.integers(1, 30), side=st.integers(1, 12), overlap=st.integers(0, 9)
)
def test_every_pixel_belongs_to_one_tile(height: int, width: int, side: int, overlap: int) -> None:
    count = torch.zeros(height, width)
    for window in windows(height, width, side, overlap):
        top, bottom, left, right = window.tile
        count[top:bottom, left:right] += 1
        assert window.cut(count).shape == (
            min(bottom + overlap, height) - max(top - overlap, 0),
            min(right + overlap, width) - max(left - overlap, 0),
        )
    assert torch.equal(count, torch.ones_like(count))


@pytest.mark.parametrize("kind", [CRDB, DenseBlock, RRDB, SmallConv])
def test_the_reach_is_an_upper_bound_that_is_met(kind) -> None:
    network = randomize(kind(2, 1).double(), 2.0)
    if kind is CRDB:
        network.attention = nn.Identity()
    reach = reach_of(network)
    x = torch.rand(1, 2, 2 * reach + 5, 2 * reach + 5, dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(network(x)[0, 0, reach + 2, reach + 2], x)
    rows = grad[0].abs().sum((0, 2)).nonzero()
    assert rows.min() == 2
    assert rows.max() == 2 * reach + 2


def test_the_reach_of_strided_convolutions_is_not_guessed() -> None:
    with pytest.raises(ConfigError, match="overlap="):
        reach_of(nn.Conv2d(3, 3, 3, stride=2))


local_models = st.builds(
    lambda scale, subnet, blocks, correction: randomize(
        InvertibleRescaler(
            scale,
            blocks=blocks,
            subnet=SUBNETS[subnet],
            latent={"name": "wavelet", "correction": correction},
        ),
        0.5,
    ).eval(),
    st.sampled_from([2, 4]),
    st.sampled_from(["dense", "own"]),
    st.integers(0, 1),
    st.sampled_from(["ratio", "none"]),
)


@given(
    model=local_models,
    batch=st.integers(1, 2),
    side=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    tile=st.integers(1, 8),
    seed=st.integers(0, 99),
)
def test_with_the_receptive_field_as_overlap_tiles_equal_the_whole(model, batch, side, tile, seed) -> None:
    hr = uniform(batch, 3, *side, seed=seed)
    options = {"tile": 4 * tile, "overlap": model.receptive_field}
    whole = model.downscale(hr)
    tiled = model.downscale(hr, **options)
    assert tiled.shape == whole.shape
    # A value between two 8-bit levels may fall to either side.
    assert (tiled - whole).abs().max() <= 1.001 / 255
    assert (tiled != whole).float().mean() <= 0.01
    torch.testing.assert_close(
        model.upscale(whole, side, **options), model.upscale(whole, side), atol=SAME[torch.float32], rtol=0
    )


def test_less_overlap_would_be_noticed() -> None:
    model = randomize(InvertibleRescaler(4, blocks=1, subnet="dense"), 0.7).eval()
    lr = uniform(1, 3, 24, 24)
    whole = model.upscale(lr)
    assert (model.upscale(lr, tile=32, overlap=0) - whole).abs().max() > 1e-3
    assert (model.upscale(lr, tile=32, overlap=model.receptive_field) - whole).abs().max() < 1e-5


def test_global_pooling_goes_by_the_whole_image() -> None:
    """With statistics of the image, tiles equal a whole image that goes by the same statistics."""
    model, lr = randomize(iirn_x4(blocks=1), 0.7).eval(), uniform(1, 3, 30, 40)
    options = {"tile": 64, "overlap": model.receptive_field}
    tiled = model.upscale(lr, **options)
    rule = ImageStatistics()
    with pooling(rule), torch.no_grad():
        for window in windows(30, 40, 16, -(-model.receptive_field // 4)):
            piece = window.cut(lr)
            rule.weight = float(piece.shape[-2] * piece.shape[-1])
            model.upscale(piece)
        rule.settle()
        whole = model.upscale(lr)
    torch.testing.assert_close(tiled, whole, atol=SAME[torch.float32], rtol=0)
    own = model.upscale(lr, **options, statistics="tile")
    assert (own - tiled).abs().max() > 1e-4


def test_one_tile_over_everything_is_the_whole() -> None:
    model, hr = randomize(iirn_x4(blocks=1), 0.5).eval(), uniform(2, 3, 34, 50)
    for statistics in ("image", "tile"):
        lr = model.downscale(hr, tile=64, statistics=statistics)
        assert torch.equal(lr, model.downscale(hr))
        sr = model.upscale(lr, (34, 50), tile=64, statistics=statistics)
        torch.testing.assert_close(sr, model.upscale(lr, (34, 50)), atol=1e-6, rtol=0)


def test_a_latent_of_ones_own_is_cut_too() -> None:
    model, lr = randomize(InvertibleRescaler(2, blocks=1, subnet="dense"), 0.5).eval(), uniform(1, 3, 30, 20)
    z = uniform(1, 9, 30, 20, seed=1)
    whole = model.upscale(lr, latent=z)
    tiled = model.upscale(lr, latent=z, tile=16, overlap=model.receptive_field)
    torch.testing.assert_close(tiled, whole, atol=1e-5, rtol=0)
    with pytest.raises(ShapeError, match="same batch, height and width"):
        model.upscale(lr, latent=z[..., :10], tile=16)


def test_tiles_of_a_part_keep_the_plain_modules_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rule for pooling reaches the plain modules and the kernels alike."""
    from invertible_rescaling.kernels import fast_kernels

    model, hr = randomize(iirn_x4(blocks=1), 0.5).eval(), uniform(1, 3, 160, 128)
    lr = model.downscale(hr, tile=128)
    with fast_kernels(False):
        plain = model.downscale(hr, tile=128)
        assert (plain != lr).float().mean() < 0.02
        sr = model.upscale(lr, tile=128)
    torch.testing.assert_close(model.upscale(lr, tile=128), sr, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"tile": 0}, "positive multiple of the scale 4, got 0"),
        ({"tile": 30}, "positive multiple of the scale 4, got 30"),
        ({"tile": 32.0}, "positive multiple"),
        ({"tile": 32, "overlap": -1}, "0 or more HR pixels, got -1"),
        ({"tile": 32, "statistics": "global"}, '"image" or "tile", got \'global\''),
    ],
)
def test_bad_tiles_are_refused(options, match: str) -> None:
    model = iirn_x4(blocks=0)
    for call in (model.downscale, model.upscale):
        with pytest.raises(ConfigError, match=match):
            call(torch.rand(1, 3, 40, 40), **options)
