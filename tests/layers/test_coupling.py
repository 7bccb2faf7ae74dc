"""Couplings: exactness, the published formula, and sub-networks of any kind."""

import itertools
import math

import pytest
import torch
from hypothesis import example, given, strategies as st
from torch import Tensor, nn

from invertible_rescaling import CRDB, AdditiveCoupling, AffineCoupling, DenseBlock, InvertibleSequential
from invertible_rescaling.errors import ConfigError, DtypeError, ShapeError
from invertible_rescaling.testing import check_invertible, check_log_det, randomize
from tests.strategies import DTYPES, SUBNETS, SmallConv, couplings, largest_difference, seeds, uniform
from tests.tolerances import AUTOCAST_ROUND_TRIP, LOG_DET, ROUND_TRIP

KINDS = (AffineCoupling, AdditiveCoupling)


@given(case=couplings(gains=(0.5, 1.0)))
def test_one_coupling_is_undone_at_gain_half_and_one(case) -> None:
    layer, x = case.build()
    check_invertible(layer, x, tolerance=ROUND_TRIP[case.dtype])


@given(
    depth=st.sampled_from((2, 3, 5, 8)),
    channels=st.integers(2, 12),
    split_of=st.floats(0, 1),
    subnets=st.lists(st.sampled_from(sorted(SUBNETS)), min_size=1, max_size=3),
    seed=seeds,
    dtype=st.sampled_from(DTYPES),
)
@example(depth=32, channels=12, split_of=0.2, subnets=sorted(SUBNETS), seed=0, dtype=torch.float32)
@example(depth=32, channels=7, split_of=0.9, subnets=sorted(SUBNETS), seed=1, dtype=torch.float64)
def test_stacks_of_up_to_32_mixed_couplings_are_undone(
    depth, channels, split_of, subnets, seed, dtype
) -> None:
    split = 1 + round(split_of * (channels - 2))
    apart = {"conv", "rrdb"} if 2 * split == channels else {"conv"}  # these have tests of their own
    subnets = [name for name in subnets if name not in apart] or ["own"]
    kinds = itertools.cycle(itertools.product(KINDS, subnets))
    layers = [kind(channels, split, SUBNETS[name]) for kind, name in itertools.islice(kinds, depth)]
    stack = randomize(InvertibleSequential(*layers).to(dtype), 0.5, seed)
    check_invertible(stack, uniform(2, channels, 4, 5, seed=seed, dtype=dtype), tolerance=ROUND_TRIP[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("depth", "channels"), [(1, 12), (8, 2), (8, 12), (32, 2)])
def test_stacks_of_rrdb_between_equal_halves_are_undone(depth: int, channels: int, dtype) -> None:
    """Between equal channels an RRDB has no projection, and so the gain of its skip connection."""
    layers = [AffineCoupling(channels, channels // 2, SUBNETS["rrdb"]) for _ in range(depth)]
    stack = randomize(InvertibleSequential(*layers).to(dtype), 0.5)
    check_invertible(stack, uniform(2, channels, 4, 5, dtype=dtype), tolerance=ROUND_TRIP[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("depth", "gain"), [(2, 1.0), (8, 0.5), (32, 0.2)])
def test_stacks_of_single_convolutions_are_undone(depth, gain, dtype) -> None:
    """Nothing between input and output halves their gain, so that fewer can be stacked."""
    layers = [AffineCoupling(12, 3, SUBNETS["conv"]) for _ in range(depth)]
    stack = randomize(InvertibleSequential(*layers).to(dtype), gain)
    check_invertible(stack, uniform(2, 12, 8, 8, dtype=dtype), tolerance=ROUND_TRIP[dtype])


@given(case=couplings(max_channels=4, max_side=3, max_batch=2, dtypes=(torch.float64,)))
def test_log_det_agrees_with_the_jacobian_both_ways(case) -> None:
    layer, x = case.build()
    check_log_det(layer, x, tolerance=LOG_DET[case.dtype])


class Times(nn.Module):
    """The 1x1 network x -> factor * mean over channels, whose coupling can be worked out by hand."""

    def __init__(self, factor: float, out_channels: int) -> None:
        super().__init__()
        self.factor, self.out_channels = factor, out_channels

    def forward(self, x: Tensor) -> Tensor:
        return (self.factor * x.mean(dim=1, keepdim=True)).expand(-1, self.out_channels, -1, -1)


def _by_hand(factors: list[float]):
    remaining = iter(factors)
    return lambda _, out_channels: Times(next(remaining), out_channels)


def test_affine_formula_by_hand() -> None:
    clamp, (phi, rho, eta) = 0.7, (0.5, 3.0, -2.0)
    coupling = AffineCoupling(2, 1, _by_hand([phi, rho, eta]), clamp=clamp)
    x1, x2 = 0.25, 0.8
    y1 = x1 + phi * x2
    s = clamp * (2 / (1 + math.exp(-rho * y1)) - 1)
    y2 = x2 * math.exp(s) + eta * y1
    y, log_det = coupling.forward_with_log_det(torch.tensor([x1, x2], dtype=torch.float64).view(1, 2, 1, 1))
    assert y.flatten().tolist() == pytest.approx([y1, y2], abs=1e-14)
    assert log_det.tolist() == pytest.approx([s], abs=1e-14)
    x, inverse_log_det = coupling.inverse_with_log_det(y)
    assert x.flatten().tolist() == pytest.approx([x1, x2], abs=1e-14)
    assert inverse_log_det.tolist() == pytest.approx([-s], abs=1e-14)


def test_additive_formula_by_hand() -> None:
    coupling = AdditiveCoupling(2, 1, _by_hand([0.5, -2.0]))
    y, log_det = coupling.forward_with_log_det(torch.tensor([0.25, 0.5]).view(1, 2, 1, 1))
    assert y.flatten().tolist() == [0.5, -0.5]
    assert log_det.tolist() == [0.0]


@pytest.mark.parametrize("clamp", [0.1, 1.0, 2.5])
def test_the_clamp_bounds_the_log_scale(clamp: float) -> None:
    coupling = randomize(AffineCoupling(6, 2, SmallConv, clamp=clamp).double(), gain=100)
    x = uniform(2, 6, 5, 5, dtype=torch.float64)
    _, log_det = coupling.forward_with_log_det(x)
    values = 4 * 5 * 5
    assert float(log_det.detach().abs().max()) <= clamp * values
    # The bound is met where rho saturates to one sign, as it does with a rho that is a large constant.
    with torch.no_grad():
        coupling.rho.second.weight.zero_()
        coupling.rho.second.bias.fill_(1e3)
    assert coupling.forward_with_log_det(x)[1].tolist() == pytest.approx([clamp * values] * 2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("subnet", [CRDB, DenseBlock])
def test_untrained_couplings_are_the_identity(kind, subnet) -> None:
    x = uniform(2, 12, 5, 6)
    layer = kind(12, 3, subnet)
    for out, log_det in (layer.forward_with_log_det(x), layer.inverse_with_log_det(x)):
        assert torch.equal(out, x)
        assert torch.equal(log_det, torch.zeros(2))


def test_phi_rho_and_eta_share_no_weights() -> None:
    coupling = AffineCoupling(12, 3, CRDB)
    networks = [coupling.phi, coupling.rho, coupling.eta]
    pointers = [p.data_ptr() for network in networks for p in network.parameters()]
    assert len(set(pointers)) == len(pointers) == len(list(coupling.parameters()))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("subnet", sorted(SUBNETS))
def test_autocast_runs_only_the_sub_networks_in_bfloat16(kind, subnet: str) -> None:
    layer, x = randomize(kind(12, 3, SUBNETS[subnet])), uniform(2, 12, 8, 8)
    inside: list[torch.dtype] = []
    for network in layer.children():
        network.register_forward_hook(lambda _module, _inputs, out: inside.append(out.dtype))
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        y, log_det = layer.forward_with_log_det(x)
        back, inverse_log_det = layer.inverse_with_log_det(y)
    assert set(inside) == {torch.bfloat16}
    for state in (y, log_det, back, inverse_log_det):
        assert state.dtype == torch.float32
        assert torch.isfinite(state).all()
    assert largest_difference(back, x) <= AUTOCAST_ROUND_TRIP
    assert not torch.equal(y, x)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("channels", "split"), [(3, 0), (3, 3), (3, 4), (3, -1), (3, 1.0), ("3", 1), (1, 1)])
def test_the_split_must_lie_inside_the_channels(kind, channels, split) -> None:
    with pytest.raises(ConfigError, match=f"0 < split < channels.*split={split!r}"):
        kind(channels, split, SmallConv)


@pytest.mark.parametrize("clamp", [0, -1.0, math.inf, math.nan, "1", True, None])
def test_the_clamp_must_be_a_positive_number(clamp) -> None:
    with pytest.raises(ConfigError, match="clamp above 0"):
        AffineCoupling(4, 1, SmallConv, clamp=clamp)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("direction", ["forward", "inverse", "forward_with_log_det", "inverse_with_log_det"])
@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (torch.zeros(4, 6, 6), ShapeError, r"4-d tensor \(B, 4, H, W\).*\(4, 6, 6\)"),
        (torch.zeros(1, 5, 6, 6), ShapeError, r"4 channels.*got 5"),
        (torch.zeros(1, 4, 6, 6, dtype=torch.int64), DtypeError, "torch.int64"),
        (torch.zeros(1, 4, 6, 6, dtype=torch.bfloat16), DtypeError, "torch.bfloat16"),
    ],
)
def test_bad_input_is_named(kind, direction: str, bad: Tensor, error, message: str) -> None:
    with pytest.raises(error, match=message):
        getattr(kind(4, 1, SmallConv), direction)(bad)


@pytest.mark.parametrize("kind", KINDS)
def test_a_sub_network_of_another_size_is_refused(kind) -> None:
    def shrinking(in_channels: int, out_channels: int) -> nn.Module:
        return nn.Conv2d(in_channels, out_channels, 3)

    with pytest.raises(
        ShapeError, match=r"must map \(1, 3, 6, 6\) to \(1, 1, 6, 6\).*returned \(1, 1, 4, 4\)"
    ):
        kind(4, 1, shrinking)(torch.zeros(1, 4, 6, 6))


@pytest.mark.parametrize("kind", KINDS)
def test_a_sub_network_that_would_broadcast_is_refused(kind) -> None:
    def one_channel(in_channels: int, _: int) -> nn.Module:
        return nn.Conv2d(in_channels, 1, 1)

    with pytest.raises(ShapeError, match="returned"):
        kind(6, 3, one_channel)(torch.zeros(1, 6, 4, 4))


@pytest.mark.parametrize("method", ["forward", "inverse", "forward_with_log_det", "inverse_with_log_det"])
def test_a_coupling_whose_subclass_computes_something_else_is_refused_by_name(method: str) -> None:
    with pytest.raises(ConfigError, match=rf"Doubling defines {method}\(\), which .*give steps\(\)"):
        type("Doubling", (AffineCoupling,), {method: lambda self, x: 2 * x})


def test_a_network_that_is_made_or_named_is_refused_with_the_way_out() -> None:
    with pytest.raises(ConfigError, match=r"got 'crdb'; InvertibleRescaler takes names"):
        AffineCoupling(12, 3, "crdb")
    with pytest.raises(ConfigError, match="got a CRDB that is made"):
        AffineCoupling(12, 3, CRDB(3, 9))
