"""Gradients by two ways and how far they are apart: what the tests of reversible backpropagation share."""

import pytest
import torch
from torch import Tensor, nn

from invertible_rescaling import AdditiveCoupling, AffineCoupling, InvertibleModule, InvertibleSequential
from invertible_rescaling.layers import reversible_forward, reversible_inverse
from invertible_rescaling.testing import randomize
from tests.strategies import SUBNETS, SmallConv, uniform

# Norm of the difference from plain gradients, relative to their norm: each tensor's in float64. In float32
# and bfloat16 it is that of all together, since of a tensor that is next to nothing no digit is right there.
GRADIENT = {torch.float64: 1e-8, torch.float32: 1e-4}
AUTOCAST_GRADIENT = 5e-2


def plainly(flow: InvertibleModule, direction: str, x: Tensor) -> Tensor:
    return flow(x) if direction == "forward" else flow.inverse(x)


def reversibly(flow: InvertibleModule, direction: str, x: Tensor) -> Tensor:
    return (reversible_forward if direction == "forward" else reversible_inverse)(flow, x)


def gradients(module: nn.Module, x: Tensor, compute) -> dict[str, Tensor]:
    """Gradients of a scalar of ``compute(x)`` by all names, of those tensors that get any."""
    module.zero_grad()
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    out = compute(x)
    (out if out.dim() == 0 else (out * (out + uniform(*out.shape, dtype=out.dtype))).sum()).backward()
    named = {"the input": x} | dict(module.named_parameters())
    return {name: t.grad.detach().clone() for name, t in named.items() if t.grad is not None}


def difference(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    assert found.keys() == expected.keys()
    pairs = [(found[name].flatten(), expected[name].flatten()) for name in expected]
    a, b = (torch.cat(tensors) for tensors in zip(*pairs, strict=True))
    if a.dtype == torch.float64:
        least = 1e-6 * b.norm()  # a bias before a batch norm has the gradient zero
        return max(float((a - b).norm() / b.norm().clamp_min(least)) for a, b in pairs)
    return float((a - b).norm() / b.norm())


def assert_same_gradients(flow: InvertibleModule, x: Tensor, direction: str) -> None:
    expected = gradients(flow, x, lambda x: plainly(flow, direction, x))
    found = gradients(flow, x, lambda x: reversibly(flow, direction, x))
    assert difference(found, expected) <= GRADIENT[x.dtype]


def stack(
    depth: int = 3, subnet: str = "own", channels: int = 4, dtype=torch.float64
) -> InvertibleSequential:
    kinds = (AffineCoupling, AdditiveCoupling)
    layers = [kinds[i % 2](channels, 1 + i % (channels - 1), SUBNETS[subnet]) for i in range(depth)]
    return randomize(InvertibleSequential(*layers).to(dtype), 0.5)


X = uniform(2, 4, 5, 6, seed=3, dtype=torch.float64)

BOTH = pytest.mark.parametrize("direction", ["forward", "inverse"])


class Stretch(InvertibleModule):
    """A third party's layer that knows nothing of reversible backpropagation."""

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(0.3))

    def forward(self, x):
        return x * self.log_scale.exp()

    def inverse(self, y):
        return y * (-self.log_scale).exp()

    def forward_with_log_det(self, x):
        return self(x), self.log_scale * x[0].numel() * x.new_ones(x.shape[0])

    def inverse_with_log_det(self, y):
        return self.inverse(y), -self.forward_with_log_det(y)[1]


class DoublingSequence(InvertibleSequential):
    def forward(self, x):
        return 2 * super().forward(x)

    def inverse(self, y):
        return super().inverse(y / 2)


class Normed(SmallConv):
    def __init__(self, in_channels: int, out_channels: int, norm=nn.BatchNorm2d) -> None:
        super().__init__(in_channels, out_channels)
        self.norm = norm(6, track_running_stats=True)

    def forward(self, x):
        return self.second(torch.tanh(self.norm(self.first(x))))
