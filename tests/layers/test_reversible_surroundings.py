"""Reversible backpropagation among what else PyTorch does to modules, gradients and threads."""

import copy
import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from invertible_rescaling import CRDB, AffineCoupling, HaarDownsampling, Inverse, InvertibleSequential
from invertible_rescaling.errors import ConfigError
from invertible_rescaling.kernels import fast_kernels
from invertible_rescaling.layers import reversible_forward, reversible_inverse
from invertible_rescaling.testing import randomize
from tests.gradients import (
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
from tests.running import in_threads
from tests.strategies import uniform

# ---------------------------------------------------------------------------------- hooks and patched layers


def _patch(name: str):
    def alter(layer):
        method = getattr(layer, name)
        setattr(layer, name, lambda x: 2 * method(x))

    return alter


ALTERATIONS = {
    "a forward hook": lambda layer: layer.register_forward_hook(lambda _, args, out: 2 * out),
    "a hook before": lambda layer: layer.register_forward_pre_hook(lambda _, args: (2 * args[0],)),
    "a patched forward": _patch("forward"),
    "a patched inverse": _patch("inverse"),
    "a backward hook": lambda layer: layer.register_full_backward_hook(lambda _, grads, __: (2 * grads[0],)),
    "a backward hook before": lambda layer: layer.register_full_backward_pre_hook(
        lambda _, grads: (2 * grads[0],)
    ),
}
ALTERED = {
    "a coupling": lambda flow: flow[1],
    "a third party's layer": lambda flow: flow[2],
    "within a turned layer": lambda flow: flow[3].module,
    "a turned layer": lambda flow: flow[3],
    "within a subclass": lambda flow: flow[4][0],
    "a subclass": lambda flow: flow[4],
    "the whole": lambda flow: flow,
}


def _of_all_kinds() -> InvertibleSequential:
    layers = [*stack(2), Stretch(), Inverse(stack(1)), DoublingSequence(*stack(2)), *stack(1)]
    return randomize(InvertibleSequential(*layers).double(), 0.3)


@BOTH
@pytest.mark.parametrize("alteration", ALTERATIONS)
def test_an_altered_coupling_has_plain_gradients(alteration: str, direction: str) -> None:
    flow = _of_all_kinds()
    ALTERATIONS[alteration](flow[1])
    assert_same_gradients(flow, X, direction)


@pytest.mark.parametrize("where", ALTERED)
def test_an_alteration_is_noticed_wherever_it_is(where: str) -> None:
    flow = _of_all_kinds()
    ALTERATIONS["a forward hook"](ALTERED[where](flow))
    assert_same_gradients(flow, X, "forward")


@BOTH
def test_an_altered_module_of_a_layer_that_is_inverted(direction: str) -> None:
    class Mixing(Stretch):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 1, bias=False)

        def forward(self, x):
            return self.conv(x)

        def inverse(self, y):
            return nn.functional.conv2d(y, torch.linalg.inv(self.conv.weight[..., 0, 0])[..., None, None])

    mixing = Mixing()
    flow = randomize(InvertibleSequential(*stack(2), mixing, *stack(1)).double(), 0.3)
    mixing.conv.register_forward_hook(lambda _, args, out: 2 * out)
    assert_same_gradients(flow, X, direction)


def _stretches(y: Tensor) -> int:
    """How many nodes of the graph are reversible stretches."""
    seen, queue = set(), [y.grad_fn]
    while queue:
        node = queue.pop()
        if node is not None and node not in seen:
            seen.add(node)
            queue += [inner for inner, _ in node.next_functions]
    return sum("_Reversible" in node.name() for node in seen)


@BOTH
def test_layers_beside_an_altered_one_are_run_reversibly(direction: str) -> None:
    flow = stack(5)
    assert _stretches(reversibly(flow, direction, X)) == 1
    ALTERATIONS["a forward hook"](flow[2])
    assert _stretches(reversibly(flow, direction, X)) == 2
    ALTERATIONS["a forward hook"](flow)
    assert _stretches(reversibly(flow, direction, X)) == 0


