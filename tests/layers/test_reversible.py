"""Reversible backpropagation: plain autograd's gradients, and a memory that depth does not change."""

import copy

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor, nn

from invertible_rescaling import (
    AdditiveCoupling,
    AffineCoupling,
    HaarDownsampling,
    Inverse,
    InvertibleModule,
    InvertibleRescaler,
    InvertibleSequential,
    RescalingLoss,
)
from invertible_rescaling.errors import ConfigError
from invertible_rescaling.kernels.dispatch import is_ordinary
from invertible_rescaling.layers import reversible_forward, reversible_inverse
from invertible_rescaling.testing import randomize
from tests.gradients import (
    AUTOCAST_GRADIENT,
    BOTH,
    GRADIENT,
    DoublingSequence,
    Normed,
    Stretch,
    X,
    assert_same_gradients,
    difference,
    gradients,
    plainly,
    reversibly,
    stack,
)
from tests.strategies import DTYPES, SUBNETS, SmallConv, rescalers, seeds, uniform

# ----------------------------------------------------------------------------------------- equal gradients


@BOTH
@given(
    kinds=st.lists(st.sampled_from(["affine", "additive", "stretch"]), min_size=1, max_size=4),
    turned=st.integers(0, 15),
    channels=st.integers(2, 8),
    subnet=st.sampled_from(sorted(SUBNETS)),
    seed=seeds,
    dtype=st.sampled_from(DTYPES),
    size=st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 6)),
)
def test_gradients_of_any_stack_are_plain_ones(
    direction, kinds, turned, channels, subnet, seed, dtype, size
) -> None:
    make = {
        "affine": lambda i: AffineCoupling(channels, 1 + i % (channels - 1), SUBNETS[subnet]),
        "additive": lambda i: AdditiveCoupling(channels, 1 + i % (channels - 1), SUBNETS[subnet]),
        "stretch": lambda i: Stretch(),
    }
    layers = [make[kind](i) for i, kind in enumerate(kinds)]
    layers = [Inverse(layer) if turned >> i & 1 else layer for i, layer in enumerate(layers)]
    flow = randomize(InvertibleSequential(*layers).to(dtype), 0.5, seed)
    assert_same_gradients(flow, uniform(size[0], channels, *size[1:], seed=seed, dtype=dtype), direction)


@given(case=rescalers(scales=(2, 4), max_blocks=2, max_side=3, max_batch=2))
def test_gradients_of_the_whole_loss_are_plain_ones(case) -> None:
    """Both directions, the 8-bit LR between them with its many equal values, and the latent."""
    model, hr = case.build()
    loss = RescalingLoss()
    found = [
        gradients(model.enable_reversible_backprop(on), hr, lambda x: loss(model, x).total) for on in (0, 1)
    ]
    assert difference(found[1], found[0]) <= GRADIENT[case.dtype]


class Peaked(SmallConv):
    """Weighs by maxima, as channel attention does."""

    def forward(self, x):
        return super().forward(x) * x.amax(dim=(1, 2, 3), keepdim=True)


@BOTH
def test_equal_maxima_of_the_input_share_their_gradient(direction: str) -> None:
    """As in an 8-bit image; each reconstructed from the output would be off by another rounding."""
    coarse = (3 * X).round() / 3
    assert int((coarse == coarse.amax(dim=(2, 3), keepdim=True)).sum()) >= 4 * coarse[..., 0, 0].numel()
    flow = InvertibleSequential(*(AffineCoupling(4, 2, Peaked) for _ in range(3))).double()
    assert_same_gradients(randomize(flow, 0.5), coarse, direction)


