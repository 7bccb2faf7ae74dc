"""Coupling steps, and the layer that is a sequence of them."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from torch import Tensor, nn

from invertible_rescaling.errors import ConfigError, ShapeError
from invertible_rescaling.kernels.dispatch import may_overwrite
from invertible_rescaling.layers.base import InvertibleModule, check_state, check_weights
from invertible_rescaling.layers.conditioning import check_condition, concat_condition

__all__ = ["Combine", "CouplingLayer", "CouplingStep"]

_FINAL = ("forward", "inverse", "forward_with_log_det", "inverse_with_log_det")

Combine = Callable[..., Tensor]
"""``combine(part, *outputs, out=None)``, as ``torch.add``: pixel by pixel, of a part of the state and what
networks made of another; returns a new tensor, or ``out``, which may be ``part`` itself."""


@dataclass(frozen=True)
class CouplingStep:
    """A step of a coupling: ``x[:, writes] = combine(x[:, writes], *(n(x[:, reads]) for n in networks))``.

    It is all that the library knows of a coupling: both directions, log-determinants, tiles and reversible
    backpropagation go by it. In a layer that takes a condition, the networks read it behind ``x[:, reads]``.

    Args:
        reads, writes: channels; they do not overlap.
        networks: each keeps height and width and has as many output channels as are written.
        combine: ``combine(part, *outputs, out=None)`` works pixel by pixel, as ``torch.add`` does; it returns
            a new tensor, or ``out``, which may be ``part`` itself.
        undo: its inverse for the same outputs: ``undo(combine(part, *outputs), *outputs)`` is ``part``.
        log_scale: log of the derivative of ``combine`` by the part, pixel by pixel, of the outputs; ``None``
            for 0: the step preserves volume.

    Example:
        >>> import torch
        >>> from invertible_rescaling import AdditiveCoupling, DenseBlock
        >>> x = torch.rand(1, 4, 8, 8)
        >>> coupling = AdditiveCoupling(4, 1, DenseBlock)
        >>> y = x.clone()
        >>> with torch.no_grad():
        ...     for step in coupling.steps():
        ...         made = [network(y[:, step.reads]) for network in step.networks]
        ...         y[:, step.writes] = step.combine(y[:, step.writes], *made)
        >>> torch.equal(y, coupling(x))
        True
    """

    reads: slice
    writes: slice
    networks: tuple[nn.Module, ...]
    combine: Combine
    undo: Combine
    log_scale: Callable[..., Tensor] | None = None

    @property
    def inverse(self) -> "CouplingStep":
        """The step that undoes this one."""
        forward = self.log_scale
        backward = None if forward is None else lambda *outputs: -forward(*outputs)
        return replace(self, combine=self.undo, undo=self.combine, log_scale=backward)

    def run_networks(self, read: Tensor, like: Tensor, condition: Tensor | None = None) -> list[Tensor]:
        """Run the networks on ``x[:, reads]`` and a condition; outputs have the shape and dtype of ``like``.

        Raises:
            ShapeError: a network's output has another shape.
        """
        read = concat_condition(read, condition)
        return [run_subnet(network, read, like) for network in self.networks]


class CouplingLayer(InvertibleModule):
    """A bijection that is a sequence of coupling steps; a subclass gives :meth:`steps` and nothing else.

    Args:
        channels: of the state.
        condition_channels: of the condition that the networks read beside the state; 0 for none.

    Raises:
        ConfigError: ``condition_channels`` is no integer of at least 0; a subclass defines ``forward``,
            ``inverse`` or a log-determinant of its own.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from invertible_rescaling.layers import CouplingLayer, CouplingStep
        >>> class AddToLast(CouplingLayer):
        ...     def __init__(self, channels):
        ...         super().__init__(channels)
        ...         self.network = nn.Conv2d(channels - 1, 1, 3, padding=1)
        ...     def steps(self):
        ...         last = self.channels - 1
        ...         read, written = slice(0, last), slice(last, self.channels)
        ...         return (CouplingStep(read, written, (self.network,), torch.add, torch.sub),)
        >>> layer, x = AddToLast(3).double(), torch.rand(1, 3, 8, 8, dtype=torch.float64)
        >>> torch.allclose(layer.inverse(layer(x)), x)
        True
    """

    def __init__(self, channels: int, condition_channels: int = 0) -> None:
        super().__init__()
        whole = isinstance(condition_channels, int) and not isinstance(condition_channels, bool)
        if not whole or condition_channels < 0:
            raise ConfigError(
                f"{type(self).__name__} needs condition_channels to be an integer of at least 0, "
                f"got {condition_channels!r}"
            )
        self.channels = channels
        self.condition_channels = condition_channels

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        defined = [name for name in _FINAL if name in vars(cls)]
        if defined:
            raise ConfigError(
                f"{cls.__name__} defines {defined[0]}(), which a coupling derives from its steps(); give "
                "steps(), or make it an InvertibleModule that holds the coupling"
            )

    @abstractmethod
    def steps(self) -> tuple[CouplingStep, ...]:
        """Return what ``forward`` does, in order; each step works on the result of the one before."""

    def inverse_steps(self) -> tuple[CouplingStep, ...]:
        """Return what ``inverse`` does, in order."""
        return tuple(step.inverse for step in reversed(self.steps()))

    @final  # type: ignore[misc]  # an attribute by torch's stubs
    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        return self._run(self.steps(), x, condition)

    @final
    def inverse(self, y: Tensor, condition: Tensor | None = None) -> Tensor:
        return self._run(self.inverse_steps(), y, condition)

    @final
    def forward_with_log_det(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_scales: list[Tensor] = []
        return self._run(self.steps(), x, condition, log_scales), _total(log_scales, x)

    @final
    def inverse_with_log_det(self, y: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_scales: list[Tensor] = []
        return self._run(self.inverse_steps(), y, condition, log_scales), _total(log_scales, y)

    def _run(
        self,
        steps: Sequence[CouplingStep],
        x: Tensor,
        condition: Tensor | None,
        log_scales: list[Tensor] | None = None,
    ) -> Tensor:
        check_state(x, self.channels, type(self).__name__)
        check_weights(x, self)
        check_condition(condition, self.condition_channels, x, type(self).__name__)
        in_place = may_overwrite(x) and (condition is None or may_overwrite(condition))
        if in_place:
            x = x.clone()
        for step in steps:
            part = x[:, step.writes]
            outputs = step.run_networks(x[:, step.reads], part, condition)
            if log_scales is not None and step.log_scale is not None:
                log_scales.append(step.log_scale(*outputs))
            if in_place:
                step.combine(part, *outputs, out=part)
            else:
                x = put(x, step.writes, step.combine(part, *outputs))
        return x

    def extra_repr(self) -> str:
        own = f"channels={self.channels}"
        return own + (f", condition_channels={self.condition_channels}" if self.condition_channels else "")


def put(x: Tensor, channels: slice, part: Tensor) -> Tensor:
    """Return ``x`` with a part of its channels replaced, as a new tensor."""
    start, stop, _ = channels.indices(x.shape[1])
    pieces = (x[:, :start], part, x[:, stop:])
    return torch.cat([piece for piece in pieces if piece.shape[1]], dim=1)


def run_subnet(network: nn.Module, x: Tensor, like: Tensor) -> Tensor:
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


def _total(log_scales: Sequence[Tensor], x: Tensor) -> Tensor:
    total = x.new_zeros(x.shape[0])
    for log_scale in log_scales:
        total = total + log_scale.sum(dim=(1, 2, 3))
    return total