def test_a_hook_on_a_coupling_is_called_as_often_as_plainly() -> None:
    flow, calls = stack(3), []
    flow[1].register_full_backward_hook(lambda *_: calls.append("backward"))
    flow[1].register_forward_hook(lambda *_: calls.append("forward"))
    gradients(flow, X, flow)
    plain = list(calls)
    gradients(flow, X, lambda x: reversible_forward(flow, x))
    assert calls == 2 * plain == 2 * ["forward", "backward"]


def test_global_hooks_are_heard() -> None:
    flow, calls = stack(2), []

    def double(module, args, out):
        calls.append(type(module).__name__)
        return 2 * out if isinstance(module, AffineCoupling) else None

    handle = nn.modules.module.register_module_forward_hook(double)
    try:
        expected = gradients(flow, X, flow)
        plain = list(calls)
        found = gradients(flow, X, lambda x: reversible_forward(flow, x))
    finally:
        handle.remove()
    assert difference(found, expected) <= GRADIENT[torch.float64]
    assert calls == 2 * plain


def test_a_coupling_with_an_altered_network_runs_plainly() -> None:
    flow = stack(3)
    flow[1].phi.forward = lambda x, phi=flow[1].phi: 2 * type(phi).forward(phi, x)
    assert _stretches(reversible_forward(flow, X)) == 2
    assert_same_gradients(flow, X, "forward")


# ------------------------------------------------------------------------------------------ parametrizations


def _with_weight_norm() -> InvertibleSequential:
    flow = stack(2)
    weight_norm(flow[1].phi.first)
    return flow


@BOTH
def test_parametrized_weights(direction: str) -> None:
    assert_same_gradients(_with_weight_norm(), X, direction)


@BOTH
def test_cached_parametrizations_are_refused(direction: str) -> None:
    flow = _with_weight_norm()
    with parametrize.cached(), pytest.raises(ConfigError, match="cached"):
        reversibly(flow, direction, X)
    y = reversibly(flow, direction, X)
    with parametrize.cached(), pytest.raises(ConfigError, match="cached"):
        y.sum().backward()
    with parametrize.cached():
        assert_same_gradients(stack(2), X, direction)  # nothing there to be cached
        with torch.no_grad():
            reversibly(flow, direction, X)


