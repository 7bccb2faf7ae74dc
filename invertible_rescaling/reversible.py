"""Backpropagation through a bijection that keeps its input and its output alone.

Plain autograd keeps every activation of every sub-network until the backward pass, so memory grows with the
number of layers. A bijection needs none of that: walking back from the output, each layer's input is its
inverse, and one sub-network at a time is evaluated again to differentiate it.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Protocol, TypeGuard

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.spectral_norm import SpectralNorm

from invertible_rescaling.base import Inverse, InvertibleModule, InvertibleSequential
from invertible_rescaling.errors import ConfigError
from invertible_rescaling.kernels.switch import fast_kernels, is_batched, scratch

__all__ = ["ReversibleLayer", "reversible_forward", "reversible_inverse"]

# Evaluates a function of one tensor: its value, and what maps the value's gradient to the tensor's.
Recompute = Callable[[Callable[[Tensor], Tensor], Tensor], tuple[Tensor, Callable[[Tensor], Tensor]]]


class ReversibleLayer(Protocol):
    """What an invertible layer may offer so that each of its networks is evaluated only once on the way back.

    ``recompute(function, x)`` returns ``function(x)`` and a ``pull``, to be called once at most, that maps
    the gradient of that value to the gradient of ``x`` and adds up the parameters' gradients meanwhile.
    ``known`` is the tensor to be reconstructed where it is there already. Both methods run without a graph.
    Layers that offer neither are inverted, and then evaluated anew as a whole.
    """

    def backpropagate(
        self, y: Tensor, grad_y: Tensor, recompute: Recompute, known: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return ``x``, of which ``y`` is the forward, and its gradient."""

    def backpropagate_inverse(
        self, x: Tensor, grad_x: Tensor, recompute: Recompute, known: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return ``y``, of which ``x`` is the inverse, and its gradient."""


def reversible_forward(flow: InvertibleModule, x: Tensor) -> Tensor:
    """Compute ``flow(x)``, keeping nothing for the backward pass but ``x`` and the result.

    Gradients are plain autograd's up to rounding: with weights that leave an exact inverse (see
    :func:`~invertible_rescaling.testing.check_invertible`) they differ by less than 1e-8 of their norm in
    float64, 1e-4 in float32 and 5e-2 under autocast to bfloat16, where plain gradients are as far from
    float32's. Where a network has a kink or several equal maxima, rounding may decide for another side.

    Where nothing needs a gradient, inside ``torch.func`` transforms and in forward-mode differentiation, this
    is ``flow(x)``. There are no second derivatives, and changing ``x``, the result or a parameter in place
    before the backward pass is an error. Gradients reach ``x`` and the parameters of ``flow``. Every network
    in it has to compute the same each time it is given the same: dropout and spectral norm in training mode
    are refused, and batch norm counts a batch once.

    A layer that has hooks or a method replaced on the instance computes what its class does not know the way
    back from: it runs by plain autograd, with its activations kept, between stretches that run reversibly. So
    does every layer under global hooks. Hooks on sub-networks are called anew when these are computed again.
    Threads may share a flow as long as none differentiates it plainly, or lists its parameters, while
    another goes backward.

    Args:
        flow: the bijection, an :class:`~invertible_rescaling.InvertibleSequential` as a rule.
        x: its input.

    Raises:
        ConfigError: a module of ``flow`` is in training mode and draws at random or iterates, or is
            parametrized and called, here or in the backward pass, within ``parametrize.cached()``.

    Example:
        >>> import torch
        >>> from invertible_rescaling import CRDB, AffineCoupling, InvertibleSequential
        >>> from invertible_rescaling.reversible import reversible_forward
        >>> flow = InvertibleSequential(*(AffineCoupling(12, 3, CRDB) for _ in range(8)))
        >>> reversible_forward(flow, torch.rand(1, 12, 8, 8)).square().sum().backward()
        >>> all(parameter.grad is not None for parameter in flow.parameters())
        True
    """
    return _run(flow, flow, _steps, x)


def reversible_inverse(flow: InvertibleModule, y: Tensor) -> Tensor:
    """Compute ``flow.inverse(y)``, keeping nothing for the backward pass but ``y`` and the result.

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
    return _run(flow, flow.inverse, _inverse_steps, y)


# -------------------------------------------------------------------------------- the way back through layers

