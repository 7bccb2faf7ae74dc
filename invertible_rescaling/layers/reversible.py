"""Reversible backpropagation: one autograd function, and all that has to be put back around it.

It keeps a bijection's input and output alone. Plain autograd keeps every activation of every sub-network
until the backward pass, so memory grows with the number of layers. A bijection needs none of that: walking
back from the output, each layer's input is its inverse, and one sub-network at a time is evaluated again to
differentiate it.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.spectral_norm import SpectralNorm

from invertible_rescaling.errors import ConfigError
from invertible_rescaling.kernels.dispatch import fast_kernels, is_batched
from invertible_rescaling.kernels.workspace import scratch
from invertible_rescaling.layers.base import Inverse, InvertibleModule, InvertibleSequential
from invertible_rescaling.layers.conditioning import apply, check_no_condition
from invertible_rescaling.layers.coupling_step import CouplingLayer, CouplingStep, put
from invertible_rescaling.layers.hooks import alteration, hooks_of, overridden

__all__ = ["reversible_forward", "reversible_inverse"]

_BOTH = ("forward", "inverse")
_Place = tuple[nn.Module, str, nn.Parameter]


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

    A layer that has hooks or a patched ``forward`` or ``inverse``, on itself or on a module in it, runs by
    plain autograd, with its activations kept, between stretches that run reversibly. So does every layer
    under global hooks. Threads may share a flow as long as none differentiates it plainly, or lists its
    parameters, while another goes backward.

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
    return _run(flow, flow, x, condition, inverted=False)


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
    return _run(flow, flow.inverse, y, condition, inverted=True)


@dataclass(frozen=True)
class _Turn:
    """One layer in one direction."""

    layer: InvertibleModule
    inverted: bool

    def run(self, x: Tensor, condition: Tensor | None) -> Tensor:
        call: Callable[..., Tensor] = self.layer.inverse if self.inverted else self.layer
        return apply(self.layer, call, x, condition)

    def undo(self, y: Tensor, condition: Tensor | None) -> Tensor:
        call: Callable[..., Tensor] = self.layer if self.inverted else self.layer.inverse
        return apply(self.layer, call, y, condition)

    def steps(self) -> Sequence[CouplingStep] | None:
        """The coupling steps that it consists of, in order; ``None`` where it is no coupling."""
        if not isinstance(self.layer, CouplingLayer):
            return None
        return self.layer.inverse_steps() if self.inverted else self.layer.steps()

    def has_leaves(self) -> bool:
        """Return whether gradients other than the input's may be found here."""
        return bool(self.layer.condition_channels) or any(True for _ in self.layer.parameters())


def _turns_of(layer: InvertibleModule, inverted: bool) -> list[_Turn]:
    """The layers that a call of a layer comes to, in order: what is in containers, in place of these."""
    if hooks_of(layer) is None:
        if isinstance(layer, Inverse) and overridden(type(layer), Inverse, _BOTH) is None:
            return _turns_of(layer.module, not inverted)
        if (
            isinstance(layer, InvertibleSequential)
            and overridden(type(layer), InvertibleSequential, _BOTH) is None
        ):
            layers = reversed(list(layer)) if inverted else layer
            return [turn for inner in layers for turn in _turns_of(inner, inverted)]
    return [_Turn(layer, inverted)]


@dataclass(frozen=True)
class _Stretch:
    """Layers that run one after the other, and what their backward pass needs to know of them."""

    turns: Sequence[_Turn]
    modules: Sequence[nn.Module]
    places: Sequence[_Place]


def _run(
    flow: InvertibleModule, run: Callable[..., Tensor], x: Tensor, condition: Tensor | None, *, inverted: bool
) -> Tensor:
    check_no_condition(condition, flow.condition_channels, type(flow).__name__)
    given = [x.requires_grad, condition is not None and condition.requires_grad]
    differentiated = any(given) or any(parameter.requires_grad for parameter in flow.parameters())
    if not (differentiated and torch.is_grad_enabled()):
        return apply(flow, run, x, condition)
    if torch.compiler.is_compiling():
        # Here and not as a decorator, which would import the whole compiler with this module.
        record: Callable[..., Tensor] = torch.compiler.disable(_record)  # type: ignore[no-untyped-call]
        return record(flow, inverted, x, condition)
    if torch._C._are_functorch_transforms_active() or torch.autograd.forward_ad._current_level >= 0:
        return apply(flow, run, x, condition)
    return _record(flow, inverted, x, condition)