def _old_spectral_norm(module: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.utils.spectral_norm(module)


@pytest.mark.parametrize("norm", [spectral_norm, _old_spectral_norm])
@BOTH
def test_spectral_norm_in_training_is_refused_by_name(direction: str, norm) -> None:
    flow = stack(2)
    norm(flow[1].phi.first).double()
    before = copy.deepcopy(flow.state_dict())
    with pytest.raises(ConfigError, match=r"layers\.1\.phi\.first.*singular vectors.*eval\(\)"):
        reversibly(flow, direction, X)
    assert all(torch.equal(t, before[name]) for name, t in flow.state_dict().items())
    assert_same_gradients(flow.eval(), X, direction)
    assert all(torch.equal(t, before[name]) for name, t in flow.state_dict().items())


# ------------------------------------------------------------------------- batched gradients and forward mode


@BOTH
def test_batched_gradients(direction: str) -> None:
    flow = randomize(InvertibleSequential(*stack(2), Stretch(), *stack(1)).double(), 0.3)
    x = X.clone().requires_grad_()
    several = uniform(3, *X.shape, seed=5, dtype=torch.float64)
    inputs = [x, *flow.parameters()]
    found = [
        torch.autograd.grad(run(flow, direction, x), inputs, several, is_grads_batched=True)
        for run in (plainly, reversibly)
    ]
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("size", [6, 40])
def test_batched_gradients_through_networks_with_kernels_of_their_own(size: int) -> None:
    flow = randomize(InvertibleSequential(*(AffineCoupling(4, 1, CRDB) for _ in range(2))), 0.3)
    x = uniform(1, 4, size, size).requires_grad_()
    several = uniform(2, *x.shape, seed=5)
    y, inputs = reversible_forward(flow, x), [x, *flow.parameters()]
    found = torch.autograd.grad(y, inputs, several, is_grads_batched=True)
    with fast_kernels(False):
        for i, grad in enumerate(several):
            expected = torch.autograd.grad(flow(x), inputs, grad)
            a, b = (torch.cat([t.flatten() for t in ts]) for ts in ([f[i] for f in found], expected))
            assert float((a - b).norm() / b.norm()) <= GRADIENT[torch.float32]


def test_vectorised_jacobians() -> None:
    flow, x = stack(2), X[:1, :, :2, :2].contiguous()
    jacobian = torch.autograd.functional.jacobian
    found = jacobian(lambda x: reversible_forward(flow, x), x, vectorize=True)
    torch.testing.assert_close(found, jacobian(flow, x), rtol=1e-8, atol=1e-10)


# Of PyTorch's own, which scripts its decompositions at the first dual number of a process.
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@BOTH
def test_forward_mode_takes_the_plain_way(direction: str) -> None:
    flow = stack(2)
    with forward_ad.dual_level():
        x = forward_ad.make_dual(X, uniform(*X.shape, seed=5, dtype=torch.float64))
        a, b = (forward_ad.unpack_dual(run(flow, direction, x)).tangent for run in (plainly, reversibly))
    assert torch.equal(a, b)


# ---------------------------------------------------------------------------------------------------- threads


def _grads(flow: InvertibleSequential, parameters: list[nn.Parameter], x: Tensor) -> tuple[Tensor, ...]:
    loss = reversible_inverse(flow, reversible_forward(flow, x).tanh()).square().sum()
    return torch.autograd.grad(loss, parameters)


@pytest.mark.parametrize("shared", [True, False])
def test_threads(shared: bool) -> None:
    first = randomize(
        InvertibleSequential(HaarDownsampling(1), *(AffineCoupling(4, 1, Normed) for _ in range(3))).double(),
        0.3,
    ).eval()
    flows = [first if shared else copy.deepcopy(first) for _ in range(4)]
    xs = [uniform(2, 1, 8, 8, seed=seed, dtype=torch.float64) for seed in range(4)]
    before = {name: id(t) for name, t in [*first.named_parameters(), *first.named_buffers()]}
    parameters = [list(flow.parameters()) for flow in flows]

    def work(i: int) -> tuple[Tensor, ...]:
        return _grads(flows[i], parameters[i], xs[i])

    expected = [work(i) for i in range(4)]
    for each, alone in zip(in_threads(work, 4), expected, strict=True):
        for found in each:
            for a, b in zip(found, alone, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)
    assert {name: id(t) for name, t in [*first.named_parameters(), *first.named_buffers()]} == before


def test_threads_add_up_what_they_find() -> None:
    flow = stack(3, subnet="own")
    xs = [uniform(1, 4, 6, 6, seed=seed, dtype=torch.float64) for seed in range(4)]
    for x in xs:
        reversible_forward(flow, x).square().sum().backward()
    expected = {name: 5 * p.grad for name, p in flow.named_parameters()}
    flow.zero_grad()
    in_threads(lambda i: reversible_forward(flow, xs[i]).square().sum().backward(), 4)
    for name, p in flow.named_parameters():
        torch.testing.assert_close(p.grad, expected[name], rtol=1e-8, atol=1e-10)


def test_a_coupling_with_a_compiled_call_is_still_recomputed() -> None:
    """Compiling what calls a coupling changes none of its methods, and is no reason to store activations."""
    flow = InvertibleSequential(randomize(AffineCoupling(4, 1, CRDB), 0.5))
    flow.layers[0].compile(backend="eager")
    assert _stretches(reversible_forward(flow, X.float())) == 1
    flow.layers[0].forward = flow.layers[0].forward
    assert _stretches(reversible_forward(flow, X.float())) == 0