@pytest.mark.parametrize("subnet", sorted(SUBNETS))
def test_gradients_under_autocast(subnet: str) -> None:
    """Also on an image large enough for the kernels that autocast has for inference alone."""
    model = randomize(InvertibleRescaler(2, blocks=4, subnet=SUBNETS[subnet]))
    hr = uniform(1, 3, 64, 64)

    def loss(x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return RescalingLoss()(model, x).total

    expected = gradients(model, hr, loss)
    found = gradients(model.enable_reversible_backprop(), hr, loss)
    assert difference(found, expected) <= AUTOCAST_GRADIENT
    exact = gradients(model, hr, lambda x: RescalingLoss()(model, x).total)
    assert 0 < difference(found, exact) <= 2 * AUTOCAST_GRADIENT  # that is, bfloat16 was used at all


@pytest.mark.parametrize("backward_inside", [False, True])
@BOTH
def test_autocast_hands_no_weight_without_a_graph_to_a_later_call(direction, backward_inside) -> None:
    flow, x = stack(dtype=torch.float32), X.float()

    def twice(run):
        def compute(x):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                out = run(flow, direction, x).sum() + plainly(flow, direction, x).square().sum()
                if backward_inside:
                    out.backward(retain_graph=True)
            return out

        return compute

    expected = gradients(flow, x, twice(plainly))
    assert difference(gradients(flow, x, twice(reversibly)), expected) <= AUTOCAST_GRADIENT


@pytest.mark.parametrize("autocast", [False, True])
def test_what_autocast_computes_again_it_computes_the_same_way(autocast: bool) -> None:
    seen = []

    class Probe(SmallConv):
        def forward(self, x):
            seen.append((is_ordinary(x), torch.is_autocast_enabled("cpu")))
            return super().forward(x)

    flow = InvertibleSequential(AffineCoupling(4, 1, Probe))
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        y = reversible_forward(flow, X.float())
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=not autocast):
        y.sum().backward()
    assert seen == 6 * [(not autocast, autocast)]


def _twice(layer: InvertibleModule) -> InvertibleSequential:
    return InvertibleSequential(layer, AffineCoupling(4, 2, SmallConv), layer, Inverse(layer))


STRUCTURES = {
    "one coupling": lambda: AffineCoupling(4, 1, SmallConv),
    "a layer used twice": lambda: _twice(AdditiveCoupling(4, 1, SmallConv)),
    "a layer that is no coupling, used twice": lambda: _twice(Stretch()),
    "nested": lambda: InvertibleSequential(Inverse(InvertibleSequential(stack(2), Stretch())), stack(1)),
    "turned twice": lambda: Inverse(Inverse(stack(2))),
    "a subclass of the sequence": lambda: InvertibleSequential(stack(1), DoublingSequence(*stack(2))),
    "Haar steps": lambda: InvertibleSequential(
        HaarDownsampling(4), AffineCoupling(16, 4, SmallConv), Inverse(HaarDownsampling(4)), Stretch()
    ),
    "no parameters": lambda: InvertibleSequential(Inverse(HaarDownsampling(1)), HaarDownsampling(1)),
}


@BOTH
@pytest.mark.parametrize("structure", STRUCTURES)
def test_gradients_of_other_structures(structure: str, direction: str) -> None:
    flow = randomize(STRUCTURES[structure]().double(), 0.5)
    assert_same_gradients(flow, uniform(2, 4, 4, 6, seed=3, dtype=torch.float64), direction)


def test_a_flow_used_twice_in_one_graph() -> None:
    flow = stack()

    def there_and_back(run):
        return lambda x: run(flow, "inverse", run(flow, "forward", x).tanh())

    expected = gradients(flow, X, there_and_back(plainly))
    assert difference(gradients(flow, X, there_and_back(reversibly)), expected) <= 1e-8


@BOTH
@pytest.mark.parametrize("frozen", ["0", "layers.1", "layers.1.phi", "layers.0.phi.first.bias", "layers"])
def test_frozen_parameters_get_none(frozen: str, direction: str) -> None:
    flow = stack()
    for name, parameter in flow.named_parameters():
        parameter.requires_grad_(not name.startswith(frozen))
    assert_same_gradients(flow, X, direction)
    assert all(p.grad is None for p in flow.parameters() if not p.requires_grad)


@BOTH
def test_an_input_without_gradient(direction: str) -> None:
    flow = stack()
    expected = gradients(flow, X, lambda x: plainly(flow, direction, x))
    found = gradients(flow, X, lambda x: reversibly(flow, direction, x.detach()))
    del expected["the input"]
    assert difference(found, expected) <= 1e-8