def _record(flow: InvertibleModule, inverted: bool, x: Tensor, condition: Tensor | None) -> Tensor:
    _check_repeatable(flow)
    turns = _turns_of(flow, inverted)
    for altered, stretch in groupby(turns, lambda turn: alteration(turn.layer) is not None):
        if not altered:
            x = _record_stretch(list(stretch), x, condition)
            continue
        for turn in stretch:
            x = turn.run(x, condition)
    return x


def _record_stretch(turns: Sequence[_Turn], x: Tensor, condition: Tensor | None) -> Tensor:
    modules = list(dict.fromkeys(module for turn in turns for module in turn.layer.modules()))
    _check_uncached(modules)
    with _alone_with(modules):
        places = [
            (module, name, parameter)
            for module in modules
            for name, parameter in module._parameters.items()
            if parameter is not None
        ]
    parameters = dict.fromkeys(parameter for _, _, parameter in places)
    stretch = _Stretch(turns, modules, places)
    y: Tensor = _Reversible.apply(stretch, x, condition, *parameters)  # type: ignore[no-untyped-call]
    return y


class _Reversible(torch.autograd.Function):
    """Many layers as one node of the graph, whose inputs are ``x``, the condition and the parameters.

    Parameters are inputs so that autograd itself hands their gradients on: whatever hooks wait for them, as
    DistributedDataParallel's do, are called once.
    """

    @staticmethod
    def forward(
        ctx: Any, stretch: _Stretch, x: Tensor, condition: Tensor | None, *parameters: nn.Parameter
    ) -> Tensor:
        ctx.stretch, ctx.parameters = stretch, parameters
        ctx.surroundings = _present_autocast(x)
        with ctx.surroundings(), scratch():
            y = x
            for turn in stretch.turns:
                y = turn.run(y, condition)
        # The parameters are saved for the error that autograd raises if they change before the backward pass.
        ctx.save_for_backward(x, y, condition, *parameters)
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        with torch.no_grad():
            gradients = _Reversible.gradients(ctx, grad_y)
        if not torch.is_grad_enabled():
            return gradients
        return tuple(None if found is None else _once(found) for found in gradients)

    @staticmethod
    def gradients(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        """Those of all that ``forward`` was given."""
        stretch: _Stretch = ctx.stretch
        _check_uncached(stretch.modules)
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
            _alone_with(stretch.modules),
            _substituted(stretch.places, leaves),
            _statistics_at_rest(stretch.modules),
            fast_kernels(False) if batched else nullcontext(),
        ):
            others = () if condition is None else (condition,)
            backward = _Backward(ctx.surroundings, (*others, *leaves.values()), condition)
            grad_x = backward.through(stretch.turns, x, y, grad_y, to_x=needs_x)
        grad_condition = None if condition is None else condition.grad
        return None, grad_x, grad_condition, *(leaf.grad for leaf in leaves.values())


def _once(gradient: Tensor) -> Tensor:
    """The gradient, to be told of where somebody differentiates it."""
    found: Tensor = _Once.apply(gradient.detach().requires_grad_())  # type: ignore[no-untyped-call]
    return found


