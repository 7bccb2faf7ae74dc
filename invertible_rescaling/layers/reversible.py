"""Backpropagation through a bijection that keeps its input and its output alone.

Plain autograd keeps every activation of every sub-network until the backward pass, so memory grows with the
number of layers. A bijection needs none of that: walking back from the output, each layer's input is its
inverse, and one sub-network at a time is evaluated again to differentiate it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.spectral_norm import SpectralNorm

from invertible_rescaling.errors import ConfigError
from invertible_rescaling.kernels.dispatch import fast_kernels, is_batched
from invertible_rescaling.kernels.workspace import scratch
from invertible_rescaling.layers.base import InvertibleModule
from invertible_rescaling.layers.conditioning import apply, refuse_needless
from invertible_rescaling.layers.standins import Place, alone_with, standing_in, statistics_at_rest
from invertible_rescaling.layers.undoing import (
    Recomputation,
    ReversibleLayer,
    Step,
    inverse_steps_of,
    steps_of,
    walk_back,
)

__all__ = ["ReversibleLayer", "reversible_forward", "reversible_inverse"]


def reversible_forward(flow: InvertibleModule, x: Tensor, condition: Tensor | None = None) -> Tensor:
    """Compute ``flow(x)``, keeping nothing for the backward pass but ``x``, the condition and the result.

    Gradients are plain autograd's up to rounding: with weights that leave an exact inverse (see
    :func:`~invertible_rescaling.testing.check_invertible`) they differ by less than 1e-8 of their norm in
    float64, 1e-4 in float32 and 5e-2 under autocast to bfloat16, where plain gradients are as far from
    float32's. Where a network has a kink or several equal maxima, rounding may decide for another side.

    Where nothing needs a gradient, inside ``torch.func`` transforms and in forward-mode differentiation, this
    is ``flow(x)``. There are no second derivatives, and changing ``x``, the condition, the result or a
    parameter in place before the backward pass is an error. Gradients reach ``x``, the condition and the
    parameters of ``flow``. Every network in it has to compute the same each time it is given
    the same: dropout and spectral norm in training mode are refused, and batch norm counts a batch once.

    A layer that has hooks or a method replaced on the instance computes what its class does not know the way
    back from: it runs by plain autograd, with its activations kept, between stretches that run reversibly. So
    does every layer under global hooks. Hooks on sub-networks are called anew when these are computed again.
    Threads may share a flow as long as none differentiates it plainly, or lists its parameters, while
    another goes backward.

    Args:
        flow: the bijection, an :class:`~invertible_rescaling.InvertibleSequential` as a rule.
        x: its input.
        condition: what a flow with ``condition_channels`` takes beside it.

    Raises:
        ConfigError: a module of ``flow`` is in training mode and draws at random or iterates, or is
            parametrized and called, here or in the backward pass, within ``parametrize.cached()``.

    Example:
        >>> import torch
        >>> from invertible_rescaling import CRDB, AffineCoupling, InvertibleSequential
        >>> from invertible_rescaling.layers import reversible_forward
        >>> flow = InvertibleSequential(*(AffineCoupling(12, 3, CRDB) for _ in range(8)))
        >>> reversible_forward(flow, torch.rand(1, 12, 8, 8)).square().sum().backward()
        >>> all(parameter.grad is not None for parameter in flow.parameters())
        True
    """
    return _run(flow, flow, steps_of, x, condition)


def reversible_inverse(flow: InvertibleModule, y: Tensor, condition: Tensor | None = None) -> Tensor:
    """Compute ``flow.inverse(y)``, keeping nothing for the backward pass but ``y``, condition and result.

    All that :func:`reversible_forward` says holds here.

    Args:
        flow: the bijection.
        y: the input of its inverse.
        condition: as for :func:`reversible_forward`.

    Raises:
        ConfigError: as for :func:`reversible_forward`.

    Example:
        >>> import torch
        >>> from invertible_rescaling import HaarDownsampling
        >>> from invertible_rescaling.layers import reversible_inverse
        >>> y = torch.rand(1, 4, 2, 2, requires_grad=True)
        >>> reversible_inverse(HaarDownsampling(1), y).sum().backward()
        >>> y.grad.sum(dim=(2, 3))
        tensor([[16.,  0.,  0.,  0.]])
    """
    return _run(flow, flow.inverse, inverse_steps_of, y, condition)


@dataclass(frozen=True)
class _Direction:
    """Steps that run one after the other, and what their backward pass needs to know of them."""

    steps: Sequence[Step]
    modules: Sequence[nn.Module]
    places: Sequence[Place]


def _run(
    flow: InvertibleModule,
    run: Callable[..., Tensor],
    list_steps: Callable[[InvertibleModule], list[Step]],
    x: Tensor,
    condition: Tensor | None,
) -> Tensor:
    refuse_needless(condition, flow.condition_channels, type(flow).__name__)
    given = [x.requires_grad, condition is not None and condition.requires_grad]
    differentiated = any(given) or any(parameter.requires_grad for parameter in flow.parameters())
    if not (differentiated and torch.is_grad_enabled()):
        return apply(flow, run, x, condition)
    if torch.compiler.is_compiling():
        # Here and not as a decorator, which would import the whole compiler with this module.
        record: Callable[..., Tensor] = torch.compiler.disable(_record)  # type: ignore[no-untyped-call]
        return record(flow, list_steps, x, condition)
    if torch._C._are_functorch_transforms_active() or torch.autograd.forward_ad._current_level >= 0:
        return apply(flow, run, x, condition)
    return _record(flow, list_steps, x, condition)


def _record(
    flow: InvertibleModule,
    list_steps: Callable[[InvertibleModule], list[Step]],
    x: Tensor,
    condition: Tensor | None,
) -> Tensor:
    _check_repeatable(flow)
    for altered, steps in groupby(list_steps(flow), lambda step: step.altered):
        if not altered:
            x = _record_stretch(list(steps), x, condition)
            continue
        for step in steps:
            x = step.there(x, condition)
    return x


def _record_stretch(steps: Sequence[Step], x: Tensor, condition: Tensor | None) -> Tensor:
    modules = list(dict.fromkeys(module for step in steps for module in step.module.modules()))
    _check_uncached(modules)
    with alone_with(modules):
        places = [
            (module, name, parameter)
            for module in modules
            for name, parameter in module._parameters.items()
            if parameter is not None
        ]
    parameters = dict.fromkeys(parameter for _, _, parameter in places)
    direction = _Direction(steps, modules, places)
    y: Tensor = _Reversible.apply(direction, x, condition, *parameters)  # type: ignore[no-untyped-call]
    return y


class _Reversible(torch.autograd.Function):
    """Many steps as one node of the graph, whose inputs are ``x``, the condition and the parameters.

    Parameters are inputs so that autograd itself hands their gradients on: whatever hooks wait for them, as
    DistributedDataParallel's do, are called once.
    """

    @staticmethod
    def forward(
        ctx: Any, direction: _Direction, x: Tensor, condition: Tensor | None, *parameters: nn.Parameter
    ) -> Tensor:
        ctx.direction, ctx.parameters = direction, parameters
        ctx.surroundings = _surroundings_now(x)
        with ctx.surroundings(), scratch():
            y = x
            for step in direction.steps:
                y = step.there(y, condition)
        # The parameters are saved for the error that autograd raises if they change before the backward pass.
        ctx.save_for_backward(x, y, condition, *parameters)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        direction: _Direction = ctx.direction
        _check_uncached(direction.modules)
        x, y, condition = ctx.saved_tensors[:3]
        _, needs_x, needs_condition, *needed = ctx.needs_input_grad
        if condition is not None:
            condition = condition.detach().requires_grad_(needs_condition)
        leaves = {
            parameter: nn.Parameter(parameter.detach(), requires_grad=need)
            for parameter, need in zip(ctx.parameters, needed, strict=True)
        }
        # torch.vmap, which batches gradients, has no rules for what the kernels do.
        batched = is_batched(grad_y)
        with (
            alone_with(direction.modules),
            standing_in(direction.places, leaves),
            statistics_at_rest(direction.modules),
            fast_kernels(False) if batched else nullcontext(),
        ):
            others = () if condition is None else (condition,)
            recompute = Recomputation(ctx.surroundings, (*others, *leaves.values()), condition)
            grad_x = walk_back(direction.steps, x, y, grad_y, recompute, to_x=needs_x)
        grad_condition = None if condition is None else condition.grad
        return None, grad_x, grad_condition, *(leaf.grad for leaf in leaves.values())


def _surroundings_now(x: Tensor) -> Callable[[], AbstractContextManager[Any]]:
    """What enters the present autocast state of the tensor's device again, at any time.

    Without autocast's cache of converted weights: not every version of PyTorch keeps one that was converted
    without a graph from whoever differentiates it next, whose gradient is then lost. And without the kernels
    that autocast has for inference alone: what bfloat16 rounds otherwise the second time, the reconstruction
    is off by.
    """
    device = x.device.type
    if not torch.amp.is_autocast_available(device):
        return nullcontext
    enabled, dtype = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)

    @contextmanager
    def surroundings() -> Iterator[None]:
        if not enabled and not torch.is_autocast_enabled(device):
            yield
            return
        kernels = fast_kernels(False) if enabled else nullcontext()
        with torch.autocast(device, dtype, enabled, cache_enabled=False), kernels:
            yield

    return surroundings


def _check_repeatable(flow: nn.Module) -> None:
    for name, module in flow.named_modules():
        if module.training and (does := _what_it_does_anew(module)):
            raise ConfigError(
                f"reversible backpropagation computes every sub-network again, and {name} ({module}) would "
                f"{does}; call eval() on it, take it out, or use plain backpropagation"
            )


def _what_it_does_anew(module: nn.Module) -> str | None:
    """What a module in training mode would not do to the same effect twice, batch norm's counting apart."""
    if isinstance(module, nn.RReLU) or (isinstance(module, _DropoutNd) and module.p > 0):
        return "draw anew"
    by_hook = any(isinstance(hook, SpectralNorm) for hook in module._forward_pre_hooks.values())
    if by_hook or (isinstance(module, _SpectralNorm) and hasattr(module, "_u")):
        return "refine its singular vectors once more"
    return None


def _check_uncached(modules: Iterable[nn.Module]) -> None:
    """Refuse parametrizations within ``cached()``, which would keep weights without their graph."""
    if not parametrize._cache_enabled:
        return
    for module in modules:
        if parametrize.is_parametrized(module):
            raise ConfigError(
                "reversible backpropagation computes parametrized weights again, which parametrize.cached() "
                f"keeps from it, and {type(module).__name__} has such weights; call the model and backward() "
                "outside cached(), or use plain backpropagation"
            )
