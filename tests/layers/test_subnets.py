"""The sub-networks: shapes, initial values and the layout of the papers."""

from functools import partial

import pytest
import torch
from hypothesis import given, strategies as st
from torch import nn

from invertible_rescaling import CRDB, RRDB, ChannelAttention, Conv, DenseBlock, InvertibleRescaler
from invertible_rescaling.errors import ConfigError, ShapeError
from invertible_rescaling.testing import randomize
from invertible_rescaling.tiling import receptive_radius_of
from tests.strategies import largest_difference, seeds, uniform

SUBNETS = (CRDB, DenseBlock, RRDB)


def _parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@given(
    subnet=st.sampled_from(SUBNETS),
    sizes=st.tuples(*[st.integers(1, 9)] * 4),
    growth=st.integers(1, 8),
    seed=seeds,
)
def test_height_and_width_are_kept(subnet, sizes, growth: int, seed: int) -> None:
    c_in, c_out, h, w = sizes
    network = randomize(subnet(c_in, c_out, growth=growth), seed=seed)
    out = network(uniform(2, c_in, h, w, seed=seed))
    assert out.shape == (2, c_out, h, w)
    assert torch.isfinite(out).all()
    assert out.abs().max() > 0


@pytest.mark.parametrize("subnet", [*SUBNETS, Conv])
def test_an_untrained_sub_network_returns_zeros(subnet) -> None:
    assert torch.count_nonzero(subnet(9, 3)(uniform(2, 9, 5, 5))) == 0


def test_an_rrdb_without_out_channels_starts_as_a_plain_residual() -> None:
    x = uniform(2, 4, 5, 5)
    # As in ESRGAN, x + 0.2 * body(x), where each of the three untrained dense blocks adds nothing to x.
    assert largest_difference(RRDB(4)(x), 1.2 * x) < 1e-6
    assert RRDB(4).projection is None
    assert not RRDB(4, 4)(x).any()  # given out_channels, it is a sub-network, and starts as zeros


@pytest.mark.parametrize("subnet", SUBNETS)
def test_every_parameter_matters(subnet) -> None:
    network = randomize(subnet(5, 3, growth=8).double())
    network(uniform(2, 5, 7, 7, dtype=torch.float64)).square().sum().backward()
    idle = [name for name, p in network.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    assert idle == []


def test_hidden_weights_are_xavier_normal_times_a_tenth() -> None:
    conv = DenseBlock(45, 3).features.convs[0].requires_grad_(False)
    expected = 0.1 * (2 / (9 * (45 + 32))) ** 0.5
    assert float(conv.weight.std()) == pytest.approx(expected, rel=0.05)
    assert abs(float(conv.weight.mean())) < expected / 20
    assert torch.count_nonzero(conv.bias) == 0


def test_dense_block_is_irns() -> None:
    # Four 3x3 convolutions of growth 32, each reading all before it, and a fifth from the concatenation.
    convs = [(9 * (9 + 32 * i) + 1) * 32 for i in range(4)] + [(9 * (9 + 32 * 4) + 1) * 3]
    assert _parameters(DenseBlock(9, 3)) == sum(convs)


def test_crdb_is_iirns() -> None:
    convs = [(9 * (9 + 32 * i) + 1) * 32 for i in range(3)]
    wide = 9 + 3 * 32
    hidden = wide // 16
    attention = wide * hidden + hidden + hidden * wide + wide
    last = (9 * wide + 1) * 3
    block = CRDB(9, 3)
    assert _parameters(block) == sum(convs) + attention + last
    assert [conv.dilation for conv in block.features.convs] == [1, 2, 4]


def test_crdb_without_its_parts() -> None:
    plain = CRDB(9, 3, dilation=1, attention=False)
    assert [conv.dilation for conv in plain.features.convs] == [1] * 3
    assert not any(isinstance(module, ChannelAttention) for module in plain.modules())
    assert receptive_radius_of(plain) == 4
    whole = CRDB(9, 3)
    assert _parameters(whole) - _parameters(plain) == _parameters(whole.attention)
    config = InvertibleRescaler(2, subnet={"name": "crdb", "dilation": 3, "attention": False}).config
    assert config["subnet"] == {"name": "crdb", "dilation": 3, "attention": False}
    assert InvertibleRescaler(**config).config == config


@pytest.mark.parametrize("bad", [{"dilation": 0}, {"dilation": 1.5}, {"attention": 1}, {"attention": None}])
def test_crdb_refuses_other_options(bad) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad))):
        CRDB(9, 3, **bad)


