"""Couplings that read a condition: a bijection for each condition, differentiable in it."""

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
    InvertibleSequential,
)
from invertible_rescaling.errors import ConfigError, DtypeError, InvertibilityError, ShapeError
from invertible_rescaling.kernels import fast_kernels
from invertible_rescaling.layers import reversible_forward, reversible_inverse
from invertible_rescaling.testing import check_invertible, check_log_det, randomize
from tests.gradients import AUTOCAST_GRADIENT, BOTH, GRADIENT, difference
from tests.strategies import DTYPES, SUBNETS, SmallConv, largest_difference, seeds, uniform
from tests.tolerances import LOG_DET, ROUND_TRIP, SAME

KINDS = (AffineCoupling, AdditiveCoupling)
REVERSIBLE = {"forward": reversible_forward, "inverse": reversible_inverse}
DIRECTIONS = ("forward", "inverse", "forward_with_log_det", "inverse_with_log_det")


def condition_of(batch: int, channels: int, *size: int, seed: int = 1, dtype=torch.float64) -> Tensor:
    return uniform(batch, channels, *size, seed=seed, dtype=dtype)


def mixed(depth: int = 3, subnet: str = "own", dtype=torch.float64) -> InvertibleSequential:
    """Both kinds, both ways round, one of every three without a condition."""
    layers: list[InvertibleModule] = []
    for i in range(depth):
        coupling = KINDS[i % 2](4, 1 + i % 3, SUBNETS[subnet], condition_channels=0 if i % 3 == 1 else 2)
        layers.append(Inverse(coupling) if i % 2 else coupling)
    return randomize(InvertibleSequential(*layers).to(dtype), 0.5)


X = uniform(2, 4, 5, 6, seed=3, dtype=torch.float64)
MAP = condition_of(2, 2, 5, 6)
VECTOR = condition_of(2, 2)


class ByCondition(InvertibleModule):
    """A third party's layer with a condition, which knows nothing of reversible backpropagation."""

    condition_channels = 2

    def forward(self, x, condition):
        return x * condition.mean(dim=tuple(range(1, condition.dim()))).exp()[:, None, None, None]

    def inverse(self, y, condition):
        return self.forward(y, -condition)

    def forward_with_log_det(self, x, condition):
        log_scale = condition.mean(dim=tuple(range(1, condition.dim())))
        return self.forward(x, condition), x[0].numel() * log_scale

    def inverse_with_log_det(self, y, condition):
        return self.forward_with_log_det(y, -condition)


# ----------------------------------------------------------------------------------------------- bijections


