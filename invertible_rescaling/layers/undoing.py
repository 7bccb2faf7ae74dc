"""The way back through a bijection: from each layer's output and its gradient to its input and that one's."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeGuard

import torch
from torch import Tensor, nn

from invertible_rescaling.kernels.dispatch import is_batched
from invertible_rescaling.layers.base import Inverse, InvertibleModule, InvertibleSequential
from invertible_rescaling.layers.conditioning import apply
from invertible_rescaling.overrides import any_global_hook, definer, has_hooks, has_patches, overridden

__all__: list[str] = []  # for reversible, which passes ReversibleLayer on

_BOTH = ("forward", "inverse")

# Evaluates a function of one tensor: its value, and what maps the value's gradient to the tensor's.
Recompute = Callable[[Callable[[Tensor], Tensor], Tensor], tuple[Tensor, Callable[[Tensor], Tensor]]]


class ReversibleLayer(Protocol):
    """What an invertible layer may offer so that each of its networks is evaluated only once on the way back.

    ``recompute(function, x)`` returns ``function(x)`` and a ``pull``, to be called once at most, that maps
    the gradient of that value to the gradient of ``x`` and adds up the parameters' gradients meanwhile.
    ``known`` is the tensor to be reconstructed where it is there already. Both methods run without a graph.
    A layer that takes a condition (``condition_channels`` above 0) is handed it behind ``known``; what it
    evaluates with ``recompute`` adds up the condition's gradient, too. Layers that offer neither method are
    inverted, and then evaluated anew as a whole.
    """

    def backpropagate(
        self, y: Tensor, grad_y: Tensor, recompute: Recompute, known: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return ``x``, of which ``y`` is the forward, and its gradient."""

    def backpropagate_inverse(
        self, x: Tensor, grad_x: Tensor, recompute: Recompute, known: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return ``y``, of which ``x`` is the inverse, and its gradient."""


_Backpropagate = Callable[..., tuple[Tensor, Tensor]]

# A direction of a layer, as a function of its input and of the condition, which not every layer takes.
_Direction = Callable[[Tensor, Tensor | None], Tensor]


@dataclass(frozen=True)
class Step:
    """One direction of one layer, with its own and the other direction's ``backpropagate`` if it has them."""

    module: InvertibleModule
    there: _Direction
    back: _Direction
    methods: tuple[_Backpropagate, _Backpropagate] | None
    altered: bool

    def has_leaves(self) -> bool:
        """Whether gradients other than the input's may be found here."""
        return bool(self.module.condition_channels) or any(True for _ in self.module.parameters())

    def turned(self) -> "Step":
        methods = self.methods and (self.methods[1], self.methods[0])
        return Step(self.module, self.back, self.there, methods, self.altered)

    def undo(
        self, out: Tensor, grad: Tensor, recompute: "Recomputation", known: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Turn the output and its gradient into the input, which may be known, and its gradient."""
        condition = recompute.condition
        if self.methods is not None:
            taken = (condition,) if self.module.condition_channels else ()
            return self.methods[0](out, grad, recompute, known, *taken)
        x = recompute.without_graph(self.back, out) if known is None else known
        return x, recompute(lambda x: self.there(x, condition), x)[1](grad)


def steps_of(layer: InvertibleModule) -> list[Step]:
    """What ``layer.forward`` does, in order."""
    altered = _is_altered(layer)
    if not altered and isinstance(layer, Inverse) and _computes_as(layer, Inverse):
        return inverse_steps_of(layer.module)
    if not altered and isinstance(layer, InvertibleSequential) and _computes_as(layer, InvertibleSequential):
        return [step for inner in layer for step in steps_of(inner)]
    methods = (layer.backpropagate, layer.backpropagate_inverse) if _is_reversible(layer) else None
    if methods is None:
        # Its inverse may know nothing of what is done to any module that it is made of.
        altered = any(map(_is_altered, layer.modules()))
    there, back = partial(apply, layer, layer), partial(apply, layer, layer.inverse)
    return [Step(layer, there, back, methods, altered)]


def inverse_steps_of(layer: InvertibleModule) -> list[Step]:
    """What ``layer.inverse`` does, in order."""
    return _turned(steps_of(layer))


def _turned(steps: Sequence[Step]) -> list[Step]:
    return [step.turned() for step in reversed(steps)]


def _computes_as(layer: InvertibleModule, kind: type[InvertibleModule]) -> bool:
    """Whether no subclass of ``kind`` has overridden what it computes."""
    return overridden(type(layer), kind, _BOTH) is None


def _is_reversible(layer: InvertibleModule) -> TypeGuard[ReversibleLayer]:
    """Whether a layer offers ``backpropagate``, and not for directions that a subclass has overridden."""
    known = definer(type(layer), "backpropagate")
    return known is not None and overridden(type(layer), known, _BOTH) is None


def _is_altered(module: nn.Module) -> bool:
    """Whether a call may compute something else than the module's class does, or is listened to."""
    return any_global_hook() or has_hooks(module) or has_patches(module)


def walk_back(
    steps: Sequence[Step], x: Tensor, y: Tensor, grad: Tensor, recompute: "Recomputation", *, to_x: bool
) -> Tensor | None:
    """Go through the steps from ``y`` to ``x``; return the gradient of ``x`` where that is wanted.

    The first step with parameters, or a condition, gets its input as it was and not as reconstructed. Maxima
    share a gradient where they are equal, as those of 8-bit images often are, and would not be after another
    rounding each.
    """
    first = next((i for i, step in enumerate(steps) if step.has_leaves()), 0)
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


class Recomputation:
    """Evaluates parts of layers again, in the surroundings of the forward pass and with its condition."""

    def __init__(
        self,
        surroundings: Callable[[], AbstractContextManager[Any]],
        leaves: Iterable[Tensor],
        condition: Tensor | None,
    ) -> None:
        self.surroundings = surroundings
        self.leaves = [leaf for leaf in leaves if leaf.requires_grad]
        self.condition = condition

    def __call__(
        self, function: Callable[[Tensor], Tensor], x: Tensor
    ) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        leaf = x.detach().requires_grad_()
        with torch.enable_grad(), self.surroundings():
            out = function(leaf)

        def pull(grad: Tensor) -> Tensor:
            if out.requires_grad and is_batched(grad):
                _accumulate(out, grad, [leaf, *self.leaves])
            elif out.requires_grad:
                torch.autograd.backward(out, grad)
            return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad

        return out.detach(), pull

    def without_graph(self, direction: _Direction, x: Tensor) -> Tensor:
        with self.surroundings():
            return direction(x, self.condition)


def _accumulate(out: Tensor, grad: Tensor, leaves: Sequence[Tensor]) -> None:
    """Do as :func:`torch.autograd.backward`, which refuses the gradients of ``is_grads_batched``."""
    found = torch.autograd.grad(out, leaves, grad, allow_unused=True)
    for leaf, more in zip(leaves, found, strict=True):
        if more is not None:
            leaf.grad = more if leaf.grad is None else leaf.grad + more