class _Once(torch.autograd.Function):
    """What can be differentiated no further."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        raise ConfigError(
            "a gradient by reversible backpropagation cannot be differentiated again; call "
            "enable_reversible_backprop(False) on the model before the forward pass"
        )


class _Backward:
    """The backward pass: reconstructs inputs from outputs, and evaluates again what it differentiates.

    Args:
        surroundings: enters the autocast state of the forward pass.
        leaves: tensors that gradients are added up at: the condition, and parameters.
        condition: of the forward pass.
    """

    def __init__(
        self,
        surroundings: Callable[[], AbstractContextManager[Any]],
        leaves: Iterable[Tensor],
        condition: Tensor | None,
    ) -> None:
        self.surroundings = surroundings
        self.leaves = [leaf for leaf in leaves if leaf.requires_grad]
        self.condition = condition

    def through(
        self, turns: Sequence[_Turn], x: Tensor, y: Tensor, grad: Tensor, *, to_x: bool
    ) -> Tensor | None:
        """Go from the output ``y`` back to the input ``x``; return the gradient of ``x`` if that is wanted.

        The first layer with parameters, or a condition, gets its input as it was and not as reconstructed.
        Maxima share a gradient where they are equal, as those of 8-bit images often are, and would not be
        after another rounding each.
        """
        first = next((i for i, turn in enumerate(turns) if turn.has_leaves()), 0)
        known = x
        with self.surroundings():
            for turn in turns[:first]:
                known = turn.run(known, self.condition)
        for turn in reversed(turns[first + 1 :]):
            y, grad = self.layer(turn, y, grad)
        _, grad = self.layer(turns[first], y, grad, known)
        if not to_x:
            return None
        for turn in reversed(turns[:first]):
            known, grad = self.layer(turn, known, grad)
        return grad

    def layer(
        self, turn: _Turn, y: Tensor, grad: Tensor, known: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Turn a layer's output and its gradient into its input, which may be known, and its gradient."""
        condition = self.condition if turn.layer.condition_channels else None
        steps = turn.steps()
        if steps is not None:
            for index, step in reversed(list(enumerate(steps))):
                y, grad = self.step(step, y, grad, condition, None if index else known)
            return y, grad
        if known is None:
            with self.surroundings():
                known = turn.undo(y, condition)
        x = known.detach().requires_grad_()
        with torch.enable_grad(), self.surroundings():
            out = turn.run(x, condition)
        self._add_up(out, grad, [x])
        return known, _gradient(x)

    def step(
        self,
        step: CouplingStep,
        y: Tensor,
        grad: Tensor,
        condition: Tensor | None,
        known: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Do as :meth:`layer` for one step of a coupling: its networks are evaluated once."""
        read = (y if known is None else known)[:, step.reads].detach().requires_grad_()
        changed = y[:, step.writes]
        with self.surroundings():
            with torch.enable_grad():
                outputs = step.run_networks(read, changed, condition)
            if known is None:
                part = step.undo(changed, *(output.detach() for output in outputs))
            else:
                part = known[:, step.writes]
            part = part.detach().requires_grad_()
            with torch.enable_grad():
                out = step.combine(part, *outputs)
        self._add_up(out, grad[:, step.writes], [part, read])
        x = put(y, step.writes, part.detach())
        grad = put(grad, step.writes, _gradient(part))
        return x, put(grad, step.reads, grad[:, step.reads] + _gradient(read))

    def _add_up(self, out: Tensor, grad: Tensor, inputs: list[Tensor]) -> None:
        """Add up the gradients of inputs and leaves."""
        if not out.requires_grad:
            return
        if not is_batched(grad):
            torch.autograd.backward(out, grad)
            return
        # As backward() does, which refuses the gradients of is_grads_batched.
        leaves = [*inputs, *self.leaves]
        for leaf, more in zip(leaves, torch.autograd.grad(out, leaves, grad, allow_unused=True), strict=True):
            if more is not None:
                leaf.grad = more if leaf.grad is None else leaf.grad + more


def _gradient(leaf: Tensor) -> Tensor:
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad


def _present_autocast(x: Tensor) -> Callable[[], AbstractContextManager[Any]]:
    """Return a context that restores the present autocast state of the tensor's device.

    Autocast's cache of converted weights is off: some versions of PyTorch reuse a weight that was converted
    without a graph, and lose its gradient. The fast kernels are off under autocast: they round bfloat16
    differently, and the difference would enter the reconstruction.
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
    """Return why a module in training mode does not repeat itself, batch norm's counting apart."""
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


_lock = threading.Condition()
_holders: dict[int, int] = {}  # by a module's id, the thread that has leaves stand in for its parameters


@contextmanager
def _alone_with(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Wait until no other thread has leaves in place of these modules' parameters, and let others wait."""
    me = threading.get_ident()
    with _lock:
        _lock.wait_for(lambda: all(_holders.get(id(module), me) == me for module in modules))
        taken = [id(module) for module in modules if id(module) not in _holders]
        _holders.update(dict.fromkeys(taken, me))
    try:
        yield
    finally:
        with _lock:
            for key in taken:
                del _holders[key]
            _lock.notify_all()


@contextmanager
def _substituted(places: Sequence[_Place], leaves: Mapping[nn.Parameter, nn.Parameter]) -> Iterator[None]:
    """Put leaves that share the parameters' values in their place, for a while.

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
