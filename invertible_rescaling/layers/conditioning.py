"""Conditions of bijections: one map or one vector a sample."""

from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from invertible_rescaling.errors import ConfigError, DtypeError, ShapeError

__all__: list[str] = []  # for the bijections alone

Result = TypeVar("Result")


class Conditional(Protocol):
    """A layer that declares the channels of its condition; 0 for none."""

    condition_channels: int


def apply(layer: Conditional, method: Callable[..., Result], x: Tensor, condition: Tensor | None) -> Result:
    """Call a method of a layer, with the condition where the layer takes one."""
    return method(x, condition) if layer.condition_channels else method(x)


def check_condition(condition: Tensor | None, channels: int, x: Tensor, who: str) -> None:
    """Refuse a condition that does not go with the state ``x``, ``(B, C, H, W)``.

    Raises:
        ConfigError: it is missing, or is given to what takes none.
        ShapeError: it is neither ``(B, channels, H, W)`` nor ``(B, channels)``.
        DtypeError: it is not of the dtype of ``x``.
    """
    if condition is None:
        if channels:
            raise ConfigError(
                f"{who} takes a condition of {channels} channels, (B, {channels}, H, W) or (B, {channels}), "
                "got none; pass it as the second argument, to both directions alike"
            )
        return
    check_no_condition(condition, channels, who)
    if not isinstance(condition, Tensor):
        raise DtypeError(f"the condition of {who} must be a torch.Tensor, got {type(condition).__name__}")
    batch, _, height, width = x.shape
    given, as_map, as_vector = tuple(condition.shape), (batch, channels, height, width), (batch, channels)
    if given not in (as_map, as_vector):
        raise ShapeError(
            f"beside a state of {tuple(x.shape)}, the condition of {who} must be {as_map} or, the same for "
            f"all pixels, {as_vector}; got {given}"
        )
    if condition.dtype != x.dtype:
        raise DtypeError(
            f"the condition of {who} must be of the state's dtype, {x.dtype}, got {condition.dtype}; convert "
            f"it, as in condition.to({x.dtype})"
        )


def check_no_condition(condition: Tensor | None, channels: int, who: str) -> None:
    """Refuse a condition for what takes none.

    Raises:
        ConfigError: there is one.
    """
    if condition is not None and not channels:
        raise ConfigError(
            f"{who} was made without condition_channels and takes no condition; leave it out, or make the "
            "couplings with condition_channels="
        )


def concat_condition(half: Tensor, condition: Tensor | None) -> Tensor:
    """Return a half of the state with the condition behind it."""
    if condition is None:
        return half
    if condition.dim() == 2:
        condition = condition[:, :, None, None].expand(-1, -1, *half.shape[2:])
    return torch.cat((half, condition), dim=1)


def common_channels(layers: Iterable[Conditional], who: str) -> int:
    """The condition channels of layers that share one condition; 0 where none takes any.

    Raises:
        ConfigError: they take different numbers.
    """
    found = sorted({layer.condition_channels for layer in layers} - {0})
    if len(found) > 1:
        raise ConfigError(
            f"all layers of {who} that take a condition take the same one, got condition_channels of "
            f"{' and '.join(map(str, found))}; join the conditions, or use one sequence for each"
        )
    return found[0] if found else 0