_Backpropagate = Callable[[Tensor, Tensor, Recompute, Tensor | None], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class _Step:
    """One direction of one layer, with its own and the other direction's ``backpropagate`` if it has them."""

    module: nn.Module
    there: Callable[[Tensor], Tensor]
    back: Callable[[Tensor], Tensor]
    methods: tuple[_Backpropagate, _Backpropagate] | None
    altered: bool

    def turned(self) -> "_Step":
        methods = self.methods and (self.methods[1], self.methods[0])
        return _Step(self.module, self.back, self.there, methods, self.altered)

    def undo(
        self, out: Tensor, grad: Tensor, recompute: "_Recomputation", known: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Turn the output and its gradient into the input, which may be known, and its gradient."""
        if self.methods is not None:
            return self.methods[0](out, grad, recompute, known)
        x = recompute.without_graph(self.back, out) if known is None else known
        return x, recompute(self.there, x)[1](grad)


def _steps(layer: InvertibleModule) -> list[_Step]:
    """What ``layer.forward`` does, in order."""
    altered = _is_altered(layer)
    if not altered and isinstance(layer, Inverse) and _computes_as(layer, Inverse):
        return _inverse_steps(layer.module)
    if not altered and isinstance(layer, InvertibleSequential) and _computes_as(layer, InvertibleSequential):
        return [step for inner in layer for step in _steps(inner)]
    methods = (layer.backpropagate, layer.backpropagate_inverse) if _is_reversible(layer) else None
    if methods is None:
        # Its inverse may know nothing of what is done to any module that it is made of.
        altered = any(map(_is_altered, layer.modules()))
    return [_Step(layer, layer, layer.inverse, methods, altered)]


def _inverse_steps(layer: InvertibleModule) -> list[_Step]:
    """What ``layer.inverse`` does, in order."""
    return _turned(_steps(layer))


def _turned(steps: Sequence[_Step]) -> list[_Step]:
    return [step.turned() for step in reversed(steps)]


def _computes_as(layer: InvertibleModule, kind: type[InvertibleModule]) -> bool:
    """Whether a layer's class does not override what it computes."""
    return type(layer).forward is kind.forward and type(layer).inverse is kind.inverse


def _is_reversible(layer: InvertibleModule) -> TypeGuard[ReversibleLayer]:
    """Whether a layer offers ``backpropagate``, and not for directions that a subclass has overridden."""
    for cls in type(layer).__mro__:
        if "backpropagate" in vars(cls):
            return True
        if not vars(cls).keys().isdisjoint(("forward", "inverse")):
            return False
    return False


def _is_altered(module: nn.Module) -> bool:
    """Whether a call may compute something else than the module's class does, or is listened to."""
    return bool(
        nn.modules.module._has_any_global_hook()  # type: ignore[no-untyped-call]
        or module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or any(callable(getattr(type(module), name, None)) for name in vars(module))
    )


def _walk_back(
    steps: Sequence[_Step], x: Tensor, y: Tensor, grad: Tensor, recompute: "_Recomputation", *, to_x: bool
) -> Tensor | None:
    """Go through the steps from ``y`` to ``x``; return the gradient of ``x`` where that is wanted.

    The first step with parameters gets its input as it was and not as reconstructed. Maxima share a gradient
    where they are equal, as those of 8-bit images often are, and would not be after another rounding each.
    """
    first = next((i for i, step in enumerate(steps) if any(True for _ in step.module.parameters())), 0)
    known = x
    for step in steps[:first]:
        known = recompute.without_graph(step.there, known)
    for step in reversed(steps[first + 1 :]):
        y, grad = step.undo(y, grad, recompute)
    _, grad = steps[first].undo(y, grad, recompute, known)
    if not to_x:
        return None
    for step in reversed(steps[:first]):
        known, grad = step.undo(known, grad, recompute)
    return grad


class _Recomputation:
    """Evaluates parts of layers again, under the conditions of the forward pass."""

    def __init__(
        self, conditions: Callable[[], AbstractContextManager[Any]], leaves: Iterable[nn.Parameter]
    ) -> None:
        self.conditions = conditions
        self.leaves = [leaf for leaf in leaves if leaf.requires_grad]

    def __call__(
        self, function: Callable[[Tensor], Tensor], x: Tensor
    ) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        leaf = x.detach().requires_grad_()
        with torch.enable_grad(), self.conditions():
            out = function(leaf)

        def pull(grad: Tensor) -> Tensor:
            if out.requires_grad and is_batched(grad):
                _accumulate(out, grad, [leaf, *self.leaves])
            elif out.requires_grad:
                torch.autograd.backward(out, grad)
            return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad

        return out.detach(), pull

    def without_graph(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        with self.conditions():
            return function(x)


def _accumulate(out: Tensor, grad: Tensor, leaves: Sequence[Tensor]) -> None:
    """Do as :func:`torch.autograd.backward`, which refuses the gradients of ``is_grads_batched``."""
    found = torch.autograd.grad(out, leaves, grad, allow_unused=True)
    for leaf, more in zip(leaves, found, strict=True):
        if more is not None:
            leaf.grad = more if leaf.grad is None else leaf.grad + more


# --------------------------------------------------------------------------------------- what autograd sees

_Place = tuple[nn.Module, str, nn.Parameter]


@dataclass(frozen=True)
class _Direction:
    """Steps that run one after the other, and what their backward pass needs to know of them."""

    steps: Sequence[_Step]
    modules: Sequence[nn.Module]
    places: Sequence[_Place]


def _run(
    flow: InvertibleModule,
    run: Callable[[Tensor], Tensor],
    list_steps: Callable[[InvertibleModule], list[_Step]],
    x: Tensor,
) -> Tensor:
    differentiated = x.requires_grad or any(parameter.requires_grad for parameter in flow.parameters())
    if not (differentiated and torch.is_grad_enabled()):
        return run(x)
    if torch.compiler.is_compiling():
        # Here and not as a decorator, which would import the whole compiler with this module.
        record: Callable[..., Tensor] = torch.compiler.disable(_record)  # type: ignore[no-untyped-call]
        return record(flow, list_steps, x)
    if torch._C._are_functorch_transforms_active() or torch.autograd.forward_ad._current_level >= 0:
        return run(x)
    return _record(flow, list_steps, x)


def _record(
    flow: InvertibleModule, list_steps: Callable[[InvertibleModule], list[_Step]], x: Tensor
) -> Tensor:
    _check_repeatable(flow)
    for altered, steps in groupby(list_steps(flow), lambda step: step.altered):
        if not altered:
            x = _record_stretch(list(steps), x)
            continue
        for step in steps:
            x = step.there(x)
    return x


def _record_stretch(steps: Sequence[_Step], x: Tensor) -> Tensor:
    modules = list(dict.fromkeys(module for step in steps for module in step.module.modules()))
    _check_uncached(modules)
    with _alone_with(modules):
        places = [
            (module, name, parameter)
            for module in modules
            for name, parameter in module._parameters.items()
            if parameter is not None
        ]
    parameters = dict.fromkeys(parameter for _, _, parameter in places)
    direction = _Direction(steps, modules, places)
    y: Tensor = _Reversible.apply(direction, x, *parameters)  # type: ignore[no-untyped-call]
    return y


class _Reversible(torch.autograd.Function):
    """Many steps as one node of the graph, whose inputs are ``x`` and the parameters.

    Parameters are inputs so that autograd itself hands their gradients on: whatever hooks wait for them, as
    DistributedDataParallel's do, are called once.
    """

    @staticmethod
    def forward(ctx: Any, direction: _Direction, x: Tensor, *parameters: nn.Parameter) -> Tensor:
        ctx.direction, ctx.parameters = direction, parameters
        ctx.conditions = _conditions_now(x)
        with ctx.conditions(), scratch():
            y = x
            for step in direction.steps:
                y = step.there(y)
        # The parameters are saved for the error that autograd raises if they change before the backward pass.
        ctx.save_for_backward(x, y, *parameters)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        direction: _Direction = ctx.direction
        _check_uncached(direction.modules)
        x, y = ctx.saved_tensors[:2]
        _, needs_x, *needed = ctx.needs_input_grad
        leaves = {
            parameter: nn.Parameter(parameter.detach(), requires_grad=need)
            for parameter, need in zip(ctx.parameters, needed, strict=True)
        }
        # torch.vmap, which batches gradients, has no rules for what the kernels do.
        batched = is_batched(grad_y)
        with (
            _alone_with(direction.modules),
            _standing_in(direction.places, leaves),
            _statistics_at_rest(direction.modules),
            fast_kernels(False) if batched else nullcontext(),
        ):
            recompute = _Recomputation(ctx.conditions, leaves.values())
            grad_x = _walk_back(direction.steps, x, y, grad_y, recompute, to_x=needs_x)
        return None, grad_x, *(leaf.grad for leaf in leaves.values())


def _conditions_now(x: Tensor) -> Callable[[], AbstractContextManager[Any]]:
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
    def conditions() -> Iterator[None]:
        if not enabled and not torch.is_autocast_enabled(device):
            yield
            return
        kernels = fast_kernels(False) if enabled else nullcontext()
        with torch.autocast(device, dtype, enabled, cache_enabled=False), kernels:
            yield

    return conditions


_turn = threading.Condition()
_holders: dict[int, int] = {}  # by a module's id, the thread that has leaves stand in for its parameters


@contextmanager
def _alone_with(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Wait until no other thread has leaves in place of these modules' parameters, and let others wait."""
    me = threading.get_ident()
    with _turn:
        _turn.wait_for(lambda: all(_holders.get(id(module), me) == me for module in modules))
        taken = [id(module) for module in modules if id(module) not in _holders]
        _holders.update(dict.fromkeys(taken, me))
    try:
        yield
    finally:
        with _turn:
            for key in taken:
                del _holders[key]
            _turn.notify_all()


@contextmanager
def _standing_in(places: Sequence[_Place], leaves: Mapping[nn.Parameter, nn.Parameter]) -> Iterator[None]:
    """Put leaves that share the parameters' values in their place.

    Gradients are collected there, and the parameters' own hooks are not called twice.
    """
    before = [(module._parameters, name, module._parameters[name]) for module, name, _ in places]
    try:
        for module, name, parameter in places:
            module._parameters[name] = leaves[parameter]
        yield
    finally:
        for table, name, present in before:
            table[name] = present


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
