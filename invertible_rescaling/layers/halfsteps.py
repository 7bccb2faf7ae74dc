"""Half steps: how a coupling changes one half of the channels by networks that read the other alone."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import Tensor, nn

from invertible_rescaling.errors import ShapeError
from invertible_rescaling.overrides import check_unchanged, definer, not_followed

__all__ = ["HalfStep", "evaluate"]


@dataclass(frozen=True)
class HalfStep:
    """One half step: ``x[:, writes]`` becomes ``combine(x[:, writes], *(n(x[:, reads]) for n in networks))``.

    A layer whose forward is a sequence of half steps, each on the result of the one before, offers them by
    ``half_steps()``, and those of its inverse by ``inverse_half_steps()``: it can then be run in place, and
    tile by tile with nothing lost. A subclass that overrides ``forward`` or ``inverse`` offers its own.

    Args:
        reads, writes: channels; they do not overlap.
        networks: each keeps height and width.
        combine: works pixel by pixel, on what is there and on what each network made; returns a new tensor.

    Example:
        >>> import torch
        >>> from invertible_rescaling import AdditiveCoupling, DenseBlock
        >>> x = torch.rand(1, 4, 8, 8)
        >>> coupling = AdditiveCoupling(4, 1, DenseBlock)
        >>> y = x.clone()
        >>> with torch.no_grad():
        ...     for step in coupling.half_steps():
        ...         made = [network(y[:, step.reads]) for network in step.networks]
        ...         y[:, step.writes] = step.combine(y[:, step.writes], *made)
        >>> torch.equal(y, coupling(x))
        True
    """

    reads: slice
    writes: slice
    networks: tuple[nn.Module, ...]
    combine: Callable[..., Tensor]


def offered(layer: nn.Module, who: str, method: str) -> Iterable[HalfStep]:
    """The half steps that a layer offers by a method, where they are what it computes.

    Raises:
        ConfigError: there is no such method, or ``forward`` or ``inverse`` are overridden below the class
            that it comes from, patched or hooked.
    """
    known = definer(type(layer), method)
    if known is None:
        raise not_followed(who, f"has no {method}()")
    check_unchanged(layer, who, known)
    steps: Iterable[HalfStep] = getattr(layer, method)()
    return steps


def evaluate(network: nn.Module, x: Tensor, like: Tensor) -> Tensor:
    """Run a sub-network; bring its output, half precision under autocast, to the dtype of ``like``.

    Raises:
        ShapeError: the output is not of the shape of ``like``.
    """
    out: Tensor = network(x)
    if out.shape != like.shape:
        raise ShapeError(
            f"a sub-network of a coupling must map {tuple(x.shape)} to {tuple(like.shape)}, "
            f"{type(network).__name__} returned {tuple(out.shape)}"
        )
    return out.to(like.dtype)