@given(
    kind=st.sampled_from(KINDS),
    channels=st.integers(2, 12),
    split_of=st.floats(0, 1),
    condition_channels=st.integers(1, 5),
    mapped=st.booleans(),
    subnet=st.sampled_from(sorted(SUBNETS)),
    gain=st.sampled_from((0.5, 1.0)),
    seed=seeds,
    dtype=st.sampled_from(DTYPES),
    size=st.tuples(st.integers(1, 3), st.integers(1, 8), st.integers(1, 8)),
)
def test_a_conditional_coupling_is_undone(
    kind, channels, split_of, condition_channels, mapped, subnet, gain, seed, dtype, size
) -> None:
    split = 1 + round(split_of * (channels - 2))
    layer = kind(channels, split, SUBNETS[subnet], condition_channels=condition_channels).to(dtype)
    batch, *sides = size
    x = uniform(batch, channels, *sides, seed=seed, dtype=dtype)
    condition = condition_of(
        batch, condition_channels, *(sides if mapped else ()), seed=seed + 1, dtype=dtype
    )
    check_invertible(randomize(layer, gain, seed), x, condition=condition, tolerance=ROUND_TRIP[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("depth", "subnet"), [(1, "own"), (2, "crdb"), (4, "dense"), (8, "crdb"), (8, "dense"), (32, "crdb")]
)
def test_stacks_with_and_without_conditions_are_undone(depth: int, subnet: str, dtype) -> None:
    flow = mixed(depth, subnet, dtype)
    for condition in (MAP, VECTOR):
        check_invertible(flow, X.to(dtype), condition=condition.to(dtype), tolerance=ROUND_TRIP[dtype])


@given(
    kind=st.sampled_from(KINDS),
    split=st.integers(1, 2),
    mapped=st.booleans(),
    subnet=st.sampled_from(sorted(SUBNETS)),
    seed=seeds,
    sides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
)
def test_log_det_agrees_with_the_jacobian_both_ways(kind, split, mapped, subnet, seed, sides) -> None:
    layer = randomize(kind(3, split, SUBNETS[subnet], condition_channels=2).double(), 1.0, seed)
    x = uniform(2, 3, *sides, seed=seed, dtype=torch.float64)
    condition = condition_of(2, 2, *(sides if mapped else ()), seed=seed + 1)
    check_log_det(layer, x, condition=condition, tolerance=LOG_DET[torch.float64])


def test_the_checkers_notice_another_condition() -> None:
    class HalfForgetful(InvertibleModule):
        def __init__(self) -> None:
            super().__init__()
            self.coupling = AffineCoupling(4, 1, SmallConv, condition_channels=2)
            self.condition_channels = 2

        def forward(self, x, condition=None):
            return self.coupling(x, condition)

        def forward_with_log_det(self, x, condition=None):
            return self.coupling.forward_with_log_det(x, condition)

        def inverse(self, y, condition=None):
            return self.coupling.inverse(y, condition)

        def inverse_with_log_det(self, y, condition=None):
            return self.coupling.inverse_with_log_det(y, torch.zeros_like(condition))

    class Forgetful(HalfForgetful):
        def inverse(self, y, condition=None):
            return super().inverse(y, torch.zeros_like(condition))

    layer = randomize(Forgetful().double())
    with pytest.raises(InvertibilityError, match="round trip"):
        check_invertible(layer, X, condition=MAP)
    layer = randomize(HalfForgetful().double())
    with pytest.raises(InvertibilityError, match="inverse_with_log_det"):
        check_log_det(layer, X[:, :, :2, :2], condition=VECTOR)


def test_the_networks_read_the_condition_behind_their_half() -> None:
    layer = randomize(AffineCoupling(4, 1, SmallConv, clamp=0.7, condition_channels=2).double())
    y, log_det = layer.forward_with_log_det(X, MAP)
    x1, x2 = X[:, :1], X[:, 1:]
    y1 = x1 + layer.phi(torch.cat((x2, MAP), 1))
    read = torch.cat((y1, MAP), 1)
    s = 0.7 * torch.tanh(layer.rho(read) / 2)
    y2 = x2 * s.exp() + layer.eta(read)
    assert largest_difference(y, torch.cat((y1, y2), 1)) <= 1e-14
    assert largest_difference(log_det, s.sum((1, 2, 3))) <= 1e-12


def test_a_vector_is_a_constant_map() -> None:
    flow = mixed()
    constant = VECTOR[:, :, None, None].expand(-1, -1, 5, 6)
    assert torch.equal(flow(X, VECTOR), flow(X, constant))
    assert not torch.equal(flow(X, VECTOR), flow(X, VECTOR.flip(0)))


def test_a_vector_goes_through_haar_steps() -> None:
    layers = [HaarDownsampling(1), AffineCoupling(4, 1, SmallConv, condition_channels=2), HaarDownsampling(4)]
    flow = InvertibleSequential(*layers, AdditiveCoupling(16, 1, SmallConv, condition_channels=2)).double()
    x = uniform(2, 1, 8, 12, dtype=torch.float64)
    check_invertible(randomize(flow), x, condition=VECTOR)
    assert flow.forward_shape((1, 8, 12)) == (16, 2, 3) == flow(x, VECTOR).shape[1:]
    assert flow.inverse_shape((16, 2, 3)) == (1, 8, 12) == Inverse(flow).forward_shape((16, 2, 3))
    with pytest.raises(ShapeError, match=r"state of \(2, 16, 2, 3\).*\(2, 2, 2, 3\).*got \(2, 2, 4, 6\)"):
        flow(x, condition_of(2, 2, 4, 6))


def test_without_a_condition_nothing_is_added() -> None:
    assert AffineCoupling(4, 1, SmallConv).phi.first.in_channels == 3
    assert AffineCoupling(4, 1, SmallConv, condition_channels=2).phi.first.in_channels == 5
    assert "condition_channels" not in repr(AffineCoupling(4, 1, SmallConv))
    assert "condition_channels=2" in repr(AffineCoupling(4, 1, SmallConv, condition_channels=2))


def test_couplings_may_share_a_sequence_with_third_parties() -> None:
    flow = InvertibleSequential(ByCondition(), mixed(), Inverse(ByCondition())).double()
    assert flow.condition_channels == 2
    check_invertible(flow, X, condition=MAP)
    check_log_det(flow, X[:, :, :2, :2], condition=VECTOR)


# ------------------------------------------------------------------------------------------------ fast paths


@pytest.mark.parametrize("subnet", ["crdb", "dense"])
@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("channels_last", [False, True])
def test_inference_on_large_images_is_what_the_plain_modules_give(subnet, mapped, channels_last) -> None:
    flow = randomize(
        InvertibleSequential(*(AffineCoupling(6, 2, SUBNETS[subnet], condition_channels=3),) * 2)
    )
    layout = torch.channels_last if channels_last else torch.contiguous_format
    x = uniform(1, 6, 40, 48).contiguous(memory_format=layout)
    condition = condition_of(1, 3, *((40, 48) if mapped else ()), dtype=torch.float32)
    with fast_kernels(False):
        expected, expected_log_det = flow.forward_with_log_det(x, condition)
    with torch.no_grad():
        y, log_det = flow.forward_with_log_det(x, condition)
        back = flow.inverse(y, condition)
    assert largest_difference(y, expected) <= SAME[torch.float32]
    assert largest_difference(log_det, expected_log_det) <= 1e-6 * x.numel()
    assert largest_difference(back, x) <= ROUND_TRIP[torch.float32]


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # of jacfwd's own
def test_function_transforms_of_the_condition() -> None:
    flow = mixed().requires_grad_(False)
    found = torch.func.jacrev(lambda c: flow(X, c).sum((1, 2, 3)))(VECTOR)
    with torch.no_grad():
        again = torch.func.jacfwd(lambda c: flow(X, c).sum((1, 2, 3)))(VECTOR)
    c = VECTOR.clone().requires_grad_()
    expected = torch.stack(
        [torch.autograd.grad(v, c, retain_graph=True)[0] for v in flow(X, c).sum((1, 2, 3))]
    )
    assert largest_difference(found, expected) <= 1e-12
    assert largest_difference(again, expected) <= 1e-12
    one_by_one = torch.func.vmap(lambda x, c: flow(x[None], c[None])[0])(X, VECTOR)
    assert largest_difference(one_by_one, flow(X, VECTOR)) <= 1e-12


def test_compiled_into_one_graph() -> None:
    flow = mixed()
    compiled = torch.compile(lambda x, c: flow.inverse(flow(x, c), c), backend="eager", fullgraph=True)
    with torch.no_grad():
        assert largest_difference(compiled(X, MAP), X) <= 1e-12


def test_copies_keep_the_condition() -> None:
    flow = mixed()
    assert torch.equal(copy.deepcopy(flow)(X, MAP), flow(X, MAP))


def test_autocast_leaves_state_and_condition_in_float32() -> None:
    flow = mixed(dtype=torch.float32)
    x, c = X.float(), MAP.float()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        y, log_det = flow.forward_with_log_det(x, c)
        back = flow.inverse(y, c)
    assert y.dtype == log_det.dtype == back.dtype == torch.float32
    assert largest_difference(back, x) <= 5e-2
    assert not torch.equal(y, flow(x, c))


# ------------------------------------------------------------------------------------------------- gradients


@BOTH
@pytest.mark.parametrize("condition", [MAP, VECTOR], ids=["map", "vector"])
def test_gradients_are_those_of_finite_differences(direction: str, condition: Tensor) -> None:
    flow = mixed()
    run = flow if direction == "forward" else flow.inverse
    x, c = (t[..., :2, :2] if t.dim() == 4 else t for t in (X, condition))
    inputs = [t.clone().requires_grad_() for t in (x, c)]
    assert torch.autograd.gradcheck(run, inputs)


def gradients(flow: nn.Module, x: Tensor, condition: Tensor, compute) -> dict[str, Tensor]:
    """Gradients of a scalar by all names: input, condition and parameters."""
    flow.zero_grad()
    x, condition = x.detach().clone().requires_grad_(), condition.detach().clone().requires_grad_()
    out = compute(x, condition)
    (out * (out + uniform(*out.shape, dtype=out.dtype))).sum().backward()
    named = {"the input": x, "the condition": condition} | dict(flow.named_parameters())
    return {name: t.grad.detach().clone() for name, t in named.items() if t.grad is not None}


def both_ways(flow: InvertibleModule, x: Tensor, c: Tensor, direction: str) -> tuple[dict, dict]:
    plain = flow if direction == "forward" else flow.inverse
    found = gradients(flow, x, c, lambda x, c: REVERSIBLE[direction](flow, x, c))
    return found, gradients(flow, x, c, plain)


@BOTH
@given(
    depth=st.integers(1, 3),
    subnet=st.sampled_from(sorted(SUBNETS)),
    mapped=st.booleans(),
    third=st.booleans(),
    haar=st.booleans(),
    seed=seeds,
    dtype=st.sampled_from(DTYPES),
)
def test_reversible_gradients_are_plain_ones(
    direction, depth, subnet, mapped, third, haar, seed, dtype
) -> None:
    layers: list[InvertibleModule] = [ByCondition()] * third + list(mixed(depth, subnet, dtype))
    x, c = X.to(dtype), (MAP if mapped else VECTOR).to(dtype)
    if haar:
        layers = [HaarDownsampling(1), *layers]
        x = Inverse(layers[0])(x) if direction == "forward" else x
    flow = randomize(InvertibleSequential(*layers).to(dtype), 0.5, seed)
    found, expected = both_ways(flow, x, c, direction)
    assert "the condition" in found
    assert difference(found, expected) <= GRADIENT[dtype]


@BOTH
def test_the_condition_alone_may_need_a_gradient(direction: str) -> None:
    """With frozen networks, an input that needs none, and a layer without parameters in front."""
    flow = InvertibleSequential(ByCondition(), mixed(), ByCondition()).requires_grad_(False)
    found, expected = VECTOR.clone().requires_grad_(), VECTOR.clone().requires_grad_()
    REVERSIBLE[direction](flow, X, found).square().sum().backward()
    (flow if direction == "forward" else flow.inverse)(X, expected).square().sum().backward()
    assert largest_difference(found.grad, expected.grad) <= 1e-9 * float(expected.grad.abs().max())


@BOTH
def test_a_condition_without_gradient_gets_none(direction: str) -> None:
    flow, x = mixed(), X.clone().requires_grad_()
    REVERSIBLE[direction](flow, x, MAP).sum().backward()
    assert MAP.grad is None
    assert x.grad is not None


def test_hooked_layers_get_the_condition_by_plain_autograd() -> None:
    flow, heard = mixed(5), []
    flow[2].register_forward_hook(lambda _module, inputs, _out: heard.append(len(inputs)))
    found, expected = both_ways(flow, X, MAP, "forward")
    assert heard == [2, 2]
    assert difference(found, expected) <= GRADIENT[torch.float64]


def test_reversible_gradients_under_autocast() -> None:
    flow = mixed(4, dtype=torch.float32)

    def autocast(run):
        def compute(x, c):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return run(x, c)

        return compute

    x, c = X.float(), MAP.float()
    expected = gradients(flow, x, c, autocast(flow))
    found = gradients(flow, x, c, autocast(lambda x, c: reversible_forward(flow, x, c)))
    assert difference(found, expected) <= AUTOCAST_GRADIENT


def test_many_gradients_at_once() -> None:
    flow, c = mixed(), VECTOR.clone().requires_grad_()
    directions = uniform(3, *X.shape, dtype=torch.float64)
    batched = [
        torch.autograd.grad(y, c, directions, is_grads_batched=True)[0]
        for y in (flow(X, c), reversible_forward(flow, X, c))
    ]
    assert largest_difference(*batched) <= 1e-10


def test_changing_the_condition_before_the_backward_pass_is_an_error() -> None:
    flow, c = mixed(), MAP.clone()
    y = reversible_forward(flow, X, c)
    c.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


# ---------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(
    ("condition", "error", "message"),
    [
        (None, ConfigError, r"takes a condition of 2 channels, \(B, 2, H, W\) or \(B, 2\), got none"),
        (MAP[:1], ShapeError, r"\(2, 2, 5, 6\) or.*\(2, 2\); got \(1, 2, 5, 6\)"),
        (MAP[:, :1], ShapeError, r"got \(2, 1, 5, 6\)"),
        (MAP[..., :5], ShapeError, r"got \(2, 2, 5, 5\)"),
        (MAP[:, :, :1, :1], ShapeError, r"got \(2, 2, 1, 1\)"),
        (MAP[:, :, 0], ShapeError, r"got \(2, 2, 6\)"),
        (MAP.float(), DtypeError, r"condition.to\(torch.float64\)"),
        (MAP.bfloat16(), DtypeError, "got torch.bfloat16"),
        (VECTOR.long(), DtypeError, "got torch.int64"),
        (VECTOR.tolist(), DtypeError, "torch.Tensor, got list"),
    ],
)
def test_wrong_and_missing_conditions_are_named(kind, direction, condition, error, message) -> None:
    layer = kind(4, 1, SmallConv, condition_channels=2).double()
    for module in (layer, Inverse(layer), InvertibleSequential(layer)):
        with pytest.raises(error, match=message):
            getattr(module, direction)(X, condition)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_condition_that_nothing_reads_is_refused(kind, direction: str) -> None:
    layer = kind(4, 1, SmallConv).double()
    for module in (layer, Inverse(layer), InvertibleSequential(layer)):
        with pytest.raises(ConfigError, match="takes no condition"):
            getattr(module, direction)(X, MAP)


@BOTH
def test_reversible_backpropagation_says_the_same(direction: str) -> None:
    with pytest.raises(ConfigError, match="got none"):
        REVERSIBLE[direction](mixed(), X)
    with pytest.raises(ConfigError, match="takes no condition"):
        REVERSIBLE[direction](AffineCoupling(4, 1, SmallConv).double(), X, MAP)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", [-1, 1.0, "2", True, None])
def test_condition_channels_must_be_a_number_of_channels(kind, channels) -> None:
    with pytest.raises(
        ConfigError, match=f"condition_channels to be an integer of at least 0, got {channels!r}"
    ):
        kind(4, 1, SmallConv, condition_channels=channels)


def test_layers_of_a_sequence_share_one_condition() -> None:
    layers = [AffineCoupling(4, 1, SmallConv, condition_channels=k) for k in (2, 0, 3)]
    with pytest.raises(ConfigError, match="got condition_channels of 2 and 3"):
        InvertibleSequential(*layers)
