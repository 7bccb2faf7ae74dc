r"""Backpropagation through a bijection that stores its output alone.

Plain autograd keeps every activation of every sub-network until the backward pass, so memory grows with the
number of layers. A bijection needs none of that: walking back from the output, each layer's input is its
inverse, and one sub-network at a time is evaluated again to differentiate it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeGuard, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from invertible_rescaling.base import Inverse, InvertibleModule, InvertibleSequential
from invertible_rescaling.errors import ConfigError

__all__ = ["ReversibleLayer", "reversible_forward", "reversible_inverse"]

# Evaluates a function of one tensor: its value, and what maps the value's gradient to the tensor's.
Recompute = Callable[[Callable[[Tensor], Tensor], Tensor], tuple[Tensor, Callable[[Tensor], Tensor]]]


class ReversibleLayer(Protocol):
    """What an invertible layer may offer so that each of its networks is evaluated only once on the way back.

    ``recompute(function, x)`` returns ``function(x)`` and a ``pull`` that maps the gradient of that value to
    the gradient of ``x``, to be called once at most; it counts the parameters' gradients meanwhile. Both
    methods run without a graph of their own. Layers that offer neither are inverted and then evaluated anew.
    """

    def backpropagate(self, y: Tensor, grad_y: Tensor, recompute: Recompute) -> tuple[Tensor, Tensor]:
        """Return ``x``, of which ``y`` is the forward, and its gradient."""

    def backpropagate_inverse(self, x: Tensor, grad_x: Tensor, recompute: Recompute) -> tuple[Tensor, Tensor]:
        """Return ``y``, of which ``x`` is the inverse, and its gradient."""


def reversible_forward(flow: InvertibleModule, x: Tensor) -> Tensor:
    """Compute ``flow(x)``, storing nothing for the backward pass but the result.

    Gradients are plain autograd's up to the error of the reconstruction: with moderate weights (see
    :func:`~invertible_rescaling.testing.check_invertible`) within 1e-8 of their norm in float64 and 1e-4 in
    float32. Under autocast to bfloat16 a rounding can tip over, and they agree within 1e-1, which is
    how well plain bfloat16 gradients agree with float32's. Where the weights leave no inverse, they leave no
    gradient either.

    Where nothing needs a gradient, and inside ``torch.func`` transforms, this is ``flow(x)``. There are no
    second derivatives, and changing the result or a parameter in place before the backward pass is an error.
    Gradients reach ``x`` and the parameters of ``flow``. Every network in it has to compute the same
    each time it is given the same: dropout is refused, and batch norm counts a batch once.

    Args:
        flow: the bijection, an :class:`~invertible_rescaling.InvertibleSequential` as a rule.
        x: its input.

    Raises:
        ConfigError: a module of ``flow`` is in training mode and draws at random.

    Example:
        >>> import torch
        >>> from invertible_rescaling import CRDB, AffineCoupling, InvertibleSequential
        >>> from invertible_rescaling.reversible import reversible_forward
        >>> flow = InvertibleSequential(*(AffineCoupling(12, 3, CRDB) for _ in range(8)))
        >>> reversible_forward(flow, torch.rand(1, 12, 8, 8)).square().sum().backward()
        >>> all(parameter.grad is not None for parameter in flow.parameters())
        True
    """
    return _run(flow, flow, _undo, x)


def reversible_inverse(flow: InvertibleModule, y: Tensor) -> Tensor:
    """Compute ``flow.inverse(y)``, storing nothing for the backward pass but the result.

    All that :func:`reversible_forward` says holds here.

    Args:
        flow: the bijection.
        y: the input of its inverse.

    Raises:
        ConfigError: as for :func:`reversible_forward`.

    Example:
        >>> import torch
        >>> from invertible_rescaling import HaarDownsampling
        >>> from invertible_rescaling.reversible import reversible_inverse
        >>> y = torch.rand(1, 4, 2, 2, requires_grad=True)
        >>> reversible_inverse(HaarDownsampling(1), y).sum().backward()
        >>> y.grad.sum(dim=(2, 3))
        tensor([[16.,  0.,  0.,  0.]])
    """
    return _run(flow, flow.inverse, _undo_inverse, y)


# ------------------------------------------------------------------------------- the way back through layers

_Undo = Callable[[InvertibleModule, Tensor, Tensor, "_Recomputation"], tuple[Tensor, Tensor]]


def _undo(
    layer: InvertibleModule, y: Tensor, grad_y: Tensor, recompute: "_Recomputation"
) -> tuple[Tensor, Tensor]:
    """Turn the output of ``forward`` and its gradient into the input and its gradient."""
    if _is_plain(layer, Inverse):
        return _undo_inverse(layer.module, y, grad_y, recompute)
    if _is_plain(layer, InvertibleSequential):
        for inner in reversed(list(layer)):
            y, grad_y = _undo(inner, y, grad_y, recompute)
        return y, grad_y
    if _offers_backpropagation(layer):
        return layer.backpropagate(y, grad_y, recompute)
    return recompute.from_scratch(layer.inverse, layer, y, grad_y)


def _undo_inverse(
    layer: InvertibleModule, x: Tensor, grad_x: Tensor, recompute: "_Recomputation"
) -> tuple[Tensor, Tensor]:
    """Turn the output of ``inverse`` and its gradient into the input and its gradient."""
    if _is_plain(layer, Inverse):
        return _undo(layer.module, x, grad_x, recompute)
    if _is_plain(layer, InvertibleSequential):
        for inner in layer:
            x, grad_x = _undo_inverse(inner, x, grad_x, recompute)
        return x, grad_x
    if _offers_backpropagation(layer):
        return layer.backpropagate_inverse(x, grad_x, recompute)
    return recompute.from_scratch(layer, layer.inverse, x, grad_x)


_Kind = TypeVar("_Kind", bound=InvertibleModule)


def _is_plain(layer: InvertibleModule, kind: type[_Kind]) -> TypeGuard[_Kind]:
    """Whether a layer is of a kind, and not of a subclass that changes what it computes."""
    same = type(layer).forward is kind.forward and type(layer).inverse is kind.inverse
    return same and isinstance(layer, kind)


def _offers_backpropagation(layer: InvertibleModule) -> TypeGuard[ReversibleLayer]:
    """Whether ``backpropagate`` belongs to the layer's own directions, and not to those of a base class."""
    for cls in type(layer).__mro__:
        if "backpropagate" in vars(cls):
            return True
        if not vars(cls).keys().isdisjoint(("forward", "inverse")):
            return False
    return False