@pytest.mark.parametrize(
    "lay_out",
    [
        lambda x: x.contiguous(memory_format=torch.channels_last),
        lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
        lambda x: x[:1].expand_as(x),
    ],
)
@BOTH
def test_any_memory_format(direction: str, lay_out) -> None:
    flow, x = stack(), lay_out(X)
    weight = torch.ones((), dtype=x.dtype).expand(x.shape)  # a gradient that is one number in memory
    found = []
    for run in (plainly, reversibly):
        flow.zero_grad()
        (run(flow, direction, x) * weight).sum().backward()
        found.append({name: p.grad.clone() for name, p in flow.named_parameters()})
    assert difference(found[1], found[0]) <= 1e-8


def test_parameter_hooks_run_once() -> None:
    flow, calls = stack(1), []
    for parameter in flow.parameters():
        parameter.register_hook(lambda grad: calls.append(1) or 2 * grad)
    expected = gradients(flow, X, lambda x: flow(x))
    count = len(calls)
    found = gradients(flow, X, lambda x: reversible_forward(flow, x))
    assert len(calls) == 2 * count
    assert difference(found, expected) <= 1e-8


def test_a_graph_that_is_kept_can_be_gone_through_again() -> None:
    flow = stack()
    y = reversible_forward(flow, X).square().sum()
    first = torch.autograd.grad(y, list(flow.parameters()), retain_graph=True)
    again = torch.autograd.grad(y, list(flow.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


# ------------------------------------------------------------------------- networks that are not functions


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("norm", [nn.BatchNorm2d, nn.InstanceNorm2d])
@BOTH
def test_batch_norm_counts_a_batch_once(direction: str, norm, training: bool) -> None:
    layers = [AffineCoupling(4, 2, lambda i, o: Normed(i, o, norm)) for _ in range(2)]
    flow = randomize(InvertibleSequential(*layers).double(), 0.5).train(training)
    other = copy.deepcopy(flow)
    expected = gradients(flow, X, lambda x: plainly(flow, direction, x))
    found = gradients(other, X, lambda x: reversibly(other, direction, x))
    assert difference(found, expected) <= 1e-8
    fresh = nn.BatchNorm2d(6).running_mean
    for (name, counted), buffer in zip(flow.named_buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(buffer, counted, msg=name)
        if name.endswith("mean"):
            assert torch.equal(buffer, fresh.double()) is not training
    assert [name for name, _ in other.named_parameters()] == [name for name, _ in flow.named_parameters()]


def test_an_error_on_the_way_back_leaves_the_modules_as_they_were() -> None:
    flow = randomize(InvertibleSequential(AffineCoupling(4, 2, Normed)).double(), 0.5)
    before = {name: id(t) for name, t in [*flow.named_parameters(), *flow.named_buffers()]}
    y = reversible_forward(flow, X)
    handle = flow[0].phi.second.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        y.sum().backward()
    handle.remove()
    assert {name: id(t) for name, t in [*flow.named_parameters(), *flow.named_buffers()]} == before


@pytest.mark.parametrize("random", [nn.Dropout(0.1), nn.Dropout2d(0.1), nn.RReLU()])
def test_dropout_is_refused_by_name(random: nn.Module) -> None:
    flow = stack(2)
    flow[1].phi = nn.Sequential(flow[1].phi, random)
    for run in (reversible_forward, reversible_inverse):
        with pytest.raises(ConfigError, match=rf"layers\.1\.phi\.1 \({type(random).__name__}.*eval\(\)"):
            run(flow, X)
    with torch.no_grad():
        reversible_forward(flow, X)
    assert_same_gradients(flow.eval(), X, "forward")


@pytest.mark.parametrize("changed", ["output", "a view of the output", "input", "parameter"])
def test_a_change_in_place_is_noticed(changed: str) -> None:
    flow, x = stack(), X.clone()
    y = reversible_forward(flow, x)
    total = y.sum()
    with torch.no_grad():
        {
            "output": y,
            "a view of the output": y[:, :1],
            "input": x,
            "parameter": flow[1].phi.second.bias,
        }[changed].add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        total.backward()


def test_inputs_and_results_are_left_alone() -> None:
    flow, x = stack(), X.clone()
    y = reversible_forward(flow, x)
    kept = y.detach().clone()
    y.square().sum().backward()
    assert torch.equal(x, X)
    assert torch.equal(y, kept)
    assert torch.equal(y, flow(x))