@pytest.mark.parametrize(
    ("subnet", "receptive_radius"), [(partial(CRDB, attention=False), 1 + 2 + 4 + 1), (DenseBlock, 5)]
)
def test_the_receptive_field_is_that_of_the_paper(subnet, receptive_radius: int) -> None:
    network = randomize(subnet(2, 1).double(), gain=1.0)  # attention would look at the whole image
    x = uniform(1, 2, 25, 25, dtype=torch.float64).requires_grad_()
    network(x)[0, 0, 12, 12].backward()
    rows = x.grad.abs().amax(dim=(0, 1, 3)).nonzero().flatten()
    assert (12 - int(rows.min()), int(rows.max()) - 12) == (receptive_radius, receptive_radius)


def test_channel_attention_by_hand() -> None:
    attention = randomize(ChannelAttention(4, reduction=2).double(), gain=1.0)
    x = uniform(2, 4, 3, 5, dtype=torch.float64)

    def mlp(v: torch.Tensor) -> torch.Tensor:
        first, _, second = attention.mlp
        hidden = (v @ first.weight.flatten(1).T + first.bias).clamp(min=0)
        return hidden @ second.weight.flatten(1).T + second.bias

    weights = torch.sigmoid(mlp(x.mean((2, 3))) + mlp(x.amax((2, 3))))
    assert largest_difference(attention.attention(x).flatten(1), weights) < 1e-14
    assert largest_difference(attention(x), x * weights[..., None, None]) < 1e-14


@pytest.mark.parametrize(("channels", "hidden"), [(105, 6), (32, 2), (16, 1), (3, 1)])
def test_the_attentions_mlp_has_at_least_one_unit(channels: int, hidden: int) -> None:
    assert ChannelAttention(channels).mlp[0].out_channels == hidden


@pytest.mark.parametrize(
    "make",
    [
        *(partial(subnet, *bad) for subnet in SUBNETS for bad in [(0, 3), (3, 0), (3, 3, 0), (3, 1.5)]),
        partial(ChannelAttention, 0),
        partial(ChannelAttention, 4, 0),
        partial(CRDB, 3, 3, reduction=0),
        partial(Conv, 0, 3),
        partial(Conv, 3, 1.5),
    ],
)
def test_sizes_must_be_positive_integers(make) -> None:
    with pytest.raises(ConfigError, match=r"positive integer, got (0|1\.5)"):
        make()


def test_conv_is_one_convolution() -> None:
    network = randomize(Conv(5, 3))
    assert _parameters(network) == 9 * 5 * 3 + 3
    assert receptive_radius_of(network) == 1
    x = uniform(2, 5, 7, 6)
    expected = nn.functional.conv2d(x, network.last.weight, network.last.bias, padding=1)
    torch.testing.assert_close(network(x), expected)


@pytest.mark.parametrize("subnet", [Conv, DenseBlock, CRDB, partial(CRDB, attention=False)])
def test_sub_networks_become_the_convolution_they_are_set_to(subnet) -> None:
    """To float64's last digits, whatever was trained before."""
    network = randomize(subnet(6, 4).double())
    weight, bias = (torch.randn(4, *rest, dtype=torch.float64) for rest in ((6, 3, 3), ()))
    network.set_linear(weight, bias)
    x = uniform(2, 6, 9, 8, dtype=torch.float64)
    torch.testing.assert_close(
        network(x), nn.functional.conv2d(x, weight, bias, padding=1), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("shape", [(4, 7, 3, 3), (3, 6, 3, 3), (4, 6, 1, 1)])
def test_a_convolution_of_another_shape_is_refused(shape) -> None:
    network = Conv(6, 4)
    with pytest.raises(ShapeError, match=r"needs a kernel \(4, in_channels, 3, 3\).*got"):
        network.set_linear(torch.zeros(shape), torch.zeros(4))
    with pytest.raises(ShapeError, match="as many biases"):
        network.set_linear(torch.zeros(4, 6, 3, 3), torch.zeros(3))