class _Recomputation:
    """Evaluates parts of layers with a graph, each as it was evaluated in the forward pass."""

    def __init__(self, autocast: Callable[[], AbstractContextManager[Any]]) -> None:
        self.autocast = autocast

    def __call__(
        self, function: Callable[[Tensor], Tensor], x: Tensor
    ) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        leaf = x.detach().requires_grad_()
        with torch.enable_grad(), self.autocast():
            out = function(leaf)

        def pull(grad: Tensor) -> Tensor:
            if out.requires_grad:
                torch.autograd.backward(out, grad)
            return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad

        return out.detach(), pull

    def from_scratch(
        self, back: Callable[[Tensor], Tensor], there: Callable[[Tensor], Tensor], out: Tensor, grad: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The way back through a layer of which nothing is known but both directions."""
        with self.autocast():
            x = back(out)
        return x, self(there, x)[1](grad)


# --------------------------------------------------------------------------------------- what autograd sees


_Place = tuple[nn.Module, str, nn.Parameter]


@dataclass(frozen=True)
class _Direction:
    """One direction of a bijection, with what its backward pass needs to know of it."""

    run: Callable[[Tensor], Tensor]
    undo: Callable[[Tensor, Tensor, _Recomputation], tuple[Tensor, Tensor]]
    modules: tuple[nn.Module, ...]
    places: tuple[_Place, ...]


def _run(flow: InvertibleModule, run: Callable[[Tensor], Tensor], undo: _Undo, x: Tensor) -> Tensor:
    modules = tuple(flow.modules())
    places = tuple(
        (module, name, parameter)
        for module in modules
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False)
    )
    parameters = dict.fromkeys(parameter for _, _, parameter in places)
    differentiated = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (x, *parameters))
    if not differentiated or torch._C._are_functorch_transforms_active():
        return run(x)
    _check_repeatable(flow)
    direction = _Direction(run, partial(undo, flow), modules, places)
    y: Tensor = _Reversible.apply(direction, x, *parameters)  # type: ignore[no-untyped-call]
    return y


class _Reversible(torch.autograd.Function):
    """The whole bijection as one node of the graph, whose inputs are ``x`` and the parameters.

    Parameters are inputs so that autograd itself hands their gradients on: whatever hooks wait for them, as
    DistributedDataParallel's do, are called once.
    """

    @staticmethod
    def forward(ctx: Any, direction: _Direction, x: Tensor, *parameters: nn.Parameter) -> Tensor:
        ctx.direction, ctx.parameters = direction, parameters
        ctx.autocast = _autocast_like_now(x)
        with ctx.autocast():
            y = direction.run(x)
        # The parameters are saved for the error that autograd raises if they change before the backward pass.
        ctx.save_for_backward(y, *parameters)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        direction: _Direction = ctx.direction
        y = ctx.saved_tensors[0]
        _, needs_x, *needed = ctx.needs_input_grad
        leaves = {
            parameter: nn.Parameter(parameter.detach(), requires_grad=need)
            for parameter, need in zip(ctx.parameters, needed, strict=True)
        }
        with _standing_in(direction.places, leaves), _statistics_at_rest(direction.modules):
            _, grad_x = direction.undo(y, grad_y, _Recomputation(ctx.autocast))
        return None, grad_x if needs_x else None, *(leaf.grad for leaf in leaves.values())


def _autocast_like_now(x: Tensor) -> Callable[[], AbstractContextManager[Any]]:
    """What enters the present autocast state of the tensor's device again, at any time.

    Without autocast's cache of converted weights: one that was converted without a graph would be served to
    whoever differentiates it next, and its gradient lost.
    """
    device = x.device.type
    if not torch.amp.is_autocast_available(device):
        return nullcontext
    return partial(
        torch.autocast,
        device,
        dtype=torch.get_autocast_dtype(device),
        enabled=torch.is_autocast_enabled(device),
        cache_enabled=False,
    )


@contextmanager
def _standing_in(places: Sequence[_Place], leaves: Mapping[nn.Parameter, nn.Parameter]) -> Iterator[None]:
    """Put leaves that share the parameters' values in their place.

    Gradients are collected there, and the parameters' own hooks are not called twice.
    """
    before = [(module, name, getattr(module, name)) for module, name, _ in places]
    try:
        for module, name, parameter in places:
            setattr(module, name, leaves[parameter])
        yield
    finally:
        for module, name, present in before:
            setattr(module, name, present)


@contextmanager
def _statistics_at_rest(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Let batch norms in training mode normalise without counting the batch again."""
    before = [
        (module, name, getattr(module, name))
        for module in modules
        if isinstance(module, _NormBase) and module.training
        for name in ("running_mean", "running_var", "num_batches_tracked")
    ]
    try:
        for module, name, _ in before:
            setattr(module, name, None)
        yield
    finally:
        for module, name, buffer in before:
            setattr(module, name, buffer)


def _check_repeatable(flow: nn.Module) -> None:
    for name, module in flow.named_modules():
        random = isinstance(module, nn.RReLU) or (isinstance(module, _DropoutNd) and module.p > 0)
        if random and module.training:
            raise ConfigError(
                f"reversible backpropagation computes every sub-network again, and {name or 'the flow'} "
                f"({module}) would draw anew; call eval() on it, take it out, or use plain backpropagation"
            )
